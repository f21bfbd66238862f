"""A fresh book in a real file, and the few words the ledger's tests share."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

from sqlalchemy import Connection, MetaData
from sqlmodel import SQLModel

from daemon import journal
from ledger import audit, store
from ledger.database import Database, create_schema
from ledger.errors import InsufficientFunds
from ledger.models import Account, AccountHour, OpenHold, Transfer
from ledger.money import MicroCredits

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MODEL = "inference:openrouter"
NO_LIMITS = store.Limits()


def cr(text: str) -> MicroCredits:
    return MicroCredits.parse(text)


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def open_run(tx: Connection, id: str, at: datetime, *, tier: str = "standard") -> None:
    """An article's run that has just begun."""
    journal.open_run(
        tx, id=id, slot=None, tier=tier, kind=journal.ARTICLE, topic=None, budget_micro=1, at=at
    )


def open_book(path: Path, *, busy_timeout_ms: int = 30_000) -> Database:
    return Database(f"sqlite:///{path}", busy_timeout_ms=busy_timeout_ms)


@contextmanager
def new_book(path: Path, *, grant: str | None = None) -> Iterator[Database]:
    """A file with the ledger's tables only, and perhaps a first deposit."""
    book = open_book(path)
    try:
        with book.write() as tx:
            create_schema(tx, ledger_metadata())
            if grant is not None:
                store.deposit(tx, amount=cr(grant), ref="grant", at=NOON)
        yield book
    finally:
        book.close()


@contextmanager
def whole_book(path: Path, *, busy_timeout_ms: int = 30_000) -> Iterator[Database]:
    """A file with every table of the program."""
    # Only those who need it pay for what it imports: the ledger's own processes are many.
    from daemon import migrations

    with closing(open_book(path, busy_timeout_ms=busy_timeout_ms)) as book:
        with book.write() as tx:
            create_schema(tx, migrations.register_tables())
        yield book


def ledger_metadata() -> MetaData:
    metadata = MetaData()
    for table in (Account, Transfer, OpenHold, AccountHour):
        SQLModel.metadata.tables[str(table.__tablename__)].to_metadata(metadata)
    return metadata


def checked(book: Database) -> audit.Report:
    with book.read() as tx:
        return audit.check(tx)


def balance(book: Database) -> tuple[str, str, str]:
    """Posted, held and available, as a report prints them."""
    with book.read() as tx:
        now = store.balance(tx)
    return str(now.posted), str(now.held), str(now.available)


@dataclass(frozen=True)
class Attempt:
    """What became of one caller's hold: `held`, `refused`, or the error nobody expected."""

    id: str
    outcome: str


def try_hold(book: Database, id: str, amount: str) -> Attempt:
    """One caller: one transaction, one hold."""
    try:
        with book.write() as tx:
            store.hold(tx, id=id, account=MODEL, amount=cr(amount), at=NOON, limits=NO_LIMITS)
    except InsufficientFunds:
        return Attempt(id, "refused")
    except Exception as error:
        return Attempt(id, repr(error))
    return Attempt(id, "held")


def race(
    book: Database, ids: list[str], amount: str, start: Barrier | None = None
) -> list[Attempt]:
    """As many threads as ids, all let go at once."""
    together = threading.Barrier(len(ids))

    def call(id: str) -> Attempt:
        together.wait()
        return try_hold(book, id, amount)

    if start is not None:
        start.wait()
    with ThreadPoolExecutor(len(ids)) as pool:
        return list(pool.map(call, ids))


_start: Barrier


def take_barrier(barrier: Barrier) -> None:
    """Initialise a worker process with the line at which all of them wait."""
    global _start
    _start = barrier


def race_in_process(path: Path, ids: list[str], amount: str) -> list[Attempt]:
    """A process of its own, with its own connections, whose threads race the other processes'."""
    book = open_book(path)
    try:
        return race(book, ids, amount, _start)
    finally:
        book.close()


def tamper(path: Path, *statements: str) -> None:
    """Edit the file as somebody with `sqlite3` and bad intentions would, no trigger in the way."""
    with closing(sqlite3.connect(path)) as file, file:
        triggers = file.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            file.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            changed = file.execute(statement).rowcount
            assert changed != 0, f"nothing to tamper with: {statement}"
        for _, sql in triggers:
            file.execute(sql)
