"""The governor's decisions, as a table of worked examples, and what a run should cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon import estimate
from daemon.governor import PAID_TIERS, Books, History, Policy, pace
from daemon.inference.ladder import Ladder, Role, Rung, Tier, parse_ladder
from daemon.inference.prices import PriceBook, parse_prices
from tests.ledger_helpers import cr

NOW = datetime(2026, 11, 23, tzinfo=UTC)
COSTS = {"surplus": "0.10", "standard": "0.10", "economy": "0.04", "throttled": "0.01"}


def policy(**changes: str) -> Policy:
    amounts = {"run_budget": "0.25", "daily_cap": "1", "monthly_cap": "15", "reserve": "0.1"}
    return Policy(**{k: cr(v) for k, v in (amounts | changes).items()}, runway_days=14)


def books(available: str, *, day: str = "0", month: str = "0", income: str = "0") -> Books:
    return Books(*map(cr, (available, day, month, income)))


def history(
    costs: dict[str, str] = COSTS, *, last: str | None = None, per_day: float = 1
) -> History:
    return History(
        {Tier(tier): cr(cost) for tier, cost in costs.items()},
        Tier(last) if last else None,
        per_day,
    )


@pytest.mark.parametrize(
    ("case", "found", "past", "tier", "cadence"),
    [
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


def test_a_reason_names_what_keeps_it() -> None:
    throttled = history({"throttled": "0.01"})
    slow = pace(books("0.12"), throttled, replace(policy(), runway_days=90))
    assert slow.tier is Tier.DORMANT
    assert "the balance would not last 90 days" in slow.reason
    assert "the caps" not in slow.reason
    lasting = pace(books("0.25"), history({"throttled": "0.01"}, last="dormant"), policy())
    assert (lasting.tier, lasting.cadence) == (Tier.THROTTLED, 1.0)
    assert "thinned" not in lasting.reason


def test_the_runway_is_the_days_until_the_reserve() -> None:
    assert pace(books("2.10"), history(), policy()).runway_days == pytest.approx(20)
    assert pace(books("2.10", income="0.05"), history(), policy()).runway_days == pytest.approx(40)
    assert pace(books("2.10", income="0.20"), history(), policy()).runway_days is None


def test_the_runway_counts_every_run_of_the_schedule() -> None:
    assert pace(books("5.10"), history(per_day=2), policy()).runway_days == pytest.approx(25)
    covered = pace(books("2.10", income="0.10"), history(), policy())
    assert (covered.runway_days, covered.reason) == (None, "income covers what surplus runs cost")
    nearly = pace(books("2.10", income="0.099999"), history(), policy())
    assert nearly.runway_days == 2_000_000


STANDARD = history({"standard": "0.10"})


def test_a_run_may_take_the_last_millionth_that_limits_leave() -> None:
    assert pace(books("0.20"), STANDARD, policy()).tier is Tier.STANDARD
    assert pace(books("0.199999"), STANDARD, policy()).tier is Tier.DORMANT
    for full, over in (({"day": "0.9"}, {"day": "0.900001"}), ({"month": "14.9"}, {"month": "15"})):
        assert pace(books("9", **full), STANDARD, policy()).tier is Tier.STANDARD
        assert pace(books("9", **over), STANDARD, policy()).tier is Tier.DORMANT
    assert pace(books("9"), STANDARD, policy(run_budget="0.10")).tier is Tier.STANDARD
    assert pace(books("9"), STANDARD, policy(run_budget="0.099999")).tier is Tier.DORMANT


def test_stepping_up_wants_a_quarter_more_to_the_millionth() -> None:
    """14 days are wanted, 17.5 to step up."""
    past = history({"standard": "0.10", "economy": "0.04"}, last="economy")
    assert pace(books("1.85"), past, policy()).tier is Tier.STANDARD
    assert pace(books("1.849999"), past, policy()).tier is Tier.ECONOMY
    asleep = history({"throttled": "0.01"}, last="dormant")
    lasting = pace(books("0.24"), asleep, policy())
    assert (lasting.cadence, "thinned" in lasting.reason) == (1.0, False)
    thinned = pace(books("0.239999"), asleep, policy())
    assert thinned.cadence < 1.0


def test_a_thinned_schedule_spends_what_there_is_and_what_comes_in() -> None:
    found = pace(books("0.80", income="0.02"), STANDARD, policy())
    assert (found.tier, found.runway_days) == (Tier.STANDARD, 14)
    assert found.cadence == pytest.approx(0.7)


def test_below_one_run_in_28_days_it_sleeps() -> None:
    slow = replace(policy(), runway_days=56)
    least = pace(books("0.30"), STANDARD, slow)
    assert least.tier is Tier.STANDARD
    assert least.cadence == pytest.approx(1 / 28)
    assert pace(books("0.299999"), STANDARD, slow).tier is Tier.DORMANT


@pytest.mark.parametrize(
    ("found", "past", "limits", "why"),
    [
        (books("9"), history({}), {}, "no paid model fits the run budget: digests only, until the"
         " limits allow one"),
        (books("9"), history({}), {"run_budget": "0"}, "the run budget is 0: digests only, until"
         " the limits allow one"),
        (books("0.15"), STANDARD, {}, "the cheapest paid run takes 0.100000 and 0.050000 is left"
         " above the reserve: digests only, until money comes in"),
        (books("0.20", day="0.95"), STANDARD, {}, "the cheapest paid run takes 0.100000 and the"
         " caps leave 0.050000: digests only, until the limits allow one"),
        (books("9", month="16"), STANDARD, {}, "the cheapest paid run takes 0.100000 and the caps"
         " leave 0.000000: digests only, until the limits allow one"),
    ],
)  # fmt: skip
def test_who_sleeps_says_why_and_until_when(
    found: Books, past: History, limits: dict[str, str], why: str
) -> None:
    assert pace(found, past, policy(**limits)).reason == why


def test_limits_that_leave_just_one_run_are_not_what_keeps_it_asleep() -> None:
    slow = replace(policy(), runway_days=90)
    found = pace(books("0.20", day="0.90"), STANDARD, slow)
    assert found.tier is Tier.DORMANT
    assert found.reason.startswith("with one run in 28 days the balance would not last 90 days")


def test_a_rung_whose_one_call_could_pass_the_budget_is_not_used() -> None:
    prices = PriceBook(parse_prices("llm/dear=100,10,500;llm/good=1,0.1,5"), {})
    ladders: dict[Role, Ladder] = dict.fromkeys(Role, parse_ladder("llm/dear > llm/good > digest"))
    kept = estimate.eligible(ladders, prices, cr("0.25"), NOW)
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


# What docs/governor.md says, row by row


DOC = (Path(__file__).parents[1] / "docs" / "governor.md").read_text(encoding="utf-8")


def rows(first_heading: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    lines = DOC.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_heading}"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


EXAMPLES = rows("available")


def test_the_table_is_there() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("row", EXAMPLES, ids=[row[-1] for row in EXAMPLES])
def test_every_worked_example_holds(row: list[str]) -> None:
    available, day, month, income, last, tier, cadence, runway, _ = row
    found = pace(
        books(available, day=day, month=month, income=income),
        history(last=last or None),
        policy(),
    )
    assert str(found.tier) == tier
    assert found.cadence == pytest.approx(float(cadence), abs=0.005)
    if tier == "dormant" or runway == "no end":
        assert found.runway_days is None
    else:
        assert found.runway_days is not None
        assert found.runway_days == pytest.approx(float(runway), abs=0.3)
    assert found.reason


def test_the_shares_of_a_run_are_those_in_the_table() -> None:
    book = PriceBook(parse_prices("llm/good=3,0.3,15"), {})
    rung = Rung("llm", "good")
    shares = estimate.shares(dict.fromkeys(Role, (rung,)), book, cr("0.25"), NOW)
    table = rows("budget 0.25")
    for role, (_, hold, expected, share) in zip(Role, table, strict=True):
        stages = [s for s in estimate.STAGES if s.role is role]
        price = book.price(rung, NOW)
        assert str(estimate.peak(role, rung, book, NOW)) == hold
        assert str(max(price.cost(s.usage) for s in stages)) == expected
        assert str(shares[role]) == share


def test_what_a_tier_buys_is_in_the_table() -> None:
    bought = {row[0]: row for row in rows("tier | rung")}
    for tier in Tier:
        questions = str(estimate.QUESTIONS.get(tier, ""))
        assert bought[tier][2] == questions
    dear = {"llm/a": 4, "llm/b": 3, "llm/c": 2, "llm/d": 1}
    prices = PriceBook(parse_prices(";".join(f"{r}={n},{n},{n}" for r, n in dear.items())), {})
    on = {
        rungs: estimate.planned(dict.fromkeys(Role, parse_ladder(rungs)), prices, NOW)
        for rungs in (*dear, " > ".join(dear))
    }
    called = {"the first": "llm/a", "the second": "llm/b", "the last paid one": "llm/d"}
    (review,) = (stage for stage in estimate.STAGES if stage.role is Role.EDIT)
    for tier in PAID_TIERS:
        _, rung, _, editors = bought[tier]
        assert on[" > ".join(dear)][tier] == on[called[rung]][tier]
        assert review.calls_at(tier) == int(editors[0]) * review.calls_at(Tier.STANDARD)
