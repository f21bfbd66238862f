"""`penstock simulate`: what the settings would do, before a credit is spent."""

from __future__ import annotations

import os
from argparse import Namespace
from datetime import UTC
from pathlib import Path
from typing import Any

from daemon import look
from daemon.cli.context import Context, UsageError, moment, table
from daemon.cli.exits import Exit
from daemon.inference.ladder import Tier
from daemon.inference.prices import UnknownPrice
from daemon.options import did_you_mean
from daemon.settings import Problem, Settings, SettingsError
from daemon.simulation.audience import AUDIENCE_DEFAULT, AUDIENCES, Audience
from daemon.simulation.periods import Period, Summary, periods, sentences, unit_of
from daemon.simulation.picture import svg
from daemon.simulation.walk import PLATFORMS, Course, Plan, Point, simulate
from ledger import store
from ledger.errors import SchemaTooOld
from ledger.money import ZERO, AmountError, MicroCredits

PICTURE_DEFAULT = "penstock-simulation.svg"
# Ten years; beyond that nothing of the assumptions is left.
DAYS_MAX = 3660


def run(args: Namespace) -> int:
    """Simulate and show it; of the operator's database only the balance is read."""
    context = Context(args)
    settings = context.settings(for_run=False)
    plan = _plan(context, settings)
    picture = _picture(args)
    try:
        course = simulate(settings, plan)
        notes = _notes(settings, plan)
    except UnknownPrice as error:
        raise SettingsError([Problem("PENSTOCK_PRICES", str(error))]) from None
    summary = Summary.of(course, settings.zone)
    if picture is not None:
        _write(picture, svg(course, summary, settings.zone, settings.policy.reserve))
    context.show(
        document(course, summary, notes, picture),
        human(course, summary, notes, picture, settings),
    )
    return Exit.DONE


def document(
    course: Course, summary: Summary, notes: list[str], picture: Path | None
) -> dict[str, Any]:
    """The course as JSON."""
    plan = course.plan
    return {
        "days": plan.days,
        "seed": plan.seed,
        "audience": plan.audience.name,
        "start": {"at": moment(plan.start), "balance": plan.balance, "tier": course.first.tier},
        "points": [_point(point) for point in course.points],
        "summary": {
            "balance": summary.balance,
            "held": summary.held,
            "spent": summary.spent,
            "earned": summary.earned,
            "forfeited": summary.forfeited,
            "articles": summary.articles,
            "digests": summary.digests,
            "unpublished": summary.unpublished,
            "lowest": {"balance": summary.lowest, "day": summary.lowest_on.isoformat()},
            "dormant": [
                {"first": span.first.isoformat(), "last": span.last.isoformat()}
                for span in summary.dormant
            ],
            "days_in": {str(tier): days for tier, days in summary.days_in},
        },
        "notes": notes,
        "picture": None if picture is None else str(picture),
    }


def human(
    course: Course, summary: Summary, notes: list[str], picture: Path | None, settings: Settings
) -> str:
    """The course for a person."""
    plan = course.plan
    unit = unit_of(plan.days)
    headers = ("until", "balance", "spent", "earned", "articles", "runs a day", "runway", "days in")
    rows = [_row(period, unit) for period in periods(course, settings.zone, unit)]
    lines = [
        table(headers, rows, ""),
        "",
        *sentences(course, summary),
        f"Readers, assumed: {plan.audience}. Seed {plan.seed}; another one draws other luck.",
        *(f"look at   {note}" for note in notes),
    ]
    if picture is not None:
        lines.append(f"picture   {picture}")
    return "\n".join(lines)


def _row(period: Period, unit: str) -> tuple[Any, ...]:
    runway = "no end" if period.runway_days is None else f"{period.runway_days:.0f} d"
    if period.days_in[-1][0] is Tier.DORMANT and not period.cadence:
        runway = "–"
    tiers = ", ".join(
        str(tier) if unit == "day" else f"{tier} {days}" for tier, days in period.days_in
    )
    return (
        period.last,
        period.balance,
        period.spent,
        period.earned,
        period.articles,
        f"{period.cadence:.2f}",
        runway,
        tiers,
    )


