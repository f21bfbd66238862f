"""What `posts list` says of a publication: where it is, who read it, what it earned and cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from daemon import journal
from daemon.cli.posts import human, listed, readers
from daemon.journal import PublicationState
from ledger import store
from ledger.database import Database
from ledger.money import ZERO, MicroCredits
from ledger.types import to_text
from tests.cli_helpers import digest_desk
from tests.ledger_helpers import NO_LIMITS, whole_book
from tests.virtual import START

AMPLE = MicroCredits(10**12)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with whole_book(tmp_path / "books.db") as database:
        with database.write() as tx:
            store.deposit(tx, amount=MicroCredits(10**9), ref="first", at=START)
        yield database


def publish(tx: Connection, run: str, *platforms: str, minute: int = 0, **changes: Any) -> None:
    at = START + timedelta(minutes=minute)
    journal.open_run(
        tx, id=run, slot=None, tier="standard", kind=journal.ARTICLE, topic=None, budget_micro=1,
        at=at,
    )  # fmt: skip
    for platform in platforms:
        journal.intend(tx, run, platform, key=run, payload=b"{}", title=f"Of {run}", at=at)
        journal.change_publication(
            tx, run, platform,
            **{"state": PublicationState.PUBLISHED, "published_at": at,
               "url": f"https://{platform}.test/{run}", "remote_id": run} | changes,
        )  # fmt: skip


def read(tx: Connection, run: str, platform: str, forfeited: int = 0, **counts: int) -> None:
    """Readers did so much, and a thousandth of a credit was paid for each."""
    for metric, count in counts.items():
        tx.execute(
            text("INSERT INTO metric VALUES (:run, :platform, :metric, :n, :n, :e, :f, :at)"),
            {"run": run, "platform": platform, "metric": metric, "n": count, "e": count * 1_000,
             "f": forfeited, "at": to_text(START)},
        )  # fmt: skip
        if count:
            store.earn(
                tx, id=f"engagement:{platform}:{run}:{metric}:{count}", platform=platform,
                amount=MicroCredits(count * 1_000), cap=AMPLE,
                since=START - timedelta(days=1), at=START, run=run,
            )  # fmt: skip


def spend(tx: Connection, run: str, micro: int) -> None:
    hold = f"{run}.{micro}"
    store.hold(
        tx, id=hold, account="inference:llm", amount=MicroCredits(micro + 7), at=START,
        limits=NO_LIMITS, run=run,
    )  # fmt: skip
    store.settle(tx, hold, actual=MicroCredits(micro), at=START)


def test_a_publication_is_shown_with_its_readers_its_income_and_its_run_s_cost(
    database: Database,
) -> None:
    with database.write() as tx:
        publish(tx, "a", "devto", "bluesky")
        read(tx, "a", "devto", forfeited=30, view=12, comment=0)
        read(tx, "a", "bluesky", like=2)
        spend(tx, "a", 5_000)
        spend(tx, "a", 6_000)
        tx.execute(
            text("UPDATE publication SET counted_at = :at WHERE platform = 'devto'"),
            {"at": to_text(START)},
        )
        bluesky, devto = listed(tx)
    assert devto == {
        "run": "a", "platform": "devto", "state": "published", "url": "https://devto.test/a",
        "remote_id": "a", "title": "Of a", "published_at": "2026-11-23T08:00:00Z",
        "metrics": {"comment": 0, "view": 12}, "counted_at": "2026-11-23T08:00:00Z",
        "earned": MicroCredits(12_000), "forfeited": MicroCredits(60),
        "cost": MicroCredits(11_000), "error": None,
    }  # fmt: skip
    assert (bluesky["metrics"], bluesky["earned"], bluesky["counted_at"]) == (
        {"like": 2}, MicroCredits(2_000), None,
    )  # fmt: skip
    assert bluesky["cost"] == devto["cost"]


def test_what_was_never_out_shows_why(database: Database) -> None:
    with database.write() as tx:
        publish(
            tx, "a", "devto",
            state=PublicationState.FAILED, published_at=None, url=None, remote_id=None,
            error="no such tag",
        )  # fmt: skip
        [post] = listed(tx)
    assert (post["state"], post["published_at"], post["error"]) == ("failed", None, "no such tag")
    assert (post["metrics"], post["earned"], post["cost"]) == ({}, ZERO, ZERO)
    assert "no such tag" in human([post], "none")


def test_what_a_person_took_back_is_no_longer_earned(database: Database) -> None:
    with database.write() as tx:
        publish(tx, "a", "devto")
        read(tx, "a", "devto", view=9)
        store.adjust(
            tx, amount=MicroCredits(-9_000), ref="clicks", memo="bought", at=START,
            corrects="engagement:devto:a:view:9",
        )  # fmt: skip
        assert listed(tx)[0]["earned"] == ZERO


def test_a_list_is_oldest_first_and_cut_to_the_newest(database: Database) -> None:
    with database.write() as tx:
        for number, run in enumerate(("c", "a", "b")):
            publish(tx, run, "devto", "outbox", minute=number)
            read(tx, run, "devto", view=number)
        everything = listed(tx)
        assert [post["run"] for post in everything] == ["c", "c", "a", "a", "b", "b"]
        assert listed(tx, limit=3) == everything[-3:]
        assert listed(tx, since=START + timedelta(minutes=1)) == everything[2:]
        assert listed(tx, since=START + timedelta(minutes=1), limit=1) == everything[-1:]


def test_a_thousand_posts_are_read_in_as_many_statements_as_one(database: Database) -> None:
    asked: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    with database.write() as tx:
        publish(tx, "first", "devto")
        listed(tx)
        for number in range(1_000):
            publish(tx, f"r{number:04}", "devto", minute=number)
        asked.clear()
        assert len(listed(tx)) == 1_001
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, None),
        ({"view": 0, "comment": 0}, "0"),
        ({"comment": 1, "reaction": 3, "view": 120}, "120 views, 3 reactions, 1 comment"),
        ({"reply": 2, "like": 0, "repost": 2}, "2 replies, 2 reposts"),
    ],
)
def test_readers_are_told_in_few_words(metrics: dict[str, int], said: str | None) -> None:
    assert readers(metrics) == said


def test_a_person_sees_a_run_s_cost_once_and_what_was_forfeited(database: Database) -> None:
    with database.write() as tx:
        publish(tx, "a", "bluesky", "devto", title="Of " + "very " * 20 + "much")
        read(tx, "a", "devto", forfeited=400, view=12)
        spend(tx, "a", 11_000)
        told = human(listed(tx), "none").splitlines()
    assert told[0].split("  ")[0] == "published"
    assert "run cost" in told[0]
    assert ["0.011000" in line for line in told[2:4]] == [True, False]
    assert "12 views" in told[3]
    assert told[3].endswith("https://devto.test/a")
    assert told[4] == "0.000400 above PENSTOCK_EARN_DAILY_CAP was forfeited"
    assert told[2].split("  ")[1] == "a"
    assert max(map(len, told)) < 160


def test_of_what_is_not_out_any_more_a_person_sees_why(database: Database) -> None:
    with database.write() as tx:
        publish(tx, "a", "devto", state=PublicationState.WITHDRAWN, error="gone at devto")
        assert human(listed(tx), "none").endswith("gone at devto")


@pytest.mark.parametrize(
    ("state", "code"), [(PublicationState.UNCONFIRMED, 8), (PublicationState.PUBLISHED, 1)]
)
def test_what_could_not_be_taken_back_yet_ends_as_what_it_is(
    tmp_path: Path, state: PublicationState, code: int
) -> None:
    nobody = {"DEVTO_API_KEY": "a-key", "DEVTO_URL": "http://127.0.0.1:9"}
    desk = digest_desk(tmp_path, PENSTOCK_PUBLISHERS="devto", **nobody)
    assert desk.run("init").code == 0
    with closing(Database(f"sqlite:///{desk.database}")) as database, database.write() as tx:
        publish(tx, "a", "devto", state=state, remote_id="17")
    told = desk.run("posts", "withdraw", "a", "--reason", "it is wrong", "--json")
    assert (told.code, [post["state"] for post in told.json]) == (code, [state])
    assert "cannot be reached" in told.json[0]["error"]


def test_nothing_published_is_said() -> None:
    assert human([], "none since 2d") == "none since 2d"
