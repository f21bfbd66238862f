"""
A course as an SVG: the balance over the tiers, the cadence, and what came in and went out. Pure.

Written by hand, because three panels of lines and bars need no plotting library. Colours are told
apart by lightness as well as by hue, and the legend names them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from html import escape
from itertools import pairwise
from zoneinfo import ZoneInfo

from daemon.inference.ladder import Tier
from daemon.simulation.periods import BY_WEEK, Summary, count, day_of, periods, spans
from daemon.simulation.walk import Course
from ledger.money import MICRO_PER_CREDIT, MicroCredits

WIDTH, HEIGHT = 960, 700
LEFT, RIGHT = 76, 936
BALANCE, CADENCE, FLOW = (116, 376), (420, 502), (546, 640)  # top and bottom of each panel

FILL = {
    Tier.SURPLUS: "#bfe3c0",
    Tier.STANDARD: "#d6e8f7",
    Tier.ECONOMY: "#fdeeb5",
    Tier.THROTTLED: "#f8cfa4",
    Tier.DORMANT: "#c9c9cf",
}
INK, FAINT, GRID, LINE, RESERVE = "#1d2430", "#5b6472", "#e3e6ea", "#14416b", "#b3261e"
EARNED, SPENT = "#2c8a4b", "#c2571a"

_STYLE = f"""
text {{ font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-size: 12px; fill: {FAINT}; }}
.title {{ font-size: 20px; font-weight: 600; fill: {INK}; }}
.panel {{ font-size: 13px; font-weight: 600; fill: {INK}; }}
.tier {{ shape-rendering: crispEdges; }}
.grid {{ stroke: {GRID}; stroke-width: 1; }}
.axis {{ stroke: {FAINT}; stroke-width: 1; }}
.balance {{ fill: none; stroke: {LINE}; stroke-width: 2; stroke-linejoin: round; }}
.cadence {{ fill: {LINE}; fill-opacity: 0.18; stroke: {LINE}; stroke-width: 1.5; }}
.reserve {{ stroke: {RESERVE}; stroke-width: 1.5; stroke-dasharray: 6 4; }}
"""


def svg(course: Course, summary: Summary, zone: ZoneInfo, reserve: MicroCredits) -> str:
    """The whole picture; the same course gives the same bytes."""
    return "\n".join(_Picture(course, summary, zone, reserve).elements()) + "\n"


class _Picture:
    """Where things stand on the page."""

    def __init__(
        self, course: Course, summary: Summary, zone: ZoneInfo, reserve: MicroCredits
    ) -> None:
        self._course = course
        self._summary = summary
        self._zone = zone
        self._reserve = reserve
        self._first = day_of(course.points[0], zone)
        self._balances = [
            _credits(course.plan.balance),
            *(_credits(point.balance) for point in course.points),
        ]

    def elements(self) -> Iterator[str]:
        """Every element, back to front."""
        plan = self._course.plan
        title = f"Penstock: {count(plan.days, 'simulated day')}"
        about = (
            f"{self._first} to {self._day(plan.days - 1)}, from {plan.balance} to"
            f" {self._summary.balance} credits: {self._summary.spent} spent,"
            f" {self._summary.earned} earned, {count(self._summary.articles, 'article')}"
        )
        assumed = f"Readers, assumed: {plan.audience}. Seed {plan.seed}."
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title about">'
        )
        yield f'<title id="title">{escape(title)}</title>'
        yield f'<desc id="about">{escape(f"{about}. {assumed}")}</desc>'
        yield f"<style>{_STYLE}</style>"
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
        yield _text(LEFT, 34, title, cls="title")
        yield _text(LEFT, 55, about)
        yield _text(LEFT, 72, assumed)
        yield from self._balance()
        yield from self._cadence()
        yield from self._flow()
        yield from self._legend()
        yield "</svg>"

    def _balance(self) -> Iterator[str]:
        top, bottom = BALANCE
        low = min(0.0, *self._balances)
        # A little more than the highest, so that no line runs along the edge.
        high = max(*self._balances, _credits(self._reserve)) * 1.02 or 1.0
        marks = _marks(low, high, 6)
        scale = _Scale(marks[0], marks[-1], top, bottom)
        yield _text(LEFT, top - 12, "Balance, credits", cls="panel")
        for span in spans(self._course.points, self._zone):
            left, right = (
                self._x((span.first - self._first).days),
                self._x((span.last - self._first).days + 1),
            )
            yield (
                f'<rect class="tier" x="{left:.1f}" y="{top}" width="{right - left:.1f}"'
                f' height="{bottom - top}" fill="{FILL[span.tier]}">'
                f"<title>{span.tier}: {span.first} to {span.last}</title></rect>"
            )
        yield from self._frame(scale, marks, grid=False)
        reserve = scale.y(_credits(self._reserve))
        yield (
            f'<line class="reserve" x1="{LEFT}" y1="{reserve:.1f}" x2="{RIGHT}"'
            f' y2="{reserve:.1f}"/>'
        )
        steps = " ".join(
            f"{self._x(day):.1f},{scale.y(balance):.1f}"
            for day, balance in enumerate(self._balances)
        )
        yield f'<polyline class="balance" points="{steps}"/>'
        yield from self._lowest(scale)

    def _lowest(self, scale: _Scale) -> Iterator[str]:
        """The lowest point, named where there is room for its name."""
        lowest = _credits(self._summary.lowest)
        day = (self._summary.lowest_on - self._first).days + 1
        x, y = self._x(day), scale.y(lowest)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{LINE}"/>'
        anchor = "start" if x < 300 else "end"
        yield _text(
            x + (8 if anchor == "start" else -8), y - 9 if y > scale.bottom - 24 else y + 18,
            f"lowest: {lowest:.2f}", anchor=anchor,
            halo=True,
        )  # fmt: skip

    def _cadence(self) -> Iterator[str]:
        top, bottom = CADENCE
        highest = max(point.cadence for point in self._course.points)
        marks = _marks(0.0, highest * 1.02 or 1.0, 3)
        scale = _Scale(marks[0], marks[-1], top, bottom)
        yield _text(LEFT, top - 12, "Cadence, runs a day", cls="panel")
        yield from self._frame(scale, marks)
        corners = [f"{LEFT},{scale.y(0):.1f}"]
        for day, point in enumerate(self._course.points):
            y = scale.y(point.cadence)
            corners += [f"{self._x(day):.1f},{y:.1f}", f"{self._x(day + 1):.1f},{y:.1f}"]
        corners.append(f"{RIGHT},{scale.y(0):.1f}")
        yield f'<polygon class="cadence" points="{" ".join(corners)}"/>'

    def _flow(self) -> Iterator[str]:
        top, bottom = FLOW
        unit = "day" if self._course.plan.days <= 45 else "week"
        found = periods(self._course, self._zone, unit)
        highest = max(_credits(max(p.spent, p.earned)) for p in found)
        marks = _marks(0.0, highest * 1.02 or 1.0, 3)
        scale = _Scale(marks[0], marks[-1], top, bottom)
        yield _text(LEFT, top - 12, f"Earned and spent, credits a {unit}", cls="panel")
        yield from self._frame(scale, marks)
        ends = [0, *((p.last - self._first).days + 1 for p in found)]
        for (begin, end), period in zip(pairwise(ends), found, strict=True):
            left, width = self._x(begin), self._x(end) - self._x(begin)
            bars = ((EARNED, "earned", period.earned), (SPENT, "spent", period.spent))
            for place, (colour, name, amount) in enumerate(bars):
                y = scale.y(_credits(amount))
                yield (
                    f'<rect x="{left + width * (0.12 + 0.4 * place):.1f}" y="{y:.1f}"'
                    f' width="{width * 0.36:.1f}" height="{scale.y(0) - y:.1f}" fill="{colour}">'
                    f"<title>{name} {amount}, to {period.last}</title></rect>"
                )
        yield from self._dates(bottom)

    def _frame(self, scale: _Scale, marks: Sequence[float], *, grid: bool = True) -> Iterator[str]:
        """The axes of a panel with their labels; the grid shows through the tiers' colours."""
        places = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))
        for mark in marks:
            y = scale.y(mark)
            colour = "" if grid else ' stroke="#ffffff" stroke-opacity="0.8"'
            cls = ' class="grid"' if grid else ""
            yield f'<line{cls}{colour} x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>'
            yield _text(LEFT - 8, y + 4, f"{mark:.{places}f}", anchor="end")
        yield f'<line class="axis" x1="{LEFT}" y1="{scale.top}" x2="{LEFT}" y2="{scale.bottom}"/>'
        yield (
            f'<line class="axis" x1="{LEFT}" y1="{scale.bottom}" x2="{RIGHT}" y2="{scale.bottom}"/>'
        )
        for day, _ in self._ticks():
            x = self._x(day)
            yield (
                f'<line class="axis" x1="{x:.1f}" y1="{scale.bottom}" x2="{x:.1f}"'
                f' y2="{scale.bottom + 4}"/>'
            )

    def _dates(self, bottom: float) -> Iterator[str]:
        for day, label in self._ticks():
            yield _text(self._x(day), bottom + 18, label, anchor="middle")

    def _ticks(self) -> list[tuple[int, str]]:
        """Days from the first one, with their labels: some ten, at months, weeks or days."""
        days = self._course.plan.days
        if days <= BY_WEEK:
            step = max(1, math.ceil(days / 12))
            step = step if step <= 2 else math.ceil(step / 7) * 7
            return [(day, f"{self._day(day):%d %b}") for day in range(0, days, step)]
        months = [day for day in range(days) if self._day(day).day == 1]
        step = math.ceil(len(months) / 13)
        return [(day, f"{self._day(day):%b %Y}") for day in months[::step]]

    def _legend(self) -> Iterator[str]:
        x, y = LEFT, 680
        seen = {tier for tier, _ in self._summary.days_in}
        days = dict(self._summary.days_in)
        for tier in Tier:
            label = f"{tier}, {days[tier]} d" if tier in seen else str(tier)
            yield (
                f'<rect x="{x}" y="{y - 10}" width="14" height="12" fill="{FILL[tier]}"'
                f' stroke="{FAINT}" stroke-width="0.5"/>'
            )
            yield _text(x + 19, y, label)
            x += 36 + round(6.4 * len(label))
        for name, mark in (
            ("balance", f'<line class="balance" x1="{{}}" y1="{y - 4}" x2="{{}}" y2="{y - 4}"/>'),
            ("reserve", f'<line class="reserve" x1="{{}}" y1="{y - 4}" x2="{{}}" y2="{y - 4}"/>'),
        ):
            yield mark.format(x, x + 18)
            yield _text(x + 23, y, name)
            x += 82
        for name, colour in (("earned", EARNED), ("spent", SPENT)):
            yield f'<rect x="{x}" y="{y - 10}" width="8" height="12" fill="{colour}"/>'
            yield _text(x + 13, y, name)
            x += 64

    def _x(self, day: float) -> float:
        return LEFT + (RIGHT - LEFT) * day / self._course.plan.days

    def _day(self, number: int) -> date:
        return self._first + timedelta(days=number)


class _Scale:
    """Values to heights on the page, which count from the top."""

    def __init__(self, low: float, high: float, top: float, bottom: float) -> None:
        self.top, self.bottom = top, bottom
        self._low, self._span = low, high - low

    def y(self, value: float) -> float:
        """Where a value stands."""
        return self.bottom - (self.bottom - self.top) * (value - self._low) / self._span


def _marks(low: float, high: float, count_max: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5."""
    rough = (high - low) / count_max
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _text(
    x: float, y: float, words: str, *, cls: str = "", anchor: str = "start", halo: bool = False
) -> str:
    attributes = f' class="{cls}"' if cls else ""
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    if halo:
        # Readable across whatever line or colour it lies on.
        attributes += (
            f' style="fill: {INK}; paint-order: stroke; stroke: #ffffff; stroke-width: 3px"'
        )
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'


def _credits(amount: MicroCredits) -> float:
    """For the eye only; nothing is computed from it."""
    return amount.micro / MICRO_PER_CREDIT
