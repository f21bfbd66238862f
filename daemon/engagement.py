"""
Counts become income, by the rate card.

The rise of a counter above its highest so far is credited once, as far as a cap on any 24 hours
leaves room: strangers can click, and what they click pays for inference. What is above the cap is
forfeited, and remembered. Where the cap does not suffice for all, the posts that rose get even
parts of it, none more than it is worth: one that somebody clicks ten thousand times takes what the
others leave.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, Integer, Text, bindparam, func, select, text
from sqlmodel import Field, SQLModel

from daemon import alerts, journal, revenue, whereabouts
from daemon.alerts import Kind
from daemon.books import Books
from daemon.clock import Clock
from daemon.journal import PublicationState
from daemon.revenue.port import RevenueSource, SourceBarred, SourceError
from ledger import store
from ledger.errors import LedgerError
from ledger.money import MICRO_MAX, ZERO, MicroCredits
from ledger.types import MicroColumn, Timestamp, to_text
from publishers.errors import Barred, PublisherError
from publishers.port import Engagement, Engaging, Publisher, Receipt

logger = logging.getLogger(__name__)

# How often a post is counted, by its age: readers come in the first days.
POLLING = (
    (timedelta(days=2), timedelta(0)),
    (timedelta(days=14), timedelta(hours=6)),
    (timedelta(days=90), timedelta(days=1)),
)
POLLING_OLD = timedelta(days=7)
# So much of an interval early is on time: a collection must not wait for the next one because the
# last took some seconds, nor a daily one because the clocks went forward.
EARLY = 1 / 16
CAP_WINDOW = timedelta(hours=24)
# No post has a billion of anything, and PostgreSQL's integers end at two.
COUNT_MAX = 1_000_000_000
_METRIC = re.compile(r"[a-z][a-z_]{0,31}")
# As many rows a statement.
BATCH = 500


class Metric(SQLModel, table=True):
    """
    Where one counter of a publication stands since `at`, and what it has brought.

    `highest` is as far as it was credited or forfeited; `forfeited_micro` ends at a billion
    credits.
    """

    __tablename__ = "metric"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    platform: str = Field(primary_key=True, sa_type=Text)
    metric: str = Field(primary_key=True, sa_type=Text)
    count: int = Field(sa_type=Integer)
    highest: int = Field(sa_type=Integer)
    earned_micro: int = Field(sa_type=MicroColumn)
    forfeited_micro: int = Field(sa_type=MicroColumn)
    at: datetime = Field(sa_type=Timestamp)


class Snapshot(SQLModel, table=True):
    """
    A count that differed from the one before.

    Between two rows the count was that of the first, wherever it was looked at; after the last it
    is, until the `counted_at` of the publication.
    """

    __tablename__ = "snapshot"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    platform: str = Field(primary_key=True, sa_type=Text)
    metric: str = Field(primary_key=True, sa_type=Text)
    at: datetime = Field(primary_key=True, sa_type=Timestamp)
    count: int = Field(sa_type=Integer)


_metric, _publication = (SQLModel.metadata.tables[name] for name in ("metric", "publication"))
_LIVE = select(
    _publication.c.run,
    _publication.c.platform,
    _publication.c.title,
    _publication.c.url,
    _publication.c.remote_id,
    func.coalesce(
        _publication.c.published_at,
        _publication.c.intended_at,
        type_=_publication.c.intended_at.type,
    ),
    _publication.c.counted_at,
).where(
    _publication.c.state == PublicationState.PUBLISHED,
    _publication.c.platform.in_(bindparam("platforms", expanding=True)),
    _publication.c.remote_id.is_not(None),
    _publication.c.withdrawal.is_(None),
)


@dataclass(frozen=True, slots=True)
class Live:
    """A publication that readers may be looking at."""

    run: str
    platform: str
    title: str
    url: str | None
    remote_id: str
    published_at: datetime
    counted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a destination said of a publication at a moment, as far as it can be true."""

    of: Live
    at: datetime
    counts: Mapping[str, int]
    gone: bool


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one counter stands; see `Metric`."""

    count: int
    highest: int
    earned_micro: int
    forfeited_micro: int


# By metric, of one publication.
Stands: TypeAlias = Mapping[str, Stand]


@dataclass(frozen=True, slots=True)
class Rise:
    """A counter above its highest so far."""

    metric: str
    low: int
    high: int
    rate: MicroCredits

    @property
    def worth(self) -> MicroCredits:
        """By the rate card."""
        return self.rate * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Counted:
    """
    What a collection came to at one destination.

    Args:
        posts: so many were counted; those that were not due are not among them.
        unread: so many were due and not in its answer.
        gone: so many were found taken down there.
        error: why it could not be asked; None where it could.
    """

    platform: str
    posts: int = 0
    unread: int = 0
    gone: int = 0
    earned: MicroCredits = ZERO
    forfeited: MicroCredits = ZERO
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Takings:
    """
    What a collection newly booked from one source of revenue.

    Args:
        amount: what came less what went back.
        refused: what the books would not take, in words.
        error: why it could not be asked; None where it could.
    """

    source: str
    count: int = 0
    amount: MicroCredits = ZERO
    refused: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection came to, by destination and by source of revenue."""

    platforms: tuple[Counted, ...]
    sources: tuple[Takings, ...]

    @property
    def earned(self) -> MicroCredits:
        """Credited for engagement."""
        return sum((one.earned for one in self.platforms), start=ZERO)

    @property
    def forfeited(self) -> MicroCredits:
        """Above the daily cap."""
        return sum((one.forfeited for one in self.platforms), start=ZERO)

    @property
    def failed(self) -> bool:
        """Whether something was not collected."""
        return any(one.error is not None for one in self.platforms) or any(
            one.error is not None or one.refused for one in self.sources
        )


