"""
One row per HTTP request to a provider: what was asked of whom, what came back, what it cost.

The row is written with the hold, before the request, and completed with the settlement. The
answer is kept, so that a run that is killed reads it here instead of buying it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Index, Integer, Row, Text, bindparam, func, select, text
from sqlmodel import Field, SQLModel

from daemon.inference import breaker
from daemon.inference.ladder import Rung
from ledger.types import Json, MicroColumn, Timestamp


class Attempt(SQLModel, table=True):
    """
    One HTTP request.

    `outcome` is null while the request is under way. `cost_micro` is what was booked,
    `own_cost_micro` what our price says where the provider reported a cost of its own. The price
    is copied, in micro-credits per million tokens, so that a later price changes nothing here.
    `remote_id` is the provider's own name for the answer, by which its cost can be looked up.
    """

    __tablename__ = "attempt"
    __table_args__ = (
        Index("attempt_by_run", "run", "step"),
        Index("attempt_by_time", "at"),
        # What is still open is found without reading the years that are not.
        Index(
            "attempt_unresolved",
            "outcome",
            sqlite_where=text("cost_micro IS NULL"),
            postgresql_where=text("cost_micro IS NULL"),
        ),
        Index(
            "attempt_answered",
            "provider",
            "at",
            sqlite_where=text("http_status IS NOT NULL"),
            postgresql_where=text("http_status IS NOT NULL"),
        ),
        {"sqlite_strict": True},
    )

    id: str = Field(primary_key=True, sa_type=Text)
    at: datetime = Field(sa_type=Timestamp)
    run: str = Field(sa_type=Text)
    step: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    provider: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    model_returned: str | None = Field(sa_type=Text)
    outcome: str | None = Field(sa_type=Text)
    http_status: int | None = Field(sa_type=Integer)
    usage: Any = Field(sa_type=Json, nullable=True)
    price_input: int = Field(sa_type=MicroColumn)
    price_cached: int = Field(sa_type=MicroColumn)
    price_output: int = Field(sa_type=MicroColumn)
    price_source: str = Field(sa_type=Text)
    hold: str = Field(sa_type=Text)
    cost_micro: int | None = Field(sa_type=MicroColumn)
    own_cost_micro: int | None = Field(sa_type=MicroColumn)
    duration_ms: int | None = Field(sa_type=Integer)
    answer: str | None = Field(sa_type=Text)
    cut: int | None = Field(sa_type=Integer)
    error: str | None = Field(sa_type=Text)
    remote_id: str | None = Field(sa_type=Text)
    price_cache_write: int | None = Field(sa_type=MicroColumn)


_attempt = SQLModel.metadata.tables["attempt"]


# A run's ids end in a number: the tenth comes after the ninth.
_OLDEST_FIRST = (_attempt.c.at, func.length(_attempt.c.id), _attempt.c.id)
_NEWEST_FIRST = tuple(key.desc() for key in _OLDEST_FIRST)
# What has no outcome has no cost; said so that the index of the unresolved is used.
_IN_FLIGHT = select(_attempt).where(_attempt.c.outcome.is_(None), _attempt.c.cost_micro.is_(None))
_COMPLETE = _attempt.update().where(_attempt.c.id == bindparam("of"))
_NEWEST_ANSWER = (
    select(_attempt.c.at, _attempt.c.http_status)
    .where(_attempt.c.provider == bindparam("provider"), _attempt.c.http_status.is_not(None))
    # A clock that was ahead must not make its answer the newest for ever.
    .where(_attempt.c.at <= bindparam("now", type_=_attempt.c.at.type))
    .order_by(_attempt.c.at.desc())
    .limit(1)
)


def next_id(tx: Connection, run: str) -> str:
    """The id of a run's next attempt."""
    count = tx.execute(select(func.count()).where(_attempt.c.run == run)).scalar_one()
    return f"{run}.{count + 1}"


def begin(tx: Connection, **values: Any) -> None:
    """Record a request that is about to be sent."""
    tx.execute(_attempt.insert(), values)


def complete(tx: Connection, id: str, **values: Any) -> None:
    """Record what came of it."""
    tx.execute(_COMPLETE, {"of": id, **values})


def find(tx: Connection, id: str) -> Row[Any] | None:
    """One attempt's row."""
    return tx.execute(select(_attempt).where(_attempt.c.id == id)).one_or_none()


