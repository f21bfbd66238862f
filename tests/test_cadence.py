"""A cron expression names the slots that crontab(5) says it does, on the operator's wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.cadence import Schedule, parse
from tests.simulation.slots import next_slot

NEW_YORK, LORD_HOWE, TROLL = (
    ZoneInfo(name) for name in ("America/New_York", "Australia/Lord_Howe", "Antarctica/Troll")
)
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    """The slots later than start, up to and with end."""
    return list(takewhile(lambda slot: slot <= end, schedule.slots(start)))


def told(slots: list[datetime]) -> list[str]:
    return [slot.strftime("%m-%d %H:%M") for slot in slots]


# Thursday, 2026-01-01 00:00 UTC, and the first slots after it.
TABLE = [
    ("* * * * *", ["01-01 00:01", "01-01 00:02"]),
    ("0 9 * * mon,wed,fri", ["01-02 09:00", "01-05 09:00", "01-07 09:00", "01-09 09:00"]),
    ("0 9 * * MON,Wed", ["01-05 09:00", "01-07 09:00"]),
    ("*/30 * * * *", ["01-01 00:30", "01-01 01:00", "01-01 01:30"]),
    ("7 * * * *", ["01-01 00:07", "01-01 01:07"]),
    ("0 0 * * 0", ["01-04 00:00", "01-11 00:00"]),
    ("0 0 * * 7", ["01-04 00:00", "01-11 00:00"]),
    ("0 0 * * sun", ["01-04 00:00", "01-11 00:00"]),
    ("0 0 * * 1", ["01-05 00:00", "01-12 00:00"]),
    ("0 0 * * 6", ["01-03 00:00", "01-10 00:00"]),
    ("0 0 * * 0,7", ["01-04 00:00", "01-11 00:00"]),
    ("0 0 * * 5-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00", "01-09 00:00"]),
    ("0 0 * * 0-2", ["01-04 00:00", "01-05 00:00", "01-06 00:00", "01-11 00:00"]),
    ("0 0 * * mon-wed", ["01-05 00:00", "01-06 00:00", "01-07 00:00", "01-12 00:00"]),
    ("0 0 * * */3", ["01-03 00:00", "01-04 00:00", "01-07 00:00", "01-10 00:00"]),
    ("0 0 1 feb *", ["02-01 00:00", "02-01 00:00"]),
    ("0 0 1 jan-mar/2 *", ["03-01 00:00", "01-01 00:00", "03-01 00:00"]),
    ("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
    ("0 0 29 2 *", ["02-29 00:00"]),
    ("5/20 0 * * *", ["01-01 00:05", "01-01 00:25", "01-01 00:45", "01-02 00:05"]),
    ("10-20/5 0 * * *", ["01-01 00:10", "01-01 00:15", "01-01 00:20", "01-02 00:10"]),
    ("1,3,2 0 * * *", ["01-01 00:01", "01-01 00:02", "01-01 00:03", "01-02 00:01"]),
    ("59 23 31 12 *", ["12-31 23:59"]),
    ("00 009 * * *", ["01-01 09:00", "01-02 09:00"]),
    ("*/45 0 * * *", ["01-01 00:45", "01-02 00:00", "01-02 00:45"]),
    ("  0   9  *\t* * ", ["01-01 09:00"]),
    # Both days restricted: either is enough, as crontab(5) says.
    ("0 0 13 * fri", ["01-02 00:00", "01-09 00:00", "01-13 00:00", "01-16 00:00"]),
    ("0 0 1,15 * 0", ["01-04 00:00", "01-11 00:00", "01-15 00:00", "01-18 00:00"]),
    ("0 0 30 2 1", ["02-02 00:00", "02-09 00:00"]),
    ("0 0 1-31 * 1", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
    # A day that begins with a star restricts nothing on its own, so both must hold.
    ("0 0 */2 * mon", ["01-05 00:00", "01-19 00:00"]),
    ("0 0 5-11 * */7", ["01-11 00:00", "02-08 00:00"]),
]


@pytest.mark.parametrize(("expression", "slots"), TABLE, ids=[row[0] for row in TABLE])
def test_an_expression_names_the_slots_crontab_says(expression: str, slots: list[str]) -> None:
    schedule = parse(expression, ZoneInfo("UTC"))
    assert told(list(islice(schedule.slots(utc("2026-01-01")), len(slots)))) == slots


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 9 * * mon 2026", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("*/00 * * * *", "minute"),
        ("*/ * * * *", "minute"),
        ("1- * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("1/2/3 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("*-5 * * * *", "minute"),
        ("1.5 * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("² * * * *", "minute"),
        ("x * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* jan * * *", "hour"),
        ("* * 0 * *", "day"),
        ("* * 32 * *", "day"),
        ("* * L * *", "day"),
        ("* * ? * *", "day"),
        ("* * mon * *", "day"),
        ("* * * 0 *", "month"),
        ("* * * 13 *", "month"),
        ("* * * january *", "month"),
        ("* * * mon *", "month"),
        ("* * * * 8", "weekday"),
        ("* * * * sunday", "weekday"),
        ("* * * * fri-mon", "weekday"),
        ("* * * * mon#2", "weekday"),
        ("* * * * " + "9" * 5000, "weekday"),
        ("*/" + "9" * 5000 + " * * * *", "minute"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_cron_is_refused_by_the_name_of_its_field(expression: str, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        parse(expression, ZoneInfo("UTC"))


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * 31 nov *"])
def test_an_expression_that_never_fires_says_so_quickly(expression: str) -> None:
    started = time.thread_time()
    schedule = parse(expression, NEW_YORK)
    assert schedule.next_slot(utc("2026-01-01")) is None
    assert schedule.per_day(utc("2026-01-01")) == 0
    assert time.thread_time() - started < 4


# Changes of the clock


def test_slots_follow_the_wall_clock_through_the_year() -> None:
    schedule = parse("0 9 1 1,7 *", NEW_YORK)
    slots = between(schedule, utc("2026-01-01"), utc("2026-12-31"))
    assert slots == [utc("2026-01-01 14:00"), utc("2026-07-01 13:00")]
    assert all(slot.tzinfo is UTC for slot in slots)


def test_new_york_a_wall_time_that_occurs_twice_is_one_slot() -> None:
    # On 2026-11-01 01:30 comes at 05:30 UTC and again at 06:30 UTC.
    schedule = parse("30 1 * * *", NEW_YORK)
    slots = between(schedule, utc("2026-10-31"), utc("2026-11-03"))
    assert told(slots) == ["10-31 05:30", "11-01 05:30", "11-02 06:30"]
    assert schedule.next_slot(utc("2026-11-01 05:30")) == utc("2026-11-02 06:30")
    assert schedule.next_slot(utc("2026-11-01 06:29")) == utc("2026-11-02 06:30")
    assert schedule.next_slot(utc("2026-11-01 05:29")) == utc("2026-11-01 05:30")


def test_new_york_a_wall_time_that_is_skipped_fires_when_time_goes_on() -> None:
    # On 2026-03-08 the clock jumps from 02:00 to 03:00, at 07:00 UTC.
    schedule = parse("30 2 * * *", NEW_YORK)
    slots = between(schedule, utc("2026-03-07"), utc("2026-03-10"))
    assert told(slots) == ["03-07 07:30", "03-08 07:00", "03-09 06:30"]
    assert schedule.next_slot(utc("2026-03-08 06:59")) == utc("2026-03-08 07:00")
    assert schedule.next_slot(utc("2026-03-08 07:00")) == utc("2026-03-09 06:30")


def test_new_york_all_skipped_times_and_the_one_they_fall_on_are_one_slot() -> None:
    schedule = parse("*/20 2-3 * * *", NEW_YORK)
    slots = between(schedule, utc("2026-03-08 05:00"), utc("2026-03-08 12:00"))
    assert told(slots) == ["03-08 07:00", "03-08 07:20", "03-08 07:40"]


def test_new_york_an_hour_that_repeats_is_not_walked_twice() -> None:
    schedule = parse("*/30 * * * *", NEW_YORK)
    slots = between(schedule, utc("2026-11-01 04:00"), utc("2026-11-01 08:00"))
    assert told(slots) == [
        "11-01 04:30", "11-01 05:00", "11-01 05:30", "11-01 07:00", "11-01 07:30", "11-01 08:00",
    ]  # fmt: skip


def test_lord_howe_changes_by_half_an_hour() -> None:
    # 2026-10-04 02:00 to 02:30 at 15:30 UTC the day before; 2026-04-05 02:00 back to 01:30.
    skipped = parse("15 2 * * *", LORD_HOWE)
    slots = between(skipped, utc("2026-10-02"), utc("2026-10-05"))
    assert told(slots) == ["10-02 15:45", "10-03 15:30", "10-04 15:15"]
    repeated = parse("45 1 * * *", LORD_HOWE)
    slots = between(repeated, utc("2026-04-03 12:00"), utc("2026-04-06"))
    assert told(slots) == ["04-03 14:45", "04-04 14:45", "04-05 15:15"]


def test_troll_changes_by_two_hours() -> None:
    # 2026-03-29 01:00 to 03:00 at 01:00 UTC; 2026-10-25 03:00 back to 01:00 at 01:00 UTC.
    skipped = parse("*/30 1-2 * * *", TROLL)
    slots = between(skipped, utc("2026-03-28 12:00"), utc("2026-03-29 23:59"))
    assert told(slots) == ["03-29 01:00", "03-29 23:00", "03-29 23:30"]
    repeated = parse("30 1,2 * * *", TROLL)
    slots = between(repeated, utc("2026-10-24 12:00"), utc("2026-10-26 12:00"))
    assert told(slots) == ["10-24 23:30", "10-25 00:30", "10-26 01:30", "10-26 02:30"]


def test_a_day_that_a_country_left_out_is_one_slot() -> None:
    # Samoa went from 29 to 31 December 2011.
    schedule = parse("0 9,15 * * *", ZoneInfo("Pacific/Apia"))
    slots = between(schedule, utc("2011-12-29 12:00"), utc("2012-01-01"))
    assert told(slots) == [
        "12-29 19:00", "12-30 01:00", "12-30 10:00", "12-30 19:00", "12-31 01:00", "12-31 19:00",
    ]  # fmt: skip


# Laws


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """One cron field, in numbers, of any shape."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.integers(1, high)
    one = st.one_of(
        st.just("*"),
        number.map(str),
        span,
        st.tuples(st.one_of(st.just("*"), span, number.map(str)), step).map("{0[0]}/{0[1]}".format),
    )
    return st.lists(one, min_size=1, max_size=3).map(",".join)


