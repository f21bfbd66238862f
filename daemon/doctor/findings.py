"""What a check says, how it is run so that none can spoil another, and what never stands in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from daemon.logs import Redactor

MESSAGE_CHARS_MAX = 600
_LOGIN = re.compile(r"(?<=://)[^/\s]*@")


class State(StrEnum):
    """How it stands with one thing; `skipped` was not looked at, and the message says why."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is what helps, "" where nothing needs help."""

    check: str
    state: State
    message: str
    remedy: str = ""


Findings: TypeAlias = Sequence[Finding]


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, State.OK, message)


def warn(check: str, message: str, remedy: str = "") -> Finding:
    """It works, and somebody should look at it."""
    return Finding(check, State.WARN, message, remedy)


def fail(check: str, message: str, remedy: str = "") -> Finding:
    """It does not work."""
    return Finding(check, State.FAIL, message, remedy)


def skipped(check: str, reason: str, remedy: str = "") -> Finding:
    """It was not looked at."""
    return Finding(check, State.SKIPPED, reason, remedy)


def told(check: str, problem: str, otherwise: str) -> Finding:
    """
    A failure in the words of our errors: the problem, and behind a semicolon the remedy.

    Args:
        otherwise: what helps where they do not say.
    """
    message, _, remedy = problem.partition("; ")
    return fail(check, message, remedy or otherwise)


def looked(check: str, look: Callable[[], Findings]) -> Findings:
    """A check's findings; what it did not expect is a finding, too."""
    try:
        return look()
    except OSError as error:
        return [_unreadable(check, error)]
    except Exception as error:  # noqa: BLE001 - a check that broke must not hide the others
        return [_unexpected(check, error)]


async def asked(check: str, look: Callable[[], Awaitable[Findings]], limit_s: float) -> Findings:
    """The same of a check that waits for somebody else, for so long at most."""
    try:
        async with asyncio.timeout(limit_s):
            return await look()
    except TimeoutError:
        return [
            fail(check, f"gave no whole answer within {limit_s:g} s", "look whether it is well")
        ]
    except OSError as error:
        return [_unreadable(check, error)]
    except Exception as error:  # noqa: BLE001 - a check that broke must not hide the others
        return [_unexpected(check, error)]


def _unreadable(check: str, error: OSError) -> Finding:
    what = f"{error.filename}: " if error.filename else ""
    said = error.strerror or type(error).__name__
    return fail(check, f"{what}{said}", "look at it, and run this as the user that runs penstock")


def _unexpected(check: str, error: Exception) -> Finding:
    return fail(
        check,
        f"the check itself failed: {type(error).__name__}: {error}",
        "report this with the output of `penstock --version`",
    )


class Mask:
    """
    Takes secrets out of what is said, however they were written there.

    Args:
        secrets: as `logs.Redactor` has them.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = set(secrets)
        self._redact = Redactor(self._secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Know more of them."""
        self._secrets.update(secrets)
        self._redact = Redactor(self._secrets)

    def masked(self, finding: Finding) -> Finding:
        """A finding that can be shown to anyone: on one line, of a bounded length."""
        return replace(
            finding, message=self._clean(finding.message), remedy=self._clean(finding.remedy)
        )

    def _clean(self, text: str) -> str:
        # Logins in addresses are nobody's business, whether or not we know them as secrets.
        text = _LOGIN.sub("***@", self._redact(text))
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= MESSAGE_CHARS_MAX else f"{line[: MESSAGE_CHARS_MAX - 1]}…"
