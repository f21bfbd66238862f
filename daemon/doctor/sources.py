"""Feeds and the search engine, read as a run reads them, and forgotten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, told, warn
from daemon.doctor.patient import Patient
from daemon.doctor.storage import in_words
from daemon.sources.confined import Parser
from daemon.sources.feeds import SIDE_BY_SIDE, read_file
from daemon.sources.fetcher import Fetcher, FetchError
from daemon.sources.parse import Item, ParsedFeed, ParseError
from daemon.sources.search import Search, SearchError

LISTED_NAMED_MAX = 5
LISTED_REMEDY = "take these off the list"


class Feeds:
    """
    Args:
        fetcher: the guarded one, with robots.txt, as a run has it.
    """

    def __init__(self, patient: Patient, fetcher: Fetcher, parser: Parser) -> None:
        self._patient = patient
        self._fetcher = fetcher
        self._parser = parser
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def look(self, location: str) -> Findings:
        """One feed, or a list of them in OPML with all that it names."""
        try:
            parsed = await self._read(location)
        except (FetchError, ParseError, OSError) as error:
            remedy = "look at the address, or take it off PENSTOCK_FEEDS"
            return [fail("feed", f"{location}: {_reason(error)}", remedy)]
        if parsed.listed:
            found = [await self._listed(location, parsed.listed)]
            if parsed.problem:
                found.append(warn("feed", f"{location}: {parsed.problem}", LISTED_REMEDY))
            return found
        assert self._patient.settings is not None
        fresh = timedelta(days=self._patient.settings.feeds.fresh_days)
        return [judged(location, parsed.items, self._patient.at, fresh)]

    async def _listed(self, location: str, listed: Sequence[str]) -> Finding:
        results = await asyncio.gather(*map(self._problem, listed))
        broken = [result for result in results if result]
        said = f"{location}: it lists {len(listed)} feeds"
        if not broken:
            return ok("feed", f"{said}, and all can be read")
        named = "; ".join(broken[:LISTED_NAMED_MAX])
        told = fail if len(broken) == len(listed) else warn
        return told("feed", f"{said}, and {len(broken)} cannot be read: {named}", LISTED_REMEDY)

    async def _problem(self, location: str) -> str:
        try:
            await self._read(location)
        except (FetchError, ParseError, OSError) as error:
            return f"{location}: {_reason(error)}"
        return ""

    async def _read(self, location: str) -> ParsedFeed:
        async with self._places:
            if re.match(r"https?://", location, re.IGNORECASE):
                fetched = await self._fetcher.get(location)
            else:
                fetched = read_file(location)
        return await self._parser.feed(
            fetched.body, url=fetched.url, content_type=fetched.content_type
        )


def judged(location: str, items: Sequence[Item], at: datetime, fresh: timedelta) -> Finding:
    """A feed that can be read: whether there is anything new in it."""
    if not items:
        return warn("feed", f"{location}: it has no entries", "look whether it is the right one")
    said = f"{location}: {len(items)} entr{'y' if len(items) == 1 else 'ies'}"
    dated = [item.published_at for item in items if item.published_at]
    if not dated:
        return ok("feed", f"{said} without dates, which count from when they are first seen")
    age = at - max(dated)
    said = f"{said}, the newest {in_words(age)} old"
    if age > fresh and len(dated) == len(items):
        remedy = f"nothing in it is news (PENSTOCK_FRESH_DAYS={fresh.days}); is it still written?"
        return warn("feed", said, remedy)
    return ok("feed", said)


async def search(patient: Patient, engine: Search | None) -> Findings:
    """One question to the search engine."""
    assert patient.settings is not None
    if engine is None:
        return [skipped("search", "PENSTOCK_SEARCH_URL is empty: research reads feeds and archive")]
    asked = next(iter(patient.settings.brief.niche), "news")
    try:
        hits = await engine.find(asked, 10)
    except SearchError as error:
        return [told("search", str(error), "look at PENSTOCK_SEARCH_URL")]
    if not hits:
        return [warn("search", f"it finds nothing on “{asked}”", "look at the engines behind it")]
    return [ok("search", f"{len(hits)} results on “{asked}”")]


def _reason(error: Exception) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
