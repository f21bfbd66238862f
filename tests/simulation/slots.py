"""
When a schedule is due, reckoned a second time: from the expression, day by day on the wall clock.

It knows what the plans' expressions have: `*`, numbers and names in lists. A wall time that a
change of clocks skips is due at the change; one that comes twice is due the first time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


def next_slot(settings: Mapping[str, str], after: datetime) -> datetime:
    """The first slot of the settings' PENSTOCK_PUBLISH_CRON later than `after`."""
    day = after.date() - _DAY
    while True:
        for slot in _of_day(settings, day):
            if slot > after:
                return slot
        day += _DAY


def is_slot(settings: Mapping[str, str], at: datetime) -> bool:
    """Whether it is one of them."""
    return next_slot(settings, at - timedelta(microseconds=1)) == at


def _of_day(settings: Mapping[str, str], day: date) -> Iterator[datetime]:
    minute, hour, of_month, month, weekday = settings["PENSTOCK_PUBLISH_CRON"].split()
    fits = (
        (of_month, str(day.day)), (month, str(day.month)), (weekday, _WEEKDAYS[day.weekday()]),
    )  # fmt: skip
    if all(wanted == "*" or is_ in wanted.split(",") for wanted, is_ in fits):
        zone = ZoneInfo(settings["PENSTOCK_TIMEZONE"])
        for each in sorted(int(number) for number in hour.split(",")):
            yield _instant(datetime.combine(day, time(each, int(minute))), zone)


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first moment at which clocks show this, or the moment they jump over it."""
    offsets = {
        (wall + days).replace(tzinfo=zone).utcoffset() or timedelta(0) for days in (-_DAY, _DAY)
    }
    moments = sorted((wall - offset).replace(tzinfo=UTC) for offset in offsets)
    for moment in moments:
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
    moment, _ = moments
    while moment.astimezone(zone).replace(tzinfo=None) < wall:
        moment += _MINUTE
    return moment
