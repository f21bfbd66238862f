"""Days put together: a table's rows, and what a course comes to in sentences. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from daemon.inference.ladder import Tier
from daemon.simulation.walk import Course, Point
from ledger.money import ZERO, MicroCredits

# Up to so many days a row is a day, up to so many a week, beyond that a month.
BY_DAY, BY_WEEK = 21, 120


@dataclass(frozen=True, slots=True)
class Period:
    """
    Some days in a row.

    Args:
        last: the last of them.
        days_in: how many ended in each tier, best tier first.
        cadence: runs a day on average.
        balance, runway_days: at the end.
    """

    last: date
    balance: MicroCredits
    spent: MicroCredits
    earned: MicroCredits
    runs: int
    articles: int
    cadence: float
    runway_days: float | None
    days_in: Sequence[tuple[Tier, int]]

    @classmethod
    def of(cls, points: Sequence[Point], zone: ZoneInfo) -> Period:
        """Days put together."""
        return cls(
            last=day_of(points[-1], zone),
            balance=points[-1].balance,
            spent=sum((p.spent for p in points), start=ZERO),
            earned=sum((p.earned for p in points), start=ZERO),
            runs=sum(p.runs for p in points),
            articles=sum(p.articles for p in points),
            cadence=sum(p.cadence for p in points) / len(points),
            runway_days=points[-1].runway_days,
            days_in=days_in(points),
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Days in a row in one tier, both ends included."""

    tier: Tier
    first: date
    last: date

    @property
    def days(self) -> int:
        """How many."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What a course comes to.

    Args:
        articles, digests, unpublished: runs by what they came to; the last were given up, or
            their text did not pass the desk, and are paid for all the same.
        earned: booked; `forfeited` is what the cap on a day's income kept back.
        lowest: the lowest balance that a day ended with.
        dormant: when nothing was paid for.
        days_in: how many days ended in each tier, best tier first.
    """

    balance: MicroCredits
    held: MicroCredits
    spent: MicroCredits
    earned: MicroCredits
    forfeited: MicroCredits
    articles: int
    digests: int
    unpublished: int
    lowest: MicroCredits
    lowest_on: date
    dormant: Sequence[Span]
    days_in: Sequence[tuple[Tier, int]]

    @classmethod
    def of(cls, course: Course, zone: ZoneInfo) -> Summary:
        """Every day of a course."""
        points = course.points
        lowest = min(points, key=lambda point: (point.balance, point.at))
        articles, digests = (sum(p.articles for p in points), sum(p.digests for p in points))
        return cls(
            balance=points[-1].balance,
            held=points[-1].held,
            spent=sum((p.spent for p in points), start=ZERO),
            earned=sum((p.earned for p in points), start=ZERO),
            forfeited=sum((p.forfeited for p in points), start=ZERO),
            articles=articles,
            digests=digests,
            unpublished=sum(p.runs for p in points) - articles - digests,
            lowest=lowest.balance,
            lowest_on=day_of(lowest, zone),
            dormant=[s for s in spans(points, zone) if s.tier is Tier.DORMANT],
            days_in=days_in(points),
        )


def day_of(point: Point, zone: ZoneInfo) -> date:
    """The calendar day that a point ends."""
    return (point.at - timedelta(seconds=1)).astimezone(zone).date()


def days_in(points: Sequence[Point]) -> list[tuple[Tier, int]]:
    """How many days ended in each tier, best tier first."""
    count = Counter(point.tier for point in points)
    return [(tier, count[tier]) for tier in Tier if count[tier]]


def spans(points: Sequence[Point], zone: ZoneInfo) -> list[Span]:
    """The course as stretches of one tier each."""
    found = []
    for tier, group in groupby(points, key=lambda point: point.tier):
        days = [day_of(point, zone) for point in group]
        found.append(Span(tier, days[0], days[-1]))
    return found


def unit_of(days: int) -> str:
    """What a row stands for: `day`, `week` or `month`."""
    return "day" if days <= BY_DAY else "week" if days <= BY_WEEK else "month"


def periods(course: Course, zone: ZoneInfo, unit: str) -> list[Period]:
    """A course by days, by weeks from its first day, or by calendar months."""
    return [Period.of(days, zone) for days in _grouped(course.points, zone, unit)]


def _grouped(points: Sequence[Point], zone: ZoneInfo, unit: str) -> Iterator[Sequence[Point]]:
    first = day_of(points[0], zone)

    def key(point: Point) -> object:
        day = day_of(point, zone)
        if unit == "month":
            return (day.year, day.month)
        return (day - first).days // (7 if unit == "week" else 1)

    for _, group in groupby(points, key=key):
        yield list(group)


def sentences(course: Course, summary: Summary) -> list[str]:
    """What it comes to, for a person."""
    came = [count(summary.articles, "article")]
    if summary.digests:
        came.append(f"{count(summary.digests, 'digest')} at no cost")
    if summary.unpublished:
        came.append(f"{count(summary.unpublished, 'run')} paid for and not published")
    said = [
        f"After {count(course.plan.days, 'day')}: {summary.balance} credits left;"
        f" {course.plan.balance} at the start, {summary.spent} spent, {summary.earned} earned;"
        f" {', '.join(came)}.",
        f"Lowest balance: {summary.lowest} at the end of {summary.lowest_on}.",
    ]
    if summary.dormant:
        said.append(_dormant(summary, course.plan.days))
    if summary.forfeited:
        said.append(
            f"PENSTOCK_EARN_DAILY_CAP kept back {summary.forfeited} that readers would have earned."
        )
    return said


def count(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _dormant(summary: Summary, days: int) -> str:
    asleep = sum(span.days for span in summary.dormant)
    if asleep == days:
        return "Dormant all along: nothing is paid for."
    shown = [
        f"from {span.first} to {span.last}" if span.days > 1 else f"on {span.first}"
        for span in summary.dormant[:3]
    ]
    more = len(summary.dormant) - len(shown)
    return (
        f"Dormant for {count(asleep, 'day')}: {', '.join(shown)}"
        f"{f', and {more} more times' if more else ''}."
    )
