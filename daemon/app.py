"""Where the parts are wired: the one place that names concrete classes."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx

from daemon import migrations
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
from daemon.reconcile import Reconciler
from daemon.settings import Location, Publishing, Settings
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import Fetcher, Resolve, resolve
from daemon.sources.pages import PageReader
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
        models, web: how bytes travel to model providers, and to feeds and pages; None for sockets.
        chance: what ids are drawn from.
    """

    clock: Clock = field(default_factory=SystemClock)
    models: httpx.AsyncBaseTransport | None = None
    web: httpx.AsyncBaseTransport | None = None
    resolve: Resolve = resolve
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
        books = Books(database, world.clock)
        models = {
            name: ChatModel(endpoint, world.models)
            for name, endpoint in settings.endpoints.items()
            if endpoint.url
        }
        for model in models.values():
            stack.push_async_callback(model.close)
        fetcher = Fetcher(settings.fetch, world.web, world.resolve)
        stack.push_async_callback(fetcher.close)
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
            feed_policy=settings.feeds,
            feeds=FeedReader(fetcher, books, world.clock),
            pages=PageReader(fetcher, books, world.clock),
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


def _press(settings: Settings, books: Books, progress: Progress, world: World) -> Press:
    return Press(
        books=books,
        clock=world.clock,
        publishers=publishers(settings),
        approval=settings.publishing.approval,
        posts_per_day_max=settings.schedule.posts_per_day_max,
        zone=settings.zone,
        language=settings.brief.language,
        progress=progress,
    )


def publishers(settings: Settings) -> list[Publisher]:
    """The destinations the operator chose, in their order."""
    niche = settings.brief.niche
    title = niche[0][:1].upper() + niche[0][1:] if niche else "Penstock"
    return [PUBLISHERS[name](settings.publishing, title) for name in settings.publishing.publishers]
