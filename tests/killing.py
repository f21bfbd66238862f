"""
Writers that are killed, the process that forks them, and the record of what they said they did.

A writer says over a pipe what it is about to book, when it is inside the transaction, when the
commit comes next, and when that is done. Whoever kills it compares those words with the file.

`python -m tests.killing pipe` is the nursery: it has imported everything and opened nothing, so
that a writer costs a fork and not a start of Python.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection

from ledger import audit, store
from ledger.database import Database
from ledger.money import MicroCredits
from tests.ledger_helpers import MODEL, NO_LIMITS, NOON, new_book, open_book

# Far longer than anything here takes, even on a machine that is busy with something else.
PATIENCE_S = 60.0

# With few pages nearly every commit, and so many a kill, is in a checkpoint; with many, a log of
# several commits is left behind.
CHECKPOINT_PAGES = (2, 12, 1_000)

# What a row of the journal says: the action, on what, and how many micro-credits.
Row = tuple[str, str, int]


@dataclass(frozen=True)
class Deed:
    """One transaction. To `spend` is to hold and to settle in the same one."""

    verb: str
    name: str
    held: int
    moved: int = 0

    def do(self, tx: Connection) -> None:
        if self.verb == "deposit":
            store.deposit(tx, amount=MicroCredits(self.moved), ref=self.name, at=NOON)
        if self.verb in ("hold", "spend"):
            amount = MicroCredits(self.held)
            store.hold(tx, id=self.name, account=MODEL, amount=amount, at=NOON, limits=NO_LIMITS)
        if self.verb in ("settle", "spend"):
            store.settle(tx, self.name, actual=MicroCredits(self.moved), at=NOON)
        if self.verb == "void":
            store.void(tx, self.name, at=NOON)

    def rows(self) -> Counter[Row]:
        """What it leaves in the journal."""
        made: list[Row] = []
        if self.verb == "deposit":
            made.append(("post", self.name, self.moved))
        if self.verb in ("hold", "spend"):
            made.append(("hold", self.name, self.held))
        if self.verb in ("settle", "spend"):
            made.append(("settle", self.name, min(self.held, self.moved)))
            if self.moved > self.held:
                made.append(("post", self.name, self.moved - self.held))
        if self.verb == "void":
            made.append(("void", self.name, 0))
        return Counter(made)


def choose(rng: random.Random, name: str, holds: dict[str, int]) -> Deed:
    """What to do next; `holds` are the writer's open ones, by name, and are kept up."""
    verb = rng.choice(("deposit", "hold", "hold", "settle", "spend", "void"))
    held = rng.randrange(1, 9_000)
    if verb in ("settle", "void") and holds:
        name = rng.choice(list(holds))
        held = holds.pop(name)
    elif verb in ("hold", "settle", "void"):
        verb, holds[name] = "hold", held
    # Up to a third more than was held, so that some are overrun.
    moved = rng.randrange(1, 2 + held * 4 // 3) if verb in ("deposit", "settle", "spend") else 0
    return Deed(verb, name, held, moved)


@dataclass(frozen=True)
class Task:
    """What a writer is forked for."""

    path: str
    writer: str
    seed: str
    holds: dict[str, int]
    again: Deed | None  # what its predecessor was killed over
    manner: str = "careful"


def write_until_killed(task: Task, pipe: int) -> NoReturn:
    def say(word: str, deed: Deed | None = None) -> None:
        # Shorter than PIPE_BUF, so it arrives whole or not at all, from two writers at once too.
        words = [task.writer, word, None if deed is None else asdict(deed)]
        os.write(pipe, json.dumps(words).encode() + b"\n")

    rng, holds, number = random.Random(task.seed), dict(task.holds), 0
    book = open_book(Path(task.path))
    with book.read() as tx:
        tx.exec_driver_sql(f"PRAGMA wal_autocheckpoint = {rng.choice(CHECKPOINT_PAGES)}")
    say("ready")
    deed = task.again
    while True:
        deed = deed or choose(rng, f"{task.writer}-{number}", holds)
        say("begins", deed)
        book_one(book, deed, task.manner, say)
        say("done")
        deed, number = None, number + 1


def book_one(book: Database, deed: Deed, manner: str, say: Callable[[str], None]) -> None:
    if manner == "halves" and deed.verb == "spend":
        with book.write() as tx:
            Deed("hold", deed.name, deed.held).do(tx)
    with book.write() as tx:
        say("inserts")
        deed.do(tx)
        say("commits")
        if manner == "boasts":
            say("done")


def nurse(pipe: int) -> None:
    """Fork writers and bury them, as told line by line; at the end of the lines, kill the rest."""
    alive: set[int] = set()
    # What is there now is left alone by the collector, or each writer would copy its pages.
    gc.freeze()
    for line in sys.stdin:
        word, argument = json.loads(line)
        if word == "fork":
            again = argument.pop("again")
            task = Task(again=Deed(**again) if again else None, **argument)
            answer = os.fork()
            if not answer:
                live(task, pipe)
            alive.add(answer)
        else:
            alive.remove(argument)
            answer = os.waitstatus_to_exitcode(os.waitpid(argument, 0)[1])
        print(answer, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def live(task: Task, pipe: int) -> NoReturn:
    try:
        write_until_killed(task, pipe)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


@dataclass
class Writer:
    """One that was forked, as its killer knows it."""

    name: str
    pid: int
    word: str = "born"  # the last one heard
    deed: Deed | None = None  # begun and not done
    done: list[Deed] = field(default_factory=list)
    commits: int = 0  # that came next, at one time or another

    def hear(self, word: str, deed: dict[str, Any] | None) -> None:
        self.word = word
        self.commits += word == "commits"
        if deed is not None:
            self.deed = Deed(**deed)
        if word == "done" and self.deed is not None:
            self.done.append(self.deed)
            self.deed = None

    def has_opened(self) -> bool:
        return self.word != "born"

    def has_come_to_commit(self, times: int) -> bool:
        return self.commits >= times

    def has_done(self, deeds: int) -> bool:
        return len(self.done) >= deeds


class Nursery:
    """The killer's end of it."""

    def __init__(self, process: subprocess.Popen[str], pipe: int) -> None:
        self._process, self._pipe = process, pipe
        self._writers: dict[str, Writer] = {}
        self._unread = b""

    def start(self, task: Task) -> Writer:
        writer = Writer(task.writer, self._ask("fork", asdict(task)))
        self._writers[task.writer] = writer
        return writer

    def kill(self, writer: Writer) -> None:
        """Kill -9, bury, and read what it had still said."""
        os.kill(writer.pid, signal.SIGKILL)
        status = self._ask("bury", writer.pid)
        while self._listen(0):
            pass
        del self._writers[writer.name]
        assert status == -signal.SIGKILL, f"{writer} ended by itself, with {status}"

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < deadline, f"waited in vain for {self._writers}"
            self._listen(deadline - time.monotonic())

    def _listen(self, patience: float) -> bool:
        """Whether there was something to hear."""
        if not select.select([self._pipe], [], [], max(patience, 0))[0]:
            return False
        *lines, self._unread = (self._unread + os.read(self._pipe, 65_536)).split(b"\n")
        for line in lines:
            name, word, deed = json.loads(line)
            self._writers[name].hear(word, deed)
        return True

    def _ask(self, word: str, argument: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([word, argument]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def new_nursery() -> Iterator[Nursery]:
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.killing", str(theirs)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[theirs],
        text=True,
    )
    os.close(theirs)
    try:
        yield Nursery(process, ours)
    finally:
        process.communicate(timeout=PATIENCE_S)
        os.close(ours)


class Record:
    """What must stand in one book, by the words of everybody who wrote in it."""

    def __init__(self, path: Path, grant: int = 1_000) -> None:
        self.path = path
        self.deeds = {Deed("deposit", "grant", 0, grant * 1_000_000): None}
        self.in_the_nick_of_time = 0  # committed, and killed before it could say so
        with new_book(path, grant=str(grant)):
            pass

    def task(self, writer: str, seed: str, before: Writer | None, manner: str) -> Task:
        """Go on with the holds that writers of this letter left open, after the last of them."""
        again = before.deed if before is not None else None
        mine = {
            name: held
            for name, held in self.holds().items()
            if name[0] == writer[0] and (again is None or name != again.name)
        }
        return Task(str(self.path), writer, f"{seed} {writer}", mine, again, manner)

    def holds(self) -> dict[str, int]:
        made = {deed.name: deed.held for deed in self.deeds if deed.verb == "hold"}
        for deed in self.deeds:
            if deed.verb in ("settle", "void"):
                del made[deed.name]
        return made

    def compare(self, *killed: Writer, copied: bool) -> None:
        """
        The file against the words of those who wrote since the last time.

        Args:
            copied: look at a copy, so that the next writer is the first to open what was left.
        """
        path = self.path
        if copied:
            path = path.with_name("copy.db")
            for end in ("", "-wal"):
                if Path(f"{self.path}{end}").exists():
                    shutil.copyfile(f"{self.path}{end}", f"{path}{end}")
        book = open_book(path)
        try:
            with book.read() as tx:
                assert audit.check(tx).problems == []
                self._match(tx, killed)
                self._add_up(tx)
        finally:
            book.close()

    def _match(self, tx: Connection, killed: tuple[Writer, ...]) -> None:
        self.deeds |= dict.fromkeys(deed for writer in killed for deed in writer.done)
        told = sum((deed.rows() for deed in self.deeds), Counter[Row]())
        found = tx.exec_driver_sql(
            "SELECT action, COALESCE(hold_id, ref, id), amount_micro FROM transfer"
        )
        rows = Counter((action, name, micro) for action, name, micro in found)
        assert not told - rows, f"lost, though said to be done: {told - rows}"
        beyond = rows - told
        for deed in [writer.deed for writer in killed]:
            if deed is not None and deed not in self.deeds and deed.rows() <= beyond:
                beyond -= deed.rows()
                self.deeds[deed] = None
                self.in_the_nick_of_time += 1
        assert not beyond, f"half done: {beyond}"

    def _add_up(self, tx: Connection) -> None:
        came = sum(deed.moved for deed in self.deeds if deed.verb == "deposit")
        went = sum(deed.moved for deed in self.deeds if deed.verb in ("settle", "spend"))
        now = store.balance(tx)
        assert (now.posted.micro, now.held.micro) == (came - went, sum(self.holds().values()))
        sums = tx.exec_driver_sql(
            "SELECT name, debits_posted_micro - credits_posted_micro FROM account"
        )
        want = {"treasury": came - went, "grants": -came, MODEL: went}
        assert {MODEL: 0} | {str(name): int(micro) for name, micro in sums} == want


if __name__ == "__main__":
    nurse(int(sys.argv[1]))
