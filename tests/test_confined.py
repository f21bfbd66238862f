"""Strangers' bytes are parsed in a process with limits, and what they do to it costs only them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from daemon.sources import confined
from daemon.sources.confined import Confined, Parser, Unconfined
from daemon.sources.parse import ParsedFeed, ParsedPage, ParseError
from tests.corpora import FEEDS, REAL_BLOG

ROOT = Path(__file__).parents[1]
MB = 1_000_000
T = TypeVar("T")
Kind = Literal["feed", "page"]

RSS = b'<?xml version="1.0"?><rss version="2.0"><channel><title>Notes</title>'
END = b"</channel></rss>"
PROSE = b"".join(
    b"<p>In year %d gate %d let %d litres through, as much as the reservoir could bear.</p>"
    % (1900 + n, n, n * 31)
    for n in range(12)
)
HTML = b"<!doctype html><html><head><title>On sluices</title></head><body><article>"
PAGE = HTML + PROSE + b"</article></body></html>"


def item(title: bytes = b"News", text: bytes = b"d", more: bytes = b"") -> bytes:
    return (
        b"<item><title>" + title + b"</title><link>https://blog.example/news</link><description>"
        + text + b"</description>" + more + b"</item>"
    )  # fmt: skip


FEED = RSS + item() + END


async def feed(parser: Parser, body: bytes = FEED) -> ParsedFeed:
    return await parser.feed(body, url="https://blog.example/feed.xml", content_type="")


async def page(parser: Parser, body: bytes = PAGE) -> ParsedPage:
    return await parser.page(body, url="https://blog.example/p", content_type="text/html")


async def said(parser: Parser, kind: Kind, body: bytes) -> Any:
    """What comes of it, in a form that can be compared."""
    try:
        if kind == "page":
            return await page(parser, body)
        found = await feed(parser, body)
    except ParseError as error:
        return str(error)
    return found.title, list(found.items), list(found.listed)


def confining(act: Callable[[Confined], Awaitable[T]], timeout_s: float = confined.TIMEOUT_S) -> T:
    """Do something with a parser, which is closed afterwards."""

    async def main() -> T:
        parser = Confined(timeout_s)
        try:
            return await act(parser)
        finally:
            await parser.close()

    return asyncio.run(main())


def pid(parser: Confined) -> int:
    assert parser._worker is not None
    return parser._worker._process.pid


def is_alive(process: int) -> bool:
    """Whether there is such a process, a zombie counted."""
    return Path(f"/proc/{process}").exists()


def is_running(process: int) -> bool:
    """Whether it is there and no zombie: an orphan is reaped by whoever adopts it, or nobody."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def killed(process: int) -> None:
    """Kill it and wait until the last of its threads is gone; whoever made it reaps it."""
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def in_hand() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


# The same answers


def test_real_pages_say_the_same_as_without_a_process() -> None:
    files = sorted(REAL_BLOG.glob("*.html"))
    if not files:
        pytest.skip(f"NOT RUN: {REAL_BLOG} is not here, so no real page was tried")

    async def act(parser: Confined) -> None:
        for file in files:
            body = file.read_bytes()
            apart, here = await said(parser, "page", body), await said(Unconfined(), "page", body)
            assert apart == here, file.name
            assert isinstance(apart, ParsedPage), (file.name, apart)

    confining(act)


def test_every_feed_of_the_corpus_says_the_same_in_one_process_that_trips_over_none() -> None:
    files = sorted(file for file in FEEDS.rglob("*") if file.suffix in (".xml", ".json"))
    if not files:
        pytest.skip(f"NOT RUN: {FEEDS} is not here, so no odd feed was tried")

    async def act(parser: Confined) -> None:
        await feed(parser)
        first = pid(parser)
        for file in files[::5]:
            body = file.read_bytes()
            apart, here = await said(parser, "feed", body), await said(Unconfined(), "feed", body)
            assert apart == here, file
            assert "its reader" not in apart, file
        assert pid(parser) == first

    confining(act)


# Bombs


def full(unit: bytes, size: int = 5 * MB) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