# Deciding


def is_due(published_at: datetime, counted_at: datetime | None, now: datetime) -> bool:
    """Whether a post is to be counted now; it is where a clock was ahead when it last was."""
    if counted_at is None or counted_at > now:
        return True
    age = now - published_at
    interval = next((every for younger, every in POLLING if age < younger), POLLING_OLD)
    return now - counted_at >= interval * (1 - EARLY)


def believable(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts that can be true; a stranger's server made them up."""
    return {
        metric: count
        for metric, count in counts.items()
        if isinstance(metric, str)
        and _METRIC.fullmatch(metric)
        and type(count) is int
        and 0 <= count <= COUNT_MAX
    }


def has_changed(reading: Reading, before: Stands) -> bool:
    """Whether there is something to store but that it was counted."""
    return reading.gone or any(
        metric not in before or before[metric].count != count
        for metric, count in reading.counts.items()
    )


def rises(reading: Reading, before: Stands, rates: Mapping[str, MicroCredits]) -> list[Rise]:
    """What a rate is paid for; the dearest first, as what is dear is harder to click together."""
    found = []
    for metric, count in reading.counts.items():
        low = before[metric].highest if metric in before else 0
        rate = rates.get(f"{reading.of.platform}.{metric}", ZERO)
        if count > low and rate > ZERO and not reading.gone:
            found.append(Rise(metric, low, count, rate))
    return sorted(found, key=lambda rise: (-rise.rate.micro, rise.metric))


def worth(reading: Reading, before: Stands, rates: Mapping[str, MicroCredits]) -> int:
    """Micro-credits by the rate card, before any cap."""
    return sum(rise.worth.micro for rise in rises(reading, before, rates))


def shares(worths: Sequence[int], room: int) -> list[int]:
    """
    Divide what is left of a cap, in whole parts: even ones, but none above what it is worth.

    Args:
        worths: the smallest first.
    """
    given = []
    for number, worth in enumerate(worths):
        part = min(worth, max(room, 0) // (len(worths) - number))
        given.append(part)
        room -= part
    return given


def heard(asked: Sequence[Live], said: Iterable[Engagement], at: datetime) -> list[Reading]:
    """What an answer says of the posts that were asked about."""
    by_id = {one.remote_id: one for one in said}
    return [
        Reading(post, at, believable(one.counts), bool(one.gone))
        for post in asked
        if (one := by_id.get(post.remote_id)) is not None
    ]


class Collector:
    """
    Asks destinations what readers did, and sources of revenue what came in, and books it.

    Args:
        rates: income per unit of engagement, such as `devto.view`; a unit that is not in it is
            counted and brings nothing.
        daily_cap: the most that engagement is credited with in any 24 hours.
    """

    def __init__(
        self,
        *,
        books: Books,
        clock: Clock,
        publishers: Sequence[Publisher],
        sources: Sequence[RevenueSource],
        rates: Mapping[str, MicroCredits],
        daily_cap: MicroCredits,
    ) -> None:
        self._books = books
        self._clock = clock
        self._publishers = publishers
        self._sources = sources
        self._rates = rates
        self._daily_cap = daily_cap

    async def run(self) -> Collected:
        """
        Collect now; one that fails leaves the others' income booked.

        A kill anywhere loses nothing and books nothing twice: what is not booked is still above
        the highest count when it is asked for again.

        Raises:
            StorageError: the books could not be written; what was booked until then is booked.
        """
        sources = [await self._receive(source) for source in self._sources]
        engaging = [publisher for publisher in self._publishers if isinstance(publisher, Engaging)]
        with self._books.read() as tx:
            due = _due(tx, [publisher.name for publisher in engaging], self._clock.now())
        asked = {p.name: [post for post in due if post.platform == p.name] for p in engaging}
        answers = await asyncio.gather(*(self._ask(p, asked[p.name]) for p in engaging))
        told = [answer for answer in answers if not isinstance(answer, Exception)]
        booked = await self._book([reading for answer in told for reading in answer])
        platforms = [
            Counted(name, error=_said(answer))
            if isinstance(answer, Exception)
            else _counted(name, len(asked[name]), answer, booked)
            for name, answer in zip(asked, answers, strict=True)
        ]
        in_use = [publisher.name for publisher in self._publishers]
        in_use += [f"revenue:{source.name}" for source in self._sources]
        async with self._books.write() as tx:
            alerts.let_in(tx, in_use, at=self._clock.now())
        return Collected(tuple(platforms), tuple(sources))

    async def _receive(self, source: RevenueSource) -> Takings:
        """A source of revenue, as far as it lets us."""
        about = f"revenue:{source.name}"
        try:
            booked = await revenue.collect(source, self._books, self._clock)
        except LedgerError:
            raise
        except SourceBarred as error:
            await self._barred(about, f"{source.name} lets nothing be read: {error}")
            return Takings(source.name, error=_said(error))
        except Exception as error:  # noqa: BLE001 - a source's fault must stop no other
            return Takings(source.name, error=_said(error))
        await self._not_barred(about)
        return Takings(source.name, booked.count, booked.amount, booked.refused)

    async def _ask(self, publisher: Any, posts: Sequence[Live]) -> list[Reading] | Exception:
        """What a destination says of its posts, or why it does not."""
        if not posts:
            return []
        # Not the key of publishing: who may read need not be let write.
        about = f"{publisher.name}:readers"
        try:
            said = await publisher.engagement([Receipt(p.url, p.remote_id) for p in posts])
            readings = heard(posts, said, self._clock.now())
        except Barred as error:
            await self._barred(about, f"{publisher.name} lets nothing be read: {error}")
            return error
        except Exception as error:  # noqa: BLE001 - a destination's fault must stop no other
            return error
        await self._not_barred(about)
        return readings

    async def _barred(self, about: str, message: str) -> None:
        async with self._books.write() as tx:
            alerts.sound(tx, Kind.BARRED, about, message, at=self._clock.now())

    async def _not_barred(self, about: str) -> None:
        async with self._books.write() as tx:
            alerts.clear(tx, Kind.BARRED, about, at=self._clock.now())

    # Booking

    async def _book(self, readings: Sequence[Reading]) -> dict[Live, _Booked]:
        """Book every reading; one transaction for each post of which something changed."""
        now = self._clock.now()
        with self._books.read() as tx:
            stands = _stands(tx, {reading.of.run for reading in readings})
            room = self._daily_cap - store.credited_since(tx, now - CAP_WINDOW)
        changed, same = [], []
        for reading in readings:
            before = stands.get((reading.of.run, reading.of.platform), {})
            if has_changed(reading, before):
                changed.append((worth(reading, before, self._rates), reading))
            else:
                same.append(reading)
        await self._note_counted(same)
        changed.sort(key=lambda one: (one[0], *_age(one[1].of)))
        parts = shares([micro for micro, _ in changed], room.micro)
        booked = {}
        for (_, reading), part in zip(changed, parts, strict=True):
            if reading.gone:
                await self._note_gone(reading)
            else:
                booked[reading.of] = await self._credit(reading, MicroCredits(part), now)
            # Thousands of commits in a row would keep the watchdog waiting.
            await self._clock.sleep(0)
        return booked

    async def _credit(self, reading: Reading, part: MicroCredits, now: datetime) -> _Booked:
        """The counts of one post, and at most so much income for them."""
        post, total = reading.of, _NOTHING
        async with self._books.write() as tx:
            if not _is_live(tx, post):
                return total
            before = _stands(tx, {post.run}).get((post.run, post.platform), {})
            paid = {rise.metric: rise for rise in rises(reading, before, self._rates)}
            # Those that are paid for in their order, then the rest.
            for metric in dict.fromkeys((*paid, *reading.counts)):
                one = _NOTHING
                if (rise := paid.get(metric)) is not None:
                    one = _earn(tx, post, rise, min(rise.worth, part), self._daily_cap, now)
                    part -= one.earned
                _keep(tx, reading, metric, before.get(metric), one)
                total += one
            journal.change_publication(tx, post.run, post.platform, counted_at=reading.at)
        return total

    async def _note_counted(self, readings: Sequence[Reading]) -> None:
        """Nothing has changed about these."""
        for start in range(0, len(readings), BATCH):
            batch = readings[start : start + BATCH]
            async with self._books.write() as tx:
                for platform, at in {(one.of.platform, one.at) for one in batch}:
                    runs = [r.of.run for r in batch if (r.of.platform, r.at) == (platform, at)]
                    tx.execute(
                        _publication.update()
                        .where(_publication.c.run.in_(runs), _publication.c.platform == platform)
                        .values(counted_at=at)
                    )
            await self._clock.sleep(0)

    async def _note_gone(self, reading: Reading) -> None:
        """A post was taken down where it was, and not by us."""
        post = reading.of
        sentence = f"gone at {post.platform}: it was taken down or deleted there, not by Penstock"
        async with self._books.write() as tx:
            if not _is_live(tx, post):
                return
            journal.change_publication(
                tx, post.run, post.platform,
                state=PublicationState.WITHDRAWN, error=sentence, counted_at=reading.at,
            )  # fmt: skip
            journal.decide(
                tx, run=post.run, kind="gone", sentence=sentence, at=reading.at,
                inputs={"platform": post.platform, "url": post.url, "remote_id": post.remote_id},
            )  # fmt: skip
            alerts.sound(
                tx, Kind.GONE, f"{post.run}:{post.platform}", f"“{post.title}” is {sentence}",
                run=post.run, at=reading.at,
            )  # fmt: skip
            whereabouts.note(tx, self._publishers, post.run)


@dataclass(frozen=True, slots=True)
class _Booked:
    earned: MicroCredits = ZERO
    forfeited: MicroCredits = ZERO

    def __add__(self, other: _Booked) -> _Booked:
        return _Booked(self.earned + other.earned, self.forfeited + other.forfeited)


_NOTHING = _Booked()


def _age(post: Live) -> tuple[datetime, str, str]:
    """What sorts posts, the oldest first."""
    return post.published_at, post.run, post.platform


def _due(tx: Connection, platforms: Sequence[str], now: datetime) -> list[Live]:
    """The publications that are to be counted now, the oldest first."""
    live = [Live(*row) for row in tx.execute(_LIVE, {"platforms": list(platforms)})]
    due = [post for post in live if is_due(post.published_at, post.counted_at, now)]
    return sorted(due, key=_age)


def _is_live(tx: Connection, post: Live) -> bool:
    """Whether a post still is what it was before its destination was asked."""
    c = _publication.c
    found = tx.execute(
        select(c.state).where(
            c.run == post.run, c.platform == post.platform, c.withdrawal.is_(None),
            c.state == PublicationState.PUBLISHED,
        )
    )  # fmt: skip
    return found.first() is not None


def _stands(tx: Connection, runs: Iterable[str]) -> dict[tuple[str, str], dict[str, Stand]]:
    """Where the counters of these runs stand, by run and platform."""
    c, found = _metric.c, dict[tuple[str, str], dict[str, Stand]]()
    columns = (c.run, c.platform, c.metric, c.count, c.highest, c.earned_micro, c.forfeited_micro)
    wanted = sorted(runs)
    for start in range(0, len(wanted), BATCH):
        chosen = c.run.in_(wanted[start : start + BATCH])
        for run, platform, metric, *stand in tx.execute(select(*columns).where(chosen)):
            found.setdefault((run, platform), {})[metric] = Stand(*stand)
    return found


def _earn(
    tx: Connection, post: Live, rise: Rise, part: MicroCredits, cap: MicroCredits, at: datetime
) -> _Booked:
    """At most so much of what a rise is worth; the rest is forfeited."""
    earned = ZERO
    if part > ZERO:
        counter = f"{post.platform}:{post.run}:{rise.metric}"
        earned = store.earn(
            tx,
            id=f"engagement:{counter}:{rise.high}",
            platform=post.platform,
            amount=part,
            cap=cap,
            since=at - CAP_WINDOW,
            at=at,
            run=post.run,
            ref=f"{counter}:{rise.low}-{rise.high}",
            memo=f"{rise.high - rise.low} at {rise.rate}",
        )
    return _Booked(earned, rise.worth - earned)


_SNAPSHOT = text(
    """
INSERT INTO snapshot (run, platform, metric, at, count)
VALUES (:run, :platform, :metric, :at, :count)
ON CONFLICT (run, platform, metric, at) DO UPDATE SET count = excluded.count
"""
)
_STAND = text(
    """
INSERT INTO metric (run, platform, metric, count, highest, earned_micro, forfeited_micro, at)
VALUES (:run, :platform, :metric, :count, :highest, :earned, :forfeited, :at)
ON CONFLICT (run, platform, metric) DO UPDATE
SET count = excluded.count, highest = excluded.highest, earned_micro = excluded.earned_micro,
    forfeited_micro = excluded.forfeited_micro, at = excluded.at
"""
)


def _keep(
    tx: Connection, reading: Reading, metric: str, before: Stand | None, booked: _Booked
) -> None:
    """Store a count that differs from the one before."""
    count = reading.counts[metric]
    if before is None:
        before = Stand(-1, 0, 0, 0)
    if count == before.count:
        return
    post = reading.of
    values = {
        "run": post.run, "platform": post.platform, "metric": metric, "count": count,
        "at": to_text(reading.at),
    }  # fmt: skip
    tx.execute(_SNAPSHOT, values)
    values |= {
        "highest": max(before.highest, count),
        "earned": before.earned_micro + booked.earned.micro,
        "forfeited": min(before.forfeited_micro + booked.forfeited.micro, MICRO_MAX),
    }
    tx.execute(_STAND, values)


def _counted(
    platform: str, asked: int, readings: Sequence[Reading], booked: Mapping[Live, _Booked]
) -> Counted:
    total = sum((booked.get(reading.of, _NOTHING) for reading in readings), start=_NOTHING)
    gone = sum(reading.gone for reading in readings)
    return Counted(
        platform, len(readings) - gone, asked - len(readings), gone, total.earned, total.forfeited
    )


def _said(error: Exception) -> str:
    """Why something was not collected, on one line."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (PublisherError, SourceError)):
        return message
    # Not one of the answers it may give, so a fault in it, or in us. No traceback for operators.
    logger.debug("engagement.collect: unexpected", exc_info=error)
    return f"unexpected: {type(error).__name__}: {message}"
