"""
Staying alive: one piece of work at a time, a watchdog that has read the books, an orderly stop.

The service looks at what is due whenever a slot comes, somebody wakes it, or a few seconds have
passed, so that a clock that was set, a suspended machine and an approval are all noticed. What is
due is in the database and survives it; ringing twice is harmless.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import alerts, bells, cadence, journal, lookout, retention
from daemon.alerts import Kind
from daemon.bells import Bell
from daemon.cycle import Report
from daemon.notify import Notifier
from daemon.starts import Starts, Unusable
from ledger import audit, store
from ledger.database import sqlite_path
from ledger.errors import BooksWrong, StorageBusy, StorageCorrupt, StorageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from daemon.app import Parts

# Approvals, pauses and clocks that were set are noticed within this.
POLL_S = 15.0
# What is put off is tried again, and what is unconfirmed is looked up.
HOURLY, DAILY = timedelta(hours=1), timedelta(days=1)
LOOKOUT_EVERY = timedelta(minutes=15)
# A clock that was ahead by more than this is told from one that is being corrected.
AHEAD_MAX = timedelta(minutes=5)
# SIGTERM: the work in hand may end by itself, then it is cut off; systemd waits for longer.
GRACE_S, CUT_OFF_S = 7.0, 2.0
# No piece of work takes this long unless it hangs; the watchdog is let down then.
STUCK_AFTER_S = 7200.0


_Work = Callable[[], Coroutine[Any, Any, None]]


class Ended(StrEnum):
    """Why the service ended."""

    STOPPED = "stopped"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class _Job:
    """
    One piece of work, and the bell that is rung when it has ended, unless it was cut off.

    Rung afterwards: what a full disk or a kill ended is not lost for a day, and doing it again is
    harmless. A run is opened for its slot before, and a slot has one run.
    """

    name: str
    work: _Work = field(repr=False)
    bell: tuple[Bell, datetime] | None = None


class Service:
    """
    The daemon.

    Args:
        parts: whoever does the work, with the settings of the day.
        starts: what became of the starts before this one.
        trace: told of each run that was gone on with.
        poll_s: how often it looks at what is due when nothing tells it to.
    """

    def __init__(
        self,
        parts: Parts,
        notifier: Notifier,
        *,
        starts: Starts | None = None,
        trace: Callable[[str], Awaitable[None]] | None = None,
        refused: str = "",
        poll_s: float = POLL_S,
    ) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._books = parts.books
        self._clock = parts.clock
        self._gate = parts.gate
        self._progress = parts.progress
        self._notifier = notifier
        self._starts = starts or Starts()
        self._trace = trace
        self._refused = refused
        self._poll_s = poll_s
        self._ended: Ended | None = None
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._at_work_since: float | None = None
        self._looked_out_at: datetime | None = None
        self._was_shut = False
        # What an earlier life left is looked at first.
        self._pursued = False
        # Due, but after whatever else is: there was no room for it.
        self._put_off: set[Bell] = set()
        # The run that was gone on with last, when, and how it stood then.
        self._tried: tuple[str, datetime, tuple[Any, ...]] | None = None

    def stop(self) -> None:
        """End: nothing new begins, and what is in hand has some seconds."""
        self._ended = Ended.STOPPED
        self._gate.end("the service is stopping")
        self._notifier.stopping()
        self._stopping.set()
        self._wake.set()

    def reload(self) -> None:
        """End after the work in hand, so that new settings can take their place."""
        if self._ended is None:
            self._ended = Ended.RELOAD
            self._wake.set()

    async def serve(self) -> Ended:
        """
        Take up what was left, say READY, and work until told to end.

        Raises:
            StorageCorrupt: the file cannot be trusted any more.
            BooksWrong: what is booked contradicts itself.
            StorageError: the database cannot be used at the start; later on that is waited out.
        """
        async with self._books.write() as tx:
            bells.hang(tx, self._clock.now())
        await self._parts.cycle.recover(publishing=False)
        await self._look_out()
        self._notifier.ready(self._status())
        watch = asyncio.create_task(self._keep_watch(self._notifier.watchdog_interval_s))
        try:
            unusable = self._starts.failed()
            while self._ended is None:
                try:
                    if unusable is not None:
                        await self._usable_again(unusable)
                        unusable = None
                    await self._turn()
                except StorageCorrupt:
                    raise
                except StorageError as error:
                    unusable = await self._wait_out(error, unusable)
            return self._ended
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _turn(self) -> None:
        due = await self._next()
        if isinstance(due, _Job):
            await self._do(due)
        else:
            # What nobody tells us of is looked for anyway.
            until_s = (due - self._clock.now()).total_seconds()
            await self._pause(min(until_s, self._poll_s))
        if self._ended is None:
            await self._look_out()

    # A database that is locked for long, or has no room, or may not be written for a while

    async def _wait_out(self, error: StorageError, before: Unusable | None) -> Unusable:
        """Say it when it begins and when it lasts, and let the next try be a while from now."""
        now, said = self._clock.now(), str(error)
        trouble, kind = before or Unusable(now), type(error).__name__
        # SQLite says the same trouble in several ways, and again at each look.
        if trouble.kind != kind:
            self._progress.note("service", f"the database cannot be used for now: {said}")
        told = trouble.told
        if trouble.is_to_be_told(now):
            # An alert is a row, and no row can be written.
            told = await self._parts.tell_directly(
                Kind.FAULT, f"the database cannot be used: {said}", cleared=False
            )
        await self._pause(self._poll_s)
        return Unusable(trouble.since, kind, said, told)

    async def _usable_again(self, before: Unusable) -> None:
        """See whether it can be written, by writing that it could not be."""
        now = self._clock.now()
        async with self._books.write() as tx:
            journal.decide(
                tx, run=None, kind="storage",
                sentence=f"it could not work since {before.since:%Y-%m-%d %H:%M} UTC",
                inputs={"said": before.said}, at=now,
            )  # fmt: skip
        self._starts.over()
        # What waited for it need not wait for its hour.
        self._tried = None
        self._progress.note("service", "the database can be used again")
        if before.told:
            await self._parts.tell_directly(Kind.FAULT, "penstock works again", cleared=True)

    # What is due

    async def _next(self) -> _Job | datetime:
        """The most urgent piece of work, or when there will be some."""
        now = self._clock.now()
        if not self._pursued:
            return _Job(Bell.PURSUE, self._parts.cycle.recover, (Bell.PURSUE, now))
        with self._books.read() as tx:
            shut = self._gate.shut(tx)
            waiting = journal.interrupted_run(tx)
            last = bells.last(tx)
        last = await self._mind_the_clock(last, now)
        if self._was_shut and shut is None:
            # What was parked for the pause need not wait for its hour.
            self._tried = None
        self._was_shut = shut is not None
        if waiting is not None and shut is None and self._may_go_on(waiting, now):
            # Before it is: what fails each time must not be tried in a circle.
            self._tried = (waiting.id, now, _standing(waiting))
            return _Job(f"{Bell.PUBLISH} {waiting.id}", self._go_on)
        schedule = self._settings.schedule
        off = self._put_off
        slot = cadence.due(schedule.publish, last[Bell.PUBLISH], now)
        if slot and Bell.PUBLISH not in off:
            return _Job(Bell.PUBLISH, partial(self._use, slot), (Bell.PUBLISH, slot))
        for bell, bell_schedule, work in (
            (Bell.COLLECT, schedule.collect, self._collect),
            (Bell.FEED, schedule.feed, self._poll),
        ):
            slot = cadence.due(bell_schedule, last[bell], now)
            if slot and bell not in off:
                return _Job(bell, work, (bell, slot))
        for bell, every, work in (
            (Bell.PURSUE, HOURLY, self._parts.cycle.recover),
            (Bell.DAILY, DAILY, self._daily),
        ):
            if now - last[bell] >= every and bell not in off:
                return _Job(bell, work, (bell, now))
        off.clear()
        schedules = (schedule.publish, schedule.collect, schedule.feed)
        following = [last[Bell.PURSUE] + HOURLY, last[Bell.DAILY] + DAILY]
        following += [slot for each in schedules if (slot := each.next_slot(now)) is not None]
        if waiting is not None and shut is None and self._tried is not None:
            following.append(self._tried[1] + HOURLY)
        return min(following)

    async def _mind_the_clock(
        self, last: dict[Bell, datetime], now: datetime
    ) -> dict[Bell, datetime]:
        """
        A clock that was ahead has rung for slots to come: without this they would be silent.

        Returns:
            When each bell last rang, by a clock that is right.
        """
        ahead = [bell for bell, at in last.items() if at > now + AHEAD_MAX]
        if not ahead:
            return last
        # How long ago it truly was nobody knows, and what may be out must not wait for two hours.
        back = {bell: now - HOURLY if bell is Bell.PURSUE else now for bell in ahead}
        async with self._books.write() as tx:
            for bell, at in back.items():
                bells.turn_back(tx, bell, at)
            journal.decide(
                tx, run=None, kind="clock",
                sentence="the clock was set back: slots are counted from now on",
                inputs={bell: last[bell].isoformat() for bell in ahead}, at=now,
            )  # fmt: skip
        return {**last, **back}

    def _may_go_on(self, run: Any, now: datetime) -> bool:
        """Whether a run that waits is worth a try: new, changed, or not tried for an hour."""
        if self._tried is None:
            return True
        name, at, standing = self._tried
        # A clock that was set back must not put it off.
        lately = timedelta(0) <= now - at < HOURLY
        return (name, standing) != (run.id, _standing(run)) or not lately

    # Work

    async def _go_on(self) -> None:
        await self._ended_run(await self._parts.cycle.go_on())

    async def _use(self, slot: datetime) -> None:
        await self._ended_run(await self._parts.cycle.at_slot(slot))

    async def _ended_run(self, report: Report | None) -> None:
        if report is None or report.run is None:
            if report is not None:
                self._progress.note("service", f"{report.outcome}: {report.reason}")
            return
        self._progress.note(report.run, f"{report.outcome}: {report.reason}")
        with self._books.read() as tx:
            row = journal.run(tx, report.run)
        if row is not None:
            self._tried = (report.run, self._clock.now(), _standing(row))
        if self._trace is not None:
            await self._trace(report.run)

    async def _collect(self) -> None:
        found = await self._parts.collector.run()
        for platform in found.platforms:
            if platform.error is not None:
                self._progress.note("service", f"collect: {platform.platform}: {platform.error}")
        for source in found.sources:
            if source.error is not None:
                self._progress.note("service", f"collect: {source.source}: {source.error}")

    async def _poll(self) -> None:
        for problem in (await self._parts.feeds.poll(self._settings.feeds.feeds)).problems:
            self._progress.note("service", f"feed: {problem}")

    async def _daily(self) -> None:
        await self._parts.reconciler.run()
        await retention.run(
            self._books, self._clock, self._settings.retention_days,
            fresh_days=self._settings.feeds.fresh_days,
        )  # fmt: skip

    async def _do(self, job: _Job) -> None:
        """One piece of work; its fault is told and ends nothing but it."""
        self._at_work_since = self._clock.monotonic()
        self._show_status()
        task = asyncio.create_task(job.work(), name=job.name)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await asyncio.wait({task}, timeout=GRACE_S)
            if not task.done():
                # What is under way is unknown now; the next start says so and goes on.
                task.cancel()
                await asyncio.wait({task}, timeout=CUT_OFF_S)
                return
        finally:
            stop.cancel()
            self._at_work_since = None
            self._show_status()
        error = task.exception()
        if not isinstance(error, Exception | None):
            raise error
        # Nobody can work with a database that is damaged, or in another's hands.
        if isinstance(error, StorageCorrupt | StorageBusy):
            raise error
        # Where there is no room for this either, nothing can be done for now.
        await self._account_for(job, error)
        if isinstance(error, StorageError):
            # There is room for little, and this is due again at once.
            await self._pause(self._poll_s)

    async def _account_for(self, job: _Job, error: Exception | None) -> None:
        """That it was done is kept, and how it ended."""
        now = self._clock.now()
        about = job.name.partition(" ")[0]
        said = "" if error is None else f"{about} failed: {type(error).__name__}: {error}"
        if said:
            self._progress.note("service", said)
        async with self._books.write() as tx:
            if said:
                alerts.sound(tx, Kind.FAULT, about, said, at=now)
            else:
                alerts.clear(tx, Kind.FAULT, about, at=now)
            if job.bell is not None:
                if isinstance(error, StorageError) and not self._is_opened(tx, job.bell[0]):
                    self._put_off.add(job.bell[0])
                else:
                    bells.ring(tx, *job.bell)
        self._pursued = self._pursued or job.name == Bell.PURSUE

    def _is_opened(self, tx: Connection, bell: Bell) -> bool:
        """Whether a slot has its run, which is gone on with by itself."""
        waiting = journal.interrupted_run(tx) if bell is Bell.PUBLISH else None
        return waiting is not None and waiting.outcome is None

    # Looking out

    async def _look_out(self) -> None:
        """See that a person learns of what they must know."""
        now = self._clock.now()
        if self._looked_out_at is None or not (
            timedelta(0) <= now - self._looked_out_at < LOOKOUT_EVERY
        ):
            self._show_status()
            folder = sqlite_path(self._settings.location.database_url).parent
            async with self._books.write() as tx:
                problems = audit.glance(tx)
                found = lookout.conditions(
                    tx, self._settings, now, since=bells.hung_at(tx),
                    disk_free=shutil.disk_usage(folder).free, problems=problems,
                    refused=self._refused,
                )  # fmt: skip
                alerts.level(tx, lookout.KINDS, found, at=now)
            self._looked_out_at = now
            if problems:
                await self._parts.tell()
                raise BooksWrong(problems)
        await self._parts.tell()

    async def _keep_watch(self, interval_s: float | None) -> None:
        """Say that we live, after the books were really read, and unless the work hangs."""
        # Where nobody waits for it, nobody is woken for it.
        while interval_s is not None:
            if self._lives():
                self._notifier.watchdog()
            await self._clock.sleep(interval_s)

    def _lives(self) -> bool:
        """Whether the books can be read and the work in hand does not hang."""
        try:
            with self._books.read() as tx:
                store.balance(tx)
        except StorageError:
            return False
        since = self._at_work_since
        return since is None or self._clock.monotonic() - since < STUCK_AFTER_S

    def _show_status(self) -> None:
        if not self._notifier.listened_to:
            return
        # For the eye only: who works with the database finds out by himself.
        with suppress(StorageError):
            self._notifier.status(self._status())

    def _status(self) -> str:
        """One line for `systemctl status`."""
        now = self._clock.now()
        with self._books.read() as tx:
            shut, balance = self._gate.shut(tx), store.balance(tx)
        following = self._settings.schedule.publish.next_slot(now)
        when = "never" if following is None else f"{following:%Y-%m-%d %H:%M} UTC"
        doing = "working" if self._at_work_since is not None else "waiting"
        state = doing if shut is None else f"paused: {shut}"
        return f"{state}; {balance.available} credits available; next slot {when}"

    async def _pause(self, seconds: float) -> None:
        """So long, or until a nudge."""
        self._wake.clear()
        if self._ended is not None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()


def _standing(run: Any) -> tuple[Any, ...]:
    """How a run stands, so that a person's word on it is noticed."""
    return (run.state, run.approved_at, run.reason)
