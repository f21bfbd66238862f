"""
A copy of the books while they are being written, which counts only once it was opened and checked.

The copy is made in a file of its own beside the place it is for, and takes that place in one step
at the end. Whatever goes wrong before, the backup that was there stays as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from ledger import audit
from ledger.database import APPLICATION_ID, Database, translated
from ledger.errors import (
    BadBackup,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageForeign,
    StorageFull,
    UnsoundBackup,
    storage_error,
)

# One name for each folder: what a killed backup leaves behind is used up by the next.
PART = ".penstock-backup.part"
# What SQLite keeps beside a database.
_SIDECARS = ("-wal", "-shm", "-journal")
_LOCK = ".lock"
_DAMAGE = (StorageCorrupt, StorageForeign)


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was opened and checked: where it is, how many transfers, its size in bytes."""

    path: Path
    transfers: int
    bytes: int


def backup(
    database: Database, path: str | Path, *, at: datetime, verify: Callable[[Connection], None]
) -> Backup:
    """
    Copy a database that may be written meanwhile; the copy can be put in its place as it is.

    It has every transfer that was committed before the call. A backup made earlier under the same
    name is replaced in one step, once the new one is sound.

    Args:
        path: a file, or a folder for a file named after the time. A slash at the end is a folder.
        at: the time for that name.
        verify: what else must hold of the copy; raises where it does not.
    Raises:
        BadBackup: `path` is no place for it. Nothing was changed.
        UnsoundBackup: the books, or the copy of them, are wrong; the copy was removed.
        StorageFull, StorageBusy, StorageError: the copy could not be made, and was removed.
        OSError: the new backup is in its place, but its folder could not be flushed.
    """
    with _told(Path(path)):
        target = _target(os.fspath(path), at)
        _refuse_live(target, database.path.resolve())
        _refuse_other(target)
    part = target.with_name(PART)
    with _told(target), _empty(part) as descriptor:
        _copy(database.path, part)
        os.fsync(descriptor)
        # Forgotten in memory, so that what is checked is what the disk has.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        transfers = _checked(part, verify)
        size = os.fstat(descriptor).st_size
        part.rename(target)
    _flush(target.parent)
    return Backup(target, transfers, size)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn every error of the system and of the driver into ours."""
    try:
        with translated(path):
            yield
    except OSError as error:
        kind = StorageFull if storage_error(error) is StorageFull else BadBackup
        raise kind(f"{path}: {error.strerror}") from error


def _target(name: str, at: datetime) -> Path:
    """The file to be made; a link is followed, so that it stays one."""
    try:
        target = Path(name).resolve()
    except RuntimeError as error:
        raise BadBackup(str(error)) from error
    if target.is_dir() and name:
        return target / f"penstock-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}.db"
    # A folder that is not there is often a disk that is not mounted.
    folder = target if name.endswith("/") else target.parent
    if not name or not folder.is_dir():
        raise BadBackup(f"{name!r}: there is no such folder")
    return target


def _refuse_live(target: Path, live: Path) -> None:
    for own in (live.with_name(f"{live.name}{suffix}") for suffix in ("", *_SIDECARS, _LOCK)):
        if target == own or (target.exists() and own.exists() and target.samefile(own)):
            raise BadBackup(f"{target} belongs to the live database")


def _refuse_other(target: Path) -> None:
    """Replace nothing but a backup."""
    for suffix in (*_SIDECARS, _LOCK):
        beside = target.with_name(f"{target.name}{suffix}")
        # SQLite would replay a stranger's log into the copy.
        if beside.exists():
            raise BadBackup(f"{beside} shows that {target.name} is, or was, a database in use")
    try:
        kind = target.stat().st_mode
    except FileNotFoundError:
        return
    # Asked before it is opened: a named pipe would keep the opener waiting.
    if not stat.S_ISREG(kind):
        raise BadBackup(f"{target} is there and is no file")
    with target.open("rb") as file:
        header = file.read(100)
    owner = int.from_bytes(header[68:72], "big")
    if not header.startswith(b"SQLite format 3\0") or owner != APPLICATION_ID:
        raise BadBackup(f"{target} is there and is no backup of Penstock's")


@contextmanager
def _empty(part: Path) -> Iterator[int]:
    """
    An empty file for its owner alone, locked, as a descriptor; removed on every failure.

    Another backup into the same folder waits. What a killed one left is used up.
    """
    descriptor = _locked(part)
    try:
        # Beside an empty file SQLite removes the log that a killed backup left.
        os.ftruncate(descriptor, 0)
        yield descriptor
    except BaseException:
        for suffix in ("", *_SIDECARS):
            part.with_name(f"{part.name}{suffix}").unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _locked(part: Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever had it may have finished meanwhile: then this very file is a backup by now.
            if part.exists() and os.path.samestat(part.stat(), os.fstat(descriptor)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _copy(source: Path, part: Path) -> None:
    """All pages of one moment. Writers go on; only the log cannot be emptied meanwhile."""

    def refuse_to_wait(status: int, _remaining: int, _total: int) -> None:
        # The database was given the usual time; the driver would ask again for ever.
        if status & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageBusy(f"{source} is locked")

    address = f"file:{quote(str(source))}?mode=rw"
    with (
        closing(sqlite3.connect(address, uri=True)) as live,
        closing(sqlite3.connect(part)) as copy,
    ):
        # In one step: a copy in several begins again whenever somebody writes.
        live.backup(copy, progress=refuse_to_wait)


def _checked(part: Path, verify: Callable[[Connection], None]) -> int:
    """Open the copy as a process would that has it in place; returns its transfers."""
    url = URL.create("sqlite", database=str(part)).render_as_string()
    copy = Database(url)
    try:
        with copy.read() as tx:
            verify(tx)
            report = audit.check(tx)
    except Exception as error:
        # A disk that is full, or a schema of another version, says nothing about the books.
        if isinstance(error, StorageError) and not isinstance(error, _DAMAGE):
            raise
        told = error.args[0] if isinstance(error, (StorageError, DBAPIError)) else error
        raise UnsoundBackup([f"it cannot be read: {told}"]) from error
    finally:
        copy.close()
    if not report.ok:
        raise UnsoundBackup(report.problems)
    return report.transfers


def _flush(folder: Path) -> None:
    """The new name is durable only when its folder was flushed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Network shares and FUSE may have no such thing.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
