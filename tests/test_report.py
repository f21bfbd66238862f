"""What a report says, against the journal and the books it was made from."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from daemon import journal, report
from daemon.inference import attempts
from daemon.journal import RunOutcome, RunState
from ledger import posting, store
from ledger.database import Database
from ledger.errors import CapReached
from ledger.money import ZERO, MicroCredits
from ledger.rules import TREASURY, Action, Code
from ledger.types import to_text
from tests.cli_helpers import AMOUNT, MOMENT, Desk, digest_desk
from tests.ledger_helpers import NO_LIMITS, open_run
from tests.stage import Stage
from tests.virtual import START

NOW = START + timedelta(days=200)
ACCOUNT = "inference:llm"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The whole schema, with something to spend."""
    desk = Desk(tmp_path).initialised()
    with closing(Database(f"sqlite:///{desk.database}")) as database:
        yield database


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    one = Stage(tmp_path / "stage")
    one.deposit("5")
    return one


def reported(tx: Connection, days: int = 30, now: datetime = NOW) -> dict[str, Any]:
    return report.report(tx, days=days, now=now)


def ended_run(
    tx: Connection, id: str, outcome: RunOutcome, *steps: tuple[float, float], cost: int = 0
) -> None:
    """A run begun a day before NOW whose steps began and ended so many seconds after it."""
    at = NOW - timedelta(days=1)
    open_run(tx, id, at)
    for number, (begun, done) in enumerate(steps):
        journal.begin_step(tx, id, f"notes-{number}", at + timedelta(seconds=begun))
        journal.finish_step(tx, id, f"notes-{number}", {}, at + timedelta(seconds=done))
    if cost:
        spend(tx, f"{id}.1", cost, at)
    journal.finish_run(tx, id, outcome=outcome, reason=None, at=at + timedelta(days=1))


def spend(tx: Connection, attempt: str, micro: int, at: datetime, **changes: Any) -> None:
    """A request that was answered and paid."""
    run = attempt.partition(".")[0]
    values: dict[str, Any] = {
        "step": "plan", "role": "research", "provider": "llm", "model": "good", "outcome": "ok",
        "http_status": 200, "price_input": 1, "price_cached": 1, "price_output": 1,
        "price_source": "test", "cost_micro": micro,
        "usage": {"input": 7, "cached": 2, "cache_write": 0, "output": 3, "reasoning": 1},
    }  # fmt: skip
    hold = f"hold:{attempt}"
    store.hold(
        tx, id=hold, account=ACCOUNT, amount=MicroCredits(micro + 5), at=at, limits=NO_LIMITS,
        run=run, attempt=attempt,
    )  # fmt: skip
    attempts.begin(tx, id=attempt, at=at, run=run, hold=hold, **(values | changes))
    store.settle(tx, hold, actual=MicroCredits(micro), at=at)


def earn(tx: Connection, run: str, platform: str, micro: int, at: datetime) -> None:
    """What readers of a post were worth, booked as `engagement`."""
    row = posting.new_row(
        id=f"engagement:{run}:{platform}:{at}", at=at, action=Action.POST, debit=TREASURY,
        credit=f"engagement:{platform}", amount=MicroCredits(micro), code=Code.ENGAGEMENT, run=run,
    )  # fmt: skip
    posting.append(tx, row)


def published(tx: Connection, run: str, platform: str, at: datetime) -> None:
    journal.intend(tx, run, platform, key=run, payload=b"{}", title=f"Of {run}", at=at)
    journal.change_publication(
        tx, run, platform, state=journal.PublicationState.PUBLISHED, published_at=at,
        url=f"https://blog.test/{run}",
    )  # fmt: skip


def inference_moved(tx: Connection, since: datetime) -> MicroCredits:
    """What the entries say left the treasury for inference."""
    total = ZERO
    for entry in store.entries(tx, since=since):
        if entry.state == "posted":
            total += entry.amount if entry.debit.startswith("inference:") else ZERO
            total -= entry.amount if entry.credit.startswith("inference:") else ZERO
    return total


def sum_of(rows: list[dict[str, Any]], name: str = "cost") -> MicroCredits:
    return sum((row[name] for row in rows), start=ZERO)


