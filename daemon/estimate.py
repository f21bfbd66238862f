"""
What a run should cost before there is history, and which rungs its budget can carry. Pure.

The figures are tokens of a usual run; once there are finished runs, what they really cost takes
their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.governor import PAID_TIERS, Policy
from daemon.inference.ladder import Ladder, Role, Rung, Tier
from daemon.inference.prices import PriceBook, Usage
from ledger.money import ZERO, MicroCredits


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One kind of call in a run.

    Args:
        calls: how many in a standard run, revisions and repairs averaged in.
        calls_surplus, calls_lean: the same in surplus, and in economy and below.
        input_tokens, output_tokens: expected, of one call.
        input_bytes_max, output_tokens_max: the most one call may have; its hold.
    """

    role: Role
    calls: int
    calls_surplus: int
    calls_lean: int
    input_tokens: int
    output_tokens: int
    input_bytes_max: int
    output_tokens_max: int

    def calls_at(self, tier: Tier) -> int:
        """How many in a run of a tier."""
        if tier is Tier.SURPLUS:
            return self.calls_surplus
        return self.calls if tier is Tier.STANDARD else self.calls_lean

    @property
    def usage(self) -> Usage:
        """What one call is expected to use."""
        return Usage(self.input_tokens, 0, self.output_tokens)


# Questions a run works on: the plan has three to five, and surplus buys more.
QUESTIONS = {Tier.SURPLUS: 5, Tier.STANDARD: 4, Tier.ECONOMY: 3, Tier.THROTTLED: 3}

STAGES = (
    Stage(Role.RESEARCH, 1, 1, 1, 2_500, 300, 13_000, 1_000),
    Stage(
        Role.RESEARCH, QUESTIONS[Tier.STANDARD], QUESTIONS[Tier.SURPLUS], QUESTIONS[Tier.ECONOMY],
        3_400, 700, 17_000, 1_800,
    ),
    Stage(Role.WRITE, 2, 2, 2, 2_000, 1_700, 18_000, 4_200),
    # In surplus a second editor must agree.
    Stage(Role.EDIT, 2, 4, 2, 3_600, 400, 20_000, 1_500),
)  # fmt: skip

# Where a destination announces articles. One call stays below a review, so that whoever can pay for
# that can pay for this.
ANNOUNCEMENT = Stage(Role.EDIT, 1, 1, 1, 1_000, 120, 10_000, 400)


def stages(*, announces: bool) -> tuple[Stage, ...]:
    """The calls of a run; with those of an announcement where a destination makes one."""
    return (*STAGES, ANNOUNCEMENT) if announces else STAGES


def eligible(
    ladders: Mapping[Role, Ladder], prices: PriceBook, budget: MicroCredits, at: datetime
) -> dict[Role, Ladder]:
    """The ladders without the rungs of which a single call could pass the run's budget."""
    return {
        role: Ladder(
            tuple(rung for rung in ladder.paid if peak(role, rung, prices, at) <= budget),
            ladder.ends_in_digest,
        )
        for role, ladder in ladders.items()
    }


def peak(role: Role, rung: Rung, prices: PriceBook, at: datetime) -> MicroCredits:
    """The largest hold one call of a role can need on a rung."""
    price = prices.price(rung, at)
    return max(
        price.worst_case(input_max=stage.input_bytes_max, output_max=stage.output_tokens_max)
        for stage in STAGES
        if stage.role is role
    )


def planned(
    ladders: Mapping[Role, Ladder], prices: PriceBook, at: datetime, *, announces: bool = False
) -> dict[Tier, MicroCredits]:
    """
    A run's expected cost per tier; empty where a role has no paid rung.

    Args:
        announces: whether a destination wants an announcement.
    """
    if not all(ladder.paid for ladder in ladders.values()):
        return {}
    calls = stages(announces=announces)
    return {tier: _cost(tier, calls, ladders, prices, at) for tier in PAID_TIERS}


