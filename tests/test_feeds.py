"""Feeds are read from bytes in memory, whatever they hold, and remembered."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import sysconfig
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.books import Books
from daemon.clock import SystemClock
from daemon.sources import archive, parse, text
from daemon.sources.confined import Confined
from daemon.sources.feeds import FeedReader, Poll, read_file
from daemon.sources.fetcher import BYTES_MAX, Fetcher
from daemon.sources.parse import ParsedFeed, ParseError, parse_feed, parse_opml
from daemon.sources.policy import FetchPolicy
from ledger.database import Database
from tests.corpora import FEEDS, REAL_BLOG
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Address, Answer, Request, serve
from tests.ledger_helpers import whole_book

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def rss(*items: str, title: str = "A feed") -> bytes:
    return (
        '<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel>'
        f"<title>{title}</title>{''.join(items)}</channel></rss>"
    ).encode()


def item(title: str = "News", link: str = "https://blog.example/news", more: str = "") -> str:
    return f"<item><title>{title}</title><link>{link}</link>{more}</item>"


def opml(*urls: str) -> bytes:
    outlines = "".join(f'<outline type="rss" xmlUrl="{url}"/>' for url in urls)
    return f'<?xml version="1.0"?><opml version="2.0"><body>{outlines}</body></opml>'.encode()


# What a parser might reach for, seen by an audit hook: it cannot be taken off again, so it looks
# only while a test asks it to, and at nothing that Python itself loads.

_REACHING = {
    "open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.bind", "subprocess.Popen", "os.system", "urllib.Request",
}  # fmt: skip
_OWN = tuple(
    {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_watches: list[list[tuple[str, str]]] = []


def _look(event: str, details: tuple[Any, ...]) -> None:
    if _watches and event in _REACHING:
        what = str(details[0]) if details else ""
        if not (event != "socket.connect" and what.startswith(_OWN)):
            _watches[-1].append((event, what))


sys.addaudithook(_look)


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Every file and socket that is reached for inside."""
    reached: list[tuple[str, str]] = []
    _watches.append(reached)
    try:
        yield reached
    finally:
        _watches.pop()


def test_the_watch_sees_files_and_sockets() -> None:
    import socket

    with watched() as reached:
        Path(__file__).read_bytes()
        with socket.socket() as probe, pytest.raises(OSError, match="refused"):
            probe.connect(("127.0.0.1", 1))
    assert {event for event, _ in reached} == {"open", "socket.connect"}


# Parsing


def test_every_feed_of_the_corpus_is_read_or_refused_and_nothing_else_is_touched() -> None:
    if not FEEDS.is_dir():
        pytest.skip(f"NOT RUN: {FEEDS} is not here, so no feed by others was tried")
    files = [file for file in sorted(FEEDS.rglob("*")) if file.is_file()]
    bodies = {file: file.read_bytes() for file in files}
    parse_feed(rss(item()))  # Imports what it needs before anyone looks.
    read: list[ParsedFeed] = []
    refused = []
    with watched() as reached:
        for file, body in bodies.items():
            try:
                parse_opml(body)
                read.append(parse_feed(body, url="https://blog.example/feed", content_type=""))
            except ParseError as error:
                refused.append((file, error))
    assert reached == []
    assert len(bodies) > 2000
    assert len(refused) < 20, refused
    assert sum(len(feed.items) for feed in read) > 20
    for feed in read:
        for entry in feed.items:
            assert entry.title
            assert entry.url.startswith(("http://", "https://"))
            assert text.clean(entry.title) == entry.title
            assert not any(text.is_hidden(c) for c in entry.title + entry.summary + entry.text)
            assert entry.published_at is None or entry.published_at.tzinfo is UTC


def test_a_real_feed_gives_every_entry_with_its_address() -> None:
    source = REAL_BLOG / "atom.xml"
    if not source.is_file():
        pytest.skip(f"NOT RUN: {source} is not here, so no real feed was tried")
    feed = parse_feed(source.read_bytes(), url="https://sajaldebnath.com/atom.xml")
    assert feed.title == "Deciphering Clouds"
    first = feed.items[0]
    assert first.title == "Auto-Scaling Deep Dive"
    assert first.url == "https://sajaldebnath.com/auto-scaling-deep-dive.html"
    assert first.published_at == datetime(2018, 12, 27, 0, 35, 5, tzinfo=UTC)
    assert len(first.text) > 1000
    assert len(feed.items) == source.read_text().count("<entry>")


