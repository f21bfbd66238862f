"""
The database, looked at so that not even SQLite changes anything.

Opened as usual, SQLite makes a log and its index beside a database, and the last one to close it
copies the log back. So a database that nobody has open is read as a file that cannot change; one
that is in use, or whose user was killed, through the log's index as it stands (SQLite's `immutable`
and `readonly_shm`, sqlite.org/uri.html and sqlite.org/wal.html#read_only_databases).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from daemon import alerts, control, journal, look, migrations
from daemon.doctor.findings import Finding, Findings, State, fail, looked, ok, skipped, warn
from daemon.doctor.patient import UNREADABLE, Patient
from daemon.doctor.storage import NOWHERE, in_words
from daemon.inference import attempts
from daemon.inference.ladder import Tier
from daemon.inference.prices import UnknownPrice
from ledger import audit, store
from ledger.database import APPLICATION_ID, sqlite_path, translated
from ledger.errors import SchemaTooNew, SchemaTooOld, StorageCorrupt, StorageError
from ledger.types import to_text

_HEADER = b"SQLite format 3\0"
_HEADER_BYTES = 100
# The file format's write and read version of a database with a write-ahead log.
_WITH_LOG = b"\x02\x02"
_AHEAD = timedelta(seconds=60)
_DATED = (("transfer", "at"), ("run", "started_at"), ("publication", "intended_at"))
INTERVALS_MAX = 3
_LOOKS_MAX = 3

Look: TypeAlias = Callable[[Connection, Patient], Findings]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One thing to ask an open database."""

    check: str
    look: Look


def database(patient: Patient) -> Findings:
    """Everything about the books, in one snapshot."""
    if patient.location is None:
        return _rest(NOWHERE)
    path = sqlite_path(patient.location.database_url)
    if not path.exists():
        found = skipped("database", f"there is none yet at {path}", "`penstock init` makes it")
        return [found, *_rest("there is no database yet")]
    problem, notes = _header(path)
    if problem is not None:
        return [problem, *_rest("the database cannot be read")]
    return [*notes, *_read(path, patient)]


def _header(path: Path) -> tuple[Finding | None, Findings]:
    """What the first bytes say: what keeps it from being opened, and what to know otherwise."""
    if not path.is_file():
        return fail("database", f"{path} is no file", "look at PENSTOCK_DATABASE_URL"), []
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return fail("database", f"{path} is empty", "`penstock init` fills it"), []
    if not header.startswith(_HEADER):
        return fail("books", f"{path} is no SQLite database", StorageCorrupt.remedy), []
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        remedy = "name another file in PENSTOCK_DATABASE_URL, or another PENSTOCK_STATE_DIR"
        return fail("database", f"{path} is another program's database", remedy), []
    size = path.stat().st_size
    notes = [ok("database", f"{path}, {size / 1e6:.1f} MB")]
    if header[18:20] != _WITH_LOG:
        said = f"{path} has no write-ahead log"
        notes = [warn("database", said, "any `penstock` command that writes switches it on")]
    return None, notes


def _read(path: Path, patient: Patient) -> Findings:
    """Ask it everything, and again where somebody changed the file meanwhile."""
    found: Findings = []
    for _ in range(_LOOKS_MAX):
        before = _state(path)
        found = _read_once(path, patient)
        if _state(path) == before:
            break
    return found


def _read_once(path: Path, patient: Patient) -> Findings:
    if _log(path).exists() and _log(path).stat().st_size and not _index(path).exists():
        remedy = "`penstock ledger check` puts that right"
        said = f"{_log(path).name} is there without {_index(path).name}, as after copying files"
        return [warn("database", said, remedy), *_rest("nothing can be read without changing it")]
    try:
        with snapshot(path) as tx:
            found = list(_schema(tx))
            if found[0].state is State.OK:
                for asked in _ASKED:
                    found += looked(asked.check, partial(_told, path, asked, tx, patient))
                # Of a damaged file each tells the same.
                return list(dict.fromkeys(found))
            return [*found, *_rest("this version cannot read that schema", "schema")]
    except StorageError as error:
        return [_storage(error), *_rest("the database cannot be read")]


def _told(path: Path, asked: _Asked, tx: Connection, patient: Patient) -> Findings:
    """One answer, with what the driver raises in our words."""
    try:
        with translated(path):
            return asked.look(tx, patient)
    except StorageError as error:
        return [_storage(error)]


def _storage(error: StorageError) -> Finding:
    check = "books" if isinstance(error, StorageCorrupt) else "database"
    return fail(check, str(error.args[0]), error.remedy)


@contextmanager
def snapshot(path: Path) -> Iterator[Connection]:
    """
    One unchanging state of a database; nothing beside it or in it is changed.

    Raises:
        StorageError: it cannot be opened or read.
    """
    manner = "mode=ro&readonly_shm=1" if _in_use(path) else "immutable=1"

    def connected() -> sqlite3.Connection:
        address = f"file:{quote(str(path))}?{manner}"
        return sqlite3.connect(address, uri=True, isolation_level=None)

    engine = create_engine("sqlite://", creator=connected, poolclass=NullPool)
    with translated(path), engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("PRAGMA trusted_schema = OFF")
        connection.exec_driver_sql("BEGIN")
        yield connection
        connection.exec_driver_sql("ROLLBACK")


def _in_use(path: Path) -> bool:
    """Whether somebody has it open, or was killed while they had."""
    return _log(path).exists() and _index(path).exists()


