"""
When each bell last rang, and for which slot.

A bell's row is made when the service first starts, so nothing from before is due. That no slot has
two runs is not seen to here: a run's row names its slot, and no other may.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import REAL, Connection, Text, bindparam, select
from sqlmodel import Field, SQLModel

from ledger.types import Timestamp


class Bell(StrEnum):
    """What is rung for."""

    PUBLISH = "publish"
    COLLECT = "collect"
    FEED = "feed"
    PURSUE = "pursue"
    DAILY = "daily"


class BellRow(SQLModel, table=True):
    """
    One bell, there since `hung_at`. `last` is the newest slot that was used or let go; `owed`
    the runs, and parts of one, that a thinned cadence has left to do.
    """

    __tablename__ = "bell"
    __table_args__ = ({"sqlite_strict": True},)

    name: str = Field(primary_key=True, sa_type=Text)
    last: datetime = Field(sa_type=Timestamp)
    owed: float = Field(sa_type=REAL)
    hung_at: datetime = Field(sa_type=Timestamp)


_bell = SQLModel.metadata.tables["bell"]
# Built once, as wherever the service asks at each of its turns: building takes longer than asking.
_LAST = select(_bell.c.name, _bell.c.last)
_HUNG_AT = select(_bell.c.hung_at).where(_bell.c.name == Bell.PUBLISH)
_RING = (
    _bell.update()
    .where(_bell.c.name == bindparam("bell"), _bell.c.last < bindparam("slot"))
    .values(last=bindparam("slot"))
)


def hang(tx: Connection, at: datetime) -> None:
    """Make the bells that are not there yet; they ring for what comes after `at`."""
    known = set(tx.execute(select(_bell.c.name)).scalars())
    for bell in Bell:
        if bell not in known:
            tx.execute(_bell.insert().values(name=bell, last=at, owed=1.0, hung_at=at))


def last(tx: Connection) -> dict[Bell, datetime]:
    """Of each bell the newest slot that was used or let go."""
    rows = tx.execute(_LAST)
    return {Bell(row.name): row.last for row in rows}


def ring(tx: Connection, bell: Bell, slot: datetime) -> None:
    """The slot is used or let go; a later one stays."""
    tx.execute(_RING, {"bell": bell, "slot": slot})


def turn_back(tx: Connection, bell: Bell, at: datetime) -> None:
    """After a clock that was ahead: what comes after `at` rings again."""
    mine = _bell.update().where(_bell.c.name == bell)
    tx.execute(mine.values(last=at))
    tx.execute(mine.where(_bell.c.hung_at > at).values(hung_at=at))


def hung_at(tx: Connection) -> datetime:
    """When the bells were hung, so that nobody waits for what was before."""
    found: datetime = tx.execute(_HUNG_AT).scalar_one()
    return found


def owed(tx: Connection) -> float:
    """Runs that a thinned cadence has left to do."""
    found: float = tx.execute(select(_bell.c.owed).where(_bell.c.name == Bell.PUBLISH)).scalar_one()
    return found


def owe(tx: Connection, runs: float) -> None:
    """Remember it."""
    tx.execute(_bell.update().where(_bell.c.name == Bell.PUBLISH).values(owed=runs))
