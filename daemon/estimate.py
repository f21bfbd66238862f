"""
What a run should cost before there is history, and which rungs its budget can carry. Pure.

The figures are tokens of a usual run; once there are finished runs, what they really cost takes
their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from daemon.governor import PAID_TIERS
from daemon.inference.ladder import Ladder, Role, Rung, Tier
from daemon.inference.prices import PriceBook, UnknownPrice, Usage
from ledger.money import ZERO, MicroCredits


@dataclass(frozen=True, slots=True)
class Stage:
    """
    One kind of call in a run.

    Args:
        calls: how many, revisions and repairs averaged in.
        input_tokens, output_tokens: expected, of one call.
        input_bytes_max, output_tokens_max: the most one call may have; its hold.
    """

    role: Role
    calls: int
    input_tokens: int
    output_tokens: int
    input_bytes_max: int
    output_tokens_max: int


STAGES = (
    Stage(Role.RESEARCH, 1, 2_500, 300, 13_000, 1_000),
    Stage(Role.RESEARCH, 4, 3_400, 700, 17_000, 1_800),
    Stage(Role.WRITE, 2, 2_000, 1_700, 18_000, 4_200),
    Stage(Role.EDIT, 2, 3_600, 400, 20_000, 1_500),
)


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
    ladders: Mapping[Role, Ladder], prices: PriceBook, at: datetime
) -> dict[Tier, MicroCredits]:
    """A run's expected cost per tier; empty where a role has no paid rung."""
    if not all(ladder.paid for ladder in ladders.values()):
        return {}
    try:
        return {tier: _cost(tier, ladders, prices, at) for tier in PAID_TIERS}
    except UnknownPrice:
        return {}


def _cost(
    tier: Tier, ladders: Mapping[Role, Ladder], prices: PriceBook, at: datetime
) -> MicroCredits:
    total = ZERO
    for stage in STAGES:
        ladder = ladders[stage.role]
        price = prices.price(ladder.paid[ladder.start(tier)], at)
        one = price.cost(Usage(stage.input_tokens, 0, stage.output_tokens))
        total += one * stage.calls
    return total
