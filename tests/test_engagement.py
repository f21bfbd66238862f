"""What readers do is income once, never above the cap, whoever clicks and whatever fails."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

import daemon.settings
from daemon import alerts, control, journal, migrations
from daemon.app import World, opened_parts
from daemon.books import Books
from daemon.engagement import (
    CAP_WINDOW,
    COUNT_MAX,
    Collected,
    Collector,
    Counted,
    Live,
    Reading,
    Stand,
    Takings,
    believable,
    is_due,
    rises,
    shares,
)
from daemon.journal import PublicationState
from daemon.revenue.port import Received, SourceBarred, SourceError
from daemon.sources import published
from ledger import audit, store
from ledger.database import Database, create_schema
from ledger.errors import StorageBusy
from ledger.money import MICRO_MAX, ZERO, MicroCredits
from ledger.types import from_text
from publishers.errors import Barred, OutcomeUnknown, Rejected, Transient
from publishers.port import Engagement, Intent, Note, Post, Receipt
from tests.cli_helpers import Desk, checked_books
from tests.doubles.bluesky import DID, BlueskyDouble
from tests.doubles.devto import KEY, DevToDouble
from tests.doubles.wire import InProcess, serve
from tests.stage import Kill, Killed, MortalDatabase, Silent
from tests.virtual import START, VirtualTime

HALF_HOUR = timedelta(minutes=30)
VIEW, REACTION, COMMENT, LIKE = 200, 5_000, 10_000, 2_000
RATES = {
    "devto.view": MicroCredits(VIEW),
    "devto.reaction": MicroCredits(REACTION),
    "devto.comment": MicroCredits(COMMENT),
    "bluesky.like": MicroCredits(LIKE),
}
AMPLE = MicroCredits(10**12)


class Place:
    """A destination whose readers a test plays; `fails` is what it answers instead."""

    public = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[str, Any] = {}
        self.gone: set[str] = set()
        self.fails: BaseException | None = None
        self.asked: list[list[str]] = []
        self.takes = timedelta(0)
        self.meanwhile: Callable[[], None] = lambda: None

    def intend(self, post: Post) -> Intent:
        raise AssertionError("nothing is published here")

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        raise AssertionError("nothing is published here")

    async def find(self, intent: Intent) -> Receipt | None:
        raise AssertionError("nothing is looked up here")

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        self.asked.append([receipt.remote_id for receipt in receipts])
        self.meanwhile()
        await asyncio.sleep(self.takes.total_seconds())
        if self.fails is not None:
            raise self.fails
        return [
            Engagement(r.remote_id, self.counts.get(r.remote_id, {}), gone=r.remote_id in self.gone)
            for r in receipts
            if r.remote_id in self.counts or r.remote_id in self.gone
        ]


class Announcer(Place):
    announces = True


@dataclass
class Till:
    """A source of revenue."""

    name: str = "stripe"
    takes: list[Received] = field(default_factory=list)
    fails: BaseException | None = None

    async def received(self, since: datetime) -> Sequence[Received]:
        if self.fails is not None:
            raise self.fails
        return self.takes

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Stands:
    """A row of `metric`."""

    count: int
    highest: int
    earned: int
    forfeited: int


class Scene:
    """A file with the books, virtual time, and two places to publish to."""

    def __init__(self, folder: Path, *, cap: MicroCredits = AMPLE) -> None:
        self.time = VirtualTime()
        self.url = f"sqlite:///{folder / 'books.db'}"
        self.cap = cap
        self.rates = dict(RATES)
        self.devto, self.bluesky = Place("devto"), Announcer("bluesky")
        self.till = Till()
        self.sources: list[Till] = []
        self.database = Database(self.url)
        with self.database.write() as tx:
            create_schema(tx, migrations.register_tables())

    @property
    def now(self) -> datetime:
        return self.time.clock.now()

    def close(self) -> None:
        self.database.close()
        self.time.close()

    def publish(self, run: str, *platforms: str, age: timedelta = timedelta(0)) -> None:
        at = self.now - age
        with self.database.write() as tx:
            if journal.run(tx, run) is None:
                journal.open_run(
                    tx, id=run, slot=None, tier="standard", kind=journal.ARTICLE, topic=None,
                    budget_micro=1, at=at,
                )  # fmt: skip
                keep(tx, run, at)
            for platform in platforms:
                journal.intend(tx, run, platform, key=run, payload=b"{}", title=f"Of {run}", at=at)
                journal.change_publication(
                    tx, run, platform, state=PublicationState.PUBLISHED, published_at=at,
                    url=f"https://{platform}.test/{run}", remote_id=run,
                )  # fmt: skip

    def change(self, run: str, platform: str, **values: Any) -> None:
        with self.database.write() as tx:
            journal.change_publication(tx, run, platform, **values)

    def collect(self, *, kill: Kill | None = None) -> Collected:
        """One life of the process."""
        with closing(MortalDatabase(self.url, kill)) as database:
            collector = Collector(
                books=Books(database, self.time.clock), clock=self.time.clock,
                publishers=[self.devto, self.bluesky], sources=self.sources,
                rates=self.rates, daily_cap=self.cap,
            )  # fmt: skip
            return self.time.run(collector.run())

    def later(self, span: timedelta = HALF_HOUR) -> None:
        self.time.pass_by(span)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.database.read() as tx:
            yield tx

    def rows(self, sql: str) -> list[Any]:
        with self.reading() as tx:
            return list(tx.execute(text(sql)).all())

    def stands(self) -> dict[tuple[str, str, str], Stands]:
        columns = "run, platform, metric, count, highest, earned_micro, forfeited_micro"
        found = self.rows(f"SELECT {columns} FROM metric")
        return {(row[0], row[1], row[2]): Stands(*row[3:]) for row in found}

    def snapshots(self, run: str, platform: str, metric: str) -> list[tuple[datetime, int]]:
        found = self.rows("SELECT run, platform, metric, at, count FROM snapshot ORDER BY at")
        return [(from_text(r[3]), r[4]) for r in found if tuple(r[:3]) == (run, platform, metric)]

    def entries(self) -> list[store.Entry]:
        with self.reading() as tx:
            return [e for e in store.entries(tx) if e.code == "engagement"]

    def publication(self, run: str, platform: str) -> Any:
        with self.reading() as tx:
            return journal.publication(tx, run, platform)

    def article(self, run: str) -> Any:
        with self.reading() as tx:
            return published.article(tx, run)

    def standing(self) -> list[tuple[str, str | None]]:
        with self.reading() as tx:
            return [(row.key, row.run) for row in alerts.standing(tx, self.now)]

    def judge(self) -> None:
        """The laws that hold whatever happened, where the rates never changed."""
        stands = self.stands()
        for (_, platform, metric), row in stands.items():
            rate = self.rates.get(f"{platform}.{metric}", ZERO)
            assert row.earned + row.forfeited == row.highest * rate.micro
            assert 0 <= row.count <= row.highest
        entries = self.entries()
        for last in entries:
            window = [e for e in entries if last.at - CAP_WINDOW < e.at <= last.at]
            assert sum((e.amount for e in window), start=ZERO) <= self.cap
        by_run: dict[str, int] = defaultdict(int)
        for (run, _, _), row in stands.items():
            by_run[run] += row.earned
        with self.reading() as tx:
            earned = {run: amount.micro for run, amount in store.earned_by_run(tx).items()}
            report = audit.check(tx)
        assert report.ok, report.problems
        assert earned == {run: micro for run, micro in by_run.items() if micro}


def keep(tx: Connection, run: str, at: datetime) -> None:
    """The article in the archive, as the newsroom keeps it."""
    published.keep(
        tx, run, title=f"Of {run}", description="d", prose="p", tags=["t"], words=1,
        reading_minutes=1, readability=None, sources=1, claims=1, claims_verified=1,
    )  # fmt: skip
    published.went_out(tx, run, f"https://devto.test/{run}", at)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


# How often


@pytest.mark.parametrize(
    ("age", "counted_ago", "due"),
    [
        # Young: whenever somebody asks.
        ("0h", None, True),
        ("0h", "0h", True),
        ("47h", "0.1h", True),
        # From two days on, every six hours; a cron of */30 must not slip for a minute.
        ("49h", "5h", False),
        ("49h", "5.9h", True),
        ("300h", "6h", True),
        # From a fortnight on, once a day, on the day when the clocks go forward as well.
        ("400h", "12h", False),
        ("400h", "23h", True),
        # Old: once a week.
        ("3000h", "24h", False),
        ("3000h", "150h", False),
        ("3000h", "167h", True),
        ("3000h", None, True),
        # A clock that was ahead, or is behind.
        ("3000h", "-1h", True),
        ("-5h", "1h", True),
    ],
)
def test_counting_thins_out_as_posts_age(age: str, counted_ago: str | None, due: bool) -> None:
    def ago(hours: str) -> datetime:
        return START - timedelta(hours=float(hours.removesuffix("h")))

    counted_at = None if counted_ago is None else ago(counted_ago)
    assert is_due(ago(age), counted_at, START) is due


@pytest.mark.parametrize("every", [HALF_HOUR, timedelta(hours=1), timedelta(hours=4)])
def test_a_schedule_meets_every_interval_though_each_collection_takes_its_time(
    every: timedelta,
) -> None:
    counted: list[datetime] = []
    for number in range(timedelta(days=100) // every):
        slot = START + every * number
        if is_due(START, counted[-1] if counted else None, slot):
            # What it takes differs from time to time.
            counted.append(slot + timedelta(seconds=7 * (number % 9)))
    gaps = [(b - a, b - START) for a, b in pairwise(counted)]
    minute = timedelta(minutes=1)
    assert max(gap for gap, age in gaps if age < timedelta(days=2)) < every + minute
    six = max(timedelta(hours=8 if every == timedelta(hours=4) else 6), every)
    assert max(gap for gap, age in gaps if age < timedelta(days=14)) < six + minute
    assert max(gap for gap, age in gaps if age < timedelta(days=90)) < timedelta(days=1) + minute
    assert max(gap for gap, _ in gaps) < timedelta(days=7) + minute
    assert min(gap for gap, age in gaps if age > timedelta(days=90)) > timedelta(hours=20)


def test_only_what_is_due_is_asked_for_and_all_of_it_at_once(scene: Scene) -> None:
    ages = {"new": 1, "young": 5, "older": 30, "old": 200}
    for run, days in ages.items():
        scene.publish(run, "devto", age=timedelta(days=days))
        scene.devto.counts[run] = {"view": 1}
    for hours in (0, 0.5, 6, 24, 24 * 7):
        scene.later(START + timedelta(hours=hours) - scene.now)
        scene.collect()
    assert [sorted(asked) for asked in scene.devto.asked] == [
        sorted(ages), ["new"], ["new", "young"], ["new", "older", "young"], sorted(ages),
    ]  # fmt: skip


def test_a_destination_without_anything_due_is_not_asked(scene: Scene) -> None:
    scene.publish("a", "devto")
    found = scene.collect()
    assert scene.bluesky.asked == []
    assert found.platforms[1] == Counted("bluesky")
    assert not found.failed


def test_a_clock_that_was_set_back_stops_no_counting(scene: Scene) -> None:
    scene.publish("a", "devto", age=timedelta(days=200))
    scene.devto.counts["a"] = {"view": 1}
    scene.change("a", "devto", counted_at=scene.now + timedelta(days=3650))
    scene.collect()
    assert scene.devto.asked == [["a"]]
    assert scene.publication("a", "devto").counted_at == scene.now


# What counts


@pytest.mark.parametrize(
    ("count", "believed"),
    [(0, True), (1, True), (COUNT_MAX, True), (COUNT_MAX + 1, False), (10**18, False),
     (10**400, False), (-1, False), (True, False), (1.0, False), ("7", False), (None, False)],
)  # fmt: skip
def test_a_count_is_a_whole_number_that_can_be(count: Any, believed: bool) -> None:
    assert believable({"view": count}) == ({"view": count} if believed else {})


@pytest.mark.parametrize("metric", ["", "View", "a:b", "a b", "é", "x" * 33, "1", 7, None, b"view"])
def test_a_metric_has_a_name_that_an_id_can_carry(metric: Any) -> None:
    assert believable({metric: 3, "view": 4}) == {"view": 4}


def test_a_count_from_a_stranger_s_server_that_cannot_be_changes_nothing(scene: Scene) -> None:
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 10**18, "reaction": -3, "comment": True, "a:b": 3, 7: 7}
    found = scene.collect()
    assert (found.earned, found.failed, scene.stands()) == (ZERO, False, {})
    scene.devto.counts["a"] = {"view": 5}
    assert scene.collect().earned == MicroCredits(5 * VIEW)
    scene.judge()


@pytest.mark.parametrize(
    "answer",
    [None, 7, [None], ["a"], [Engagement("a", None)], [Engagement([], {})]],  # type: ignore[arg-type]
)
def test_an_answer_that_is_none_is_this_destination_s_error(scene: Scene, answer: Any) -> None:
    async def answers(receipts: Sequence[Receipt]) -> Any:
        return answer

    scene.publish("a", "devto", "bluesky")
    scene.devto.engagement = answers  # type: ignore[method-assign]
    scene.bluesky.counts["a"] = {"like": 2}
    found = scene.collect()
    assert found.platforms[0].error
    assert found.platforms[0].error.startswith("unexpected: ")
    assert found.earned == MicroCredits(2 * LIKE)


def test_what_it_says_of_posts_that_nobody_asked_about_is_not_heard(scene: Scene) -> None:
    async def answers(receipts: Sequence[Receipt]) -> Any:
        return [Engagement("a", {"view": 1}), Engagement("stranger", {"view": 10**6})]

    scene.publish("a", "devto")
    scene.devto.engagement = answers  # type: ignore[method-assign]
    assert scene.collect().earned == MicroCredits(VIEW)


@pytest.mark.parametrize("rate", [None, ZERO])
def test_a_count_without_a_rate_is_kept_and_brings_nothing(
    scene: Scene, rate: MicroCredits | None
) -> None:
    del scene.rates["devto.view"]
    if rate is not None:
        scene.rates["devto.view"] = rate
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 100, "wave": 2}
    found = scene.collect()
    assert (found.earned, found.forfeited, scene.entries()) == (ZERO, ZERO, [])
    assert scene.snapshots("a", "devto", "view") == [(START, 100)]
    # With a rate from now on, what was there before is not paid for.
    scene.rates["devto.view"] = MicroCredits(VIEW)
    scene.devto.counts["a"] = {"view": 103}
    assert scene.collect().earned == MicroCredits(3 * VIEW)


def test_the_largest_count_at_the_highest_rate_overflows_nothing(scene: Scene) -> None:
    scene.cap = MicroCredits(MICRO_MAX)
    scene.rates = {"devto.view": MicroCredits(MICRO_MAX)}
    scene.publish("a", "devto")
    for count in (COUNT_MAX // 2, COUNT_MAX):
        scene.devto.counts["a"] = {"view": count}
        scene.collect()
        scene.later(timedelta(days=1, minutes=1))
    row = scene.stands()["a", "devto", "view"]
    assert row == Stands(COUNT_MAX, COUNT_MAX, 2 * MICRO_MAX, MICRO_MAX)
    with scene.reading() as tx:
        assert audit.check(tx).ok


# Income


def test_a_rise_is_income_that_names_where_it_came_from(scene: Scene) -> None:
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 120, "reaction": 3}
    scene.collect()
    scene.later()
    scene.devto.counts["a"] = {"view": 150, "reaction": 3}
    scene.collect()
    assert [(e.id, e.debit, e.credit, e.amount, e.run, e.ref, e.memo) for e in scene.entries()] == [
        (f"engagement:devto:a:{metric}:{high}", "treasury", "engagement:devto",
         MicroCredits((high - low) * rate), "a", f"devto:a:{metric}:{low}-{high}",
         f"{high - low} at {MicroCredits(rate)}")
        for metric, low, high, rate in [
            ("reaction", 0, 3, REACTION), ("view", 0, 120, VIEW), ("view", 120, 150, VIEW),
        ]
    ]  # fmt: skip
    scene.judge()


def test_a_like_taken_back_and_given_again_earns_once(scene: Scene) -> None:
    scene.publish("a", "bluesky")
    seen = [3, 2, 3, 0, 1, 4]
    earned = []
    for count in seen:
        scene.bluesky.counts["a"] = {"like": count}
        earned.append(scene.collect().earned.micro // LIKE)
        scene.later()
    assert earned == [3, 0, 0, 0, 0, 1]
    scene.judge()


def test_the_time_series_has_every_change_and_nothing_else(scene: Scene) -> None:
    scene.publish("a", "devto")
    seen = [0, 0, 5, 5, 5, 4, 4, 5, 9, 9]
    for count in seen:
        scene.devto.counts["a"] = {"view": count}
        scene.collect()
        scene.later()
    changed = [(START + HALF_HOUR * n, seen[n]) for n in (0, 2, 5, 7, 8)]
    assert scene.snapshots("a", "devto", "view") == changed
    # Until when the last of them is known.
    assert scene.publication("a", "devto").counted_at == START + HALF_HOUR * 9


def test_each_destination_s_own_moment_is_kept_though_nothing_changed(scene: Scene) -> None:
    scene.publish("a", "devto", "bluesky")
    scene.devto.counts["a"], scene.bluesky.counts["a"] = {"view": 1}, {"like": 1}
    scene.collect()
    scene.later()
    scene.bluesky.takes = timedelta(seconds=40)
    scene.collect()
    counted = [scene.publication("a", name).counted_at for name in ("devto", "bluesky")]
    assert counted == [START + HALF_HOUR, START + HALF_HOUR + timedelta(seconds=40)]


def test_counting_twice_in_one_instant_keeps_the_later_count(scene: Scene) -> None:
    scene.publish("a", "devto")
    for count in (1, 2):
        scene.devto.counts["a"] = {"view": count}
        scene.collect()
    assert scene.snapshots("a", "devto", "view") == [(START, 2)]
    scene.judge()


def test_what_a_destination_could_not_read_now_is_asked_for_again(scene: Scene) -> None:
    for run in ("a", "b"):
        scene.publish(run, "devto", age=timedelta(days=200))
    scene.devto.counts["a"] = {"view": 1}
    assert scene.collect().platforms[0] == Counted("devto", 1, unread=1, earned=MicroCredits(VIEW))
    scene.later()
    scene.collect()
    assert scene.devto.asked == [["a", "b"], ["b"]]


def test_a_pause_does_not_stop_collecting(scene: Scene) -> None:
    with scene.database.write() as tx:
        control.pause(tx, reason="holiday", at=scene.now)
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 1}
    assert scene.collect().earned == MicroCredits(VIEW)


# The cap


def test_nothing_is_credited_above_the_cap_and_the_rest_is_forfeited_for_good(
    scene: Scene,
) -> None:
    scene.cap = MicroCredits(1_000)
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 7}
    found = scene.collect()
    assert (found.earned, found.forfeited) == (MicroCredits(1_000), MicroCredits(400))
    scene.later(timedelta(hours=25))
    assert scene.collect().earned == ZERO
    scene.devto.counts["a"] = {"view": 8}
    assert scene.collect().earned == MicroCredits(VIEW)
    assert scene.stands()["a", "devto", "view"] == Stands(8, 8, 1_200, 400)
    scene.judge()


def test_room_under_the_cap_comes_back_as_the_day_rolls_on(scene: Scene) -> None:
    scene.cap = MicroCredits(1_000)
    scene.publish("a", "devto")
    credited = []
    for hours, views in ((0, 2), (12, 5), (23, 10), (24, 20), (36, 40)):
        scene.later(START + timedelta(hours=hours) - scene.now)
        scene.devto.counts["a"] = {"view": views}
        credited.append(scene.collect().earned.micro)
    assert credited == [400, 600, 0, 400, 600]
    scene.judge()


def test_one_post_that_is_clicked_ten_thousand_times_takes_what_the_others_leave(
    scene: Scene,
) -> None:
    scene.cap = MicroCredits(100_000)
    for run, platform in (("fraud", "devto"), ("a", "devto"), ("b", "devto"), ("a", "bluesky")):
        scene.publish(run, platform, age=timedelta(hours=1 + (run == "fraud")))
    scene.devto.counts = {
        "fraud": {"view": 9_950, "reaction": 2},
        "a": {"view": 50},
        "b": {"reaction": 2},
    }
    scene.bluesky.counts = {"a": {"like": 5}}
    found = scene.collect()
    assert [(one.platform, one.earned.micro) for one in found.platforms] == [
        ("devto", 90_000), ("bluesky", 10_000),
    ]  # fmt: skip
    stands = {key[:3:2]: row.earned for key, row in scene.stands().items() if key[1] == "devto"}
    assert stands == {
        ("a", "view"): 10_000, ("b", "reaction"): 10_000, ("fraud", "reaction"): 10_000,
        ("fraud", "view"): 60_000,
    }  # fmt: skip
    assert found.forfeited == MicroCredits(10_000 * VIEW - 70_000)
    scene.judge()


def test_a_post_gets_no_more_than_its_part_whatever_it_is_clicked_for(scene: Scene) -> None:
    scene.cap = MicroCredits(40_000)
    for run in ("a", "b"):
        scene.publish(run, "devto")
    scene.devto.counts = {"a": {"view": 100, "reaction": 4}, "b": {"comment": 5}}
    scene.collect()
    assert {key[::2]: row.earned for key, row in scene.stands().items()} == {
        ("a", "reaction"): 20_000, ("a", "view"): 0, ("b", "comment"): 20_000,
    }  # fmt: skip


def test_what_is_gone_takes_no_part_of_the_cap(scene: Scene) -> None:
    scene.cap = MicroCredits(40_000)
    for run in ("a", "b"):
        scene.publish(run, "devto")
    scene.devto.counts = {"a": {"comment": 9}, "b": {"comment": 9}}
    scene.devto.gone = {"a"}
    assert scene.collect().earned == MicroCredits(40_000)
    assert list(scene.stands()) == [("b", "devto", "comment")]


def test_of_one_post_what_is_dear_is_paid_for_first() -> None:
    post = Live("a", "devto", "t", None, "1", START, None)
    reading = Reading(post, START, {"view": 10, "comment": 1, "reaction": 2, "wave": 1}, gone=False)
    before = {"reaction": Stand(2, 2, 0, 0), "view": Stand(3, 4, 0, 0)}
    assert [(r.metric, r.low, r.high) for r in rises(reading, before, RATES)] == [
        ("comment", 0, 1), ("view", 4, 10),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 50)).map(sorted), st.integers(-5, 300))
def test_a_cap_is_divided_evenly_and_to_the_last_millionth(worths: list[int], room: int) -> None:
    given_ = shares(worths, room)
    assert sum(given_) == min(sum(worths), max(room, 0))
    assert all(0 <= part <= worth for part, worth in zip(given_, worths, strict=True))
    short = [part for part, worth in zip(given_, worths, strict=True) if part < worth]
    # Who got less than they are worth got as much as anybody, but for the odd millionth.
    assert not short or min(short) >= max(given_) - 1


def test_a_correction_makes_no_room_under_the_cap(scene: Scene) -> None:
    scene.cap = MicroCredits(1_000)
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 5}
    scene.collect()
    with scene.database.write() as tx:
        store.adjust(
            tx, amount=MicroCredits(-1_000), ref="clicks", memo="bought", at=scene.now,
            corrects="engagement:devto:a:view:5",
        )  # fmt: skip
    scene.devto.counts["a"] = {"view": 10}
    assert scene.collect().earned == ZERO


# The laws, whatever is counted


RUNS = ("a", "b")
counts = st.fixed_dictionaries(
    {}, optional={"view": st.integers(0, 30), "reaction": st.integers(0, 3), "wave": st.just(1)}
)
rounds = st.lists(
    st.tuples(
        st.integers(0, 30).map(lambda hours: timedelta(hours=hours)),
        st.dictionaries(st.sampled_from(RUNS), counts),
        st.none() | st.tuples(st.integers(1, 6), st.booleans()),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds, st.sampled_from([0, 1, 999, 4_000, 20_000, 10**12]))
def test_after_any_sequence_of_counts_and_kills_each_rise_is_credited_or_forfeited_once(
    played: list[tuple[timedelta, dict[str, Any], tuple[int, bool] | None]], cap: int
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="penstock-engagement-"))
    scene = Scene(folder, cap=MicroCredits(cap))
    highest: dict[tuple[str, str, str], int] = {}
    seen: list[tuple[datetime, str, str, int]] = []
    try:
        for run in RUNS:
            scene.publish(run, "devto", age=timedelta(hours=1))
        for span, answer, struck in played:
            scene.later(span)
            scene.devto.counts = answer
            # Older posts are not due each time, which is not what this is about.
            for run in RUNS:
                scene.change(run, "devto", counted_at=None)
            if struck is not None:
                try:
                    scene.collect(kill=Kill.at(struck[0], after=struck[1]))
                except Killed:
                    scene.judge()
            for run in RUNS:
                scene.change(run, "devto", counted_at=None)
            scene.collect()
            scene.judge()
            for run, metrics in answer.items():
                for metric, count in metrics.items():
                    key = (run, "devto", metric)
                    highest[key] = max(highest.get(key, 0), count)
                    seen.append((scene.now, run, metric, count))
        assert {key: row.highest for key, row in scene.stands().items()} == highest
        # Lossless: what was seen at any moment is the last row until then.
        last = {(at, run, metric): count for at, run, metric, count in seen}
        for (at, run, metric), count in last.items():
            series = scene.snapshots(run, "devto", metric)
            assert [told for since, told in series if since <= at][-1] == count
    finally:
        scene.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cap", [10**12, 8_100])
def test_a_kill_at_any_commit_books_once(tmp_path: Path, after: bool, cap: int) -> None:
    def whole(folder: Path, kill: Kill | None) -> tuple[Scene, bool]:
        folder.mkdir()
        scene = Scene(folder, cap=MicroCredits(cap))
        scene.sources = [scene.till]
        scene.till.takes = [Received(f"txn_{n}", MicroCredits(n), scene.now, "tip") for n in (5, 7)]
        for run in ("a", "b", "c"):
            scene.publish(run, "devto", "bluesky")
        scene.devto.counts = {"a": {"view": 3, "comment": 1}, "b": {"view": 9}}
        scene.devto.gone = {"c"}
        scene.bluesky.counts = {"a": {"like": 4}, "b": {"like": 0}, "c": {}}
        killed = False
        try:
            scene.collect(kill=kill)
        except Killed:
            killed = True
        scene.collect()
        scene.judge()
        return scene, killed

    undisturbed, _ = whole(tmp_path / "undisturbed", None)
    number, killed = 0, True
    while killed:
        number += 1
        struck, killed = whole(tmp_path / str(number), Kill.at(number, after=after))
        if cap > 10_000:
            assert struck.stands() == undisturbed.stands()
        total = [sum((e.amount for e in s.entries()), start=ZERO) for s in (struck, undisturbed)]
        assert total[0] == total[1]
        with struck.reading() as tx:
            assert store.account_balance(tx, "revenue:stripe") == MicroCredits(12)
        assert struck.publication("c", "devto").state == PublicationState.WITHDRAWN
        assert len(struck.rows("SELECT 1 FROM decision WHERE kind = 'gone'")) == 1
        struck.close()
    undisturbed.close()
    assert number > 10


# What fails


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Transient("later", 7.0), "later"),
        (Rejected("never"), "never"),
        (OutcomeUnknown("who knows", "k"), "who knows"),
        (KeyError("posts"), "unexpected: KeyError: 'posts'"),
        (RecursionError(), "unexpected: RecursionError: RecursionError"),
    ],
)
def test_one_destination_failing_leaves_the_other_s_income_booked(
    scene: Scene, error: Exception, said: str
) -> None:
    scene.publish("a", "devto", "bluesky")
    scene.devto.fails = error
    scene.bluesky.counts["a"] = {"like": 1}
    found = scene.collect()
    assert found.failed
    assert found.platforms == (
        Counted("devto", error=said), Counted("bluesky", 1, earned=MicroCredits(LIKE)),
    )  # fmt: skip
    assert scene.standing() == []
    # It is asked again at once.
    scene.devto.fails, scene.devto.counts["a"] = None, {"view": 2}
    assert scene.collect().earned == MicroCredits(2 * VIEW)


def test_a_person_is_told_of_a_refused_key_once_and_when_it_is_over(scene: Scene) -> None:
    scene.publish("a", "devto")
    scene.devto.fails = Barred("the key is refused; look at DEVTO_API_KEY")
    for _ in range(2):
        assert scene.collect().failed
    assert scene.standing() == [("barred:devto:readers", None)]
    scene.devto.fails = Transient("down")
    scene.collect()
    assert scene.standing() == [("barred:devto:readers", None)]
    scene.devto.fails, scene.devto.counts["a"] = None, {"view": 1}
    assert not scene.collect().failed
    assert scene.standing() == []


@pytest.mark.parametrize("revenue", [False, True])
def test_books_that_cannot_be_written_are_no_one_else_s_fault(scene: Scene, revenue: bool) -> None:
    scene.sources = [scene.till] if revenue else []
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 1}
    with closing(Database(scene.url)) as other, other.write(), pytest.raises(StorageBusy):
        scene.collect()
    # It ends there: the till has not failed, so that nothing goes on without it.
    assert scene.devto.asked == ([] if revenue else [["a"]])
    assert not scene.collect().failed


def test_revenue_has_a_line_of_its_own_and_fails_alone(scene: Scene) -> None:
    broken = Till("kofi", fails=SourceError("it is closed"))
    scene.sources = [broken, scene.till]
    scene.till.takes = [Received("txn_1", MicroCredits(7_000), scene.now, "a tip")]
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 1}
    found = scene.collect()
    assert found.sources == (
        Takings("kofi", error="it is closed"), Takings("stripe", 1, MicroCredits(7_000)),
    )  # fmt: skip
    assert found.failed
    assert found.earned == MicroCredits(VIEW)
    broken.fails = SourceBarred("look at the key")
    scene.collect()
    assert scene.standing() == [("barred:revenue:kofi", None)]
    broken.fails = None
    again = scene.collect()
    assert scene.standing() == []
    assert (again.failed, again.sources[1]) == (False, Takings("stripe"))


def test_revenue_that_the_books_refuse_is_said(scene: Scene) -> None:
    scene.sources = [scene.till]
    scene.till.takes = [Received("r", MicroCredits(n), scene.now, "") for n in (1, 2)]
    found = scene.collect()
    assert found.failed
    assert [(one.count, len(one.refused)) for one in found.sources] == [(1, 1)]


# What is gone, or going


def test_what_was_taken_down_is_withdrawn_told_and_found_no_more(scene: Scene) -> None:
    scene.publish("a", "devto", "bluesky")
    scene.devto.counts["a"] = {"view": 4}
    scene.bluesky.counts["a"] = {"like": 1}
    scene.collect()
    scene.later()
    scene.devto.gone = {"a"}
    assert scene.collect().platforms[0] == Counted("devto", gone=1)
    row = scene.publication("a", "devto")
    assert (row.state, "gone at devto" in row.error) == (PublicationState.WITHDRAWN, True)
    assert scene.standing() == [("gone:a:devto", "a")]
    with scene.reading() as tx:
        told = [d for d in journal.decisions(tx, "a") if d.kind == "gone"]
    assert [decision.inputs["remote_id"] for decision in told] == ["a"]
    # Bluesky only announces it.
    assert scene.article("a").published_at is None
    # It keeps what it earned, and is asked about no more.
    assert scene.stands()["a", "devto", "view"] == Stands(4, 4, 4 * VIEW, 0)
    scene.later()
    scene.collect()
    assert len(scene.devto.asked) == 2
    scene.judge()


def test_an_article_that_is_left_elsewhere_is_found_there(scene: Scene) -> None:
    scene.publish("a", "devto", "outbox")
    scene.devto.gone = {"a"}
    scene.collect()
    kept = scene.article("a")
    # The outbox is not public here, so nothing may link to it.
    assert (kept.published_at, kept.url) == (START, None)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("change", [{"withdrawal": "wrong"}, {"state": PublicationState.FAILED}])
def test_what_is_taken_back_is_not_counted_further(
    scene: Scene, change: dict[str, Any], gone: bool
) -> None:
    scene.publish("a", "devto")
    scene.devto.counts["a"] = {"view": 4}
    scene.devto.gone = {"a"} if gone else set()
    # A person may take it back while its destination is being asked.
    scene.devto.meanwhile = lambda: scene.change("a", "devto", **change)
    assert scene.collect().earned == ZERO
    scene.devto.gone = {"a"}
    scene.collect()
    assert len(scene.devto.asked) == 1
    assert (scene.stands(), scene.standing()) == ({}, [])


# The whole way


def platforms_of(scene: Scene) -> tuple[DevToDouble, BlueskyDouble, InProcess]:
    site = DevToDouble(scene.time.loop.time)
    service = BlueskyDouble(now=scene.time.clock.now)
    return site, service, InProcess({"dev.to": site, "bsky.social": service})


def settled(folder: Path) -> daemon.settings.Settings:
    return daemon.settings.load(
        {
            "PENSTOCK_STATE_DIR": str(folder),
            "PENSTOCK_DATABASE_URL": f"sqlite:///{folder / 'books.db'}",
            "PENSTOCK_PUBLISHERS": "outbox,devto,bluesky",
            "DEVTO_API_KEY": KEY,
            "BLUESKY_HANDLE": "author.test",
            "BLUESKY_APP_PASSWORD": "abcd-efgh-ijkl-mnop",
        },
        at=START,
        for_run=False,
    )


def test_from_the_counters_of_dev_to_and_bluesky_to_the_books(scene: Scene, tmp_path: Path) -> None:
    site, service, wire = platforms_of(scene)
    article = site.write("Of a", "Text.", published=True)
    rkey = "3kbd2s3abcd2a"
    service.records[f"app.bsky.feed.post/{rkey}"] = {"$type": "app.bsky.feed.post", "text": "Of a"}
    scene.publish("a", "devto", "bluesky", "outbox")
    url = f"https://dev.to/penstock/{article.slug}"
    scene.change("a", "devto", remote_id=str(article.id), url=url)
    scene.change("a", "bluesky", remote_id=f"at://{DID}/app.bsky.feed.post/{rkey}")
    chosen = settled(tmp_path)

    def collect() -> Collected:
        async def live() -> Collected:
            world = World(clock=scene.time.clock, platforms=wire)
            async with opened_parts(chosen, database, Silent(), world) as parts:
                return await parts.collector.run()

        with closing(MortalDatabase(scene.url, None)) as database:
            return scene.time.run(live())

    def earned(found: Collected) -> dict[str, str]:
        assert not found.failed, found
        return {one.platform: str(one.earned) for one in found.platforms}

    assert earned(collect()) == {"devto": "0.000000", "bluesky": "0.000000"}
    site.read_by_people(
        article.id, page_views_count=120, public_reactions_count=4, comments_count=1
    )
    service.counts[rkey] = {"likeCount": 3, "repostCount": 1, "replyCount": 2, "quoteCount": 1}
    scene.later()
    assert earned(collect()) == {"devto": "0.054000", "bluesky": "0.026000"}
    service.counts[rkey]["likeCount"] = 2
    site.read_by_people(article.id, page_views_count=121)
    scene.later()
    assert earned(collect()) == {"devto": "0.000200", "bluesky": "0.000000"}
    with scene.reading() as tx:
        assert store.earned_by_run(tx) == {"a": MicroCredits.parse("0.0802")}
        balances = {a.name: str(a.balance) for a in store.account_balances(tx)}
    assert balances["engagement:devto"] == "0.054200"
    assert balances["engagement:bluesky"] == "0.026000"
    assert [count for _, count in scene.snapshots("a", "bluesky", "like")] == [0, 3, 2]
    site.turn(article.id, published=False)
    del service.records[f"app.bsky.feed.post/{rkey}"]
    scene.later()
    assert [one.gone for one in collect().platforms] == [1, 1]
    # The outbox still has it, where the public does not see it.
    assert (scene.article("a").url, scene.article("a").published_at) == (None, START)


@contextmanager
def published_desk(home: Path, **changes: str) -> Iterator[tuple[Desk, DevToDouble, int]]:
    """A machine that has an article on a Forem site."""
    site = DevToDouble(throttled=False)
    article = site.write("Of a", "Text.", published=True)
    with serve(site) as at:
        desk = Desk(
            home,
            {"PENSTOCK_PUBLISHERS": "outbox,devto", "DEVTO_URL": at.url, "DEVTO_API_KEY": KEY}
            | changes,
        ).initialised()
        at_ = "2026-11-23T08:00:00.000000Z"
        desk.sql(
            "INSERT INTO run (id, state, tier, kind, budget_micro, started_at)"
            f" VALUES ('a', 'finished', 'standard', 'article', 1, '{at_}')",
            "INSERT INTO publication (run, platform, state, key, payload, title, url, remote_id,"
            " intended_at, published_at) VALUES ('a', 'devto', 'published', 'a', '{}', 'Of a',"
            f" 'https://dev.to/penstock/{article.slug}', '{article.id}', '{at_}', '{at_}')",
        )
        yield desk, site, article.id


def test_the_command_books_what_readers_did_and_says_so(tmp_path: Path) -> None:
    with published_desk(tmp_path, PENSTOCK_EARN_DAILY_CAP="0.02") as (desk, site, number):
        site.read_by_people(number, page_views_count=150)
        result = desk.run("collect", "--json")
        assert result.code == 0, result
        assert result.json == {
            "earned": "0.020000", "forfeited": "0.010000", "available": "100.020000",
            "platforms": [
                {"platform": "devto", "posts": 1, "unread": 0, "gone": 0, "earned": "0.020000",
                 "forfeited": "0.010000", "error": None},
            ],
            "sources": [],
        }  # fmt: skip
        [post] = desk.read("posts", "list")
        assert (post["metrics"], post["earned"], post["forfeited"]) == (
            {"comment": 0, "reaction": 0, "view": 150}, "0.020000", "0.010000",
        )  # fmt: skip
        said = desk.run("posts", "list").out
        assert "150 views" in said
        assert "0.010000 above PENSTOCK_EARN_DAILY_CAP was forfeited" in said
        assert checked_books(desk).sums["engagement:devto"] == -20_000


def test_the_command_exits_1_where_a_destination_failed(tmp_path: Path) -> None:
    with published_desk(tmp_path, DEVTO_API_KEY="refused") as (desk, _, _):
        result = desk.run("collect", "--json")
    assert result.code == 1
    assert "401" in result.json["platforms"][0]["error"]
    told = desk.run("collect")
    assert told.code == 1
    assert told.out.startswith("devto: not counted: ")


def test_the_command_has_nothing_to_ask_without_a_destination_that_counts(tmp_path: Path) -> None:
    result = Desk(tmp_path).initialised().run("collect")
    assert (result.code, "nothing to ask" in result.out) == (0, True)
