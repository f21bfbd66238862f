"""The governor's decisions, as a table of worked examples, and what a run should cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daemon import estimate
from daemon.governor import Books, History, Policy, pace
from daemon.inference.ladder import Ladder, Role, Tier, parse_ladder
from daemon.inference.prices import PriceBook, parse_prices
from ledger.money import MicroCredits

NOW = datetime(2026, 11, 23, tzinfo=UTC)
COSTS = {"surplus": "0.10", "standard": "0.10", "economy": "0.04", "throttled": "0.01"}


def credits_of(text: str) -> MicroCredits:
    return MicroCredits.parse(text)


def policy(**changes: str) -> Policy:
    amounts = {"run_budget": "0.25", "daily_cap": "1", "monthly_cap": "15", "reserve": "0.1"}
    return Policy(**{k: credits_of(v) for k, v in (amounts | changes).items()}, runway_days=14)


def books(available: str, *, day: str = "0", month: str = "0", income: str = "0") -> Books:
    return Books(*map(credits_of, (available, day, month, income)))


def history(
    costs: dict[str, str] = COSTS, *, last: str | None = None, per_day: float = 1
) -> History:
    return History(
        {Tier(tier): credits_of(cost) for tier, cost in costs.items()},
        Tier(last) if last else None,
        per_day,
    )


@pytest.mark.parametrize(
    ("case", "found", "past", "tier", "cadence"),
    [
        ("four times the runway is surplus", books("5.70"), history(), "surplus", 1.0),
        ("a millionth less is standard", books("5.699999"), history(), "standard", 1.0),
        ("fourteen days to the reserve", books("1.50"), history(), "standard", 1.0),
        ("less, so the second rung", books("1.499999"), history(), "economy", 1.0),
        ("less, so the last rung", books("0.50"), history(), "throttled", 1.0),
        ("thinned, so that it lasts", books("0.17"), history(), "throttled", 0.5),
        ("not one run above the reserve", books("0.109999"), history(), "dormant", 0.0),
        ("the reserve is never counted", books("0.10"), history(), "dormant", 0.0),
        ("the daily cap leaves no run", books("9", day="0.995"), history(), "dormant", 0.0),
        ("the monthly cap leaves no run", books("9", month="14.995"), history(), "dormant", 0.0),
        ("the cap leaves the cheap one", books("9", day="0.95"), history(), "economy", 1.0),
        ("income covers the cost", books("0.30", income="0.10"), history(), "surplus", 1.0),
        ("stepping up wants a margin", books("1.60"), history(last="economy"), "economy", 1.0),
        ("and gets it with more", books("1.85"), history(last="economy"), "standard", 1.0),
        ("staying needs none", books("1.60"), history(last="standard"), "standard", 1.0),
        ("no rung fits the budget", books("9"), history({}), "dormant", 0.0),
        ("free models run on nothing", books("0"), history({"surplus": "0"}), "surplus", 1.0),
    ],
)
def test_the_best_tier_that_lasts_is_chosen(
    case: str, found: Books, past: History, tier: str, cadence: float
) -> None:
    chosen = pace(found, past, policy())
    assert (chosen.tier, round(chosen.cadence, 6)) == (Tier(tier), cadence), (case, chosen)
    assert chosen.reason


def test_the_runway_is_the_days_until_the_reserve() -> None:
    assert pace(books("2.10"), history(), policy()).runway_days == pytest.approx(20)
    assert pace(books("2.10", income="0.05"), history(), policy()).runway_days == pytest.approx(40)
    assert pace(books("2.10", income="0.20"), history(), policy()).runway_days is None


def test_a_rung_whose_one_call_could_pass_the_budget_is_not_used() -> None:
    prices = PriceBook(parse_prices("llm/dear=100,10,500;llm/good=1,0.1,5"), {})
    ladders: dict[Role, Ladder] = dict.fromkeys(Role, parse_ladder("llm/dear > llm/good > digest"))
    kept = estimate.eligible(ladders, prices, credits_of("0.25"), NOW)
    assert {str(rung) for ladder in kept.values() for rung in ladder.paid} == {"llm/good"}
    assert all(ladder.ends_in_digest for ladder in kept.values())
    planned = estimate.planned(kept, prices, NOW)
    # One model throughout: what differs is how many questions and editors a tier buys.
    assert planned[Tier.SURPLUS] > planned[Tier.STANDARD] > planned[Tier.ECONOMY]
    assert planned[Tier.ECONOMY] == planned[Tier.THROTTLED]
    # Each call within its own hold, so the plan never promises more than the meter lets through.
    for stage in estimate.STAGES:
        assert stage.input_tokens <= stage.input_bytes_max
        assert stage.output_tokens <= stage.output_tokens_max


def test_a_role_without_a_model_leaves_nothing_to_plan() -> None:
    prices = PriceBook(parse_prices("llm/good=1,0.1,5"), {})
    ladders = dict.fromkeys(Role, parse_ladder("llm/good")) | {Role.EDIT: parse_ladder("digest")}
    assert estimate.planned(ladders, prices, NOW) == {}
