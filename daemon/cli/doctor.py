"""`penstock doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from daemon import doctor
from daemon.app import World
from daemon.cli.context import Context, drop_to_owner
from daemon.cli.exits import Exit
from daemon.doctor import Finding, State

_MARKS = {State.OK: "✓", State.WARN: "!", State.FAIL: "✗", State.SKIPPED: "–"}
_GROUPS = {
    "machine": ("python", "sqlite", "time_zones", "clock"),
    "settings": ("settings", "limits", "prices", "secrets", "alert_url"),
    "state": ("state_folder", "room", "outbox", "backups", "lock"),
    "books": ("database", "schema", "books", "future_rows"),
    "work": ("pace", "pause", "alerts", "unconfirmed", "drafts", "last_article"),
    "sources": ("feed", "search"),
    "models": ("provider", "models"),
    "platforms": ("devto", "bluesky", "plugin", "stripe"),
}
_ORDER = [check for checks in _GROUPS.values() for check in checks]
_CODES = {
    "books": Exit.BOOKS_WRONG,
    "settings": Exit.SETTINGS,
    "prices": Exit.SETTINGS,
    # As every other command has it.
    "schema": Exit.SETTINGS,
}
_WORST_FIRST = (Exit.BOOKS_WRONG, Exit.SETTINGS, Exit.FAILED)


def run(args: Namespace) -> int:
    """Look at everything, and change nothing."""
    context = Context(args)
    # What root may do says nothing about what the service may.
    patient = doctor.admit(os.environ, args.env_file, context.clock.now(), drop_to_owner)
    found = sorted(doctor.examine(patient, World()), key=lambda f: _ORDER.index(f.check))
    context.show(document(found), human(found))
    return code(found)


def code(found: Sequence[Finding]) -> Exit:
    """The worst of what failed."""
    failed = {_CODES.get(f.check, Exit.FAILED) for f in found if f.state is State.FAIL}
    return next((code for code in _WORST_FIRST if code in failed), Exit.DONE)


def document(found: Sequence[Finding]) -> dict[str, Any]:
    """Everything that was looked at."""
    return {
        "ok": code(found) is Exit.DONE,
        "checks": [
            {"check": f.check, "state": f.state, "message": f.message, "remedy": f.remedy}
            for f in found
        ],
    }


def human(found: Sequence[Finding]) -> str:
    """The same for a person: a line for each, and what helps below what needs it."""
    lines: list[str] = []
    for group, checks in _GROUPS.items():
        lines += [group, *_lines([f for f in found if f.check in checks]), ""]
    counts = {state: sum(f.state is state for f in found) for state in State}
    verdict = ", ".join(
        f"{counts[state]} {word}"
        for state, word in (
            (State.FAIL, "failed"), (State.WARN, "to look at"), (State.OK, "well"),
            (State.SKIPPED, "skipped"),
        )
    )  # fmt: skip
    return "\n".join([*lines, verdict])


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    # What was skipped for one and the same reason is told once.
    for (_, mark, message, remedy), same in groupby(found, key=_told):
        names = ", ".join(dict.fromkeys(f.check.replace("_", " ") for f in same))
        yield f"  {mark} {names}: {message}"
        if remedy:
            yield f"      → {remedy}"


def _told(finding: Finding) -> tuple[str, str, str, str]:
    apart = "" if finding.state is State.SKIPPED else finding.check
    return apart, _MARKS[finding.state], finding.message, finding.remedy