# What things are called


@pytest.mark.parametrize(
    ("step", "family"),
    [
        ("plan", "plan"), ("notes-2", "notes"), ("notes-2-again", "notes"), ("draft-1", "draft"),
        ("review-1-second", "review"), ("publish:outbox", "publish"), ("desk", "desk"),
    ],
)  # fmt: skip
def test_a_stage_is_the_step_without_its_number(step: str, family: str) -> None:
    assert report.stage(step) == family


@pytest.mark.parametrize(
    ("outcome", "status", "error", "kind"),
    [
        ("unsent", None, "ConnectError: refused", "unsent"),
        ("unknown", None, "no answer in 120 s", "timeout"),
        ("unknown", 200, "no answer in 120 s", "timeout"),
        ("unknown", 504, "HTTP 504: gateway", "timeout"),
        ("unknown", 408, "HTTP 408: ", "timeout"),
        ("unknown", None, "ReadError", "connection_lost"),
        ("unknown", 200, "RemoteProtocolError: closed", "connection_lost"),
        ("unknown", None, "the process ended during the request", "interrupted"),
        ("unknown", 200, "the answer does not say what was used", "no_usage"),
        ("unknown", 200, "HTTP 200: overloaded", "no_usage"),
        ("unknown", 200, "the answer has no end", "bad_answer"),
        ("unknown", 503, "HTTP 503: busy", "server_error"),
        ("refused", 429, None, "rate_limited"),
        ("refused", 402, None, "out_of_credit"),
        ("refused", 401, None, "key_refused"),
        ("refused", 403, None, "key_refused"),
        ("refused", 404, None, "not_found"),
        ("refused", 400, None, "request_refused"),
        ("refused", 422, None, "request_refused"),
        ("unknown", 302, "HTTP 302: ", "other"),
    ],
)
def test_a_request_that_came_to_nothing_has_one_word(
    outcome: str, status: int | None, error: str | None, kind: str
) -> None:
    assert report.request_kind(outcome, status, error) == kind


def test_a_failed_step_tells_the_books_from_the_models() -> None:
    refusal = str(CapReached("the cap on 24 hours", MicroCredits(5), ZERO))
    assert report.step_kind(refusal) == "not_allowed"
    assert report.step_kind("llm/good: no answer in 120 s") == "no_answer"
    assert report.step_kind(None) == "no_answer"


def test_success_is_judged_of_runs_that_could_have_published() -> None:
    none = dict.fromkeys([*map(str, RunOutcome), report.UNFINISHED], 0)
    assert report.success_rate(none) is None
    assert report.success_rate(none | {"skipped": 4, "dry_run": 2, "unfinished": 1}) is None
    judged = {"published": 2, "awaiting_approval": 1, "abstained": 1, "failed": 1, "unconfirmed": 1}
    assert report.success_rate(none | judged | {"skipped": 9}) == 0.5


def test_a_run_that_waits_for_a_person_is_no_unfinished_one() -> None:
    assert report.run_state(RunState.AWAITING_APPROVAL, None) == "awaiting_approval"
    assert report.run_state(RunState.PARKED, None) == report.UNFINISHED
    assert report.run_state(RunState.RUNNING, None) == report.UNFINISHED
    assert report.run_state(RunState.FINISHED, "abstained") == "abstained"


def test_a_spread_has_the_nearest_rank() -> None:
    assert report.spread([]) == {"total": 0, "mean": 0, "median": 0, "p90": 0, "max": 0}
    assert report.spread([7]) == {"total": 7, "mean": 7, "median": 7, "p90": 7, "max": 7}
    ten = report.spread(range(10, 0, -1))
    assert ten == {"total": 55, "mean": 6, "median": 5, "p90": 9, "max": 10}
    assert report.spread(range(1, 12))["p90"] == 10


def test_a_window_reaches_no_further_back_than_dates_do() -> None:
    assert report.window(NOW, 30) == NOW - timedelta(days=30)
    assert to_text(report.window(NOW, 999_999_999)).startswith("0001-01-01")


# Against a run that was really made


