"""
One history: lives of the real daemon, one after the other, in the world of a plan.

The service loop, the cycle, the ledger on a real SQLite file and the real adapters run unchanged;
only time, the network's far end and chance are the world's. A process that dies commits nothing
more and sends nothing more; systemd starts the next one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import resource
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, Row, func, select
from sqlmodel import SQLModel

from daemon import control, drafts, journal, press, settings
from daemon.app import World as Outside
from daemon.app import opened_database, opened_parts
from daemon.cli.ledger import attempt_document
from daemon.inference import attempts
from daemon.notify import Notifier
from daemon.service import Ended, Service
from daemon.sources import published
from ledger import audit, export, store
from ledger.database import Database
from ledger.errors import StorageError
from ledger.money import MicroCredits
from ledger.rules import Action
from tests.doubles.wire import InProcess
from tests.platforms import Mortal
from tests.simulation.judge import (
    AWAKE_WITHIN,
    BY_HAND,
    Books,
    InForce,
    Lists,
    Lull,
    Moments,
    Verdict,
    judge,
)
from tests.simulation.plan import CLOCK_WRONG_MAX_S, DAY_S, FREE, Fault, Plan, drawn, reloaded
from tests.simulation.slots import next_slot
from tests.simulation.world import (
    BLOG_ADDRESS,
    BLUESKY_SECRET,
    DEVTO_SECRET,
    NEWS_ADDRESS,
    OTHER_SECRET,
    SECRET,
    Remembering,
    World,
)
from tests.stage import Kill, MortalDatabase, Silent
from tests.virtual import VirtualLoop

# systemd's RestartSec; while nobody could start, trying less often changes nothing but the time
# this takes.
RESTART_S = 30
UNUSABLE_S = 900
# The daemon looks every 15 s. Here it looks by the hour, and when there is something to see.
POLL_S, LOOK_S = 3_600.0, 15
HOUR_S = 3_600
# An unknown post is looked up hourly, and the last look may have just been.
POSTS_SETTLE_S = HOUR_S + 600
# Before one fault in so many the world is good for that long, where an intent is open.
LULL_EVERY = 2
# After which the daemon must have used its next slot.
AFTERWARDS_S = 8 * DAY_S

# From so long before a slot nothing may disturb the daemon that is to use it.
EARLY_S = 600
DISTURBING = (
    "clock",
    "suspend",
    "disk",
    "disk_full",
    "database",
    "database_taken",
    "pause",
    "reload",
)

RATES = (
    "devto.view=0.0002,devto.reaction=0.005,devto.comment=0.01,bluesky.like=0.002,"
    "bluesky.repost=0.005"
)
PRICES = "llm/good=1,0.1,5;llm/cheap=0.2,0.02,0.8;other/spare=1,0.1,5;other/cheap=0.2,0.02,0.8"


def lived(plan: Plan, *, keep_log: bool = False, afterwards_s: int = AFTERWARDS_S) -> Told:
    """Live a plan's history in a folder that goes with it, in memory where there is a place."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="penstock-history-", dir=place) as folder:
        history = History(plan, Path(folder), keep_log=keep_log, afterwards_s=afterwards_s)
        return history.run()


def lived_by(seed: int, days: int) -> Told:
    """The same, of the plan that is drawn from a seed."""
    return lived(drawn(seed, days))


_alert, _decision, _publication, _transfer, _span, _counter = (
    SQLModel.metadata.tables[name]
    for name in ("alert", "decision", "publication", "transfer", "uncompared", "usage_counter")
)
_GIVEN_UP = select(_publication.c.run).where(_publication.c.state == "failed")
_SPANS = select(_span.c.provider, _span.c.after_seq, _span.c.until_seq)
_COMPARED = select(_counter.c.provider, _counter.c.seq)
_UNSURE = select(_publication.c.run).where(_publication.c.state.in_(journal.OPEN)).limit(1)
_ENTRIES = select(func.count()).where(_transfer.c.action != Action.VOID)

# From the newest revision to the one before, which nobody but a history does.
VERSION_BEFORE = (
    "ALTER TABLE publication DROP COLUMN sent_at",
    "UPDATE alembic_version SET version_num = '0006'",
)


class Mortality(Kill):
    """When the process dies: at a commit or a request that is counted from now, or at once."""

    def __init__(self) -> None:
        super().__init__(lambda number: number == self.fatal, after=False)
        self.fatal = 0

    def arm(self, count: int, *, after: bool) -> None:
        self.fatal, self.after = self.commits + count, after

    def revive(self) -> None:
        self.dead, self.fatal = False, 0


