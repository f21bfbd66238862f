"""What Prometheus is told, over a real socket, against the books and the journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from daemon import __version__, alerts, bells, control, journal, metrics
from daemon import settings as settings_module
from daemon.alerts import Kind
from daemon.books import Books
from daemon.clock import SystemClock
from daemon.inference import attempts
from daemon.journal import RunOutcome, RunState
from daemon.metrics import CONTENT_TYPE, HOST, KEPT_S, Family, Metrics, Unavailable
from daemon.settings import Settings
from ledger import store
from ledger.database import Database
from ledger.money import MicroCredits
from ledger.types import to_text
from tests.cli_helpers import Desk
from tests.ledger_helpers import NO_LIMITS, cr, open_run
from tests.virtual import START

T = TypeVar("T")
Labelled = dict[tuple[str, frozenset[tuple[str, str]]], float]

NOW = START + timedelta(days=40)


# Reading the format


NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r"[a-zA-Z_][a-zA-Z0-9_]*"
PAIR = rf'{LABEL}="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({PAIR}(?:,{PAIR})*)\}})? (\S+)")
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def unescaped(value: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPES[found[0]], value)


def parsed(body: str) -> Labelled:
    """
    The exposition format 0.0.4, strictly; and as Prometheus's own parser reads it, where that is.

    Of each family: HELP, TYPE and its samples, once and together; no sample twice; a counter's
    name ends in `_total` and only a counter's.
    """
    found: Labelled = {}
    families: set[str] = set()
    family = kind = ""
    assert body.endswith("\n")
    lines = iter(body.split("\n")[:-1])
    for line in lines:
        if line.startswith("#"):
            help_, kind_ = re.fullmatch(rf"# HELP ({NAME}) ((?:[^\\]|\\[\\n])+)", line), next(lines)
            assert help_, line
            family = help_[1]
            declared = re.fullmatch(rf"# TYPE {family} (counter|gauge)", kind_)
            assert declared, kind_
            kind = declared[1]
            assert family not in families
            families.add(family)
            assert family.endswith("_total") == (kind == "counter"), family
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == family
        pairs = re.findall(rf'({LABEL})="((?:[^"\\]|\\.)*)"', sample[2] or "")
        labels = frozenset((name, unescaped(value)) for name, value in pairs)
        assert len({name for name, _ in labels}) == len(pairs)
        assert (family, labels) not in found, line
        value = float(sample[3])
        assert kind == "gauge" or value >= 0
        found[family, labels] = value
    check_with_their_parser(body, found)
    return found


def check_with_their_parser(body: str, ours: Labelled) -> None:
    try:
        from prometheus_client import parser  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return
    theirs = {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in parser.text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert comparable(theirs) == comparable(ours)


def comparable(found: Labelled) -> dict[Any, str]:
    """Two NaN are the same here."""
    return {key: repr(value) for key, value in found.items()}


class Page:
    """A scrape, by name and labels."""

    def __init__(self, body: str) -> None:
        self.body = body
        self._found = parsed(body)

    def __call__(self, name: str, **labels: str) -> float:
        return self._found[self._name(name), frozenset(labels.items())]

    def series(self, name: str) -> list[dict[str, str]]:
        return [dict(labels) for one, labels in self._found if one == self._name(name)]

    def has(self, name: str) -> bool:
        return bool(self.series(name))

    @staticmethod
    def _name(name: str) -> str:
        return name if name.startswith("process_") else f"penstock_{name}"


# A machine


class Machine:
    """A database with something in it, and whoever measures it."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.desk = Desk(folder).initialised(deposit="5")
        self.at = NOW
        self.clock = SystemClock(lambda: self.at)
        self.database = Database(f"sqlite:///{self.desk.database}", busy_timeout_ms=0)
        self.settings = settings(self.desk.state, **env)
        self.books = Books(self.database, self.clock)
        self.metrics = self.fresh()

    def fresh(self) -> Metrics:
        """As after a restart."""
        return Metrics(self.books, self.clock, self.settings)

    def scrape(self) -> Page:
        # Each in a loop of its own, whose time is another: nothing is kept.
        self.metrics._kept = None
        return Page(asyncio.run(self.metrics.read()))