def _state(path: Path) -> tuple[int, int, bool]:
    kept = path.stat()
    return kept.st_size, kept.st_mtime_ns, _in_use(path)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def _schema(tx: Connection) -> Findings:
    migrations.register_tables()
    try:
        migrations.require_current(tx)
    except SchemaTooNew as error:
        return [fail("schema", str(error.args[0]), error.remedy)]
    except SchemaTooOld as error:
        remedy = "the next `penstock once`, or `penstock init`, brings it up to date"
        return [warn("schema", str(error.args[0]), remedy)]
    return [ok("schema", f"revision {migrations.HEAD}, which this version reads")]


def _books(tx: Connection, patient: Patient) -> Findings:
    report = audit.check(tx)
    remedy = "stop, and follow docs/restore.md; `penstock ledger check` says the same"
    if not report.ok:
        return [fail("books", problem, remedy) for problem in report.problems]
    return [ok("books", f"they balance: {report.transfers} transfers, {report.accounts} accounts")]


def _ahead(tx: Connection, patient: Patient) -> Findings:
    """Rows of a time that has not come: somebody's clock was wrong."""
    until = to_text(patient.at + _AHEAD)
    found = []
    for table, column in _DATED:
        row = tx.execute(
            text(f"SELECT count(*), max({column}) FROM {table} WHERE {column} > :until"),  # noqa: S608
            {"until": until},
        ).one()
        if row[0]:
            found.append(f"{row[0]} of {table}, up to {row[1]}")
    if not found:
        return [ok("future_rows", "nothing in the books is dated in the future")]
    remedy = "look at the clock; caps count them as now until then, and nothing else is needed"
    return [warn("future_rows", f"dated in the future: {'; '.join(found)}", remedy)]


def _pace(tx: Connection, patient: Patient) -> Findings:
    if patient.settings is None:
        return [skipped("pace", UNREADABLE)]
    available = store.balance(tx).available
    try:
        pace = look.look(tx, patient.settings, patient.at).pace
    except UnknownPrice:
        return [skipped("pace", "a model has no price (see settings)")]
    said = f"{pace.tier}, with {available} available: {pace.reason}"
    if patient.settings.paid and pace.tier is Tier.DORMANT:
        remedy = "`penstock ledger deposit AMOUNT --ref REF` says what was prepaid at the provider"
        return [warn("pace", said, remedy)]
    return [ok("pace", said)]


def _pause(tx: Connection, patient: Patient) -> Findings:
    reason = control.paused(tx)
    if reason is None:
        return [ok("pause", "it is not paused")]
    return [warn("pause", f"it is paused: {reason}", "`penstock resume` lifts it")]


def _alerts(tx: Connection, patient: Patient) -> Findings:
    standing = alerts.standing(tx, patient.at)
    if not standing:
        return [ok("alerts", "no alert stands")]
    # Their words have the remedy.
    return [warn("alerts", *_split(row.message)) for row in standing]


def _split(message: str) -> tuple[str, str]:
    said, _, remedy = message.rpartition("; ")
    return (said, remedy) if said else (message, "`penstock status` has more")


def _unconfirmed(tx: Connection, patient: Patient) -> Findings:
    found = []
    if count := journal.unconfirmed(tx):
        found.append(f"{count} publication(s) may be live without our knowing")
    if holds := len(attempts.unknown_open(tx)):
        found.append(f"{holds} request(s) may have been billed, and stay held")
    if not found:
        return [ok("unconfirmed", "nothing is unconfirmed")]
    return [warn("unconfirmed", said, "`penstock reconcile` finds out") for said in found]


def _drafts(tx: Connection, patient: Patient) -> Findings:
    if count := journal.waiting_drafts(tx):
        return [
            warn("drafts", f"{count} draft(s) wait for a person", "`penstock drafts list`"),
        ]
    return [ok("drafts", "no draft waits")]


def _last_article(tx: Connection, patient: Patient) -> Findings:
    """Whether articles come out as the schedule would have it."""
    check, chosen = "last_article", patient.settings
    if chosen is None:
        return [skipped(check, UNREADABLE)]
    first = tx.execute(text("SELECT min(started_at) FROM run")).scalar_one()
    last = tx.execute(
        text("SELECT max(published_at) FROM publication WHERE state IN ('published', 'withdrawn')")
    ).scalar_one()
    a_day = chosen.schedule.runs_per_day(patient.at)
    if first is None:
        return [skipped(check, "there was no run yet")]
    if not a_day:
        return [skipped(check, "PENSTOCK_MAX_POSTS_PER_DAY is 0, so that none is published")]
    age = patient.at - datetime.fromisoformat(last or first)
    said = f"the last article came out {in_words(age)} ago"
    if last is None:
        said = f"no article has come out, {in_words(age)} after the first run"
    said += f"; the schedule has one every {in_words(timedelta(days=1 / a_day))}"
    if age > INTERVALS_MAX * timedelta(days=1 / a_day):
        remedy = "`penstock runs list` says what became of the runs, `penstock status` what is next"
        return [warn(check, said, remedy)]
    return [ok(check, said)]


_ASKED: Sequence[_Asked] = (
    _Asked("books", _books),
    _Asked("future_rows", _ahead),
    _Asked("pace", _pace),
    _Asked("pause", _pause),
    _Asked("alerts", _alerts),
    _Asked("unconfirmed", _unconfirmed),
    _Asked("drafts", _drafts),
    _Asked("last_article", _last_article),
)


def _rest(reason: str, *but: str) -> Findings:
    """Everything that would have been asked, skipped for one reason."""
    names = ("schema", *(asked.check for asked in _ASKED))
    return [skipped(name, reason) for name in names if name not in but]
