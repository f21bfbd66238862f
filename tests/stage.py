"""
A stage for whole runs: the real program, in process, on virtual time, in a world of doubles.

`Stage.once` is one life of the process: it opens the database anew and closes it. A `Kill` may
end that life at a commit; the next call is the next life.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from sqlalchemy import Connection

from daemon import settings
from daemon.app import World, opened_database, opened_parts
from daemon.cycle import Report
from daemon.reconcile import Findings
from daemon.sources.confined import Unconfined
from ledger import audit, store
from ledger.database import Database
from ledger.money import MicroCredits
from tests.doubles.model import ModelDouble
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import InProcess
from tests.virtual import START, VirtualTime

BLOG_ADDRESS = "93.184.216.34"
# Micro-credits per million tokens, as in the prices below.
GOOD, CHEAP = (1_000_000, 100_000, 5_000_000), (200_000, 20_000, 800_000)
TOPICS = ("write-ahead log", "connection pool", "backup restore", "query planner")


class Killed(BaseException):
    """The process died here. No code of ours may catch it."""


class Silent:
    """Nobody watches."""

    def step(self, run: str, name: str, state: str, detail: str = "") -> None:
        pass

    def note(self, run: str, line: str) -> None:
        pass


class Kill:
    """
    Ends the process at a commit, just before it or just after.

    Args:
        due: told the number of the commit, from 1, says whether it is this one.
    """

    def __init__(self, due: Callable[[int], bool], *, after: bool) -> None:
        self._due = due
        self.after = after
        self.commits = 0
        self.dead = False

    @classmethod
    def at(cls, number: int, *, after: bool) -> Kill:
        return cls(lambda commit: commit == number, after=after)

    def strikes(self) -> bool:
        self.commits += 1
        self.dead = self._due(self.commits)
        return self.dead


class MortalDatabase(Database):
    """A database whose process can be killed; a dead process commits nothing more."""

    def __init__(self, url: str, kill: Kill | None) -> None:
        super().__init__(url, busy_timeout_ms=0)
        self._kill = kill

    @contextmanager
    def write(self) -> Iterator[Connection]:
        kill = self._kill
        if kill is None:
            with super().write() as tx:
                yield tx
            return
        if kill.dead:
            raise Killed
        with super().write() as tx:
            yield tx
            if kill.strikes() and not kill.after:
                raise Killed
        if kill.dead:
            raise Killed


class Stage:
    """A publication with a blog to read, a model to ask and a folder to publish to."""

    def __init__(self, folder: Path, blog: SiteDouble | None = None, /, **changes: str) -> None:
        self.time = VirtualTime()
        self.model = ModelDouble({"good": GOOD, "cheap": CHEAP})
        self.blog = blog or SiteDouble(pages=blog_pages())
        self.outbox = folder / "outbox"
        env = {
            "PENSTOCK_STATE_DIR": str(folder),
            "PENSTOCK_NICHE": "running databases, SQLite",
            "PENSTOCK_FEEDS": "http://blog.test/feed.xml",
            "PENSTOCK_PROVIDER_LLM_URL": "https://llm.test/v1",
            "PENSTOCK_PROVIDER_LLM_KEY": "test-key",
            "PENSTOCK_MODELS_RESEARCH": "llm/good",
            "PENSTOCK_MODELS_WRITE": "llm/good",
            "PENSTOCK_MODELS_EDIT": "llm/good",
            "PENSTOCK_PRICES": "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8",
        } | changes
        self.settings = settings.load(env, at=START)
        self._chance = random.Random(7)

    def deposit(self, amount: str, ref: str = "first") -> None:
        with opened_database(self.settings.location) as database, database.write() as tx:
            store.deposit(tx, amount=MicroCredits.parse(amount), ref=ref, at=START)

    def world(self) -> World:
        """What is outside the process."""

        async def resolve(host: str, port: int) -> list[str]:
            return [BLOG_ADDRESS]

        return World(
            clock=self.time.clock,
            models=InProcess({"llm.test": self.model}),
            web=InProcess({BLOG_ADDRESS: self.blog}),
            resolve=resolve,
            # A process answers in real time, which a virtual loop does not have.
            parser=Unconfined(),
            chance=self._chance,
        )

    def once(self, *, kill: Kill | None = None, topic: str | None = None) -> Report:
        """One life of the process."""

        async def live() -> Report:
            async with opened_parts(self.settings, database, Silent(), self.world()) as parts:
                return await parts.cycle.once(topic=topic)

        with opened_database(self.settings.location):
            database = MortalDatabase(self.settings.location.database_url, kill)
            try:
                return self.time.run(live())
            finally:
                database.close()

    def reconcile(self) -> Findings:
        """`penstock reconcile`, in a life of its own."""

        async def live() -> Findings:
            world = World(clock=self.time.clock, models=InProcess({"llm.test": self.model}))
            async with opened_parts(self.settings, database, Silent(), world) as parts:
                return await parts.reconciler.run()

        with opened_database(self.settings.location):
            database = MortalDatabase(self.settings.location.database_url, None)
            try:
                return self.time.run(live())
            finally:
                database.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        database = Database(self.settings.location.database_url)
        try:
            with database.read() as tx:
                yield tx
        finally:
            database.close()

    def articles(self) -> list[Path]:
        return sorted(self.outbox.glob("*.md"))

    def judge(self) -> None:
        """The books balance, and never say less than the provider's bill."""
        with self.reading() as tx:
            report = audit.check(tx)
            booked = store.spent(tx, since=START.replace(year=2000))
        assert report.ok, report.problems
        assert booked.micro >= self.model.billed_micro


def blog_pages(
    newest: datetime = datetime(2026, 11, 22, 8, tzinfo=UTC),
) -> dict[str, Page | bytes | str]:
    """Four pages of three days and a feed, plain prose about one subject, made from a seed."""
    pages: dict[str, Page | bytes | str] = {}
    items = []
    for number, topic in enumerate(TOPICS, start=1):
        path = f"/{topic.replace(' ', '-')}.html"
        prose = "".join(f"<p>{_paragraph(topic, number, index)}</p>" for index in range(6))
        pages[path] = (
            f"<html><head><title>The {topic} explained</title></head><body><article>"
            f"<h1>The {topic} explained</h1>{prose}</article></body></html>"
        )
        at = newest - timedelta(days=2 - number % 3)
        items.append(
            f"<item><title>The {topic} explained</title><link>http://blog.test{path}</link>"
            f"<guid>http://blog.test{path}</guid><description>How the {topic} of SQLite works in"
            f" running databases.</description><pubDate>{format_datetime(at)}</pubDate></item>"
        )
    pages["/feed.xml"] = (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>Database Notes</title>'
        f"<link>http://blog.test/</link><description>d</description>{''.join(items)}"
        "</channel></rss>"
    )
    return pages


def renamed(
    pages: Mapping[str, Page | bytes | str], mark: str = "2"
) -> dict[str, Page | bytes | str]:
    """The same blog with new addresses and titles, as if it had written all of it once more."""
    return {
        path.replace(".html", f"-{mark}.html"): (
            body.replace(".html", f"-{mark}.html").replace("explained", f"revisited {mark}")
            if isinstance(body, str)
            else body
        )
        for path, body in pages.items()
    }


def _paragraph(topic: str, number: int, index: int) -> str:
    return (
        f"The {topic} keeps {number * 10 + index} records in its first pass over the file."
        f" An operator who changes the {topic} should measure the effect on a copy first."
        f" In release {number}.{index} the {topic} was made safe for readers that stay open."
        f" Nobody should expect the {topic} to repair damage that happened before it ran."
    )
