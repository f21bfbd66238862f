"""
How much the publication can afford: books, history and policy in, a pace out. Pure.

The runway is the number of days until a balance that earns and spends as it lately did reaches
the reserve. The best tier whose runway is long enough wins; when none is, the cadence falls
until it is; when not even one run fits, the publication is dormant and only digests go out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.inference.ladder import Tier
from ledger.money import MicroCredits

# Surplus wants this many times the runway that standard is content with.
SURPLUS_FACTOR = 4
# Stepping up wants this much more runway than staying, so that the tier does not flap.
STEP_UP_PERCENT = 125
# Below one run in this many days a publication sleeps rather than crawls.
SLOWEST_DAYS = 28

PAID_TIERS = (Tier.SURPLUS, Tier.STANDARD, Tier.ECONOMY, Tier.THROTTLED)


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's limits, in micro-credits and days."""

    run_budget: MicroCredits
    daily_cap: MicroCredits
    monthly_cap: MicroCredits
    reserve: MicroCredits
    runway_days: int


@dataclass(frozen=True, slots=True)
class Books:
    """
    What the governor needs of the ledger.

    Args:
        available: posted less held.
        spent_day, spent_month: in the last 24 hours and 30 days, open holds included.
        income_per_day: over the last 30 days.
    """

    available: MicroCredits
    spent_day: MicroCredits
    spent_month: MicroCredits
    income_per_day: MicroCredits


@dataclass(frozen=True, slots=True)
class History:
    """
    What runs cost.

    Args:
        cost_by_tier: a run's cost per tier: what runs lately cost, or what is planned. A tier
            that is not here has no rung that fits the run budget.
        last_tier: the tier of the last run, None before the first.
        runs_per_day: how often the schedule would run.
    """

    cost_by_tier: Mapping[Tier, MicroCredits]
    last_tier: Tier | None
    runs_per_day: float


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The decision, with its reason in a sentence.

    Args:
        runway_days: None where income covers the cost, or nothing is spent: there is no end.
        cadence: runs a day.
    """

    tier: Tier
    cadence: float
    runway_days: float | None
    reason: str


def pace(books: Books, history: History, policy: Policy) -> Pace:
    """Choose the tier and the cadence."""
    spendable = books.available - policy.reserve
    affordable = {
        tier: cost
        for tier, cost in history.cost_by_tier.items()
        if cost <= min(spendable, _room(books, policy)) or not cost
    }
    if not affordable:
        return _dormant(books, history, policy)
    for tier in PAID_TIERS:
        if tier not in affordable:
            continue
        runway = _runway(spendable, affordable[tier], history.runs_per_day, books.income_per_day)
        wanted = _runway_wanted(tier, history.last_tier, policy)
        if runway is None or runway >= wanted:
            return Pace(tier, history.runs_per_day, runway, _why(tier, runway, wanted))
    return _slowed(spendable, affordable, books, history, policy)


def _room(books: Books, policy: Policy) -> MicroCredits:
    """What the run budget and the rolling caps leave for one run now."""
    return min(
        policy.run_budget,
        policy.daily_cap - books.spent_day,
        policy.monthly_cap - books.spent_month,
    )


def _runway(
    spendable: MicroCredits, cost: MicroCredits, runs_per_day: float, income: MicroCredits
) -> float | None:
    """Days until the reserve is reached, None for never."""
    burn = cost.micro * runs_per_day - income.micro
    return None if burn <= 0 else spendable.micro / burn


def _runway_wanted(tier: Tier, last: Tier | None, policy: Policy) -> float:
    wanted = float(policy.runway_days)
    if tier is Tier.SURPLUS:
        wanted *= SURPLUS_FACTOR
    steps_up = last is not None and (
        last is Tier.DORMANT or PAID_TIERS.index(tier) < PAID_TIERS.index(last)
    )
    return wanted * STEP_UP_PERCENT / 100 if steps_up else wanted


def _slowed(
    spendable: MicroCredits,
    affordable: Mapping[Tier, MicroCredits],
    books: Books,
    history: History,
    policy: Policy,
) -> Pace:
    """The cheapest tier, run less often, so that the runway holds."""
    tier = max(affordable, key=PAID_TIERS.index)
    cost = affordable[tier]
    runway = _runway(spendable, cost, history.runs_per_day, books.income_per_day)
    if runway is None or runway >= policy.runway_days:
        # It lasts, though not for as long as stepping up wants: that costs it the better tiers.
        return Pace(tier, history.runs_per_day, runway, _why(tier, runway, policy.runway_days))
    per_day = (spendable.micro / policy.runway_days + books.income_per_day.micro) / cost.micro
    if per_day * SLOWEST_DAYS < 1:
        return _dormant(books, history, policy)
    return Pace(
        tier,
        per_day,
        float(policy.runway_days),
        f"at the full schedule the balance would not last {policy.runway_days} days at any tier,"
        f" so {tier} runs are thinned to {per_day:.2f} a day",
    )


def _dormant(books: Books, history: History, policy: Policy) -> Pace:
    until = "until the limits allow one"
    if not history.cost_by_tier:
        reason = "no paid model fits the run budget" if policy.run_budget else "the run budget is 0"
    else:
        cheapest = min(history.cost_by_tier.values())
        spendable = books.available - policy.reserve
        if spendable < cheapest:
            until = "until money comes in"
            reason = (
                f"the cheapest paid run takes {cheapest} and {spendable} is left above the reserve"
            )
        elif (room := _room(books, policy)) < cheapest:
            reason = (
                f"the cheapest paid run takes {cheapest} and the caps leave"
                f" {max(room, MicroCredits(0))}"
            )
        else:
            until = "until money comes in"
            reason = (
                f"with one run in {SLOWEST_DAYS} days the balance would not last"
                f" {policy.runway_days} days"
            )
    return Pace(Tier.DORMANT, 0.0, None, f"{reason}: digests only, {until}")


def _why(tier: Tier, runway: float | None, wanted: float) -> str:
    if runway is None:
        return f"income covers what {tier} runs cost"
    return f"at {tier} the balance lasts {runway:.0f} days, and {wanted:.0f} are wanted"
