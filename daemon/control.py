"""What an operator has switched by hand and what must survive a restart: the pause."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Text, select
from sqlmodel import Field, SQLModel

from ledger.types import Timestamp

PAUSE = "pause"


class Control(SQLModel, table=True):
    """One switch. Its row exists while it is on; `value` is the reason given."""

    __tablename__ = "control"
    __table_args__ = ({"sqlite_strict": True},)

    key: str = Field(primary_key=True, sa_type=Text)
    value: str | None = Field(sa_type=Text)
    at: datetime = Field(sa_type=Timestamp)


_control = SQLModel.metadata.tables["control"]
_PAUSED = select(_control).where(_control.c.key == PAUSE)


class Paused(Exception):
    """The gate is shut; what was under way waits where it stands."""


class Gate:
    """
    What every new request to a model and every new publication passes.

    It is shut while the operator paused Penstock, which is in the database, and once this process
    is to end, which is not.
    """

    def __init__(self) -> None:
        self._ending: str | None = None

    def end(self, reason: str) -> None:
        """Let nothing new begin in this process any more."""
        self._ending = reason

    def shut(self, tx: Connection) -> str | None:
        """Why nothing may begin, or None."""
        return self._ending or paused(tx)

    def pass_through(self, tx: Connection) -> None:
        """
        Begin something in this transaction.

        Raises:
            Paused: nothing may begin.
        """
        if (reason := self.shut(tx)) is not None:
            raise Paused(reason)


def pause(tx: Connection, *, reason: str | None, at: datetime) -> str | None:
    """
    Let no new model request and no new publication start.

    Returns the reason that stands: where none is given, that of a pause which stood before.
    """
    before = tx.execute(_PAUSED).one_or_none()
    stands = reason or (before.value if before is not None else None)
    resume(tx)
    tx.execute(_control.insert().values(key=PAUSE, value=stands, at=at))
    return stands


def resume(tx: Connection) -> None:
    """Lift the pause."""
    tx.execute(_control.delete().where(_control.c.key == PAUSE))


def paused(tx: Connection) -> str | None:
    """The reason of the pause, or None when there is none."""
    row = tx.execute(_PAUSED).one_or_none()
    return None if row is None else row.value or "no reason given"
