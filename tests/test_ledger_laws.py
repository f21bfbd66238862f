"""
What holds after any sequence of deposits, refunds, income, holds, settlements, voids, expiries,
corrections, adjustments, repeats, restarts and callers all at once.

Beside the real books on a real file runs a model a child could keep: a list of what came in, and
a dictionary of holds. Hypothesis looks for the sequence after which the two differ.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text

from ledger import audit, posting, store
from ledger.database import Database, create_schema
from ledger.errors import (
    AlreadyResolved,
    CapReached,
    InsufficientFunds,
    InvalidAmount,
    RefReused,
    UnknownEntry,
    UnknownHold,
)
from ledger.money import MicroCredits
from ledger.rules import AccountKind, Code
from tests.ledger_helpers import MODEL, NOON, after, ledger_metadata, open_book, race

OTHER = "inference:anthropic"
RUNS = ("r", "s")

# Small numbers, so that limits are met exactly and ids are met again.
positive = st.integers(1, 20)
amounts = st.integers(0, 20)
times = st.integers(-50, 50).map(after)
accounts = st.sampled_from((MODEL, OTHER))
runs = st.sampled_from(RUNS)
# Less than was held, exactly that, and above.
changes = st.integers(-20, 20).filter(bool)
deltas = st.just(0) | st.integers(-20, 10)


@dataclass
class Change:
    """A correction or adjustment: what the treasury got, negative where it gave."""

    amount: int
    account: str
    at: datetime
    run: str | None = None
    corrects: str | None = None


@dataclass
class Held:
    """One hold as the model knows it; `paid` is what ended it, None while it is open."""

    amount: int
    account: str
    run: str | None
    at: datetime
    paid: int | None = None
    voided: bool = False
    expired: bool = False
    ended_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.paid is None

    @property
    def state(self) -> str:
        if self.open:
            return "pending"
        return "voided" if self.voided else "settled"

    def counts(self, since: datetime | None) -> int:
        """What a cap counts of it: the hold at its own time while open, then what was paid."""
        at = self.at if self.paid is None else self.ended_at
        assert at is not None
        if since is not None and at <= since:
            return 0
        return self.amount if self.paid is None else self.paid


class Books(RuleBasedStateMachine):
    """The real books and the model, side by side."""

    deposited: Bundle[tuple[str, str | None, int]] = Bundle("deposited")
    open_holds: Bundle[str] = Bundle("open_holds")
    ended_holds: Bundle[str] = Bundle("ended_holds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-laws-"))
        self.book: Database = open_book(self.folder / "books.db")
        # Negative where it went back.
        self.income: dict[tuple[str, str | None], int] = {}
        self.income_at: dict[tuple[str, str | None], datetime] = {}
        # Of readers: how much, and when.
        self.earned: dict[str, tuple[int, datetime]] = {}
        self.holds: dict[str, Held] = {}
        self.changes: dict[str, Change] = {}
        self.named = 0

    @initialize(grant=st.integers(0, 60))
    def begin(self, grant: int) -> None:
        with self.book.write() as tx:
            create_schema(tx, ledger_metadata())
            if grant:
                store.deposit(tx, amount=MicroCredits(grant), ref="grant", at=after(0))
                self.income["grant", None] = grant

    @property
    def posted(self) -> int:
        paid = sum(hold.paid or 0 for hold in self.holds.values())
        came = sum(self.income.values()) + sum(micro for micro, _ in self.earned.values())
        return came - paid + sum(c.amount for c in self.changes.values())

    def spent(self, *, run: str | None = None, since: datetime | None = None) -> int:
        """What a cap counts: of corrections, a window sees only those that took."""
        held = sum(h.counts(since) for h in self.holds.values() if run in (None, h.run))
        changed = [c for c in self.changes.values() if c.account in (MODEL, OTHER)]
        if run is not None:
            return held - sum(c.amount for c in changed if c.run == run)
        return held - sum(min(c.amount, 0) for c in changed if since is None or c.at > since)

    @property
    def pending(self) -> int:
        return sum(hold.amount for hold in self.holds.values() if hold.open)

    @rule(
        target=deposited,
        ref=st.sampled_from("abc"),
        source=st.sampled_from((None, "kofi")),
        amount=positive,
        at=times,
    )
    def deposit(
        self, ref: str, source: str | None, amount: int, at: datetime
    ) -> tuple[str, str | None, int] | MultipleResults[tuple[str, str | None, int]]:
        known = self.income.get((ref, source))
        if known is None or known == amount:
            with self.book.write() as tx:
                new = store.deposit(tx, amount=MicroCredits(amount), ref=ref, at=at, source=source)
            assert new is (known is None)
            self.income[ref, source] = amount
            self.income_at.setdefault((ref, source), at)
        else:
            with pytest.raises(RefReused), self.book.write() as tx:
                store.deposit(tx, amount=MicroCredits(amount), ref=ref, at=at, source=source)
        if self.income[ref, source] < 0:
            return multiple()
        return ref, source, self.income[ref, source]

    @rule(ref=st.sampled_from("abc"), amount=positive, at=times)
    def refund(self, ref: str, amount: int, at: datetime) -> None:
        known = self.income.get((ref, "kofi"))

        def offer() -> bool:
            with self.book.write() as tx:
                return store.refund(tx, amount=MicroCredits(amount), ref=ref, at=at, source="kofi")

        if known is not None and known != -amount:
            with pytest.raises(RefReused):
                offer()
            return
        assert offer() is (known is None)
        assert offer() is False
        self.income[ref, "kofi"] = -amount
        self.income_at.setdefault((ref, "kofi"), at)

    @rule(
        ref=st.sampled_from("uvwxyz"),
        platform=st.sampled_from(("devto", "bluesky")),
        amount=positive,
        cap=st.integers(0, 40),
        since=times,
        at=times,
    )
    def earn(
        self, ref: str, platform: str, amount: int, cap: int, since: datetime, at: datetime
    ) -> None:
        name = f"engagement:{platform}:{ref}"
        known = self.earned.get(name)

        def offer() -> int:
            with self.book.write() as tx:
                return store.earn(
                    tx, id=name, platform=platform, amount=MicroCredits(amount),
                    cap=MicroCredits(cap), since=since, at=at,
                ).micro  # fmt: skip

        if known is not None and known[0] > amount:
            with pytest.raises(RefReused):
                offer()
            return
        room = cap - sum(micro for micro, then in self.earned.values() if then > since)
        expected = known[0] if known is not None else min(amount, max(room, 0))
        assert offer() == expected
        if expected:
            assert offer() == expected
            self.earned.setdefault(name, (expected, at))

    @rule(offer=deposited, at=times)
    def deposit_again(self, offer: tuple[str, str | None, int], at: datetime) -> None:
        ref, source, amount = offer
        with self.book.write() as tx:
            again = store.deposit(tx, amount=MicroCredits(amount), ref=ref, at=at, source=source)
        assert again is False

    @rule(
        target=open_holds,
        amount=amounts,
        account=accounts,
        run=runs,
        at=times,
        reserve=st.integers(0, 15),
        run_cap=st.none() | st.integers(0, 40),
        window_cap=st.none() | st.tuples(st.integers(0, 40), times),
    )
    def hold(
        self,
        amount: int,
        account: str,
        run: str,
        at: datetime,
        reserve: int,
        run_cap: int | None,
        window_cap: tuple[int, datetime] | None,
    ) -> str | MultipleResults[str]:
        name = self._name()
        caps = []
        room = []
        if run_cap is not None:
            caps.append(store.Cap("run", MicroCredits(run_cap), run=run))
            room.append(run_cap - self.spent(run=run))
        if window_cap is not None:
            cap, since = window_cap
            caps.append(store.Cap("window", MicroCredits(cap), since=since))
            room.append(cap - self.spent(since=since))
        limits = store.Limits(reserve=MicroCredits(reserve), caps=caps)
        refusal: type[Exception] | None = None
        if amount and self.posted - self.pending - reserve < amount:
            refusal = InsufficientFunds
        elif amount and any(left < amount for left in room):
            refusal = CapReached
        if refusal is not None:
            with pytest.raises(refusal), self.book.write() as tx:
                self._offer(tx, name, Held(amount, account, run, at), limits)
            return multiple()
        with self.book.write() as tx:
            assert self._offer(tx, name, Held(amount, account, run, at), limits) is True
            left = store.balance(tx).available
        self.holds[name] = Held(amount, account, run, at)
        assert not amount or left >= MicroCredits(reserve)
        return name

    def _name(self) -> str:
        self.named += 1
        return f"hold-{self.named}"

    def _offer(self, tx: Connection, id: str, hold: Held, limits: store.Limits) -> bool:
        return store.hold(
            tx,
            id=id,
            account=hold.account,
            amount=MicroCredits(hold.amount),
            at=hold.at,
            limits=limits,
            run=hold.run,
        )

    @rule(target=open_holds, callers=st.integers(2, 5), amount=positive)
    def hold_all_at_once(self, callers: int, amount: int) -> MultipleResults[str]:
        names = [self._name() for _ in range(callers)]
        room = max(0, self.posted - self.pending) // amount
        outcomes = race(self.book, names, str(MicroCredits(amount)))
        held = [attempt.id for attempt in outcomes if attempt.outcome == "held"]
        assert {attempt.outcome for attempt in outcomes} <= {"held", "refused"}
        assert len(held) == min(callers, room)
        for name in held:
            self.holds[name] = Held(amount, MODEL, None, NOON)
        return multiple(*held)

    @rule(id=st.one_of(open_holds, ended_holds))
    def hold_again(self, id: str) -> None:
        tight = store.Limits(reserve=MicroCredits(10**9))
        with self.book.write() as tx:
            assert self._offer(tx, id, self.holds[id], tight) is False

    @rule(id=st.one_of(open_holds, ended_holds), amount=amounts, run=runs)
    def hold_another_under_the_same_id(self, id: str, amount: int, run: str) -> None:
        hold = self.holds[id]
        other = Held(amount, hold.account, run, hold.at)
        if (amount, run) == (hold.amount, hold.run):
            return
        with pytest.raises(RefReused), self.book.write() as tx:
            self._offer(tx, id, other, store.Limits())

    @rule(target=ended_holds, id=consumes(open_holds), delta=deltas, at=times)
    def settle(self, id: str, delta: int, at: datetime) -> str:
        hold = self.holds[id]
        actual = max(0, hold.amount + delta)
        with self.book.write() as tx:
            overrun = store.settle(tx, id, actual=MicroCredits(actual), at=at)
        assert overrun.micro == max(0, actual - hold.amount)
        hold.paid, hold.ended_at = actual, at
        return id

    @rule(target=ended_holds, id=consumes(open_holds), at=times)
    def expire(self, id: str, at: datetime) -> str:
        hold = self.holds[id]
        with self.book.write() as tx:
            overrun = store.settle(
                tx, id, actual=MicroCredits(hold.amount), at=at, code=Code.UNCERTAIN
            )
        assert not overrun
        hold.paid, hold.expired, hold.ended_at = hold.amount, True, at
        return id

    @rule(ref=st.sampled_from("xyz"), amount=changes, at=times)
    def adjust(self, ref: str, amount: int, at: datetime) -> None:
        known = self.changes.get(f"adjustment:{ref}")
        available = self.posted - self.pending
        refusal: type[Exception] | None = None
        if known is not None and known.amount != amount:
            refusal = RefReused
        elif known is None and available + amount < min(available, 0):
            refusal = InsufficientFunds
        if refusal is not None:
            with pytest.raises(refusal), self.book.write() as tx:
                store.adjust(tx, amount=MicroCredits(amount), ref=ref, memo="m", at=at)
            return
        with self.book.write() as tx:
            new = store.adjust(tx, amount=MicroCredits(amount), ref=ref, memo="m", at=at)
        assert new is (known is None)
        self.changes.setdefault(f"adjustment:{ref}", Change(amount, "adjustments", at))

    @rule(id=ended_holds, amount=changes, at=times)
    def correct(self, id: str, amount: int, at: datetime) -> None:
        hold, name = self.holds[id], f"correction-{len(self.changes)}"
        settled = f"{id}:settle"
        mended = sum(c.amount for c in self.changes.values() if c.corrects == settled)
        booked = min(hold.paid or 0, hold.amount)

        def offer() -> bool:
            with self.book.write() as tx:
                return store.correct(
                    tx, id=name, account=hold.account, amount=MicroCredits(amount), at=at,
                    memo="m", run=hold.run, corrects=settled,
                )  # fmt: skip

        if hold.voided or booked - mended < amount:
            with pytest.raises(UnknownEntry if hold.voided else InvalidAmount):
                offer()
            return
        assert offer() is True
        assert offer() is False
        self.changes[name] = Change(amount, hold.account, at, hold.run, settled)

    @rule(target=ended_holds, id=consumes(open_holds), at=times)
    def void(self, id: str, at: datetime) -> str:
        with self.book.write() as tx:
            store.void(tx, id, at=at)
        hold = self.holds[id]
        hold.paid, hold.voided, hold.ended_at = 0, True, at
        return id

    @rule(id=ended_holds, delta=deltas, at=times)
    def settle_again(self, id: str, delta: int, at: datetime) -> None:
        hold = self.holds[id]
        paid = hold.paid
        assert paid is not None
        actual = max(0, paid + delta)
        if hold.voided or actual != paid:
            with pytest.raises(AlreadyResolved), self.book.write() as tx:
                store.settle(tx, id, actual=MicroCredits(actual), at=at)
            return
        with self.book.write() as tx:
            overrun = store.settle(tx, id, actual=MicroCredits(actual), at=at)
        assert overrun.micro == max(0, paid - hold.amount)

    @rule(id=ended_holds, at=times)
    def void_again(self, id: str, at: datetime) -> None:
        if self.holds[id].voided:
            with self.book.write() as tx:
                store.void(tx, id, at=at)
        else:
            with pytest.raises(AlreadyResolved), self.book.write() as tx:
                store.void(tx, id, at=at)

    @rule(at=times)
    def end_a_hold_nobody_made(self, at: datetime) -> None:
        with pytest.raises(UnknownHold), self.book.write() as tx:
            store.settle(tx, "nobody", actual=MicroCredits(1), at=at)
        with pytest.raises(UnknownHold), self.book.write() as tx:
            store.void(tx, "nobody", at=at)

    @rule(id=open_holds, delta=deltas, at=times)
    def be_killed_before_the_commit(self, id: str, delta: int, at: datetime) -> None:
        actual = MicroCredits(max(0, self.holds[id].amount + delta))
        with pytest.raises(KeyboardInterrupt), self.book.write() as tx:
            store.deposit(tx, amount=MicroCredits(7), ref="lost", at=at)
            store.settle(tx, id, actual=actual, at=at)
            raise KeyboardInterrupt

    @rule()
    def reopen(self) -> None:
        self.book.close()
        self.book = open_book(self.folder / "books.db")

    # One invariant in one snapshot: half the time, and a failing sequence prints readably.
    @invariant()
    def the_laws_hold(self) -> None:
        with self.book.read() as tx:
            assert audit.check(tx).problems == []
            self._the_treasury_is_what_the_model_says(tx)
            self._the_entries_sum_to_the_balances(tx)
            self._every_hold_ended_at_most_once(tx)
            self._caps_count_what_the_model_counts(tx)
            self._revenue_is_what_came_less_what_went_back(tx)
            self._engagement_is_what_readers_brought(tx)

    def _the_treasury_is_what_the_model_says(self, tx: Connection) -> None:
        balance = store.balance(tx)
        assert balance.posted.micro == self.posted
        assert balance.held.micro == self.pending
        assert balance.available.micro == self.posted - self.pending
        overruns = sum(max(0, (h.paid or 0) - h.amount) for h in self.holds.values())
        taken = sum(-min(c.amount, 0) for c in self.changes.values())
        taken += sum(-min(amount, 0) for amount in self.income.values())
        assert balance.available.micro >= -overruns - taken
        assert {hold.id for hold in posting.open_holds(tx)} == {
            name for name, hold in self.holds.items() if hold.open
        }

    def _the_entries_sum_to_the_balances(self, tx: Connection) -> None:
        debits: Counter[str] = Counter()
        pending = 0
        for entry in store.entries(tx):
            if entry.state == "posted":
                debits[entry.debit] += entry.amount.micro
                debits[entry.credit] -= entry.amount.micro
            elif entry.state == "pending":
                pending += entry.amount.micro
        assert pending == store.balance(tx).held.micro
        assert sum(debits.values()) == 0
        for account in store.account_balances(tx):
            on_debit_side = account.kind in (AccountKind.ASSET, AccountKind.EXPENSE)
            sign = 1 if on_debit_side else -1
            assert account.balance.micro == sign * debits.pop(account.name, 0)
        assert not any(debits.values())

    def _every_hold_ended_at_most_once(self, tx: Connection) -> None:
        states = {entry.id: entry.state for entry in store.entries(tx) if entry.id in self.holds}
        assert states == {name: hold.state for name, hold in self.holds.items()}
        ends = tx.execute(text("SELECT hold_id FROM transfer WHERE hold_id IS NOT NULL")).scalars()
        assert Counter(ends) == Counter(n for n, hold in self.holds.items() if not hold.open)

    def _caps_count_what_the_model_counts(self, tx: Connection) -> None:
        for run in RUNS:
            assert store.spent(tx, run=run).micro == self.spent(run=run)
        for since in (after(-25), after(25)):
            assert store.spent(tx, since=since).micro == self.spent(since=since)

    def _revenue_is_what_came_less_what_went_back(self, tx: Connection) -> None:
        for since in (after(-1000), after(-25), after(25)):
            earned = sum(
                amount
                for (ref, source), amount in self.income.items()
                if source is not None and self.income_at[ref, source] > since
            )
            assert store.earned(tx, since=since, family="revenue").micro == earned

    def _engagement_is_what_readers_brought(self, tx: Connection) -> None:
        for since in (after(-1000), after(-25), after(25)):
            earned = sum(micro for micro, at in self.earned.values() if at > since)
            assert store.earned(tx, since=since, family="engagement").micro == earned
            assert store.credited_since(tx, since).micro == earned

    def teardown(self) -> None:
        self.book.close()
        shutil.rmtree(self.folder)


def test_the_laws_of_the_books_hold_after_any_sequence() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            # One broken law at a time, or shrinking takes minutes: every step is a durable commit.
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
