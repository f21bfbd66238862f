"""Where the parts are wired: the one place that names concrete classes."""

from __future__ import annotations

import os
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx

from daemon import alerts, migrations, plugins, tls
from daemon.books import Books
from daemon.clock import Clock, SystemClock
from daemon.cycle import Cycle
from daemon.engagement import Collector
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
from daemon.revenue.port import RevenueSource
from daemon.settings import Location, Settings
from daemon.sources.confined import Confined, Parser
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import Fetcher, Resolve, resolve
from daemon.sources.pages import PageReader
from daemon.sources.search import Search
from ledger import audit
from ledger.database import Database, sqlite_path
from publishers.outbox import Outbox
from publishers.plugin import Surroundings
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
        models, web, search, platforms, alerts: how bytes travel to model providers, to feeds and
            pages, to the search engine, to destinations and sources of revenue, and to whom alerts
            are told; None for sockets.
        parser: what strangers' bytes pass through; None for a process with limits.
        chance: what ids are drawn from.
    """

    clock: Clock = field(default_factory=SystemClock)
    models: httpx.AsyncBaseTransport | None = None
    web: httpx.AsyncBaseTransport | None = None
    search: httpx.AsyncBaseTransport | None = None
    platforms: httpx.AsyncBaseTransport | None = None
    alerts: httpx.AsyncBaseTransport | None = None
    resolve: Resolve = resolve
    parser: Parser | None = None
    chance: random.Random = field(default_factory=random.SystemRandom)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What destinations are made of. `outbox` is where readers find an article's own page."""

    settings: Settings
    world: World
    outbox: Outbox | None


def _devto(wiring: Wiring) -> Publisher:
    from publishers.devto import DevTo

    account, outbox = wiring.settings.publishing.devto, wiring.outbox
    return DevTo(
        account.key.reveal(),
        clock=wiring.world.clock,
        url=account.url,
        timeout_s=wiring.settings.fetch.timeout_s,
        series=account.series,
        cover=(lambda post: None) if outbox is None else outbox.picture,
        tls=tls.context(),
        transport=wiring.world.platforms,
    )


def _bluesky(wiring: Wiring) -> Publisher:
    from publishers.bluesky import Bluesky

    account = wiring.settings.publishing.bluesky
    return Bluesky(
        handle=account.handle,
        app_password=account.app_password.reveal(),
        service=account.url,
        session_file=wiring.settings.location.state_dir / "bluesky-session.json",
        clock=wiring.world.clock,
        tls=tls.context(),
        transport=wiring.world.platforms,
    )


# A new destination of ours is one file in `publishers` and one line here; another distribution
# brings its own as an entry point (docs/publishers.md).
PUBLISHERS: Mapping[str, Callable[[Wiring], Publisher]] = {
    "outbox": lambda wiring: wiring.outbox or _outbox(wiring.settings),
    "devto": _devto,
    "bluesky": _bluesky,
}


def _outbox(settings: Settings) -> Outbox:
    chosen = settings.publishing
    return Outbox(chosen.outbox_dir, site_url=chosen.site_url, title=settings.brief.publication)


def _stripe(settings: Settings, world: World) -> RevenueSource | None:
    if not settings.earning.stripe_key:
        return None
    from daemon.revenue.stripe import Stripe

    return Stripe(
        settings.earning.stripe_key,
        url=settings.earning.stripe_url,
        timeout_s=settings.fetch.timeout_s,
        tls=tls.context(),
        transport=world.platforms,
    )