def test_an_entry_says_what_the_feed_says_of_it() -> None:
    more = (
        "<guid isPermaLink='false'>tag:1</guid><author>Ada</author>"
        "<pubDate>Mon, 02 Feb 2026 10:00:00 +0100</pubDate>"
        "<description>&lt;p&gt;One &amp;amp; &lt;b&gt;two&lt;/b&gt;.&lt;/p&gt;"
        "&lt;p&gt;Three.&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;</description>"
    )
    feed = parse_feed(rss(item("A &amp; B", more=more), title="Feed &amp; Co"))
    (entry,) = feed.items
    assert feed.title == "Feed & Co"
    assert (entry.guid, entry.title, entry.author) == ("tag:1", "A & B", "Ada")
    assert entry.summary == "One & two.\nThree."
    assert entry.published_at == datetime(2026, 2, 2, 9, 0, tzinfo=UTC)


def test_relative_links_are_read_from_where_the_feed_came_from() -> None:
    body = rss(item(link="/posts/1"))
    (entry,) = parse_feed(body, url="https://blog.example/feeds/all.xml").items
    assert entry.url == "https://blog.example/posts/1"


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd",
     "/relative/without/base", "mailto:a@example.org", "ftp://example.org/", "http://",
     "https://example.org@elsewhere.example/",
     "http://a b/", "https://example.org/a b", "https://example.org/&#x200B;", "http://[::1",
     "https://example.org/&#x202E;gnp", "vbscript:x", ""],
)  # fmt: skip
def test_an_entry_without_a_web_address_is_dropped_and_its_neighbours_stay(link: str) -> None:
    body = rss(item("Bad", link), item("Good", "https://blog.example/good"))
    assert [entry.title for entry in parse_feed(body).items] == ["Good"]


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("Mon, 02 Feb 2026 10:00:00 GMT", datetime(2026, 2, 2, 10, tzinfo=UTC)),
        ("2026-02-02T10:00:00+02:00", datetime(2026, 2, 2, 8, tzinfo=UTC)),
        ("2026-02-02", datetime(2026, 2, 2, tzinfo=UTC)),
        ("", None),
        ("yesterday", None),
        ("0000-00-00", None),
        ("31 Feb 2026", None),
        ("Sat, 99 Foo 2026 99:99:99 GMT", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -1200", None),
    ],
)
def test_a_date_that_no_calendar_has_is_no_date(date: str, read: datetime | None) -> None:
    (entry,) = parse_feed(rss(item(more=f"<pubDate>{date}</pubDate>"))).items
    assert entry.published_at == read


HIDDEN = "\u200b\u200e\u202e\u2066\ufeff\u00ad\U000e0041\U000e0042\ue000"


def test_characters_that_hide_something_are_taken_out_of_everything_read_aloud() -> None:
    more = f"<author>A{HIDDEN}da</author><description>Pl{HIDDEN}ain</description>"
    feed = parse_feed(rss(item(f"Ne{HIDDEN}ws", more=more), title=f"Fe{HIDDEN}ed"))
    (entry,) = feed.items
    assert (feed.title, entry.title, entry.author) == ("Feed", "News", "Ada")
    assert (entry.summary, entry.text) == ("Plain", "Plain")


def test_numeric_references_do_not_smuggle_hidden_characters_in() -> None:
    twice = "&amp;#x200B;&amp;#xE0041;&amp;#8238;"
    more = f"<description>Pl{twice}ain</description>"
    (entry,) = parse_feed(rss(item("Ne&#x200B;&#xE0041;ws", more=more))).items
    assert (entry.title, entry.summary) == ("News", "Plain")


def test_a_feed_of_any_length_gives_two_hundred_entries() -> None:
    body = rss(*(item(f"N{n}", f"https://blog.example/{n}") for n in range(250)))
    entries = parse_feed(body).items
    assert len(entries) == 200
    assert (entries[0].title, entries[-1].title) == ("N0", "N199")