def entities(text: bytes, *declared: bytes) -> bytes:
    return b"<!DOCTYPE r [" + b"".join(declared) + b"]>" + RSS[21:] + item(b"t", text) + END


def laughs(levels: int = 9) -> bytes:
    each = (
        b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"lol") for n in range(levels)
    )
    return entities(b"&l%d;" % (levels - 1), *each)


def scattered(size: int = 5 * MB) -> bytes:
    """Bytes without any order that a parser could hold on to; the same ones every time."""
    state, out = 1, bytearray()
    while len(out) < size:
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        out += struct.pack(">Q", state ^ state >> 29)
    return bytes(out)


BOMBS: dict[str, tuple[Kind, Callable[[], bytes]]] = {
    "billion laughs": ("feed", laughs),
    "quadratic entities": (
        "feed",
        lambda: entities(b"&a;" * 5000, b'<!ENTITY a "' + b"a" * 100_000 + b'">'),
    ),
    "deep tags in a feed": ("feed", lambda: RSS + full(b"<a>", 2 * MB)),
    "numeric references": ("feed", lambda: RSS + item(b"t", full(b"&#65;")) + END),
    "numeric references beyond Unicode": (
        "feed",
        lambda: RSS + item(b"t", full(b"&#99999999999999;")) + END,
    ),
    "a numeric reference of 5 MB": (
        "feed",
        lambda: RSS + item(b"t", b"&#" + full(b"9") + b";") + END,
    ),
    "declarations in CDATA": (
        "feed",
        lambda: RSS + item(b"t", b"<![CDATA[" + full(b"<!") + b"]]>") + END,
    ),
    "CDATA sections": ("feed", lambda: RSS + item(b"t", full(b"<![CDATA[x]]>")) + END),
    "attributes in a feed": (
        "feed",
        lambda: RSS + b"<item " + b" ".join(b'a%d="b"' % n for n in range(400_000)) + b"/>" + END,
    ),
    "a base that every link repeats": (
        "feed",
        lambda: b'<rss version="2.0" xml:base="http://a.example/' + full(b"a/", 2 * MB)
        + b'"><channel>' + b"<item><title>t</title><link>x</link></item>" * 1000 + END,
    ),
    "outlines in OPML": ("feed", lambda: b"<opml>" + full(b"<outline>")),
    "a feed in UTF-32": ("feed", lambda: full((RSS + item()).decode().encode("utf-32"))),
    "a feed in UTF-7": (
        "feed",
        lambda: b'<?xml version="1.0" encoding="utf-7"?>' + full(b"+ADw-"),
    ),
    "a feed of null bytes": ("feed", lambda: RSS + full(b"\0") + END),
    "a feed of noise": ("feed", scattered),
    "800,000 nested divs": ("page", lambda: HTML + b"<div>" * 800_000),
    "nested tables": ("page", lambda: HTML + PROSE + full(b"<table><tr><td>x")),
    "class names": ("page", lambda: HTML + full(b'<p class="comment share social">x</p>')),
    "one line": ("page", lambda: HTML + b"<p>" + full(b"a")),
    "sentences": ("page", lambda: HTML + b"<p>" + full(b"A b c. ")),
    "blanks": ("page", lambda: HTML + b"<p>a" + full(b" \t\n") + b"b" + PROSE),
    "tags never closed": ("page", lambda: HTML + full(b"<a ")),
    "comments never closed": ("page", lambda: HTML + full(b"<!--")),
    "unknown entities": ("page", lambda: HTML + b"<p>" + full(b"&foo;") + PROSE),
    "links": ("page", lambda: HTML + full(b'<a href="http://a.example/x">y</a> ')),
    "a wide table": ("page", lambda: HTML + b"<table><tr>" + full(b"<td>x</td>")),
    "spans of a table": (
        "page",
        lambda: HTML + PROSE + b"<table>" + full(b"<tr><td colspan=1000 rowspan=1000>x</td></tr>"),
    ),
    "an image within": (
        "page",
        lambda: HTML + b'<img src="data:image/png;base64,' + full(b"iVBORw0KGgo") + b'">' + PROSE,
    ),
    "dates": ("page", lambda: HTML + b"<p>" + full(b"2020-") + PROSE),
    "a page in UTF-16": ("page", lambda: (HTML + PROSE * 2000).decode().encode("utf-16")[: 5 * MB]),
    "a charset nobody knows": (
        "page",
        lambda: b'<meta charset="nosuch">' + PROSE + full(b"\xff\xfe"),
    ),
    "a page of noise": ("page", lambda: HTML + scattered()),
}  # fmt: skip


