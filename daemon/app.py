"""Where the parts are wired: the one place that names concrete classes."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from daemon import alerts, migrations, plugins, tls
from daemon.books import Books
from daemon.clock import Clock, SystemClock
from daemon.control import Gate
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
from daemon.secret import Secret
from daemon.settings import Location, Problem, Settings, SettingsError
from daemon.sources.confined import Confined, Parser
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import Fetcher, Resolve, resolve
from daemon.sources.pages import PageReader
from daemon.sources.search import Search
from ledger import audit
from ledger.database import Database, sqlite_path
from ledger.errors import StorageError, storage_error
from publishers.outbox import Outbox
from publishers.plugin import Surroundings
from publishers.port import Publisher

if TYPE_CHECKING:
    from publishers.bluesky.session import SessionFile


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
        session_file=session_file(wiring.settings.location),
        clock=wiring.world.clock,
        timeout_s=wiring.settings.fetch.timeout_s,
        tls=tls.context(),
        transport=wiring.world.platforms,
    )


def session_file(location: Location) -> Path:
    """Where the session at Bluesky is kept."""
    return location.state_dir / "bluesky-session.json"


def bluesky_session(settings: Settings) -> SessionFile:
    """The file with it, as the destination reads it."""
    from publishers.bluesky.session import SessionFile

    account = settings.publishing.bluesky
    path = session_file(settings.location)
    return SessionFile(path, service=account.url, identifier=account.handle)


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


def stripe(settings: Settings, world: World) -> RevenueSource | None:
    """What comes in at Stripe; None without a key."""
    if not settings.earning.stripe_key:
        return None
    from daemon.revenue.stripe import Stripe

    return Stripe(
        settings.earning.stripe_key,
        url=settings.earning.stripe_url,
        timeout_s=settings.fetch.timeout_s,
        transport=world.platforms,
    )


# A new source of money is one file in `daemon/revenue` and one line here (docs/revenue.md).
REVENUE: tuple[Callable[[Settings, World], RevenueSource | None], ...] = (stripe,)


@contextmanager
def opened_database(location: Location) -> Iterator[Database]:
    """
    The database, made and brought up to date, with the process lock held.

    Raises:
        LockHeld, StorageError, SchemaTooNew
        SettingsError: its folder cannot be one.
        BooksWrong: it was opened, and its books do not balance.
    """
    database = Database(location.database_url)
    try:
        with ExitStack() as stack:
            with _folder_told(location):
                make_private(location)
                stack.enter_context(process_lock(database.path))
            migrations.upgrade(database)
            with database.read() as tx:
                audit.require(tx)
            yield database
    finally:
        database.close()


@contextmanager
def loop_database(location: Location) -> Iterator[Database]:
    """The database for who works on an event loop: the driver never waits, `Books` does."""
    with closing(Database(location.database_url, busy_timeout_ms=0)) as database:
        yield database


@contextmanager
def opened_for_work(location: Location) -> Iterator[Database]:
    """The same, with all that `opened_database` sees to, the process lock included."""
    with opened_database(location), loop_database(location) as database:
        yield database


def make_private(location: Location) -> None:
    """The state folder and the database's own, for their owner alone."""
    location.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if location.state_dir.stat().st_uid == os.geteuid():
        location.state_dir.chmod(0o700)
    sqlite_path(location.database_url).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _folder_told(location: Location) -> Iterator[None]:
    """What keeps a folder from being used, with the setting's name or the remedy."""
    try:
        yield
    except OSError as error:
        if kind := storage_error(error):
            raise kind(f"{error.filename}: {error.strerror}") from error
        if error.filename is None:
            raise
        of_state = Path(error.filename).is_relative_to(location.state_dir)
        name = "PENSTOCK_STATE_DIR" if of_state else "PENSTOCK_DATABASE_URL"
        said = f"{error.filename} cannot be a folder ({error.strerror}); name another place"
        raise SettingsError([Problem(name, said)]) from error


