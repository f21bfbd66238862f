"""
Metrics for Prometheus, at http://127.0.0.1:PORT/metrics where PENSTOCK_METRICS_PORT asks for them.

Everything is read from the database, in one short transaction that only reads, and kept for some
seconds: it is right after a restart, and a scrape costs what is new. It is read in a thread, so
that no scrape holds up the loop.

Names follow Prometheus's own advice. A counter only grows: what a correction gives back is a
counter of its own, and what can still change its mind, as the outcome of a run whose post is found
later, is a gauge. A moment is a time, and not how long ago it was, so that
`time() - penstock_last_published_timestamp_seconds` goes on growing when we do not.

The text format (0.0.4) is written here: it is twenty lines and has not changed since 2014. The
client library would be 30 to 50 ms of import and 2.7 MB, for counters in memory that a database
does not need; its parser checks ours in the tests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from daemon import __version__, alerts, control, journal, look
from daemon.alerts import Kind
from daemon.books import Books
from daemon.clock import Clock
from daemon.inference.ladder import Tier
from daemon.inference.port import Outcome
from daemon.inference.prices import UnknownPrice
from daemon.journal import PublicationState, RunOutcome
from daemon.report import UNFINISHED, run_state
from daemon.settings import Settings
from ledger import store
from ledger.errors import StorageError
from ledger.money import MicroCredits
from ledger.types import from_text, to_text

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Prometheus asks every 15 to 60 s, and gives up after 10.
KEPT_S = 15.0
READ_MAX_S = 8.0
REQUEST_MAX_S = 5.0
REQUEST_MAX_BYTES = 8192
CONNECTIONS_MAX = 16
# What is younger is counted at each scrape, as it may still be under way.
RECENT = timedelta(days=1)

Value = int | float | MicroCredits
Labels = Mapping[str, str]
Key = tuple[str, str, str]


class Unavailable(Exception):
    """There are no metrics now; the message says why, in a sentence that anybody may read."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name without the prefix, its type, what it is, and its values by labels."""

    name: str
    type: str
    help: str
    samples: Sequence[tuple[Labels, Value]]


# The text format


def render(families: Iterable[Family]) -> str:
    """The text that Prometheus reads."""
    lines = []
    for family in families:
        if not family.samples:
            continue
        lines += [
            f"# HELP {family.name} {_escaped(family.help)}",
            f"# TYPE {family.name} {family.type}",
            *(
                f"{family.name}{_labels(labels)} {_number(value)}"
                for labels, value in family.samples
            ),
        ]
    return "\n".join((*lines, ""))


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str, *, quote: bool = False) -> str:
    value = value.replace("\\", r"\\").replace("\n", r"\n")
    return value.replace('"', r"\"") if quote else value