@dataclass(slots=True)
class Watch:
    """What one answer took; memory is the process's own peak, as often as it was looked at."""

    seconds: float = 0.0
    peak_bytes: int = 0
    outcome: str = ""


async def watched(parser: Confined, kind: Kind, body: bytes) -> Watch:
    found, started = Watch(), time.monotonic()
    process = pid(parser)
    task = asyncio.create_task(said(parser, kind, body))
    while not task.done():
        await asyncio.wait([task], timeout=0.02)
        found.peak_bytes = max(found.peak_bytes, peak_bytes(process))
    found.seconds = time.monotonic() - started
    outcome = task.result()
    found.outcome = outcome if isinstance(outcome, str) else "read"
    return found


def peak_bytes(process: int) -> int:
    """VmHWM, or nothing of a process that has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM"))
    return next((int(words[1]) * 1024 for words in lines), 0)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_within_its_memory_and_the_next_feed_is_read(name: str) -> None:
    kind, make = BOMBS[name]

    async def act(parser: Confined) -> Watch:
        await feed(parser)
        found = await watched(parser, kind, make())
        assert (await feed(parser)).items
        assert (await page(parser)).title == "On sluices"
        return found

    found = confining(act)
    assert found.peak_bytes <= 256 * MB, found
    assert found.seconds <= 30, found
    assert "its reader failed" not in found.outcome


# Apart from the others, since it takes the whole of its time: expat looks through every name space
# at every tag.
ENDLESS: tuple[Kind, Callable[[], bytes]] = (
    "feed",
    lambda: b'<rss version="2.0">' + b"".join(
        b'<n%d:a xmlns:n%d="u%d">' % (n, n, n) for n in range(160_000)
    ),
)  # fmt: skip


def test_who_computes_without_end_is_ended_and_the_next_feed_is_read() -> None:
    kind, make = ENDLESS

    async def act(parser: Confined) -> None:
        await feed(parser)
        found = await watched(parser, kind, make())
        assert found.outcome in ("reading it takes too much", "reading it takes too long")
        assert found.seconds <= 31
        assert (await feed(parser)).items

    confining(act)


# A process that dies, hangs or lies

WORKER = """
import json, socket, struct, sys, time
peer = socket.socket(fileno=int(sys.argv[1]))
def say(said): peer.sendall(struct.pack('>I', len(said)) + said)
def hear():
    lengths = struct.unpack('>II', peer.recv(8, socket.MSG_WAITALL))
    return [peer.recv(length, socket.MSG_WAITALL) for length in lengths]