def settings(state: Path, **env: str) -> Settings:
    base = {
        "PENSTOCK_STATE_DIR": str(state),
        "PENSTOCK_NICHE": "databases",
        "PENSTOCK_FEEDS": "http://blog.test/feed.xml",
        "PENSTOCK_PROVIDER_LLM_URL": "https://llm.test/v1",
        "PENSTOCK_PROVIDER_LLM_KEY": "sk-0123456789",
        "PENSTOCK_PRICES": "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8",
        "PENSTOCK_PUBLISHERS": "outbox,devto",
        "DEVTO_API_KEY": "k" * 24,
        **{
            f"PENSTOCK_MODELS_{role}": "llm/good > llm/cheap > digest"
            for role in ("RESEARCH", "WRITE", "EDIT")
        },
    }
    return settings_module.load(base | env, at=NOW)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    one = Machine(tmp_path)
    with closing(one.database):
        yield one


def ask(
    tx: Connection, id: str, at: datetime, outcome: str | None = "ok", *, model: str = "good",
    cost: int | None = 1000,
) -> None:  # fmt: skip
    attempts.begin(
        tx, id=id, at=at, run=id.partition(".")[0], step="write", role="write", provider="llm",
        model=model, outcome=outcome, price_input=1, price_cached=1, price_output=1,
        price_source="list", hold=f"hold:{id}", cost_micro=cost,
    )  # fmt: skip


def publish(
    tx: Connection, run: str, platform: str, state: str, *, at: datetime = NOW, **values: Any
) -> None:
    journal.intend(tx, run, platform, key=run, payload=b"x" * 9000, title="T", at=at)
    journal.change_publication(tx, run, platform, state=state, **values)


def test_prometheus_own_parser_reads_every_page_that_is_parsed_here(machine: Machine) -> None:
    pytest.importorskip(
        "prometheus_client",
        reason="NOT RUN: prometheus_client is not here, so its parser read no page; `make peers`",
    )
    page = machine.scrape()
    with pytest.raises(AssertionError):
        check_with_their_parser(
            page.body.replace("available_credits 5", "available_credits 4"), parsed(page.body)
        )


# What is measured


def test_the_books_are_told_to_the_millionth(machine: Machine) -> None:
    with machine.database.write() as tx:
        for name, hold, actual in (("a", "0.5", "0.123456"), ("b", "0.25", None)):
            store.hold(
                tx, id=name, account="inference:llm", amount=cr(hold), at=NOW, limits=NO_LIMITS
            )
            if actual:
                store.settle(tx, name, actual=cr(actual), at=NOW)
        store.earn(
            tx, id="e", platform="devto", amount=cr("0.5"), cap=cr("9"),
            since=NOW - timedelta(days=1), at=NOW,
        )  # fmt: skip
        store.deposit(tx, amount=cr("2"), ref="ch_1", source="stripe", at=NOW)
        store.refund(tx, amount=cr("0.75"), ref="re_1", source="stripe", at=NOW)
        store.adjust(tx, amount=cr("0.1"), ref="bill", memo="m", corrects="a:settle", at=NOW)
    page = machine.scrape()
    with machine.database.read() as tx:
        balance = store.balance(tx)
        expected = {one.name: one.balance for one in store.account_balances(tx)}
    assert f"penstock_balance_posted_credits {balance.posted}\n" in page.body
    assert f"penstock_balance_held_credits {cr('0.25')}\n" in page.body
    assert f"penstock_balance_available_credits {balance.available}\n" in page.body
    spent, back = (
        page("spent_credits_total", account="inference:llm"),
        page("spent_returned_credits_total", account="inference:llm"),
    )
    assert (spent, back) == (0.123456, 0.1)
    assert spent - back == pytest.approx(expected["inference:llm"].micro / 1e6)
    assert page("earned_credits_total", account="engagement:devto") == 0.5
    assert page("earned_credits_total", account="revenue:stripe") == 2
    assert page("earned_returned_credits_total", account="revenue:stripe") == 0.75
    assert page("deposited_credits_total", account="grants") == 5
    assert page("spent_window_credits", window="24h") == pytest.approx(0.373456)
    assert page("spent_window_cap_credits", window="24h") == 1
    assert page("reserve_credits") == 0.1


