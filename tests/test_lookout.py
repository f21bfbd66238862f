"""Conditions that a person must know of: raised while they last, cleared when they have passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from daemon import alerts, control, journal, lookout
from daemon.alerts import Kind
from daemon.inference import attempts
from daemon.inference.ladder import Ladder
from daemon.inference.port import Outcome
from daemon.journal import PublicationState, RunOutcome
from ledger import audit, store
from ledger.database import Database
from ledger.money import ZERO
from tests.ledger_helpers import cr
from tests.platforms import Platforms
from tests.virtual import START

PLENTY = 10 * 2**30
DAY = timedelta(days=1)


class Scene:
    """A publication's database, and the moment somebody looks at it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.stage = Platforms(folder, **{"PENSTOCK_PUBLISH_CRON": "0 9 * * *"} | settings)
        self.stage.deposit("5")
        self.database = Database(self.stage.settings.location.database_url)
        with self.database.write() as tx:
            journal.open_run(
                tx, id="r1", slot=None, tier="standard", kind=journal.ARTICLE, topic=None,
                budget_micro=0, at=START,
            )  # fmt: skip
            journal.finish_run(tx, "r1", outcome=RunOutcome.PUBLISHED, reason=None, at=START)
            journal.intend(tx, "r1", "devto", key="k", payload=b"{}", title="T", at=START)

    def look(self, after: timedelta, disk_free: int = PLENTY, refused: str = "") -> dict[Kind, str]:
        with self.database.write() as tx:
            found = lookout.conditions(
                tx, self.stage.settings, START + after,
                since=START, disk_free=disk_free, problems=audit.glance(tx),
                refused=refused,
            )  # fmt: skip
            alerts.level(tx, lookout.KINDS, found, at=START + after)
        with self.database.read() as tx:
            return {Kind(row.kind): row.message for row in alerts.standing(tx, START + after)}

    def answered(self, status: int, at: datetime) -> None:
        """A provider's answer at some moment, as the books keep it."""
        with self.database.write() as tx:
            attempt = attempts.next_id(tx, "r1")
            store.hold(
                tx, id=f"hold:{attempt}", account="inference:llm", amount=ZERO, at=at,
                limits=store.Limits(),
            )  # fmt: skip
            tx.exec_driver_sql(
                "INSERT INTO attempt (id, at, run, step, role, provider, model, outcome,"
                " http_status, hold, price_input, price_cached, price_output, price_source)"
                " VALUES (?, ?, 'r1', 'plan', 'research', 'llm', 'good', ?, ?, ?, 0, 0, 0, 'x')",
                (
                    attempt, at.isoformat().replace("+00:00", ".000000Z"),
                    Outcome.OK if status == 200 else Outcome.REFUSED, status, f"hold:{attempt}",
                ),
            )  # fmt: skip

    def publication(self, state: PublicationState, published_days: float | None = None) -> None:
        at = None if published_days is None else START + timedelta(days=published_days)
        with self.database.write() as tx:
            journal.change_publication(tx, "r1", "devto", state=state, published_at=at, error="?")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.publication(PublicationState.PUBLISHED, 0)
    yield made
    made.database.close()


def test_where_all_is_well_nothing_stands(scene: Scene) -> None:
    assert scene.look(timedelta(hours=1)) == {}


def test_three_silent_intervals_stand_until_something_comes_out(scene: Scene) -> None:
    assert scene.look(3 * DAY) == {}
    for days in (3.2, 3.5, 4.1):
        assert set(scene.look(days * DAY)) == {Kind.SILENT}
    scene.publication(PublicationState.PUBLISHED, 4.2)
    assert scene.look(4.3 * DAY) == {}


def test_a_pause_is_no_silence(scene: Scene) -> None:
    with scene.database.write() as tx:
        control.pause(tx, reason=None, at=START)
    assert scene.look(9 * DAY) == {}


def test_a_schedule_of_every_minute_is_counted_by_the_clamp(tmp_path: Path) -> None:
    scene = Scene(tmp_path, PENSTOCK_MAX_POSTS_PER_DAY="1", PENSTOCK_PUBLISH_CRON="* * * * *")
    scene.publication(PublicationState.PUBLISHED, 0)
    assert scene.look(2 * DAY) == {}
    scene.database.close()


def test_what_stays_unconfirmed_is_told_after_some_hours(scene: Scene) -> None:
    scene.publication(PublicationState.UNCONFIRMED)
    assert scene.look(timedelta(hours=2)) == {}
    assert "devto" in scene.look(timedelta(hours=4))[Kind.UNCONFIRMED]
    scene.publication(PublicationState.PUBLISHED, 0.2)
    assert scene.look(timedelta(hours=5)) == {}


def test_a_disk_that_is_nearly_full_is_told(scene: Scene) -> None:
    assert "150 MB" in scene.look(timedelta(0), disk_free=150 * 2**20)[Kind.DISK]
    assert scene.look(timedelta(0)) == {}


def test_settings_that_a_reload_refused_are_told_until_one_takes_them(scene: Scene) -> None:
    said = scene.look(timedelta(hours=1), refused="PENSTOCK_X is wrong")[Kind.SETTINGS]
    assert said == "a reload left the old settings in use: PENSTOCK_X is wrong"
    assert Kind.SETTINGS not in scene.look(timedelta(hours=2))


def test_books_that_do_not_balance_are_told(scene: Scene) -> None:
    with scene.database.write() as tx:
        tx.exec_driver_sql("UPDATE account SET debits_posted_micro = debits_posted_micro + 1")
    assert "do not balance" in scene.look(timedelta(0))[Kind.BOOKS]


def test_a_provider_without_funds_is_told_until_it_answers_again(scene: Scene) -> None:
    for number, status in enumerate((200, 402, 200), start=1):
        scene.answered(status, START + timedelta(minutes=number))
        stands = scene.look(timedelta(hours=1))
        assert (Kind.FUNDS in stands) is (status == 402), status


def test_a_provider_that_was_topped_up_is_not_told_of_until_it_is_asked_again(
    scene: Scene,
) -> None:
    scene.answered(402, START + timedelta(minutes=1))
    assert Kind.FUNDS in scene.look(timedelta(hours=1))
    with scene.database.write() as tx:
        store.deposit(tx, amount=cr("1"), ref="topped-up", at=START + timedelta(hours=2))
    assert Kind.FUNDS not in scene.look(timedelta(hours=3))
    scene.answered(402, START + timedelta(hours=4))
    assert Kind.FUNDS in scene.look(timedelta(hours=5))


def test_a_provider_that_no_ladder_names_is_not_told_of(scene: Scene) -> None:
    scene.answered(402, START + timedelta(minutes=1))
    scene.stage.settings = replace(
        scene.stage.settings, ladders=dict.fromkeys(scene.stage.settings.ladders, Ladder())
    )
    assert Kind.FUNDS not in scene.look(timedelta(hours=1))


def test_an_answer_dated_by_a_clock_that_was_ahead_is_not_the_newest_for_ever(
    scene: Scene,
) -> None:
    scene.answered(402, START + 365 * DAY)
    scene.answered(200, START)
    assert scene.look(timedelta(hours=1)) == {}
