"""
Feeds: fetched conditionally, parsed from bytes in memory, remembered.

A feed that cannot be read costs the run that feed and a line that says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.books import Books
from daemon.clock import Clock
from daemon.sources import archive, text
from daemon.sources.confined import Parser
from daemon.sources.fetcher import BYTES_MAX, Fetched, Fetcher, FetchError
from daemon.sources.parse import OPML_FEEDS_MAX, ParseError

# One slow host must not keep the others waiting, nor we knock on many doors at once.
SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True)
class Poll:
    """What visiting every feed came to: where entries can be, and what went wrong, in lines."""

    locations: Sequence[str]
    problems: Sequence[str]


class FeedReader:
    """Visits feeds and stores what is new."""

    def __init__(self, fetcher: Fetcher, parser: Parser, books: Books, clock: Clock) -> None:
        self._fetcher = fetcher
        self._parser = parser
        self._books = books
        self._clock = clock

    async def poll(self, locations: Sequence[str]) -> Poll:
        """Visit every feed, OPML lists opened; one failing feed does not stop the others."""
        queue, seen, problems = list(dict.fromkeys(locations)), set(locations), []
        visited = []
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def visit(location: str) -> tuple[Sequence[str] | None, str]:
            async with places:
                return await self._try_visit(location)

        while queue:
            batch, queue = queue, []
            results = await asyncio.gather(*(visit(location) for location in batch))
            for location, (listed, problem) in zip(batch, results, strict=True):
                if problem:
                    problems.append(f"{location}: {problem}")
                if listed is None:
                    continue
                visited.append(location)
                room = len(locations) + OPML_FEEDS_MAX - len(seen)
                fresh = [feed for feed in listed if feed not in seen][: max(0, room)]
                seen.update(fresh)
                queue += fresh
        return Poll(visited, problems)

    async def _try_visit(self, location: str) -> tuple[Sequence[str] | None, str]:
        """The feeds that a feed lists, None where it could not be read, and what went wrong."""
        try:
            return await self._visit(location)
        except (ParseError, FetchError, OSError) as error:
            return None, str(error)

    async def _visit(self, location: str) -> tuple[Sequence[str], str]:
        """Read one feed; the feeds that an OPML file lists, and what of them is not read."""
        with self._books.read() as tx:
            known = archive.feed(tx, location)
        fetched = await self._fetch(location, known)
        if fetched.not_modified:
            return (), ""
        parsed = await self._parser.feed(
            fetched.body, url=fetched.url, content_type=fetched.content_type
        )
        listed, now = parsed.listed, self._clock.now()
        async with self._books.write() as tx:
            archive.note_feed(
                tx,
                location,
                at=now,
                title=parsed.title or location,
                # An OPML file is opened each time: its feeds are not entries to remember.
                etag=None if listed else fetched.etag,
                last_modified=None if listed else fetched.last_modified,
            )
            archive.remember(tx, location, parsed.items, now)
        return listed, text.one_line(parsed.problem, 200)

    async def _fetch(self, location: str, known: Any) -> Fetched:
        if re.match(r"https?://", location, re.IGNORECASE):
            return await self._fetcher.get(
                location,
                etag=known.etag if known is not None else None,
                last_modified=known.last_modified if known is not None else None,
            )
        return read_file(location)


def read_file(location: str) -> Fetched:
    """A local file, as if it had been fetched; relative links in it have no base."""
    if re.match(r"(?!file:)[a-z][a-z0-9+.-]*://", location, re.IGNORECASE):
        raise ParseError("not an address we read: one begins with https:// or http://")
    try:
        path = Path(location.removeprefix("file://")).expanduser()
    except RuntimeError as error:
        raise ParseError(str(error)) from None
    if path.is_dir():
        raise ParseError("it is a folder, and a file is needed")
    if not path.is_file():
        raise ParseError("there is no such file, and an address begins with https:// or http://")
    if path.stat().st_size > BYTES_MAX:
        raise ParseError(f"larger than {BYTES_MAX // 1_000_000} MB")
    return Fetched("", path.read_bytes(), "", None, None)
