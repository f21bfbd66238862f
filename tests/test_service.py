"""The daemon on virtual time: what rings when, once, whatever the clock and the operator do."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import alerts, bells, control, drafts, journal
from daemon.alerts import Kind
from daemon.app import Parts, opened_database, opened_parts
from daemon.bells import Bell
from daemon.cli.run import _Wanted
from daemon.cycle import Cycle
from daemon.engagement import Collector
from daemon.journal import PublicationState, RunOutcome, RunState
from daemon.newsroom import Newsroom
from daemon.notify import Notifier
from daemon.press import Press
from daemon.service import Ended, Service
from ledger import store
from ledger.errors import BooksWrong, StorageFull
from ledger.money import MicroCredits
from tests.platforms import Platforms
from tests.stage import Kill, Killed, MortalDatabase, Silent
from tests.virtual import START

DAY_S = 86_400.0
PAID = dict.fromkeys(
    ("PENSTOCK_MODELS_RESEARCH", "PENSTOCK_MODELS_WRITE", "PENSTOCK_MODELS_EDIT"), "llm/good"
)
DAILY = {"PENSTOCK_PUBLISH_CRON": "0 9 * * *", "PENSTOCK_COLLECT_CRON": "0 * * * *"}


class Daemon(Platforms):
    """A stage whose process stays."""

    def __init__(self, folder: Path, /, **changes: str) -> None:
        super().__init__(
            folder, **DAILY | {"PENSTOCK_MODELS_RESEARCH": "digest", "PENSTOCK_MODELS_WRITE":
            "digest", "PENSTOCK_MODELS_EDIT": "digest", "PENSTOCK_PUBLISHERS": "outbox",
            "PENSTOCK_MAX_POSTS_PER_DAY": "1"} | changes,
        )  # fmt: skip
        self.traced: list[str] = []

    def live(
        self,
        seconds: float,
        meanwhile: Callable[[Service], Awaitable[None]] | None = None,
        kill: Kill | None = None,
        poll_s: float = 900.0,
    ) -> Ended:
        """One life of the service, told to stop after so many seconds."""

        async def life(database: MortalDatabase) -> Ended:
            async with opened_parts(self.settings, database, Silent(), self.world(kill)) as parts:
                service = self._service(parts, poll_s)

                async def ending() -> None:
                    try:
                        if meanwhile is not None:
                            await meanwhile(service)
                        await asyncio.sleep(seconds)
                    finally:
                        service.stop()

                end = asyncio.create_task(ending())
                try:
                    ended = await service.serve()
                finally:
                    end.cancel()
                if end.done():
                    end.result()
                return ended

        return self._life(life, kill)

    def _service(self, parts: Parts, poll_s: float) -> Service:
        async def trace(run: str) -> None:
            self.traced.append(run)

        return Service(parts, Notifier.from_env({}), trace=trace, poll_s=poll_s)

    def runs(self) -> list[Any]:
        with self.reading() as tx:
            return list(journal.runs(tx))

    def slots(self) -> list[datetime]:
        return [row.slot for row in self.runs() if row.slot is not None]

    def decisions(self, kind: str) -> list[str]:
        with self.reading() as tx:
            rows = tx.exec_driver_sql("SELECT sentence FROM decision WHERE kind = ?", (kind,))
            return list(rows.scalars())


def nine(day: int) -> datetime:
    return datetime(2026, 11, day, 9, tzinfo=UTC)


def set_the_clock(daemon: Daemon, ahead: timedelta) -> Callable[[], None]:
    """The wall clock is so far ahead, until what is returned is called."""
    clock, wall = daemon.time.clock, daemon.time.clock._wall
    clock._wall = lambda: wall() + ahead

    def right() -> None:
        clock._wall = wall

    return right


def twice_broken(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A run fails twice; when it was tried, in seconds of the loop."""
    tried: list[float] = []
    digest = Newsroom.digest

    async def broken(self: Newsroom, steps: Any, topic: str | None) -> Any:
        tried.append(daemon.time.loop.time())
        if len(tried) < 3:
            raise OSError("not now")
        return await digest(self, steps, topic)

    monkeypatch.setattr(Newsroom, "digest", broken)
    return tried