def test_spend_is_what_the_books_moved_and_its_parts_add_up_to_it(stage: Stage) -> None:
    stage.model.misbehave("status", code=429, schema="draft")
    stage.model.misbehave("drop_after", schema="notes")
    assert stage.once().outcome is RunOutcome.PUBLISHED
    with stage.reading() as tx:
        found = reported(tx, now=stage.time.clock.now())
        made = attempts.recent(tx)
        moved = inference_moved(tx, START)
    spent = found["spend"]
    assert spent["total"] == moved == sum_of(spent["by_model"]) == sum_of(spent["by_stage"])
    assert moved > ZERO
    assert sum(amount.micro for amount in spent["by_code"].values()) == moved.micro
    assert {row["stage"]: row["requests"] for row in spent["by_stage"]} == Counter(
        attempt.step.partition("-")[0] for attempt in made
    )
    (model,) = spent["by_model"]
    assert (model["provider"], model["model"]) == ("llm", "good")
    for name in report.TOKENS:
        assert model[name] == sum(attempt.usage[name] for attempt in made if attempt.usage)
    kinds = {(e["of"], e["kind"], e["where"]): e["count"] for e in found["errors"]}
    assert kinds[("request", "rate_limited", "llm")] == 1
    assert kinds[("request", "connection_lost", "llm")] == 1


def test_a_post_is_shown_with_the_cost_of_its_run(stage: Stage) -> None:
    made = stage.once()
    with stage.reading() as tx:
        found = reported(tx, now=stage.time.clock.now())
    (post,) = found["income"]["by_post"]
    assert (post["run"], post["title"], post["platform"]) == (made.run, made.title, "outbox")
    assert post["cost"] == made.cost == found["runs"]["cost"]["total"]
    assert (post["earned"], found["income"]["notional"]) == (ZERO, ZERO)
    assert found["runs"]["by_outcome"]["published"] == found["runs"]["total"] == 1


# Against histories


def test_only_the_window_is_counted(database: Database) -> None:
    with database.write() as tx:
        open_run(tx, "old", NOW - timedelta(days=9))
        spend(tx, "old.1", 1000, NOW - timedelta(days=9))
        open_run(tx, "new", NOW - timedelta(days=1))
        spend(tx, "new.1", 10, NOW - timedelta(days=1))
    with database.read() as tx:
        assert reported(tx, 2)["spend"]["total"].micro == 10
        assert reported(tx, 2)["runs"]["total"] == 1
        assert reported(tx, 10)["spend"]["total"].micro == 1010
        assert reported(tx, 10)["runs"]["total"] == 2


def test_what_is_booked_for_earlier_requests_is_a_row_of_its_own(database: Database) -> None:
    with database.write() as tx:
        spend(tx, "old.1", 1000, NOW - timedelta(days=9))
        store.correct(
            tx, id="c1", account=ACCOUNT, amount=MicroCredits(-7), at=NOW, memo="m",
            run="old", attempt="old.1",
        )  # fmt: skip
        store.correct(
            tx, id="c2", account="inference:other", amount=MicroCredits(3), at=NOW, memo="m"
        )
        spend(tx, "new.1", 10, NOW)
    with database.read() as tx:
        spent = reported(tx, 2)["spend"]
    assert [(r["provider"], r["model"], r["requests"], r["cost"].micro) for r in spent["by_model"]]\
        == [("llm", "good", 1, 10), ("llm", None, 0, 7), ("other", None, 0, -3)]  # fmt: skip
    assert [(row["stage"], row["cost"].micro) for row in spent["by_stage"]] == [
        ("plan", 10), (None, 4),
    ]  # fmt: skip
    assert spent["total"].micro == 14
    assert spent["by_code"]["correction"].micro == 4
    assert spent["by_code"]["inference"].micro == 10


