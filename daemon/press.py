"""
From a manuscript to publications: intent, effect, receipt, at every destination that is due.

The exact bytes are stored before anything is sent, the receipt after it. An effect whose outcome
is not known is never repeated blind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from daemon import control, journal, look, packaging
from daemon.books import Books
from daemon.clock import Clock
from daemon.crew.brief import Brief
from daemon.desk.house import Manuscript
from daemon.journal import PublicationState, RunOutcome, StepState
from daemon.progress import Progress
from daemon.sources import published
from daemon.steps import Paused
from publishers.errors import OutcomeUnknown, Rejected, Transient
from publishers.port import Intent, Post, Publisher, Receipt

# Where a digest may go: a provider that fails must not post link lists in public.
DIGEST_DESTINATION = "outbox"


class Parked(Exception):
    """The run waits for something to pass and is gone on with later."""

    def __init__(self, reason: str, outcome: RunOutcome = RunOutcome.FAILED) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Press:
    """
    Publishes what the newsroom made.

    Args:
        approval: `auto`, `manual` or `first:N`.
        posts_per_day_max: articles a calendar day in `zone`, whoever asks for more.
    """

    def __init__(
        self,
        *,
        books: Books,
        clock: Clock,
        publishers: Sequence[Publisher],
        approval: str,
        posts_per_day_max: int,
        zone: ZoneInfo,
        brief: Brief,
        progress: Progress,
    ) -> None:
        self._books = books
        self._clock = clock
        self._publishers = publishers
        self._approval = approval
        self._posts_per_day_max = posts_per_day_max
        self._zone = zone
        self._brief = brief
        self._progress = progress

    @property
    def takes_digests(self) -> bool:
        """Whether there is a destination for a digest."""
        return any(publisher.name == DIGEST_DESTINATION for publisher in self._publishers)

    def day_is_full(self) -> str | None:
        """Why no article may be published today, or None."""
        since, until = look.calendar_day(self._clock.now(), self._zone)
        clamp = self._posts_per_day_max
        with self._books.read() as tx:
            published = journal.articles_published(tx, since=since, until=until)
        if published < clamp:
            return None
        return f"{published} published today, and PENSTOCK_MAX_POSTS_PER_DAY is {clamp}"

    def needs_person(self, run: str) -> str | None:
        """Why a person must look first, or None."""
        public = [publisher.name for publisher in self._publishers if publisher.public]
        with self._books.read() as tx:
            row = journal.run(tx, run)
            reached = journal.articles_reached(tx, public)
        assert row is not None
        if not public or self._approval == "auto" or row.approved_at is not None:
            return None
        if self._approval == "manual":
            return "every article waits for a person (PENSTOCK_APPROVAL)"
        first = int(self._approval.partition(":")[2])
        if reached >= first:
            return None
        return f"the first {first} public articles wait for a person, and {reached} are out"

    async def publish(self, run: str, manuscript: Manuscript) -> None:
        """
        Publish to every destination that is due; one failing neither blocks nor repeats another.

        Raises:
            Parked: the day is full, or a destination said not now.
            Paused: the operator paused Penstock.
        """
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
        if not reached and (full := self.day_is_full()):
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
            receipt = await publisher.publish(intent, partial(self._note, run, publisher.name))
        except Transient as error:
            change = {"error": str(error)}
            waiting.append(f"{publisher.name}: {error}")
        except Rejected as error:
            change = {"state": PublicationState.FAILED, "error": str(error)}
        except OutcomeUnknown as error:
            change = {"state": PublicationState.UNCONFIRMED, "error": str(error)}
        else:
            change = self._received(receipt)
        async with self._books.write() as tx:
            journal.change_publication(tx, run, publisher.name, **change)
            self._note_out(tx, publisher, run, change)
            if change["error"] is None:
                journal.finish_step(tx, run, name, None, self._clock.now())
            else:
                journal.fail_step(tx, run, name, change["error"], self._clock.now())
        state = StepState.FAILED if change["error"] else StepState.DONE
        self._progress.step(run, name, state, change["error"] or "")
        return waiting

    async def _note(self, run: str, platform: str, text: str) -> None:
        """Keep what a destination said on the way, before anything more is sent there."""
        async with self._books.write() as tx:
            journal.change_publication(tx, run, platform, noted=text)

    def _received(self, receipt: Receipt) -> dict[str, Any]:
        """What a receipt changes about a publication."""
        return {
            "state": PublicationState.PUBLISHED, "url": receipt.url, "error": None,
            "remote_id": receipt.remote_id, "published_at": self._clock.now(),
        }  # fmt: skip

    def _note_out(
        self, tx: Connection, publisher: Publisher, run: str, change: Mapping[str, Any]
    ) -> None:
        """From now on the archive knows the article as published."""
        if change.get("state") is PublicationState.PUBLISHED:
            url = change["url"] if publisher.public else None
            published.went_out(tx, run, url, change["published_at"])

    async def confirm(self) -> list[Any]:
        """
        Read the destinations of every publication that may be live; returns those publications.

        A run whose last doubt this lifts gets the outcome it has earned.
        """
        with self._books.read() as tx:
            doubtful = journal.unconfirmed_publications(tx)
        by_name = {publisher.name: publisher for publisher in self._publishers}
        for row in doubtful:
            if row.platform not in by_name:
                continue
            publisher = by_name[row.platform]
            receipt = await publisher.find(Intent(row.key, row.payload.encode(), row.noted))
            if receipt is None:
                continue
            async with self._books.write() as tx:
                change = self._received(receipt)
                journal.change_publication(tx, row.run, row.platform, **change)
                self._note_out(tx, publisher, row.run, change)
                journal.finish_step(tx, row.run, f"publish:{row.platform}", None, self._clock.now())
            outcome, reason = self.outcome(row.run)
            async with self._books.write() as tx:
                journal.change_run(tx, row.run, outcome=outcome, reason=reason)
        with self._books.read() as tx:
            return [journal.publication(tx, row.run, row.platform) for row in doubtful]

    async def _intent(self, publisher: Publisher, run: str, manuscript: Manuscript) -> Intent:
        """The stored intent, or a new one, stored before anything is sent."""
        now = self._clock.now()
        with self._books.read() as tx:
            stored = journal.publication(tx, run, publisher.name)
        intent = (
            publisher.intend(self._post(run, manuscript))
            if stored is None
            else Intent(stored.key, stored.payload.encode(), stored.noted)
        )
        async with self._books.write() as tx:
            journal.begin_step(tx, run, f"publish:{publisher.name}", now)
            if stored is None:
                journal.intend(
                    tx, run, publisher.name,
                    key=intent.key, payload=intent.payload, title=manuscript.title, at=now,
                )  # fmt: skip
        return intent

    def _post(self, run: str, manuscript: Manuscript) -> Post:
        """Translate the crew's manuscript into a publisher's post."""
        with self._books.read() as tx:
            body = packaging.body(tx, run, manuscript)
            picture = packaging.picture(tx, run, manuscript, self._brief)
            kept = published.article(tx, run)
        return Post(
            run=run,
            title=manuscript.title,
            description=manuscript.description,
            tags=manuscript.tags,
            markdown=body,
            at=self._clock.now(),
            language=self._brief.language,
            card=picture,
            reading_minutes=kept.reading_minutes if kept is not None else 0,
        )

    def outcome(self, run: str) -> tuple[RunOutcome, str]:
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
