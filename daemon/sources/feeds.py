"""
Feeds: fetched conditionally, parsed from bytes in memory, remembered.

A feed that cannot be read costs the run that feed and a line that says so.
"""

from __future__ import annotations

import asyncio
import calendar
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import struct_time
from typing import Any
from urllib.parse import urlsplit

from daemon.books import Books
from daemon.clock import Clock
from daemon.sources import archive, text
from daemon.sources.archive import Item
from daemon.sources.fetcher import BYTES_MAX, Fetched, Fetcher, FetchError

# No feed needs more; a list of feeds in OPML is bounded too.
ENTRIES_MAX = 200
OPML_FEEDS_MAX = 200
# One slow host must not keep the others waiting, nor we knock on many doors at once.
SIDE_BY_SIDE = 8
TITLE_MAX = 300
SUMMARY_MAX = 2_000
TEXT_MAX = 20_000
# The web is younger; year 1 is .NET's zero, 1970 is Unix's.
FIRST_YEAR = 1990


class FeedError(Exception):
    """This is no feed we can read; the message says why, in a line."""


@dataclass(frozen=True, slots=True)
class ParsedFeed:
    """A feed's title and entries."""

    title: str
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Poll:
    """What visiting every feed came to: where entries can be, and what went wrong, in lines."""

    locations: Sequence[str]
    problems: Sequence[str]


class FeedReader:
    """Visits feeds and stores what is new."""

    def __init__(self, fetcher: Fetcher, books: Books, clock: Clock) -> None:
        self._fetcher = fetcher
        self._books = books
        self._clock = clock

    async def poll(self, locations: Sequence[str]) -> Poll:
        """Visit every feed, OPML lists opened; one failing feed does not stop the others."""
        queue, seen, problems = list(dict.fromkeys(locations)), set(locations), []
        visited = []
        while queue:
            batch, queue = queue[:SIDE_BY_SIDE], queue[SIDE_BY_SIDE:]
            results = await asyncio.gather(*(self._try_visit(location) for location in batch))
            for location, (listed, problem) in zip(batch, results, strict=True):
                if problem:
                    problems.append(f"{location}: {problem}")
                    continue
                visited.append(location)
                room = len(locations) + OPML_FEEDS_MAX - len(seen)
                fresh = [feed for feed in listed if feed not in seen][: max(0, room)]
                seen.update(fresh)
                queue += fresh
        return Poll(visited, problems)

    async def _try_visit(self, location: str) -> tuple[Sequence[str], str]:
        """The feeds that a feed lists, and why it could not be read, if so."""
        try:
            return await self._visit(location), ""
        except (FeedError, FetchError, OSError) as error:
            async with self._books.write() as tx:
                archive.note_feed(tx, location, at=self._clock.now(), error=str(error))
            return (), str(error)

    async def _visit(self, location: str) -> Sequence[str]:
        """Read one feed; the feeds it lists, where it is an OPML file."""
        with self._books.read() as tx:
            known = archive.feed(tx, location)
        fetched = await self._fetch(location, known)
        now = self._clock.now()
        if fetched.not_modified:
            async with self._books.write() as tx:
                archive.note_feed(tx, location, at=now, error=None)
            return ()
        listed = parse_opml(fetched.body)
        parsed = (
            ParsedFeed("", ())
            if listed
            else parse_feed(fetched.body, url=fetched.url, content_type=fetched.content_type)
        )
        async with self._books.write() as tx:
            archive.note_feed(
                tx,
                location,
                at=now,
                error=None,
                title=parsed.title or location,
                # An OPML file is opened each time: its feeds are not entries to remember.
                etag=None if listed else fetched.etag,
                last_modified=None if listed else fetched.last_modified,
            )
            archive.remember(tx, location, parsed.items, now)
        return listed

    async def _fetch(self, location: str, known: Any) -> Fetched:
        if re.match(r"https?://", location, re.IGNORECASE):
            return await self._fetcher.get(
                location,
                etag=known.etag if known is not None else None,
                last_modified=known.last_modified if known is not None else None,
            )
        return _read_file(location.removeprefix("file://"))


def _read_file(name: str) -> Fetched:
    """A local file, as if it had been fetched; relative links in it have no base."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise FeedError("there is no such file")
    if path.stat().st_size > BYTES_MAX:
        raise FeedError(f"larger than {BYTES_MAX // 1_000_000} MB")
    return Fetched("", path.read_bytes(), "", None, None)


def parse_feed(body: bytes, *, url: str = "", content_type: str = "") -> ParsedFeed:
    """
    Parse RSS or Atom.

    Raises:
        FeedError: empty, or nothing that a feed parser knows.
    """
    # Only ever a BytesIO: feedparser opens paths and fetches URLs that it is handed (measured).
    import feedparser

    if not body.strip():
        raise FeedError("it is empty")
    headers = {"content-location": url, "content-type": content_type}
    try:
        parsed = feedparser.parse(
            io.BytesIO(body), response_headers={k: v for k, v in headers.items() if v}
        )
    except Exception as error:
        raise FeedError(f"it cannot be parsed ({type(error).__name__})") from error
    if not parsed.get("version") and not parsed.entries:
        raise FeedError("it is not a feed")
    items = [_item(entry) for entry in parsed.entries[:ENTRIES_MAX]]
    title = text.from_markup(str(parsed.feed.get("title", "")))
    return ParsedFeed(
        text.shortened(title, TITLE_MAX), [item for item in items if item is not None]
    )


def parse_opml(body: bytes) -> list[str]:
    """The feed URLs of an OPML document; empty for anything else."""
    if b"<opml" not in body[:2000].lower():
        return []
    try:
        # expat bounds entity expansion, and no external entity is ever resolved.
        root = ElementTree.fromstring(body)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise FeedError(f"its OPML is broken: {error}") from None
    urls = (outline.get("xmlUrl", "") for outline in root.iter("outline"))
    return [url for url in dict.fromkeys(urls) if _is_web(url)][:OPML_FEEDS_MAX]


def _item(entry: Mapping[str, Any]) -> Item | None:
    """An entry as plain text, or None where it has no address or no title."""
    url = str(entry.get("link") or "").strip()
    content = " ".join(str(part.get("value", "")) for part in entry.get("content") or [])
    body = text.from_markup(content)
    summary = text.from_markup(str(entry.get("summary") or "")) or body
    title = text.from_markup(str(entry.get("title") or "")).replace("\n", " ")
    title = title or text.shortened(summary.replace("\n", " "), 80)
    if not _is_web(url) or not title:
        return None
    return Item(
        guid=str(entry.get("id") or url)[:2000],
        url=url,
        title=text.shortened(title, TITLE_MAX),
        author=text.from_markup(str(entry.get("author") or ""))[:200] or None,
        summary=text.shortened(summary, SUMMARY_MAX),
        text=(body if len(body) > len(summary) else summary)[:TEXT_MAX],
        published_at=_time(entry.get("published_parsed") or entry.get("updated_parsed")),
    )


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    whole = not any(character.isspace() or text.is_hidden(character) for character in url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and whole


def _time(parsed: struct_time | None) -> datetime | None:
    """Aware UTC; None for dates no calendar has, and for those before there were feeds."""
    if parsed is None:
        return None
    try:
        found = datetime.fromtimestamp(calendar.timegm(parsed), UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
    return found if found.year >= FIRST_YEAR else None
