"""A backup is made while others write, counts only once it is checked, and is put back as it is."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, text

from daemon import migrations
from ledger import audit, store
from ledger.backup import PART, Backup, backup
from ledger.database import APPLICATION_ID, Database
from ledger.errors import (
    BadBackup,
    LedgerError,
    SchemaTooOld,
    StorageBusy,
    StorageError,
    StorageFull,
    UnsoundBackup,
)
from tests.cli_helpers import Desk, mounting
from tests.ledger_helpers import NOON, checked, cr, new_book, open_book, tamper

ROOT = Path(__file__).parents[1]
NIGHT = datetime(2026, 11, 21, 3, 15, tzinfo=UTC)
# Its server imports everything once, so that a process costs a fork.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "state").mkdir()
    (tmp_path / "backups").mkdir()
    with new_book(tmp_path / "state" / "penstock.db", grant="100") as database:
        yield database


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "backups" / "nightly.db"


def fine(_tx: Connection) -> None:
    """No further condition."""


def back_up(book: Database, path: Path | str) -> Backup:
    return backup(book, path, at=NIGHT, verify=fine)


def deposit(book: Database, ref: str) -> None:
    with book.write() as tx:
        store.deposit(tx, amount=cr("1"), ref=ref, at=NOON)


def chain(path: Path) -> list[tuple[Any, ...]]:
    """Every transfer of a file, whole, in the order of the books."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM transfer ORDER BY seq").fetchall()


def sound(path: Path) -> audit.Report:
    """The report on a file of its own."""
    copy = open_book(path)
    try:
        return checked(copy)
    finally:
        copy.close()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# What it makes


def test_a_backup_has_all_that_was_booked_and_is_its_owners_alone(
    book: Database, place: Path
) -> None:
    deposit(book, "second")
    made = back_up(book, place)
    assert made == Backup(place, 2, place.stat().st_size)
    assert chain(place) == chain(book.path)
    assert sound(place).ok
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert names(place.parent) == ["nightly.db"]


def test_a_backup_can_be_put_in_place_as_it_is(book: Database, place: Path) -> None:
    back_up(book, place)
    header = place.read_bytes()[:100]
    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
    assert header[18:20] == b"\2\2", "it is in WAL mode"
    restored = open_book(place)
    deposit(restored, "after the restore")
    restored.close()
    assert sound(place).transfers == 2


def test_what_stands_in_the_log_only_is_in_the_backup(book: Database, place: Path) -> None:
    with book.read() as tx:  # A reader, so that the log cannot be copied back.
        tx.execute(text("SELECT * FROM transfer")).all()
        deposit(book, "in the log")
        assert book.path.with_name("penstock.db-wal").stat().st_size > 0
        assert back_up(book, place).transfers == 2


def test_a_folder_gets_a_file_named_after_the_time_in_utc(book: Database, place: Path) -> None:
    # The same moment, as another place has it.
    elsewhere = NIGHT.astimezone(timezone(timedelta(hours=-5)))
    for folder in (place.parent, f"{place.parent}/"):
        made = backup(book, folder, at=elsewhere, verify=fine)
        assert made.path == place.with_name("penstock-20261121T031500Z.db")
    assert names(place.parent) == ["penstock-20261121T031500Z.db"]


def test_a_nightly_backup_may_keep_its_name(book: Database, place: Path) -> None:
    assert back_up(book, place).transfers == 1
    deposit(book, "second")
    assert back_up(book, place).transfers == 2
    assert names(place.parent) == ["nightly.db"]


def test_a_link_is_followed_and_stays_a_link(book: Database, place: Path) -> None:
    link = place.with_name("latest.db")
    link.symlink_to(place)
    assert back_up(book, link).path == place
    deposit(book, "second")
    assert back_up(book, link).transfers == 2
    assert link.is_symlink()
    assert sound(place).transfers == 2


def test_names_may_have_any_character(tmp_path: Path) -> None:
    folder, name = tmp_path / "50% off? #1 ä", "a b?c=1&%41.db"
    folder.mkdir()
    live = Database(
        URL.create("sqlite", database=str(tmp_path / f"live {name}")).render_as_string()
    )
    migrations.upgrade(live)
    deposit(live, "first")
    assert back_up(live, folder / name).transfers == 1
    live.close()
    assert names(folder) == [name]