"""
GREETED = WORKER + "say(b'{}'); hear(); "
EXPOSED = {"guid": "g", "url": "https://a.example/", "title": "t", "author": None, "summary": "",
           "text": "", "published_at": None}  # fmt: skip


def speaking(answer: bytes) -> str:
    return GREETED + f"peer.sendall({answer!r}); peer.recv(1)"


def framed(answer: object) -> bytes:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return struct.pack(">I", len(raw)) + raw


def with_item(**changed: object) -> bytes:
    return framed({"feed": {"title": "t", "items": [EXPOSED | changed]}})


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n" * 8,
        struct.pack(">I", 0xFFFFFFFF),
        framed(b""),
        framed(b"not JSON"),
        framed(b"\xff\xfe\x00"),
        framed(b"null"),
        framed([]),
        framed(7),
        framed("feed"),
        framed({}),
        framed(b'{"feed": NaN}'),
        framed(b'{"feed": {"title": NaN, "items": []}}'),
        framed(b'{"feed": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        framed(b'{"feed": {"title": "\\ud800", "items": []}}'),
        framed(b'{"error": ' + b"9" * 5000 + b"}"),
        framed({"feed": None}),
        framed({"feed": []}),
        framed({"feed": {"title": 7, "items": []}}),
        framed({"feed": {"title": "t", "items": {}}}),
        framed({"feed": {"title": "t", "items": [[]]}}),
        framed({"page": {"title": "t", "text": "of another question"}}),
        framed({"error": {"no": "line"}}),
        framed({"feed": {"title": "t", "items": []}, "error": "and yet"}),
        framed({"feed": {"title": "t", "items": []}, "last": "perhaps"}),
        with_item(published_at="2026-01-01T00:00:00"),
        with_item(published_at="soon"),
        with_item(published_at=1e400),
        with_item(url="javascript:alert(1)"),
        with_item(url=7),
        with_item(guid=None),
    ],
    ids=lambda answer: repr(answer[4:44]),
)
def test_a_reader_that_answers_with_something_else_is_replaced(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(parser: Confined) -> None:
        with monkeypatch.context() as lies:
            lies.setattr(confined, "_START", speaking(answer))
            with pytest.raises(ParseError, match="its reader answered with something else"):
                await feed(parser)
        assert (await feed(parser)).items

    confining(act)


def test_an_answer_that_breaks_off_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(parser: Confined) -> None:
        with monkeypatch.context() as lies:
            lies.setattr(confined, "_START", GREETED + "peer.sendall(b'\\0\\0\\0\\x50{')")
            with pytest.raises(ParseError, match="takes too much"):
                await feed(parser)
            lies.setattr(
                confined, "_START", GREETED + "peer.sendall(b'\\0\\0\\0\\x50{'); time.sleep(60)"
            )
            with pytest.raises(ParseError, match="takes too long"):
                await feed(parser)
        assert (await feed(parser)).items

    confining(act, timeout_s=3)


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale = framed({"feed": {"title": "Stale", "items": []}})

    async def act(parser: Confined) -> None:
        with monkeypatch.context() as lies:
            lies.setattr(confined, "_START", speaking(stale + stale))
            assert (await feed(parser)).title == "Stale"
        assert (await feed(parser)).title == "Notes"

    confining(act)


def test_what_a_reader_says_went_wrong_is_a_line_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = framed({"error": "It broke.\n\u202eLine two.\x1b[31m " + "word " * 10_000})
    monkeypatch.setattr(confined, "_START", speaking(wrong))
    message = confining(lambda parser: said(parser, "feed", FEED))
    assert message.startswith("It broke. Line two.[31m word")
    assert len(message) <= 200
    assert message.isprintable()


def test_one_that_was_killed_while_it_waited_costs_nothing() -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        first = pid(parser)
        killed(first)
        assert (await feed(parser)).items
        assert pid(parser) != first
        assert not is_alive(first)

    confining(act)


def test_one_that_is_killed_while_it_reads_costs_what_it_read() -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        reading = asyncio.create_task(feed(parser, RSS + full(b"<") + END))
        await asyncio.sleep(0.2)
        os.kill(pid(parser), signal.SIGKILL)
        with pytest.raises(ParseError, match="takes too much"):
            await reading
        assert (await feed(parser)).items

    confining(act)


@pytest.mark.parametrize("size", [0, 5 * MB])
def test_one_that_stands_still_is_given_up_however_much_was_still_to_be_sent(size: int) -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        for _ in range(2):
            os.kill(pid(parser), signal.SIGSTOP)
            with pytest.raises(ParseError, match="takes too long"):
                await feed(parser, FEED + b" " * size)
            assert (await feed(parser)).items

    confining(act, timeout_s=2)


def test_a_cancelled_request_leaves_no_process_and_no_answer_for_the_next() -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        for wait_s in (0, 0.001, 0.05, 0.2):
            reading = asyncio.create_task(feed(parser, RSS + full(b"<") + END))
            await asyncio.sleep(wait_s)
            before = pid(parser)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            # Before it had its turn there was nothing to be sorry about.
            assert wait_s == 0 or not is_alive(before)
            assert (await page(parser)).title == "On sluices"

    confining(act)


def test_many_at_once_each_get_their_own_answer() -> None:
    async def act(parser: Confined) -> None:
        titles = [f"Feed {number}" for number in range(20)]
        bodies = [FEED.replace(b"Notes", title.encode()) for title in titles]
        bodies[7] = RSS + full(b"<a>", 2 * MB)
        asked = [said(parser, "feed", body) for body in bodies]
        answers = await asyncio.gather(*asked)
        assert isinstance(answers.pop(7), str)
        del titles[7]
        assert [answer[0] for answer in answers] == titles

    confining(act)


def test_closing_wakes_whoever_waits_for_an_answer() -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        first = pid(parser)
        reading = asyncio.create_task(feed(parser, RSS + full(b"<") + END))
        await asyncio.sleep(0.1)
        await parser.close()
        with pytest.raises(ParseError):
            await reading
        assert not is_alive(first)

    confining(act)


def test_fifty_restarts_leave_no_zombie_and_no_descriptor() -> None:
    async def act(parser: Confined) -> None:
        await feed(parser)
        before, gone = in_hand(), []
        for number in range(50):
            gone.append(pid(parser))
            if number % 2:
                killed(gone[-1])
            else:
                await parser.close()
            assert (await feed(parser)).items
        assert in_hand() == before
        assert not any(map(is_alive, gone))

    confining(act)


def test_one_that_does_not_start_says_so_and_not_that_the_feed_is_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(confined, "_START", "import sys; sys.exit(3)")
    before = in_hand()
    message = confining(lambda parser: said(parser, "feed", FEED))
    assert message.startswith("the process that reads feeds and pages does not start (exit status")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    message = confining(lambda parser: said(parser, "page", PAGE))
    assert message == "no process can be had to read it in (No such file or directory)"
    asyncio.run(Confined.started().close())
    assert in_hand() == before


PARENT = f"""
import asyncio, sys
from daemon.sources.confined import Confined
from tests.test_confined import FEED, RSS, feed, full, pid
async def main():
    parser = Confined()
    await feed(parser, FEED)
    print(pid(parser), flush=True)
    await feed(parser, RSS + full(b"<a") if sys.argv[1] == "busy" else FEED)
    await asyncio.sleep(60)