def test_long_fields_are_cut_at_a_word() -> None:
    words = "word " * 10_000
    feed = parse_feed(rss(item(words, more=f"<description>{words}</description>"), title=words))
    (entry,) = feed.items
    assert 250 < len(entry.title) <= parse.TITLE_MAX
    assert 1900 < len(entry.summary) <= parse.SUMMARY_MAX
    assert 19_000 < len(entry.text) <= parse.ENTRY_TEXT_MAX
    assert len(feed.title) <= parse.TITLE_MAX
    assert {field[-5:] for field in (entry.title, entry.summary, feed.title)} == {"word…"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (
            b"<html><head><title>Sign in</title></head><body><p>Hello</p></body></html>",
            "not a feed",
        ),
        (b"<!doctype html><h1>502 Bad Gateway</h1>", "not a feed"),
        (b"just words", "not a feed"),
        (b"%PDF-1.7 \xe2\xe3\xcf\xd3", "not a feed"),
        (bytes(range(256)), "not a feed"),
        (b'{"version": "https://jsonfeed.org', "not a feed"),
    ],
)
def test_what_is_no_feed_is_refused_with_its_reason(body: bytes, why: str) -> None:
    with pytest.raises(ParseError, match=why):
        parse_feed(body)


def test_a_feed_that_was_cut_off_gives_what_had_arrived() -> None:
    body = rss(item("One", "https://blog.example/1"), item("Two", "https://blog.example/2"))
    cut = body[: body.index(b"<title>Two") + 12]
    assert parse_feed(cut).items[0].title == "One"


@pytest.mark.parametrize(
    ("declared", "actual"), [("utf-8", "latin-1"), ("ascii", "utf-8"), ("nonsense", "utf-8")]
)
def test_a_feed_in_another_encoding_than_it_claims_is_still_read(
    declared: str, actual: str
) -> None:
    markup = rss(item("Café", more="<description>Crème brûlée</description>")).decode()
    body = markup.replace('"utf-8"', f'"{declared}"').encode(actual)
    (entry,) = parse_feed(body).items
    assert entry.url == "https://blog.example/news"
    assert (entry.title, entry.summary) == ("Café", "Crème brûlée")


def bomb(levels: int = 9) -> bytes:
    entities = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "boom " * 10}">' for n in range(levels)
    )
    return (
        f'<?xml version="1.0"?><!DOCTYPE rss [{entities}]><rss version="2.0"><channel>'
        f"<title>T</title><item><title>&e{levels - 1};</title><link>https://b.example/</link>"
        "</item></channel></rss>"
    ).encode()


def test_an_entity_bomb_does_not_go_off() -> None:
    parse_feed(rss(item()))
    tracemalloc.start()
    try:
        try:
            entries = parse_feed(bomb()).items
        except ParseError:
            entries = []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60_000_000
    assert sum(len(entry.title + entry.text) for entry in entries) < 50_000


def test_an_external_entity_is_not_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    site = SiteDouble(pages={"/x.dtd": "<!ENTITY y 'the secret'>"})
    with serve(site) as at:
        body = (
            f'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY x SYSTEM "{secret.as_uri()}">'
            f'<!ENTITY % d SYSTEM "{at.url}/x.dtd"> %d;]><rss version="2.0"><channel>'
            "<title>T &x; &y;</title><item><title>A &x; &y;</title><link>https://b.example/</link>"
            "</item></channel></rss>"
        ).encode()
        parse_feed(rss(item()))
        with watched() as reached:
            try:
                feed = parse_feed(body)
            except ParseError:
                feed = ParsedFeed("", ())
    assert reached == []
    assert not site.hits
    assert "the secret" not in feed.title + "".join(entry.title for entry in feed.items)


def test_a_body_that_is_an_address_or_a_path_is_not_opened(tmp_path: Path) -> None:
    local = tmp_path / "feed.xml"
    local.write_bytes(rss(item("From a file")))
    site = SiteDouble(pages={"/feed.xml": rss(item("From the web"))})
    parse_feed(rss(item()))
    with serve(site) as at:
        bodies = [str(local), local.as_uri(), f"{at.url}/feed.xml", f"feed:{at.url}/feed.xml"]
        for body in bodies:
            with watched() as reached, pytest.raises(ParseError):
                parse_feed(body.encode())
            assert reached == []
    assert not site.hits


