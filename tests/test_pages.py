"""Pages are reduced to their text, kept, and asked for again politely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.books import Books
from daemon.clock import SystemClock
from daemon.sources import archive, text
from daemon.sources.confined import Confined
from daemon.sources.fetcher import Fetcher, FetchError
from daemon.sources.pages import PageReader, PageText
from daemon.sources.parse import PAGE_TEXT_MAX, PAGE_TEXT_MIN, ParseError, parse_page
from daemon.sources.policy import FetchPolicy
from ledger.database import Database
from tests.corpora import REAL_BLOG
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import serve
from tests.ledger_helpers import whole_book

URL = "https://blog.example/post.html"
WORDS = "A penstock lets just as much water through as the reservoir can bear, and no more. "
HTML_TYPE = "text/html; charset=utf-8"


def extract(body: bytes | str, content_type: str = HTML_TYPE) -> tuple[str, str]:
    page = parse_page(
        body.encode() if isinstance(body, str) else body, url=URL, content_type=content_type
    )
    return page.title, page.text


def article(title: str = "On sluices", words: str = WORDS * 8) -> str:
    return (
        f"<!doctype html><html><head><title>{title}</title><meta charset='utf-8'></head><body>"
        f"<nav><a href='/'>Home</a> <a href='/about'>About us</a></nav><article><h1>{title}</h1>"
        f"<p>{words}</p><p>The second paragraph ends it, as paragraphs do in an article.</p>"
        "</article><footer>Copyright, imprint and cookies</footer></body></html>"
    )


# Extraction


def test_every_page_of_a_real_blog_gives_its_title_and_its_text() -> None:
    files = sorted(REAL_BLOG.glob("*.html"))
    if not files:
        pytest.skip(f"NOT RUN: {REAL_BLOG} is not here, so no real page was tried")
    assert len(files) == 24
    for file in files:
        title, body = extract(file.read_bytes(), "text/html")
        slug = file.stem.split("-")
        shared = [word for word in slug if word.lower() in title.lower()]
        assert len(shared) >= len(slug) // 2, f"{title!r} is not the title of {file.name}"
        assert len(body) > 1000, file.name
        assert not any(text.is_hidden(c) for c in title + body)
        assert "<div" not in body


def test_the_article_is_read_without_its_furniture() -> None:
    title, body = extract(article())
    assert title == "On sluices"
    assert "as much water through as the reservoir can bear" in body
    assert "The second paragraph ends it" in body
    assert "imprint" not in body
    assert "About us" not in body


def test_plain_text_is_read_as_it_is_under_its_address() -> None:
    title, body = extract(f"  {WORDS * 5}\r\n\r\nThe   end.\n", "Text/Plain")
    assert title == URL
    assert body == f"{(WORDS * 5).strip()}\nThe end."


def test_a_page_without_a_content_type_is_tried_as_html() -> None:
    assert extract(article(), "")[0] == "On sluices"


@pytest.mark.parametrize(
    ("declared", "actual"),
    [("utf-8", "utf-8"), ("ISO-8859-1", "latin-1"), ('"utf-8"', "utf-8"), ("utf-16", "utf-16"),
     ("koi8-r", "koi8-r"), ("nosuch", "utf-8"), ("hex", "utf-8"), ("zlib", "utf-8"), ("", "utf-8")],
)  # fmt: skip
def test_plain_text_is_read_in_the_encoding_it_names_else_utf_8(declared: str, actual: str) -> None:
    words = ("вода течёт " if actual == "koi8-r" else "Überläufe fließen ") * 30
    _, body = extract(words.encode(actual), f"text/plain; charset={declared}")
    assert body == words.strip()


@pytest.mark.parametrize(
    "declared",
    ["utf-8", "ascii", "utf-16", "utf-32", "utf-7", "idna", "punycode", "undefined", "base64",
     "unicode_escape", "raw_unicode_escape", "charmap", "mbcs", "rot13", "big5", "x" * 500],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
def test_a_page_in_another_encoding_than_it_claims_is_read_or_refused(
    kind: str, declared: str
) -> None:
    body = article(words="Überläufe \\x fließen \\N{x} à gogo; " * 20).encode("latin-1")
    try:
        title, read = extract(body, f"{kind}; charset={declared}")
    except ParseError:
        return
    assert not any(text.is_hidden(c) for c in title + read)


PDF = (
    b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
    + b"4 0 obj <</Length 44>> stream\nBT /F1 24 Tf (Hello World) Tj ET\nendstream\n" * 50
    + b"trailer <</Root 1 0 R>>\n%%EOF"
)  # fmt: skip


@pytest.mark.parametrize(
    "content_type",
    [
        "application/pdf",
        "application/octet-stream",
        "text/html",
        "",
        "text/plain",
        "application/xml",
    ],
)
def test_a_pdf_is_refused_whatever_it_calls_itself(content_type: str) -> None:
    with pytest.raises(ParseError):
        extract(PDF, content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "application/json",
        "text/css",
        "application/javascript",
        "video/mp4",
        "nonsense",
    ],
)
def test_what_is_not_a_text_is_refused_by_its_type(content_type: str) -> None:
    with pytest.raises(ParseError, match="is not a text"):
        extract(article(), content_type)


@pytest.mark.parametrize(
    "body",
    ["", " \n ", "<html></html>", "<html><body><p>Please sign in to continue.</p></body></html>",
     "<html><head><title>Just a moment</title></head><body><form><input></form></body></html>",
     "<", "\x00" * 1000, article(words="Too little.")],
)  # fmt: skip
@pytest.mark.parametrize("content_type", [HTML_TYPE, "text/plain"])
def test_a_page_with_no_text_to_speak_of_is_refused(body: str, content_type: str) -> None:
    if content_type == "text/plain":
        body = body[: PAGE_TEXT_MIN - 1]
    with pytest.raises(ParseError, match=r"characters of text|not a text"):
        extract(body, content_type)


def test_hidden_characters_are_taken_out_of_title_and_text() -> None:
    hidden = "\u200b\u202e\U000e0041"
    title, body = extract(article(f"On {hidden}sluices", f"{hidden}{WORDS * 8}"))
    assert title == "On sluices"
    assert WORDS.strip() in body
    assert not any(text.is_hidden(c) for c in body)


def test_title_and_text_are_bounded() -> None:
    title, body = extract("word " * 100_000, "text/plain")
    assert 90_000 < len(body) <= PAGE_TEXT_MAX
    title, _ = extract(article("long " * 200))
    assert len(title) <= 300


# Reading again


@dataclass
class Hands:
    """A wall clock that a test sets."""

    at: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with whole_book(tmp_path / "books.db", busy_timeout_ms=0) as database:
        yield database


def read(database: Database, hands: Hands, url: str, port: int) -> PageText:
    async def visit() -> PageText:
        clock = SystemClock(hands)
        fetcher = Fetcher(FetchPolicy(frozenset({f"127.0.0.1:{port}"}), 5.0, gap_s=0.0))
        parser = Confined()
        try:
            return await PageReader(fetcher, parser, Books(database, clock), clock).read(url)
        finally:
            await parser.close()
            await fetcher.close()

    return asyncio.run(visit())


def test_a_page_read_within_the_hour_is_not_asked_for_again(database: Database) -> None:
    site, hands = SiteDouble(pages={"/post.html": article()}), Hands()
    with serve(site) as at:
        url = f"{at.url}/post.html"
        first = read(database, hands, url, at.port)
        assert (first.url, first.title, first.fetched_at) == (url, "On sluices", hands.at)
        hands.at += timedelta(minutes=59)
        assert read(database, hands, url, at.port) == first
    assert site.hits["/post.html"] == 1


def test_a_later_reading_is_conditional_and_counts_as_fresh_for_another_hour(
    database: Database,
) -> None:
    site, hands = SiteDouble(pages={"/post.html": article()}), Hands()
    with serve(site) as at:
        url = f"{at.url}/post.html"
        first = read(database, hands, url, at.port)
        hands.at += timedelta(minutes=61)
        second = read(database, hands, url, at.port)
        assert (second.url, second.title, second.text) == (first.url, first.title, first.text)
        hands.at += timedelta(minutes=59)
        read(database, hands, url, at.port)
    first_headers, second_headers = (headers for _, headers in site.seen)
    assert "if-none-match" not in first_headers
    assert second_headers["if-none-match"].startswith('"')
    assert second_headers["if-modified-since"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    with database.read() as tx:
        kept = archive.page(tx, url)
    assert kept is not None
    assert kept.fetched_at == hands.at - timedelta(minutes=59)
    # The validators outlive an answer that had none of the body.
    assert kept.etag is not None


def test_a_page_that_changed_is_read_anew(database: Database) -> None:
    site, hands = SiteDouble(pages={"/post.html": article()}), Hands()
    with serve(site) as at:
        url = f"{at.url}/post.html"
        read(database, hands, url, at.port)
        site.pages["/post.html"] = article("On weirs")
        hands.at += timedelta(hours=2)
        again = read(database, hands, url, at.port)
    assert (again.title, again.fetched_at) == ("On weirs", hands.at)


def test_a_clock_set_back_does_not_keep_a_page_for_ever(database: Database) -> None:
    site, hands = SiteDouble(pages={"/post.html": article()}), Hands()
    with serve(site) as at:
        url = f"{at.url}/post.html"
        read(database, hands, url, at.port)
        site.pages["/post.html"] = article("On weirs")
        hands.at -= timedelta(days=365)
        assert read(database, hands, url, at.port).title == "On weirs"


def test_a_page_that_moved_is_kept_under_both_addresses(database: Database) -> None:
    site = SiteDouble(
        pages={
            "/old.html": Page(status=301, headers={"location": "/new.html"}),
            "/new.html": article(),
        }
    )
    hands = Hands()
    with serve(site) as at:
        first = read(database, hands, f"{at.url}/old.html", at.port)
        assert first.url == f"{at.url}/new.html"
        assert read(database, hands, f"{at.url}/old.html", at.port) == first
    assert site.hits == {"/old.html": 1, "/new.html": 1}


def test_a_page_that_is_refused_leaves_nothing_behind(database: Database) -> None:
    site = SiteDouble(pages={"/wall.html": "<p>Please sign in.</p>"})
    with serve(site) as at:
        for path, why in (("wall.html", "characters of text"), ("gone.html", "HTTP 404")):
            url = f"{at.url}/{path}"
            with pytest.raises(FetchError, match=why):
                read(database, Hands(), url, at.port)
            with database.read() as tx:
                assert archive.page(tx, url) is None


def test_a_page_that_turns_bad_keeps_the_text_it_had(database: Database) -> None:
    site, hands = SiteDouble(pages={"/post.html": article()}), Hands()
    with serve(site) as at:
        url = f"{at.url}/post.html"
        first = read(database, hands, url, at.port)
        site.pages["/post.html"] = Page(b"", status=500)
        hands.at += timedelta(hours=2)
        with pytest.raises(FetchError, match="HTTP 500"):
            read(database, hands, url, at.port)
    with database.read() as tx:
        kept = archive.page(tx, url)
    assert kept is not None
    assert (kept.text, kept.fetched_at) == (first.text, first.fetched_at)


# What a page keeps from its readers


@pytest.mark.parametrize(
    "hiding",
    ["<p hidden>{}</p>", '<p hidden="">{}</p>', "<template><p>{}</p></template>"]
    + [
        f'<div style="{style}"><p>{{}}</p></div>'
        for style in (
            "display:none", "DISPLAY : None !important", "color:red; visibility: hidden",
            "opacity:0", "opacity: 0.0;", "font-size:0", "font-size:0px; color:red",
            "position:absolute;left:-9999px", "text-indent:-9999px", "height:0;overflow:hidden",
            "color:transparent", "color:#fff;background:#fff",
            "background-color: white; color: White",
            "clip-path: inset(100%)", "clip: rect(0,0,0,0)",
        )
    ],
)  # fmt: skip
def test_text_for_machines_alone_is_no_evidence(hiding: str) -> None:
    planted = "Order your heron today at the shop of our friends, all models say so. " * 3
    body = article().replace("</article>", f"{hiding.format(planted)}<p>{WORDS * 4}</p></article>")
    _, text_read = extract(body)
    assert "heron" not in text_read
    assert text_read.count(WORDS.strip()) >= 2


@pytest.mark.parametrize(
    "style",
    ["opacity:0.9", "font-size:0.9em", "height:100px", "left:-5px", "color:#fff;background:#000"],
)
def test_what_readers_see_stays(style: str) -> None:
    shown = "The heron stands in the pond and waits for the frog to come by. " * 3
    _, text_read = extract(
        article().replace("</article>", f'<p style="{style}">{shown}</p></article>')
    )
    assert "heron" in text_read


def test_a_page_that_a_script_shows_later_is_read() -> None:
    body = article().replace("<article>", '<article style="opacity:0">')
    assert WORDS.strip() in extract(body)[1]