def test_requests_are_counted_by_how_they_ended(machine: Machine) -> None:
    with machine.database.write() as tx:
        ask(tx, "r1.1", NOW - timedelta(days=30))
        ask(tx, "r1.2", NOW - timedelta(hours=30), "refused", cost=0)
        ask(tx, "r1.3", NOW - timedelta(hours=2))
        ask(tx, "r1.4", NOW, "unknown", cost=None)
        ask(tx, "r1.5", NOW, None, cost=None)
        ask(tx, "r1.6", NOW, "unsent", model='odd"\\\n{}, name', cost=0)
    page = machine.scrape()
    counts = {
        (one["model"], one["outcome"]): page("attempts_total", **one)
        for one in page.series("attempts_total")
    }
    nothing = dict.fromkeys(("ok", "refused", "unsent", "unknown"), 0)
    good = nothing | {"ok": 2, "refused": 1, "unknown": 1}
    odd = nothing | {"unsent": 1}
    assert counts == {("good", name): count for name, count in good.items()} | {
        ('odd"\\\n{}, name', name): count for name, count in odd.items()
    }
    assert page("attempts_in_flight") == 1
    assert page("attempts_unconfirmed") == 1


@given(
    st.lists(st.tuples(st.integers(-90, 90), st.sampled_from(["ok", "refused", None])), max_size=8)
)
def test_counters_that_go_on_are_those_of_a_fresh_start(
    steps: list[tuple[int, str | None]],
) -> None:
    """Whatever the clock does, what was counted once is counted once."""
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    table = attempts._attempt
    with engine.begin() as tx:
        table.create(tx)
        going, at, highest = metrics.Attempts(), NOW, 0.0
        for number, (hours, outcome) in enumerate(steps):
            at += timedelta(hours=hours)
            ask(tx, f"r.{number}", at, outcome)
            found, fresh = (list(one.families(tx, at)) for one in (going, metrics.Attempts()))
            assert found == fresh
            total = sum(float(str(value)) for _, value in found[0].samples)
            assert total >= highest
            highest = total
        rows = tx.execute(text("SELECT COUNT(*) FROM attempt WHERE outcome IS NOT NULL")).scalar()
        assert rows == highest


def test_runs_and_publications_are_told_with_what_waits(machine: Machine) -> None:
    day = timedelta(days=1)
    with machine.database.write() as tx:
        for number, outcome in enumerate([RunOutcome.PUBLISHED] * 3 + [RunOutcome.FAILED]):
            open_run(tx, f"r{number}", NOW - (9 - number) * day)
            journal.finish_run(tx, f"r{number}", outcome=outcome, reason=None, at=NOW)
        open_run(tx, "waits", NOW - 3 * day)
        journal.change_run(tx, "waits", state=RunState.AWAITING_APPROVAL)
        open_run(tx, "runs", NOW - 2 * day)
        live = {"published_at": NOW - 7 * day, "counted_at": NOW - day}
        publish(tx, "r0", "devto", "published", **live)
        publish(tx, "r1", "devto", "published", **live | {"published_at": NOW - 5 * day})
        publish(tx, "r1", "outbox", "published", published_at=NOW - 6 * day)
        publish(tx, "r2", "devto", "unconfirmed")
        publish(tx, "r3", "retired", "failed")
        row = "INSERT INTO metric VALUES ('r{}', 'devto', '{}', {}, 9, 0, 0, '{}')"
        for run, metric, count in ((0, "view", 7), (1, "view", 5), (1, "like", 2)):
            tx.execute(text(row.format(run, metric, count, to_text(NOW))))
    page = machine.scrape()
    assert page("runs_begun_total") == 6
    by_outcome = {one["outcome"]: page("runs", **one) for one in page.series("runs")}
    assert {name: count for name, count in by_outcome.items() if count} == {
        "published": 3, "failed": 1, "awaiting_approval": 1, "unfinished": 1,
    }  # fmt: skip
    assert page("publications", platform="devto", state="published") == 2
    assert page("publications", platform="outbox", state="failed") == 0
    assert page("publications", platform="retired", state="failed") == 1
    assert page("publications_unconfirmed") == 1
    assert page("drafts_waiting") == 1
    assert page("engagement", platform="devto", metric="view") == 12
    assert page("engagement", platform="devto", metric="like") == 2
    moments = {"devto": NOW - 5 * day, "outbox": NOW - 6 * day}
    for platform, at in moments.items():
        name = "last_published_timestamp_seconds"
        assert page(name, platform=platform) == at.timestamp()
    assert page("last_counted_timestamp_seconds", platform="devto") == (NOW - day).timestamp()
    assert page("last_run_timestamp_seconds") == (NOW - 2 * day).timestamp()
    # Never published anywhere, so there is no moment to tell.
    assert {"platform": "retired"} not in page.series("last_published_timestamp_seconds")


