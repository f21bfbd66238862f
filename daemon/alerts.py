"""
What a person must know: raised once, told once, and told again when it is over.

An alert is a row while it stands. A condition (a key is refused, a draft waits) is cleared by
whoever sees that it has passed; an event (a post was refused for good) only grows old. Telling is
at least once: a row is told again when a process dies between the request and the mark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import httpx
from sqlalchemy import Connection, Row, Text, bindparam, select
from sqlmodel import Field, SQLModel

from daemon import tls
from daemon.books import Books
from daemon.clock import Clock
from ledger.types import Timestamp, to_text

# An event is news for as long as somebody who looks in once a week will see it.
EVENT_STANDS = timedelta(days=7)
# What a webhook answers to words that it does not take, rather than to anything now.
_NOT_THESE_WORDS = (400, 413, 422)


class Kind(StrEnum):
    """What an alert is about. `of_event` are not cleared."""

    BARRED = "barred"
    APPROVAL = "approval"
    REFUSED = "refused"
    LAPSED = "lapsed"
    GONE = "gone"
    EXPIRED = "expired"
    OVERRUN = "overrun"
    BOOKS = "books"
    UNCONFIRMED = "unconfirmed"
    FUNDS = "funds"
    SILENT = "silent"
    PRICE = "price"
    DISK = "disk"
    SETTINGS = "settings"
    FAULT = "fault"

    @property
    def of_event(self) -> bool:
        """Whether it happened and is over, rather than lasts."""
        return self in (Kind.REFUSED, Kind.LAPSED, Kind.GONE, Kind.EXPIRED, Kind.OVERRUN)


class Alert(SQLModel, table=True):
    """
    One thing a person must know, by a key that names it.

    `told_at` is when the webhook took it; `cleared_at` when it was over, which is still to be told.
    """

    __tablename__ = "alert"
    __table_args__ = ({"sqlite_strict": True},)

    key: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)
    run: str | None = Field(sa_type=Text)
    raised_at: datetime = Field(sa_type=Timestamp)
    cleared_at: datetime | None = Field(sa_type=Timestamp)
    told_at: datetime | None = Field(sa_type=Timestamp)


_alert = SQLModel.metadata.tables["alert"]
_STANDING = select(_alert).where(_alert.c.cleared_at.is_(None)).order_by(_alert.c.raised_at)
_UNTOLD = (
    select(_alert)
    .where(_alert.c.told_at.is_(None) | _alert.c.cleared_at.is_not(None))
    .order_by(_alert.c.raised_at)
)
_PRUNE = _alert.delete().where(
    _alert.c.kind.in_([kind for kind in Kind if kind.of_event]),
    _alert.c.raised_at <= bindparam("since"),
)
_BY_KEY = select(_alert).where(_alert.c.key == bindparam("key"))


def sound(
    tx: Connection, kind: Kind, about: str, message: str, *, at: datetime, run: str | None = None
) -> None:
    """
    Raise an alert; while it stands, raising it again only brings its words up to date.

    Args:
        about: with the kind, what it is about, such as a destination's name.
    """
    key = f"{kind}:{about}"
    known = tx.execute(_BY_KEY, {"key": key}).one_or_none()
    if known is not None and known.cleared_at is None:
        tx.execute(_alert.update().where(_alert.c.key == key).values(message=message))
        return
    # Cleared and not yet told: whoever was told of the last time need not hear of its end first.
    tx.execute(_alert.delete().where(_alert.c.key == key))
    tx.execute(_alert.insert().values(key=key, kind=kind, message=message, run=run, raised_at=at))


def clear(tx: Connection, kind: Kind, about: str, *, at: datetime) -> None:
    """It has passed. What nobody was told of is forgotten, the rest gets its all-clear."""
    key = f"{kind}:{about}"
    known = tx.execute(_BY_KEY, {"key": key}).one_or_none()
    if known is None or known.cleared_at is not None:
        return
    mine = _alert.c.key == key
    if known.told_at is None:
        tx.execute(_alert.delete().where(mine))
    else:
        tx.execute(_alert.update().where(mine).values(cleared_at=at))


def level(
    tx: Connection,
    kinds: Collection[Kind],
    found: Mapping[tuple[Kind, str], str],
    *,
    at: datetime,
) -> None:
    """
    Bring the conditions of these kinds to what was found, by kind and what each is about.

    What stands and was not found has passed.
    """
    for kind, about in _names(tx, kinds):
        if (kind, about) not in found:
            clear(tx, kind, about, at=at)
    for (kind, about), message in found.items():
        sound(tx, kind, about, message, at=at)


def _names(tx: Connection, kinds: Collection[Kind]) -> list[tuple[Kind, str]]:
    """Of what stands of these kinds, the kind and what each is about."""
    keys = [row.key for row in tx.execute(_STANDING) if row.kind in kinds]
    return [(Kind(kind), about) for kind, _, about in (key.partition(":") for key in keys)]


def standing(tx: Connection, at: datetime) -> Sequence[Row[Any]]:
    """What a person should look at now, oldest first."""
    return [row for row in tx.execute(_STANDING) if not _is_old(row, at)]


def _is_old(row: Row[Any], at: datetime) -> bool:
    return Kind(row.kind).of_event and bool(row.raised_at + EVENT_STANDS <= at)


def let_in(tx: Connection, asked: Collection[str], *, at: datetime) -> None:
    """
    Clear what bars nobody any more, since the operator has it asked no more.

    Args:
        asked: names of destinations and sources, such as `devto` and `revenue:stripe`; what is
            about `devto:readers` belongs to the first.
    """
    for kind, about in _names(tx, [Kind.BARRED]):
        if not any(about == name or about.startswith(f"{name}:") for name in asked):
            clear(tx, kind, about, at=at)


def prune(tx: Connection, at: datetime) -> None:
    """Forget the events that are news no more."""
    tx.execute(_PRUNE, {"since": at - EVENT_STANDS})


class Webhook:
    """
    Tells what was raised and what has passed.

    Args:
        url: gets a JSON POST `{kind, message, run, at, cleared}`; any 2xx is an answer.
        transport: how bytes travel; None for real sockets.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._client = tls.client(transport, {}, timeout=timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def tell(self, books: Books, clock: Clock) -> str | None:
        """
        Tell what is not told yet. Returns why it could not be, if so: the next call tries again.
        """
        with books.read() as tx:
            rows = tx.execute(_UNTOLD).all()
        problem = None
        for row in rows:
            cleared = row.cleared_at is not None
            message = f"all clear: {row.message}" if cleared else row.message
            at = row.cleared_at if cleared else row.raised_at
            answer = await self._post(row.kind, message, at, cleared=cleared, run=row.run)
            if trouble := _trouble(answer):
                problem = trouble
                # One that is refused for its words keeps no other back; who takes none, or says
                # nothing, is left alone.
                if answer not in _NOT_THESE_WORDS:
                    break
                continue
            async with books.write() as tx:
                same = (_alert.c.key == row.key) & (_alert.c.raised_at == row.raised_at)
                if cleared:
                    tx.execute(_alert.delete().where(same))
                else:
                    told = {"told_at": clock.now()}
                    if not tx.execute(_alert.update().where(same).values(told)).rowcount:
                        # It passed while it was told, and its all-clear is owed.
                        gone = {**row._mapping, **told, "cleared_at": clock.now()}
                        tx.execute(_alert.insert().prefix_with("OR IGNORE").values(gone))
        return problem

    async def send(self, kind: str, message: str, at: datetime, *, cleared: bool) -> str | None:
        """One request. Returns why it was not taken, if so."""
        return _trouble(await self._post(kind, message, at, cleared=cleared, run=None))

    async def _post(
        self, kind: str, message: str, at: datetime, *, cleared: bool, run: str | None
    ) -> int | str:
        """The status of the answer, or why there is none."""
        document = {
            "kind": kind, "message": message, "run": run, "at": to_text(at), "cleared": cleared,
        }  # fmt: skip
        try:
            answer = await self._client.post(self._url, json=document)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # The address may have a secret in it, and httpx quotes addresses.
            return f"PENSTOCK_ALERT_URL is not reached ({type(error).__name__})"
        return answer.status_code


def _trouble(answer: int | str) -> str | None:
    if isinstance(answer, str):
        return answer
    return None if answer // 100 == 2 else f"PENSTOCK_ALERT_URL answered {answer}"
