"""The first word of the cycle: gather from the database what the governor needs to decide."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from daemon import estimate, governor, journal
from daemon.inference.ladder import Tier
from daemon.settings import Settings
from ledger import store
from ledger.money import MicroCredits, divide_up

DAY = timedelta(days=1)
MONTH = timedelta(days=30)


def books(tx: Connection, at: datetime) -> governor.Books:
    """The state of the ledger as the governor sees it."""
    balance = store.balance(tx)
    income = store.earned(tx, since=at - MONTH, family="engagement") + store.earned(
        tx, since=at - MONTH, family="revenue"
    )
    return governor.Books(
        available=balance.available,
        spent_day=store.spent(tx, since=at - DAY),
        spent_month=store.spent(tx, since=at - MONTH),
        # Refunds can take back more than came in; the balance has that loss already.
        income_per_day=MicroCredits(max(0, income.micro) // MONTH.days),
    )


def history(tx: Connection, settings: Settings, at: datetime) -> governor.History:
    """What runs cost, by tier: lately where models of today made any, else as planned."""
    ladders = estimate.eligible(settings.ladders, settings.prices, settings.policy.run_budget, at)
    announces = settings.publishing.announces
    planned = estimate.planned(ladders, settings.prices, at, announces=announces)
    # What models that are off the ladders cost would keep a cheaper one from ever being tried.
    rungs = {(role, rung) for role, ladder in ladders.items() for rung in ladder.paid}
    lately = {tier: journal.recent_costs(tx, tier, rungs) for tier in planned}
    return governor.History(
        cost_by_tier={
            tier: MicroCredits(divide_up(sum(costs), len(costs))) if costs else planned[tier]
            for tier, costs in lately.items()
        },
        last_tier=_last_tier(tx),
        runs_per_day=settings.schedule.runs_per_day(at),
    )


def _last_tier(tx: Connection) -> Tier | None:
    last = journal.runs(tx, limit=1)
    return Tier(last[0].tier) if last else None


@dataclass(frozen=True, slots=True)
class View:
    """A decision with everything it was made from."""

    books: governor.Books
    history: governor.History
    pace: governor.Pace

    def inputs(self) -> dict[str, Any]:
        """What the governor looked at, as JSON."""
        return {
            **{field.name: str(getattr(self.books, field.name)) for field in fields(self.books)},
            "runs_per_day": round(self.history.runs_per_day, 3),
            "last_tier": self.history.last_tier,
            "cost_by_tier": {tier: str(cost) for tier, cost in self.history.cost_by_tier.items()},
        }


def look(tx: Connection, settings: Settings, at: datetime) -> View:
    """The books and the history as they are, and what the governor decides on them."""
    found, past = books(tx, at), history(tx, settings, at)
    silent = [f"PENSTOCK_MODELS_{role.upper()}" for role in estimate.silent(settings.ladders)]
    if not silent:
        return View(found, past, governor.pace(found, past, settings.policy))
    named = "the ladders name" if not settings.paid else f"{' and '.join(silent)} name"
    reason = f"{named} no model, so every run is a digest and costs nothing"
    return View(found, past, governor.Pace(Tier.DORMANT, past.runs_per_day, None, reason))


def shortfalls(settings: Settings, at: datetime) -> list[str]:
    """What the limits do not let the ladders do, each with its remedy; empty when all fits."""
    announces = settings.publishing.announces
    return estimate.shortfalls(
        settings.ladders, settings.prices, settings.policy, at, announces=announces
    )


def calendar_day(at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The beginning and end of the calendar day around a moment, in a time zone."""
    day = at.astimezone(zone).date()
    return (
        datetime.combine(day, time.min, zone),
        datetime.combine(day + DAY, time.min, zone),
    )
