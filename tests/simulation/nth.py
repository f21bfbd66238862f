"""
One whole run in which the n-th operation fails, and the lives of the process that come after it.

A whole run is a paid article at every destination, and a collection an hour later: by commands, or
by the service, which stays and tries again by itself. One request, one lookup of a name, one
transaction, one statement or one call that changes a file fails in it. The lives after that find a
mended world and go on as the service would. Then the judge looks at the platforms, the folder and
the provider's bill, and at the books last.

`python -m tests.simulation.nth library prepared folder long` does it for files, under `faults.c`,
which has to be there before Python is. It prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import Connection, event

from daemon import alerts, journal
from daemon.app import World, opened_database, opened_parts
from daemon.cli import exits
from daemon.inference import attempts
from daemon.journal import PublicationState, RunOutcome, RunState
from daemon.notify import Notifier
from daemon.service import Service
from daemon.sources.fetcher import Resolve
from ledger import audit, posting, store
from ledger.errors import StorageBusy, StorageError, StorageFull
from ledger.money import MicroCredits
from tests import faults
from tests.platforms import Platforms
from tests.stage import Kill, MortalDatabase, Silent
from tests.virtual import START

T = TypeVar("T")

HOUR_S = 3600.0
# What is left to do is done in this many lives, an hour between them.
LIVES_MAX = 6
# Longer than `Books` waits for a writer.
BUSY_S = 11.0
# Longer than the service waits before it tells a person.
FULL_S = 900.0
# Longer than anybody tries again without being asked to.
CUT_OFF_S = 1800.0
POLL_S = 600.0
SERVED_S = 3 * HOUR_S
VIEWS, LIKES = 10, 4
EARNED = MicroCredits.parse("0.014")
FOLDER_HAS = {".md": 1, ".html": 2, ".json": 1, ".png": 1, ".xml": 1}
SETTINGS = {
    # A second rung each, so that an answer nobody can use does not end the run.
    **{f"PENSTOCK_MODELS_{role}": "llm/good > llm/cheap" for role in ("RESEARCH", "WRITE", "EDIT")},
    "PENSTOCK_RATES": "devto.view=0.001,bluesky.like=0.001",
    "PENSTOCK_TIMEZONE": "UTC",
    "PENSTOCK_PUBLISH_CRON": "30 8 * * *",
    "PENSTOCK_COLLECT_CRON": "0 10 * * *",
    "PENSTOCK_FEED_CRON": "15 9 * * *",
}
_PART = re.compile(r"\.[0-9]+\.part$")
_TABLE = re.compile(r"(?:FROM|INTO|UPDATE) (\w+)")


class At(Enum):
    """Where an operation crosses the border of the process."""

    REQUEST = "request"
    LOOKUP = "lookup"
    BEGIN = "begin"
    COMMIT = "commit"
    READ = "read"
    STATEMENT = "statement"
    FILE = "file"


class Way(StrEnum):
    """How an operation fails."""

    REFUSED = "refused before anything was sent"
    ANSWERED_500 = "answered with 500, and nothing was done"
    RESET = "done, and the answer was lost"
    SILENT = "done, and no answer came"
    CUT = "done, and half of the answer came"
    CUT_OFF = "done, the answer was lost, and nothing got through for half an hour"
    NAMELESS = "no address was found"
    BUSY = "locked for longer than we wait"
    FULL = "no room to begin"
    ROLLED_BACK = "no room to commit"
    FULL_FOR_LONG = "no room to commit for a quarter of an hour"
    COMMITTED = "committed, and said not to be"
    UNREADABLE = "unreadable"
    NO_STATEMENT = "no room for a statement"
    FILE_FULL = "ENOSPC for one call"
    FILE_BROKEN = "EIO for one call"
    FILE_FULL_FOR_LONG = "ENOSPC to the end of the life"


WAYS: Mapping[At, Sequence[Way]] = {
    At.REQUEST: (Way.REFUSED, Way.ANSWERED_500, Way.RESET, Way.SILENT, Way.CUT, Way.CUT_OFF),
    At.LOOKUP: (Way.NAMELESS,),
    At.BEGIN: (Way.BUSY, Way.FULL),
    At.COMMIT: (Way.ROLLED_BACK, Way.FULL_FOR_LONG, Way.COMMITTED),
    At.READ: (Way.UNREADABLE,),
    At.STATEMENT: (Way.NO_STATEMENT,),
    At.FILE: (Way.FILE_FULL, Way.FILE_BROKEN, Way.FILE_FULL_FOR_LONG),
}
BY_WAY = {way: at for at, ways in WAYS.items() for way in ways}
IN_FILES = {
    Way.FILE_FULL: faults.Fault(errno.ENOSPC, "one call"),
    Way.FILE_BROKEN: faults.Fault(errno.EIO, "one call"),
    Way.FILE_FULL_FOR_LONG: faults.Fault(errno.ENOSPC, "to the end"),
}


@dataclass(frozen=True, slots=True)
class Thinning:
    """
    Which n are tried where time is short.

    Args:
        every: of the operations that are alike the first, and of all each so many.
        turns: those are shared out among so many ways of failing.
    """

    every: int
    turns: int

    def places(self, way: Way, names: Sequence[str]) -> list[int]:
        first = {name: n for n, name in reversed([*enumerate(names, start=1)])}
        chosen = sorted({*first.values(), *range(self.every, len(names) + 1, self.every)})
        return chosen[WAYS[BY_WAY[way]].index(way) % self.turns :: self.turns]


ALL = Thinning(every=1, turns=1)
SHORT: Mapping[At, Thinning] = {
    At.REQUEST: Thinning(every=1, turns=3),
    At.LOOKUP: ALL,
    At.BEGIN: Thinning(every=4, turns=2),
    At.COMMIT: Thinning(every=4, turns=3),
    At.READ: Thinning(every=12, turns=1),
    At.STATEMENT: Thinning(every=30, turns=3),
    At.FILE: Thinning(every=150, turns=3),
}


@dataclass
class Nth:
    """
    Lets the n-th operation of a kind fail, in one way; none where n is 0.

    Args:
        seen: the operations that could have failed so, such as `POST dev.to/api/articles`.
        until_s: until when whatever comes after it fails, too, by the loop's clock.
    """

    way: Way
    n: int = 0
    seen: list[str] = field(default_factory=list)
    until_s: float = 0.0

    @property
    def struck(self) -> str:
        """What failed; empty while nothing has."""
        return self.seen[self.n - 1] if 0 < self.n <= len(self.seen) else ""

    def lasts(self, way: Way, now_s: float) -> bool:
        return self.way is way and now_s < self.until_s

    def strikes(self, at: At, what: str) -> bool:
        if BY_WAY[self.way] is not at:
            return False
        self.seen.append(what)
        return len(self.seen) == self.n


class Wire(httpx.AsyncBaseTransport):
    """What is sent through all of these is counted together."""

    def __init__(self, inner: httpx.AsyncBaseTransport | None, nth: Nth) -> None:
        assert inner is not None, "it would be a socket"
        self._inner = inner
        self._nth = nth

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # The page reader asks an address, and names the host.
        what = f"{request.method} {request.headers['host']}{request.url.path}"
        now_s = asyncio.get_running_loop().time()
        if self._nth.lasts(Way.CUT_OFF, now_s):
            raise httpx.ConnectError("network is unreachable", request=request)
        if not self._nth.strikes(At.REQUEST, what):
            return await self._inner.handle_async_request(request)
        if self._nth.way is Way.REFUSED:
            raise httpx.ConnectError("connection refused", request=request)
        if self._nth.way is Way.ANSWERED_500:
            return httpx.Response(500, json={"error": "Internal Server Error"}, request=request)
        answer = await self._inner.handle_async_request(request)
        if self._nth.way is Way.CUT:
            headers, half = answer.headers, _Half(answer)
            return httpx.Response(answer.status_code, headers=headers, stream=half, request=request)
        await answer.aclose()
        if self._nth.way is Way.CUT_OFF:
            self._nth.until_s = now_s + CUT_OFF_S
        if self._nth.way in (Way.RESET, Way.CUT_OFF):
            raise httpx.ReadError("connection reset by peer", request=request)
        await asyncio.sleep(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("no answer came", request=request)


class _Half(httpx.AsyncByteStream):
    """The first half of a body, then the end of the connection."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = await self._answer.aread()
        yield body[: len(body) // 2]
        raise httpx.RemoteProtocolError("closed before the body was complete")


class FailingDatabase(MortalDatabase):
    """A database of which one transaction fails, in one way."""

    def __init__(self, url: str, nth: Nth, now_s: Callable[[], float]) -> None:
        super().__init__(url, None)
        self._nth = nth
        self._now_s = now_s
        event.listen(self._engine, "before_cursor_execute", self._execute)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        nth, committed = self._nth, False
        if nth.strikes(At.BEGIN, "BEGIN IMMEDIATE"):
            if nth.way is Way.FULL:
                raise StorageFull("the disk is full")
            nth.until_s = self._now_s() + BUSY_S
        if nth.lasts(Way.BUSY, self._now_s()):
            raise StorageBusy("the database is locked")
        with super().write() as tx:
            yield tx
            if nth.strikes(At.COMMIT, "COMMIT"):
                committed = nth.way is Way.COMMITTED
                nth.until_s = self._now_s() + FULL_S
                if nth.way is Way.ROLLED_BACK:
                    raise StorageFull("the disk is full")
            if nth.lasts(Way.FULL_FOR_LONG, self._now_s()):
                raise StorageFull("the disk is full")
        if committed:
            raise StorageError("the disk failed")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        if self._nth.strikes(At.READ, "BEGIN"):
            raise StorageError("the disk failed")
        with super().read() as tx:
            yield tx

    def _execute(self, connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        table = _TABLE.search(statement)
        what = f"{statement.split()[0]} {'' if table is None else table[1]}"
        if self._nth.strikes(At.STATEMENT, what):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


class Failing(Platforms):
    """
    A stage with every destination, a webhook that has something to hear, and one failure.

    Args:
        prepared: a state folder with money in it, which is copied.
    """

    def __init__(self, folder: Path, prepared: Path | None = None) -> None:
        if prepared is not None:
            shutil.copytree(prepared, folder)
        super().__init__(folder, **SETTINGS)
        self.folder = folder
        self.mend()

    def mend(self) -> None:
        self.nth = Nth(Way.REFUSED)

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def world(self, kill: Kill | None = None) -> World:
        world, nth = super().world(kill), self.nth
        return replace(
            world, models=Wire(world.models, nth), web=Wire(world.web, nth),
            platforms=Wire(world.platforms, nth), alerts=Wire(world.alerts, nth),
            resolve=self._counted(world.resolve),
        )  # fmt: skip

    def _counted(self, resolve: Resolve) -> Resolve:
        nth = self.nth

        async def counted(host: str, port: int) -> list[str]:
            if nth.strikes(At.LOOKUP, host):
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return list(await resolve(host, port))

        return counted

    def _life(
        self, live: Callable[[MortalDatabase], Coroutine[Any, Any, T]], kill: Kill | None
    ) -> T:
        location = self.settings.location
        with opened_database(location):
            database = FailingDatabase(location.database_url, self.nth, self.time.loop.time)
            try:
                return self.time.run(live(database))
            finally:
                database.close()

    # A whole run

    def command(self) -> None:
        """`penstock once`, readers, and `penstock collect`."""
        self.once()
        self.be_read()
        self.sleep(HOUR_S)
        self.collect()

    def serve(self) -> None:
        """`penstock run`, from before a slot until after the collection."""

        async def live(database: MortalDatabase) -> None:
            async with opened_parts(self.settings, database, Silent(), self.world()) as parts:
                service = Service(parts, Notifier.from_env({}), poll_s=POLL_S)
                loop = asyncio.get_running_loop()
                loop.call_later(HOUR_S, self.be_read)
                loop.call_later(SERVED_S, service.stop)
                await service.serve()

        self._life(live, None)

    def be_read(self) -> None:
        """Readers see it, and like it."""
        for article in self.devto.public:
            self.devto.read_by_people(article.id, page_views_count=VIEWS)
        for key in self.bluesky.posts():
            self.bluesky.counts[key] = {"likeCount": LIKES}

    # What comes after it

    def go_on(self) -> None:
        """Until nothing is left to do; a run that was lost has a successor."""
        for _ in range(LIVES_MAX):
            self.sleep(HOUR_S)
            with self.reading() as tx:
                runs, waiting = journal.runs(tx), journal.open_publications(tx)
            is_open = any(run.state in (RunState.RUNNING, RunState.PARKED) for run in runs)
            if is_open or not any(_is_out(run) for run in runs):
                self.once()
            elif waiting:
                self.pursue()
            else:
                break
        self.be_read()
        self.collect()
        self.sleep(self.settings.hold_expiry.total_seconds())
        self.reconcile_all()

    def reconcile_all(self) -> None:
        """`penstock reconcile`."""

        async def live(database: MortalDatabase) -> None:
            async with opened_parts(self.settings, database, Silent(), self.world()) as parts:
                await parts.reconciler.run()

        self._life(live, None)


Whole = Callable[[Failing], None]


def _is_out(run: Any) -> bool:
    return run.outcome in (RunOutcome.PUBLISHED, RunOutcome.UNCONFIRMED)


def prepare(folder: Path) -> None:
    """A state folder with money in it, and an alert that nobody was told of."""
    stage = Failing(folder)
    stage.deposit("5")
    with opened_database(stage.settings.location) as database, database.write() as tx:
        alerts.sound(tx, alerts.Kind.FAULT, "feed", "feed failed: KeyError: 'link'", at=START)


# The judge


@dataclass
class Verdict:
    """
    What one case came to.

    Args:
        error: what ended the run, by its class; empty where nothing did.
        lost: why runs ended with nothing anywhere.
    """

    error: str
    lost: list[str]
    findings: list[str]


def judge(stage: Failing, error: Exception | None) -> Verdict:
    """Compare what others have with what was promised, and the books with both."""
    with stage.reading() as tx:
        runs, publications = journal.runs(tx), journal.publications(tx)
        holds, in_flight = posting.open_holds(tx), attempts.in_flight(tx)
    lost = [run for run in runs if run.outcome != RunOutcome.PUBLISHED]
    findings = [
        *([] if error is None or _is_known(error) else [f"it raised {error!r}"]),
        *_misplaced(stage),
        *_wrong_money(stage),
        *(f"{hold.id} is still held" for hold in holds),
        *(f"{attempt.id} is still under way" for attempt in in_flight),
        *(
            f"{row.platform} is {row.state}: {row.error}"
            for row in publications
            if row.state != PublicationState.PUBLISHED
        ),
        *(
            f"run {run.id} is {run.state}, {run.outcome}, because: {run.reason}"
            for run in lost
            if run.state not in (RunState.FINISHED, RunState.FAILED) or not run.reason
        ),
        *(
            f"run {row.run} is {row.state} at {row.platform}, and says it is not out"
            for row in publications
            if row.run in {run.id for run in lost}
        ),
        *([] if stage.webhook.told else ["the webhook was told nothing"]),
    ]
    said = "" if error is None else type(error).__name__
    return Verdict(said, [str(run.reason) for run in lost], findings)


def _is_known(error: Exception) -> bool:
    """Whether a command would say it in a sentence, and end with 1."""
    known = isinstance(error, (StorageError, OSError))
    return known and exits.of_error(error) is exits.Exit.FAILED


def _misplaced(stage: Failing) -> Iterator[str]:
    """Whatever is not there once, or is half there."""
    places = {
        "Dev.to": len(stage.devto.public),
        "Dev.to at one time": stage.devto.public_most,
        "Dev.to with its drafts": len(stage.devto.articles),
        "Bluesky": len(stage.bluesky.posts()),
        "the outbox": len(stage.articles()),
    }
    yield from (f"{place} has {number}" for place, number in places.items() if number != 1)
    has = Counter(path.suffix for path in stage.outbox.glob("*"))
    if has != FOLDER_HAS:
        yield f"the outbox has {dict(has)}"


def _wrong_money(stage: Failing) -> Iterator[str]:
    ever, billed = START.replace(year=2000), stage.model.billed_micro
    with stage.reading() as tx:
        problems, entries = audit.check(tx).problems, list(store.entries(tx))
        booked = store.spent(tx, since=ever).micro
        shown = sum(attempt.cost_micro or 0 for attempt in attempts.recent(tx))
        earned = store.earned(tx, since=ever, family="engagement")
    yield from (f"the books do not balance: {problem}" for problem in problems)
    uncertain = sum(entry.amount.micro for entry in entries if entry.code == "uncertain")
    if booked < billed:
        yield f"{billed} were billed, and {booked} are booked"
    if booked - uncertain > billed:
        yield f"{billed} were billed, and {booked - uncertain} are booked for certain"
    if shown != booked:
        yield f"{booked} are booked, and {shown} are shown by request"
    if earned != EARNED:
        yield f"readers brought {EARNED}, and {earned} are booked"


# Enumerating


@dataclass
class Tally:
    """
    What one way of failing came to.

    Args:
        tried: how many did.
        struck: what they were.
        errors: what ended a run, by class; "" where nothing did.
        lost: why a run ended with nothing anywhere, by what was struck.
    """

    tried: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lost: dict[str, list[str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def enumerated(
    way: Way, whole: Whole, prepared: Path, folder: Path, *, long: bool, disk: Disk | None = None
) -> Tally:
    """For n = 1, 2, 3 … until a run passes untouched, or for some of these."""
    # This is the run that passes: nothing could fail beyond its last operation.
    untouched, verdict = case(Nth(way), whole, prepared, folder, disk)
    assert verdict == Verdict("", [], []), verdict
    names = untouched.seen
    tally = Tally()
    for n in (ALL if long else SHORT[BY_WAY[way]]).places(way, names):
        nth, verdict = case(Nth(way, n), whole, prepared, folder, disk)
        # All that came before it was as in the run that nothing struck.
        assert nth.seen[:n] == names[:n], f"{way}: operation {n} is not the same twice"
        tally.tried += 1
        tally.struck[nth.struck] += 1
        tally.errors[verdict.error] += 1
        if verdict.lost:
            tally.lost.setdefault(nth.struck, []).extend(verdict.lost)
        tally.findings += [f"{way}: {n}, {nth.struck}: {finding}" for finding in verdict.findings]
    return tally


def case(
    nth: Nth, whole: Whole, prepared: Path, folder: Path, disk: Disk | None = None
) -> tuple[Nth, Verdict]:
    """One run with at most one failure, and what comes after it."""
    stage = Failing(folder, prepared)
    error: Exception | None = None
    try:
        stage.nth = nth
        if disk is not None:
            disk.spoil(nth, folder)
        try:
            whole(stage)
        except Exception as caught:
            error = caught
        finally:
            if disk is not None:
                disk.mend(nth)
        stage.mend()
        stage.go_on()
        return nth, judge(stage, error)
    finally:
        stage.close()


# Files


class Disk:
    """`faults.c`, as an operation fails under it."""

    def __init__(self, library: Path, calls: Path) -> None:
        self._disk = faults.Disk(library)
        self._calls = calls
        fd = os.open(calls, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        ctypes.CDLL(str(library)).faults_tell(fd)

    def spoil(self, nth: Nth, folder: Path) -> None:
        os.truncate(self._calls, 0)
        # Far beyond what a run does, where none is to fail.
        self._disk.arm(folder, nth.n or sys.maxsize, IN_FILES[nth.way])

    def mend(self, nth: Nth) -> None:
        fired = self._disk.disarm()
        nth.seen = [_PART.sub(".part", call) for call in self._calls.read_text().splitlines()]
        assert bool(fired) is bool(nth.struck), nth


def main(library: str, prepared: str, folder: str, long: str) -> None:
    disk = Disk(Path(library), Path(folder) / "calls")
    tallies = {
        way: enumerated(
            way, Failing.command, Path(prepared), Path(folder) / "state", long=long == "1",
            disk=disk,
        )
        for way in WAYS[At.FILE]
    }  # fmt: skip
    print(json.dumps(tallies, default=vars))


if __name__ == "__main__":
    main(*sys.argv[1:])