def test_a_collection_is_told_once_there_was_one(machine: Machine) -> None:
    assert not machine.scrape().has("last_collection_timestamp_seconds")
    with machine.database.write() as tx:
        bells.hang(tx, NOW)
    assert not machine.scrape().has("last_collection_timestamp_seconds")
    slot = NOW + timedelta(minutes=30)
    with machine.database.write() as tx:
        bells.ring(tx, bells.Bell.COLLECT, slot)
    assert machine.scrape()("last_collection_timestamp_seconds") == slot.timestamp()


def test_alerts_the_pause_and_the_pace_are_told(machine: Machine) -> None:
    page = machine.scrape()
    assert {one["kind"] for one in page.series("alerts")} == set(map(str, Kind))
    assert sum(page("alerts", **one) for one in page.series("alerts")) == 0
    assert page("paused") == 0
    assert [one["tier"] for one in page.series("tier") if page("tier", **one)] == ["surplus"]
    assert 4 * 14 <= page("runway_days") < 1000
    assert page("runway_wanted_days") == 14
    assert page("cadence_runs_per_day") == pytest.approx(3 / 7, rel=0.01)
    with machine.database.write() as tx:
        alerts.sound(tx, Kind.BARRED, "devto", "no", at=NOW)
        alerts.sound(tx, Kind.BARRED, "bluesky", "no", at=NOW)
        alerts.sound(tx, Kind.GONE, "r1", "long ago", at=NOW - timedelta(days=8))
        control.pause(tx, reason=None, at=NOW)
    page = machine.scrape()
    assert page("alerts", kind="barred") == 2
    assert page("alerts", kind="gone") == 0
    assert page("paused") == 1


def test_a_runway_without_end_is_infinite_and_of_a_sleeper_there_is_none(tmp_path: Path) -> None:
    for index, (env, runway, tier) in enumerate(
        [
            ({"PENSTOCK_PRICES": "llm/*=0,0,0"}, math.inf, "surplus"),
            ({"PENSTOCK_RESERVE": "5"}, math.nan, "dormant"),
        ]
    ):
        machine = Machine(tmp_path / str(index), **env)
        with closing(machine.database):
            page = machine.scrape()
        assert repr(page("runway_days")) == repr(runway)
        assert [one["tier"] for one in page.series("tier") if page("tier", **one)] == [tier]


def test_the_process_is_told_by_the_names_everybody_uses(machine: Machine) -> None:
    page = machine.scrape()
    assert page("process_resident_memory_bytes") > 10_000_000
    assert page("process_cpu_seconds_total") > 0
    assert page("build_info", version=__version__) == 1


def test_a_scrape_is_kept_for_some_seconds_and_read_once_for_all(machine: Machine) -> None:
    reads = 0
    read = machine.metrics._text

    def counted(at: datetime) -> str:
        nonlocal reads
        reads += 1
        return read(at)

    machine.metrics._text = counted  # type: ignore[method-assign]

    async def scrapes() -> None:
        pages = await asyncio.gather(*(machine.metrics.read() for _ in range(20)))
        assert len(set(pages)) == 1
        assert reads == 1
        await machine.metrics.read()
        assert reads == 1
        assert machine.metrics._kept is not None
        machine.metrics._kept = (machine.metrics._kept[0] - KEPT_S, machine.metrics._kept[1])
        await machine.metrics.read()
        assert reads == 2

    asyncio.run(scrapes())