@pytest.mark.parametrize(
    "build",
    [
        "b'&lt;div&gt;' * 100_000",
        "b'&lt;p ' * 200_000",
    ],
    ids=["deeply nested", "never closed"],
)
def test_a_megabyte_of_hostile_markup_is_read_before_anybody_waits(build: str) -> None:
    # In a process of its own, since the point is that it might not come back: half a second.
    program = (
        "from daemon.sources.parse import ParseError, parse_feed\n"
        'head = b\'<feed xmlns="http://www.w3.org/2005/Atom"><entry><title type="text">\'\n'
        "tail = b'</title><link href=\"https://b.example/\"/></entry></feed>'\n"
        f"try: parse_feed(head + {build} + tail)\n"
        "except ParseError: pass\n"
    )
    try:
        subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parents[1]
        )
    except subprocess.TimeoutExpired:
        pytest.fail("one feed held the whole daemon up")


# OPML


def test_an_opml_file_lists_its_feeds_once_however_deep_they_stand() -> None:
    body = b"""<?xml version="1.0"?><opml version="1.0"><head><title>Mine</title></head><body>
      <outline text="Tech"><outline text="More">
        <outline xmlUrl="https://a.example/feed"/><outline xmlUrl="http://b.example/rss"/>
      </outline></outline>
      <outline xmlUrl="https://a.example/feed"/><outline text="no feed"/>
      <outline xmlUrl="/etc/passwd"/><outline xmlUrl="file:///etc/passwd"/>
      <outline xmlUrl="javascript:alert(1)"/><outline xmlUrl=""/>
    </body></opml>"""
    found = parse_opml(body)
    assert found is not None
    assert found.listed == ["https://a.example/feed", "http://b.example/rss"]
    assert found.problem == "3 of its feeds have no http or https address, such as '/etc/passwd'"


def test_an_opml_file_of_any_length_gives_two_hundred_feeds() -> None:
    found = parse_opml(opml(*(f"https://a.example/{n}" for n in range(300))))
    assert found is not None
    assert len(found.listed) == 200
    assert found.problem == "it lists 300 feeds, and the first 200 are read"
    whole = parse_opml(opml(*(f"https://a.example/{n}" for n in range(200))))
    assert whole is not None
    assert (len(whole.listed), whole.problem) == (200, "")


@pytest.mark.parametrize("body", [b"", b"<rss/>", rss(item()), b"opml", b"<html>opml</html>"])
def test_what_is_no_opml_lists_nothing(body: bytes) -> None:
    assert parse_opml(body) is None


@pytest.mark.parametrize("encoding", ["utf-32", "utf-7", "nosuch", "idna", "hex", "ebcdic"])
def test_an_opml_file_in_an_encoding_nobody_reads_is_refused_like_any_other(encoding: str) -> None:
    body = opml("https://a.example/").replace(b'"1.0"?', f'"1.0" encoding="{encoding}"?'.encode())
    with pytest.raises(ParseError):
        parse_opml(body)


def test_an_opml_file_that_is_broken_or_a_bomb_is_refused() -> None:
    with pytest.raises(ParseError, match="OPML is broken"):
        parse_opml(opml("https://a.example/")[:-20])
    with pytest.raises(ParseError):
        parse_opml(bomb().replace(b"<rss", b"<opml").replace(b"</rss", b"</opml"))


# Visiting


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with whole_book(tmp_path / "books.db", busy_timeout_ms=0) as database:
        yield database


def poll(
    database: Database, locations: Sequence[str], at: Address | None = None, now: datetime = NOW
) -> Poll:
    """Visit feeds once, as the service would after a restart."""

    async def visit() -> Poll:
        allow = frozenset({f"127.0.0.1:{at.port}"} if at else ())
        clock = SystemClock(lambda: now)
        fetcher = Fetcher(FetchPolicy(allow, 5.0, gap_s=0.0))
        parser = Confined()
        try:
            reader = FeedReader(fetcher, parser, Books(database, clock), clock)
            return await reader.poll(locations)
        finally:
            await parser.close()
            await fetcher.close()

    return asyncio.run(visit())


def titles(database: Database, polled: Poll) -> list[str]:
    """Every remembered entry of the feeds visited, newest first."""
    with database.read() as tx:
        rows = archive.unused(tx, polled.locations, newer_than=datetime(1, 1, 1, tzinfo=UTC))
    return [row.title for row in rows]


