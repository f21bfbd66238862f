"""
What happened: runs, their steps, decisions, sources, claims and publications.

A step's output is stored in the same transaction that settles what it cost, so that a run killed
anywhere goes on from here and never buys an answer twice. Verbs take the open transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Connection,
    Index,
    Integer,
    Row,
    Text,
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
)
from sqlmodel import Field, SQLModel

from daemon.inference import attempts
from daemon.inference.ladder import Rung
from ledger.types import Json, MicroColumn, Timestamp

if TYPE_CHECKING:
    from daemon.desk.evidence import Verdict

# The two kinds of run: crew work that is paid for, and what needs no model.
ARTICLE = "article"
DIGEST = "digest"


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    PARKED = "parked"
    AWAITING_APPROVAL = "awaiting_approval"
    FINISHED = "finished"
    FAILED = "failed"


class RunOutcome(StrEnum):
    """What a run came to."""

    PUBLISHED = "published"
    AWAITING_APPROVAL = "awaiting_approval"
    DRY_RUN = "dry_run"
    SKIPPED = "skipped"
    ABSTAINED = "abstained"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"


class StepState(StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class PublicationState(StrEnum):
    """Where a publication stands."""

    INTENDED = "intended"
    PUBLISHED = "published"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


# Not over: to be sent, or perhaps sent.
OPEN = (PublicationState.INTENDED, PublicationState.UNCONFIRMED)

# Live, or perhaps live, or it was: a run with one of these is over.
REACHED = (
    PublicationState.PUBLISHED,
    PublicationState.UNCONFIRMED,
    PublicationState.WITHDRAWN,
)


class Run(SQLModel, table=True):
    """
    One pass of the crew.

    `slot` is the scheduled instant, null for a run asked for by hand; `approved_at` is when a
    person let it go out, null where none was asked or none has answered.
    """

    __tablename__ = "run"
    __table_args__ = (
        Index("run_by_state", "state"),
        Index("run_by_start", "started_at"),
        {"sqlite_strict": True},
    )

    id: str = Field(primary_key=True, sa_type=Text)
    slot: datetime | None = Field(sa_type=Timestamp, unique=True)
    state: str = Field(sa_type=Text)
    outcome: str | None = Field(sa_type=Text)
    reason: str | None = Field(sa_type=Text)
    tier: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    topic: str | None = Field(sa_type=Text)
    title: str | None = Field(sa_type=Text)
    budget_micro: int = Field(sa_type=MicroColumn)
    approved_at: datetime | None = Field(sa_type=Timestamp)
    started_at: datetime = Field(sa_type=Timestamp)
    finished_at: datetime | None = Field(sa_type=Timestamp)


class Step(SQLModel, table=True):
    """One named piece of a run. `attempt` counts how often it was begun."""

    __tablename__ = "step"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    name: str = Field(primary_key=True, sa_type=Text)
    seq: int = Field(sa_type=Integer)
    state: str = Field(sa_type=Text)
    attempt: int = Field(sa_type=Integer)
    output: Any = Field(sa_type=Json, nullable=True)
    error: str | None = Field(sa_type=Text)
    started_at: datetime = Field(sa_type=Timestamp)
    finished_at: datetime | None = Field(sa_type=Timestamp)


class Decision(SQLModel, table=True):
    """Something code decided, with what it looked at."""

    __tablename__ = "decision"
    __table_args__ = (Index("decision_by_run", "run"), {"sqlite_strict": True})

    id: int | None = Field(primary_key=True, sa_type=Integer)
    run: str | None = Field(sa_type=Text, foreign_key="run.id")
    at: datetime = Field(sa_type=Timestamp)
    kind: str = Field(sa_type=Text)
    sentence: str = Field(sa_type=Text)
    inputs: Any = Field(sa_type=Json)


class Source(SQLModel, table=True):
    """Evidence: the text of a page as this run read it. `id` is S1, S2, … within the run."""

    __tablename__ = "source"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    id: str = Field(primary_key=True, sa_type=Text)
    url: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    fetched_at: datetime = Field(sa_type=Timestamp)


class Claim(SQLModel, table=True):
    """A statement, its verbatim quote and whether code found that quote in the source."""

    __tablename__ = "claim"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    seq: int = Field(primary_key=True, sa_type=Integer)
    step: str = Field(sa_type=Text)
    statement: str = Field(sa_type=Text)
    quote: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    verified: int = Field(sa_type=Integer)
    remark: str | None = Field(sa_type=Text)


class Publication(SQLModel, table=True):
    """
    An article at one destination: the intent before the effect, the receipt after it.

    `payload` is empty until the intent is frozen, as that of an announcement is while the article
    has no address. `sent_at` is when it was last sent, so that it may be out since then, unless it
    was looked for and not found. `noted` is what the destination said on the way, such as the id of
    a draft; `retry_at` the time before which it wants to hear nothing; `withdrawal` why the article
    is to be taken back; `counted_at` when its engagement was last read.
    """

    __tablename__ = "publication"
    __table_args__ = (
        Index("publication_by_state", "state"),
        # A look at the newest must not read what all the others say.
        Index("publication_by_time", "published_at"),
        {"sqlite_strict": True},
    )

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    platform: str = Field(primary_key=True, sa_type=Text)
    state: str = Field(sa_type=Text)
    key: str = Field(sa_type=Text)
    payload: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    url: str | None = Field(sa_type=Text)
    remote_id: str | None = Field(sa_type=Text)
    error: str | None = Field(sa_type=Text)
    intended_at: datetime = Field(sa_type=Timestamp)
    published_at: datetime | None = Field(sa_type=Timestamp)
    noted: str | None = Field(sa_type=Text)
    retry_at: datetime | None = Field(sa_type=Timestamp)
    withdrawal: str | None = Field(sa_type=Text)
    counted_at: datetime | None = Field(sa_type=Timestamp)
    sent_at: datetime | None = Field(sa_type=Timestamp)


_run, _step, _decision, _source, _claim, _publication = (
    SQLModel.metadata.tables[name]
    for name in ("run", "step", "decision", "source", "claim", "publication")
)

_INTERRUPTED = (
    select(_run)
    .where(_run.c.state.in_([RunState.RUNNING, RunState.PARKED]))
    .order_by(_run.c.started_at)
    .limit(1)
)
# What was let go stays so; databases of before have intents of such runs.
_ended = and_(
    _run.c.state.in_([RunState.FINISHED, RunState.FAILED]),
    _run.c.outcome.is_distinct_from(RunOutcome.ABSTAINED),
)
_STEP = select(_step).where(_step.c.run == bindparam("run"), _step.c.name == bindparam("name"))
_CHANGE_STEP = _step.update().where(
    _step.c.run == bindparam("of"), _step.c.name == bindparam("called")
)
_wanted_back = _publication.c.withdrawal.is_not(None)
# It was under way when the process ended, or was put off with a part of it out.
_sent = and_(_publication.c.state == PublicationState.INTENDED, _publication.c.sent_at.is_not(None))
_LAST_PUBLISHED = select(func.max(_publication.c.published_at))
_OPEN_PUBLICATIONS = (
    select(_publication)
    .join(_run, _run.c.id == _publication.c.run)
    .where(
        or_(
            _publication.c.state == PublicationState.UNCONFIRMED,
            and_(_publication.c.state == PublicationState.INTENDED, or_(_ended, _wanted_back)),
            and_(_publication.c.state == PublicationState.PUBLISHED, _wanted_back),
        )
    )
    .order_by(_publication.c.intended_at)
)


def open_run(
    tx: Connection,
    *,
    id: str,
    slot: datetime | None,
    tier: str,
    kind: str,
    topic: str | None,
    budget_micro: int,
    at: datetime,
    dry: bool = False,
) -> None:
    """Begin a run; a slot can be claimed once. A dry one has its outcome from the first."""
    tx.execute(
        _run.insert().values(
            id=id, slot=slot, state=RunState.RUNNING, tier=tier, kind=kind, topic=topic,
            budget_micro=budget_micro, started_at=at, outcome=RunOutcome.DRY_RUN if dry else None,
        )
    )  # fmt: skip


def run(tx: Connection, id: str) -> Row[Any] | None:
    """One run's row."""
    return tx.execute(select(_run).where(_run.c.id == id)).one_or_none()