sys.path.insert(0, {str(ROOT)!r})
asyncio.run(main())
"""


@pytest.mark.parametrize("doing", ["idle", "busy"])
def test_a_parent_that_is_killed_leaves_no_process_behind(doing: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, doing], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        assert is_alive(child)
        parent.kill()
        until = time.monotonic() + 3
        while is_running(child) and time.monotonic() < until:
            time.sleep(0.02)
    assert not is_running(child)


# What it has and may


def test_it_has_no_secret_and_no_descriptor_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PROVIDER_LLM_KEY", "sk-very-secret")

    async def act(parser: Confined) -> None:
        await page(parser)
        home = Path(f"/proc/{pid(parser)}")
        environment = (home / "environ").read_bytes().decode().split("\0")
        assert environment == ["LC_ALL=C.UTF-8", "MALLOC_ARENA_MAX=1", ""]
        assert b"secret" not in (home / "cmdline").read_bytes()
        assert (home / "cwd").readlink() == Path("/")
        held = {int(fd.name): str(fd.readlink()) for fd in (home / "fd").iterdir()}
        assert {held.pop(number) for number in range(3)} == {"/dev/null"}
        # Its socket, and its own size, which it opened itself.
        assert sorted(name.partition(":")[0] for name in held.values()) == [
            f"{home}/statm", "socket",
        ]  # fmt: skip

    with (tmp_path / "books.db").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        confining(act)


ATTEMPTS = {
    "read a file of the system": "open('/etc/passwd')",
    "read what secrets the parent has": "open(f'/proc/{os.getppid()}/environ', 'rb')",
    "read a file beside a checkout": f"open({str(ROOT / 'pyproject.toml')!r})",
    "read through a descriptor": "open(0)",
    "write a file": "open('/tmp/x', 'w')",
    "write beside a module": "open(json.__file__ + '.x', 'w')",
    "write beside a module by flags": "os.open(json.__file__ + '.x', os.O_WRONLY | os.O_CREAT)",
    "empty a module by flags": "os.open(json.__file__ + '.x', os.O_TRUNC)",
    "climb out of the library": "open(json.__path__[0] + '/../../../../../etc/passwd')",
    "make a folder": "os.mkdir('/tmp/penstock-x')",
    "remove a file": "os.remove('/tmp/penstock-x')",
    "rename a file": "os.rename('/tmp/penstock-x', '/tmp/penstock-y')",
    "make a link": "os.symlink('/etc/passwd', '/tmp/penstock-x')",
    "connect": "socket.create_connection(('127.0.0.1', 9))",
    "make a socket": "socket.socket()",
    "resolve a name": "socket.getaddrinfo('example.com', 80)",
    "fetch": "urllib.request.urlopen('http://127.0.0.1:9/')",
    "run a program": "subprocess.run(['true'])",
    "run a shell": "os.system('true')",
    "fork": "os.fork()",
    "become another program": "os.execv('/bin/true', ['true'])",
    "kill its parent": "os.kill(os.getppid(), 0)",
    "load native code": "ctypes.CDLL(None)",
    "open a database": "sqlite3.connect(':memory:')",
    "parse an address": "feedparser.parse('http://127.0.0.1:9/feed.xml')",
}
HARMLESS = {
    "import": "importlib.import_module('xml.dom.minidom')",
    "read its library": "open(json.__file__).close()",
    "parse bytes": "feedparser.parse(io.BytesIO(b'<rss></rss>'))",
}


def under_the_hook(acts: dict[str, str]) -> dict[str, str]:
    """What comes of each act in a process that has the worker's limits and its hook."""
    code = (
        "import ctypes, feedparser, importlib, io, json, os, socket, sqlite3, subprocess, sys,"
        " urllib.request\n"
        "from daemon.sources import worker\n"
        f"acts, came = {acts!r}, {{}}\n"
        "worker._limit()\n"
        "sys.addaudithook(worker._refuse)\n"
        "for name, act in acts.items():\n"
        "    try:\n"
        "        eval(act)\n"
        "        came[name] = 'done'\n"
        "    except BaseException as error:\n"
        "        came[name] = type(error).__name__\n"
        "print(json.dumps(came))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_hook_refuses_whatever_is_not_parsing() -> None:
    came = under_the_hook(ATTEMPTS)
    assert set(came.values()) == {"PermissionError"}, came


def test_the_hook_lets_parsing_be() -> None:
    assert set(under_the_hook(HARMLESS).values()) == {"done"}


# Wherever Penstock runs from

ELSEWHERE = """
import sys
root, ours = sys.argv[1:]
sys.path[:] = [ours] + [path for path in sys.path if path and path != root]
import asyncio, daemon
from daemon.sources.confined import Confined
assert daemon.__file__.startswith(ours), daemon.__file__
FEED, PAGE = (open(name, "rb").read() for name in ("feed", "page"))
async def main():
    parser = Confined.started()
    feed = await parser.feed(FEED, url="https://a.example/", content_type="")
    page = await parser.page(PAGE, url="https://a.example/", content_type="")
    print(feed.title, len(feed.items), page.title)
    await parser.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("place", ["a checkout", "a zip", "a checkout nobody may write to"])
def test_it_reads_with_the_modules_that_we_were_loaded_from(place: str, tmp_path: Path) -> None:
    """On a path of our own making, which a bare interpreter knows nothing of."""
    source = [file for file in (ROOT / "daemon").rglob("*.py") if "simulation" not in file.parts]
    ours = tmp_path / ("penstock.pyz" if place == "a zip" else "checkout")
    if place == "a zip":
        with zipfile.ZipFile(ours, "w") as archive:
            for file in source:
                archive.write(file, file.relative_to(ROOT))
    else:
        for file in source:
            copy = ours / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    if place.endswith("write to"):
        for folder in [ours, *ours.rglob("*")]:
            folder.chmod(0o555 if folder.is_dir() else 0o444)
    (tmp_path / "feed").write_bytes(FEED)
    (tmp_path / "page").write_bytes(PAGE)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(ROOT), str(ours)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("Notes 1 On sluices\n", "")
