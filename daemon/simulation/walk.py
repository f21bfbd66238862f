"""
Day after day on virtual time: what is due, what the governor says, what it costs, who reads.

The decisions are the program's own: `look.look` reads a ledger and a journal, and they are real
ones, in a file that is thrown away. Only the provider's answers and the readers are drawn. Every
draw is keyed by the seed and its slot, so that a change of one setting shows what that setting
does, and not another throw of the dice.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, event
from sqlmodel import SQLModel

from daemon import cadence, estimate, journal, look, migrations, reconcile
from daemon.estimate import Stage
from daemon.governor import Pace
from daemon.inference.attempts import Attempt
from daemon.inference.ladder import Role, Rung, Tier
from daemon.inference.meter import Purpose, limits
from daemon.inference.port import ModelOptions, Outcome
from daemon.inference.prices import Usage
from daemon.journal import RunOutcome
from daemon.press import DIGEST_DESTINATION
from daemon.settings import Settings
from daemon.simulation.audience import Audience, engagement
from ledger import audit, posting, store
from ledger.database import Database, create_schema
from ledger.errors import NotAllowed
from ledger.money import ZERO, MicroCredits
from ledger.rules import TREASURY, Code

_attempt = SQLModel.metadata.tables[str(Attempt.__tablename__)]

PLATFORMS = ("bluesky", "devto")
# A call uses what `estimate` plans, times a log-normal factor of this spread: two calls in three
# are within a quarter of the plan.
TOKENS_SIGMA = 0.25
# English has four to five bytes a token; a hold counts the bytes.
BYTES_PER_TOKEN = 4.5
# One request in two hundred ends without our knowing whether it was billed.
UNKNOWN_SHARE = 0.005
# One finished text in twenty does not pass the desk; it is paid for all the same.
ABSTAINED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is to be simulated.

    Args:
        start: midnight in the operator's time zone, where the first day begins.
        balance: what there is to begin with.
    """

    start: datetime
    days: int
    seed: int
    balance: MicroCredits
    audience: Audience


@dataclass(frozen=True, slots=True)
class Point:
    """
    One day, told at its end.

    Args:
        at: the midnight that ends the day.
        balance: posted; `held` of it is claimed by requests of unknown outcome.
        tier, cadence, runway_days: of the last decision, which may be some days old where slots
            are rare; cadence is runs a day.
        spent, earned: booked in the day.
        forfeited: what readers would have earned above PENSTOCK_EARN_DAILY_CAP.
        runs: all that were opened in the day; `articles` of them went out as such.
    """

    at: datetime
    balance: MicroCredits
    held: MicroCredits
    tier: Tier
    cadence: float
    runway_days: float | None
    spent: MicroCredits
    earned: MicroCredits
    forfeited: MicroCredits
    runs: int
    articles: int
    digests: int


@dataclass(frozen=True, slots=True)
class Course:
    """How it went, a point a day; `first` is the decision before the first slot."""

    plan: Plan
    first: Pace
    points: Sequence[Point]


def simulate(settings: Settings, plan: Plan) -> Course:
    """
    Walk the days of a plan.

    Raises:
        UnknownPrice: a ladder names a model that has no price.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-simulation.") as folder:
        book = _ThrownAway(Path(folder) / "simulation.db")
        try:
            with book.write() as tx:
                create_schema(tx, migrations.register_tables())
                if plan.balance:
                    store.deposit(tx, amount=plan.balance, ref="start", at=plan.start)
            walk = _Walk(settings, plan)
            with book.read() as tx:
                first = walk.decide(tx, plan.start).pace
            points = []
            for _ in range(plan.days):
                # One transaction a day: nobody else looks, and a commit costs more than a hold.
                with book.write() as tx:
                    points.append(walk.day(tx))
            with book.read() as tx:
                report = audit.check(tx)
            assert report.ok, report.problems
        finally:
            book.close()
    return Course(plan, first, points)


class _ThrownAway(Database):
    """Books that need not outlive a power cut: waiting for the disk is most of a commit's time."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _wait_for_no_disk)