def _cost(
    tier: Tier,
    calls: Sequence[Stage],
    ladders: Mapping[Role, Ladder],
    prices: PriceBook,
    at: datetime,
) -> MicroCredits:
    total = ZERO
    for stage in calls:
        ladder = ladders[stage.role]
        price = prices.price(ladder.paid[ladder.start(tier)], at)
        total += price.cost(stage.usage) * stage.calls_at(tier)
    return total


def shares(
    rungs: Mapping[Role, Sequence[Rung]], prices: PriceBook, budget: MicroCredits, at: datetime
) -> dict[Role, MicroCredits]:
    """
    What a run may have spent and held in each role's stage, so that the later ones can be paid.

    A stage may hold as much as leaves enough for the later ones once its request has settled at
    what it is expected to use: research leaves a draft and its review, writing a review, editing
    nothing. Where the first rungs would leave a stage less than one request of it can take, the
    last ones are counted on; no share is below that one request.

    Args:
        rungs: those the run's tier may use, in the order they are tried.
    """
    if not all(rungs.values()):
        return {}
    first = {role: found[0] for role, found in rungs.items()}
    for later in (first, {role: found[-1] for role, found in rungs.items()}):
        review = peak(Role.EDIT, later[Role.EDIT], prices, at)
        drafted = _expected(Role.WRITE, later[Role.WRITE], prices, at)
        draft = max(peak(Role.WRITE, later[Role.WRITE], prices, at), drafted + review)
        needs = {Role.RESEARCH: draft, Role.WRITE: review, Role.EDIT: ZERO}
        left = {role: budget - needed for role, needed in needs.items()}
        if all(left[role] >= _expected(role, first[role], prices, at) for role in Role):
            break
    return {
        role: min(
            max(left[role] - _expected(role, first[role], prices, at), ZERO)
            + peak(role, first[role], prices, at),
            budget,
        )
        for role in Role
    }


def _expected(role: Role, rung: Rung, prices: PriceBook, at: datetime) -> MicroCredits:
    """What the dearest kind of call of a role is expected to cost."""
    price = prices.price(rung, at)
    return max(price.cost(stage.usage) for stage in STAGES if stage.role is role)


def silent(ladders: Mapping[Role, Ladder]) -> list[Role]:
    """The roles whose ladders name no model: with one of them every run is a digest."""
    return [role for role, ladder in ladders.items() if not ladder.paid]


def shortfalls(
    ladders: Mapping[Role, Ladder],
    prices: PriceBook,
    policy: Policy,
    at: datetime,
    *,
    announces: bool = False,
) -> list[str]:
    """What the limits do not let the ladders do, each with its remedy; empty when all fits."""
    without = silent(ladders)
    if len(without) == len(ladders):
        return []
    said = [
        f"PENSTOCK_MODELS_{role.upper()} names no model, so every run is a digest though other"
        " ladders name some; name one there, too"
        for role in without
    ]
    costs = planned(ladders, prices, at, announces=announces)
    cheapest = min(costs.values(), default=ZERO)
    for role, ladder in ladders.items():
        # Where not even the cheapest run fits, that is said once, below.
        for rung in ladder.paid if cheapest <= policy.run_budget else ():
            needed = peak(role, rung, prices, at)
            if needed > policy.run_budget:
                said.append(
                    f"{rung} does not fit PENSTOCK_RUN_BUDGET {policy.run_budget} as the model to"
                    f" {role}: one request can take {needed}; raise the budget to at least that,"
                    f" or take it off PENSTOCK_MODELS_{role.upper()}"
                )
    every_rung = max(
        (peak(role, rung, prices, at) for role in ladders for rung in ladders[role].paid),
        default=ZERO,
    )
    for name, cap, enough in (
        ("PENSTOCK_RUN_BUDGET", policy.run_budget, max(cheapest, every_rung)),
        ("PENSTOCK_DAILY_CAP", policy.daily_cap, cheapest),
        ("PENSTOCK_MONTHLY_CAP", policy.monthly_cap, cheapest),
    ):
        if cap < cheapest:
            said.append(
                f"{name} {cap} is less than the cheapest paid run is expected to take"
                f" ({cheapest}), so every run is a digest; raise it, to {enough} for every model"
                " named, or name a cheaper model last in the ladders"
            )
    return said
