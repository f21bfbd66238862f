"""
Feeds and pages out of bytes in memory: pure functions that strangers' bytes pass through.

`daemon.sources.confined` runs them in a process with limits. This module therefore imports little,
and the heavy parsers only where they are used.
"""

from __future__ import annotations

import calendar
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from daemon.sources import text

# No feed needs more; a list of feeds in OPML is bounded too.
ENTRIES_MAX = 200
OPML_FEEDS_MAX = 200
TITLE_MAX = 300
# The fetcher reads no longer ones; a relative link takes its base with it, in every entry.
URL_MAX = 2_000
GUID_MAX = 2_000
SUMMARY_MAX = 2_000
ENTRY_TEXT_MAX = 20_000
# Less than a paragraph is a login wall, an error page or a picture.
PAGE_TEXT_MIN = 300
PAGE_TEXT_MAX = 100_000
STYLE_MAX = 2_000
# The web is younger; year 1 is .NET's zero, 1970 is Unix's.
FIRST_YEAR = 1990


class ParseError(Exception):
    """These bytes are no feed or page that we can read; the message says why, in a line."""


@dataclass(frozen=True, slots=True)
class Item:
    """An entry as parsed: plain text everywhere, times aware or None."""

    guid: str
    url: str
    title: str
    author: str | None
    summary: str
    text: str
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class ParsedFeed:
    """
    A feed's title and entries.

    Args:
        listed: of an OPML document, the addresses of the feeds it lists.
        problem: what of them is not read, in words; "" where all are.
    """

    title: str
    items: Sequence[Item]
    listed: Sequence[str] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """A page's text, and its title, or its address where it has none."""

    title: str
    text: str