# A new source of money is one file in `daemon/revenue` and one line here (docs/revenue.md).
REVENUE: tuple[Callable[[Settings, World], RevenueSource | None], ...] = (_stripe,)


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
            secrets=secrets(settings),
        )
        press = await _press(stack, settings, books, progress, world)
        await _told(stack, settings, books, progress, world)
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
        press = await _press(stack, settings, books, progress, world)
        await _told(stack, settings, books, progress, world)
        yield Reconciler(
            books=books,
            clock=world.clock,
            endpoints=settings.endpoints,
            billing=billing,
            press=press,
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


async def _press(
    stack: AsyncExitStack, settings: Settings, books: Books, progress: Progress, world: World
) -> Press:
    return Press(
        books=books,
        clock=world.clock,
        publishers=await _opened_publishers(stack, settings, world),
        approval=settings.publishing.approval,
        posts_per_day_max=settings.schedule.posts_per_day_max,
        zone=settings.zone,
        brief=settings.brief,
        progress=progress,
    )


@asynccontextmanager
async def opened_press(
    settings: Settings, database: Database, progress: Progress, world: World
) -> AsyncIterator[Press]:
    """The press alone, for whoever takes an article back."""
    async with AsyncExitStack() as stack:
        books = Books(database, world.clock)
        press = await _press(stack, settings, books, progress, world)
        await _told(stack, settings, books, progress, world)
        yield press


@asynccontextmanager
async def opened_collector(
    settings: Settings, database: Database, progress: Progress, world: World
) -> AsyncIterator[Collector]:
    """Everything `collect` needs, closed again afterwards."""
    async with AsyncExitStack() as stack:
        books = Books(database, world.clock)
        sources = [found for make in REVENUE if (found := make(settings, world)) is not None]
        for source in sources:
            stack.push_async_callback(source.close)
        publishers = await _opened_publishers(stack, settings, world)
        await _told(stack, settings, books, progress, world)
        yield Collector(
            books=books,
            clock=world.clock,
            publishers=publishers,
            sources=sources,
            rates=settings.earning.rates,
            daily_cap=settings.earning.daily_cap,
        )


async def _opened_publishers(
    stack: AsyncExitStack, settings: Settings, world: World
) -> list[Publisher]:
    """The destinations the operator chose, in their order."""
    chosen = settings.publishing.publishers
    wiring = Wiring(settings, world, _outbox(settings) if "outbox" in chosen else None)
    opened = []
    for name in chosen:
        publisher = PUBLISHERS[name](wiring) if name in PUBLISHERS else _plugin(name, wiring)
        opened.append(publisher)
        if close := getattr(publisher, "close", None):
            stack.push_async_callback(close)
    return opened


def _plugin(name: str, wiring: Wiring) -> Publisher:
    """A destination from another distribution, with a folder of its own."""
    settings = wiring.settings
    folder = settings.location.state_dir / "publishers" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return plugins.made(
        name,
        Surroundings(
            clock=wiring.world.clock,
            timeout_s=settings.fetch.timeout_s,
            state_dir=folder,
            publication=settings.brief.publication,
            tls=tls.context(),
            settings=settings.publishing.plugins.get(name, {}),
        ),
    )


async def _told(
    stack: AsyncExitStack, settings: Settings, books: Books, progress: Progress, world: World
) -> None:
    """When everything else is done, whoever must know is told."""
    url = settings.alert_url.reveal()
    if not url:
        return
    webhook = alerts.Webhook(
        url, timeout_s=settings.fetch.timeout_s, tls=tls.context(), transport=world.alerts
    )
    stack.push_async_callback(webhook.close)

    async def tell() -> None:
        if trouble := await webhook.tell(books, world.clock):
            progress.note("alerts", trouble)

    stack.push_async_callback(tell)


def secrets(settings: Settings) -> list[str]:
    """Everything that must never stand in an article."""
    account = settings.publishing
    found = [
        *(endpoint.key.reveal() for endpoint in settings.endpoints.values()),
        account.devto.key.reveal(),
        account.bluesky.app_password.reveal(),
        settings.earning.stripe_key.reveal(),
        settings.alert_url.reveal(),
        *(
            value
            for own in account.plugins.values()
            for name, value in own.items()
            # Which of a plug-in's settings are secret, it alone knows; its name tells most often.
            if re.search(r"key|token|secret|password", name)
        ),
    ]
    return [secret for secret in found if secret]
