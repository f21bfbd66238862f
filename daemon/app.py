"""Where the parts are wired: the one place that names concrete classes."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx

from daemon import migrations, tls
from daemon.books import Books
from daemon.clock import Clock, SystemClock
from daemon.cycle import Cycle
from daemon.inference.asking import Asker
from daemon.inference.billing import Billing
from daemon.inference.chat import ChatModel
from daemon.inference.meter import Meter
from daemon.lock import process_lock
from daemon.newsroom import Newsroom
from daemon.press import Press
from daemon.progress import Progress
from daemon.reading import Reading
from daemon.reconcile import Reconciler
from daemon.settings import Location, Publishing, Settings
from daemon.sources.confined import Confined, Parser
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import Fetcher, Resolve, resolve
from daemon.sources.pages import PageReader
from daemon.sources.search import Search
from ledger import audit
from ledger.database import Database, sqlite_path
from publishers.outbox import Outbox
from publishers.port import Publisher


class BooksWrong(Exception):
    """The books do not balance: stop and look."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the books do not balance: " + "; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class World:
    """
    What is outside the process. A test hands in another one.

    Args:
        models, web, search: how bytes travel to model providers, to feeds and pages, and to the
            search engine; None for sockets.
        parser: what strangers' bytes pass through; None for a process with limits.
        chance: what ids are drawn from.
    """

    clock: Clock = field(default_factory=SystemClock)
    models: httpx.AsyncBaseTransport | None = None
    web: httpx.AsyncBaseTransport | None = None
    search: httpx.AsyncBaseTransport | None = None
    resolve: Resolve = resolve
    parser: Parser | None = None
    chance: random.Random = field(default_factory=random.SystemRandom)


# A new destination is one file in `publishers` and one line here.
PUBLISHERS: Mapping[str, Callable[[Publishing, str], Publisher]] = {
    "outbox": lambda publishing, title: Outbox(
        publishing.outbox_dir, site_url=publishing.site_url, title=title
    ),
}


@contextmanager
def opened_database(location: Location) -> Iterator[Database]:
    """
    The database, made and brought up to date, with the process lock held.

    Raises:
        LockHeld, StorageError, SchemaTooNew
        BooksWrong: it was opened, and its books do not balance.
    """
    database = Database(location.database_url)
    make_private(location)
    try:
        with process_lock(database.path):
            migrations.upgrade(database)
            with database.read() as tx:
                report = audit.check(tx)
            if not report.ok:
                raise BooksWrong(report.problems)
            yield database
    finally:
        database.close()


def make_private(location: Location) -> None:
    """The state folder and the database's own, for their owner alone."""
    location.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if location.state_dir.stat().st_uid == os.geteuid():
        location.state_dir.chmod(0o700)
    sqlite_path(location.database_url).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


@asynccontextmanager
async def opened_cycle(
    settings: Settings, database: Database, progress: Progress, world: World
) -> AsyncIterator[Cycle]:
    """Everything a run needs, closed again afterwards."""
    async with AsyncExitStack() as stack:
        parser = world.parser or Confined.started()
        stack.push_async_callback(parser.close)
        books = Books(database, world.clock)
        models = {
            name: ChatModel(endpoint, world.models)
            for name, endpoint in settings.endpoints.items()
            if endpoint.url
        }
        for model in models.values():
            stack.push_async_callback(model.close)
        fetcher = Fetcher(settings.fetch, world.web, world.resolve, world.clock)
        stack.push_async_callback(fetcher.close)
        search = _search(settings, world)
        if search is not None:
            stack.push_async_callback(search.close)
        meter = Meter(
            books=books,
            models=models,
            prices=settings.prices,
            policy=settings.policy,
            clock=world.clock,
        )
        asker = Asker(
            books=books,
            meter=meter,
            options=settings.model_options,
            call_timeout_s=settings.call_timeout_s,
            clock=world.clock,
        )
        newsroom = Newsroom(
            books=books,
            clock=world.clock,
            brief=settings.brief,
            reading=Reading(
                books=books,
                clock=world.clock,
                niche=settings.brief.niche,
                policy=settings.feeds,
                feeds=FeedReader(fetcher, parser, books, world.clock),
                pages=PageReader(fetcher, parser, books, world.clock),
                search=search,
            ),
            ladders=settings.ladders,
            secrets=[endpoint.key.reveal() for endpoint in settings.endpoints.values()],
        )
        press = _press(settings, books, progress, world)
        yield Cycle(
            books=books,
            clock=world.clock,
            settings=settings,
            asker=asker,
            newsroom=newsroom,
            press=press,
            progress=progress,
            chance=world.chance,
        )


@asynccontextmanager
async def opened_reconciler(
    settings: Settings, database: Database, progress: Progress, world: World
) -> AsyncIterator[Reconciler]:
    """Everything `reconcile` needs, closed again afterwards."""
    async with AsyncExitStack() as stack:
        books = Books(database, world.clock)
        billing = {
            name: Billing(endpoint, settings.fetch.timeout_s, world.models)
            for name, endpoint in settings.endpoints.items()
            if endpoint.url
        }
        for side in billing.values():
            stack.push_async_callback(side.close)
        yield Reconciler(
            books=books,
            clock=world.clock,
            endpoints=settings.endpoints,
            billing=billing,
            press=_press(settings, books, progress, world),
            expiry=settings.hold_expiry,
            progress=progress,
        )


def _search(settings: Settings, world: World) -> Search | None:
    if not settings.search_url:
        return None
    return Search(
        settings.search_url,
        language=settings.brief.language,
        timeout_s=settings.fetch.timeout_s,
        tls=tls.context(),
        transport=world.search,
    )


def _press(settings: Settings, books: Books, progress: Progress, world: World) -> Press:
    return Press(
        books=books,
        clock=world.clock,
        publishers=publishers(settings),
        approval=settings.publishing.approval,
        posts_per_day_max=settings.schedule.posts_per_day_max,
        zone=settings.zone,
        brief=settings.brief,
        progress=progress,
    )


def publishers(settings: Settings) -> list[Publisher]:
    """The destinations the operator chose, in their order."""
    chosen, title = settings.publishing, settings.brief.publication
    return [PUBLISHERS[name](chosen, title) for name in chosen.publishers]