def parse_feed(body: bytes, *, url: str = "", content_type: str = "") -> ParsedFeed:
    """
    Parse RSS, Atom or a list of feeds in OPML.

    Raises:
        ParseError: empty, or nothing that a feed parser knows.
    """
    if (list_of_feeds := parse_opml(body)) is not None:
        return list_of_feeds
    # Only ever a BytesIO: feedparser opens paths and fetches URLs that it is handed (measured).
    import feedparser

    if not body.strip():
        raise ParseError("it is empty")
    headers = {"content-location": url, "content-type": content_type}
    try:
        parsed = feedparser.parse(
            io.BytesIO(body), response_headers={k: v for k, v in headers.items() if v}
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ParseError(f"it cannot be parsed ({type(error).__name__})") from error
    if not parsed.get("version") and not parsed.entries:
        raise ParseError("it is not a feed")
    items = [_item(entry) for entry in parsed.entries[:ENTRIES_MAX]]
    title = text.from_markup(str(parsed.feed.get("title", "")))
    return ParsedFeed(
        text.shortened(title, TITLE_MAX), [item for item in items if item is not None]
    )


def parse_opml(body: bytes) -> ParsedFeed | None:
    """
    The feeds that an OPML document lists; None for anything else.

    Raises:
        ParseError: it is broken, or lists none that can be read.
    """
    if b"<opml" not in body[:2000].lower():
        return None
    try:
        # expat bounds entity expansion, and no external entity is ever resolved.
        root = ElementTree.fromstring(body)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ParseError(f"its OPML is broken: {error}") from None
    urls = dict.fromkeys(outline.get("xmlUrl", "").strip() for outline in root.iter("outline"))
    listed = [url for url in urls if is_web(url)]
    others = [url for url in urls if url and url not in listed]
    problem = ""
    if others:
        such = text.shortened(others[0], 80)
        problem = f"{len(others)} of its feeds have no http or https address, such as {such!r}"
    if not listed:
        raise ParseError(problem or "its OPML lists no feed")
    if len(listed) > OPML_FEEDS_MAX:
        problem = f"it lists {len(listed)} feeds, and the first {OPML_FEEDS_MAX} are read"
    return ParsedFeed("", (), listed[:OPML_FEEDS_MAX], problem)


def parse_page(body: bytes, *, url: str, content_type: str = "") -> ParsedPage:
    """
    Title and text of a page.

    Raises:
        ParseError: not a text, or too little of it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/plain":
        title, found = "", _plain(body, content_type)
    elif kind in ("", "text/html", "application/xhtml+xml", "application/xml", "text/xml"):
        title, found = _extract(body, url)
    else:
        raise ParseError(f"{kind[:60]} is not a text")
    if len(found) < PAGE_TEXT_MIN:
        raise ParseError(f"only {len(found)} characters of text")
    return ParsedPage(title or url, found[:PAGE_TEXT_MAX])


def _extract(body: bytes, url: str) -> tuple[str, str]:
    import trafilatura

    try:
        tree = trafilatura.load_html(body)
        if tree is None:
            return "", ""
        _drop_hidden(tree)
        document: Any = trafilatura.bare_extraction(
            tree, url=url, include_comments=False, with_metadata=True
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ParseError(f"its markup cannot be read ({type(error).__name__})") from error
    if document is None or not document.text:
        return "", ""
    title = text.clean(document.title or "").replace("\n", " ")
    return title[:TITLE_MAX], text.clean(document.text)


# What a style attribute does to text that no reader is to see. Classes and style sheets are not
# followed: that takes a browser.
_HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|opacity\s*:\s*0?\.?0*\s*(?:!|;|$)|font-size\s*:\s*0[a-z%]*\s*(?:!|;|$)"
    r"|(?:max-)?(?:height|width)\s*:\s*0[a-z%]*\s*(?:!|;|$)|color\s*:\s*transparent"
    r"|(?:left|right|top|bottom|text-indent|margin-left|margin-top)\s*:\s*-\d{3,}"
    r"|clip(?:-path)?\s*:\s*(?:rect\(\s*0|inset\(\s*(?:50|100)%))",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|;)\s*(background(?:-color)?|color)\s*:\s*([^;!]+)", re.IGNORECASE)


def _drop_hidden(tree: Any) -> None:
    """
    Take out what a page keeps from its readers: text for machines alone is no evidence.

    An element that holds most of the page is shown by a script later, and stays.
    """
    most = len(tree.text_content()) // 2
    for element in list(tree.iter("template")) + tree.xpath(".//*[@hidden or @style]"):
        hidden = (
            element.tag == "template"
            or element.get("hidden") is not None
            or _hides(element.get("style") or "")
        )
        if hidden and element.getparent() is not None and len(element.text_content()) <= most:
            element.drop_tree()


def _hides(style: str) -> bool:
    style = style[:STYLE_MAX]
    colours = {name.lower()[:5]: value.strip().lower() for name, value in _COLOUR.findall(style)}
    same = "color" in colours and colours["color"] == colours.get("backg")
    return same or _HIDING.search(style) is not None


def _plain(body: bytes, content_type: str) -> str:
    decoded = _decode(body, content_type)
    if "\0" in decoded or body.startswith(b"%PDF-"):
        raise ParseError("it is not a text, whatever it says it is")
    return text.clean(decoded)


def _decode(body: bytes, content_type: str) -> str:
    match = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    try:
        return body.decode(match[1] if match else "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def _item(entry: Mapping[str, Any]) -> Item | None:
    """An entry as plain text, or None where it has no address or no title."""
    url = str(entry.get("link") or "").strip()
    content = " ".join(str(part.get("value", "")) for part in entry.get("content") or [])
    body = text.from_markup(content)
    summary = text.from_markup(str(entry.get("summary") or "")) or body
    title = text.from_markup(str(entry.get("title") or "")).replace("\n", " ")
    title = title or text.shortened(summary.replace("\n", " "), 80)
    if not is_web(url) or not title:
        return None
    return Item(
        # Half a surrogate pair in it could be stored nowhere.
        guid=text.without_hidden(str(entry.get("id") or "")[:GUID_MAX]) or url,
        url=url,
        title=text.shortened(title, TITLE_MAX),
        author=text.from_markup(str(entry.get("author") or ""))[:200] or None,
        summary=text.shortened(summary, SUMMARY_MAX),
        text=(body if len(body) > len(summary) else summary)[:ENTRY_TEXT_MAX],
        published_at=_time(entry.get("published_parsed") or entry.get("updated_parsed")),
    )


def is_web(url: str) -> bool:
    """
    Whether it is an address that a page can have, and not too long to be one.

    One with a name before its host, as in https://known.example@other.example, shows another host
    than it has.
    """
    if len(url) > URL_MAX:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    whole = not any(character.isspace() or text.is_hidden(character) for character in url)
    plain = whole and parts.username is None
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


def _time(parsed: tuple[int, ...] | None) -> datetime | None:
    """Aware UTC; None for dates no calendar has, and for those before there were feeds."""
    if parsed is None:
        return None
    try:
        found = datetime.fromtimestamp(calendar.timegm(parsed), UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
    return found if found.year >= FIRST_YEAR else None
