"""
What a run reads: feeds, the entries it chooses, the pages behind them, and what its questions need.

No model is asked here and nothing is paid. What was read is kept as the run's sources, S1, S2, …,
with the step that read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from daemon import journal, packaging
from daemon.books import Books
from daemon.clock import Clock
from daemon.crew import scout
from daemon.crew.schemas import Plan
from daemon.desk.evidence import Evidence
from daemon.sources import archive, published
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import FetchError, Forbidden, Unreachable
from daemon.sources.pages import PageReader, PageText
from daemon.sources.parse import PAGE_TEXT_MIN
from daemon.sources.policy import FeedPolicy
from daemon.sources.search import Search, SearchError
from daemon.sources.text import keywords
from daemon.steps import Output, Steps
from ledger import store

# Pages of earlier runs that are looked through, the latest ones, and how many of them a run takes.
REMEMBERED_MAX = 200
FROM_ARCHIVE_MAX = 3
# Fewer words of a question in a page are chance; so are short questions.
REMEMBERED_SHARE_MIN = 0.75
REMEMBERED_WORDS_MIN = 4
# Earlier articles that an entry is held against.
SIMILAR_MAX = 3
# A post earns most in its first days; what is younger says nothing yet.
EARNING_TIME = timedelta(days=7)
HITS_MAX = 6
FROM_ONE_SEARCH_MAX = 2
SEARCHED_MAX = 8
# An entry whose page is out of reach each time is no better than one without a page.
IN_VAIN_MAX = 2


class Abstain(Exception):
    """There is nothing fit to publish; the message says why."""


class Failed(Exception):
    """The run cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class _Read:
    """
    A page, or none, and what went wrong, if anything.

    Args:
        passing: it may go well another time.
        forbidden: its address is none that an article may lead to.
    """

    page: PageText | None
    problem: str | None = None
    passing: bool = False
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Finds and reads a run's sources."""

    books: Books
    clock: Clock
    niche: Sequence[str]
    policy: FeedPolicy
    feeds: FeedReader
    pages: PageReader
    search: Search | None

    async def poll(self, steps: Steps) -> Sequence[str]:
        """
        Visit every feed; returns where entries can be.

        Raises:
            Abstain: no feed could be read.
        """

        async def act() -> Output:
            poll = await self.feeds.poll(self.policy.feeds)
            return {"locations": list(poll.locations), "problems": list(poll.problems)}

        found = await steps.work("feeds", act, self._remark(steps, "left out a feed: "))
        if not found["locations"]:
            raise Abstain("no feed could be read: " + "; ".join(found["problems"]))
        return list(found["locations"])

    async def choose(self, steps: Steps, locations: Sequence[str], topic: str | None) -> None:
        """
        Choose what an article is researched from.

        Raises:
            Abstain: nothing is new.
        """

        async def act() -> Output:
            candidates, now = self._candidates(locations), self.clock.now()
            choose = partial(
                scout.choose, candidates, niche=self.niche, topic=topic, at=now,
                fresh_days=self.policy.fresh_days, earned=self._earned(now),
            )  # fmt: skip
            # The archive is asked about the best only: a first look says which these are.
            earlier = self._earlier(candidates, choose().scores)
            return asdict(choose(earlier=earlier))

        await self._take(steps, "scout", act)

    async def gather(self, steps: Steps, locations: Sequence[str], topic: str | None) -> bool:
        """
        Choose what a digest is made of; returns whether all of it is relevant.

        Raises:
            Abstain: nothing is new.
        """

        async def act() -> Output:
            candidates = self._candidates(locations)
            gather = partial(
                scout.gather, candidates, niche=self.niche, topic=topic, at=self.clock.now(),
                fresh_days=self.policy.fresh_days,
            )  # fmt: skip
            return asdict(gather(earlier=self._earlier(candidates, gather().scores)))

        chosen = await self._take(steps, "gather", act)
        # An earlier version has not said so.
        return bool(chosen.get("relevant", True))

    async def _take(self, steps: Steps, name: str, act: Any) -> Output:
        """Choose entries and mark them used, in one transaction."""

        def use(tx: Connection, chosen: Output) -> None:
            archive.use(tx, steps.run, list(chosen["urls"]))
            inputs = {"chosen": chosen["urls"], "scores": chosen["scores"]}
            steps.decide(tx, name, chosen["reason"], inputs)

        chosen = await steps.work(name, act, use)
        if not chosen["urls"]:
            raise Abstain(
                f"{chosen['reason']}; looked at what the feeds have of the last"
                f" {self.policy.fresh_days} days"
            )
        return chosen

    def _candidates(self, locations: Sequence[str]) -> list[scout.Candidate]:
        since = self.clock.now() - timedelta(days=self.policy.fresh_days)
        with self.books.read() as tx:
            return [
                scout.Candidate(
                    row.url, row.feed, row.title, row.summary, row.published_at or row.seen_at
                )
                for row in archive.unused(tx, locations, newer_than=since)
            ]

    def _earlier(
        self, candidates: Sequence[scout.Candidate], urls: Collection[str]
    ) -> dict[str, list[published.Earlier]]:
        """What the publication said before on these entries."""
        with self.books.read() as tx:
            return {
                c.url: published.similar(tx, f"{c.title} {c.summary}", SIMILAR_MAX)
                for c in candidates
                if c.url in urls
            }

    def _earned(self, now: datetime) -> list[scout.Earned]:
        """What articles that had their time earned, by their words."""
        with self.books.read() as tx:
            income = store.earned_by_run(tx)
            rows = published.published(tx)
        return [
            scout.Earned(
                f"{row.title} {row.description} {' '.join(row.tags)}",
                income[row.run].micro if row.run in income else 0,
            )
            for row in rows
            if now - row.published_at >= EARNING_TIME
        ]

    async def read(self, steps: Steps, topic: str | None) -> Mapping[str, Evidence]:
        """
        Fetch what the chosen entries link to and keep it as the run's evidence.

        What the operator asks for is searched for, too, where there is a search engine.

        Raises:
            Abstain: none of it can be read.
            Failed: none of it could be reached. The third time, an entry is to blame itself.
        """
        with self.books.read() as tx:
            entries = {row.url: row for row in archive.used(tx, steps.run)}
            chosen = journal.step(tx, steps.run, "scout")
        assert chosen is not None
        order = [entries[url] for url in chosen.output["urls"] if url in entries]

        async def found() -> list[_Read]:
            read = await asyncio.gather(*(self._read_entry(entry) for entry in order))
            known = {one.page.url for one in read if one.page is not None}
            searched = await self._searched([topic], known) if topic else []
            return [*_without_doubles(read, set()), *searched]

        output = await self._keep(steps, "read", found)
        evidence = self._evidence(steps.run)
        if not evidence:
            reason = f"none of the chosen pages could be read: {'; '.join(output['problems'])}"
            if output.get("passing") and self._in_vain(order) < IN_VAIN_MAX:
                raise Failed(reason)
            raise Abstain(reason)
        return evidence

    def _in_vain(self, entries: Sequence[Any]) -> int:
        """How often runs that failed had chosen these, the one that was chosen most often."""
        with self.books.read() as tx:
            return max(
                (journal.failed_with(tx, "scout", f'"{entry.url}"') for entry in entries),
                default=IN_VAIN_MAX,
            )

    async def widen(self, steps: Steps, plan: Plan) -> Mapping[str, Evidence]:
        """Add what the archive, and a search engine where there is one, have on the questions."""

        async def found() -> list[_Read]:
            known = {source.url for source in self._evidence(steps.run).values()}
            remembered = self._remembered(plan.questions, known)
            known |= {page.url for page in remembered}
            return [_Read(page) for page in remembered] + await self._searched(
                plan.questions, known
            )

        await self._keep(steps, "widen", found)
        return self._evidence(steps.run)

    async def _keep(
        self, steps: Steps, name: str, find: Callable[[], Awaitable[list[_Read]]]
    ) -> Output:
        """A step that adds what it read to the run's sources; returns what went wrong."""
        read: list[_Read] = []

        async def act() -> Output:
            read.extend(await find())
            return {
                "problems": [one.problem for one in read if one.problem],
                "passing": all(one.passing for one in read if one.page is None),
            }

        def keep(tx: Connection, output: Output) -> None:
            first = len(journal.sources(tx, steps.run)) + 1
            pages = [one.page for one in read if one.page is not None]
            for number, page in enumerate(pages, start=first):
                journal.add_source(tx, steps.run, id=f"S{number}", **asdict(page))
            self._remark(steps)(tx, output)

        return await steps.work(name, act, keep)

    def _evidence(self, run: str) -> dict[str, Evidence]:
        with self.books.read() as tx:
            return packaging.evidence(tx, run)

    def _remembered(self, questions: Sequence[str], known: Set[str]) -> list[PageText]:
        """Pages that earlier runs read lately and that speak of most that a question asks."""
        since = self.clock.now() - timedelta(days=self.policy.fresh_days)
        with self.books.read() as tx:
            rows = archive.pages(tx, newer_than=since, limit=REMEMBERED_MAX)
        pages = {
            row.final_url: PageText(row.final_url, row.title, row.text, row.fetched_at)
            for row in rows
            if row.final_url not in known
        }
        speaks_of = {url: keywords(f"{page.title} {page.text}") for url, page in pages.items()}
        chosen: dict[str, PageText] = {}
        for question in questions:
            wanted = keywords(question)
            share = {
                url: len(wanted & said) / max(1, len(wanted)) for url, said in speaks_of.items()
            }
            best = max(share, key=share.__getitem__, default="")
            if best and share[best] >= REMEMBERED_SHARE_MIN and len(wanted) >= REMEMBERED_WORDS_MIN:
                chosen[best] = pages[best]
        return list(chosen.values())[:FROM_ARCHIVE_MAX]

    async def _searched(self, questions: Sequence[str], known: Set[str]) -> list[_Read]:
        """What the search engine finds on each question, read as any other page is."""
        if self.search is None:
            return []
        found = await asyncio.gather(*(self._hits(self.search, question) for question in questions))
        problems = [_Read(None, problem) for _, problem in found if problem]
        urls: dict[str, None] = {}
        for hits, _ in found:
            fresh = [url for url in hits if url not in known and url not in urls]
            urls |= dict.fromkeys(fresh[:FROM_ONE_SEARCH_MAX])
        read = await asyncio.gather(*(self._read_page(url) for url in list(urls)[:SEARCHED_MAX]))
        return [*problems, *_without_doubles(read, known)]

    async def _hits(self, search: Search, question: str) -> tuple[Sequence[str], str | None]:
        try:
            return await search.find(question, HITS_MAX), None
        except SearchError as error:
            return (), f"search: {error}"

    def _remark(self, steps: Steps, prefix: str = "") -> Callable[[Connection, Output], None]:
        """Keep the problems a step met as decisions of the run, once."""

        def remark(tx: Connection, output: Output) -> None:
            for problem in output["problems"]:
                steps.decide(tx, "left out", f"{prefix}{problem}", {})

        return remark

    async def _read_entry(self, entry: Any) -> _Read:
        """The page of an entry, else what its feed carries where that is enough."""
        read = await self._read_page(entry.url)
        # Where its address itself was refused, no article may lead there.
        if read.page is not None or read.forbidden or len(entry.text) < PAGE_TEXT_MIN:
            return read
        kept = PageText(entry.url, entry.title, entry.text, self.clock.now())
        return _Read(kept, f"{read.problem}; used what its feed carries")

    async def _read_page(self, url: str) -> _Read:
        try:
            return _Read(await self.pages.read(url))
        except FetchError as error:
            return _Read(
                None, f"could not read {url}: {error}",
                passing=isinstance(error, Unreachable), forbidden=isinstance(error, Forbidden),
            )  # fmt: skip


def _without_doubles(read: Sequence[_Read], known: Set[str]) -> list[_Read]:
    """Two addresses may lead to one page, and that may be a source already."""
    seen, kept = set(known), []
    for one in read:
        if one.page is None or one.page.url not in seen:
            kept.append(one)
        if one.page is not None:
            seen.add(one.page.url)
    return kept
