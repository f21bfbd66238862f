"""
From a manuscript to publications: intent, effect, receipt, at every destination that is due.

The exact bytes are stored before anything is sent, the receipt after it. An effect whose outcome
is not known is never repeated blind. Each publication has a life of its own: a run ends once its
article is out somewhere, and what other destinations still wait for is pursued later.

An announcement is frozen when the article it links to has its address, and lapses without one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from daemon import alerts, control, journal, look, packaging, whereabouts
from daemon.alerts import Kind
from daemon.books import Books
from daemon.clock import Clock
from daemon.control import Paused
from daemon.crew.brief import Brief
from daemon.journal import OPEN, PublicationState, RunOutcome, RunState, StepState
from daemon.progress import Progress
from daemon.sources import published
from daemon.whereabouts import OUTBOX, address, announces
from ledger.errors import StorageError
from publishers.errors import (
    Barred,
    OutcomeUnknown,
    PublisherError,
    Rejected,
    Transient,
    Withdrawn,
)
from publishers.port import (
    Discarding,
    Hosting,
    Intent,
    Post,
    Publisher,
    Receipt,
    Withdrawing,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Where a digest may go: a provider that fails must not post link lists in public.
DIGEST_DESTINATION = OUTBOX
# An announcement of yesterday's article is no news.
LAPSES_AFTER = timedelta(hours=24)
# A destination that asks for a moment gets it, at most so long and so often a round.
PATIENCE_S = 60.0
ATTEMPTS_MAX = 3

# An intent that is still to be made.
_LATER = Intent("", b"")
# Why a withdrawal is not called done.
_SENDING = (
    "not withdrawn yet: it may be on its way out at this moment, so it is looked for again and"
    " taken back by `penstock run` within the hour, or by `penstock reconcile`"
)


class Parked(Exception):
    """The run waits for something to pass and is gone on with later."""

    def __init__(self, reason: str, outcome: RunOutcome = RunOutcome.FAILED) -> None:
        super().__init__(reason)
        self.outcome = outcome


class _NotToday(Exception):
    """The article is nowhere, on a day on which no other may go out."""


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
        gate: control.Gate,
    ) -> None:
        self._books = books
        self._clock = clock
        # What announces comes after what it may announce. What hosts comes first: its folder
        # remembers what was taken back, also where a restored database does not.
        self._publishers = sorted(
            publishers, key=lambda each: (announces(each), not isinstance(each, Hosting))
        )
        self._approval = approval
        self._posts_per_day_max = posts_per_day_max
        self._zone = zone
        self._brief = brief
        self._progress = progress
        self._gate = gate
        # What began earlier, another life of the process may have sent.
        self._born = clock.now()

    @property
    def takes_digests(self) -> bool:
        """Whether there is a destination for a digest."""
        return any(publisher.name == DIGEST_DESTINATION for publisher in self._publishers)

    @property
    def announces(self) -> bool:
        """Whether a destination wants an announcement of each article."""
        return any(map(announces, self._publishers))

    def day_is_full(self, *, but: str | None = None) -> str | None:
        """
        Why no article may be published today, or None.

        Args:
            but: a run that is not counted, since it is about that one.
        """
        since, until = look.calendar_day(self._clock.now(), self._zone)
        clamp = self._posts_per_day_max
        with self._books.read() as tx:
            published = journal.articles_published(tx, since=since, until=until, but=but)
        if published < clamp:
            return None
        return f"{published} published today, and PENSTOCK_MAX_POSTS_PER_DAY is {clamp}"

    def needs_person(self, run: str) -> str | None:
        """Why a person must look first, or None."""
        everywhere = [publisher.name for publisher in self._publishers if publisher.public]
        with self._books.read() as tx:
            row = journal.run(tx, run)
            reached = journal.articles_reached(tx, everywhere)
        assert row is not None
        public = [publisher for publisher in self._due(row) if publisher.public]
        if not public or self._approval == "auto" or row.approved_at is not None:
            return None
        if self._approval == "manual":
            return "every article waits for a person (PENSTOCK_APPROVAL)"
        first = int(self._approval.partition(":")[2])
        if reached >= first:
            return None
        return f"the first {first} public articles wait for a person, and {reached} are out"

    async def publish(self, run: str) -> None:
        """
        Publish to every destination that is due; one failing neither blocks nor repeats another.

        Raises:
            Parked: the day is full, or it is out nowhere and a destination said not now.
            Paused: the operator paused Penstock.
        """
        if self._would_be_new(run) and (full := self.day_is_full(but=run)):
            raise Parked(full, RunOutcome.SKIPPED)
        await self._plan(run)
        for publisher in self._publishers:
            await self._deliver(publisher, run)
        with self._books.read() as tx:
            rows = journal.publications(tx, run=run)
        if not _states(rows) & {*journal.REACHED}:
            # What is to be taken back, and what a destination has that is none any more, `pursue`
            # goes on with; it holds up no other run.
            names = {publisher.name for publisher in self._publishers}
            waiting = [
                row
                for row in rows
                if row.state == PublicationState.INTENDED
                and row.withdrawal is None
                and row.platform in names
            ]
            if waiting and (full := self.day_is_full(but=run)):
                raise Parked(full, RunOutcome.SKIPPED)
            if waiting:
                raise Parked(_problems(waiting))

    async def pursue(self) -> list[Any]:
        """
        Go on with every publication that is not over; returns those as they are now.

        What may be live is looked up at its destination first; what was put off is tried again;
        what is to be taken back is. A run of which this changes something gets the outcome it has
        then earned.
        """
        with self._books.read() as tx:
            rows = journal.open_publications(tx)
        by_name = {publisher.name: publisher for publisher in self._publishers}
        order = {name: number for number, name in enumerate(by_name)}
        for run in dict.fromkeys(row.run for row in rows):
            mine = [row for row in rows if row.run == run and row.platform in by_name]
            if self._would_be_new(run) and self.day_is_full(but=run):
                continue
            for row in sorted(mine, key=lambda row: order[row.platform]):
                try:
                    await self._deliver(by_name[row.platform], run)
                except Paused:
                    continue
            await self._close(run)
        if not rows:
            return []
        with self._books.read() as tx:
            return [journal.publication(tx, row.run, row.platform) for row in rows]

    async def withdraw(self, run: str, reason: str) -> list[Any]:
        """
        Take an article back from wherever it went; returns its publications as they are then.

        The wish is stored first, so that `pursue` carries out what a destination puts off, and
        whoever is publishing it at this moment finds it. What may be on its way out at this moment
        stays unconfirmed, for `pursue` to look at once more.
        """
        now = self._clock.now()
        async with self._books.write() as tx:
            journal.want_back(tx, run, reason)
            journal.decide(
                tx, run=run, kind="withdraw", sentence=f"a person takes it back: {reason}",
                inputs={}, at=now,
            )  # fmt: skip
        # Where it is announced first: a link to nothing is worse than an article without one.
        for publisher in reversed(self._publishers):
            with self._books.read() as tx:
                row = journal.publication(tx, run, publisher.name)
                step = journal.step(tx, run, f"publish:{publisher.name}")
            if row is not None:
                # A step begun later finds the wish before it sends anything.
                sending = step is not None and step.state == StepState.RUNNING
                await self._take_back(publisher, row, sending=sending)
        with self._books.read() as tx:
            return list(journal.publications(tx, run=run))

    def _would_be_new(self, run: str) -> bool:
        """Whether an article is nowhere yet for certain, so that publishing it counts for today."""
        with self._books.read() as tx:
            rows = journal.publications(tx, run=run)
        sent = any(row.sent_at is not None for row in rows)
        return not sent and not _wanted_back(rows) and not _states(rows) & {*journal.REACHED}

    # One publication

    def _due(self, run: Any) -> list[Publisher]:
        """Where a run's text is to go."""
        is_article = run.kind == journal.ARTICLE
        return [p for p in self._publishers if is_article or p.name == DIGEST_DESTINATION]

    async def _plan(self, run: str) -> None:
        """
        Store what is due where, and freeze what can be; one instant for all of it.

        What was taken back is due nowhere, whichever destinations there are by now.
        """
        with self._books.read() as tx:
            row = journal.run(tx, run)
            known = {found.platform for found in journal.publications(tx, run=run)}
            title = packaging.manuscript(tx, run).title
        assert row is not None
        lacking = [publisher for publisher in self._due(row) if publisher.name not in known]
        if not lacking:
            return
        post = self._post(run)
        planned = [
            (publisher.name, _LATER if announces(publisher) else _intended(publisher, post))
            for publisher in lacking
        ]
        async with self._books.write() as tx:
            if _wanted_back(journal.publications(tx, run=run)):
                return
            for name, intent in planned:
                journal.intend(
                    tx, run, name, key=intent.key, payload=intent.payload, title=title, at=post.at
                )

    async def _deliver(self, publisher: Publisher, run: str) -> None:
        """Bring one publication as far as it can be brought now."""
        with self._books.read() as tx:
            row = journal.publication(tx, run, publisher.name)
        if row is None:
            return
        if row.withdrawal is not None:
            await self._take_back(publisher, row)
            return
        now = self._clock.now()
        # Further off than anybody is let put it off: the clock was ahead when that was noted.
        waits = row.retry_at is not None and now < row.retry_at <= now + LAPSES_AFTER
        if row.state not in OPEN or waits:
            return
        if not row.payload:
            row = await self._freeze(publisher, row)
            if row is None:
                return
        await self._try(publisher, row)

    async def _freeze(self, publisher: Publisher, row: Any) -> Any | None:
        """The row with its exact bytes; None while there cannot be any."""
        with self._books.read() as tx:
            rows = journal.publications(tx, run=row.run)
        link, waits = address(self._publishers, rows)
        if announces(publisher) and waits:
            lapsed = self._clock.now() >= row.intended_at + LAPSES_AFTER
            hours = LAPSES_AFTER // timedelta(hours=1)
            error = f"waits for the article's address ({waits})" + (
                f" and had none within {hours} h, so it is let go" if lapsed else ""
            )
            put_off: dict[str, Any] = {"error": error}
            if lapsed:
                put_off["state"] = PublicationState.FAILED
            async with self._books.write() as tx:
                journal.change_publication(tx, row.run, row.platform, **put_off)
                if lapsed:
                    self._sound(tx, Kind.LAPSED, row, error)
            return None
        intent = _intended(publisher, self._post(row.run, link))
        change: dict[str, Any]
        if intent is _LATER:
            change = {"error": f"{publisher.name} cannot prepare it now; look at its settings"}
        else:
            change = {"key": intent.key, "payload": intent.payload.decode(), "error": None}
        async with self._books.write() as tx:
            journal.change_publication(tx, row.run, row.platform, **change)
            return None if intent is _LATER else journal.publication(tx, row.run, row.platform)

    async def _try(self, publisher: Publisher, row: Any) -> None:
        """Look where it may be live already, then carry the intent out."""
        run, name = row.run, f"publish:{row.platform}"
        with self._books.read() as tx:
            pause = self._gate.shut(tx)
            begun = journal.run(tx, run)
        assert begun is not None
        maybe_live = row.state == PublicationState.UNCONFIRMED or row.sent_at is not None
        if pause is not None and not maybe_live:
            raise Paused(pause)
        self._progress.step(run, name, StepState.RUNNING)
        out_since = row.sent_at
        try:
            receipt = None
            if maybe_live or begun.started_at < self._born:
                receipt = await self._patiently(row, lambda: publisher.find(_stored(row)))
            if receipt is None or not receipt.whole:
                if pause is not None:
                    raise Paused(pause)
                if receipt is None:
                    self._have_its_day(run)
                    out_since = None
                async with self._books.write() as tx:
                    now = self._clock.now()
                    journal.begin_step(tx, run, name, now)
                    journal.change_publication(tx, run, row.platform, sent_at=now)
                receipt = await self._patiently(row, lambda: self._published(publisher, row))
        except Paused:
            async with self._books.write() as tx:
                journal.fail_step(tx, run, name, "paused", self._clock.now())
            raise
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - a destination's fault must stop no other
            change = self._refused(error)
            await self._store(publisher, row, change, error)
            self._progress.step(run, name, StepState.FAILED, change["error"])
        else:
            await self._store(publisher, row, self._received(receipt, out_since), None)
            self._progress.step(run, name, StepState.DONE)

    def _have_its_day(self, run: str) -> None:
        """
        See that an article which is known to be nowhere waits for a free day.

        One that may be out was counted for the day on which it would have gone out.

        Raises:
            _NotToday
        """
        with self._books.read() as tx:
            states = _states(journal.publications(tx, run=run))
        known = states & {PublicationState.PUBLISHED, PublicationState.WITHDRAWN}
        if not known and (full := self.day_is_full(but=run)):
            raise _NotToday(full)

    async def _published(self, publisher: Publisher, row: Any) -> Receipt:
        """Carry the stored intent out, with what was noted of it so far."""
        with self._books.read() as tx:
            current = journal.publication(tx, row.run, row.platform)
            # It may have waited for the destination since it was looked at last.
            if (pause := self._gate.shut(tx)) is not None:
                raise Paused(pause)
        assert current is not None
        if current.withdrawal is not None:
            raise Transient("it is being taken back")
        return await publisher.publish(_stored(current), partial(self._note, row.run, row.platform))

    async def _patiently(self, row: Any, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, waiting where the destination wants a moment."""
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return await ask()
            except Transient as error:
                wait_s = error.retry_after_s
                if wait_s is None or not 0 < wait_s <= PATIENCE_S:
                    raise
                self._progress.note(row.run, f"{row.platform} asks to wait {wait_s:.0f} s")
                await self._clock.sleep(wait_s)
        return await ask()

    def _refused(self, error: Exception) -> dict[str, Any]:
        """What an error changes about a publication."""
        said = str(error) or type(error).__name__
        if isinstance(error, Rejected):
            return {"state": PublicationState.FAILED, "error": said}
        if isinstance(error, _NotToday):
            return {"state": PublicationState.INTENDED, "error": said, "sent_at": None}
        if isinstance(error, Transient):
            wait_s = None if isinstance(error, Barred) else error.retry_after_s
            return {"error": said, "retry_at": self._later(wait_s)}
        if isinstance(error, OutcomeUnknown):
            return {"state": PublicationState.UNCONFIRMED, "error": said}
        # Not one of the answers a destination may give, so nobody can say what took effect.
        unexpected = f"unexpected, a fault of the program: {type(error).__name__}: {said}"
        return {"state": PublicationState.UNCONFIRMED, "error": unexpected}

    def _later(self, wait_s: float | None) -> datetime | None:
        if wait_s is None or not wait_s > 0:
            return None
        return self._clock.now() + timedelta(seconds=min(wait_s, LAPSES_AFTER.total_seconds()))

    async def _store(
        self, publisher: Publisher, row: Any, change: Mapping[str, Any], error: Exception | None
    ) -> None:
        """What came of an attempt, the step, the alerts and the archive, in one transaction."""
        now, name = self._clock.now(), f"publish:{row.platform}"
        async with self._books.write() as tx:
            journal.change_publication(tx, row.run, row.platform, **change)
            self._level(tx, publisher, row, error, change["error"])
            if error is None:
                journal.finish_step(tx, row.run, name, None, now)
                whereabouts.note(tx, self._publishers, row.run)
                return
            journal.fail_step(tx, row.run, name, change["error"], now)
            if isinstance(error, Withdrawn):
                journal.want_back(tx, row.run, change["error"])

    async def _take_back(self, publisher: Publisher, row: Any, *, sending: bool = False) -> None:
        """
        Withdraw what is out, look where it may be, let go of what is not.

        Args:
            sending: another process may be sending it, so that it may be out a moment later.
        """
        if row.withdrawal is None or row.state not in (*OPEN, PublicationState.PUBLISHED):
            return
        refused: Exception | None = None
        change: dict[str, Any]
        try:
            change = await self._taken_back(publisher, row)
            if sending and row.state in OPEN:
                change |= {"state": PublicationState.UNCONFIRMED, "error": _SENDING}
        except Rejected as error:
            # Asked again it would say the same.
            refused, change = error, {"error": f"not withdrawn: {error}", "withdrawal": None}
        except PublisherError as error:
            refused, change = error, {"error": f"not withdrawn yet: {error}"}
        except Exception as error:  # noqa: BLE001 - a destination's fault must stop no other
            refused = error
            change = {"error": f"not withdrawn yet: {type(error).__name__}: {error}"}
        async with self._books.write() as tx:
            current = journal.publication(tx, row.run, row.platform)
            assert current is not None
            overtaken = current.state != row.state
            if not overtaken:
                journal.change_publication(tx, row.run, row.platform, **change)
                # Where there is nothing to look for, nobody was asked.
                if row.payload or row.state == PublicationState.PUBLISHED:
                    self._level(tx, publisher, row, refused, change["error"])
                whereabouts.note(tx, self._publishers, row.run)
        if overtaken:
            # Whoever was sending it has stored what came of that.
            await self._take_back(publisher, current, sending=sending)
            return
        self._progress.note(row.run, f"{row.platform}: {change['error'] or 'withdrawn'}")

    async def _taken_back(self, publisher: Publisher, row: Any) -> dict[str, Any]:
        """Carry a withdrawal out; returns what it changes about the publication."""
        receipt = await self._receipt(publisher, row)
        if receipt is not None:
            if not isinstance(publisher, Withdrawing):
                raise Rejected(f"{publisher.name} takes nothing back; remove it there by hand")
            await self._patiently(row, partial(publisher.withdraw, receipt, row.withdrawal))
            return {
                "state": PublicationState.WITHDRAWN, "error": None,
                "url": receipt.url, "remote_id": receipt.remote_id,
            }  # fmt: skip
        if isinstance(publisher, Discarding) and row.payload:
            await self._patiently(row, partial(publisher.discard, _stored(row)))
        if row.remote_id is not None:
            # Taken back while it was being sent, when nobody could say that this was all.
            return {"state": PublicationState.WITHDRAWN, "error": None}
        error = f"withdrawn before it was out: {row.withdrawal}"
        return {"state": PublicationState.FAILED, "error": error}

    async def _receipt(self, publisher: Publisher, row: Any) -> Receipt | None:
        """Where a publication that may be out is; None where it is not."""
        if row.state == PublicationState.PUBLISHED:
            return Receipt(row.url, row.remote_id)
        if not row.payload:
            return None
        return await self._patiently(row, lambda: publisher.find(_stored(row)))

    async def _note(self, run: str, platform: str, text: str) -> None:
        """Keep what a destination said on the way, before anything more is sent there."""
        async with self._books.write() as tx:
            journal.change_publication(tx, run, platform, noted=text)

    def _received(self, receipt: Receipt, since: datetime | None) -> dict[str, Any]:
        """
        What a receipt changes about a publication.

        Args:
            since: when it was sent, of what was found to be out already.
        """
        now = self._clock.now()
        return {
            "state": PublicationState.PUBLISHED, "url": receipt.url, "error": None,
            "remote_id": receipt.remote_id, "published_at": min(since or now, now),
            "retry_at": None,
        }  # fmt: skip

    def _post(self, run: str, link: str | None = None) -> Post:
        """Translate the crew's manuscript into a publisher's post."""
        with self._books.read() as tx:
            row = journal.run(tx, run)
            manuscript = packaging.manuscript(tx, run)
            body = packaging.body(tx, run, manuscript)
            picture = packaging.picture(tx, run, manuscript, self._brief)
            announcement = packaging.announced(tx, run)
            kept = published.article(tx, run)
        assert row is not None
        post = Post(
            run=run,
            title=manuscript.title,
            description=manuscript.description,
            tags=manuscript.tags,
            markdown=body,
            at=self._clock.now(),
            begun=row.started_at,
            language=self._brief.language,
            card=picture,
            reading_minutes=kept.reading_minutes if kept is not None else 0,
            link=link,
            announcement=announcement,
        )
        return next(
            (
                replace(post, canonical_url=address)
                for publisher in self._publishers
                if isinstance(publisher, Hosting) and (address := publisher.address(post))
            ),
            post,
        )

    # What it adds up to

    def outcome(self, run: str) -> tuple[RunOutcome, str]:
        """What the publications add up to."""
        order = [publisher.name for publisher in self._publishers]
        with self._books.read() as tx:
            rows = sorted(
                journal.publications(tx, run=run),
                key=lambda row: order.index(row.platform) if row.platform in order else len(order),
            )
        states, problems = _states(rows), _problems(rows)
        if PublicationState.UNCONFIRMED in states:
            return RunOutcome.UNCONFIRMED, problems
        out = {PublicationState.PUBLISHED, PublicationState.WITHDRAWN}
        if states & out:
            reached = ", ".join(row.platform for row in rows if row.state in out)
            return RunOutcome.PUBLISHED, f"published to {reached}" + (
                f" ({problems})" if problems else ""
            )
        if _wanted_back(rows):
            # Its entries stay used: a person wants no other article of them.
            return RunOutcome.ABSTAINED, problems
        return RunOutcome.FAILED, problems or "no destination was due"

    async def _close(self, run: str) -> None:
        """Give a run that has ended the outcome that its publications add up to now."""
        outcome, reason = self.outcome(run)
        async with self._books.write() as tx:
            row = journal.run(tx, run)
            if outcome is RunOutcome.ABSTAINED and row is not None and row.outcome == outcome:
                # Why it was let go says more than what came of each intent.
                return
            if row is not None and row.state in (RunState.FINISHED, RunState.FAILED):
                state = RunState.FAILED if outcome is RunOutcome.FAILED else RunState.FINISHED
                journal.change_run(tx, run, outcome=outcome, reason=reason, state=state)

    def _sound(self, tx: Connection, kind: Kind, row: Any, message: str) -> None:
        said = f"“{row.title}” at {row.platform}: {message}"
        about = f"{row.run}:{row.platform}"
        alerts.sound(tx, kind, about, said, run=row.run, at=self._clock.now())

    def _level(
        self, tx: Connection, publisher: Publisher, row: Any, error: Exception | None, said: str
    ) -> None:
        """See that a person learns of what a destination answered; None where it let us."""
        name, now = publisher.name, self._clock.now()
        if error is None:
            alerts.clear(tx, Kind.BARRED, name, at=now)
        elif isinstance(error, Barred):
            alerts.sound(tx, Kind.BARRED, name, f"{name} lets nothing through: {error}", at=now)
        elif isinstance(error, Rejected):
            self._sound(tx, Kind.REFUSED, row, said)


def try_again(tx: Connection, rows: Sequence[Any], at: datetime) -> None:
    """Let publications of a run that were given up be tried again: a person has seen to why."""
    for row in rows:
        journal.change_publication(
            tx, row.run, row.platform, state=PublicationState.INTENDED, retry_at=None,
            # An announcement has its day anew.
            intended_at=row.intended_at if row.payload else at,
        )  # fmt: skip
        for kind in (Kind.REFUSED, Kind.LAPSED):
            alerts.clear(tx, kind, f"{row.run}:{row.platform}", at=at)
    sentence = f"a person has {', '.join(row.platform for row in rows)} tried again"
    journal.decide(tx, run=rows[0].run, kind="retry", sentence=sentence, inputs={}, at=at)


def _intended(publisher: Publisher, post: Post) -> Intent:
    """A destination's intent; an empty one, to be made later, where it cannot be made now."""
    try:
        return publisher.intend(post)
    except Exception:
        # Such as a folder that cannot be read; it must stop no other destination.
        logger.exception("press.intend: %s cannot prepare %s", publisher.name, post.run)
        return _LATER


def _stored(row: Any) -> Intent:
    return Intent(row.key, row.payload.encode(), row.noted)


def _states(rows: Sequence[Any]) -> set[PublicationState]:
    return {PublicationState(row.state) for row in rows}


def _wanted_back(rows: Sequence[Any]) -> bool:
    """Whether a person wants an article back, of which these are the publications."""
    return any(row.withdrawal is not None for row in rows)


def _problems(rows: Sequence[Any]) -> str:
    return "; ".join(f"{row.platform}: {row.error}" for row in rows if row.error)