def test_spend_agrees_with_the_entries_for_any_history_and_window(database: Database) -> None:
    chance = random.Random(11)
    first = NOW - timedelta(days=40)
    moments = sorted(first + timedelta(seconds=chance.randrange(40 * 86_400)) for _ in range(150))
    with database.write() as tx:
        for number, at in enumerate(moments):
            hold = f"h{number}"
            match chance.randrange(6):
                case 0:
                    spend(tx, f"r{number}.1", chance.randrange(900), at, model=f"m{number % 3}")
                case 1:
                    store.hold(
                        tx, id=hold, account=ACCOUNT, amount=MicroCredits(50), at=at,
                        limits=NO_LIMITS,
                    )  # fmt: skip
                    later = at + timedelta(days=3)
                    store.settle(tx, hold, actual=MicroCredits(chance.randrange(90)), at=later)
                case 2:
                    store.hold(
                        tx, id=hold, account="inference:other", amount=MicroCredits(9), at=at,
                        limits=NO_LIMITS,
                    )  # fmt: skip
                    if chance.random() < 0.5:
                        store.void(tx, hold, at=at)
                case 3:
                    amount = MicroCredits(chance.choice([-30, -1, 2, 40]))
                    store.correct(tx, id=hold, account=ACCOUNT, amount=amount, at=at, memo="m")
                case 4:
                    earn(tx, f"r{number}", "devto", chance.randrange(1, 50), at)
                case 5:
                    store.deposit(
                        tx, amount=MicroCredits(77), ref=hold, at=at,
                        source=chance.choice([None, "patreon"]),
                    )  # fmt: skip
    with database.read() as tx:
        for days in (1, 3, 7, 20, 60):
            found, since = reported(tx, days), NOW - timedelta(days=days)
            spent, income = found["spend"], found["income"]
            assert spent["total"] == inference_moved(tx, since), days
            assert sum_of(spent["by_model"]) == sum_of(spent["by_stage"]) == spent["total"]
            earned = store.earned(tx, since=since, family="engagement")
            revenue = store.earned(tx, since=since, family="revenue")
            assert (income["notional"], income["money"]) == (earned, revenue)


def test_income_is_told_by_post_also_of_older_runs(database: Database) -> None:
    before = NOW - timedelta(days=50)
    with database.write() as tx:
        for run, at in (("old", before), ("new", NOW - timedelta(days=2))):
            open_run(tx, run, at)
            spend(tx, f"{run}.1", 100, at)
            published(tx, run, "devto", at)
            published(tx, run, "bluesky", at)
        open_run(tx, "forgotten", before)
        published(tx, "forgotten", "devto", before)
        earn(tx, "old", "devto", 40, before)
        earn(tx, "old", "devto", 3, NOW)
        earn(tx, "new", "devto", 20, NOW)
        earn(tx, "new", "devto", 1, NOW - timedelta(hours=1))
        store.deposit(tx, amount=MicroCredits(500), ref="p1", source="patreon", at=NOW)
    with database.read() as tx:
        income = reported(tx)["income"]
    assert [
        (post["run"], post["platform"], post["earned"].micro, post["cost"].micro)
        for post in income["by_post"]
    ] == [("old", "devto", 3, 100), ("new", "bluesky", 0, 100), ("new", "devto", 21, 100)]
    assert (income["notional"].micro, income["money"].micro) == (24, 500)


def test_time_is_what_steps_took_and_not_what_a_draft_waited(database: Database) -> None:
    with database.write() as tx:
        # Two side by side, a day of waiting, one more.
        ended_run(tx, "a", RunOutcome.PUBLISHED, (0, 10), (2, 6), (5, 12), (86_000, 86_003), cost=9)
        ended_run(tx, "b", RunOutcome.ABSTAINED, (0, 5), cost=5)
        ended_run(tx, "s", RunOutcome.SKIPPED, (0, 500))
        open_run(tx, "u", NOW - timedelta(days=1))
    with database.read() as tx:
        runs = reported(tx)["runs"]
    assert runs["seconds"] == {"total": 20.0, "mean": 10.0, "median": 10.0, "p90": 15.0,
                               "max": 15.0}  # fmt: skip
    assert {name: amount.micro for name, amount in runs["cost"].items()} == {
        "total": 14, "mean": 7, "median": 7, "p90": 9, "max": 9,
    }  # fmt: skip
    assert runs["success_rate"] == 0.5
    assert {name: count for name, count in runs["by_outcome"].items() if count} == {
        "published": 1, "abstained": 1, "skipped": 1, "unfinished": 1,
    }  # fmt: skip


