"""
One run, start to finish: look, decide, reserve, work, publish, settle.

Told here and nowhere else. What a step does is in `newsroom`; what it costs passes the meter;
where a run stands is in the journal, so that a run that dies anywhere is gone on with here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from daemon import alerts, bells, cadence, control, drafts, estimate, ids, journal, look, reconcile
from daemon.alerts import Kind
from daemon.books import Books
from daemon.clock import Clock
from daemon.control import Paused
from daemon.desk.house import Manuscript
from daemon.governor import Pace
from daemon.inference import attempts
from daemon.inference.asking import Asker
from daemon.inference.ladder import Role, Rung, Tier
from daemon.journal import RunOutcome, RunState
from daemon.newsroom import Newsroom, StepDown
from daemon.press import Parked, Press
from daemon.progress import Progress
from daemon.reading import Abstain, Failed
from daemon.settings import Settings
from daemon.sources import archive
from daemon.steps import Steps
from ledger.errors import NotAllowed
from ledger.money import MicroCredits
from ledger.types import to_text


@dataclass(frozen=True, slots=True)
class Report:
    """
    What `once` came to.

    Args:
        run: None where nothing was opened.
        paused: skipped because the operator paused Penstock.
        manuscript: what would go out, after a dry run.
    """

    run: str | None
    outcome: RunOutcome
    reason: str
    tier: Tier
    kind: str | None = None
    title: str | None = None
    cost: MicroCredits = MicroCredits(0)  # noqa: RUF009 - frozen, so shared safely
    publications: Sequence[Any] = ()
    paused: bool = False
    manuscript: Manuscript | None = None


def reported(tx: Connection, run: str, outcome: RunOutcome, reason: str) -> Report:
    """What a run came to, with what the journal has of it."""
    row = journal.run(tx, run)
    assert row is not None
    return Report(
        run=run,
        outcome=outcome,
        reason=reason,
        tier=Tier(row.tier),
        kind=row.kind,
        title=row.title,
        cost=MicroCredits(attempts.spent_by_run(tx, run)),
        publications=journal.publications(tx, run=run),
    )


class Cycle:
    """The story of a run."""

    def __init__(
        self,
        *,
        books: Books,
        clock: Clock,
        settings: Settings,
        asker: Asker,
        newsroom: Newsroom,
        press: Press,
        progress: Progress,
        chance: random.Random,
        gate: control.Gate,
    ) -> None:
        self._books = books
        self._clock = clock
        self._settings = settings
        self._asker = asker
        self._newsroom = newsroom
        self._press = press
        self._progress = progress
        self._chance = chance
        self._gate = gate
        # The run in hand, for whoever must tell what an error interrupted.
        self.run: str | None = None

    async def once(self, *, topic: str | None = None, dry_run: bool = False) -> Report:
        """Go on with an interrupted run, else open one now, and see it through."""
        await self.recover(publishing=not dry_run)
        with self._books.read() as tx:
            reason = self._gate.shut(tx)
            interrupted = journal.interrupted_run(tx)
            view = look.look(tx, self._settings, self._clock.now())
        if reason is not None:
            return Report(
                None, RunOutcome.SKIPPED, f"paused: {reason}", view.pace.tier, paused=True
            )
        if interrupted is not None:
            later = (
                "; the topic waits for the next one"
                if topic not in (None, interrupted.topic)
                else ""
            )
            self._progress.note(interrupted.id, f"going on with a run that was interrupted{later}")
            return await self._see_through(interrupted.id, dry_run=dry_run, fresh=False)
        return await self._open(view, topic, dry_run)

    async def at_slot(self, slot: datetime) -> Report:
        """
        Use a slot: go on with a run that was interrupted, else open one, as the pace allows.

        A cadence that the governor has thinned lets slots go by.
        """
        now = self._clock.now()
        with self._books.read() as tx:
            reason = self._gate.shut(tx)
            interrupted = journal.interrupted_run(tx)
            taken = journal.has_slot(tx, slot)
            view, owed = look.look(tx, self._settings, now), bells.owed(tx)
        pace = view.pace
        if reason is not None:
            return await self._not_now(pace, f"paused: {reason}")
        if taken:
            return await self._not_now(pace, f"the slot {to_text(slot)} was used before")
        if interrupted is not None:
            return await self._see_through(interrupted.id, dry_run=False, fresh=False)
        if pace.tier is not Tier.DORMANT and pace.cadence < view.history.runs_per_day:
            slots = self._settings.schedule.publish.per_day(now)
            used, owed = cadence.thinned(owed, pace.cadence, slots)
            if not used:
                async with self._books.write() as tx:
                    bells.owe(tx, owed)
                return await self._not_now(pace, f"a slot goes by unused: {pace.reason}")
        return await self._open(view, None, dry_run=False, slot=slot, owed=owed)

    async def go_on(self) -> Report | None:
        """Go on with the oldest run that was interrupted or waits, if there is one."""
        with self._books.read() as tx:
            reason = self._gate.shut(tx)
            interrupted = journal.interrupted_run(tx)
        if reason is not None or interrupted is None:
            return None
        if interrupted.outcome == RunOutcome.DRY_RUN:
            # Nobody would see what it comes to.
            said = "a dry run that was cut off is let go"
            return await self._close(interrupted.id, RunOutcome.SKIPPED, said)
        return await self._see_through(interrupted.id, dry_run=False, fresh=False)

    async def resume(self, run: str) -> Report:
        """Go on with one run that is neither finished nor failed."""
        await self.recover()
        return await self._see_through(run, dry_run=False, fresh=False)

    async def recover(self, *, publishing: bool = True) -> None:
        """
        Take up what was left: requests that were under way when the process died are unknown, what
        was unknown long is charged, drafts expire, and publications that wait are tried again.

        No request to a model may be under way.
        """
        now = self._clock.now()
        async with self._books.write() as tx:
            reconcile.note_interrupted(tx)
            alerts.prune(tx, now)
            for run in drafts.expire_drafts(tx, now):
                self._progress.note(run, "nobody approved it in time; it is let go")
            # Zero leaves it to the next `reconcile`, which asks the provider first.
            if self._settings.hold_expiry:
                reconcile.expire(tx, now, self._settings.hold_expiry)
        if publishing:
            await self._press.pursue()

    async def _open(
        self, view: look.View, topic: str | None, dry_run: bool,
        slot: datetime | None = None, owed: float | None = None,
    ) -> Report:  # fmt: skip
        """
        Decide, and open a run, or say why not.

        Args:
            owed: runs that are left to do once this one has begun, where that is counted.
        """
        now, pace = self._clock.now(), view.pace
        if (full := self._press.day_is_full()) and not dry_run:
            return await self._not_now(pace, full)
        with self._books.read() as tx:
            waiting = journal.waiting_drafts(tx)
        if waiting:
            return await self._not_now(pace, "a draft waits for approval (`penstock drafts list`)")
        kind = journal.DIGEST if pace.tier is Tier.DORMANT else journal.ARTICLE
        if kind == journal.DIGEST and not self._press.takes_digests:
            return await self._not_now(pace, f"{pace.reason}; and there is no outbox for one")
        run = ids.run_id(now, self._chance)
        async with self._books.write() as tx:
            journal.open_run(
                tx, id=run, slot=slot, tier=pace.tier, kind=kind, topic=topic,
                budget_micro=self._settings.policy.run_budget.micro, at=now, dry=dry_run,
            )  # fmt: skip
            if owed is not None:
                bells.owe(tx, owed)
            journal.decide(
                tx, run=run, kind="pace", sentence=f"{pace.tier}: {pace.reason}",
                inputs=view.inputs(), at=now,
            )  # fmt: skip
        self._progress.note(run, f"{pace.tier}: {pace.reason}")
        return await self._see_through(run, dry_run=dry_run, fresh=True)

    async def _not_now(self, pace: Pace, reason: str) -> Report:
        async with self._books.write() as tx:
            journal.decide(
                tx, run=None, kind="skip", sentence=reason, inputs={}, at=self._clock.now()
            )
        return Report(None, RunOutcome.SKIPPED, reason, pace.tier)

    async def _see_through(self, run: str, *, dry_run: bool, fresh: bool) -> Report:
        """Work, publish and close; every way out leaves the run in a state that says so."""
        self.run = run
        with self._books.read() as tx:
            row = journal.run(tx, run)
        if row is not None and row.outcome == RunOutcome.DRY_RUN:
            # It was never to go out, whoever goes on with it.
            dry_run = fresh = True
        try:
            manuscript = await self._work(run)
            if dry_run:
                return await self._rehearsed(run, manuscript, fresh=fresh)
            if reason := self._press.needs_person(run):
                return await self._wait_for_person(run, reason)
            await self._press.publish(run)
            return await self._close(run, *self._press.outcome(run))
        except Abstain as reason:
            return await self._close(run, RunOutcome.ABSTAINED, str(reason))
        except Failed as reason:
            return await self._close(run, RunOutcome.FAILED, str(reason))
        except NotAllowed as refusal:
            with self._books.read() as tx:
                spent = attempts.spent_by_run(tx, run)
            outcome = RunOutcome.FAILED if spent else RunOutcome.SKIPPED
            return await self._close(run, outcome, f"the books do not allow it: {refusal}")
        except (Parked, Paused) as reason:
            return await self._park(run, reason)

    async def _work(self, run: str) -> Manuscript:
        """The manuscript: an article, or a digest where no model is left to write one."""
        with self._books.read() as tx:
            row = journal.run(tx, run)
        assert row is not None
        tier = Tier(row.tier)
        rungs = self._rungs(tier)
        steps = Steps(
            run,
            books=self._books,
            clock=self._clock,
            asker=self._asker,
            tier=tier,
            rungs=rungs,
            shares=estimate.shares(
                rungs,
                self._settings.prices,
                self._settings.policy.run_budget,
                self._clock.now(),
            ),
            progress=self._progress,
            gate=self._gate,
        )
        if row.kind == journal.ARTICLE:
            try:
                manuscript = await self._newsroom.article(steps, row.topic)
            except StepDown as reason:
                await self._become_digest(steps, str(reason))
            else:
                # What a person approved gets no words that nobody saw.
                if self._press.announces and row.approved_at is None:
                    await self._newsroom.announcement(steps, manuscript)
                return manuscript
        return await self._newsroom.digest(steps, row.topic)

    async def _become_digest(self, steps: Steps, reason: str) -> None:
        if not self._press.takes_digests:
            raise Failed(f"{reason}; and there is no outbox for a digest")
        async with self._books.write() as tx:
            steps.decide(tx, "digest", f"the run becomes a digest: {reason}", {})
            journal.change_run(tx, steps.run, kind=journal.DIGEST)
            archive.release(tx, steps.run)

    def _rungs(self, tier: Tier) -> Mapping[Role, Sequence[Rung]]:
        ladders = estimate.eligible(
            self._settings.ladders,
            self._settings.prices,
            self._settings.policy.run_budget,
            self._clock.now(),
        )
        return {role: ladder.from_tier(tier) for role, ladder in ladders.items()}

    async def _wait_for_person(self, run: str, reason: str) -> Report:
        async with self._books.write() as tx:
            state = RunState.AWAITING_APPROVAL
            journal.change_run(tx, run, state=state, outcome=None, reason=reason)
            row = journal.run(tx, run)
            title = "" if row is None else row.title
            said = f"“{title}” waits for approval: `penstock drafts show {run}`"
            alerts.sound(tx, Kind.APPROVAL, run, said, run=run, at=self._clock.now())
        return self._report(run, RunOutcome.AWAITING_APPROVAL, reason)

    async def _rehearsed(self, run: str, manuscript: Manuscript, *, fresh: bool) -> Report:
        """
        End a dry run, and give its entries back, since nothing went out.

        One that was interrupted, or approved, was meant to go out: it only waits.
        """
        if not fresh:
            reason = "nothing was published; `penstock once` goes on with this run"
            async with self._books.write() as tx:
                journal.change_run(tx, run, state=RunState.PARKED, reason=reason)
            return self._report(run, RunOutcome.DRY_RUN, reason, manuscript=manuscript)
        async with self._books.write() as tx:
            archive.release(tx, run)
        return await self._close(run, RunOutcome.DRY_RUN, "nothing was published", manuscript)

    async def _close(
        self, run: str, outcome: RunOutcome, reason: str, manuscript: Manuscript | None = None
    ) -> Report:
        async with self._books.write() as tx:
            if outcome in (RunOutcome.FAILED, RunOutcome.SKIPPED):
                # The entries are not to blame; the next run may use them.
                archive.release(tx, run)
            journal.finish_run(tx, run, outcome=outcome, reason=reason, at=self._clock.now())
        return self._report(run, outcome, reason, manuscript=manuscript)

    async def _park(self, run: str, reason: Parked | Paused) -> Report:
        async with self._books.write() as tx:
            journal.change_run(tx, run, state=RunState.PARKED, reason=str(reason))
        text = f"parked, `penstock run` or `once` goes on with it: {reason}"
        if isinstance(reason, Paused):
            return self._report(run, RunOutcome.SKIPPED, text, paused=True)
        return self._report(run, reason.outcome, text)

    def _report(
        self,
        run: str,
        outcome: RunOutcome,
        reason: str,
        *,
        manuscript: Manuscript | None = None,
        paused: bool = False,
    ) -> Report:
        with self._books.read() as tx:
            told = reported(tx, run, outcome, reason)
        return replace(told, paused=paused, manuscript=manuscript)