EXPRESSIONS = st.tuples(
    st.one_of(field(0, 59), st.just("*/10"), st.just("*")),
    st.one_of(st.just("*"), st.just("0-3"), field(0, 23)),
    st.one_of(st.just("*"), st.just("*"), field(1, 31)),
    st.one_of(st.just("*"), st.just("*"), field(1, 12)),
    st.one_of(st.just("*"), st.just("*"), field(0, 7)),
).map(" ".join)

# Around each of these the zone changes its clock.
CHANGES = [
    ("America/New_York", "2026-03-08 07:00"),
    ("America/New_York", "2026-11-01 06:00"),
    ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),
    ("Antarctica/Troll", "2026-03-29 01:00"),
    ("Antarctica/Troll", "2026-10-25 01:00"),
    ("Pacific/Apia", "2011-12-30 10:00"),
    ("America/St_Johns", "2010-11-07 02:31"),
    ("Africa/Casablanca", "2026-02-15 02:00"),
    ("Europe/Berlin", "2026-03-29 01:00"),
    ("Asia/Pyongyang", "2015-08-14 15:00"),
    ("Asia/Kolkata", "2026-05-05 05:05"),
    ("UTC", "2028-02-29 00:00"),
]
MOMENTS = st.tuples(
    st.sampled_from(CHANGES), st.integers(-30 * 60, 6 * 60), st.integers(0, 59)
).map(
    lambda drawn: (
        ZoneInfo(drawn[0][0]),
        utc(drawn[0][1]) + timedelta(minutes=drawn[1], seconds=drawn[2]),
    )
)


