"""Whole runs, on virtual time, with the provider's bill beside our books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from daemon import control, journal
from daemon.inference import attempts
from daemon.inference.ladder import Tier
from daemon.journal import RunOutcome
from ledger import store
from ledger.database import Database
from tests.stage import Kill, Killed, Stage, renamed
from tests.virtual import START

MakeStage = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[Stage] = []

    def make(**changes: str) -> Stage:
        made.append(Stage(tmp_path / str(len(made)), **changes))
        return made[-1]

    return make


def test_a_run_publishes_one_article_and_books_exactly_the_bill(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED
    assert len(one.articles()) == 1
    assert report.run is not None
    assert report.run in one.articles()[0].read_text()
    assert report.cost.micro == one.model.billed_micro > 0
    with one.reading() as tx:
        made, balance = attempts.recent(tx), store.balance(tx)
    assert len(made) == len(one.model.requests)
    assert sorted(a.cost_micro for a in made) == sorted(c.micro for c in one.model.bill)
    assert balance.available.micro == 5_000_000 - one.model.billed_micro
    assert balance.held.micro == 0
    one.judge()


def test_a_run_lives_on_the_virtual_clock_alone(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    one.model.misbehave("slow", seconds=40.0, times=None)
    report = one.once()
    with one.reading() as tx:
        row = journal.run(tx, str(report.run))
        made = attempts.recent(tx)
    assert row is not None
    assert row.started_at == START
    # Plan, notes side by side, draft, two editors: five times forty, however many questions.
    assert row.finished_at - row.started_at < timedelta(seconds=5 * 40 + 1)
    assert len(made) >= 6
    assert all(40_000 <= attempt.duration_ms < 40_100 for attempt in made)


def test_questions_whose_holds_do_not_fit_together_wait_for_each_other(stage: MakeStage) -> None:
    one = stage(PENSTOCK_RUN_BUDGET="0.09")
    one.deposit("5")
    one.model.misbehave("slow", seconds=10.0, schema="notes", times=None)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    asked = Counter(request.schema for request in one.model.requests)
    with one.reading() as tx:
        notes = [a for a in attempts.recent(tx) if a.step.startswith("notes")]
    assert len(notes) == asked["notes"] >= 3
    # They did not all begin at once, and none was refused.
    assert len({attempt.at for attempt in notes}) > 1
    assert report.cost <= one.settings.policy.run_budget
    one.judge()


def test_a_request_that_never_answers_is_unknown_and_stays_held(stage: MakeStage) -> None:
    one = stage(PENSTOCK_MODELS_WRITE="llm/good > llm/cheap", PENSTOCK_CALL_TIMEOUT="30")
    one.deposit("5")
    one.model.misbehave("stall", schema="draft", model="good")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    with one.reading() as tx:
        drafts = [a for a in attempts.recent(tx) if a.step == "draft-1"]
        assert [(a.model, a.outcome) for a in drafts] == [("good", "unknown"), ("cheap", "ok")]
        assert drafts[0].duration_ms == 30_000
        held = store.balance(tx).held
    assert held.micro > 0
    assert report.cost.micro < one.model.billed_micro <= report.cost.micro + held.micro
    one.judge()


@pytest.mark.parametrize("retry_after", ["1000000000", "-5", "Fri, 01 Jan 2027 00:00:00 GMT", None])
def test_a_rate_limit_is_waited_out_within_bounds(
    stage: MakeStage, retry_after: str | None
) -> None:
    one = stage()
    one.deposit("5")
    one.model.misbehave("status", code=429, retry_after=retry_after, schema="plan")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    with one.reading() as tx:
        first, second = (a for a in attempts.recent(tx) if a.step == "plan")
        row = journal.run(tx, str(report.run))
    assert (first.outcome, second.outcome) == ("refused", "ok")
    assert row is not None
    assert timedelta(seconds=1) <= second.at - first.at <= timedelta(seconds=60)
    assert report.cost.micro == one.model.billed_micro


def test_the_next_day_writes_about_what_was_not_used_before(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    first = one.once()
    assert one.once().outcome is RunOutcome.SKIPPED
    one.time.pass_by(timedelta(days=1))
    # Every entry of the small blog went into the first article.
    second = one.once()
    assert first.outcome is RunOutcome.PUBLISHED
    assert second.outcome is RunOutcome.ABSTAINED
    assert "no entry is new" in second.reason
    one.judge()


def test_an_empty_ledger_sleeps_on_digests_and_wakes_with_money(stage: MakeStage) -> None:
    one = stage()
    report = one.once()
    assert (report.outcome, report.tier) == (RunOutcome.PUBLISHED, Tier.DORMANT)
    assert not one.model.requests
    one.deposit("5")
    one.time.pass_by(timedelta(days=1))
    one.blog.pages.update(renamed(one.blog.pages))
    awake = one.once()
    assert awake.tier is not Tier.DORMANT
    assert one.model.requests


def test_a_ladder_that_ends_in_a_digest_ends_there_when_no_model_answers(
    stage: MakeStage,
) -> None:
    one = stage(PENSTOCK_MODELS_RESEARCH="llm/good > llm/cheap > digest")
    one.deposit("5")
    one.model.misbehave("status", code=503, times=None)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert "Gathered" in one.articles()[0].read_text()
    with one.reading() as tx:
        # One request on each rung: what may have been billed is not repeated.
        assert [a.model for a in attempts.recent(tx)] == ["good", "cheap"]


def test_too_little_evidence_abstains_before_a_draft_is_paid_for(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    one.model.misbehave("invented_quote", schema="notes", times=None)
    report = one.once()
    assert report.outcome is RunOutcome.ABSTAINED
    assert "draft" not in {request.schema for request in one.model.requests}
    assert report.cost.micro == one.model.billed_micro
    with one.reading() as tx:
        claims = journal.claims(tx, str(report.run))
    assert claims
    assert not any(claim.verified for claim in claims)


def test_one_failing_question_does_not_sink_the_run(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    one.model.misbehave("status", code=503, schema="notes", times=1)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    with one.reading() as tx:
        said = [decision.sentence for decision in journal.decisions(tx, str(report.run))]
    assert any("a question stays unanswered" in sentence for sentence in said)


def test_claims_that_the_editor_finds_unsupported_leave_the_board(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    dropped: list[str] = []

    def review(asked: object) -> dict[str, object]:
        with one.reading() as tx:
            run = journal.runs(tx)[-1].id
            verified = [claim.statement for claim in journal.claims(tx, run) if claim.verified]
        if not dropped:
            dropped.append(verified[0])
            return _review("revise", unsupported=dropped)
        return _review("approve")

    one.model.answers["review"] = review
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    second_draft = [r for r in one.model.requests if r.schema == "draft"][1]
    assert f"] {dropped[0]} |" not in second_draft.text
    with one.reading() as tx:
        claims = {c.statement: c for c in journal.claims(tx, str(report.run))}
    assert not claims[dropped[0]].verified


def test_an_editor_who_never_approves_is_asked_a_bounded_number_of_times(
    stage: MakeStage,
) -> None:
    one = stage()
    one.deposit("5")
    one.model.answers["review"] = lambda asked: _review("revise", score=2)
    report = one.once()
    assert report.outcome is RunOutcome.ABSTAINED
    assert Counter(request.schema for request in one.model.requests)["draft"] == 3
    assert not one.articles()


def test_a_good_draft_is_not_lost_because_its_revision_cannot_be_paid_for(
    stage: MakeStage,
) -> None:
    one = stage()
    one.deposit("5")
    one.model.answers["review"] = lambda asked: _review("revise", score=7)
    one.model.misbehave("status", code=402, schema="draft", after=1, times=None)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    with one.reading() as tx:
        said = [decision.sentence for decision in journal.decisions(tx, str(report.run))]
    assert any("the last good draft appears" in sentence for sentence in said)


def test_a_pause_after_the_last_request_stops_the_publication_until_resume(
    stage: MakeStage,
) -> None:
    one = stage()
    one.deposit("5")

    def review(asked: object) -> dict[str, object]:
        with opened(one) as database, database.write() as tx:
            control.pause(tx, reason="wait", at=START)
        return _review("approve")

    one.model.answers["review"] = review
    paused = one.once()
    assert paused.paused
    assert not one.articles()
    with opened(one) as database, database.write() as tx:
        control.resume(tx)
    bought = len(one.model.bill)
    assert one.once().outcome is RunOutcome.PUBLISHED
    assert len(one.articles()) == 1
    assert len(one.model.bill) == bought


@contextmanager
def opened(one: Stage) -> Iterator[Database]:
    with closing(Database(one.settings.location.database_url)) as database:
        yield database


def _commits_of_a_whole_run(one: Stage) -> int:
    kill = Kill.at(0, after=False)
    assert one.once(kill=kill).outcome is RunOutcome.PUBLISHED
    return kill.commits


def test_a_run_killed_at_any_commit_goes_on_and_buys_no_answer_twice(stage: MakeStage) -> None:
    """Every commit of a run, just before and just after it: one article, and no double purchase."""
    whole = stage()
    whole.deposit("5")
    commits = _commits_of_a_whole_run(whole)
    usual = Counter(charge.schema for charge in whole.model.bill)
    assert commits > 25
    for at_commit in range(1, commits + 1):
        for after in (False, True):
            one = stage()
            one.deposit("5")
            with pytest.raises(Killed):
                one.once(kill=Kill.at(at_commit, after=after))
            in_flight = _in_flight(one)
            report = one.once()
            case = f"commit {at_commit}, {'after' if after else 'before'}"
            # After the last commit the run was over, and the day has its article.
            over = after and at_commit == commits
            expected = RunOutcome.SKIPPED if over else RunOutcome.PUBLISHED
            assert report.outcome is expected, (case, report.reason)
            assert len(one.articles()) == 1, case
            bought = Counter(charge.schema for charge in one.model.bill)
            # Only a call that was under way at the kill may be bought once more.
            assert bought.total() - usual.total() <= in_flight, case
            text = one.articles()[0].read_text(encoding="utf-8")
            with one.reading() as tx:
                (known,) = journal.publications(tx)
                assert known.state == journal.PublicationState.PUBLISHED, case
                assert known.run in text, case
                unknown = [a for a in attempts.recent(tx) if a.outcome == "unknown"]
                assert len(unknown) == in_flight, case
            one.judge()


def test_an_invalid_answer_that_reached_the_journal_is_not_bought_again(stage: MakeStage) -> None:
    one = stage()
    one.deposit("5")
    one.model.misbehave("not_json", schema="plan")
    # Dies right after the settlement of the first answer, before its repair is asked for.
    with pytest.raises(Killed):
        one.once(kill=Kill(lambda commit: bool(one.model.bill), after=True))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    plans = [request for request in one.model.requests if request.schema == "plan"]
    assert len(plans) == 2
    assert "could not be used" not in plans[0].text
    assert "could not be used" in plans[1].text


def _in_flight(one: Stage) -> int:
    with one.reading() as tx:
        return len(attempts.in_flight(tx))


def _review(
    verdict: str, *, score: int = 8, unsupported: list[str] | None = None
) -> dict[str, object]:
    return {
        "verdict": verdict,
        "score": score,
        "problems": [],
        "unsupported": unsupported or [],
        "questions": [],
    }
