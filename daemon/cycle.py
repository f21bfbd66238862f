"""
One run, start to finish: look, decide, reserve, work, publish, settle.

Told here and nowhere else. What a step does is in `newsroom`; what it costs passes the meter;
where a run stands is in the journal, so that a run that dies anywhere is gone on with here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from daemon import control, estimate, ids, journal, look
from daemon.books import Books
from daemon.clock import Clock
from daemon.desk import layout
from daemon.desk.evidence import Evidence
from daemon.desk.house import Manuscript
from daemon.inference import attempts
from daemon.inference.asking import Asker
from daemon.inference.ladder import Role, Rung, Tier
from daemon.journal import PublicationState, RunOutcome, RunState, StepState
from daemon.newsroom import Abstain, Failed, Newsroom, StepDown
from daemon.progress import Progress
from daemon.settings import Settings
from daemon.sources import archive
from daemon.steps import Paused, Steps
from ledger.errors import NotAllowed
from ledger.money import MicroCredits
from publishers.errors import OutcomeUnknown, Rejected, Transient
from publishers.port import Intent, Post, Publisher

# Where a digest may go: a provider that fails must not post link lists in public.
DIGEST_DESTINATION = "outbox"


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
    title: str | None = None
    cost: MicroCredits = MicroCredits(0)  # noqa: RUF009 - frozen, so shared safely
    publications: Sequence[Any] = ()
    paused: bool = False
    manuscript: Manuscript | None = None


class Parked(Exception):
    """The run waits for something to pass and is gone on with later."""

    def __init__(self, reason: str, outcome: RunOutcome = RunOutcome.FAILED) -> None:
        super().__init__(reason)
        self.outcome = outcome


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
        publishers: Sequence[Publisher],
        progress: Progress,
        chance: random.Random,
    ) -> None:
        self._books = books
        self._clock = clock
        self._settings = settings
        self._asker = asker
        self._newsroom = newsroom
        self._publishers = publishers
        self._progress = progress
        self._chance = chance

    async def once(self, *, topic: str | None = None, dry_run: bool = False) -> Report:
        """Go on with an interrupted run, else open one now, and see it through."""
        await self._recover()
        with self._books.read() as tx:
            reason = control.paused(tx)
            interrupted = journal.interrupted_run(tx)
            pace = look.pace(tx, self._settings, self._clock.now())
        if reason is not None:
            return Report(None, RunOutcome.SKIPPED, f"paused: {reason}", pace.tier, paused=True)
        if interrupted is not None:
            self._progress.note(interrupted.id, "going on with a run that was interrupted")
            return await self._see_through(interrupted.id, dry_run=dry_run, fresh=False)
        return await self._open(pace, topic, dry_run)

    async def resume(self, run: str) -> Report:
        """Go on with one run that is neither finished nor failed."""
        await self._recover()
        return await self._see_through(run, dry_run=False, fresh=False)

    async def _recover(self) -> None:
        """Requests that were under way when the process died may have been billed: say so."""
        async with self._books.write() as tx:
            for attempt in attempts.in_flight(tx):
                attempts.complete(
                    tx, attempt.id, outcome="unknown", error="the process ended during the request"
                )

    async def _open(self, pace: Any, topic: str | None, dry_run: bool) -> Report:
        """Decide, and open a run, or say why not."""
        now = self._clock.now()
        if (full := self._day_is_full()) and not dry_run:
            return await self._not_now(pace, full)
        with self._books.read() as tx:
            waiting = journal.waiting_drafts(tx)
        if waiting:
            return await self._not_now(pace, "a draft waits for approval (`penstock drafts list`)")
        kind = journal.DIGEST if pace.tier is Tier.DORMANT else journal.ARTICLE
        if kind == journal.DIGEST and DIGEST_DESTINATION not in self._names():
            return await self._not_now(pace, f"{pace.reason}; and there is no outbox for one")
        run = ids.run_id(now, self._chance)
        async with self._books.write() as tx:
            journal.open_run(
                tx, id=run, slot=None, tier=pace.tier, kind=kind, topic=topic,
                budget_micro=self._settings.policy.run_budget.micro, at=now,
            )  # fmt: skip
            journal.decide(
                tx, run=run, kind="pace", sentence=f"{pace.tier}: {pace.reason}",
                inputs=_inputs(look.books(tx, now), look.history(tx, self._settings, now)), at=now,
            )  # fmt: skip
        self._progress.note(run, f"{pace.tier}: {pace.reason}")
        return await self._see_through(run, dry_run=dry_run, fresh=True)

    async def _not_now(self, pace: Any, reason: str) -> Report:
        async with self._books.write() as tx:
            journal.decide(
                tx, run=None, kind="skip", sentence=reason, inputs={}, at=self._clock.now()
            )
        return Report(None, RunOutcome.SKIPPED, reason, pace.tier)

    def _day_is_full(self) -> str | None:
        """Why no article may be published today, or None."""
        since, until = look.calendar_day(self._clock.now(), self._settings.zone)
        clamp = self._settings.schedule.posts_per_day_max
        with self._books.read() as tx:
            published = journal.articles_published(tx, since=since, until=until)
        if published < clamp:
            return None
        return f"{published} published today, and PENSTOCK_MAX_POSTS_PER_DAY is {clamp}"

    async def _see_through(self, run: str, *, dry_run: bool, fresh: bool) -> Report:
        """Work, publish and close; every way out leaves the run in a state that says so."""
        try:
            manuscript = await self._work(run)
            if dry_run:
                return await self._rehearsed(run, manuscript, fresh=fresh)
            if reason := self._needs_person(run):
                return await self._wait_for_person(run, reason)
            await self._publish(run, manuscript)
            return await self._close(run, *self._outcome(run))
        except Abstain as reason:
            return await self._close(run, RunOutcome.ABSTAINED, str(reason))
        except Failed as reason:
            return await self._close(run, RunOutcome.FAILED, str(reason))
        except NotAllowed as refusal:
            spent = self._cost(run)
            outcome = RunOutcome.FAILED if spent else RunOutcome.SKIPPED
            return await self._close(run, outcome, f"the books do not allow it: {refusal}")
        except (Parked, Paused) as reason:
            return await self._park(run, reason)

    async def _work(self, run: str) -> Manuscript:
        """The manuscript: an article, or a digest where no model is left to write one."""
        with self._books.read() as tx:
            row = journal.run(tx, run)
        assert row is not None
        steps = Steps(
            run,
            books=self._books,
            clock=self._clock,
            asker=self._asker,
            rungs=self._rungs(Tier(row.tier)),
            progress=self._progress,
        )
        if row.kind == journal.ARTICLE:
            try:
                return await self._newsroom.article(steps, row.topic)
            except StepDown as reason:
                await self._become_digest(steps, str(reason))
        return await self._newsroom.digest(steps)

    async def _become_digest(self, steps: Steps, reason: str) -> None:
        if DIGEST_DESTINATION not in self._names():
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

    def _needs_person(self, run: str) -> str | None:
        """Why a person must look first, or None."""
        public = [publisher.name for publisher in self._publishers if publisher.public]
        approval = self._settings.publishing.approval
        with self._books.read() as tx:
            row = journal.run(tx, run)
            reached = journal.articles_reached(tx, public)
        assert row is not None
        if not public or approval == "auto" or row.approved_at is not None:
            return None
        if approval == "manual":
            return "every article waits for a person (PENSTOCK_APPROVAL)"
        first = int(approval.partition(":")[2])
        if reached >= first:
            return None
        return f"the first {first} public articles wait for a person, and {reached} are out"

    async def _wait_for_person(self, run: str, reason: str) -> Report:
        async with self._books.write() as tx:
            state = RunState.AWAITING_APPROVAL
            journal.change_run(tx, run, state=state, outcome=None, reason=reason)
        return self._report(run, RunOutcome.AWAITING_APPROVAL, reason)

    async def _publish(self, run: str, manuscript: Manuscript) -> None:
        """Every destination that is due; one failing neither blocks nor repeats another."""
        with self._books.read() as tx:
            row = journal.run(tx, run)
            known = {p.platform: p for p in journal.publications(tx, run=run)}
        assert row is not None
        due = [
            p
            for p in self._publishers
            if row.kind == journal.ARTICLE or p.name == DIGEST_DESTINATION
        ]
        reached = any(publication.state in journal.REACHED for publication in known.values())
        if not reached and (full := self._day_is_full()):
            raise Parked(full, RunOutcome.SKIPPED)
        waiting = []
        for publisher in due:
            state = known[publisher.name].state if publisher.name in known else None
            if state in (None, PublicationState.INTENDED):
                waiting += await self._publish_to(publisher, run, manuscript)
        if waiting:
            raise Parked("; ".join(waiting))

    async def _publish_to(
        self, publisher: Publisher, run: str, manuscript: Manuscript
    ) -> list[str]:
        """Intent, effect, receipt. Returns why it must be tried again, if it must."""
        with self._books.read() as tx:
            pause = control.paused(tx)
        if pause is not None:
            raise Paused(pause)
        name = f"publish:{publisher.name}"
        self._progress.step(run, name, StepState.RUNNING)
        intent = await self._intent(publisher, run, manuscript)
        change: dict[str, Any]
        waiting: list[str] = []
        try:
            receipt = await publisher.publish(intent)
        except Transient as error:
            change = {"error": str(error)}
            waiting.append(f"{publisher.name}: {error}")
        except Rejected as error:
            change = {"state": PublicationState.FAILED, "error": str(error)}
        except OutcomeUnknown as error:
            change = {"state": PublicationState.UNCONFIRMED, "error": str(error)}
        else:
            change = {
                "state": PublicationState.PUBLISHED, "url": receipt.url, "error": None,
                "remote_id": receipt.remote_id, "published_at": self._clock.now(),
            }  # fmt: skip
        async with self._books.write() as tx:
            journal.change_publication(tx, run, publisher.name, **change)
            if change["error"] is None:
                journal.finish_step(tx, run, name, None, self._clock.now())
            else:
                journal.fail_step(tx, run, name, change["error"], self._clock.now())
        state = StepState.FAILED if change["error"] else StepState.DONE
        self._progress.step(run, name, state, change["error"] or "")
        return waiting

    async def _intent(self, publisher: Publisher, run: str, manuscript: Manuscript) -> Intent:
        """The stored intent, or a new one, stored before anything is sent."""
        now = self._clock.now()
        with self._books.read() as tx:
            stored = journal.publication(tx, run, publisher.name)
        if stored is not None:
            async with self._books.write() as tx:
                journal.begin_step(tx, run, f"publish:{publisher.name}", now)
            return Intent(stored.key, stored.payload.encode())
        intent = publisher.intend(self._post(run, manuscript))
        async with self._books.write() as tx:
            journal.begin_step(tx, run, f"publish:{publisher.name}", now)
            journal.intend(
                tx, run, publisher.name,
                key=intent.key, payload=intent.payload, title=manuscript.title, at=now,
            )  # fmt: skip
        return intent

    def _post(self, run: str, manuscript: Manuscript) -> Post:
        """Translate the crew's manuscript into a publisher's post."""
        with self._books.read() as tx:
            row = journal.run(tx, run)
            sources = journal.sources(tx, run)
        assert row is not None
        if row.kind == journal.DIGEST:
            body = layout.digest(manuscript.markdown, run=run)
        else:
            evidence = {s.id: Evidence(s.id, s.url, s.title, s.text) for s in sources}
            body = layout.article(
                manuscript.markdown, evidence, run=run, read_at=sources[0].fetched_at
            )
        return Post(
            run=run,
            title=manuscript.title,
            description=manuscript.description,
            tags=manuscript.tags,
            markdown=body,
            at=self._clock.now(),
            language=self._settings.brief.language,
        )

    def _outcome(self, run: str) -> tuple[RunOutcome, str]:
        """What the publications add up to."""
        with self._books.read() as tx:
            publications = journal.publications(tx, run=run)
        states = {publication.state for publication in publications}
        problems = "; ".join(f"{p.platform}: {p.error}" for p in publications if p.error)
        if PublicationState.UNCONFIRMED in states:
            return RunOutcome.UNCONFIRMED, problems
        if PublicationState.PUBLISHED in states:
            reached = ", ".join(
                p.platform for p in publications if p.state == PublicationState.PUBLISHED
            )
            return RunOutcome.PUBLISHED, f"published to {reached}" + (
                f" ({problems})" if problems else ""
            )
        return RunOutcome.FAILED, problems or "no destination was due"

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
        paused = isinstance(reason, Paused)
        outcome = RunOutcome.SKIPPED if isinstance(reason, Paused) else reason.outcome
        text = f"parked, `penstock once` goes on with it: {reason}"
        return self._report(run, outcome, text, paused=paused)

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
            row = journal.run(tx, run)
            publications = journal.publications(tx, run=run)
        assert row is not None
        return Report(
            run=run,
            outcome=outcome,
            reason=reason,
            tier=Tier(row.tier),
            title=row.title,
            cost=self._cost(run),
            publications=publications,
            paused=paused,
            manuscript=manuscript,
        )

    def _cost(self, run: str) -> MicroCredits:
        with self._books.read() as tx:
            return MicroCredits(attempts.spent_by_run(tx, run))

    def _names(self) -> list[str]:
        return [publisher.name for publisher in self._publishers]


def _inputs(books: Any, history: Any) -> dict[str, Any]:
    """What the governor looked at, as JSON."""
    return {
        **{field.name: str(getattr(books, field.name)) for field in fields(books)},
        "runs_per_day": round(history.runs_per_day, 3),
        "last_tier": history.last_tier,
        "cost_by_tier": {tier: str(cost) for tier, cost in history.cost_by_tier.items()},
    }