def test_one_broken_feed_does_not_stop_the_others(database: Database) -> None:
    def redirect(location: str) -> Page:
        return Page(status=302, headers={"location": location})

    site = SiteDouble(
        pages={
            "/html": "<html><body><p>Sign in</p></body></html>",
            "/empty": b"",
            "/huge": rss(item()) + b" " * BYTES_MAX,
            "/error": Page(rss(item()), status=500),
            "/private": redirect("http://10.0.0.1/feed"),
            "/nonsense": redirect("http://]"),
            "/opml": opml("https://a.example/").replace(b'"1.0"?', b'"1.0" encoding="nosuch"?'),
            "/cut": opml("https://a.example/")[:-20],
            "/brotli": Page(rss(item()), headers={"content-encoding": "br"}),
            "/latin.xml": rss(item("Café", "https://blog.example/1")).decode().encode("latin-1"),
            "/fine.xml": rss(item("Fine", "https://blog.example/2")),
        }
    )
    broken = (
        "404",
        "html",
        "empty",
        "huge",
        "error",
        "private",
        "nonsense",
        "opml",
        "cut",
        "brotli",
    )
    with serve(site) as at:
        urls = [f"{at.url}/{name}" for name in (*broken, "latin.xml", "fine.xml")]
        polled = poll(database, urls, at)
        assert polled.locations == urls[-2:]
        assert [problem.split(": ")[0] for problem in polled.problems] == urls[:-2]
        found = titles(database, polled)
        assert "Fine" in found
        assert len(found) == 2


def test_each_problem_says_in_a_line_what_is_wrong(database: Database) -> None:
    site = SiteDouble(pages={"/empty": b"", "/huge": b" " * (BYTES_MAX + 1), "/html": "<html>x"})
    with serve(site) as at:
        names = ("404", "empty", "huge", "html")
        problems = poll(database, [f"{at.url}/{name}" for name in names], at).problems
    reasons = [problem.split(": ", 1)[1] for problem in problems]
    assert reasons == ["HTTP 404", "it is empty", "larger than 5 MB", "it is not a feed"]