def test_errors_are_counted_by_kind_and_place_with_the_newest(database: Database) -> None:
    at = NOW - timedelta(hours=2)
    later = NOW - timedelta(hours=1)
    with database.write() as tx:
        open_run(tx, "a", at)
        for number, when in enumerate((at, later, at)):
            spend(
                tx, f"a.{number}", 0, when, outcome="refused", http_status=429, usage=None,
                error=f"HTTP 429: request {number}",
            )  # fmt: skip
        for number in (3, 4):
            spend(
                tx, f"a.{number}", 0, at, outcome="unknown", http_status=None, usage=None,
                error=f"no answer in {number} s",
            )  # fmt: skip
        journal.begin_step(tx, "a", "draft-1", at)
        journal.fail_step(tx, "a", "draft-1", "llm/good: HTTP 429", later)
        for platform, state in (("devto", "failed"), ("bluesky", "unconfirmed")):
            journal.begin_step(tx, "a", f"publish:{platform}", at)
            journal.fail_step(tx, "a", f"publish:{platform}", "no", at)
            journal.intend(tx, "a", platform, key="k", payload=b"{}", title="t", at=at)
            journal.change_publication(tx, "a", platform, state=state, error="no")
        journal.intend(tx, "a", "outbox", key="k", payload=b"{}", title="t", at=at)
    with database.read() as tx:
        errors = reported(tx)["errors"]
    assert [(e["of"], e["kind"], e["where"], e["count"], e["last"]) for e in errors] == [
        ("request", "rate_limited", "llm", 3, later),
        ("request", "timeout", "llm", 2, at),
        ("publication", "rejected", "devto", 1, at),
        ("publication", "unconfirmed", "bluesky", 1, at),
        ("step", "no_answer", "draft", 1, later),
    ]


def test_every_question_is_answered_by_an_index(database: Database) -> None:
    statements = {
        name: value for name, value in vars(report).items() if name.startswith("_")
        and isinstance(value, type(text("")))
    }  # fmt: skip
    assert len(statements) > 6
    bound = {"since": to_text(NOW), "run": "r", "platform": "devto"}
    with database.read() as tx:
        for name, statement in statements.items():
            plan = tx.execute(text(f"EXPLAIN QUERY PLAN {statement.text}"), bound).all()
            scans = [row.detail for row in plan if row.detail.startswith("SCAN")]
            # A subquery's own few rows may be walked; a table of the journal never.
            assert all(detail.startswith("SCAN (subquery") for detail in scans), (name, scans)


# From outside


def shaped(value: Any, name: str = "") -> bool:
    """Whether every amount and time in a document is written as the contract has it."""
    if isinstance(value, dict):
        return all(shaped(part, key) for key, part in value.items())
    if isinstance(value, list):
        return all(map(shaped, value))
    if name in ("since", "until", "last", "published_at"):
        return MOMENT.fullmatch(value) is not None
    if isinstance(value, str) and re.fullmatch(r"-?[\d.]+", value):
        return AMOUNT.fullmatch(value) is not None
    return True


def test_a_report_needs_no_settings_and_survives_wrong_ones(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    result = desk.run("report", "--json", "--days", "7")
    assert result.code == 0, result
    found = result.json
    assert shaped(found)
    assert found["days"] == 7
    assert found["runs"]["success_rate"] is None
    assert found["spend"]["total"] == found["income"]["money"] == "0.000000"
    assert (found["errors"], found["income"]["by_post"]) == ([], [])
    wrong = {"PENSTOCK_RESERVE": "much", "PENSTOCK_FEEDZ": "x"}
    said = desk.run("report", "--days", "999999999", settings=wrong).out
    assert "nothing to judge yet" in said
    assert "no errors" in said


def test_a_person_reads_the_same_as_a_program(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    made = desk.once().json
    found = desk.read("report")
    assert shaped(found)
    assert found["runs"]["by_outcome"]["published"] == 1
    assert found["runs"]["seconds"]["max"] > 0
    assert [post["run"] for post in found["income"]["by_post"]] == [made["run"]]
    since, until = (datetime.fromisoformat(found[name]) for name in ("since", "until"))
    assert until - since == timedelta(days=30)
    assert until.tzinfo == UTC
    said = desk.run("report").out
    assert "runs      1 in 30 days: 1 published" in said
    assert made["title"][:40] in said