@given(
    st.lists(
        st.tuples(
            st.from_regex(rf"\A{NAME}\Z").filter(lambda name: not name.endswith("_total")),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
            st.lists(
                st.tuples(
                    st.dictionaries(
                        st.from_regex(rf"\A{LABEL}\Z").filter(lambda name: name != "__name__"),
                        st.text(st.characters(exclude_categories=["Cs"])), max_size=3,
                    ),
                    st.one_of(st.integers(), st.floats(), st.builds(MicroCredits, st.integers())),
                ),
                max_size=3, unique_by=lambda one: str(sorted(one[0].items())),
            ),
        ),
        max_size=4, unique_by=lambda family: family[0],
    )
)  # fmt: skip
def test_whatever_is_told_is_read_back(families: list[tuple[str, str, Any]]) -> None:
    body = metrics.render(Family(name, "gauge", about, told) for name, about, told in families)
    if not any(told for _, _, told in families):
        assert body == ""
        return
    found = our_reading(body)
    expected = {
        (name, frozenset(labels.items())): float(str(value))
        for name, _, told in families
        for labels, value in told
    }
    assert comparable(found) == comparable(expected)


def our_reading(body: str) -> Labelled:
    """Without the second opinion: their parser knows other ends of lines than the format does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "check_with_their_parser", lambda *_: None)
        return parsed(body)


# Over the socket


def served(read: Callable[[], Awaitable[str]], talk: Callable[[int], Coroutine[Any, Any, T]]) -> T:
    async def both() -> T:
        server = await metrics.serve(0, read)
        try:
            return await talk(server.port)
        finally:
            server.close()
            async with asyncio.timeout(5):
                await server.wait_closed()

    return asyncio.run(both())


@asynccontextmanager
async def connected(
    port: int, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is gone afterwards."""
    reader, writer = await asyncio.open_connection(HOST, port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def said(port: int, request: bytes) -> tuple[str, dict[str, str], str]:
    """What is answered to these bytes."""
    async with connected(port) as (reader, writer):
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 10)
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("content-length") and not request.startswith(b"HEAD"):
        assert int(headers["content-length"]) == len(body.encode())
    return first.removeprefix("HTTP/1.1 "), headers, body


async def until_there_is_an_answer(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ConnectionError):
                if (await said(port, GET))[0] == "200 OK":
                    return
            await asyncio.sleep(0.01)


async def fine() -> str:
    return "penstock_up 1\n"


GET = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_prometheus_gets_the_page_over_a_socket(machine: Machine) -> None:
    async def life() -> None:
        server = await metrics.serve(0, machine.metrics.read)
        status, headers, body = await said(server.port, GET)
        assert (status, headers["content-type"]) == ("200 OK", CONTENT_TYPE)
        assert headers["connection"] == "close"
        assert Page(body)("balance_posted_credits") == 5
        port = server.port
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    asyncio.run(life())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, "200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        (b"HEAD /metrics HTTP/1.1\r\nHost: localhost:9\r\n\r\n", "200 OK"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/../x HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421 Misdirected Request"),
        (b"GET /metrics HTTP/1.1\r\nhost: localhost.x:80\r\n\r\n", "421 Misdirected Request"),
        (b"GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", "400 Bad Request"),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n", "400 Bad Request"),
    ],
)  # fmt: skip
def test_only_the_metrics_are_answered(request_: bytes, status: str) -> None:
    found, headers, body = served(fine, lambda port: said(port, request_))
    assert found == status
    assert "Traceback" not in body
    if request_.startswith(b"HEAD"):
        assert body == ""
    if status.startswith("405"):
        assert headers["allow"] == "get, head"


def test_only_loopback_is_listened_on() -> None:
    async def life() -> str:
        server = await metrics.serve(0, fine)
        assert server._listening is not None
        bound = [socket.getsockname()[0] for socket in server._listening.sockets]
        server.close()
        await server.wait_closed()
        return ",".join(bound)

    assert asyncio.run(life()) == "127.0.0.1"


def test_a_port_that_is_taken_is_an_error_of_the_system() -> None:
    async def twice(port: int) -> None:
        with pytest.raises(OSError, match="in use"):
            await metrics.serve(port, fine)

    served(fine, twice)


