"""
Every verb of the books on a disk that fails, one file operation after the other.

Runs as a process of its own, under `faults.c`: `python -m tests.faults library folder part ...`
prints what it found as JSON. For each act, each state of the file and each kind of fault, the n-th
call that changes a file fails, for n = 1, 2, 3 ... until the act passes untouched. After each case
the books must hold all of the act or nothing of it, and take it exactly once when offered again.
"""

from __future__ import annotations

import ctypes
import errno
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sqlalchemy import Connection, inspect

from ledger import audit, store
from ledger.database import Database, create_schema
from ledger.errors import StorageError, StorageFull
from tests.ledger_helpers import MODEL, NO_LIMITS, NOON, cr, ledger_metadata, open_book

# Far beyond what any act does; whatever gets here would never pass.
N_MAX = 500

Act = Callable[[Database], object]
Verb = Callable[[Connection], object]
Tables = dict[str, list[str]]


class NotToBeHad(Exception):
    """The library cannot be made here; the message says why."""


def built(folder: Path) -> Path:
    """
    The library, compiled into a folder.

    Raises:
        NotToBeHad
    """
    if sys.platform != "linux":
        raise NotToBeHad("calls are intercepted the way of Linux")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    probe = ["-fsyntax-only", "-include", "stdio.h", "-x", "c", "/dev/null"]
    if compiler is None or subprocess.run([compiler, *probe], check=False).returncode:
        raise NotToBeHad("there is no working C compiler")
    made, source = folder / "faults.so", Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made


class Disk:
    """The preloaded library, by the few words it has."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.faults_arm.argtypes = [
            ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip
        self._library.faults_arm.restype = None
        self._library.faults_disarm.restype = ctypes.c_long
        self._library.faults_first.restype = ctypes.c_char_p

    def arm(self, folder: Path, n: int, fault: Fault) -> None:
        self._library.faults_arm(
            str(folder.resolve()).encode(), n, fault.error, int(fault.lasts != "one call")
        )

    def disarm(self) -> int:
        """How many calls were made to fail."""
        return int(self._library.faults_disarm())

    def first_failed(self) -> str:
        """The call and the file, such as `fdatasync books.db-wal`."""
        return str(self._library.faults_first().decode())


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong, and for how long.

    After `one call` or `a while`, in which every later call failed too, the same connection goes
    on. A fault that lasts `to the end` is still there when the connection is closed; the next one
    finds a mended disk.
    """

    error: int
    lasts: str

    def __str__(self) -> str:
        return f"{errno.errorcode[self.error]} for {self.lasts}"


FULL_ONCE = Fault(errno.ENOSPC, "one call")
FAULTS = (
    FULL_ONCE,
    Fault(errno.ENOSPC, "to the end"),
    Fault(errno.EIO, "one call"),
    Fault(errno.EIO, "a while"),
    # What became read-only is so for every later call.
    Fault(errno.EROFS, "to the end"),
)


@dataclass
class Tally:
    """What one act went through."""

    fired: int = 0
    calls: Counter[str] = field(default_factory=Counter)  # that were made to fail, by fault
    answers: Counter[str] = field(default_factory=Counter)
    failed_calls: Counter[str] = field(default_factory=Counter)
    # Raised, and yet wholly there when the process died at once: the commit had been written.
    there_after_all: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """What a fresh pair of eyes sees of a book."""

    tables: Tables
    problems: list[str]
    journal_mode: str

    @classmethod
    def at(cls, book: Database) -> Look:
        with book.read() as tx:
            file = tx.connection.cursor()  # the driver's own: this is done thousands of times
            names = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables: Tables = {
                name: sorted(map(repr, file.execute(f"SELECT * FROM {name}").fetchall()))
                for (name,) in names
            }
            ((journal_mode,),) = file.execute("PRAGMA journal_mode").fetchall()
            problems = audit.check(tx).problems if "transfer" in tables else []
            return cls(tables, problems, journal_mode)


