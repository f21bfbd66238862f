"""`penstock run`: the daemon in the foreground, as systemd or a person starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from daemon import logs
from daemon import settings as settings_module
from daemon.alerts import Kind
from daemon.app import Parts, World, alert_webhook, opened_for_work, opened_parts
from daemon.cli import say
from daemon.cli.context import Context, UsageError
from daemon.cli.exits import Exit, of_error
from daemon.cli.once import trace
from daemon.clock import SystemClock
from daemon.notify import Notifier
from daemon.plugins import PluginError
from daemon.secret import Secret
from daemon.service import Ended, Service
from daemon.settings import Settings, SettingsError
from daemon.starts import Starts, Unusable
from ledger.database import Database
from ledger.errors import BooksWrong

# What a start that fails waits at most for who is told of it.
TELL_S = 20.0


def run(args: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; SIGHUP takes up changed settings."""
    context = Context(args)
    settings_module.umask_private()
    notifier, starts = Notifier.from_env(os.environ), Starts.from_env(os.environ)
    try:
        settings = context.settings()
    except (SettingsError, UsageError) as error:
        _account_for(error, _alert_url(context), starts)
        raise
    opened = False
    try:
        with opened_for_work(context.location) as database:
            opened = True
            asyncio.run(_serve(context, settings, database, notifier, starts))
    except Exception as error:
        # Of books that become wrong while it serves, the service tells.
        if not (opened and isinstance(error, BooksWrong)):
            _account_for(error, settings.alert_url, starts)
        raise
    return Exit.DONE


def _alert_url(context: Context) -> Secret:
    """Where alerts go, as far as the settings can be read."""
    try:
        env = context.env
    except (SettingsError, UsageError):
        env = os.environ
    return settings_module.alert_url(env)


def _account_for(error: Exception, url: Secret, starts: Starts) -> None:
    """See that who is not beside the machine learns why there is no daemon."""
    if not starts.kept:
        return
    now, said, code = SystemClock().now(), _words(error), of_error(error)
    trouble = starts.failed() or Unusable(now)
    told = trouble.told
    # What systemd does not try again is told at once, what may heal when it lasts.
    if trouble.is_to_be_told(now) or code in (Exit.SETTINGS, Exit.BOOKS_WRONG):
        kind = Kind.BOOKS if code is Exit.BOOKS_WRONG else Kind.FAULT
        told = asyncio.run(_told(url, kind, f"penstock cannot work: {said}", now)) or told
    starts.keep(Unusable(trouble.since, type(error).__name__, said, told))


def _words(error: Exception) -> str:
    """An error, for who is not beside the machine."""
    if isinstance(error, SettingsError):
        # The names alone: what stands there by mistake may be a key.
        names = ", ".join(dict.fromkeys(problem.name for problem in error.problems))
        return f"the settings are wrong: {names}; `penstock doctor` says how"
    return str(error) or type(error).__name__


async def _told(url: Secret, kind: Kind, message: str, now: datetime) -> bool:
    """Whether the operator's webhook took it."""
    webhook = alert_webhook(url, World(), timeout_s=TELL_S)
    if webhook is None:
        return False
    try:
        trouble = await webhook.send(kind, message, now, cleared=False)
    finally:
        await webhook.close()
    if trouble:
        say(f"penstock: {trouble}")
    return trouble is None


async def _serve(
    context: Context,
    settings: Settings,
    database: Database,
    notifier: Notifier,
    starts: Starts,
) -> None:
    """One stretch after another, each with the settings of its day."""
    loop = asyncio.get_running_loop()
    wanted = _Wanted()
    good: Settings | None = None
    refused = ""
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, wanted.stop)
    loop.add_signal_handler(signal.SIGHUP, wanted.reload)
    while True:
        progress = logs.begin(
            settings.log_level, settings.secrets(), sys.stderr, terminal=sys.stderr.isatty()
        )
        async with (
            opened_parts(settings, database, progress, World()) as parts,
            _measured(parts),
        ):
            try:
                parts.publishers  # noqa: B018 - a plug-in reads its settings when it is made
            except PluginError as error:
                if good is None:
                    raise
                progress.warn("service", f"the new settings are not used: {error}")
                settings, refused = good, _words(error)
                continue
            good = settings

            async def traced(run: str, settings: Settings = settings) -> None:
                # Sending waits for a socket, so it has a thread.
                await asyncio.to_thread(trace, context, settings, run)

            service = Service(parts, notifier, starts=starts, trace=traced, refused=refused)
            with wanted.of(service):
                if await service.serve() is Ended.STOPPED:
                    return
        notifier.reloading()
        wanted.read()
        settings, refused = _reloaded(context, settings, progress)


def _reloaded(context: Context, settings: Settings, progress: logs.Telling) -> tuple[Settings, str]:
    """The settings as they are now; those of before where these are wrong, and what is wrong."""
    try:
        found = Context(context.args).settings()
    except (SettingsError, UsageError, OSError) as error:
        for line in str(error).splitlines():
            progress.warn("service", f"the new settings are not used: {line}")
        return settings, _words(error)
    if found.location != settings.location:
        said = "another place of the state needs a restart"
        progress.warn("service", f"{said}; the old one is kept")
        return settings, said
    progress.note("service", "settings reloaded")
    return found, ""


@asynccontextmanager
async def _measured(parts: Parts) -> AsyncIterator[None]:
    """Metrics on loopback, where the operator wants them."""
    port = parts.settings.metrics_port
    if not port:
        yield
        return
    from daemon.metrics import Metrics, serve

    metrics = Metrics(parts.books, parts.clock, parts.settings)
    try:
        server = await serve(port, metrics.read)
    except OSError as error:
        say(f"penstock: PENSTOCK_METRICS_PORT {port}: {error.strerror}; there are no metrics")
        yield
        return
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


class _Wanted:
    """What signals ask for, also while no service is there to be asked."""

    def __init__(self) -> None:
        self._service: Service | None = None
        self._stop = False
        self._reload = False

    def of(self, service: Service) -> _Wanted:
        self._service = service
        if self._stop:
            service.stop()
        elif self._reload:
            service.reload()
        return self

    def read(self) -> None:
        """The settings are read now: what was asked for until here is done with that."""
        self._reload = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._service = None

    def stop(self) -> None:
        self._stop = True
        if self._service is not None:
            self._service.stop()

    def reload(self) -> None:
        self._reload = True
        if self._service is not None:
            self._service.reload()