def test_a_share_that_flushes_no_folder_takes_a_backup(
    book: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    made = backup(book, tmp_path / "copy.db", at=NIGHT, verify=fine)
    assert made.path.is_file()


def test_a_copy_is_flushed_before_it_is_named_and_its_name_afterwards(
    book: Database, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flush(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        happened.append("flush the folder" if folder else "flush the copy")
        fsync(descriptor)

    def name(path: Path, target: Path) -> Path:
        happened.append("name it")
        return rename(path, target)

    def verify(_tx: Connection) -> None:
        happened.append("check it")

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "rename", name)
    backup(book, place, at=NIGHT, verify=verify)
    assert happened == ["flush the copy", "check it", "name it", "flush the folder"]


# While others write


def test_a_backup_beside_writers_at_full_speed_is_a_whole_beginning_of_the_books(
    book: Database, place: Path
) -> None:
    stop = threading.Event()

    def write(name: str) -> None:
        mine = open_book(book.path)
        for number in count():
            if stop.is_set():
                break
            deposit(mine, f"{name}/{number}")
        mine.close()

    done = FORKS.Event()
    other = FORKS.Process(target=write_in_process, args=(book.path, done))
    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(2)]
    other.start()
    for thread in threads:
        thread.start()
    copies = []
    try:
        wait_for(book, "process/0")
        for number in range(5):
            before = len(chain(book.path))
            copies.append((before, back_up(book, place.with_name(f"{number}.db"))))
    finally:
        stop.set()
        done.set()
        for thread in threads:
            thread.join()
        other.join(60)
    assert other.exitcode == 0
    live = chain(book.path)
    assert checked(book).ok
    for before, copy in copies:
        assert before <= copy.transfers <= len(live)
        assert chain(copy.path) == live[: copy.transfers]
        assert sound(copy.path).ok
    assert copies[0][1].transfers < copies[-1][1].transfers, "nobody wrote meanwhile"


def write_in_process(path: Path, done: Any) -> None:
    mine = open_book(path)
    for number in count():
        if done.is_set():
            break
        deposit(mine, f"process/{number}")
    mine.close()


def wait_for(book: Database, ref: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with book.read() as tx:
            if tx.execute(text("SELECT 1 FROM transfer WHERE ref = :ref"), {"ref": ref}).first():
                return
        time.sleep(0.01)
    raise AssertionError("the other process never wrote")


def test_a_writer_need_not_wait_for_a_backup(book: Database, place: Path) -> None:
    impatient = open_book(book.path, busy_timeout_ms=0)

    def verify(_tx: Connection) -> None:
        deposit(impatient, "meanwhile")

    made = backup(book, place, at=NIGHT, verify=verify)
    impatient.close()
    assert (made.transfers, checked(book).transfers) == (1, 2)


def test_backups_into_one_folder_wait_for_each_other(book: Database, place: Path) -> None:
    made: list[Backup] = []
    threads = [threading.Thread(target=lambda: made.append(back_up(book, place))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [copy.transfers for copy in made] == [1] * 4
    assert names(place.parent) == ["nightly.db"]
    assert sound(place).ok


def test_a_database_that_is_locked_for_good_is_an_error_and_no_endless_wait(
    book: Database, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect: Any = sqlite3.connect

    def at_once(*args: Any, **kwargs: Any) -> Any:
        return connect(*args, **kwargs | {"timeout": 0})

    book.close()
    with closing(sqlite3.connect(book.path)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite3, "connect", at_once)
        with pytest.raises(StorageBusy):
            back_up(book, place)
        holder.rollback()
    assert names(place.parent) == []


# What it refuses


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock"])
@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "linked folder"])
def test_the_live_database_is_no_place_for_its_backup(
    book: Database, place: Path, suffix: str, how: str
) -> None:
    live = book.path.with_name(f"{book.path.name}{suffix}")
    if how in ("hard link", "symbolic link"):
        live.touch()
    before = live.read_bytes() if live.exists() else None
    match how:
        case "itself":
            path = live
        case "symbolic link":
            path = place
            path.symlink_to(live)
        case "hard link":
            path = place
            path.hardlink_to(live)
        case _:
            place.symlink_to(live.parent)
            path = place / live.name
    with pytest.raises(BadBackup, match="belongs to the live database"):
        back_up(book, path)
    assert before is None or live.read_bytes() == before
    assert PART not in names(book.path.parent) + names(place.parent)


def test_the_live_database_is_known_by_the_link_it_is_opened_by(
    book: Database, place: Path
) -> None:
    link = place.with_name("link.db")
    link.symlink_to(book.path)
    opened = open_book(link)
    try:
        for path in (link, book.path):
            with pytest.raises(BadBackup, match="belongs to the live database"):
                back_up(opened, path)
        assert back_up(opened, place).transfers == 1
    finally:
        opened.close()


FOREIGN = {
    "text": b"my only copy of the novel",
    "empty": b"",
    "another program's database": b"SQLite format 3\0" + bytes(84),
    "our number and nothing else": bytes(68) + APPLICATION_ID.to_bytes(4, "big") + bytes(28),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_backup_is_not_replaced(
    book: Database, place: Path, content: bytes
) -> None:
    place.write_bytes(content)
    with pytest.raises(BadBackup, match="no backup of Penstock's"):
        back_up(book, place)
    assert place.read_bytes() == content
    assert names(place.parent) == ["nightly.db"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock"])
def test_a_database_that_others_use_is_not_replaced(
    book: Database, place: Path, suffix: str
) -> None:
    # Their log would be replayed into the copy.
    back_up(book, place)
    beside = place.with_name(f"nightly.db{suffix}")
    for other in (True, False):
        beside.touch()
        with pytest.raises(BadBackup, match="in use"):
            back_up(book, place)
        if other:
            place.unlink()


def test_a_pipe_or_a_device_is_no_place_for_a_backup(book: Database, place: Path) -> None:
    os.mkfifo(place)
    for path in (place, "/dev/null"):
        with pytest.raises(BadBackup, match="no file"):
            back_up(book, path)
    assert stat.S_ISFIFO(place.stat().st_mode)


@pytest.mark.parametrize("path", ["", "gone/nightly.db", "gone/", "here.db/nightly.db", "loop/x"])
def test_a_folder_that_is_not_there_is_said_and_not_made(
    book: Database, place: Path, path: str
) -> None:
    place.with_name("here.db").write_bytes(b"x")
    place.with_name("loop").symlink_to("loop")
    with pytest.raises(BadBackup, match=r"no such folder|[Ss]ymlink loop"):
        back_up(book, f"{place.parent}/{path}" if path else "")
    assert names(place.parent) == ["here.db", "loop"]


def test_a_name_that_is_too_long_is_said(book: Database, place: Path) -> None:
    with pytest.raises(BadBackup, match="too long"):
        back_up(book, place.with_name("x" * 300))
    assert names(place.parent) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_is_said(
    book: Database, place: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the system call, since nothing is forbidden to root.
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith(PART):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    expected = StorageFull if code in (errno.ENOSPC, errno.EDQUOT) else BadBackup
    with pytest.raises(expected, match=os.strerror(code)):
        back_up(book, place)
    assert names(place.parent) == []


def test_a_backup_that_cannot_be_read_is_not_replaced(
    book: Database, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(book, place)
    before = place.read_bytes()
    real = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == place:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(BadBackup, match="Permission denied"):
            back_up(book, place)
    assert place.read_bytes() == before


def test_what_is_refused_says_what_to_do(book: Database) -> None:
    with pytest.raises(BadBackup) as caught:
        back_up(book, book.path)
    assert "name a new file" in str(caught.value)


# What is wrong with the books


def test_books_that_do_not_balance_leave_no_backup_and_keep_the_last(
    book: Database, place: Path
) -> None:
    back_up(book, place)
    before = place.read_bytes()
    tamper(book.path, "UPDATE transfer SET amount_micro = 7 WHERE seq = 1")
    with pytest.raises(UnsoundBackup, match=r"transfer 1 .* was changed") as caught:
        back_up(book, place)
    assert caught.value.problems
    assert "ledger check" in str(caught.value)
    assert place.read_bytes() == before
    assert names(place.parent) == ["nightly.db"]


def test_what_else_must_hold_is_asked_of_the_copy(book: Database, place: Path) -> None:
    asked: list[str] = []

    def refuse(tx: Connection) -> None:
        asked.append(tx.exec_driver_sql("PRAGMA database_list").one()[2])
        raise SchemaTooOld("the copy is not what it should be")

    with pytest.raises(SchemaTooOld, match="not what it should be"):
        backup(book, place, at=NIGHT, verify=refuse)
    assert asked == [str(place.with_name(PART))]
    assert names(place.parent) == []


def test_a_damaged_file_never_becomes_a_backup(book: Database, place: Path, tmp_path: Path) -> None:
    for number in range(150):
        deposit(book, f"deposit {number}")
    back_up(book, place)
    book.close()
    before, whole = place.read_bytes(), book.path.read_bytes()
    damaged = open_book(tmp_path / "state" / "damaged.db")
    chance = random.Random(11)
    found = 0
    for trial in range(60):
        content = bytearray(whole)
        for _ in range(1 + trial % 40):
            # Where rows and indexes are; the first hundred bytes are the next test's.
            at = chance.randrange(100, len(content))
            content[at] ^= 1 << chance.randrange(8)
        damaged.path.write_bytes(content)
        try:
            back_up(damaged, place)
        except UnsoundBackup:
            found += 1
            assert place.read_bytes() == before
        else:
            # The damage was where nothing is kept.
            assert chain(place) == chain(book.path)
            place.write_bytes(before)
        assert names(place.parent) == ["nightly.db"]
    assert found > 30


@pytest.mark.parametrize("at", [0, 16, 18, 28, 40, 44, 56, 68])
def test_a_damaged_header_never_becomes_a_backup(
    book: Database, place: Path, tmp_path: Path, at: int
) -> None:
    book.close()
    content = bytearray(book.path.read_bytes())
    content[at : at + 2] = b"\x7f\x7f"
    damaged = open_book(tmp_path / "state" / "damaged.db")
    damaged.path.write_bytes(content)
    try:
        back_up(damaged, place)
    except LedgerError:
        assert names(place.parent) == []
    else:
        assert chain(place) == chain(book.path)
        assert sound(place).ok


def test_a_file_cut_short_never_becomes_a_backup(
    book: Database, place: Path, tmp_path: Path
) -> None:
    book.close()
    whole = book.path.read_bytes()
    damaged = open_book(tmp_path / "state" / "damaged.db")
    for size in (0, 50, 4096, 4096 * 3 + 17, len(whole) // 2):
        damaged.path.write_bytes(whole[:size])
        with pytest.raises(LedgerError):
            back_up(damaged, place)
        assert names(place.parent) == []


# When the disk is full, or the process is killed


def test_a_full_disk_keeps_the_last_backup_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = mounting(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)])
    program = f"from tests.test_backup import *; fill_a_disk(Path({str(tmp_path)!r}))"
    subprocess.run([*small, sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def fill_a_disk(home: Path) -> None:
    """At any size of what is left, a backup is made whole or not at all."""
    place, filler = home / "disk" / "nightly.db", home / "disk" / "filler"
    with new_book(home / "penstock.db", grant="100") as book:
        with book.write() as tx:
            for number in range(500):
                store.deposit(tx, amount=cr("1"), ref=f"deposit {number}", at=NOON)
        first = back_up(book, place)
        before, outcomes = place.read_bytes(), []
        deposit(book, "one more")
        for left in (
            0,
            4096,
            40_960,
            first.bytes - 8192,
            first.bytes + 4096,
            first.bytes + 200_000,
        ):
            free = os.statvfs(place.parent).f_bavail * 4096
            filler.write_bytes(bytes(max(free - left, 0)))
            try:
                back_up(book, place)
                outcomes.append("made")
                before = place.read_bytes()
            except StorageFull as error:
                outcomes.append(error.remedy)
            assert place.read_bytes() == before
            filler.unlink()
            assert names(place.parent) == ["nightly.db"]
        assert outcomes == [StorageFull.remedy] * 5 + ["made"]
        assert sound(place).transfers == 502


def test_a_limit_on_the_size_of_files_keeps_the_last_backup_and_nothing_else(
    book: Database, place: Path
) -> None:
    back_up(book, place)
    before = place.read_bytes()
    limited = FORKS.Process(target=back_up_limited, args=(book.path, place, len(before) // 2))
    limited.start()
    limited.join(60)
    assert limited.exitcode == 0
    assert place.read_bytes() == before
    assert names(place.parent) == ["nightly.db"]


def back_up_limited(source: Path, place: Path, size_max: int) -> None:
    book = open_book(source)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_max, size_max))
    with pytest.raises(StorageError, match="disk"):
        back_up(book, place)
    book.close()


def test_a_backup_killed_at_any_moment_leaves_the_old_one_or_the_new(
    book: Database, place: Path
) -> None:
    with book.write() as tx:
        for number in range(1500):
            store.deposit(tx, amount=cr("1"), ref=f"deposit {number}", at=NOON)
    back_up(book, place)
    chance = random.Random(5)
    took, kills, number = 60.0, 0, 0
    seen: set[str] = set()
    # A machine that is busy with other things may end several before their moment comes.
    while kills < 12 or PART not in seen:
        number += 1
        assert number <= 120, f"{kills} kills, {seen}"
        old = checked(book).transfers
        deposit(book, f"night {number}")
        ours, theirs = FORKS.Pipe(duplex=False)
        victim = FORKS.Process(target=back_up_and_tell, args=(book.path, place, theirs))
        victim.start()
        theirs.close()
        assert ours.poll(60)
        ours.recv()  # It begins now.
        started = time.monotonic()
        victim.join(chance.uniform(0, took * 1.1) if number > 1 else 60)
        victim.kill()
        victim.join(60)
        ours.close()
        if victim.exitcode == -signal.SIGKILL:
            kills += 1
        else:
            took = min(took, time.monotonic() - started)
        seen |= set(names(place.parent))
        with closing(sqlite3.connect(f"file:{place}?immutable=1", uri=True)) as db:
            (transfers,) = db.execute("SELECT count(*) FROM transfer").fetchone()
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert transfers in range(1501, old + 2)
    # The next one clears away what they left, and the books never noticed.
    assert back_up(book, place).transfers == checked(book).transfers
    assert names(place.parent) == ["nightly.db"]
    assert sound(place).ok
    assert checked(book).ok


def back_up_and_tell(source: Path, place: Path, begun: Any) -> None:
    book = open_book(source)
    begun.send(True)
    back_up(book, place)


def test_a_killed_backups_remains_are_not_taken_for_pages_of_the_next(
    book: Database, place: Path
) -> None:
    part = place.with_name(PART)
    for suffix in ("", "-wal", "-shm", "-journal"):
        part.with_name(f"{PART}{suffix}").write_bytes(b"remains" * 10_000)
    assert back_up(book, place).transfers == 1
    # A log that is whole would be replayed.
    deposit(book, "in the log")
    log = book.path.with_name("penstock.db-wal").read_bytes()
    assert log
    tamper(book.path, "DELETE FROM transfer", "DELETE FROM account", "DELETE FROM account_hour")
    part.with_name(f"{PART}-wal").write_bytes(log)
    assert back_up(book, place).transfers == 0
    assert names(place.parent) == ["nightly.db"]


def test_who_waited_for_another_backup_does_not_write_into_it(book: Database, place: Path) -> None:
    part, finished = place.with_name(PART), place.with_name("finished.db")
    part.write_bytes(b"the other's copy")
    made: list[Backup] = []
    waiting = threading.Thread(target=lambda: made.append(back_up(book, place)))
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting.start()
        # Long enough for it to wait for the lock; were it not, nothing would be tried here.
        waiting.join(0.3)
        part.rename(finished)
    waiting.join(60)
    assert made == [Backup(place, 1, place.stat().st_size)]
    assert finished.read_bytes() == b"the other's copy"


def test_an_interrupt_leaves_nothing(book: Database, place: Path) -> None:
    def interrupt(_tx: Connection) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(book, place, at=NIGHT, verify=interrupt)
    assert names(place.parent) == []


# Restored


def test_a_backup_in_a_fresh_state_folder_is_a_live_database(tmp_path: Path) -> None:
    live = open_book(tmp_path / "penstock.db")
    migrations.upgrade(live)
    deposit(live, "before the backup")
    desk = Desk(tmp_path / "desk")
    desk.state.mkdir(mode=0o700)
    made = backup(live, tmp_path / "copy.db", at=NIGHT, verify=migrations.require_current)
    live.close()
    made.path.rename(desk.database)
    status, check = desk.read_all("status", "ledger check")
    assert status["balance"]["available"] == "1.000000"
    assert check == {"ok": True, "transfers": 1, "accounts": 2, "problems": []}
    assert desk.run("ledger", "deposit", "1", "--ref", "after the restore").code == 0
    assert sound(desk.database).transfers == 2


def test_the_command_says_what_it_made_and_its_code_why_not(tmp_path: Path, place: Path) -> None:
    place.parent.mkdir()
    desk = Desk(tmp_path / "desk").initialised()
    with ThreadPoolExecutor(2) as pool:
        made, refused = pool.map(
            lambda path: desk.run("backup", str(path), "--json"), (place, desk.database)
        )
    assert (made.code, refused.code) == (0, 2)
    assert made.json == {"path": str(place), "transfers": 1, "bytes": place.stat().st_size}
    assert "belongs to the live database" in refused.err
    tamper(desk.database, "UPDATE transfer SET amount_micro = 7")
    wrong = desk.run("backup", str(place), "--json")
    assert wrong.code == 6
    assert "transfer 1" in wrong.json["problems"][0]
    assert sound(place).transfers == 1


def test_a_backup_of_a_database_that_is_too_old_is_refused(book: Database, place: Path) -> None:
    with pytest.raises(SchemaTooOld, match="no schema yet"):
        backup(book, place, at=NIGHT, verify=migrations.require_current)
    assert names(place.parent) == []