def meant(spec: str, low: int, high: int) -> set[int]:
    """The numbers of one field, read a second time by other means."""
    numbers: set[int] = set()
    for part in spec.split(","):
        base, _, step = part.partition("/")
        first, _, last = base.partition("-")
        start = low if base == "*" else int(first)
        end = high if base == "*" or (step and not last) else int(last or first)
        numbers |= {n for n in range(start, end + 1) if (n - start) % int(step or 1) == 0}
    return numbers


def matcher(expression: str) -> Callable[[datetime], bool]:
    """Whether a wall time matches, straight from crontab(5)."""
    minute, hour, day, month, weekday = expression.split()
    minutes, hours, months = meant(minute, 0, 59), meant(hour, 0, 23), meant(month, 1, 12)
    days, weekdays = meant(day, 1, 31), {n % 7 for n in meant(weekday, 0, 7)}
    starred = day.startswith("*") or weekday.startswith("*")

    def fires(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        return (
            wall.minute in minutes
            and wall.hour in hours
            and wall.month in months
            and (by_day and by_weekday if starred else by_day or by_weekday)
        )

    return fires


def expected(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Every slot later than start up to end, found by looking at each minute there is."""
    fires = matcher(expression)
    instant = start.replace(second=0)
    wall = instant.astimezone(zone)
    while (instant := instant + MINUTE) <= end:
        before, wall = wall, instant.astimezone(zone)
        walls = [] if wall.fold else [wall.replace(tzinfo=None)]
        # What the clock jumped over falls on the first minute after.
        skipped = before.replace(tzinfo=None) + MINUTE
        while wall.utcoffset() != before.utcoffset() and skipped < wall.replace(tzinfo=None):
            walls.append(skipped)
            skipped += MINUTE
        if any(fires(candidate) for candidate in walls):
            yield instant


@settings(max_examples=30, deadline=None)
@given(EXPRESSIONS, MOMENTS)
def test_slots_are_those_that_a_look_at_every_minute_finds(
    expression: str, moment: tuple[ZoneInfo, datetime]
) -> None:
    zone, start = moment
    end = start + timedelta(hours=36)
    found = between(parse(expression, zone), start, end)
    assert found == list(expected(expression, zone, start, end))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["0 9 * * mon,wed,fri", "30 2 * * tue,sun", "45 1,3 * * *"])
def test_the_reckoning_of_the_simulation_comes_to_the_same(expression: str, zone: str) -> None:
    ours = parse(expression, ZoneInfo(zone))
    theirs = {"PENSTOCK_PUBLISH_CRON": expression, "PENSTOCK_TIMEZONE": zone}
    slot = datetime(2027, 1, 1, tzinfo=UTC)
    while slot.year < 2029:
        following = ours.next_slot(slot)
        assert following == next_slot(theirs, slot)
        assert following is not None
        slot = following


@settings(max_examples=50, deadline=None)
@given(EXPRESSIONS, MOMENTS)
def test_slots_only_go_forward_and_the_next_is_always_later(
    expression: str, moment: tuple[ZoneInfo, datetime]
) -> None:
    zone, start = moment
    schedule = parse(expression, zone)
    slots = list(islice(schedule.slots(start), 8))
    assert all(earlier < later for earlier, later in zip([start, *slots], slots, strict=False))
    assert all(slot.second == slot.microsecond == 0 for slot in slots)
    # Asked again from any slot, the walk goes on as if it had never stopped.
    for here, following in pairwise(slots):
        assert schedule.next_slot(here) == following
    if slots:
        assert schedule.next_slot(start) == slots[0]
        assert schedule.next_slot(slots[0] - timedelta(microseconds=1)) == slots[0]


@settings(max_examples=50, deadline=None)
@given(
    EXPRESSIONS, MOMENTS,
    st.lists(st.timedeltas(timedelta(days=-3), timedelta(days=3)), min_size=2, max_size=8),
)  # fmt: skip
def test_what_was_asked_before_changes_no_answer(
    expression: str, moment: tuple[ZoneInfo, datetime], steps: list[timedelta]
) -> None:
    zone, now = moment
    asked = parse(expression, zone)
    for step in steps:
        now += step
        assert asked.next_slot(now) == next(asked.slots(now), None)


@pytest.mark.parametrize(
    ("expression", "per_day"),
    [
        ("0 9 * * *", 1.0),
        ("0 9 * * mon,wed,fri", 3 / 7),
        ("*/30 * * * *", 48.0),
        ("* * * * *", 1440.0),
        ("0 0 1 * *", 12 / 366),
        ("0 0 1 */6 *", 2 / 365.25),
        ("0 0 29 2 *", 1 / (4 * 365.25)),
    ],
)
def test_slots_a_day_are_counted_as_they_will_fall(expression: str, per_day: float) -> None:
    schedule = parse(expression, ZoneInfo("UTC"))
    assert schedule.per_day(utc("2026-01-04")) == pytest.approx(per_day, rel=0.01)
    # At a slot itself the next may be further off than four weeks.
    slot = next(schedule.slots(utc("2026-01-04")))
    assert schedule.per_day(slot) == pytest.approx(per_day, rel=0.01)