def _number(value: Value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    return str(value)


# What is measured


class Metrics:
    """
    Reads the metrics.

    Args:
        settings: what the pace depends on, and which destinations there are.
    """

    def __init__(self, books: Books, clock: Clock, settings: Settings) -> None:
        self._books = books
        self._clock = clock
        self._settings = settings
        self._attempts = Attempts()
        self._reading: asyncio.Task[str] | None = None
        self._kept: tuple[float, str] | None = None
        self._failed: type[Exception] | None = None

    async def read(self) -> str:
        """
        The metrics as text, at most `KEPT_S` old.

        Raises:
            Unavailable: the database does not answer, or not in time.
        """
        if self._kept is not None and self._clock.monotonic() - self._kept[0] < KEPT_S:
            return self._kept[1]
        # However many ask, and however long the disk takes, there is one thread that reads.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            # Whoever asked may have given up by then.
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        reading = self._reading
        done, _ = await asyncio.wait({reading}, timeout=READ_MAX_S)
        if not done:
            raise Unavailable(f"the database did not answer in {READ_MAX_S:.0f} seconds")
        return reading.result()

    async def _read(self) -> str:
        begun, at = self._clock.monotonic(), self._clock.now()
        try:
            found = await asyncio.to_thread(self._text, at)
        except StorageError as error:
            raise Unavailable(str(error)) from error
        except Exception as error:
            # A fault of ours, or a table that is not there. Its words may quote anything, and the
            # log has it once, however often we are asked.
            if type(error) is not self._failed:
                logger.warning("metrics.read: there are no metrics", exc_info=error)
            self._failed = type(error)
            raise Unavailable(f"unexpected: {type(error).__name__}; see the log") from error
        self._kept, self._failed = (begun, found), None
        return found

    def _text(self, at: datetime) -> str:
        with self._books.read() as tx:
            families = [
                *_money(tx),
                *_pace(tx, self._settings, at),
                *self._attempts.families(tx, at),
                *_work(tx, self._settings.publishing.publishers),
                *_people(tx, at),
            ]
        return render([*families, *_process()])


def _gauge(name: str, help: str, samples: Sequence[tuple[Labels, Value]]) -> Family:
    return Family(f"penstock_{name}", "gauge", help, samples)


def _counter(name: str, help: str, samples: Sequence[tuple[Labels, Value]]) -> Family:
    return Family(f"penstock_{name}_total", "counter", help, samples)


def _one(value: Value | None) -> Sequence[tuple[Labels, Value]]:
    return () if value is None else (({}, value),)


_ACCOUNTS = text(
    "SELECT name, debits_posted_micro AS debits, credits_posted_micro AS credits"
    " FROM account ORDER BY name"
)


def _money(tx: Connection) -> Iterator[Family]:
    balance = store.balance(tx)
    yield _gauge("balance_posted_credits", "What the treasury has.", _one(balance.posted))
    yield _gauge("balance_held_credits", "What open holds claim of it.", _one(balance.held))
    yield _gauge(
        "balance_available_credits",
        "Posted less held; the reserve is not taken off.",
        _one(balance.available),
    )
    accounts = tx.execute(_ACCOUNTS).all()

    def moved(side: str, *families: str) -> list[tuple[Labels, Value]]:
        return [
            ({"account": row.name}, MicroCredits(getattr(row, side)))
            for row in accounts
            if row.name.partition(":")[0] in families
        ]

    yield _counter(
        "spent_credits", "Charged for inference, by account.", moved("debits", "inference")
    )
    yield _counter(
        "spent_returned_credits",
        "What corrections gave back of what was spent.",
        moved("credits", "inference"),
    )
    yield _counter(
        "earned_credits",
        "Income: engagement is notional, revenue is money.",
        moved("credits", "engagement", "revenue"),
    )
    yield _counter(
        "earned_returned_credits",
        "What refunds and corrections took back of what was earned.",
        moved("debits", "engagement", "revenue"),
    )
    yield _counter("deposited_credits", "The operator's own deposits.", moved("credits", "grants"))


def _pace(tx: Connection, settings: Settings, at: datetime) -> Iterator[Family]:
    policy, books = settings.policy, look.books(tx, at)
    yield _gauge(
        "spent_window_credits",
        "Spent in a rolling window, open holds included.",
        [({"window": "24h"}, books.spent_day), ({"window": "30d"}, books.spent_month)],
    )
    yield _gauge(
        "spent_window_cap_credits",
        "What may be spent in a rolling window.",
        [({"window": "24h"}, policy.daily_cap), ({"window": "30d"}, policy.monthly_cap)],
    )
    yield _gauge("reserve_credits", "What is never spent.", _one(policy.reserve))
    yield _gauge("runway_wanted_days", "PENSTOCK_RUNWAY_DAYS.", _one(policy.runway_days))
    runway, cadence, tier = math.nan, None, None
    try:
        pace = look.look(tx, settings, at).pace
    except UnknownPrice:
        # Alerts and `status` say so; the rest can be measured all the same.
        pass
    else:
        tier, cadence = pace.tier, pace.cadence
        if tier is not Tier.DORMANT:
            runway = math.inf if pace.runway_days is None else pace.runway_days
    yield _gauge(
        "runway_days",
        "Days until the reserve is reached; +Inf where there is no end, NaN where nothing is spent"
        " or no price is known.",
        _one(runway),
    )
    yield _gauge("cadence_runs_per_day", "How often a run may begin.", _one(cadence))
    yield _gauge(
        "tier",
        "1 for the tier a run would have now.",
        [({"tier": one}, int(one is tier)) for one in Tier] if tier is not None else [],
    )


_ATTEMPTS = (
    "SELECT provider, model, outcome, COUNT(*) AS times FROM attempt"
    " WHERE outcome IS NOT NULL AND {} GROUP BY provider, model, outcome"
)
_BEFORE = text(_ATTEMPTS.format("at < :until"))
_BETWEEN = text(_ATTEMPTS.format("at >= :since AND at < :until"))
_SINCE = text(_ATTEMPTS.format("at >= :since"))
_OPEN = text(
    """
SELECT COUNT(CASE WHEN outcome IS NULL THEN 1 END) AS in_flight,
       COUNT(CASE WHEN outcome = 'unknown' THEN 1 END) AS unknown
FROM attempt WHERE cost_micro IS NULL AND (outcome IS NULL OR outcome = 'unknown')
"""
)


class Attempts:
    """
    Counts requests to providers without reading the years of them at each scrape.

    A hundred thousand take 0.2 s to read, those of a day 3 ms. What is older than a day has ended
    one way or another, so it is counted once.
    """

    def __init__(self) -> None:
        self._until: datetime | None = None
        self._before: Counter[Key] = Counter()

    def families(self, tx: Connection, at: datetime) -> Iterator[Family]:
        """What was asked so far, and what is open."""
        counts = self._counted(tx, at)
        yield _counter(
            "attempts",
            "HTTP requests to model providers that have ended, by outcome.",
            [
                ({"provider": provider, "model": model, "outcome": outcome}, counts[key])
                for key in sorted(counts)
                for provider, model, outcome in [key]
            ],
        )
        row = tx.execute(_OPEN).one()
        yield _gauge("attempts_in_flight", "Requests under way.", _one(row.in_flight))
        yield _gauge(
            "attempts_unconfirmed",
            "Requests that may have been billed, and whose hold stays until that is known.",
            _one(row.unknown),
        )

    def _counted(self, tx: Connection, at: datetime) -> Counter[Key]:
        until = at - RECENT
        if self._until is None or until < self._until:
            # The first time, or the clock was set back, and new rows may be older than counted.
            self._before = _counts(tx, _BEFORE, until=until)
        else:
            self._before += _counts(tx, _BETWEEN, since=self._until, until=until)
        self._until = until
        recent = _counts(tx, _SINCE, since=until)
        # A series that has begun stays, so that its first increase is seen.
        pairs = {key[:2] for key in (self._before.keys() | recent.keys())}
        zeros = Counter({(*pair, str(outcome)): 0 for pair in pairs for outcome in Outcome})
        zeros.update(self._before)
        zeros.update(recent)
        return zeros


def _counts(tx: Connection, statement: Any, **bounds: datetime) -> Counter[Key]:
    rows = tx.execute(statement, {name: to_text(at) for name, at in bounds.items()})
    return Counter({(row.provider, row.model, row.outcome): row.times for row in rows})


_RUNS = text("SELECT state, outcome, COUNT(*) AS times FROM run GROUP BY state, outcome")
_PUBLICATIONS = text(
    "SELECT platform, state, COUNT(*) AS times FROM publication GROUP BY platform, state"
)
_ENGAGEMENT = text(
    'SELECT platform, metric, SUM("count") AS total FROM metric'
    " GROUP BY platform, metric ORDER BY platform, metric"
)
_LAST_RUN = text("SELECT MAX(started_at) FROM run")
# A publication's times stand behind its bytes; of a thousand articles that would be tens of MB.
_LAST = text(
    """
SELECT platform, MAX(published_at) AS published_at, MAX(counted_at) AS counted_at
FROM publication WHERE run IN (
    SELECT id FROM run WHERE outcome IN ('published', 'unconfirmed') ORDER BY started_at DESC
    LIMIT 100)
GROUP BY platform ORDER BY platform
"""
)
_COLLECTED = text("SELECT last FROM bell WHERE name = 'collect' AND last > hung_at")


def _work(tx: Connection, platforms: Sequence[str]) -> Iterator[Family]:
    runs = Counter(dict.fromkeys((*map(str, RunOutcome), UNFINISHED), 0))
    for row in tx.execute(_RUNS):
        runs[run_state(row.state, row.outcome)] += row.times
    yield _counter("runs_begun", "Runs that were begun.", _one(runs.total()))
    yield _gauge(
        "runs",
        "Runs by what they have come to; a gauge, as one that failed may be published later.",
        [({"outcome": outcome}, count) for outcome, count in runs.items()],
    )
    posts = Counter({(name, str(state)): 0 for name in platforms for state in PublicationState})
    posts.update({(row.platform, row.state): row.times for row in tx.execute(_PUBLICATIONS)})
    yield _gauge(
        "publications",
        "Articles by destination, and where they stand there.",
        [({"platform": name, "state": state}, n) for (name, state), n in sorted(posts.items())],
    )
    yield _gauge(
        "engagement",
        "What readers did, as the platforms count it now.",
        [
            ({"platform": row.platform, "metric": row.metric}, row.total)
            for row in tx.execute(_ENGAGEMENT)
        ],
    )
    yield from _moments(tx)


def _moments(tx: Connection) -> Iterator[Family]:
    last = tx.execute(_LAST).all()
    yield _gauge(
        "last_published_timestamp_seconds",
        "When an article last went live, by destination.",
        [({"platform": r.platform}, _epoch(r.published_at)) for r in last if r.published_at],
    )
    yield _gauge(
        "last_counted_timestamp_seconds",
        "When a destination last said what readers did.",
        [({"platform": r.platform}, _epoch(r.counted_at)) for r in last if r.counted_at],
    )
    for name, about, statement in (
        ("last_run", "When the newest run was begun.", _LAST_RUN),
        ("last_collection", "The slot that engagement was last collected for.", _COLLECTED),
    ):
        found = tx.execute(statement).scalar()
        yield _gauge(f"{name}_timestamp_seconds", about, _one(found and _epoch(found)))


def _epoch(moment: str) -> float:
    return from_text(moment).timestamp()


def _people(tx: Connection, at: datetime) -> Iterator[Family]:
    """What a person may have to look at."""
    yield _gauge(
        "publications_unconfirmed",
        "Publications that may be live without our knowing.",
        _one(journal.unconfirmed(tx)),
    )
    yield _gauge(
        "drafts_waiting", "Drafts that wait for a person.", _one(journal.waiting_drafts(tx))
    )
    standing = Counter(dict.fromkeys(map(str, Kind), 0))
    standing.update(row.kind for row in alerts.standing(tx, at))
    yield _gauge(
        "alerts",
        "Alerts that stand, by kind.",
        [({"kind": kind}, count) for kind, count in standing.items()],
    )
    paused = control.paused(tx) is not None
    yield _gauge("paused", "1 while the operator has paused it.", _one(int(paused)))


def _process() -> Iterator[Family]:
    """By the names that every client library gives them."""
    yield _gauge("build_info", "The version that runs.", [({"version": __version__}, 1)])
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield Family(
        "process_cpu_seconds_total",
        "counter",
        "Processor time, of the user and the system.",
        _one(used.ru_utime + used.ru_stime),
    )
    yield Family(
        "process_resident_memory_bytes", "gauge", "Memory in use.", _one(_resident_bytes())
    )


def _resident_bytes() -> int | None:
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# The server


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to one request."""

    status: str
    body: str
    headers: Mapping[str, str]


class Server:
    """What listens. `port` is where."""

    def __init__(self, read: Callable[[], Awaitable[str]]) -> None:
        self._read = read
        self._listening: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def listen(self, port: int) -> None:
        """Begin; OSError where the port is taken."""
        self._listening = await asyncio.start_server(
            self._meet, HOST, port, limit=REQUEST_MAX_BYTES
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listening is not None
        return int(self._listening.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more, and let go of whoever is being answered."""
        if self._listening is not None:
            self._listening.close()
        for talk in self._talks:
            talk.cancel()

    async def wait_closed(self) -> None:
        """Until nobody is being answered."""
        if self._talks:
            await asyncio.wait(set(self._talks))
        if self._listening is not None:
            await self._listening.wait_closed()

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        try:
            async with asyncio.timeout(REQUEST_MAX_S):
                request = await _head(reader)
            answer = await self._answer(request)
            async with asyncio.timeout(REQUEST_MAX_S):
                writer.write(_written(answer, with_body=not request.startswith(b"HEAD ")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            # They hung up, or say nothing: their affair.
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes) -> Answer:
        refusal = _refusal(head)
        if refusal is not None:
            return refusal
        try:
            return Answer("200 OK", await self._read(), {"Content-Type": CONTENT_TYPE})
        except Unavailable as error:
            return _plain("503 Service Unavailable", " ".join(str(error).split()))


async def serve(port: int, read: Callable[[], Awaitable[str]]) -> Server:
    """
    Answer GET /metrics on 127.0.0.1 with what `read` says, until closed.

    Args:
        port: 0 for one that is free.
        read: may raise `Unavailable`, which is 503.
    Raises:
        OSError: the port is taken, or not ours to take.
    """
    server = Server(read)
    await server.listen(port)
    return server


async def _head(reader: asyncio.StreamReader) -> bytes:
    """A request up to its empty line; nothing where it is longer than we read."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return b""


def _refusal(head: bytes) -> Answer | None:
    """Why a request is not answered, if so."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _plain("400 Bad Request", "this is no request of HTTP/1.1, or it is too long")
    method, target, _ = words
    hosts = [
        value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
        if name.lower() == "host"
    ]
    # A web page can make a browser ask us under a name of its own, and read the answer.
    if any(host.rsplit(":", 1)[0] not in (HOST, "localhost") for host in hosts):
        return _plain("421 Misdirected Request", f"ask for {HOST} or localhost")
    if target.partition("?")[0] != "/metrics":
        return _plain("404 Not Found", "there is /metrics and nothing else")
    if method not in ("GET", "HEAD"):
        return _plain("405 Method Not Allowed", "it can only be read", {"Allow": "GET, HEAD"})
    return None


def _plain(status: str, sentence: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status, f"{sentence}\n", {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    )


def _written(answer: Answer, *, with_body: bool) -> bytes:
    body = answer.body.encode(errors="replace")
    headers = {**answer.headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode("latin-1") + body * with_body