def _wait_for_no_disk(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


@dataclass(frozen=True)
class _Remembered(cadence.Schedule):
    """
    The same slots, each worked out once; asked in the order of time.

    The governor averages over the coming weeks at each of its decisions, and an expression takes
    0.2 ms a slot to read.
    """

    known: list[datetime] = field(default_factory=list)
    coming: list[Iterator[datetime]] = field(default_factory=list)

    def slots(self, after: datetime) -> Iterator[datetime]:
        if not self.coming or (self.known and after > self.known[-1]):
            self.known.clear()
            self.coming[:] = [super().slots(after)]
        index = bisect_right(self.known, after)
        while True:
            if index == len(self.known):
                found = next(self.coming[0], None)
                if found is None:
                    return
                self.known.append(found)
            yield self.known[index]
            index += 1


class _Walk:
    """The state between days that is not in the books: the date, the pace, the posts out there."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        publish = settings.schedule.publish
        remembered = _Remembered(publish.expression, publish.zone, publish.trigger)
        self._settings = replace(settings, schedule=replace(settings.schedule, publish=remembered))
        self._plan = plan
        self._midnight = plan.start
        self._owed = 1.0
        self._pace: Pace | None = None
        self._number = 0
        # Of each post that is still read, the counts of this day and of the days to come.
        self._posts: list[deque[dict[str, int]]] = []
        self._platforms = platforms(settings)

    def decide(self, tx: Connection, at: datetime) -> look.View:
        """Look at the books as they are and ask the governor."""
        view = look.look(tx, self._settings, at)
        self._pace = view.pace
        return view

    def day(self, tx: Connection) -> Point:
        """One calendar day: its slots, then its readers, then how things stand."""
        # In UTC, since Python subtracts two times of one zone by the wall clock.
        since, until = (
            at.astimezone(UTC) for at in look.calendar_day(self._midnight, self._settings.zone)
        )
        spent, earned = _moved(tx, "inference:"), _moved(tx, "engagement:")
        outcomes: list[tuple[str, RunOutcome]] = []
        for slot in self._settings.schedule.publish.slots(since - timedelta(microseconds=1)):
            posts = sum(outcome is RunOutcome.PUBLISHED for _, outcome in outcomes)
            if slot >= until or posts >= self._settings.schedule.posts_per_day_max:
                break
            outcomes += self._slot(tx, slot)
        forfeited = self._collect(tx, until)
        reconcile.expire(tx, until, self._settings.hold_expiry)
        self._midnight = until
        balance, pace = store.balance(tx), self._pace
        assert pace is not None, "a pace is decided before the first day"
        published = [kind for kind, outcome in outcomes if outcome is RunOutcome.PUBLISHED]
        return Point(
            at=until,
            balance=balance.posted,
            held=balance.held,
            tier=pace.tier,
            cadence=pace.cadence,
            runway_days=pace.runway_days,
            spent=_moved(tx, "inference:") - spent,
            earned=_moved(tx, "engagement:") - earned,
            forfeited=forfeited,
            runs=len(outcomes),
            articles=published.count(journal.ARTICLE),
            digests=published.count(journal.DIGEST),
        )

    def _slot(self, tx: Connection, slot: datetime) -> list[tuple[str, RunOutcome]]:
        """What a slot comes to: one run, or none."""
        view = self.decide(tx, slot)
        pace = view.pace
        takes_digests = DIGEST_DESTINATION in self._settings.publishing.publishers
        if pace.tier is Tier.DORMANT:
            if not takes_digests:
                return []
        elif pace.cadence < view.history.runs_per_day:
            slots_per_day = self._settings.schedule.publish.per_day(slot)
            due, self._owed = cadence.thinned(self._owed, pace.cadence, slots_per_day)
            if not due:
                return []
        self._number += 1
        run = _Run(tx, self._settings, self._plan.seed, f"run{self._number}", pace.tier, slot)
        kind, outcome = run.see_through(takes_digests=takes_digests)
        if kind == journal.ARTICLE and outcome is RunOutcome.PUBLISHED:
            chance = Random(f"{self._plan.seed}/{slot.isoformat()}/readers")  # noqa: S311 - a draw
            counts = engagement(self._plan.audience, self._platforms, chance)
            self._posts.append(deque(counts))
        return [(kind, outcome)]

    def _collect(self, tx: Connection, at: datetime) -> MicroCredits:
        """Book the day's engagement, up to the cap; returns what is above it."""
        earning, earned = self._settings.earning, dict.fromkeys(self._platforms, ZERO)
        for counts in self._posts:
            for unit, count in counts.popleft().items():
                platform = unit.partition(".")[0]
                earned[platform] += earning.rates.get(unit, ZERO) * count
        self._posts = [counts for counts in self._posts if counts]
        forfeited = ZERO
        for platform, amount in sorted(earned.items()):
            room = earning.daily_cap - store.earned(tx, since=at - look.DAY, family="engagement")
            booked = min(amount, max(room, ZERO))
            forfeited += amount - booked
            if booked:
                posting.post(
                    tx,
                    id=f"engagement:{platform}:{at.isoformat()}",
                    at=at,
                    debit=TREASURY,
                    credit=f"engagement:{platform}",
                    amount=booked,
                    code=Code.ENGAGEMENT,
                )
        return forfeited


def platforms(settings: Settings) -> tuple[str, ...]:
    """Where readers are: the destinations that count them, or, where none is set, all of them."""
    named = tuple(p for p in PLATFORMS if p in settings.publishing.publishers)
    return named or PLATFORMS


def _moved(tx: Connection, family: str) -> MicroCredits:
    """What is booked on a family of accounts."""
    return sum(
        (a.balance for a in store.account_balances(tx) if a.name.startswith(family)), start=ZERO
    )


class _Run:
    """One run: its calls held, drawn and settled, under the limits of a real one."""

    def __init__(
        self, tx: Connection, settings: Settings, seed: int, id: str, tier: Tier, slot: datetime
    ) -> None:
        self._tx = tx
        self._settings = settings
        self._id = id
        self._tier = tier
        self._slot = slot
        self._requests: list[dict[str, Any]] = []
        self._chance = Random(f"{seed}/{slot.isoformat()}/run")  # noqa: S311 - a draw
        budget = settings.policy.run_budget
        ladders = estimate.eligible(settings.ladders, settings.prices, budget, slot)
        self._rungs = {role: ladder.from_tier(tier) for role, ladder in ladders.items()}
        self._shares = estimate.shares(self._rungs, settings.prices, budget, slot)

    def see_through(self, *, takes_digests: bool) -> tuple[str, RunOutcome]:
        """Open, work, publish and close; returns the kind of run it came to, and the outcome."""
        kind = journal.DIGEST if self._tier is Tier.DORMANT else journal.ARTICLE
        journal.open_run(
            self._tx, id=self._id, slot=self._slot, tier=self._tier, kind=kind, topic=None,
            budget_micro=self._settings.policy.run_budget.micro, at=self._slot,
        )  # fmt: skip
        outcome = RunOutcome.PUBLISHED
        if kind == journal.ARTICLE:
            outcome = self._article()
        if outcome is RunOutcome.SKIPPED and takes_digests:
            # No model was left before there was a draft: the ladder's last rung is the digest.
            kind, outcome = journal.DIGEST, RunOutcome.PUBLISHED
            journal.change_run(self._tx, self._id, kind=kind)
        if self._requests:
            # All at once: one by one they would take half of a simulation's time.
            self._tx.execute(_attempt.insert(), self._requests)
        journal.finish_run(self._tx, self._id, outcome=outcome, reason=None, at=self._slot)
        return kind, outcome

    def _article(self) -> RunOutcome:
        """Every call of every stage; `skipped` where research found no model to do it."""
        researched = 0
        for stage in estimate.stages(announces=self._settings.publishing.announces):
            for _ in range(stage.calls_at(self._tier)):
                answered = self._ask(stage)
                researched += answered and stage.role is Role.RESEARCH
                spared = stage.role is Role.RESEARCH or stage is estimate.ANNOUNCEMENT
                if not answered and not spared:
                    return RunOutcome.FAILED
            # One failing question does not sink a run, but without a plan there are none.
            if not researched:
                ends_in_digest = self._settings.ladders[Role.RESEARCH].ends_in_digest
                return RunOutcome.SKIPPED if ends_in_digest else RunOutcome.FAILED
        passed = self._chance.random() >= ABSTAINED_SHARE
        return RunOutcome.PUBLISHED if passed else RunOutcome.ABSTAINED

    def _ask(self, stage: Stage) -> bool:
        """One question, asked down the ladder; whether anybody answered."""
        return any(self._request(stage, rung) for rung in self._rungs[stage.role])

    def _request(self, stage: Stage, rung: Rung) -> bool:
        """One request: held, sent and settled as the meter does it; whether it was answered."""
        price = self._settings.prices.price(rung, self._slot)
        options = self._settings.model_options.get(rung, ModelOptions())
        output_max = options.output_tokens_max or stage.output_tokens_max
        usage, known, bytes_sent = self._drawn(stage, output_max)
        attempt = f"{self._id}.{len(self._requests) + 1}"
        hold = f"hold:{attempt}"
        purpose = Purpose(self._id, stage.role, stage.role, self._shares.get(stage.role))
        try:
            store.hold(
                self._tx,
                id=hold,
                account=f"inference:{rung.provider}",
                amount=price.worst_case(input_max=bytes_sent, output_max=output_max),
                at=self._slot,
                limits=limits(self._settings.policy, purpose, self._slot),
                run=self._id,
                attempt=attempt,
            )
        except NotAllowed:
            return False
        cost = price.cost(usage)
        if known:
            store.settle(self._tx, hold, actual=cost, at=self._slot)
        self._requests.append(
            {
                "id": attempt, "at": self._slot, "run": self._id, "step": stage.role,
                "role": stage.role, "provider": rung.provider, "model": rung.model, "hold": hold,
                "outcome": Outcome.OK if known else Outcome.UNKNOWN,
                "cost_micro": cost.micro if known else None,
                "price_input": price.input, "price_cached": price.cached,
                "price_output": price.output, "price_cache_write": price.cache_write,
                "price_source": price.source,
            }
        )  # fmt: skip
        return known

    def _drawn(self, stage: Stage, output_max: int) -> tuple[Usage, bool, int]:
        """What a request uses, whether its outcome is known, and the bytes it is held for."""
        factor_in, factor_out = (self._chance.lognormvariate(0, TOKENS_SIGMA) for _ in range(2))
        known = self._chance.random() >= UNKNOWN_SHARE
        tokens_in = min(round(stage.input_tokens * factor_in), stage.input_bytes_max)
        tokens_out = min(round(stage.output_tokens * factor_out), output_max)
        bytes_sent = min(round(tokens_in * BYTES_PER_TOKEN), stage.input_bytes_max)
        return Usage(tokens_in, 0, tokens_out), known, bytes_sent