class Parts:
    """The parts for one stretch of time, each made when it is first asked for, and closed once."""

    def __init__(
        self,
        stack: AsyncExitStack,
        settings: Settings,
        database: Database,
        progress: Progress,
        world: World,
    ) -> None:
        self._stack = stack
        self._world = world
        self.progress = progress
        self.settings = settings
        self.clock = world.clock
        self.books = Books(database, world.clock)
        self.gate = Gate()

    @cached_property
    def publishers(self) -> list[Publisher]:
        """
        The destinations the operator chose, in their order.

        One of each, since each keeps its platform's limits for all that is asked through it.
        """
        chosen = self.settings.publishing.publishers
        outbox = _outbox(self.settings) if "outbox" in chosen else None
        wiring = Wiring(self.settings, self._world, outbox)
        opened = []
        for name in chosen:
            publisher = PUBLISHERS[name](wiring) if name in PUBLISHERS else plugin(name, wiring)
            opened.append(publisher)
            if close := getattr(publisher, "close", None):
                self._stack.push_async_callback(close)
        return opened

    @cached_property
    def press(self) -> Press:
        """Publishes, and takes back."""
        settings = self.settings
        return Press(
            books=self.books,
            clock=self._world.clock,
            publishers=self.publishers,
            approval=settings.publishing.approval,
            posts_per_day_max=settings.schedule.posts_per_day_max,
            zone=settings.zone,
            brief=settings.brief,
            progress=self.progress,
            gate=self.gate,
        )

    @cached_property
    def parser(self) -> Parser:
        """What strangers' bytes pass through."""
        parser = self._world.parser or Confined.started()
        self._stack.push_async_callback(parser.close)
        return parser

    @cached_property
    def fetcher(self) -> Fetcher:
        """What reads the web."""
        world = self._world
        fetcher = Fetcher(self.settings.fetch, world.web, world.resolve, world.clock)
        self._stack.push_async_callback(fetcher.close)
        return fetcher

    @cached_property
    def feeds(self) -> FeedReader:
        """What visits the feeds."""
        return FeedReader(self.fetcher, self.parser, self.books, self._world.clock)

    @cached_property
    def cycle(self) -> Cycle:
        """Runs, start to finish."""
        settings, world, books = self.settings, self._world, self.books
        parser, fetcher = self.parser, self.fetcher
        models = {
            name: ChatModel(endpoint, world.models)
            for name, endpoint in settings.endpoints.items()
            if endpoint.url
        }
        for model in models.values():
            self._stack.push_async_callback(model.close)
        search = search_engine(settings, world)
        if search is not None:
            self._stack.push_async_callback(search.close)
        meter = Meter(
            books=books,
            models=models,
            prices=settings.prices,
            policy=settings.policy,
            clock=world.clock,
            gate=self.gate,
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
                feeds=self.feeds,
                pages=PageReader(fetcher, parser, books, world.clock),
                search=search,
            ),
            ladders=settings.ladders,
            secrets=settings.secrets(),
        )
        return Cycle(
            books=books,
            clock=world.clock,
            settings=settings,
            asker=asker,
            newsroom=newsroom,
            press=self.press,
            progress=self.progress,
            chance=world.chance,
            gate=self.gate,
        )

    @cached_property
    def reconciler(self) -> Reconciler:
        """Asks whoever may know what became of what is not known."""
        settings = self.settings
        billing = {
            name: Billing(endpoint, settings.fetch.timeout_s, self._world.models)
            for name, endpoint in settings.endpoints.items()
            if endpoint.url
        }
        for side in billing.values():
            self._stack.push_async_callback(side.close)
        return Reconciler(
            books=self.books,
            clock=self._world.clock,
            endpoints=settings.endpoints,
            billing=billing,
            press=self.press,
            expiry=settings.hold_expiry,
            progress=self.progress,
        )

    @cached_property
    def collector(self) -> Collector:
        """Engagement and revenue."""
        made = (make(self.settings, self._world) for make in REVENUE)
        sources = [source for source in made if source is not None]
        for source in sources:
            self._stack.push_async_callback(source.close)
        return Collector(
            books=self.books,
            clock=self._world.clock,
            publishers=self.publishers,
            sources=sources,
            rates=self.settings.earning.rates,
            daily_cap=self.settings.earning.daily_cap,
        )

    async def tell(self) -> None:
        """Tell the operator's webhook of the alerts it has not heard of."""
        if self._webhook is None:
            return
        if trouble := await self._webhook.tell(self.books, self._world.clock):
            self.progress.note("alerts", trouble)

    async def tell_at_last(self) -> None:
        """The same once the work is done, of which a full disk is no part."""
        try:
            await self.tell()
        except StorageError as error:
            self.progress.note("alerts", f"what was told will be told again: {error}")

    async def tell_directly(self, kind: alerts.Kind, message: str, *, cleared: bool) -> bool:
        """Tell the operator's webhook of what cannot be written down; whether it heard."""
        if self._webhook is None:
            return False
        trouble = await self._webhook.send(kind, message, self._world.clock.now(), cleared=cleared)
        if trouble:
            self.progress.note("alerts", trouble)
        return trouble is None

    @cached_property
    def _webhook(self) -> alerts.Webhook | None:
        timeout_s = self.settings.fetch.timeout_s
        webhook = alert_webhook(self.settings.alert_url, self._world, timeout_s=timeout_s)
        if webhook is not None:
            self._stack.push_async_callback(webhook.close)
        return webhook


@asynccontextmanager
async def opened_parts(
    settings: Settings, database: Database, progress: Progress, world: World
) -> AsyncIterator[Parts]:
    """Everything there is to work with, closed again afterwards; then whoever must know is told."""
    async with AsyncExitStack() as stack:
        parts = Parts(stack, settings, database, progress, world)
        try:
            yield parts
        except Exception:
            await parts.tell_at_last()
            raise
        await parts.tell_at_last()


def alert_webhook(url: Secret, world: World, *, timeout_s: float) -> alerts.Webhook | None:
    """What is told to whoever is not beside the machine; None where the operator named none."""
    if not url:
        return None
    return alerts.Webhook(url.reveal(), timeout_s=timeout_s, transport=world.alerts)


def search_engine(settings: Settings, world: World) -> Search | None:
    """What research asks; None where the operator named none."""
    if not settings.search_url:
        return None
    return Search(
        settings.search_url,
        language=settings.brief.language,
        timeout_s=settings.fetch.timeout_s,
        transport=world.search,
    )


def plugin(name: str, wiring: Wiring) -> Publisher:
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