class Bench:
    """Two folders that are filled and emptied again, and a book opened on each."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self.disk = disk
        self.here, self.there = folder / "here", folder / "there"
        # One engine per file for all cases: compiling its statements takes longer than they do.
        # Closing drops its connections, so what is opened next starts from the files alone.
        self.book, self.copy = (open_book(at / "books.db") for at in (self.here, self.there))

    def lay_out(self, files: dict[str, bytes]) -> None:
        for folder in (self.here, self.there):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name, content in files.items():
            (self.here / name).write_bytes(content)

    def as_found_after_a_crash(self) -> Look:
        """What the next process would see if this one were gone now, from a copy of the files."""
        for path in self.here.iterdir():
            shutil.copyfile(path, self.there / path.name)
        try:
            return Look.at(self.copy)
        finally:
            self.copy.close()


@dataclass(frozen=True)
class Scene:
    """
    A book as the act finds it.

    `warm`: its connection is open, its log is not empty, and each commit is followed by a
    checkpoint; otherwise the fault may also strike while the file is being opened.
    """

    name: str
    files: dict[str, bytes]
    warm: bool = False

    def enter(self, bench: Bench) -> None:
        bench.lay_out(self.files)
        if self.warm:
            with bench.book.read() as tx:
                tx.exec_driver_sql("PRAGMA wal_autocheckpoint = 1")
                # Changed pages leave so small a cache in the middle of the transaction.
                tx.exec_driver_sql("PRAGMA cache_size = 1")


def trial(
    bench: Bench, scene: Scene, name: str, act: Act, faults: tuple[Fault, ...] = FAULTS
) -> Tally:
    """An act in a scene, under every fault at every place."""
    tally = Tally()
    scene.enter(bench)
    before = Look.at(bench.book).tables
    answer = act(bench.book)
    after, again = Look.at(bench.book).tables, act(bench.book)
    assert before != after, f"{name} does nothing that could be half done"
    assert Look.at(bench.book) == Look(after, [], "wal"), f"{name} is not the same twice"
    bench.book.close()
    for fault in faults:
        for n in count(1):
            case = Case(bench, scene, act, fault, n, before, after, (answer, again))
            fired = case.run(tally)
            tally.findings += [
                f"{name}, {scene.name}, {fault}, from call {n} ({case.struck}): {finding}"
                for finding in case.findings
            ]
            if not fired:
                tally.calls[str(fault)] = n - 1
                break
            assert n < N_MAX, f"{name} under {fault} never passes"
    return tally


@dataclass
class Case:
    """One act, once, with one call failing."""

    bench: Bench
    scene: Scene
    act: Act
    fault: Fault
    n: int
    before: Tables
    after: Tables
    answers: tuple[object, object]  # to an act that is new, and to one that is there already
    struck: str = ""
    findings: list[str] = field(default_factory=list)

    def run(self, tally: Tally) -> bool:
        """Whether a call failed at all."""
        book, disk = self.bench.book, self.bench.disk
        self.scene.enter(self.bench)
        disk.arm(self.bench.here, self.n, self.fault)
        error = self.attempt()
        crashed = self.judge(error, self.bench.as_found_after_a_crash(), "after a crash")
        if self.fault.lasts == "to the end":
            book.close()
        fired = disk.disarm()
        self.struck = disk.first_failed()
        if fired:
            tally.fired += 1
            tally.answers["passed" if error is None else type(error).__name__] += 1
            tally.failed_calls[self.struck] += 1
            tally.there_after_all += crashed and error is not None
        self.offer_again(self.judge(error, Look.at(book), "later"))
        book.close()
        return fired > 0

    def attempt(self) -> BaseException | None:
        try:
            self.act(self.bench.book)
        except StorageError as error:
            full = self.fault.error == errno.ENOSPC
            if full and not isinstance(error, StorageFull):
                self.findings.append(f"a full disk is reported as {error!r}")
            return error
        except BaseException as error:
            self.findings.append(f"it raised {error!r}")
            return error
        return None

    def judge(self, error: BaseException | None, look: Look, when: str) -> bool:
        """Whether the act is there; anything but all or nothing is a finding."""
        self.findings += [f"{when}, {problem}" for problem in look.problems]
        there = look.tables == self.after
        if not there and look.tables != self.before:
            self.findings.append(f"{when}, it is half done")
        if error is None and not there:
            self.findings.append(f"{when}, it is not there, though it was said to be")
        return there

    def offer_again(self, there: bool) -> None:
        try:
            answer = self.act(self.bench.book)
        except Exception as error:
            self.findings.append(f"offered again, it raised {error!r}")
            return
        if answer != self.answers[there]:
            self.findings.append(f"offered again, it was answered {answer!r}, {there=}")
        look = Look.at(self.bench.book)
        self.findings += [f"offered again, {problem}" for problem in look.problems]
        if look.tables != self.after:
            self.findings.append("offered again, it is not there exactly once")
        if look.journal_mode != "wal":
            self.findings.append(f"the journal stays in {look.journal_mode!r} mode")


def in_one(*verbs: Verb) -> Act:
    """The verbs in one transaction, answering what they answer."""

    def act(book: Database) -> object:
        with book.write() as tx:
            return [verb(tx) for verb in verbs]

    return act


def deposit(tx: Connection) -> object:
    # A source nobody named before: its account is opened in the same transaction.
    return store.deposit(tx, amount=cr("2.5"), ref="tip", at=NOON, source="kofi")


def hold(tx: Connection) -> object:
    caps = (store.Cap("of a run", cr("9"), run="r"), store.Cap("of a day", cr("9"), since=NOON))
    return store.hold(
        tx, id="new", account=MODEL, amount=cr("3"), at=NOON, run="r", attempt="r/2",
        limits=store.Limits(reserve=cr("1"), caps=caps),
    )  # fmt: skip


def settle(tx: Connection) -> object:
    return store.settle(tx, "open", actual=cr("1.5"), at=NOON, memo="as billed")


def settle_above(tx: Connection) -> object:
    return store.settle(tx, "open", actual=cr("4.75"), at=NOON)


def void(tx: Connection) -> object:
    store.void(tx, "open", at=NOON, memo="never sent")
    return None


def keep_answer(tx: Connection) -> object:
    """A row of the caller's own, wide enough to need pages of its own."""
    statement = "INSERT INTO answer VALUES ('open', ?) ON CONFLICT DO NOTHING"
    tx.exec_driver_sql(statement, ("what the model said " * 800,))
    return None


