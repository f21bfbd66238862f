"""How a run divides its budget, what surplus buys, and who takes over from whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import alerts, estimate, journal, look
from daemon.app import opened_database, opened_for_work, opened_parts
from daemon.books import Books
from daemon.clock import SystemClock
from daemon.control import Gate
from daemon.inference import attempts, breaker
from daemon.inference.ladder import Ladder, Role, Rung, Tier
from daemon.inference.meter import Meter, Purpose
from daemon.inference.port import ModelReply, ModelRequest, Outcome
from daemon.inference.prices import Price, PriceBook, Usage, parse_prices
from daemon.journal import RunOutcome
from ledger.database import Database
from ledger.money import ZERO, MicroCredits
from tests.ledger_helpers import cr
from tests.stage import TOPICS, Silent, Stage, renamed
from tests.virtual import START

MakeStage = Callable[..., Stage]
GOOD, CHEAP = Rung("llm", "good"), Rung("llm", "cheap")


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[Stage] = []

    def make(deposit: str = "5", /, **changes: str) -> Stage:
        one = Stage(tmp_path / str(len(made)), **changes)
        one.deposit(deposit)
        made.append(one)
        return one

    return make


def said(one: Stage, run: str | None, kind: str) -> list[str]:
    with one.reading() as tx:
        return [d.sentence for d in journal.decisions(tx, str(run)) if d.kind == kind]


def asked(one: Stage) -> list[Any]:
    with one.reading() as tx:
        return list(attempts.recent(tx))


# Shares


prices = st.integers(0, 100_000_000)


@given(
    good=st.tuples(prices, prices, prices),
    cheap=st.tuples(prices, prices, prices),
    budget=st.integers(0, 3_000_000),
)
def test_no_share_is_beyond_the_budget_or_below_one_request_of_its_stage(
    good: tuple[int, int, int], cheap: tuple[int, int, int], budget: int
) -> None:
    book = PriceBook({str(GOOD): Price(*good, "t"), str(CHEAP): Price(*cheap, "t")}, {})
    all_rungs = dict.fromkeys(Role, Ladder((GOOD, CHEAP)))
    kept = estimate.eligible(all_rungs, book, MicroCredits(budget), START)
    rungs = {role: ladder.paid for role, ladder in kept.items()}
    found = estimate.shares(rungs, book, MicroCredits(budget), START)
    if not all(rungs.values()):
        assert found == {}
        return
    for role, share in found.items():
        least = estimate.peak(role, rungs[role][0], book, START)
        assert least <= share <= MicroCredits(budget)
    assert found[Role.RESEARCH] <= found[Role.EDIT]


def test_research_leaves_enough_for_a_draft_and_its_review() -> None:
    book = PriceBook(parse_prices("llm/good=3,0.3,15"), {})
    budget = cr("0.25")
    rungs = dict.fromkeys(Role, (GOOD,))
    research = estimate.shares(rungs, book, budget, START)[Role.RESEARCH]
    question = next(s for s in estimate.STAGES if s.calls == 4)
    # The last question was held in full and used what is expected of it.
    price = book.price(GOOD, START)
    spent = research - estimate.peak(Role.RESEARCH, GOOD, book, START) + price.cost(question.usage)
    draft = next(s for s in estimate.STAGES if s.role is Role.WRITE)
    assert spent + estimate.peak(Role.WRITE, GOOD, book, START) <= budget
    assert spent + price.cost(draft.usage) + estimate.peak(Role.EDIT, GOOD, book, START) <= budget


@pytest.mark.parametrize("budget", ["0.25", "0.10", "0.08", "0.07", "0.06", "0.05", "0.04"])
def test_a_tight_budget_still_ends_in_an_article(stage: MakeStage, budget: str) -> None:
    one = stage(
        PENSTOCK_RUN_BUDGET=budget, PENSTOCK_MODELS_RESEARCH="llm/good > llm/cheap > digest"
    )
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert report.cost <= cr(budget)
    one.judge()


def test_a_question_that_would_pass_its_share_reads_less(stage: MakeStage) -> None:
    one = stage(
        PENSTOCK_RUN_BUDGET="0.04", PENSTOCK_MODELS_RESEARCH="llm/good > llm/cheap > digest"
    )
    report = one.once()
    less = [line for line in said(one, report.run, "ladder") if "less is read" in line]
    assert less
    assert "the share of research" in less[0]
    sizes = [len(request.text) for request in one.model.requests if request.schema == "notes"]
    assert min(sizes) < max(sizes)


def test_questions_side_by_side_hold_two_thirds_also_beside_another_writer(
    stage: MakeStage,
) -> None:
    one = stage("50")
    clock = one.time.clock

    class Slow:
        """Knows how many it had before it at once."""

        under_way = most = 0

        def body(self, request: ModelRequest) -> bytes:
            return bytes(1000)

        async def send(self, request: ModelRequest) -> ModelReply:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await clock.sleep(5.0)
            self.under_way -= 1
            return ModelReply(Outcome.OK, 200, text="{}", usage=Usage(10, 0, 10))

    async def side_by_side(database: Database, other: Database) -> None:
        meter = Meter(
            books=Books(database, clock), models={"llm": slow}, clock=clock, gate=Gate(),
            prices=PriceBook(parse_prices("llm/good=100,100,100"), {}),
            policy=replace(one.settings.policy, run_budget=cr("0.6")),
        )  # fmt: skip
        # Each may cost a third of the budget.
        request = ModelRequest(GOOD, "s", "p", "notes", {}, 1000, 10.0)
        with other.write():
            calls = [
                asyncio.create_task(
                    meter.call(
                        Purpose("run", f"notes-{n}", Role.RESEARCH), request, lambda tx, reply: None
                    )
                )
                for n in range(3)
            ]
            await clock.sleep(0.02)
            assert slow.most == 0, "they wait for the other writer"
        await asyncio.gather(*calls)

    slow = Slow()
    with opened_database(one.settings.location) as other:
        database = Database(one.settings.location.database_url, busy_timeout_ms=0)
        one.time.run(side_by_side(database, other))
        database.close()
    assert slow.most == 2


# What a tier buys


@pytest.mark.parametrize(
    ("deposit", "tier", "questions", "editors"),
    [("9", "surplus", 5, 2), ("0.8", "standard", 4, 1)],
)
def test_surplus_buys_more_questions_and_a_second_editor(
    stage: MakeStage, deposit: str, tier: str, questions: int, editors: int
) -> None:
    one = stage(deposit, PENSTOCK_MODELS_EDIT="llm/good > llm/cheap")
    report = one.once()
    assert (report.outcome, report.tier) == (RunOutcome.PUBLISHED, tier)
    steps = Counter(a.step.split("-")[0] for a in asked(one) if a.outcome == "ok")
    assert (steps["notes"], steps["review"]) == (questions, editors)
    # Another model looks with other eyes.
    models = {a.step: a.model for a in asked(one) if a.step.startswith("review")}
    assert models["review-1"] == "good"
    assert models.get("review-1-second", "cheap") == "cheap"


YES = {"verdict": "approve", "score": 9, "problems": [], "unsupported": [], "questions": []}
NO = YES | {
    "verdict": "revise", "score": 4,
    "problems": [{"where": "title", "problem": "It promises too much.", "fix": "Say less."}],
}  # fmt: skip
EDITORS = {
    "PENSTOCK_MODELS_EDIT": "llm/good > llm/cheap > llm/other",
    "PENSTOCK_PRICES": "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8;llm/other=0.2,0.02,0.8",
}


def edited(one: Stage) -> list[tuple[str, str]]:
    return [(a.step, a.model) for a in asked(one) if a.step.startswith("review")]


def test_a_second_editor_who_does_not_agree_sends_the_draft_back(stage: MakeStage) -> None:
    one = stage("9", PENSTOCK_MODELS_EDIT="llm/good > llm/cheap")
    one.model.reviews = [YES, NO, YES, YES]
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert edited(one) == [
        ("review-1", "good"), ("review-1-second", "cheap"),
        ("review-2", "good"), ("review-2-second", "cheap"),
    ]  # fmt: skip
    revision = [r for r in one.model.requests if r.schema == "draft"][1]
    assert "1. title: It promises too much. Say less." in revision.text
    # Who judges the next draft is told what it was to mend.
    judged = [r for r in one.model.requests if r.schema == "review"]
    assert "Asked for last time" not in judged[1].text
    assert "1. title: It promises too much. Say less." in judged[2].text


@pytest.mark.parametrize(("third", "drafts"), [(YES, 1), (NO, 2)])
def test_a_third_editor_settles_what_two_dispute(
    stage: MakeStage, third: dict[str, object], drafts: int
) -> None:
    one = stage("9", **EDITORS)
    one.model.reviews = [YES, NO, third, YES, YES]
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert edited(one)[:3] == [
        ("review-1", "good"), ("review-1-second", "cheap"), ("review-1-third", "other"),
    ]  # fmt: skip
    assert sum(r.schema == "draft" for r in one.model.requests) == drafts


def test_a_second_editor_is_another_model_or_nobody(stage: MakeStage) -> None:
    one = stage("9")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert edited(one) == [("review-1", "good")]
    assert any("no other editing model" in line for line in said(one, report.run, "edit"))


def test_a_second_editor_who_cannot_be_had_does_not_stop_the_article(stage: MakeStage) -> None:
    one = stage("9", PENSTOCK_MODELS_EDIT="llm/good > llm/cheap")
    one.model.misbehave("status", code=500, schema="review", after=1, times=None)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert any("no editor could be had" in line for line in said(one, report.run, "edit"))


# Who takes over


def test_the_next_rung_takes_over_and_the_run_says_why(stage: MakeStage) -> None:
    one = stage(PENSTOCK_MODELS_WRITE="llm/good > llm/cheap")
    one.model.misbehave("status", code=503, schema="draft", model="good")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    (line,) = said(one, report.run, "ladder")
    assert line.startswith("draft-1: llm/cheap answered after llm/good: HTTP 503")


def test_a_model_that_keeps_failing_rests_also_in_the_next_process(stage: MakeStage) -> None:
    ladders = {f"PENSTOCK_MODELS_{role.upper()}": "llm/good > llm/cheap" for role in Role}
    one = stage(PENSTOCK_MAX_POSTS_PER_DAY="9", **ladders)
    one.model.misbehave("status", code=500, model="good", times=None)
    assert one.once().outcome is RunOutcome.PUBLISHED
    before = sum(request.model == "good" for request in one.model.requests)
    assert before >= 3
    one.blog.pages.update(renamed(one.blog.pages))
    report = one.once()
    assert sum(request.model == "good" for request in one.model.requests) == before
    assert any("it kept failing" in line for line in said(one, report.run, "ladder"))


def test_a_rest_begins_after_three_failures_and_ends_when_its_time_has_come(
    stage: MakeStage,
) -> None:
    one = stage(PENSTOCK_MODELS_RESEARCH="llm/good")
    one.model.misbehave("status", code=500, times=3)
    for _ in range(3):
        assert one.once().outcome is RunOutcome.FAILED
    rested = one.once()
    assert rested.outcome is RunOutcome.FAILED
    assert "llm/good rests: it kept failing, until 08:10 UTC" in rested.reason
    assert len(one.model.requests) == 3
    one.time.run(one.time.clock.sleep(timedelta(minutes=10).total_seconds()))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    one.judge()


def test_a_model_that_bills_above_its_price_is_told_of(stage: MakeStage) -> None:
    one = stage(PENSTOCK_PRICES="llm/good=0.01,0.001,0.05")
    one.model.misbehave("reported_cost", schema="plan")
    report = one.once()
    (dear,) = [a for a in asked(one) if a.cost_micro > a.own_cost_micro]
    with one.reading() as tx:
        (alert,) = alerts.standing(tx, one.time.clock.now())
    assert (alert.kind, alert.key, alert.run) == ("overrun", "overrun:llm/good", report.run)
    assert alert.message.startswith(f"llm/good billed {MicroCredits(dear.cost_micro)} for")


def test_a_used_up_account_rests_no_longer_where_the_clock_is_set_back(stage: MakeStage) -> None:
    one = stage()
    one.model.misbehave("status", code=402)
    ahead = timedelta(days=2)
    found: list[RunOutcome] = []

    async def live(database: Database) -> None:
        nonlocal ahead
        world = replace(one.world(), clock=SystemClock(lambda: one.time.loop.wall() + ahead))
        async with opened_parts(one.settings, database, Silent(), world) as parts:
            for topic in TOPICS[:2]:
                found.append((await parts.cycle.once(topic=topic)).outcome)
                ahead = timedelta(0)
                await world.clock.sleep(breaker.REST.total_seconds())

    with opened_for_work(one.settings.location) as database:
        one.time.run(live(database))
    assert found == [RunOutcome.FAILED, RunOutcome.PUBLISHED]
    one.judge()


def test_what_a_model_cost_that_is_off_the_ladders_counts_no_more(stage: MakeStage) -> None:
    one = stage()
    report = one.once()
    tier, now = Tier(str(report.tier)), one.time.clock.now()
    with one.reading() as tx:
        before = look.history(tx, one.settings, now)
        ladders = {**one.settings.ladders, Role.EDIT: Ladder((CHEAP,))}
        changed = replace(one.settings, ladders=ladders)
        after = look.history(tx, changed, now)
    planned = estimate.planned(ladders, one.settings.prices, now)
    assert before.cost_by_tier[tier] == report.cost
    assert after.cost_by_tier == planned
    assert after.cost_by_tier[tier] != report.cost


def test_nothing_is_planned_for_a_tier_that_costs_nothing() -> None:
    assert estimate.shares({Role.RESEARCH: ()}, PriceBook({}, {}), ZERO, START) == {}
    assert Tier.DORMANT not in estimate.QUESTIONS