def test_an_entry_is_remembered_once_and_the_next_visit_is_conditional(database: Database) -> None:
    site = SiteDouble(pages={"/feed.xml": rss(item("One", "https://blog.example/1"))})
    with serve(site) as at:
        url = f"{at.url}/feed.xml"
        assert titles(database, poll(database, [url], at)) == ["One"]
        again = poll(database, [url], at, NOW + timedelta(hours=1))
        assert again == Poll([url], [])
        assert titles(database, again) == ["One"]
    first, second = (headers for _, headers in site.seen)
    assert "if-none-match" not in first
    assert second["if-none-match"].startswith('"')
    assert second["if-modified-since"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    with database.read() as tx:
        note = archive.feed(tx, url)
    assert note is not None
    assert note.title == "A feed"


def test_only_new_entries_are_added_and_old_ones_stay_as_first_seen(database: Database) -> None:
    old = item("One", "https://blog.example/1", "<guid>1</guid>")
    site = SiteDouble(pages={"/feed.xml": rss(old)})
    with serve(site) as at:
        url = f"{at.url}/feed.xml"
        poll(database, [url], at)
        retitled = item("One, again", "https://blog.example/1", "<guid>1</guid>")
        site.pages["/feed.xml"] = rss(item("Two", "https://blog.example/2"), retitled)
        polled = poll(database, [url], at, NOW + timedelta(hours=1))
    assert titles(database, polled) == ["Two", "One"]


def test_a_feed_that_recovers_is_read_again(database: Database) -> None:
    site = SiteDouble(pages={"/feed.xml": Page(b"", status=503)})
    with serve(site) as at:
        url = f"{at.url}/feed.xml"
        assert poll(database, [url], at).problems == [f"{url}: HTTP 503"]
        site.pages["/feed.xml"] = rss(item("One"))
        polled = poll(database, [url], at)
        assert (titles(database, polled), polled.problems) == (["One"], [])


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00Z", "0099-01-01", "9999-12-31T23:59:59Z"])
def test_an_entry_of_an_absurd_date_does_not_spoil_the_archive(
    database: Database, tmp_path: Path, date: str
) -> None:
    # .NET writes its zero as the first day of the year one.
    feed = tmp_path / "feed.xml"
    feed.write_bytes(rss(item("Old", more=f"<pubDate>{date}</pubDate>")))
    assert titles(database, poll(database, [str(feed)])) == ["Old"]


def test_a_feed_whose_entity_tag_is_beyond_ascii_is_read_the_second_time_too(
    database: Database,
) -> None:
    site = SiteDouble(pages={"/feed.xml": Page(rss(item()), headers={"etag": '"é"'})})
    with serve(site) as at:
        urls = [f"{at.url}/feed.xml"]
        assert poll(database, urls, at) == Poll(urls, [])
        assert poll(database, urls, at) == Poll(urls, [])


def test_local_files_are_feeds_too(database: Database, tmp_path: Path) -> None:
    one, two = tmp_path / "one.xml", tmp_path / "two.xml"
    one.write_bytes(rss(item("One", "https://blog.example/1")))
    two.write_bytes(rss(item("Two", "https://blog.example/2")))
    large = tmp_path / "large.xml"
    large.write_bytes(rss(item()) + b" " * BYTES_MAX)
    gone = str(tmp_path / "gone.xml")
    polled = poll(database, [str(one), f"file://{two}", str(large), gone, str(tmp_path)])
    assert sorted(titles(database, polled)) == ["One", "Two"]
    assert polled.problems == [
        f"{large}: larger than 5 MB",
        f"{gone}: there is no such file, and an address begins with https:// or http://",
        f"{tmp_path}: it is a folder, and a file is needed",
    ]


@pytest.mark.parametrize(
    "location", ["feed://a.example/f", "htp://a.example/f", "FTP://a.example/f"]
)
def test_an_address_of_another_kind_is_not_looked_for_on_the_disk(
    database: Database, location: str
) -> None:
    (problem,) = poll(database, [location]).problems
    assert problem == f"{location}: not an address we read: one begins with https:// or http://"


def test_an_opml_file_of_none_but_local_paths_says_so() -> None:
    with pytest.raises(ParseError, match=r"2 of its feeds have no http or https .*'a\.xml'"):
        parse_opml(opml("a.xml", " b.xml"))
    with pytest.raises(ParseError, match="its OPML lists no feed"):
        parse_opml(opml())


def test_a_file_in_nobodys_home_is_a_problem_and_stops_no_other(
    database: Database, tmp_path: Path
) -> None:
    here, nowhere = tmp_path / "one.xml", "~nobodyhere/feeds.opml"
    here.write_bytes(rss(item("One", "https://blog.example/1")))
    with pytest.raises(ParseError):
        read_file(nowhere)
    polled = poll(database, [nowhere, str(here)])
    assert titles(database, polled) == ["One"]
    (problem,) = polled.problems
    assert problem.startswith(f"{nowhere}: ")


def test_the_feeds_of_an_opml_file_are_visited_and_it_is_opened_each_time(
    database: Database, tmp_path: Path
) -> None:
    site = SiteDouble(pages={"/a.xml": rss(item("A", "https://blog.example/a"))})
    with serve(site) as at:
        site.pages["/b.xml"] = rss(item("B", "https://blog.example/b"))
        site.pages["/inner.opml"] = Page(
            opml(f"{at.url}/b.xml", f"{at.url}/inner.opml", f"{at.url}/a.xml"),
            content_type="text/x-opml",
        )
        outer = tmp_path / "feeds.opml"
        outer.write_bytes(opml(f"{at.url}/a.xml", f"{at.url}/inner.opml", "file:///etc/passwd"))
        for _ in range(2):
            polled = poll(database, [str(outer)], at)
            assert polled.problems == [
                f"{outer}: 1 of its feeds have no http or https address, such as 'file:///etc/passwd'"
            ]
            assert {f"{at.url}/a.xml", f"{at.url}/b.xml"} <= set(polled.locations)
            assert sorted(titles(database, polled)) == ["A", "B"]
    assert site.hits == {"/a.xml": 2, "/b.xml": 2, "/inner.opml": 2}


class EndlessLists:
    """OPML files, each of which names another; it gives up before we would for ever."""

    def __init__(self) -> None:
        self.hits = 0

    async def handle(self, request: Request) -> Answer:
        if request.path == "/robots.txt":
            return Answer(404, {}, b"")
        self.hits += 1
        host = request.headers["host"]
        body = opml(f"http://{host}/{self.hits}.opml") if self.hits < 300 else rss(item())
        return Answer(200, {"content-type": "text/x-opml"}, body)


def test_lists_that_name_lists_for_ever_come_to_an_end(database: Database) -> None:
    lists = EndlessLists()
    with serve(lists) as at:
        poll(database, [f"{at.url}/0.opml"], at)
    assert lists.hits <= parse.OPML_FEEDS_MAX + 1
