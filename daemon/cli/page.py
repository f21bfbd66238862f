"""
`penstock status` for a person: what the document has, as lines in sections.

Pure: the document, a time zone and whether blocks can be printed go in, text comes out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from ledger.money import ZERO, MicroCredits

BLOCKS = "▁▂▃▄▅▆▇█"
# From low to high, for terminals that have no blocks.
LETTERS = "_.-:=+*#"
# What we write ourselves, for these; what others wrote is spelt out by the stream.
_SPELT = str.maketrans({"“": '"', "”": '"', "…": "...", "–": "-"})
LABEL = 9
# Longer ones are in `runs list` and `drafts list`.
TITLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its name; one that goes on with the name above has none. `alarm` stands out."""

    name: str
    text: str
    alarm: bool = False


def printable(encoding: str | None) -> bool:
    """Whether a terminal of this encoding has the blocks."""
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sections(page: dict[str, Any], zone: tzinfo, *, blocks: bool = True) -> list[list[Line]]:
    """What there is, how it goes, what ran, what comes, what needs a hand; empty ones left out."""
    found = [
        _money(page, blocks),
        _pace(page),
        _named("ran", _ran(page["last_runs"], zone)),
        _named("next", _next(page, zone)),
        [*_paused(page), *_named("your turn", _turn(page, zone), alarm=True)],
        _named("look at", _alerts(page), alarm=True),
    ]
    if not blocks:
        found = [
            [replace(line, text=line.text.translate(_SPELT)) for line in lines] for lines in found
        ]
    return [lines for lines in found if lines]


def plain(found: Sequence[Sequence[Line]], width: int | None = None) -> str:
    """The sections as text; wrapped to a width, where there is one."""
    return "\n\n".join("\n".join(_wrapped(line, width) for line in lines) for lines in found)


def _wrapped(line: Line, width: int | None) -> str:
    head = f"{line.name:<{LABEL}} "
    if width is None or width < 2 * LABEL:
        return f"{head}{line.text}".rstrip()
    return textwrap.fill(
        line.text, width, initial_indent=head, subsequent_indent=" " * len(head),
        break_long_words=False, break_on_hyphens=False,
    ).rstrip()  # fmt: skip


def _named(name: str, texts: Sequence[str], *, alarm: bool = False) -> list[Line]:
    """Lines under one name."""
    return [Line("" if index else name, text, alarm) for index, text in enumerate(texts)]


def _safe(said: str) -> str:
    """One line on which nothing moves the cursor; what models and strangers say stands here."""
    words = " ".join(said.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)


# Money


def _money(page: dict[str, Any], blocks: bool) -> list[Line]:
    balance, spent, earned = page["balance"], page["spent"], page["earned"]
    held = f", {balance['held']} held" if balance["held"] else ""
    return [
        Line("balance", f"{balance['available']} available ({balance['posted']} posted{held})"),
        Line("trend", trend(page["trend"], blocks=blocks)),
        Line("earned", f"{earned['month']} against {spent['month']} spent in 30 d"
             f"{_covered(earned['month'], spent['month'])}"),
        Line("", f"of it {earned['notional']} notional from readers, {earned['money']} in money"),
        Line("spent", f"{spent['day']} in 24 h, {earned['day']} earned"),
    ]  # fmt: skip


def _covered(earned: MicroCredits, spent: MicroCredits) -> str:
    """Which part of what it spent it earned."""
    if spent <= ZERO or earned < ZERO:
        return ""
    return f": {100 * earned.micro // spent.micro} %"


def trend(points: Sequence[dict[str, Any]], *, blocks: bool = True) -> str:
    """A line of marks from the lowest to the highest balance, and the change in words."""
    amounts = [point["balance"] for point in points]
    change = amounts[-1] - amounts[0]
    span = _span(_time(points[-1]["at"]) - _time(points[0]["at"]))
    if change:
        way = "up" if change > ZERO else "down"
        words = f"{way} {MicroCredits(abs(change.micro))} in {span}"
    else:
        words = f"as it was {span} ago"
    return (
        f"{sparkline([amount.micro for amount in amounts], BLOCKS if blocks else LETTERS)} {words}"
    )


