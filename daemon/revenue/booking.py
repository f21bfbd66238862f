"""
What a source received becomes credits, once for each ref.

The first collection notes when it took place: what was made before that is the past of the
account, and not this publication's. A payment becomes available days after it was made, so each
collection asks again for the weeks before the last one; what is in the books already stays as it
is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Text, select
from sqlmodel import Field, SQLModel

from daemon.books import Books
from daemon.clock import Clock
from daemon.revenue.port import Received, RevenueSource
from ledger import store
from ledger.errors import InvalidAmount, RefReused
from ledger.money import ZERO, MicroCredits
from ledger.types import Timestamp

# Twice the longest settlement that is known of: a month, as in Brazil. Counted from the last
# collection that worked, so it does not matter for how long there was none.
LOOK_BACK = timedelta(days=60)
# As many a transaction: each is short, and what a kill leaves undone is done by the next one.
BATCH = 500


class Origin(SQLModel, table=True):
    """
    A source of revenue, by its name in the books.

    What was made before `since` is not credited. `collected_at` is when the last collection that
    worked began to ask.
    """

    __tablename__ = "revenue_source"
    __table_args__ = ({"sqlite_strict": True},)

    name: str = Field(primary_key=True, sa_type=Text)
    since: datetime = Field(sa_type=Timestamp)
    collected_at: datetime = Field(sa_type=Timestamp)


_origin = SQLModel.metadata.tables["revenue_source"]


@dataclass(frozen=True, slots=True)
class Collected:
    """
    What a collection newly booked.

    Args:
        amount: what came less what went back.
        refused: in words, what the books would not take, for a person to look at.
    """

    count: int = 0
    amount: MicroCredits = ZERO
    refused: tuple[str, ...] = ()

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.count + other.count, self.amount + other.amount, self.refused + other.refused
        )


async def collect(source: RevenueSource, books: Books, clock: Clock) -> Collected:
    """
    Ask a source what it received, and book what is new.

    Raises:
        SourceError, SourceBarred: it could not be read; nothing was booked.
        StorageBusy: what was booked until then is booked.
    """
    asked_at = clock.now()
    async with books.write() as tx:
        since, ask_since = _since(tx, source.name, asked_at)
    received = [one for one in await source.received(ask_since) if one.at >= since]
    total = Collected()
    for start in range(0, len(received), BATCH):
        async with books.write() as tx:
            total += book(tx, source.name, received[start : start + BATCH], at=clock.now())
    async with books.write() as tx:
        tx.execute(
            _origin.update()
            .where(_origin.c.name == source.name)
            .values(since=since, collected_at=asked_at)
        )
    return total


def book(tx: Connection, source: str, received: Sequence[Received], *, at: datetime) -> Collected:
    """
    Book what a source received, each ref once.

    An entry has the time at which it was booked: that is when the money can be spent, and what
    counts as income of the last days.
    """
    count, amount, refused = 0, ZERO, []
    for one in received:
        try:
            new = _book(tx, source, one, at)
        except (InvalidAmount, RefReused) as error:
            refused.append(f"{source} {one.ref} of {one.amount} is not booked: {error}")
            continue
        if new:
            count, amount = count + 1, amount + one.amount
    return Collected(count, amount, tuple(refused))


def _book(tx: Connection, source: str, one: Received, at: datetime) -> bool:
    if not one.amount:
        return False
    if one.amount > ZERO:
        return store.deposit(
            tx, amount=one.amount, ref=one.ref, at=at, source=source, memo=one.memo
        )
    return store.refund(tx, amount=-one.amount, ref=one.ref, at=at, source=source, memo=one.memo)


def _since(tx: Connection, source: str, at: datetime) -> tuple[datetime, datetime]:
    """Since when a source counts, which its first collection decides, and since when to ask."""
    known = tx.execute(select(_origin).where(_origin.c.name == source)).one_or_none()
    if known is None:
        tx.execute(_origin.insert().values(name=source, since=at, collected_at=at))
        return at, at
    since: datetime = known.since
    # It was noted by a clock that was ahead, and would leave out what comes until then. Where a
    # later collection has worked, this clock is the one that is wrong. Kept once it was answered.
    if since > at and known.collected_at == since:
        since = at
    return since, max(since, min(known.collected_at, at) - LOOK_BACK)