def schema(tx: Connection) -> object:
    if not inspect(tx).has_table("transfer"):
        create_schema(tx, ledger_metadata())
        tx.exec_driver_sql("CREATE TABLE answer (id TEXT PRIMARY KEY, said TEXT) STRICT")
    return store.deposit(tx, amount=cr("10"), ref="grant", at=NOON)


VERBS: dict[str, Act] = {
    "deposit": in_one(deposit),
    "hold": in_one(hold),
    "settle": in_one(settle),
    "settle above the hold": in_one(settle_above),
    "void": in_one(void),
    "settle, keep the answer and hold for the next": in_one(settle, keep_answer, hold),
}
CREATION = {"create": in_one(schema)}


def in_two_transactions(book: Database) -> object:
    return [in_one(settle)(book), in_one(keep_answer)(book)]


def with_errors_swallowed(book: Database) -> object:
    try:
        in_one(deposit)(book)
    except StorageError:
        return None
    return None


def with_the_driver_s_own_errors(book: Database) -> object:
    try:
        in_one(deposit)(book)
    except StorageError as error:
        raise (error.__cause__ or error) from None
    return None


# What the bench must not let pass, with the words of the finding it has to make.
BROKEN: dict[str, tuple[Act, str]] = {
    "in two transactions": (in_two_transactions, "it is half done"),
    "with errors swallowed": (with_errors_swallowed, "it is not there, though it was said to be"),
    "with the driver's own errors": (with_the_driver_s_own_errors, "it raised OperationalError"),
}


def scenes(bench: Bench) -> tuple[Scene, Scene]:
    """A book that is closed and at rest, and one whose log was not yet brought home."""
    bench.lay_out({})
    in_one(schema)(bench.book)
    with bench.book.write() as tx:
        for name in ("open", "settled", "voided"):
            store.hold(
                tx, id=name, account=MODEL, amount=cr("2"), at=NOON, limits=NO_LIMITS, run="r"
            )
    bench.book.close()
    quiet = Scene("at rest", files_in(bench.here))
    with bench.book.write() as tx:
        store.settle(tx, "settled", actual=cr("0.5"), at=NOON)
        store.void(tx, "voided", at=NOON)
    live = files_in(bench.here)
    assert live["books.db-wal"], "there is no log"
    del live["books.db-shm"]
    bench.book.close()
    return quiet, Scene("with a live log", live, warm=True)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(bench: Bench, part: str) -> dict[str, Tally]:
    quiet, live = scenes(bench)
    if part == "creation":
        return {n: trial(bench, Scene("anew", {}), n, act) for n, act in CREATION.items()}
    if part == "broken":
        return {n: trial(bench, quiet, n, act, (FULL_ONCE,)) for n, (act, _) in BROKEN.items()}
    scene = {"quiet": quiet, "live": live}[part]
    return {n: trial(bench, scene, n, act) for n, act in VERBS.items()}


if __name__ == "__main__":
    library, folder, *parts = sys.argv[1:]
    bench = Bench(Disk(Path(library)), Path(folder))
    print(json.dumps({part: run(bench, part) for part in parts}, default=vars))
