"""
Find out what became of everything whose outcome is not known.

Requests that may have been billed: the provider is asked for the cost of the answer, where it has
a name, then for what the key has used; what nobody can tell is charged in full in the end.
Publications: the destination is read. Nothing here is sent twice, and nothing is guessed in our
favour.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Count
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from daemon import journal
from daemon.books import Books
from daemon.clock import Clock
from daemon.inference import attempts, counters
from daemon.inference.billing import Billing, Counter, Unreadable
from daemon.inference.port import Endpoint, Outcome
from daemon.press import Press
from daemon.progress import Progress
from ledger import posting, store
from ledger.errors import InvalidAmount
from ledger.money import ZERO, MicroCredits
from ledger.posting import OpenHold
from ledger.rules import Code
from ledger.types import to_text

# A request younger than this may not be counted by the provider yet.
COUNTED_AFTER = timedelta(seconds=60)
# An expired charge is worth asking about for as long as a provider keeps single answers.
LOOK_BACK = timedelta(days=30)
# A key's counter that stands lower than before is behind, for so long; then it is another counter.
FALLS_FOR = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class HoldFound:
    """
    What became of one hold of unknown outcome.

    Args:
        state: `settled`, `voided`, `uncertain` (charged in full), `corrected`,
            `refused` (the books have no room for the correction), or `pending`.
        cost: what is booked for it now; None while it is held.
        why: in words, for a person.
    """

    id: str
    attempt: str | None
    held: MicroCredits
    state: str
    cost: MicroCredits | None
    why: str


@dataclass(frozen=True, slots=True)
class ProviderFound:
    """
    What a provider's counter said.

    Args:
        api: how it was asked; None where it cannot be.
        used: what the key has used since it was made.
        corrected: by how much the books were wrong; positive where the bill is higher.
        error: why it could not be read this time.
    """

    name: str
    api: str | None
    used: MicroCredits | None = None
    corrected: MicroCredits = ZERO
    note: str = ""
    error: str = ""


@dataclass(slots=True)
class Findings:
    """What `reconcile` came to."""

    holds: list[HoldFound] = field(default_factory=list)
    providers: list[ProviderFound] = field(default_factory=list)
    publications: list[Any] = field(default_factory=list)

    @property
    def unconfirmed(self) -> bool:
        """Whether anything is still not known."""
        return any(hold.state == "pending" for hold in self.holds) or any(
            row.state == journal.PublicationState.UNCONFIRMED for row in self.publications
        )

    @property
    def failed(self) -> bool:
        """Whether somebody who can be asked could not be."""
        return any(provider.error for provider in self.providers)


def note_interrupted(tx: Connection) -> None:
    """Requests that were under way when the process died may have been billed: say so."""
    for attempt in attempts.in_flight(tx):
        attempts.complete(
            tx,
            attempt.id,
            outcome=Outcome.UNKNOWN,
            error="the process ended during the request",
        )


def expire(
    tx: Connection, at: datetime, expiry: timedelta, *, account: str | None = None
) -> list[HoldFound]:
    """
    Charge in full every hold of unknown outcome that is as old as `expiry`.

    No request may be under way.
    """
    due = [
        hold
        for hold in posting.open_holds(tx)
        if hold.at + expiry <= at and account in (None, hold.account)
    ]
    why = f"not known {_hours(expiry)} later" if expiry else "not known when it was asked about"
    for hold in due:
        store.settle(tx, hold.id, actual=hold.amount, at=at, code=Code.UNCERTAIN, memo=why)
        _cost(tx, hold.attempt, hold.amount)
    return [
        HoldFound(hold.id, hold.attempt, hold.amount, "uncertain", hold.amount, "charged in full")
        for hold in due
    ]


class Reconciler:
    """
    Asks everybody who may know.

    No request may be under way: the process lock sees to that.

    Args:
        billing: the billing side of each provider, by name.
        expiry: age at which a hold is charged in full; zero means now, once all were asked.
    """

    def __init__(
        self,
        *,
        books: Books,
        clock: Clock,
        endpoints: Mapping[str, Endpoint],
        billing: Mapping[str, Billing],
        press: Press,
        expiry: timedelta,
        progress: Progress,
    ) -> None:
        self._books = books
        self._clock = clock
        self._endpoints = endpoints
        self._billing = billing
        self._press = press
        self._expiry = expiry
        self._progress = progress

    async def run(self) -> Findings:
        """Ask, and book what was learnt."""
        found = Findings()
        async with self._books.write() as tx:
            note_interrupted(tx)
        found.publications = await self._press.pursue()
        keys = Count(endpoint.key.reveal() for endpoint in self._endpoints.values())
        for name in self._billing:
            shared = keys[self._endpoints[name].key.reveal()] > 1
            found.providers.append(await self._provider(name, found, shared=shared))
        async with self._books.write() as tx:
            found.holds += expire(tx, self._clock.now(), self._expiry)
            found.holds += [self._still_held(hold) for hold in posting.open_holds(tx)]
        return found

    def _still_held(self, hold: OpenHold) -> HoldFound:
        until = to_text(hold.at + self._expiry)
        return HoldFound(
            hold.id, hold.attempt, hold.amount, "pending", None, f"charged in full at {until}"
        )

    async def _provider(self, name: str, found: Findings, *, shared: bool) -> ProviderFound:
        api = None
        try:
            unasked = await self._by_answer(name, found)
            counter = await self._billing[name].counter()
            if counter is None:
                cannot = self._cannot_be_asked(name)
                return replace(cannot, error=unasked or cannot.error)
            api = counter.api
            if shared:
                note = "its counter is not compared: several providers here have the same key"
                return ProviderFound(name, api, counter.used, note=note, error=unasked)
            if await self._until_counted(name):
                counter = await self._billing[name].counter() or counter
        except Unreadable as error:
            return ProviderFound(name, api, error=str(error))
        async with self._books.write() as tx:
            compared = self._compare(tx, name, counter, found)
        return replace(compared, error=unasked)

    def _cannot_be_asked(self, name: str) -> ProviderFound:
        with self._books.read() as tx:
            asked_before = counters.last(tx, name) is not None
        if asked_before:
            error = "its counter could be read before and cannot be now; is the key still good?"
            return ProviderFound(name, None, error=error)
        return ProviderFound(name, None, note="it cannot be asked what a key has used")

    async def _until_counted(self, name: str) -> bool:
        """Wait until the newest request must have been counted; whether there was need to."""
        with self._books.read() as tx:
            newest = attempts.newest(tx, name)
        if newest is None:
            return False
        ended = newest.at + timedelta(milliseconds=newest.duration_ms or 0)
        wait = (ended + COUNTED_AFTER - self._clock.now()).total_seconds()
        if wait <= 0:
            return False
        # A clock that was set back must not make this wait for ever.
        wait = min(wait, COUNTED_AFTER.total_seconds())
        self._progress.note(
            name, f"waiting {wait:.0f} s: the newest request may not be counted yet"
        )
        await self._clock.sleep(wait)
        return True

    async def _by_answer(self, name: str, found: Findings) -> str:
        """
        Ask for the cost of each answer that has a name and whose charge is not known.

        Returns why one could not be asked about, or nothing; the others are asked about all the
        same.
        """
        with self._books.read() as tx:
            held = attempts.unknown_open(tx)
            charged = attempts.charged_unknown(tx, since=self._clock.now() - LOOK_BACK)
        problem = ""
        for attempt in (*held, *charged):
            if attempt.provider != name or attempt.remote_id is None:
                continue
            try:
                cost = await self._billing[name].cost_of(attempt.remote_id)
            except Unreadable as error:
                problem = problem or str(error)
                continue
            if cost is not None:
                async with self._books.write() as tx:
                    # A person may have corrected it while the provider was asked.
                    found.holds += self._book_answer(tx, attempts.find(tx, attempt.id), cost)
        return problem

    def _book_answer(self, tx: Connection, attempt: Any, cost: MicroCredits) -> list[HoldFound]:
        now, settlement = self._clock.now(), f"{attempt.hold}:settle"
        known = store.entry(tx, settlement)
        why = f"the provider says what {attempt.remote_id} cost"
        if known is None:
            held = next(hold.amount for hold in posting.open_holds(tx) if hold.id == attempt.hold)
            store.settle(tx, attempt.hold, actual=cost, at=now, memo=why)
            state = "settled"
        else:
            held, state = known.amount, "corrected"
            shown = MicroCredits(attempt.cost_micro)
            back = shown - cost
            name = f"correction:{attempt.id}"
            if known.code != Code.UNCERTAIN or not back or store.entry(tx, name) is not None:
                return []
            try:
                store.correct(
                    tx, id=name, account=known.debit, amount=back, at=now, memo=why,
                    run=attempt.run, attempt=attempt.id, corrects=settlement,
                )  # fmt: skip
            except InvalidAmount as error:
                # A person gave of it back already, and took that back by another entry.
                why = f"{why}, {cost}, which is left to `penstock ledger adjust`: {error}"
                return [HoldFound(attempt.hold, attempt.id, held, "refused", shown, why)]
        _cost(tx, attempt.id, cost)
        return [HoldFound(attempt.hold, attempt.id, held, state, cost, why)]

    def _compare(
        self, tx: Connection, name: str, counter: Counter, found: Findings
    ) -> ProviderFound:
        """Book the difference between what the counter rose by and what was booked since."""
        now, used = self._clock.now(), counter.used
        mark = key_mark(self._endpoints[name])
        account = f"inference:{name}"
        last = counters.last(tx, name)
        rest, note = ZERO, ""
        is_new = last is None or last.key_mark != mark
        falls = last is not None and used.micro < last.used_micro
        if last is not None and not is_new and falls and now - last.at < FALLS_FOR:
            note = (
                f"it stands lower than {MicroCredits(last.used_micro)}, where it stood before;"
                f" it is compared once it is past that, and begun anew {FALLS_FOR.days} days after"
                " the last comparison"
            )
            return ProviderFound(name, counter.api, used, note=note)
        if last is None or is_new or falls:
            # The counter has what a hold of unknown outcome was billed, the books do not: were it
            # charged after this reading, the next comparison would give the charge back.
            found.holds += expire(tx, now, self._expiry, account=account)
            if any(hold.account == account for hold in posting.open_holds(tx)):
                note = "its counter is noted once no request from before is held any more"
                return ProviderFound(name, counter.api, used, note=note)
            note = "noted where its counter stands; the next comparison begins there"
            counters.begin(tx, name)
        else:
            booked = counters.booked(tx, name, account).micro - last.booked_micro
            difference = MicroCredits(used.micro - last.used_micro - booked)
            rest = self._share_out(tx, account, difference, found)
            if rest:
                store.correct(
                    tx, id=f"correction:{name}:{to_text(now)}", account=account, amount=-rest,
                    at=now, memo=f"the {counter.api} counter says {used} in all",
                )  # fmt: skip
        counters.keep(
            tx, name, key_mark=mark, at=now, used_micro=used.micro,
            booked_micro=counters.booked(tx, name, account).micro,
        )  # fmt: skip
        return ProviderFound(name, counter.api, used, rest, note)

    def _share_out(
        self, tx: Connection, account: str, difference: MicroCredits, found: Findings
    ) -> MicroCredits:
        """
        End the holds of unknown outcome by what the counter rose beyond the books.

        Which of several was billed how much nobody can tell; the oldest come first, and the sum
        is right. Returns what no hold explains.
        """
        now, rest = self._clock.now(), difference
        for hold in posting.open_holds(tx):
            if hold.account != account:
                continue
            share = min(max(rest, ZERO), hold.amount)
            if share:
                why = "the provider's counter rose by as much"
                store.settle(tx, hold.id, actual=share, at=now, memo=why)
            else:
                why = "the provider's counter did not rise for it"
                store.void(tx, hold.id, at=now, memo=why)
            _cost(tx, hold.attempt, share)
            state = "settled" if share else "voided"
            found.holds.append(HoldFound(hold.id, hold.attempt, hold.amount, state, share, why))
            rest -= share
        return rest


def key_mark(endpoint: Endpoint) -> str:
    """Tells one key at one place from another, and cannot be turned back into it."""
    whole = f"{endpoint.url}\n{endpoint.key.reveal()}"
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _cost(tx: Connection, attempt: str | None, cost: MicroCredits) -> None:
    if attempt is not None:
        attempts.complete(tx, attempt, cost_micro=cost.micro)


def _hours(expiry: timedelta) -> str:
    hours = expiry // timedelta(hours=1)
    return f"{hours} hour{'' if hours == 1 else 's'}"