def _point(point: Point) -> dict[str, Any]:
    return {
        "at": moment(point.at),
        "balance": point.balance,
        "held": point.held,
        "tier": point.tier,
        "cadence": f"{point.cadence:.3f}",
        "runway_days": None if point.runway_days is None else round(point.runway_days, 1),
        "spent": point.spent,
        "earned": point.earned,
        "forfeited": point.forfeited,
        "runs": point.runs,
        "articles": point.articles,
        "digests": point.digests,
    }


def _plan(context: Context, settings: Settings) -> Plan:
    args = context.args
    if args.days > DAYS_MAX:
        raise UsageError(f"--days {args.days}: at most {DAYS_MAX} can be simulated")
    # From the next midnight on: every day is whole, and the same all day long.
    _, midnight = look.calendar_day(context.clock.now(), settings.zone)
    return Plan(
        start=midnight.astimezone(UTC),
        days=args.days,
        seed=args.seed,
        balance=_balance(context),
        audience=_audience(args.audience),
    )


def _balance(context: Context) -> MicroCredits:
    text = context.args.balance
    if text is None:
        try:
            with context.reading() as tx:
                # What an overrun took below nothing is no less than nothing to begin with.
                return max(store.balance(tx).available, ZERO)
        except SchemaTooOld as error:
            raise UsageError(
                f"{error}, so there is no balance to begin with; name one, such as --balance 5"
            ) from None
    try:
        amount = MicroCredits.parse(text)
    except AmountError as error:
        raise UsageError(f"--balance: {error}") from None
    if amount < ZERO:
        raise UsageError(f"--balance {text}: credits to begin with must not be negative")
    return amount


def _audience(name: str | None) -> Audience:
    name = (name or AUDIENCE_DEFAULT).lower()
    if name not in AUDIENCES:
        raise UsageError(
            f"--audience {name}: one of {', '.join(AUDIENCES)} is needed"
            f"{did_you_mean(name, tuple(AUDIENCES))}"
        )
    return AUDIENCES[name]


def _picture(args: Namespace) -> Path | None:
    """Where the picture goes; found out before the work, not after it."""
    if args.picture is None:
        # A script that reads the document did not ask for a file.
        path = Path(PICTURE_DEFAULT)
        return None if args.json or not _writable(path) else path
    path = Path(args.picture)
    if path.suffix.lower() != ".svg":
        # A slip of the completion key must not overwrite the settings.
        raise UsageError(f"--picture {path}: the picture is an SVG; end its name in .svg")
    if not _writable(path):
        raise UsageError(f"--picture {path}: a file cannot be written there")
    return path


def _writable(path: Path) -> bool:
    if path.exists():
        return path.is_file() and os.access(path, os.W_OK)
    return path.parent.is_dir() and os.access(path.parent, os.W_OK)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--picture {path}: {error.strerror}") from None


def _notes(settings: Settings, plan: Plan) -> list[str]:
    """What of the settings makes the outcome what it is, or makes it doubtful."""
    if not settings.paid:
        return [
            "the ladders name no model, so every run is a digest and costs nothing; name one in"
            " PENSTOCK_MODELS_RESEARCH, _WRITE and _EDIT to see what it would do"
        ]
    notes = look.shortfalls(settings, plan.start)
    unpaid = [role for role, ladder in settings.ladders.items() if not ladder.paid]
    if unpaid:
        names = ", ".join(f"PENSTOCK_MODELS_{role.upper()}" for role in unpaid)
        notes.append(f"no model is named in {names}, so every run is a digest")
    assumed = not set(PLATFORMS) & set(settings.publishing.publishers)
    if assumed and plan.audience.views_median:
        notes.append(
            "readers are assumed on Dev.to and Bluesky, as if they were among PENSTOCK_PUBLISHERS;"
            " the outbox alone earns nothing (--audience none)"
        )
    return notes
