"""
Where a provider's usage counter and the books stood when they were last compared.

What the counter rose by since then, and what was booked since then, must be the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, select
from sqlmodel import Field, SQLModel

from ledger.types import MicroColumn, Timestamp


class UsageCounter(SQLModel, table=True):
    """
    One provider's last comparison, in micro-credits.

    `key_mark` tells one key from another without being it: a new key counts from zero.
    """

    __tablename__ = "usage_counter"
    __table_args__ = ({"sqlite_strict": True},)

    provider: str = Field(primary_key=True, sa_type=Text)
    key_mark: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Timestamp)
    used_micro: int = Field(sa_type=MicroColumn)
    booked_micro: int = Field(sa_type=MicroColumn)


_counter = SQLModel.metadata.tables["usage_counter"]


def last(tx: Connection, provider: str) -> Row[Any] | None:
    """The last comparison; None before the first."""
    return tx.execute(select(_counter).where(_counter.c.provider == provider)).one_or_none()


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
            provider=provider, key_mark=key_mark, at=at,
            used_micro=used_micro, booked_micro=booked_micro,
        )
    )  # fmt: skip
