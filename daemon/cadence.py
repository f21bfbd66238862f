"""
Which slots a cron expression names. Pure: the time is always handed in.

A slot is an instant in UTC. Expressions are read as crontab(5) reads them, on the wall clock of
the operator's time zone: a wall time that occurs twice is one slot, and one that a clock change
skips falls on the next instant that exists.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

# A slot that went by longer ago than this is let go.
OLDEST = timedelta(hours=24)

# Days. A year is a leap year and eight years have two, so that no window ends just short of a slot.
_AVERAGED_OVER = (28, 366, 8 * 365 + 2)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ITEM = re.compile(r"(\*|(\w{1,9})(-(\w{1,9}))?)(/(\d{1,4}))?", re.ASCII)


@dataclass(frozen=True)
class Schedule:
    """A parsed cron expression in a time zone."""

    expression: str
    zone: ZoneInfo
    # APScheduler ships no types; it is only asked for wall times, below.
    trigger: Any = field(repr=False, compare=False)
    # The last answer, and from when on it holds: a service asks many times between two slots.
    _answer: list[tuple[datetime, datetime]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def next_slot(self, after: datetime) -> datetime | None:
        """The first slot later than `after`, or None when the expression never fires again."""
        for since, slot in self._answer:
            if since <= after < slot:
                return slot
        found = next(self.slots(after), None)
        if found is not None:
            self._answer[:] = [(after, found)]
        return found

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Every slot later than `after`, in order."""
        # Walked in wall time, labelled UTC so that no hour is skipped or repeated on the way.
        # Two hours earlier than `after`, since around a change two wall times can share an instant.
        wall = after.astimezone(self.zone).replace(tzinfo=UTC) - timedelta(hours=2)
        last = after
        while (fires := self.trigger.get_next_fire_time(None, wall)) is not None:
            wall = fires + timedelta(minutes=1)
            slot = _instant(fires.replace(tzinfo=None), self.zone)
            if slot > last:
                last = slot
                yield slot

    def per_day(self, at: datetime) -> float:
        """
        Slots a day, averaged over the four weeks after `at`, or over the first 400 slots; of a
        schedule that has fewer than four of them over a year, and at last over eight years.
        """
        count = 0
        for days in _AVERAGED_OVER:
            until = at + timedelta(days=days)
            found = list(islice(takewhile(until.__ge__, self.slots(at)), 400))
            count = len(found)
            if count == 400:
                return count / ((found[-1] - at) / timedelta(days=1))
            if count >= 4:
                break
        return count / days


def due(schedule: Schedule, last: datetime, now: datetime) -> datetime | None:
    """
    What has fallen due since `last`: the newest slot, unless it is older than a day.

    Downtime is made up for by one slot, however many it had. A `last` in the future, as after a
    clock that was ahead, leaves nothing due.
    """
    since = max(last, now - OLDEST)
    following = schedule.next_slot(since)
    if following is None or following > now:
        return None
    return deque(takewhile(lambda slot: slot <= now, schedule.slots(since)), maxlen=1)[0]


def thinned(owed: float, cadence: float, slots_per_day: float) -> tuple[bool, float]:
    """
    Whether a slot is used where the governor wants fewer runs than the schedule has slots.

    Args:
        owed: runs, and parts of one, that the slots before have left to do; at most one.
        cadence: runs a day that are wanted.
    Returns:
        Whether to run, and what is owed after it; over many slots the average is `cadence`.
    """
    owed = min(owed, 1.0) + min(1.0, cadence / slots_per_day if slots_per_day else 1.0)
    # A hair below one is one: ten tenths do not add up to it.
    return (True, owed - 1.0) if owed > 1.0 - 1e-9 else (False, owed)


@lru_cache(maxsize=32)
def parse(expression: str, zone: ZoneInfo) -> Schedule:
    """
    Read a five-field cron expression; Sunday is 0 or 7.

    Raises:
        ValueError: says which field is wrong and how.
    """
    fields = expression.lower().split()
    if len(fields) != 5:
        raise ValueError("five fields are needed: minute hour day month weekday")
    minute, hour, day, month, weekday = fields
    common = {
        "minute": _listed(_values("minute", minute, 0, 59)),
        "hour": _listed(_values("hour", hour, 0, 23)),
        "month": _listed(_values("month", month, 1, 12, _MONTHS)),
    }
    by_day = _listed(_values("day", day, 1, 31))
    # APScheduler's week begins on Monday.
    by_weekday = _listed({(number - 1) % 7 for number in _values("weekday", weekday, 0, 7, _DAYS)})
    if day.startswith("*") or weekday.startswith("*"):
        trigger: Any = CronTrigger(**common, day=by_day, day_of_week=by_weekday, timezone=UTC)
    else:
        # crontab(5): when both are restricted, either one is enough.
        trigger = OrTrigger(
            [
                CronTrigger(**common, day=by_day, timezone=UTC),
                CronTrigger(**common, day_of_week=by_weekday, timezone=UTC),
            ]
        )
    return Schedule(expression, zone, trigger)


def _values(field: str, text: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
    """The numbers that a field names, on which every cron dialect agrees."""
    numbers = {name: str(low + index) for index, name in enumerate(names)}
    chosen: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"the {field} {item!r} is not cron")
        every, first, _, last, _, step = match.groups()
        if every == "*":
            start, end = str(low), str(high)
        else:
            start = numbers.get(first, first)
            # `5/10` means from 5 to the end by tens, as Vixie cron reads it.
            end = numbers.get(last, last) if last else str(high) if step else start
        if not (start.isdigit() and end.isdigit()):
            raise ValueError(f"the {field} {item!r} is not a number or a known name")
        if not low <= int(start) <= int(end) <= high or int(step or 1) == 0:
            raise ValueError(f"the {field} {item!r} is outside {low} to {high}")
        chosen |= set(range(int(start), int(end) + 1, int(step or 1)))
    return chosen


def _listed(chosen: set[int]) -> str:
    """Numbers as a cron list, with ranges: APScheduler tries one item after the other."""
    first = [value for value in sorted(chosen) if value - 1 not in chosen]
    last = [value for value in sorted(chosen) if value + 1 not in chosen]
    return ",".join(
        str(low) if low == high else f"{low}-{high}" for low, high in zip(first, last, strict=True)
    )


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant of a wall time: the first of two, or the end of the gap it falls into."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    # In a gap. fold=0 counted with the offset before it, so the gap ends where that offset does.
    before = wall.replace(tzinfo=zone, fold=0).utcoffset()
    after = wall.replace(tzinfo=zone, fold=1).utcoffset()
    assert before is not None
    assert after is not None
    low, high = instant - (after - before), instant
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