def outcome(row: Any) -> str | None:
    """What a run came to; None while it is not over, though a dry one is known as such."""
    over = row.state in (RunState.FINISHED, RunState.FAILED)
    return row.outcome if over else None


def has_slot(tx: Connection, slot: datetime) -> bool:
    """Whether a run was opened for a slot."""
    return tx.execute(select(_run.c.id).where(_run.c.slot == slot)).first() is not None


def interrupted_run(tx: Connection) -> Row[Any] | None:
    """The oldest run that was begun and neither finished nor failed nor waits for a person."""
    return tx.execute(_INTERRUPTED).one_or_none()


def runs(
    tx: Connection, *, since: datetime | None = None, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Runs, oldest first; the newest `limit` of them."""
    statement = select(_run).order_by(_run.c.started_at.desc(), _run.c.id.desc())
    if since is not None:
        statement = statement.where(_run.c.started_at >= since)
    return tx.execute(statement.limit(limit)).all()[::-1]


def change_run(tx: Connection, id: str, **values: Any) -> None:
    """Set columns of a run."""
    tx.execute(_run.update().where(_run.c.id == id).values(**values))


def finish_run(
    tx: Connection, id: str, *, outcome: RunOutcome, reason: str | None, at: datetime
) -> None:
    """Close a run with its outcome."""
    state = RunState.FAILED if outcome is RunOutcome.FAILED else RunState.FINISHED
    change_run(tx, id, state=state, outcome=outcome, reason=reason, finished_at=at)


def begin_step(tx: Connection, run: str, name: str, at: datetime) -> None:
    """Begin a step, or begin it again."""
    known = step(tx, run, name)
    if known is None:
        count = tx.execute(select(func.count()).where(_step.c.run == run)).scalar_one()
        tx.execute(
            _step.insert().values(
                run=run, name=name, seq=count + 1, state=StepState.RUNNING, attempt=1, started_at=at
            )
        )
    elif known.state != StepState.DONE:
        _change_step(tx, run, name, state=StepState.RUNNING, attempt=known.attempt + 1, error=None)


def finish_step(tx: Connection, run: str, name: str, output: Any, at: datetime) -> None:
    """Store what a step came to."""
    _change_step(tx, run, name, state=StepState.DONE, output=output, finished_at=at)


def fail_step(tx: Connection, run: str, name: str, error: str, at: datetime) -> None:
    """Store why a step failed."""
    _change_step(tx, run, name, state=StepState.FAILED, error=error, finished_at=at)


def _change_step(tx: Connection, run: str, name: str, **values: Any) -> None:
    tx.execute(_CHANGE_STEP, {"of": run, "called": name, **values})


def step(tx: Connection, run: str, name: str) -> Row[Any] | None:
    """One step's row."""
    return tx.execute(_STEP, {"run": run, "name": name}).one_or_none()


def steps(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """A run's steps in the order they were begun."""
    return tx.execute(select(_step).where(_step.c.run == run).order_by(_step.c.seq)).all()


def decide(
    tx: Connection,
    *,
    run: str | None,
    kind: str,
    sentence: str,
    inputs: Mapping[str, Any],
    at: datetime,
) -> None:
    """Record a decision with its inputs."""
    tx.execute(
        _decision.insert().values(run=run, kind=kind, sentence=sentence, inputs=dict(inputs), at=at)
    )


def decisions(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """A run's decisions, oldest first."""
    return tx.execute(
        select(_decision).where(_decision.c.run == run).order_by(_decision.c.id)
    ).all()


def add_source(
    tx: Connection, run: str, *, id: str, url: str, title: str, text: str, fetched_at: datetime
) -> None:
    """Store evidence."""
    tx.execute(
        _source.insert().values(
            run=run, id=id, url=url, title=title, text=text, fetched_at=fetched_at
        )
    )


def sources(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """A run's evidence, S1 first."""
    rows = tx.execute(select(_source).where(_source.c.run == run)).all()
    return sorted(rows, key=lambda row: int(row.id[1:]))


def add_claims(tx: Connection, run: str, step: str, checked: Sequence[Verdict]) -> None:
    """Pin claims to the run's board, the ones that failed included."""
    count = tx.execute(select(func.count()).where(_claim.c.run == run)).scalar_one()
    rows = [
        {
            "run": run, "seq": seq, "step": step, "verified": int(verdict.verified),
            "remark": verdict.remark, **asdict(verdict.claim),
        }
        for seq, verdict in enumerate(checked, start=count + 1)
    ]  # fmt: skip
    if rows:
        tx.execute(_claim.insert(), rows)


def drop_claims(tx: Connection, run: str, statements: Sequence[str], remark: str) -> None:
    """Take claims off the board that their quotes do not bear out."""
    tx.execute(
        _claim.update()
        .where(_claim.c.run == run, _claim.c.statement.in_(statements))
        .values(verified=0, remark=remark)
    )


def claims(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """A run's claims in the order they were pinned."""
    return tx.execute(select(_claim).where(_claim.c.run == run).order_by(_claim.c.seq)).all()


def intend(
    tx: Connection,
    run: str,
    platform: str,
    *,
    key: str,
    payload: bytes,
    title: str,
    at: datetime,
) -> None:
    """Store what is about to be published."""
    tx.execute(
        _publication.insert().values(
            run=run, platform=platform, state=PublicationState.INTENDED, key=key,
            payload=payload.decode(), title=title, intended_at=at,
        )
    )  # fmt: skip


def change_publication(tx: Connection, run: str, platform: str, **values: Any) -> None:
    """Set columns of a publication."""
    tx.execute(
        _publication.update()
        .where(_publication.c.run == run, _publication.c.platform == platform)
        .values(**values)
    )


def publication(tx: Connection, run: str, platform: str) -> Row[Any] | None:
    """One publication's row."""
    return tx.execute(
        select(_publication).where(_publication.c.run == run, _publication.c.platform == platform)
    ).one_or_none()


def publications(
    tx: Connection,
    *,
    run: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> Sequence[Row[Any]]:
    """Publications, oldest first; the newest `limit` of them."""
    statement = select(_publication).order_by(
        _publication.c.intended_at.desc(), _publication.c.run.desc(), _publication.c.platform.desc()
    )
    if run is not None:
        statement = statement.where(_publication.c.run == run)
    if since is not None:
        statement = statement.where(_publication.c.intended_at >= since)
    return tx.execute(statement.limit(limit)).all()[::-1]


def articles_published(
    tx: Connection, *, since: datetime, until: datetime, but: str | None = None
) -> int:
    """
    Articles of all runs but one that came out, or may have come out, in a span.

    One that was out before, for certain, came out then.
    """
    its = _publication.c
    known = its.state.in_([PublicationState.PUBLISHED, PublicationState.WITHDRAWN])
    maybe = or_(its.state == PublicationState.UNCONFIRMED, _sent)
    moment = func.coalesce(its.published_at, its.sent_at, its.intended_at)
    within = and_(or_(known, maybe), moment >= since, moment < until)
    first = func.min(moment).filter(known)
    runs = (
        select(its.run)
        .where(its.run.is_distinct_from(but))
        .group_by(its.run)
        .having(func.count().filter(within) > 0, or_(first.is_(None), first >= since))
    )
    return tx.execute(select(func.count()).select_from(runs.subquery())).scalar_one()


def articles_reached(tx: Connection, platforms: Sequence[str]) -> int:
    """
    How many articles were ever published to one of these destinations, where strangers read them.

    What went to a folder that nobody served then has an address on this machine alone.
    """
    statement = select(func.count(_publication.c.run.distinct())).where(
        _publication.c.platform.in_(platforms),
        func.coalesce(_publication.c.url, "").not_like("file:%"),
        _publication.c.state.in_([PublicationState.PUBLISHED, PublicationState.WITHDRAWN]),
    )
    return tx.execute(statement).scalar_one()


def unconfirmed(tx: Connection) -> int:
    """How many publications may be live without our knowing."""
    statement = select(func.count()).where(_publication.c.state == PublicationState.UNCONFIRMED)
    return tx.execute(statement).scalar_one()


def want_back(tx: Connection, run: str, reason: str) -> None:
    """Whatever of an article is out is to be taken back, and what is not out is to stay so."""
    out = [*OPEN, PublicationState.PUBLISHED]
    mine = (_publication.c.run == run) & _publication.c.state.in_(out)
    tx.execute(_publication.update().where(mine).values(withdrawal=reason, retry_at=None))


def open_publications(tx: Connection) -> Sequence[Row[Any]]:
    """
    Publications that are not over, oldest first: those that may be live without our knowing,
    those that a run which has ended left to be tried again, and those to be taken back.
    """
    return tx.execute(_OPEN_PUBLICATIONS).all()


def waiting_drafts(tx: Connection) -> int:
    """How many drafts wait for a person."""
    statement = select(func.count()).where(_run.c.state == RunState.AWAITING_APPROVAL)
    return tx.execute(statement).scalar_one()


def earlier_titles(tx: Connection, run: str) -> Sequence[str]:
    """Titles of what other runs published."""
    statement = select(_publication.c.title).where(
        _publication.c.run != run, _publication.c.state != PublicationState.FAILED
    )
    return tx.execute(statement.distinct()).scalars().all()


def recent_costs(tx: Connection, tier: str, rungs: Set[tuple[str, Rung]]) -> Sequence[int]:
    """
    What the newest ten complete articles of a tier cost, in micro-credits.

    Args:
        rungs: by role; an article for which another was asked is left out.
    """
    complete = and_(
        _run.c.outcome.in_([RunOutcome.PUBLISHED, RunOutcome.DRY_RUN]),
        _run.c.finished_at.is_not(None),
    )
    newest = (
        select(_run.c.id)
        .where(_run.c.tier == tier, _run.c.kind == ARTICLE, complete)
        .order_by(_run.c.started_at.desc())
        .limit(10)
    )
    return [
        attempts.spent_by_run(tx, run)
        for run in tx.execute(newest).scalars().all()
        if attempts.rungs_of(tx, run) <= rungs
    ]


def failed_with(tx: Connection, step: str, text: str) -> int:
    """How many runs failed in which a step had come to something with this text in it."""
    statement = (
        select(func.count())
        .select_from(_step)
        .join(_run, _run.c.id == _step.c.run)
        .where(
            _run.c.state == RunState.FAILED,
            _step.c.name == step,
            func.instr(cast(_step.c.output, Text), text) > 0,
        )
    )
    return tx.execute(statement).scalar_one()


def last_published(tx: Connection) -> datetime | None:
    """When something last reached a destination; None before the first."""
    found: datetime | None = tx.execute(_LAST_PUBLISHED).scalar_one()
    return found