def of_run(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """A run's attempts, oldest first."""
    return tx.execute(select(_attempt).where(_attempt.c.run == run).order_by(*_OLDEST_FIRST)).all()


def rungs_of(tx: Connection, run: str) -> set[tuple[str, Rung]]:
    """The roles of a run and the rungs that were asked in each."""
    rows = tx.execute(
        select(_attempt.c.role, _attempt.c.provider, _attempt.c.model)
        .where(_attempt.c.run == run)
        .distinct()
    )
    return {(row.role, Rung(row.provider, row.model)) for row in rows}


def answered(tx: Connection, run: str, step: str) -> Sequence[Row[Any]]:
    """The paid answers a step already has, oldest first."""
    return tx.execute(
        select(_attempt)
        .where(_attempt.c.run == run, _attempt.c.step == step, _attempt.c.outcome == "ok")
        .order_by(*_OLDEST_FIRST)
    ).all()


def in_flight(tx: Connection) -> Sequence[Row[Any]]:
    """Attempts whose outcome was never recorded: a crash came between hold and settlement."""
    return tx.execute(_IN_FLIGHT).all()


def newest_answer(tx: Connection, provider: str, now: datetime) -> tuple[datetime, int] | None:
    """When a provider was last asked that answered, and its status; None before its first."""
    found = tx.execute(_NEWEST_ANSWER, {"provider": provider, "now": now}).first()
    return None if found is None else (found.at, found.http_status)


def unknown_open(tx: Connection) -> Sequence[Row[Any]]:
    """Attempts that may have been billed and of which that is not yet settled."""
    return tx.execute(
        select(_attempt).where(_attempt.c.outcome == "unknown", _attempt.c.cost_micro.is_(None))
    ).all()


def charged_unknown(tx: Connection, *, since: datetime) -> Sequence[Row[Any]]:
    """Attempts since a moment that may have been billed, were charged, and can be asked about."""
    return tx.execute(
        select(_attempt)
        .where(_attempt.c.at > since, _attempt.c.outcome == "unknown")
        .where(_attempt.c.cost_micro.is_not(None), _attempt.c.remote_id.is_not(None))
        .order_by(_attempt.c.at)
    ).all()


def tries(tx: Connection, provider: str, *, since: datetime) -> list[breaker.Try]:
    """
    A provider's finished requests since a moment, oldest first; the newest hundred.

    One that our own process did not live to see the end of says nothing about the provider.
    """
    rows = tx.execute(
        select(_attempt)
        .where(_attempt.c.at > since, _attempt.c.provider == provider)
        .where(_attempt.c.outcome.is_not(None), _attempt.c.duration_ms.is_not(None))
        .order_by(*_NEWEST_FIRST)
        .limit(100)
    ).all()
    return [
        breaker.Try(
            row.at + timedelta(milliseconds=row.duration_ms),
            row.model,
            row.outcome,
            row.http_status,
        )
        for row in reversed(rows)
    ]


def newest(tx: Connection, provider: str) -> Row[Any] | None:
    """The newest request that reached a provider, or may have."""
    return tx.execute(
        select(_attempt)
        .where(_attempt.c.provider == provider, _attempt.c.outcome.in_(["ok", "unknown"]))
        .order_by(_attempt.c.at.desc())
        .limit(1)
    ).one_or_none()


def recent(
    tx: Connection, *, since: datetime | None = None, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Attempts, oldest first; the newest `limit` of them."""
    statement = select(_attempt).order_by(*_NEWEST_FIRST)
    if since is not None:
        statement = statement.where(_attempt.c.at >= since)
    return tx.execute(statement.limit(limit)).all()[::-1]


def cost_by_step(tx: Connection, run: str) -> dict[str, int]:
    """Micro-credits booked per step of a run."""
    rows = tx.execute(
        select(_attempt.c.step, func.sum(_attempt.c.cost_micro))
        .where(_attempt.c.run == run, _attempt.c.cost_micro.is_not(None))
        .group_by(_attempt.c.step)
    )
    return {step: int(cost) for step, cost in rows}


def spent_by_run(tx: Connection, run: str) -> int:
    """Micro-credits booked for a run's attempts."""
    return sum(cost_by_step(tx, run).values())


_DISAGREEMENTS = text(
    """
SELECT a.id, a.cost_micro, COALESCE(b.booked, 0) AS booked
FROM attempt AS a LEFT JOIN (
    SELECT attempt,
           SUM(CASE WHEN credit = 'treasury' THEN amount_micro ELSE -amount_micro END) AS booked
    FROM transfer WHERE action IN ('post', 'settle') AND attempt IS NOT NULL GROUP BY attempt
) AS b ON b.attempt = a.id
WHERE COALESCE(a.cost_micro, 0) <> COALESCE(b.booked, 0) ORDER BY a.at LIMIT 20
"""
)


def disagreements(tx: Connection) -> list[str]:
    """Requests whose cost is not what the books have for them, in words."""
    return [
        f"the request {row.id} is shown at {row.cost_micro}, the books have {row.booked}"
        " micro-credits for it"
        for row in tx.execute(_DISAGREEMENTS)
    ]
