"""Pages: fetched through the guard and reduced to their text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.books import Books
from daemon.clock import Clock
from daemon.sources import archive, text
from daemon.sources.fetcher import Fetched, Fetcher, FetchError

# Less than a paragraph is a login wall, an error page or a picture.
TEXT_MIN = 300
TEXT_MAX = 100_000
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

    def __init__(self, fetcher: Fetcher, books: Books, clock: Clock) -> None:
        self._fetcher = fetcher
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
        title, body = extract(fetched)
        async with self._books.write() as tx:
            archive.keep_page(
                tx,
                url,
                final_url=fetched.url,
                title=title,
                text=body,
                etag=fetched.etag,
                last_modified=fetched.last_modified,
                fetched_at=now,
            )
        return PageText(fetched.url, title, body, now)


def extract(fetched: Fetched) -> tuple[str, str]:
    """
    Title and text of a page.

    Raises:
        FetchError: not a text, or too little of it.
    """
    kind = fetched.content_type.partition(";")[0].strip().lower()
    if kind == "text/plain":
        title, body = "", _plain(fetched)
    elif kind in ("", "text/html", "application/xhtml+xml", "application/xml", "text/xml"):
        title, body = _extract_html(fetched)
    else:
        raise FetchError(f"{kind[:60]} is not a text")
    if len(body) < TEXT_MIN:
        raise FetchError(f"only {len(body)} characters of text")
    return title or fetched.url, body[:TEXT_MAX]


def _extract_html(fetched: Fetched) -> tuple[str, str]:
    import trafilatura

    try:
        document: Any = trafilatura.bare_extraction(
            fetched.body, url=fetched.url, include_comments=False, with_metadata=True
        )
    except Exception as error:
        raise FetchError(f"its markup cannot be read ({type(error).__name__})") from error
    if document is None or not document.text:
        return "", ""
    title = text.clean(document.title or "").replace("\n", " ")
    return title[:300], text.clean(document.text)


def _plain(fetched: Fetched) -> str:
    decoded = _decode(fetched)
    if "\0" in decoded or fetched.body.startswith(b"%PDF-"):
        raise FetchError("it is not a text, whatever it says it is")
    return text.clean(decoded)


def _decode(fetched: Fetched) -> str:
    match = re.search(r"charset=[\"']?([\w.:-]+)", fetched.content_type, re.IGNORECASE)
    try:
        return fetched.body.decode(match[1] if match else "utf-8", "replace")
    except (LookupError, ValueError):
        return fetched.body.decode("utf-8", "replace")


def _known(row: Any) -> PageText:
    return PageText(row.final_url, row.title, row.text, row.fetched_at)