@dataclass(slots=True)
class Tally:
    """What a history came to, in numbers."""

    days: int = 0
    faults: int = 0
    struck: int = 0
    lives: int = 0
    kills: int = 0
    runs: int = 0
    published: int = 0
    requests: int = 0
    lulls: int = 0


@dataclass(slots=True)
class Told:
    """What a history leaves behind."""

    plan: Plan
    verdict: Verdict
    tally: Tally
    log: list[str]
    checksum: int
    violations: list[str] = field(default_factory=list)


class History:
    """
    Args:
        folder: the daemon's state; empty.
        keep_log: keep the lines of the log and not only their checksum.
        afterwards_s: how long it goes on when all is settled, for the next slot to come.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        keep_log: bool = False,
        afterwards_s: int = AFTERWARDS_S,
    ) -> None:
        self.plan = plan
        self._afterwards_s = afterwards_s
        self._loop = VirtualLoop()
        self.world = World(self._loop, plan.seed, plan.begins, folder)
        self.world.log.keep = keep_log
        for name, api in plan.counters.items():
            self.world.tell_usage(name, api)
        self._folder = folder
        self._env = _environment(plan, folder)
        self._settings = settings.load(self._env, at=self.world.wall())
        self._parser = Remembering()
        self._mortality = Mortality()
        # Closed after each use. Statements stay compiled, which would be most of a life's work.
        url = self._settings.location.database_url
        self._daemons = MortalDatabase(url, self._mortality)
        self._operators = Database(url, busy_timeout_ms=0)
        self._chance = random.Random(f"ids {plan.seed}")
        self._operator = random.Random(f"operator {plan.seed}")
        self._doubts = random.Random(f"doubts {plan.seed}")
        self._service: Service | None = None
        self._down_s = 0
        self._died = asyncio.Event()
        self._started = asyncio.Event()
        self._own: set[asyncio.Task[Any]] = set()
        self._undo: dict[str, tuple[int, Callable[[], None]]] = {}
        self._thief: sqlite3.Connection | None = None
        self._deposits = 0
        self._deposited: list[int] = []
        self._edited: set[str] = set()
        self._older = False
        self._told_to_end = False
        self._over = False
        self._chosen: list[InForce] = []
        # Lives and faults that may keep a slot from being used in its time; and slots in calm.
        self._disturbances = 0
        self._expected: list[datetime] = []
        self._lulls: list[Lull] = []
        self._calms = 0
        self.tally = Tally(days=plan.days)
        self.violations: list[str] = []

    def run(self) -> Told:
        """Live it, and judge."""
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        # A closed connection keeps its files until its cursors are collected, and with them the
        # log of the database: when that is must not depend on how much memory was asked for.
        gc.collect()
        gc.disable()
        gc.freeze()
        try:
            verdict = self._loop.run_until_complete(self._all())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, room)
            self._release()
            self._loop.close()
            gc.unfreeze()
            gc.enable()
        self.tally.struck += self.world.strikes
        self.tally.requests = self.world.log.counted
        violations = [*self.violations, *verdict.violations]
        log = self.world.log
        return Told(self.plan, verdict, self.tally, log.lines, log.checksum, violations)

    async def _all(self) -> Verdict:
        if (me := asyncio.current_task()) is not None:
            self._own.add(me)
        self._deposit(MicroCredits.parse(self.plan.deposit).micro)
        for _ in range(3):
            self.world.write_pages()
        nature = self._of_the_world(self._nature())
        living = self._of_the_world(self._lives())
        watching = self._of_the_world(self._watch_slots())
        days = self._of_the_world(self._days())
        await nature
        self._calm()
        self._deposit(5_000_000)
        calm = self._books()
        await asyncio.sleep(POSTS_SETTLE_S)
        posts = self._books()
        expiry_s = int(self._env["PENSTOCK_HOLD_EXPIRY"]) * HOUR_S
        await asyncio.sleep(expiry_s + CLOCK_WRONG_MAX_S)
        holds = self._books()
        await asyncio.sleep(self._afterwards_s)
        self._over = True
        days.cancel()
        watching.cancel()
        if self._service is not None:
            self._service.stop()
        await living
        return self._judged(Moments(calm, posts, holds, self._lulls))

    def _of_the_world(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that outlives the process."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._own.add(task)
        return task

    # Lives

    async def _lives(self) -> None:
        while not self._over:
            self._mortality.revive()
            self._died.clear()
            self._told_to_end = False
            self._release()
            if self._older:
                self._put_back()
            self.tally.lives += 1
            self._disturbances += 1
            self.world.log.note(f"life {self.tally.lives}")
            life = asyncio.get_running_loop().create_task(self._life())
            died = asyncio.get_running_loop().create_task(self._died.wait())
            self._own.add(died)
            await asyncio.wait({life, died}, return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            self._service = None
            ended = await self._bury(life)
            del life, died
            # All of a life is young: what is older is the world's.
            gc.collect(0)
            self.world.log.note(f"ended: {ended}")
            down_s, self._down_s = self._down_s, 0
            self._started.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(down_s or RESTART_S):
                    await self._started.wait()

    async def _bury(self, life: asyncio.Task[Ended]) -> str:
        """See how it ended; of a dead process nothing goes on."""
        me = asyncio.current_task()
        left = asyncio.all_tasks() - self._own - {me}
        for task in left:
            task.cancel()
        while left:
            await asyncio.wait(left)
            left = asyncio.all_tasks() - self._own - {me}
            for task in left:
                task.cancel()
        if self._mortality.dead:
            self.tally.kills += 1
            if not life.cancelled():
                life.exception()
            return "killed"
        if life.cancelled():
            return "cut off"
        error = life.exception()
        if error is None:
            if not (self._told_to_end or self._over):
                self.violations.append("the daemon ended by itself, and nobody had told it to")
            return str(life.result())
        if isinstance(error, (StorageError, OSError)) and self._unusable:
            self._down_s = UNUSABLE_S
            return f"could not start: {type(error).__name__}"
        told = "".join(traceback.format_exception(error))
        self.violations.append(f"the daemon died by itself: {told}")
        return f"died: {type(error).__name__}"

    @property
    def _unusable(self) -> bool:
        """Whether nobody could have started."""
        return not self._undo.keys().isdisjoint(("disk", "database"))

    async def _life(self) -> Ended:
        """One process, from its start to its end."""
        with opened_database(self._settings.location), closing(self._daemons) as database:
            while True:
                ended = await self._stretch(database)
                if ended is not Ended.RELOAD:
                    return ended

    async def _stretch(self, database: MortalDatabase) -> Ended:
        """The service with the settings of its day."""
        current = settings.load(self._env, at=self.world.wall())
        with database.read() as tx:
            booked = tx.execute(_ENTRIES).scalar_one()
        self._chosen.append(InForce(booked, self.world.wall(), dict(self._env)))
        async with opened_parts(current, database, Silent(), self._outside()) as parts:
            self._service = Service(parts, Notifier.from_env({}), poll_s=POLL_S)
            try:
                return await self._service.serve()
            finally:
                self._service = None

    def _outside(self) -> Outside:
        world = self.world

        def mortal(routes: dict[str, str]) -> httpx.AsyncBaseTransport:
            doubles = {host: world.double(name) for host, name in routes.items()}
            return Mortal(InProcess(doubles), self._mortality)

        return Outside(
            clock=world.clock,
            models=mortal({"llm.test": "llm", "other.test": "other"}),
            web=InProcess({BLOG_ADDRESS: world.double("blog"), NEWS_ADDRESS: world.double("news")}),
            platforms=mortal({"dev.to": "devto", "bsky.social": "bluesky"}),
            alerts=mortal({"alerts.test": "webhook"}),
            resolve=world.resolve,
            parser=self._parser,
            chance=self._chance,
        )

    # Whether it is awake

    async def _watch_slots(self) -> None:
        """Note the slots at which nothing kept the daemon from doing something."""
        while True:
            # A little sooner, or it would have gone by when its time has come.
            slot = next_slot(self._env, self.world.true() + timedelta(seconds=EARLY_S - 1))
            ahead_s = (slot - self.world.true()).total_seconds() - EARLY_S
            if ahead_s > 0:
                # Another schedule may come with a reload.
                await asyncio.sleep(min(ahead_s, HOUR_S))
                continue
            before = self._disturbances
            await asyncio.sleep(EARLY_S + AWAKE_WITHIN.total_seconds())
            if before == self._disturbances and self._undisturbed:
                self._expected.append(slot)

    @property
    def _undisturbed(self) -> bool:
        spans = self._undo.keys()
        return self._service is not None and spans.isdisjoint(DISTURBING)

    # The world goes on

    async def _days(self) -> None:
        """Every day people write and read, and the operator looks in."""
        while True:
            await asyncio.sleep(DAY_S)
            self.world.write_pages()
            self.world.read()
            self._look_in()
            self._think_better()

    def _look_in(self) -> None:
        """The operator sees to what waits, most days: it goes out, mended or not, or is dropped."""
        if self._operator.random() < 0.3:
            return
        now, word = self.world.wall(), self._operator.random()
        edited: list[str] = []

        def see_to(tx: Connection) -> None:
            for row in drafts.waiting(tx):
                if word < 0.15:
                    drafts.let_go(tx, row.id, "a person rejected it: dull", now)
                    continue
                if word < 0.5 and self._edited_draft(tx, row.id, now):
                    edited.append(row.id)
                drafts.approve(tx, row.id, now)

        if self._operate(see_to):
            self._edited.update(edited)
        if word < 0.6:
            self._operate(lambda tx: _try_again(tx, now))

    def _edited_draft(self, tx: Connection, run: str, now: datetime) -> bool:
        """Whether its description could be mended, by what `drafts edit` does."""
        before, brief = drafts.kept(tx, run), self._settings.brief
        manuscript = before.manuscript
        typed = replace(manuscript, description=f"{BY_HAND} {manuscript.description}")
        found = drafts.inspect(
            tx, run, replace(before, manuscript=typed), brief, self._settings.secrets()
        )
        archived = published.article(tx, run)
        assert archived is not None
        try:
            drafts.keep(
                tx, run, found, instead_of=before, brief=brief, picture=archived.card, at=now
            )
        except drafts.Frozen:
            return False
        return True

    def _think_better(self) -> None:
        """Now and then the operator takes one of the newest back, however far it has come."""
        if self._doubts.random() < 0.9:
            return

        def take_back(tx: Connection) -> None:
            if newest := journal.runs(tx, limit=3):
                journal.want_back(tx, self._doubts.choice(newest).id, "a second thought")

        self._operate(take_back)

    async def _nature(self) -> None:
        for fault in self.plan.faults:
            await self._at(fault.at_s)
            self._end_spans(fault.at_s)
            if fault.id % LULL_EVERY == 0:
                await self._maybe_rest()
            self.tally.faults += 1
            self.world.log.note(f"fault {fault}")
            self._befall(fault)
            self._disturb(fault.kind)
        # The days end it all; until then each span ends in its time.
        await self._at(self.plan.days * DAY_S)

    async def _at(self, second: int) -> None:
        while self._undo:
            first = min(until for until, _ in self._undo.values())
            if first >= second:
                break
            await self._sleep_until(first)
            self._end_spans(first)
        await self._sleep_until(second)

    async def _sleep_until(self, second: int) -> None:
        ahead = second * 1_000_000_000 - self._loop.nanoseconds
        if ahead > 0:
            await asyncio.sleep(ahead / 1e9)

    def _lasts(self, name: str, until_s: int, undo: Callable[[], None]) -> None:
        """Remember how it ends; the same thing twice lasts until the later end."""
        known = self._undo.get(name)
        self._undo[name] = (max(until_s, known[0]) if known else until_s, undo)

    def _end_spans(self, at_s: float) -> None:
        for name, (until, undo) in list(self._undo.items()):
            if until <= at_s:
                del self._undo[name]
                self.world.log.note(f"over: {name}")
                undo()
                self._disturb(name)

    def _disturb(self, what: str) -> None:
        if what in DISTURBING:
            self._disturbances += 1
            self._look_soon()

    def _look_soon(self) -> None:
        """Something of which nobody tells the daemon has changed."""
        self._loop.call_later(LOOK_S, self._look, self._service)

    def _look(self, service: Service | None) -> None:
        if service is not None and service is self._service:
            service._wake.set()

    def _calm(self) -> None:
        """The faults stop, and whoever is down is started."""
        self.world.log.note("calm")
        self._end_spans(math.inf)
        self._calms += 1
        self._mortality.fatal = 0
        self._started.set()
        self._resume()

    async def _maybe_rest(self) -> None:
        """Where what is out there is unsure, let the world be good for as long as that may last."""
        try:
            with self._database() as database, database.read() as tx:
                # All of them are many, and this is asked every other hour.
                unsure = tx.execute(_UNSURE).first() is not None
                before = _publications(tx) if unsure else []
        except StorageError:
            return
        if unsure:
            self.tally.lulls += 1
            self._calm()
            await asyncio.sleep(POSTS_SETTLE_S)
            self._lulls.append(Lull(before, self._publications(), self.world.wall()))

    # What befalls it

    def _befall(self, fault: Fault) -> None:
        getattr(self, f"_on_{fault.kind}")(fault, fault.at_s + fault.for_s)

    def _on_model(self, fault: Fault, until: int) -> None:
        self._spoil(("llm", "other", "models")[fault.id % 3], fault, until)

    def _on_unfaithful(self, fault: Fault, until: int) -> None:
        self.world.unfaithful = fault.number
        self._lasts("unfaithful", until, self._faithful_again)

    def _on_devto(self, fault: Fault, until: int) -> None:
        self._spoil("devto", fault, until)

    def _on_bluesky(self, fault: Fault, until: int) -> None:
        self._spoil("bluesky", fault, until)

    def _spoil(self, who: str, fault: Fault, until: int) -> None:
        """Some answers in the next hours; a platform that never works tries nothing."""
        self.world.spoil(who, fault.detail, fault.number)
        self._lasts(f"trouble {who}", until, lambda: self.world.forgive(who))

    def _on_site(self, fault: Fault, until: int) -> None:
        self.world.blog.trouble = self.world.news.trouble = fault.detail
        self._lasts("site", until, self._sites_well)

    def _on_hostile_page(self, fault: Fault, until: int) -> None:
        self.world.write_pages(hostile=True)
        self.tally.struck += 1

    def _on_webhook(self, fault: Fault, until: int) -> None:
        self.world.webhook.status = 503
        self._lasts("webhook", until, self._webhook_well)

    def _on_crash_at_effect(self, fault: Fault, until: int) -> None:
        self._down_s = fault.for_s
        self._mortality.arm(fault.number, after=fault.detail == "after")

    def _on_crash_at_step(self, fault: Fault, until: int) -> None:
        self._down_s = fault.for_s
        self._of_the_world(self._die_soon(fault.number))

    def _on_stop(self, fault: Fault, until: int) -> None:
        if self._service is not None:
            self._down_s = fault.for_s
            self._told_to_end = True
            self._service.stop()

    def _on_upgrade(self, fault: Fault, until: int) -> None:
        """Until now it was the version before; ours finds that one's database."""
        self._older = True
        self._on_stop(fault, until)

    def _on_outage(self, fault: Fault, until: int) -> None:
        self._down_s = fault.for_s
        self._die()

    def _on_reload(self, fault: Fault, until: int) -> None:
        places = self._env["PENSTOCK_PUBLISHERS"]
        self._reload(reloaded(self.plan.seed, fault.number, places))

    def _on_destination(self, fault: Fault, until: int) -> None:
        """One is taken from the list, and put back: what is under way there waits."""
        named = self._env["PENSTOCK_PUBLISHERS"].split(",")
        # Another may be missing already. Where nothing is asked of models, the outbox has it all.
        left = [place for place in named if place != fault.detail]
        free = self._env["PENSTOCK_MODELS_WRITE"] == FREE
        if left in ([], named) or (free and "outbox" not in left):
            return
        self._name_destinations(",".join(left))
        self.tally.struck += 1
        every = self.plan.settings["PENSTOCK_PUBLISHERS"]
        self._lasts("destination", until, lambda: self._name_destinations(every))

    def _name_destinations(self, places: str) -> None:
        self._reload({"PENSTOCK_PUBLISHERS": places})
        self._disturb("reload")

    def _reload(self, changes: Mapping[str, str]) -> None:
        self._env |= changes
        self._settings = settings.load(self._env, at=self.world.wall())
        if self._service is not None:
            self._service.reload()

    def _on_clock(self, fault: Fault, until: int) -> None:
        self.world.wrong_by = timedelta(seconds=fault.number)
        self.tally.struck += 1
        self._lasts("clock", until, self._clock_right)

    def _on_suspend(self, fault: Fault, until: int) -> None:
        self.world.slept += timedelta(seconds=fault.number)
        self.tally.struck += 1

    def _on_disk_full(self, fault: Fault, until: int) -> None:
        self._limit_files(fault.number)
        self._lasts("disk", until, self._disk_has_room)

    def _on_database_taken(self, fault: Fault, until: int) -> None:
        self._take_database()
        self._lasts("database", until, self._release)

    def _on_pause(self, fault: Fault, until: int) -> None:
        at = self.world.wall()
        self._operate(lambda tx: control.pause(tx, reason="holiday", at=at))
        self._lasts("pause", until, self._resume)

    def _on_deposit(self, fault: Fault, until: int) -> None:
        self._deposit(fault.number)

    def _on_key_revoked(self, fault: Fault, until: int) -> None:
        whose = fault.detail
        self.world.revoke(whose)

        def renew() -> None:
            self._reload(self.world.renew(whose, fault.id))
            self._disturb("reload")

        # Half of them the operator has to replace.
        good_again = renew if fault.id % 2 else lambda: self.world.restore(whose)
        self._lasts(f"key {whose}", until, good_again)

    def _on_sessions_forgotten(self, fault: Fault, until: int) -> None:
        self.world.bluesky.forget_sessions()

    def _on_taken_down(self, fault: Fault, until: int) -> None:
        self.world.take_down(fault.detail, fault.number)
        self.tally.struck += 1

    def _on_late_listings(self, fault: Fault, until: int) -> None:
        self.world.devto.list_delay_s = 240.0
        self._lasts("late listings", until, self._listings_prompt)

    def _faithful_again(self) -> None:
        self.world.unfaithful = 0

    def _sites_well(self) -> None:
        self.world.blog.trouble = self.world.news.trouble = ""

    def _webhook_well(self) -> None:
        self.world.webhook.status = 204

    def _clock_right(self) -> None:
        self.world.wrong_by = timedelta(0)

    def _listings_prompt(self) -> None:
        self.world.devto.list_delay_s = 0.0

    def _die(self) -> None:
        """SIGKILL, or the plug."""
        self._mortality.dead = True
        self._died.set()

    async def _die_soon(self, steps: int) -> None:
        """After so many steps of the loop, wherever the process then awaits something."""
        then = self.tally.lives, self._calms
        for _ in range(steps):
            await asyncio.sleep(0)
        if (self.tally.lives, self._calms) == then and self._service is not None:
            self._die()

    def _limit_files(self, size: int) -> None:
        """No file grows beyond this: the kernel refuses, as on a full disk."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        self.tally.struck += 1

    def _disk_has_room(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def _take_database(self) -> None:
        """Another program writes, and takes its time."""
        if self._thief is not None:
            return
        thief = sqlite3.connect(self._file, isolation_level=None, timeout=0)
        try:
            thief.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            thief.close()
            return
        self._thief = thief
        self.tally.struck += 1

    def _release(self) -> None:
        # A start would wait for it in real time, of which there is none here.
        if self._thief is not None:
            self._thief.close()
            self._thief = None

    @property
    def _file(self) -> Path:
        return self._folder / "penstock.db"

    def _put_back(self) -> None:
        """What the version before leaves behind: the same rows, and its own schema."""
        try:
            with closing(sqlite3.connect(self._file, isolation_level=None, timeout=0)) as database:
                # All of it or nothing.
                database.executescript(";".join(("BEGIN", *VERSION_BEFORE, "COMMIT")))
        except sqlite3.OperationalError:
            self.world.log.note("the version before could not write either")
        else:
            self._older = False
            self.world.log.note("an older database")
            self.tally.struck += 1

    # The operator

    def _operate(self, act: Callable[[Any], object]) -> bool:
        """A command beside the daemon; where the database cannot be written, it fails."""
        try:
            with self._database() as database, database.write() as tx:
                act(tx)
        except StorageError:
            self.world.log.note("the operator's command failed")
            return False
        self._look_soon()
        return True

    def _resume(self) -> None:
        self._operate(control.resume)

    def _deposit(self, micro: int) -> None:
        self._deposits += 1
        amount, ref, at = MicroCredits(micro), f"deposit-{self._deposits}", self.world.wall()
        if self._operate(lambda tx: store.deposit(tx, amount=amount, ref=ref, at=at)):
            self._deposited.append(micro)

    @contextmanager
    def _database(self) -> Iterator[Database]:
        if not self._file.exists():
            with opened_database(self._settings.location):
                pass
        with closing(self._operators) as database:
            yield database

    # The end

    def _books(self) -> Books:
        """What the books say, as the commands that export them do."""
        with self._database() as database, database.read() as tx:
            report = audit.check(tx)
            return Books(
                at=self.world.wall(),
                problems=list(report.problems),
                entries=json.loads("".join(export.lines(tx, "json"))),
                attempts=[
                    attempt_document(row) for row in attempts.recent(tx, since=None, limit=None)
                ],
                runs=_documents(journal.runs(tx)),
                decisions=_documents(tx.execute(select(_decision).order_by(_decision.c.id))),
                publications=_publications(tx),
                alerts=_documents(tx.execute(select(_alert))),
                uncompared=_uncompared(tx),
                compared={name: _entries(tx, seq) for name, seq in tx.execute(_COMPARED)},
            )

    def _publications(self) -> list[dict[str, Any]]:
        with self._database() as database, database.read() as tx:
            return _publications(tx)

    def _judged(self, moments: Moments) -> Verdict:
        books = self._books()
        self.tally.runs = len(books.runs)
        self.tally.published = sum(p["state"] == "published" for p in books.publications)
        world = self.world
        providers = {"llm": world.llm, "other": world.other}
        lists = Lists(
            bill=[
                (name, charge.model, charge.listed)
                for name, double in providers.items()
                for charge in double.bill
            ],
            articles=[
                (article.id, article.published, dict(article.fields))
                for article in world.devto.articles.values()
            ],
            posts=dict(world.bluesky.posts()),
            files={
                path.name: path.read_text(encoding="utf-8", errors="replace")
                for path in sorted((self._folder / "outbox").glob("*.md"))
            },
            removed=frozenset(world.removed),
            shown=world.shown,
            peaks=world.peaks,
            pages=world.pages,
            overheard=world.overheard,
            counters=self.plan.counters,
            billed={name: double.billed_micro for name, double in providers.items()},
            deposits=self._deposited,
            edited=frozenset(self._edited),
            expected=self._expected,
        )
        return judge(lists, moments, books, self._chosen, world.secrets)


def _publications(tx: Connection) -> list[dict[str, Any]]:
    asked = {row.id for row in drafts.waiting(tx)}
    return [
        {**row._mapping, "waits_for_person": row.run in asked} for row in journal.publications(tx)
    ]


def _try_again(tx: Connection, at: datetime) -> None:
    """What was given up at some destination, of the runs that nobody took back."""
    rows = tx.execute(_GIVEN_UP).all()
    for run in dict.fromkeys(row.run for row in rows):
        mine = journal.publications(tx, run=run)
        if all(row.withdrawal is None for row in mine):
            press.try_again(tx, [row for row in mine if row.state == "failed"], at)


def _uncompared(tx: Connection) -> dict[str, list[slice]]:
    """Of each provider, the entries that no reading of its counter covers."""
    found: dict[str, list[slice]] = {}
    for provider, after, until in tx.execute(_SPANS):
        span = slice(_entries(tx, after), _entries(tx, until))
        found.setdefault(provider, []).append(span)
    return found


def _entries(tx: Connection, seq: int) -> int:
    """How many there are up to a row of the journal."""
    return tx.execute(_ENTRIES.where(_transfer.c.seq <= seq)).scalar_one()


def _documents(rows: Iterable[Row[Any]]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in rows]


def _environment(plan: Plan, folder: Path) -> dict[str, str]:
    return {
        "PENSTOCK_STATE_DIR": str(folder),
        "PENSTOCK_NICHE": "running databases, SQLite",
        "PENSTOCK_FEEDS": "http://blog.test/feed.xml,http://news.test/feed.xml",
        "PENSTOCK_PROVIDERS": "llm,other",
        "PENSTOCK_PROVIDER_LLM_URL": "https://llm.test/v1",
        "PENSTOCK_PROVIDER_LLM_KEY": SECRET,
        "PENSTOCK_PROVIDER_OTHER_URL": "https://other.test/v1",
        "PENSTOCK_PROVIDER_OTHER_KEY": OTHER_SECRET,
        "PENSTOCK_PRICES": PRICES,
        "PENSTOCK_RATES": RATES,
        "PENSTOCK_EARN_DAILY_CAP": "0.5",
        "PENSTOCK_ALERT_URL": "https://alerts.test/hook",
        "DEVTO_API_KEY": DEVTO_SECRET,
        "BLUESKY_HANDLE": "author.test",
        "BLUESKY_APP_PASSWORD": BLUESKY_SECRET,
        **plan.settings,
    }