def sparkline(values: Sequence[int], marks: str) -> str:
    """A mark for each value, the first one for the lowest; equal values are one flat line."""
    low, high = min(values), max(values)
    if low == high:
        return marks[0] * len(values)
    return "".join(marks[(value - low) * (len(marks) - 1) // (high - low)] for value in values)


# Pace


def _pace(page: dict[str, Any]) -> list[Line]:
    pace = page["pace"]
    if pace is None:
        return []
    runway = "no end in sight" if pace["runway_days"] is None else f"{pace['runway_days']} days"
    if pace["tier"] == "dormant":
        runway = "nothing is spent"
    return [
        Line("pace", f"{pace['tier']}, {pace['cadence']} runs a day"),
        Line("runway", runway),
        Line("why", _safe(pace["reason"])),
    ]


# What ran and what comes


def _ran(runs: Sequence[dict[str, Any]], zone: tzinfo) -> list[str]:
    """The newest first, as a person asks for it."""
    if not runs:
        return ["nothing yet; `penstock once` makes the first run"]
    ended = [(run["outcome"] or run["state"]).replace("_", " ") for run in runs]
    widest, dearest = max(map(len, ended)), max(len(str(run["cost"])) for run in runs)
    return [
        f"{_local(run['started_at'], zone)}  {how:<{widest}}  {run['cost']!s:>{dearest}}"
        f"  {run['run']}  {_about(run)}"
        for run, how in zip(reversed(runs), reversed(ended), strict=True)
    ]


def _about(run: dict[str, Any]) -> str:
    """What it wrote; of what wrote nothing, or is not out, why."""
    if run["title"] and run["outcome"] in (None, "published", "dry_run"):
        return _short(f"“{_safe(run['title'])}”")
    return _short(_safe(run["reason"] or run["title"] or "goes on"))


def _short(said: str) -> str:
    return said if len(said) <= TITLE_CHARS else f"{said[: TITLE_CHARS - 1]}…"


def _next(page: dict[str, Any], zone: tzinfo) -> list[str]:
    now = _time(page["at"])
    coming = [
        (_time(at), "feeds" if what == "feed" else what)
        for what, at in page["next"].items()
        if at is not None
    ]
    width = max((len(what) for _, what in coming), default=0)
    return [
        f"{what:<{width}}  {_local(at.isoformat(), zone)}, in {_span(at - now)}"
        for at, what in coming
    ] + ([f"({zone})"] if coming else [])


# What needs a hand


def _paused(page: dict[str, Any]) -> list[Line]:
    return [Line("paused", _safe(page["pause_reason"]), alarm=True)] if page["paused"] else []


def _turn(page: dict[str, Any], zone: tzinfo) -> list[str]:
    now = _time(page["at"])
    return [
        f"{_safe(one['about'])}: `{one['command']}`{_until(one['until'], now, zone)}"
        for one in page["waiting"]
    ]


def _until(until: str | None, now: datetime, zone: tzinfo) -> str:
    if until is None:
        return ""
    left = _time(until) - now
    when = f"{_span(left)} left" if left > timedelta(0) else "overdue"
    return f" (by {_local(until, zone)}, {when})"


def _alerts(page: dict[str, Any]) -> list[str]:
    """Those that are not said above with what to type."""
    told = set[str]()
    for one in page["waiting"]:
        told |= {one["about"], f"{one['about']}: `{one['command']}`"}
    return [_safe(alert) for alert in page["alerts"] if alert not in told]


# Times


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _local(text: str, zone: tzinfo) -> str:
    """Such as `Wed 25 Nov 09:00`, on the operator's clock."""
    try:
        return f"{_time(text).astimezone(zone):%a %d %b %H:%M}"
    except OverflowError:
        return f"{_time(text).astimezone(UTC):%Y-%m-%d}"


def _span(span: timedelta) -> str:
    """Such as `2 d 3 h`, the two largest units; below a minute is none."""
    minutes = max(0, span // timedelta(minutes=1))
    parts = tuple(_units(minutes))
    return " ".join(parts[:2]) or "less than a minute"


def _units(minutes: int) -> Iterator[str]:
    days, minutes = divmod(minutes, 24 * 60)
    hours, minutes = divmod(minutes, 60)
    if days:
        yield f"{days} d"
    if hours:
        yield f"{hours} h"
    # Beside days nobody counts minutes.
    if minutes and not days:
        yield f"{minutes} min"
