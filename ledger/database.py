"""
The one module that knows which database is underneath.

SQLite's defaults are wrong for money: the driver begins no transaction before a read, so that
two callers can both see the same balance and both spend it (measured: three debits in four
lost). Here every transaction that may write begins IMMEDIATE, every commit is durable, and every
connection gets the same pragmas.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from ledger.errors import (
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageForeign,
    StorageFull,
    StorageReadOnly,
)
from ledger.models import SQLITE_TRIGGERS

# "PENS" in ASCII: file(1) and we ourselves can tell whose database this is.
APPLICATION_ID = 0x50454E53

# Less than this and the next write may fail: the write-ahead log's index alone takes 32 kB.
ROOM_MIN = 65_536

_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    # Makes INSERT OR REPLACE fire the delete trigger.
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
    # NORMAL may lose the last commits at a power cut; FULL costs 0.2 ms here.
    "PRAGMA synchronous = FULL",
)

_ERRORS: dict[int, type[StorageError]] = {
    sqlite3.SQLITE_IOERR: StorageError,
    sqlite3.SQLITE_BUSY: StorageBusy,
    sqlite3.SQLITE_LOCKED: StorageBusy,
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_READONLY: StorageReadOnly,
    sqlite3.SQLITE_CANTOPEN: StorageReadOnly,
    sqlite3.SQLITE_CORRUPT: StorageCorrupt,
    sqlite3.SQLITE_NOTADB: StorageCorrupt,
}
# What its pool cannot close because an interrupt struck there is told with a traceback else.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


class Database:
    """
    Transactions on one database.

    Args:
        url: an SQLAlchemy URL; only file databases of SQLite are supported so far.
        busy_timeout_ms: how long a begin waits, blocking its thread, for another writer. An event
            loop passes 0 and waits on its own.
    Raises:
        ValueError: a URL of another kind.
    """

    def __init__(self, url: str, *, busy_timeout_ms: int = 5000) -> None:
        self.path = sqlite_path(url)
        self._engine = _engine(url, busy_timeout_ms)
        # Open, and used by nobody. A pool's way from one transaction to the next takes longer
        # than most transactions.
        self._idle: list[Connection] = []

    def write(self) -> AbstractContextManager[Connection]:
        """One transaction that may write: begun IMMEDIATE, committed on leaving or rolled back."""
        return self._transaction(immediate=True)

    def read(self) -> AbstractContextManager[Connection]:
        """One transaction that only reads, over one unchanging snapshot."""
        return self._transaction(immediate=False)

    @contextmanager
    def _transaction(self, *, immediate: bool) -> Iterator[Connection]:
        connection: Connection | None = None
        try:
            with translated(self.path):
                connection = self._connected()
                with connection.begin():
                    _begin(connection, immediate=immediate)
                    yield connection
        except StorageError as error:
            # SQLite opens what it may not write for reading; that must not outlast the cause. Else
            # it is kept: on a full disk a new connection could not even read.
            if isinstance(error, StorageReadOnly):
                self.close()
                if connection is not None:
                    connection.close()
            raise
        finally:
            if connection is not None and not connection.closed:
                self._give_back(connection)

    def _connected(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._engine.connect()

    def _give_back(self, connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        if driver is None or driver.in_transaction:
            # Not even rolling back worked, and closing would try it again.
            connection.invalidate()
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close every connection that nobody uses."""
        while self._idle:
            self._idle.pop().close()


def sqlite_path(url: str) -> Path:
    """
    The file an SQLite URL names.

    Raises:
        ValueError: another kind of URL, or SQLite in memory, which keeps no books.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("not a database URL; sqlite:////absolute/path.db is one") from None
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(f"{parsed.get_backend_name()} is not supported yet; use sqlite:///")
    if parsed.database in (None, "", ":memory:"):
        raise ValueError("a database in memory keeps no books; name a file")
    return Path(str(parsed.database))


def create_schema(connection: Connection, metadata: MetaData) -> None:
    """Make every table and trigger afresh; what the migrations must add up to."""
    metadata.create_all(connection)
    for statement in SQLITE_TRIGGERS:
        connection.execute(text(statement))


def file_problems(connection: Connection) -> list[str]:
    """What the database itself finds wrong with its file, in words; empty when sound."""
    # quick_check would not compare the unique indexes, by which a repeated id is recognised.
    damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(3)")]
    if damage != ["ok"]:
        return [f"the database file is damaged: {finding}" for finding in damage]
    dangling = [
        f"row {row[1]} of {row[0]} points at a {row[2]} that is not there"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
    ]
    return dangling + _trigger_problems(connection)


def _trigger_problems(connection: Connection) -> list[str]:
    """Whoever edits the books drops the triggers first, and may forget to put them back."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    found = {name: sql.split() for name, sql in rows}
    expected = {statement.split()[2]: statement.split() for statement in SQLITE_TRIGGERS}
    return [
        f"the trigger {name}, which keeps the books append-only, is missing or was changed"
        for name, words in expected.items()
        if found.get(name) != words
    ]


def is_schema_error(error: DBAPIError) -> bool:
    """Whether a statement names what the tables do not have, or they contradict each other."""
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into ours, keeping the cause."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        kind = _kind(getattr(original, "sqlite_errorcode", None), path)
        # All text we write is UTF-8; the driver has no code for what is not.
        if isinstance(error, UnicodeDecodeError) or "Could not decode to UTF-8" in str(original):
            kind = StorageCorrupt
        if kind is None:
            raise
        raise kind(f"{path}: {original}") from error


def _kind(code: Any, path: Path) -> type[StorageError] | None:
    """Which of our errors a code of SQLite's is; None for those that are a bug of ours."""
    if not isinstance(code, int):
        return None
    # The low byte is the primary code; the rest tells, say, which I/O call failed.
    code &= 0xFF
    # With no room for its log or its shared memory SQLite speaks of I/O, or of a file it cannot
    # open, and means a full disk.
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_full(path.parent):
        return StorageFull
    return _ERRORS.get(code)


def _is_full(folder: Path) -> bool:
    """Whether there is no room for one more file, by bytes or by their number."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < ROOM_MIN or (room.f_files > 0 and room.f_favail == 0)


def _claim(cursor: Any) -> None:
    """Make a new file ours; leave another program's file as it is."""
    (owner,) = cursor.execute("PRAGMA application_id").fetchone()
    if owner == APPLICATION_ID:
        return
    (tables,) = cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner or tables:
        (_, _, file), *_ = cursor.execute("PRAGMA database_list")
        raise StorageForeign(f"{file or 'it'} holds tables, and they are not Penstock's")
    cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _keep_a_log(cursor: Any) -> None:
    """See to the write-ahead log; a crash while the file was made may have come before it."""
    if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        # Fetched to the end: only the step after the answer commits, and may fail.
        cursor.execute("PRAGMA journal_mode = WAL").fetchall()


def _engine(url: str, busy_timeout_ms: int) -> Engine:
    # The metrics' own thread takes what another has left.
    arguments = {"timeout": busy_timeout_ms / 1000, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions of its own; `begin` below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        _claim(cursor)
        _keep_a_log(cursor)
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    return engine


def _begin(connection: Connection, *, immediate: bool) -> None:
    # On the driver's cursor: twice through SQLAlchemy would be a fifth of a hold's time.
    cursor = connection.connection.cursor()
    if connection.info.get("immediate") is not immediate:
        cursor.execute(f"PRAGMA query_only = {'OFF' if immediate else 'ON'}")
        connection.info["immediate"] = immediate
    cursor.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
