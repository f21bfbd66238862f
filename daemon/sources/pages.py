"""Pages: fetched through the guard and reduced to their text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.books import Books
from daemon.clock import Clock
from daemon.sources import archive
from daemon.sources.confined import Parser
from daemon.sources.fetcher import Fetcher, FetchError
from daemon.sources.parse import ParseError

# A page read an hour ago has not changed enough to ask again.
REUSE_S = 3600


@dataclass(frozen=True, slots=True)
class PageText:
    """What a page says."""

    url: str
    title: str
    text: str
    fetched_at: datetime


class PageReader:
    """Reads pages and keeps their text."""

    def __init__(self, fetcher: Fetcher, parser: Parser, books: Books, clock: Clock) -> None:
        self._fetcher = fetcher
        self._parser = parser
        self._books = books
        self._clock = clock

    async def read(self, url: str) -> PageText:
        """
        The text of a page, from the archive where it has not changed.

        Raises:
            FetchError: it cannot be had, or has no text to speak of.
        """
        with self._books.read() as tx:
            known = archive.page(tx, url)
        now = self._clock.now()
        if known is not None and 0 <= (now - known.fetched_at).total_seconds() < REUSE_S:
            return _known(known)
        fetched = await self._fetcher.get(
            url,
            etag=known.etag if known is not None else None,
            last_modified=known.last_modified if known is not None else None,
        )
        if fetched.not_modified and known is not None:
            async with self._books.write() as tx:
                archive.keep_page(tx, url, fetched_at=now)
            return _known(known)
        try:
            parsed = await self._parser.page(
                fetched.body, url=fetched.url, content_type=fetched.content_type
            )
        except ParseError as error:
            raise FetchError(str(error)) from error
        async with self._books.write() as tx:
            archive.keep_page(
                tx,
                url,
                final_url=fetched.url,
                title=parsed.title,
                text=parsed.text,
                etag=fetched.etag,
                last_modified=fetched.last_modified,
                fetched_at=now,
            )
        return PageText(fetched.url, parsed.title, parsed.text, now)


def _known(row: Any) -> PageText:
    return PageText(row.final_url, row.title, row.text, row.fetched_at)
