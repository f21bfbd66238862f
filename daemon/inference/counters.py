"""
Where a provider's usage counter and the books stood when they were last compared.

What the counter rose by since then, and what was booked since then, must be the same.

What was booked before a counter was first read, no comparison covers: there the books say what the
answers and a person said, and a correction of it is none of what the counter has to rise by.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Row, Text, select
from sqlmodel import Field, SQLModel

from ledger import store
from ledger.money import ZERO, MicroCredits
from ledger.types import MicroColumn, Timestamp


class UsageCounter(SQLModel, table=True):
    """
    One provider's last comparison, in micro-credits.

    `key_mark` tells one key from another without being it: a new key counts from zero.
    `booked_micro` leaves out the corrections of what no comparison covers. `seq` is the journal's
    last row by then.
    """

    __tablename__ = "usage_counter"
    __table_args__ = ({"sqlite_strict": True},)

    provider: str = Field(primary_key=True, sa_type=Text)
    key_mark: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Timestamp)
    used_micro: int = Field(sa_type=MicroColumn)
    booked_micro: int = Field(sa_type=MicroColumn)
    seq: int | None = Field(sa_type=Integer)


class Uncompared(SQLModel, table=True):
    """Rows of the journal, behind `after_seq` up to `until_seq`, that no comparison covers."""

    __tablename__ = "uncompared"
    __table_args__ = ({"sqlite_strict": True},)

    provider: str = Field(primary_key=True, sa_type=Text)
    after_seq: int = Field(primary_key=True, sa_type=Integer)
    until_seq: int = Field(sa_type=Integer)


_counter, _uncompared = (SQLModel.metadata.tables[name] for name in ("usage_counter", "uncompared"))


def last(tx: Connection, provider: str) -> Row[Any] | None:
    """The last comparison; None before the first."""
    return tx.execute(select(_counter).where(_counter.c.provider == provider)).one_or_none()


def booked(tx: Connection, provider: str, account: str) -> MicroCredits:
    """What its account has moved, without the corrections of what no comparison covers."""
    spans = tx.execute(select(_uncompared).where(_uncompared.c.provider == provider))
    apart = (
        store.corrected(tx, account, after=span.after_seq, until=span.until_seq) for span in spans
    )
    return store.account_balance(tx, account) - sum(apart, ZERO)


def begin(tx: Connection, provider: str) -> None:
    """A comparison begins here: what was booked since the last one, none will cover."""
    before, until = last(tx, provider), store.last_seq(tx)
    after = 0 if before is None else before.seq
    if after is not None and after < until:
        tx.execute(_uncompared.insert().values(provider=provider, after_seq=after, until_seq=until))


def keep(
    tx: Connection,
    provider: str,
    *,
    key_mark: str,
    at: datetime,
    used_micro: int,
    booked_micro: int,
) -> None:
    """Remember a comparison in the place of the last."""
    tx.execute(_counter.delete().where(_counter.c.provider == provider))
    tx.execute(
        _counter.insert().values(
            provider=provider, key_mark=key_mark, at=at, used_micro=used_micro,
            booked_micro=booked_micro, seq=store.last_seq(tx),
        )
    )  # fmt: skip