def test_each_slot_has_one_run(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    assert daemon.live(3.5 * DAY_S) is Ended.STOPPED
    assert daemon.slots() == [nine(23), nine(24), nine(25), nine(26)]
    assert daemon.traced == [run.id for run in daemon.runs()]


def test_nothing_from_before_the_first_start_is_due(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.sleep(2 * 3600)
    daemon.live(3600)
    assert daemon.slots() == []
    daemon.live(DAY_S)
    assert daemon.slots() == [nine(24)]


def test_downtime_is_made_up_for_by_one_run(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.live(2 * 3600)
    daemon.sleep(5 * DAY_S)
    daemon.live(60)
    assert daemon.slots() == [nine(23), nine(28)]


def test_a_slot_older_than_a_day_is_let_go(tmp_path: Path) -> None:
    weekly = Daemon(tmp_path, PENSTOCK_PUBLISH_CRON="0 9 * * mon")
    weekly.live(60)
    weekly.sleep(2 * DAY_S)
    weekly.live(3600)
    assert weekly.slots() == []


def test_many_short_lives_use_each_slot_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    for _ in range(60):
        daemon.live(1800)
        daemon.sleep(60)
    assert daemon.slots() == [nine(23), nine(24)]


def test_killed_anywhere_a_slot_is_used_once(tmp_path: Path) -> None:
    for number in range(1, 40, 2):
        daemon = Daemon(tmp_path / str(number))
        try:
            daemon.live(2 * 3600, kill=Kill.at(number, after=bool(number % 4 == 1)))
        except Killed:
            daemon.live(2 * 3600)
        assert daemon.slots() == [nine(23)], number
        assert len(daemon.articles()) <= 1
        daemon.judge()


def test_a_clock_that_was_ahead_neither_silences_nor_repeats(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.live(2 * 3600)
    wall = daemon.time.clock._wall
    daemon.time.clock._wall = lambda: wall() + timedelta(days=40)
    daemon.live(2 * 3600)
    ahead = daemon.slots()
    daemon.time.clock._wall = wall
    daemon.live(3 * DAY_S)
    assert len(daemon.slots()) == len(set(daemon.slots()))
    assert {nine(24), nine(25), nine(26)} <= set(daemon.slots())
    assert len(ahead) == 2
    assert daemon.decisions("clock")


def test_while_paused_slots_go_by_and_afterwards_it_goes_on(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with opened_database(daemon.settings.location) as database, database.write() as tx:
        control.pause(tx, reason="holiday", at=START)
    daemon.live(1.5 * DAY_S)
    assert daemon.slots() == []
    assert any("holiday" in sentence for sentence in daemon.decisions("skip"))
    with opened_database(daemon.settings.location) as database, database.write() as tx:
        control.resume(tx)
    daemon.live(DAY_S)
    assert daemon.slots() == [nine(25)]


def test_a_pause_lets_no_request_more_begin(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, **PAID)
    daemon.deposit("5")
    daemon.model.misbehave("slow", times=None, seconds=30)
    daemon.sleep(3600 - 10)
    asked: list[int] = []

    async def pause(service: Service) -> None:
        # In the middle of the first answer; a second one is needed after it.
        await asyncio.sleep(20)
        database = MortalDatabase(daemon.settings.location.database_url, None)
        with database.write() as tx:
            control.pause(tx, reason="holiday", at=daemon.time.clock.now())
        database.close()
        asked.append(len(daemon.model.requests))

    daemon.live(3600, pause)
    assert asked[0] > 0
    assert len(daemon.model.requests) == asked[0]
    (run,) = daemon.runs()
    assert run.state == RunState.PARKED
    with opened_database(daemon.settings.location) as database, database.write() as tx:
        control.resume(tx)
    daemon.live(3600)
    (run,) = daemon.runs()
    assert run.state == RunState.FINISHED
    daemon.judge()


def test_an_approved_draft_goes_out_within_a_minute(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_SITE_URL="https://notes.example", PENSTOCK_APPROVAL="manual")
    daemon.live(2 * 3600)
    (run,) = daemon.runs()
    assert run.state == RunState.AWAITING_APPROVAL
    assert not daemon.articles()

    async def approve(service: Service) -> None:
        await asyncio.sleep(600)
        database = MortalDatabase(daemon.settings.location.database_url, None)
        with database.write() as tx:
            journal.change_run(
                tx, run.id, state=RunState.PARKED, approved_at=daemon.time.clock.now(),
                reason="approved",
            )  # fmt: skip
        database.close()

    daemon.live(60, approve, poll_s=15)
    assert len(daemon.articles()) == 1


def test_a_thinned_cadence_spends_no_run_on_a_slot_that_a_draft_keeps_from_it(
    tmp_path: Path,
) -> None:
    daemon = Daemon(
        tmp_path, **PAID | {"PENSTOCK_PUBLISH_CRON": "0 */3 * * *", "PENSTOCK_APPROVAL": "manual"},
        PENSTOCK_SITE_URL="https://notes.example", PENSTOCK_MAX_POSTS_PER_DAY="8",
    )  # fmt: skip
    daemon.deposit("0.6")
    daemon.live(2 * DAY_S)
    (first,) = daemon.runs()
    skipped = daemon.decisions("skip")
    assert "a slot goes by unused: " in skipped[0]
    assert "a draft waits for approval" in skipped[-1], "one was owed, and could not be had"

    async def reject(service: Service) -> None:
        database = MortalDatabase(daemon.settings.location.database_url, None)
        with database.write() as tx:
            drafts.let_go(tx, first.id, "rejected", daemon.time.clock.now())
        database.close()

    daemon.live(3 * 3600, reject)
    assert daemon.slots() == [nine(23), nine(25)]


def test_told_to_stop_in_the_middle_it_stops_within_ten_seconds(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, **PAID)
    daemon.deposit("5")
    # Longer than it is waited for: the first answer is under way when it is told.
    daemon.model.misbehave("slow", times=None, seconds=300)
    daemon.sleep(3600 - 10)
    began = daemon.time.loop.time()
    assert daemon.live(40) is Ended.STOPPED
    assert daemon.time.loop.time() - began < 40 + 11
    (run,) = daemon.runs()
    assert run.state in (RunState.RUNNING, RunState.PARKED)
    daemon.model.troubles.clear()
    daemon.live(3600)
    (run,) = daemon.runs()
    assert run.state == RunState.FINISHED
    daemon.judge()


def test_a_job_that_fails_ends_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daemon.engagement import Collector

    async def broken(self: Collector) -> None:
        raise RuntimeError("no idea")

    daemon = Daemon(tmp_path)
    monkeypatch.setattr(Collector, "run", broken)
    daemon.live(2 * 3600)
    assert daemon.slots() == [nine(23)]
    assert [told["kind"] for told in daemon.webhook.told] == ["fault"]
    monkeypatch.undo()
    daemon.live(2 * 3600)
    assert [told["cleared"] for told in daemon.webhook.told] == [False, True]


def test_a_run_that_fails_each_time_is_not_tried_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    daemon = Daemon(tmp_path)

    async def broken(*args: object) -> None:
        tried.append(daemon.time.loop.time())
        if len(tried) > 50:
            raise Killed
        raise OSError("no room")

    monkeypatch.setattr(Newsroom, "digest", broken)
    daemon.live(5 * 3600)
    # At its slot, at once again since it has changed, then hourly.
    assert 3 <= len(tried) <= 7
    monkeypatch.undo()
    daemon.live(2 * 3600)
    (run,) = daemon.runs()
    assert run.state == RunState.FINISHED


def test_a_draft_expires_though_nobody_starts_anything(tmp_path: Path) -> None:
    daemon = Daemon(
        tmp_path, PENSTOCK_SITE_URL="https://notes.example", PENSTOCK_APPROVAL="manual",
        PENSTOCK_PUBLISH_CRON="0 9 23 11 *",
    )  # fmt: skip
    daemon.live(7.3 * DAY_S, poll_s=7200)
    (run,) = daemon.runs()
    assert run.outcome == RunOutcome.ABSTAINED
    assert "seven days" in run.reason


def test_what_is_not_known_is_looked_up_at_the_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.live(2 * 3600)
    (run,) = daemon.runs()
    with opened_database(daemon.settings.location) as database, database.write() as tx:
        journal.change_publication(
            tx, run.id, "outbox", state=PublicationState.UNCONFIRMED, url=None, remote_id=None
        )
    daemon.live(10)
    assert daemon.states(run.id) == {"outbox": "published"}


def test_three_silent_intervals_are_told_once(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_MODELS_WRITE="llm/good", PENSTOCK_PUBLISHERS="devto")
    daemon.live(6.5 * DAY_S)
    assert [told["kind"] for told in daemon.webhook.told] == ["silent"]


def test_a_reload_that_is_asked_for_between_two_stretches_is_not_lost(tmp_path: Path) -> None:
    daemon, wanted = Daemon(tmp_path), _Wanted()

    async def hand_over(service: Service) -> None:
        wanted.of(service)

    wanted.reload()
    assert daemon.live(60, hand_over) is Ended.RELOAD
    wanted.read()
    assert daemon.live(60, hand_over) is Ended.STOPPED


def test_reload_ends_the_stretch_and_not_the_work(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)

    async def reload(service: Service) -> None:
        await asyncio.sleep(2 * 3600)
        service.reload()

    assert daemon.live(DAY_S, reload) is Ended.RELOAD
    assert daemon.slots() == [nine(23)]


def test_readers_are_counted_on_the_schedule(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_PUBLISHERS="outbox,devto", **PAID)
    daemon.deposit("5")

    async def read(service: Service) -> None:
        await asyncio.sleep(1.5 * 3600)
        (article,) = daemon.devto.public
        daemon.devto.read_by_people(article.id, page_views_count=100)

    daemon.live(6 * 3600, read)
    with daemon.reading() as tx:
        (run,) = daemon.runs()
        assert store.earned_by_run(tx) == {run.id: MicroCredits.parse("0.02")}


def test_hourly_and_daily_work_wait_for_no_look(tmp_path: Path) -> None:
    rare = dict.fromkeys(("PENSTOCK_COLLECT_CRON", "PENSTOCK_FEED_CRON"), "0 0 1 1 *")
    daemon = Daemon(tmp_path, PENSTOCK_PUBLISH_CRON="0 0 1 1 *", **rare)
    daemon.live(DAY_S + 60, poll_s=10 * DAY_S)
    with daemon.reading() as tx:
        last = bells.last(tx)
    assert last[Bell.PURSUE] == last[Bell.DAILY] == START + timedelta(days=1)


def test_slots_of_a_day_with_a_clock_change_are_used_once(tmp_path: Path) -> None:
    # Berlin sets its clocks back on 25 October 2026 at three: half past two comes twice.
    daemon = Daemon(tmp_path, PENSTOCK_TIMEZONE="Europe/Berlin", PENSTOCK_PUBLISH_CRON="30 2 * * *")
    daemon.time.clock._wall = lambda: (
        datetime(2026, 10, 24, 20, tzinfo=UTC) + timedelta(seconds=daemon.time.loop.time())
    )
    daemon.live(12 * 3600)
    assert daemon.slots() == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]


def test_a_database_that_cannot_be_written_is_waited_out_and_told(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)

    async def taken(service: Service) -> None:
        await asyncio.sleep(600)
        other = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        # Over the slot at nine.
        await asyncio.sleep(2 * 3600)
        other.execute("ROLLBACK")
        other.close()

    assert daemon.live(3600, taken, poll_s=60) is Ended.STOPPED
    assert daemon.slots() == [nine(23)]
    assert [(told["kind"], told["cleared"]) for told in daemon.webhook.told] == [
        ("fault", False), ("fault", True)
    ]  # fmt: skip
    assert "cannot be used" in daemon.webhook.told[0]["message"]


def test_who_did_not_hear_that_the_database_is_unusable_is_told_again(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.webhook.status = 503

    async def taken(service: Service) -> None:
        await asyncio.sleep(600)
        with closing(sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(3600)
            assert daemon.webhook.told == []
            daemon.webhook.status = 204
            await asyncio.sleep(3600)
            other.execute("ROLLBACK")

    assert daemon.live(3600, taken, poll_s=60) is Ended.STOPPED
    assert [told["cleared"] for told in daemon.webhook.told] == [False, True]


def test_books_that_contradict_themselves_end_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.deposit("5")

    async def meddle(service: Service) -> None:
        await asyncio.sleep(600)
        with sqlite3.connect(tmp_path / "penstock.db") as other:
            other.execute(
                "UPDATE account SET debits_posted_micro = debits_posted_micro + 1"
                " WHERE name = 'treasury'"
            )

    with pytest.raises(BooksWrong):
        daemon.live(DAY_S, meddle)
    assert daemon.slots() == []
    assert [told["kind"] for told in daemon.webhook.told] == ["books"]


# What an owner's reading found, mended


def test_one_job_that_finds_no_room_is_told_and_holds_nothing_else_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Press) -> list[Any]:
        raise StorageFull("database or disk is full")

    daemon = Daemon(tmp_path)
    monkeypatch.setattr(Press, "pursue", full)
    daemon.live(2 * DAY_S, poll_s=15)
    assert daemon.slots() == [nine(23), nine(24)]
    # The daily work pursues as well.
    assert [told["cleared"] for told in daemon.webhook.told] == [False, False]
    assert daemon.decisions("storage") == []


def test_a_dry_run_that_was_killed_is_not_published_by_who_goes_on(tmp_path: Path) -> None:
    async def dry(database: MortalDatabase) -> object:
        async with opened_parts(daemon.settings, database, Silent(), daemon.world()) as parts:
            return await parts.cycle.once(dry_run=True)

    tried = 0
    for number in range(2, 14):
        daemon = Daemon(tmp_path / str(number))
        with suppress(Killed):
            daemon._life(dry, Kill.at(number, after=True))
        tried += any(run.state == RunState.RUNNING for run in daemon.runs())
        daemon.live(60)
        assert daemon.articles() == []
        assert {run.outcome for run in daemon.runs()} <= {RunOutcome.DRY_RUN, RunOutcome.SKIPPED}
    assert tried > 5


def test_a_clock_that_is_set_forward_is_no_work_that_hangs(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, **PAID)
    daemon.deposit("5")
    daemon.model.misbehave("slow", times=None, seconds=30)
    daemon.sleep(3600 - 10)
    lives = []

    async def forward(service: Service) -> None:
        await asyncio.sleep(20)
        assert service._at_work_since is not None
        set_the_clock(daemon, timedelta(hours=3))
        lives.append(service._lives())

    daemon.live(3600, forward)
    assert lives == [True]


def test_what_was_put_off_while_the_clock_was_ahead_does_not_wait_for_that_day(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_PUBLISHERS="outbox,devto", **PAID)
    daemon.deposit("5")
    daemon.live(2 * 3600)
    (run,) = daemon.runs()
    with opened_database(daemon.settings.location) as database, database.write() as tx:
        journal.change_publication(
            tx, run.id, "devto", state=PublicationState.INTENDED, published_at=None, url=None,
            remote_id=None, noted=None,
            retry_at=daemon.time.clock.now() + timedelta(days=365),
        )  # fmt: skip
    daemon.live(2 * 3600)
    assert daemon.states(run.id)["devto"] == "published"


def test_what_may_be_out_is_looked_for_as_soon_as_a_clock_that_was_ahead_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path)
    looked: list[float] = []
    recover = Cycle.recover

    async def noted(self: Cycle, *, publishing: bool = True) -> None:
        if publishing:
            looked.append(daemon.time.loop.time())
        await recover(self, publishing=publishing)

    monkeypatch.setattr(Cycle, "recover", noted)
    right = set_the_clock(daemon, timedelta(minutes=50))

    async def back(service: Service) -> None:
        await asyncio.sleep(1800)
        right()

    daemon.live(1800, back, poll_s=15)
    assert looked == [0, pytest.approx(1800, abs=15)]


def test_a_run_that_waits_is_tried_hourly_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_PUBLISH_CRON="0 9 * * mon")
    tried = twice_broken(daemon, monkeypatch)
    right = set_the_clock(daemon, timedelta(days=7))

    async def back(service: Service) -> None:
        await asyncio.sleep(1.5 * 3600)
        right()

    daemon.live(5 * 3600, back)
    assert len(tried) == 3


def test_a_run_that_another_slot_ended_leaves_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path, PENSTOCK_PUBLISH_CRON="0,30 9 * * *")
    tried = twice_broken(daemon, monkeypatch)
    daemon.live(2 * DAY_S, poll_s=15)
    with daemon.reading() as tx:
        standing = alerts.standing(tx, daemon.time.clock.now())
    assert len(tried) > 2
    assert not [one.key for one in standing if one.kind == Kind.FAULT]


def test_who_is_silent_is_told_also_where_the_bells_were_hung_by_a_clock_ahead(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path)
    right = set_the_clock(daemon, timedelta(days=365))
    daemon.live(60)
    right()
    daemon.live(3600)
    with daemon.reading() as tx:
        assert bells.hung_at(tx) <= daemon.time.clock.now()


def test_a_rehearsal_that_was_cut_off_is_not_bought_to_its_end_for_nobody(tmp_path: Path) -> None:
    async def dry(database: MortalDatabase) -> object:
        async with opened_parts(daemon.settings, database, Silent(), daemon.world()) as parts:
            return await parts.cycle.once(dry_run=True)

    daemon = Daemon(tmp_path, **PAID)
    daemon.deposit("5")
    with suppress(Killed):
        daemon._life(dry, Kill.at(6, after=True))
    with daemon.reading() as tx:
        (row,) = journal.runs(tx)
        # A dry one is known as such from the first, and has come to nothing yet.
        assert (row.outcome, journal.outcome(row)) == (RunOutcome.DRY_RUN, None)
    before = len(daemon.model.requests)
    daemon.live(1800)
    assert len(daemon.model.requests) == before
    assert [run.outcome for run in daemon.runs()] == [RunOutcome.SKIPPED]


def test_a_run_for_which_there_is_no_room_is_told_once_and_tried_by_the_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[datetime] = []

    async def full(self: Newsroom, steps: Any) -> Any:
        tried.append(daemon.time.clock.now())
        raise StorageFull("database or disk is full")

    daemon = Daemon(tmp_path)
    monkeypatch.setattr(Newsroom, "digest", full)
    daemon.live(2 * DAY_S, poll_s=15)
    assert [told["cleared"] for told in daemon.webhook.told] == [False]
    assert len(tried) < 60
    with daemon.reading() as tx:
        last = bells.last(tx)
    late = [bell for bell, at in last.items() if daemon.time.clock.now() - at > timedelta(days=1)]
    assert late == []


def test_work_for_which_there_is_no_room_lets_other_work_go_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Collector) -> Any:
        raise StorageFull("database or disk is full")

    daemon = Daemon(tmp_path)
    monkeypatch.setattr(Collector, "run", full)
    daemon.live(2.5 * DAY_S, poll_s=15)
    with daemon.reading() as tx:
        last = bells.last(tx)
    now = daemon.time.clock.now()
    assert now - last[Bell.PURSUE] < timedelta(hours=2)
    assert now - last[Bell.DAILY] < timedelta(hours=26)
