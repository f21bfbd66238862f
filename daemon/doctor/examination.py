"""All checks, in the order in which they are told; those that wait for others side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from daemon import plugins
from daemon.app import World, search_engine
from daemon.doctor import books, configured, machine, platforms, providers, sources, storage
from daemon.doctor.asking import Times, Watched
from daemon.doctor.findings import Finding, Findings, asked, looked, skipped
from daemon.doctor.patient import UNREADABLE, Patient
from daemon.sources.confined import Confined
from daemon.sources.fetcher import Fetcher

# For any one check that waits for somebody else; they all wait at the same time.
LIMIT_S = 45.0

_HERE: Sequence[tuple[str, Callable[[Patient], Findings]]] = (
    ("python", machine.python),
    ("sqlite", machine.sqlite),
    ("time_zones", machine.time_zones),
    ("settings", configured.settings),
    ("limits", configured.limits),
    ("prices", configured.prices),
    ("secrets", configured.secrets),
    ("alert_url", platforms.alert_url),
    ("state_folder", storage.folder),
    ("room", storage.room),
    ("outbox", storage.outbox),
    ("backups", storage.backups),
    ("lock", storage.lock),
    ("database", books.database),
)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A check that waits for somebody else."""

    check: str
    look: Callable[[], Awaitable[Findings]]


def examine(patient: Patient, world: World, *, limit_s: float = LIMIT_S) -> list[Finding]:
    """Look at everything; never raises, and no finding has a secret in it."""
    times = Times(world.clock)
    here = chain.from_iterable(looked(check, partial(look, patient)) for check, look in _HERE)
    found = [*here, *asyncio.run(_outside(patient, world, times, limit_s))]
    found += looked("clock", lambda: machine.clock(times.offsets))
    return [patient.mask.masked(finding) for finding in found]


async def _outside(
    patient: Patient, world: World, times: Times, limit_s: float
) -> Sequence[Finding]:
    async with AsyncExitStack() as stack:
        waiting = _waiting(patient, world, times, stack)
        results = await asyncio.gather(*(asked(w.check, w.look, limit_s) for w in waiting))
        return list(chain.from_iterable(results))


def _waiting(
    patient: Patient, world: World, times: Times, stack: AsyncExitStack
) -> Sequence[_Waiting]:
    chosen = patient.settings
    if chosen is None:
        names = ("feed", "search", "provider", "devto", "bluesky", "stripe")
        return [_Waiting(name, _later(skipped(name, UNREADABLE))) for name in names]
    outside = platforms.Outside(world, times)
    found = _sources(patient, world, times, stack)
    found += [
        _Waiting("provider", partial(providers.look, patient, endpoint, times, world.models))
        for endpoint in chosen.endpoints.values()
    ]
    found += [
        _Waiting("devto", partial(platforms.devto, patient, outside)),
        _Waiting("bluesky", partial(platforms.bluesky, patient, outside)),
        *(
            _Waiting("plugin", partial(platforms.plugin, patient, name, outside))
            for name in chosen.publishing.publishers
            if name not in plugins.BUILT_IN
        ),
        _Waiting("stripe", partial(platforms.stripe, patient, outside)),
    ]
    return found


def _sources(patient: Patient, world: World, times: Times, stack: AsyncExitStack) -> list[_Waiting]:
    """Feeds and search, read by what a run reads them by."""
    chosen = patient.settings
    assert chosen is not None
    engine = search_engine(chosen, replace(world, search=Watched(times, world.search)))
    if engine is not None:
        stack.push_async_callback(engine.close)
    search = _Waiting("search", partial(sources.search, patient, engine))
    if not chosen.feeds.feeds:
        return [_Waiting("feed", _later(skipped("feed", "PENSTOCK_FEEDS names none"))), search]
    parser = world.parser or Confined.started()
    stack.push_async_callback(parser.close)
    fetcher = Fetcher(chosen.fetch, Watched(times, world.web), world.resolve, world.clock)
    stack.push_async_callback(fetcher.close)
    feeds = sources.Feeds(patient, fetcher, parser)
    return [
        *(_Waiting("feed", partial(feeds.look, location)) for location in chosen.feeds.feeds),
        search,
    ]


def _later(finding: Finding) -> Callable[[], Awaitable[Findings]]:
    async def found() -> Findings:
        return [finding]

    return found