def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_MAX_S", 0.1)

    async def wait(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(b"GET /metrics HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""

    served(fine, wait)


def test_who_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_MAX_S", 0.2)

    SIZE = 50_000_000  # noqa: N806

    async def much() -> str:
        return "x" * SIZE

    async def stall(port: int) -> None:
        async with connected(port, limit=1024) as (reader, writer):
            writer.write(GET)
            await asyncio.sleep(0.5)
            with contextlib.suppress(ConnectionError):
                received = 0
                while chunk := await reader.read(1_000_000):
                    received += len(chunk)
                assert received < SIZE

    served(much, stall)


def test_a_crowd_is_bounded_and_leaves_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(metrics, "REQUEST_MAX_S", 120.0)

    async def crowd(port: int) -> None:
        async with AsyncExitStack() as held:
            for _ in range(4):
                await held.enter_async_context(connected(port))
            await asyncio.sleep(0.05)
            reader, _ = await held.enter_async_context(connected(port))
            # At once, and not only when its time to say something is over.
            async with asyncio.timeout(metrics.REQUEST_MAX_S / 2):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        await until_there_is_an_answer(port)

    served(fine, crowd)


def test_closing_lets_go_of_whoever_is_being_answered() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async def talk() -> None:
        server = await metrics.serve(0, never)
        async with connected(server.port) as (reader, writer):
            writer.write(GET)
            await asyncio.sleep(0.05)
            server.close()
            async with asyncio.timeout(5):
                await server.wait_closed()
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""

    asyncio.run(talk())


# Trouble under it


def test_a_scrape_during_a_write_shows_what_was_before(machine: Machine) -> None:
    with machine.database.write() as tx:
        store.deposit(tx, amount=cr("1"), ref="more", at=NOW)
        assert machine.scrape()("balance_posted_credits") == 5
    assert machine.scrape()("balance_posted_credits") == 6


def test_a_locked_database_is_503_with_the_reason(machine: Machine) -> None:
    machine.database.close()
    with closing(sqlite3.connect(machine.desk.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        status, _, body = served(machine.metrics.read, lambda port: said(port, GET))
        assert status == "503 Service Unavailable"
        assert "locked" in body
        assert "Traceback" not in body
        other.execute("ROLLBACK")
    assert machine.scrape()("balance_posted_credits") == 5


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "malformed"),
        (lambda path: drop(path, "attempt"), "unexpected: OperationalError"),
    ],
)
def test_a_broken_database_is_503_and_no_traceback(
    machine: Machine, harm: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine.database.close()
    harm(machine.desk.database)

    async def twice(port: int) -> list[tuple[str, dict[str, str], str]]:
        return [await said(port, GET), await said(port, GET)]

    with caplog.at_level(logging.WARNING):
        answers = served(machine.metrics.read, twice)
    for status, _, body in answers:
        assert status == "503 Service Unavailable"
        assert reason in body
        assert len(body.splitlines()) == 1
    assert len([one for one in caplog.records if one.name == "daemon.metrics"]) == (
        1 if "unexpected" in reason else 0
    )


def drop(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {table}")


def test_a_disk_that_hangs_is_503_and_keeps_one_thread(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "READ_MAX_S", 0.1)
    go, begun = threading.Event(), []

    def stuck(at: datetime) -> str:
        begun.append(at)
        go.wait(10)
        return "penstock_up 1\n"

    machine.metrics._text = stuck  # type: ignore[method-assign]

    async def scrapes(port: int) -> None:
        for _ in range(3):
            status, _, body = await said(port, GET)
            assert status.startswith("503")
            assert "did not answer" in body
        assert len(begun) == 1
        go.set()
        await until_there_is_an_answer(port)

    served(machine.metrics.read, scrapes)


def test_a_reason_is_one_line() -> None:
    async def no() -> str:
        raise Unavailable("a\r\n\r\nb")

    assert served(no, lambda port: said(port, GET))[2] == "a b\n"


def test_the_loop_goes_on_while_it_is_read(machine: Machine) -> None:
    """The first read after a start may take a while."""
    go = threading.Event()
    machine.metrics._text = lambda at: f"penstock_up {go.wait(10):d}\n"  # type: ignore[method-assign]

    async def beats() -> str:
        reading = asyncio.create_task(machine.metrics.read())
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not reading.done()
        go.set()
        return await reading

    assert asyncio.run(beats()) == "penstock_up 1\n"
