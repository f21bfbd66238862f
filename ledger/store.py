"""
The verbs of the books: deposit, refund, earn, hold, settle, void, adjust, correct, and the
readings.

Each verb takes the open transaction, so that what money paid for can be stored in the same
commit. Ids are made by the caller before the call; offering one again with the same content
changes nothing and answers `False`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from ledger import posting
from ledger.errors import (
    AlreadyResolved,
    CapReached,
    InsufficientFunds,
    InvalidAmount,
    UnknownAccount,
    UnknownEntry,
    UnknownHold,
)
from ledger.money import MICRO_MAX, ZERO, MicroCredits
from ledger.posting import Transfer, accounts, transfers
from ledger.rules import (
    ADJUSTMENTS,
    GRANTS,
    TREASURY,
    AccountKind,
    Action,
    Balance,
    Code,
    Totals,
    kind_of,
)
from ledger.statements import Statement, number
from ledger.types import from_text, to_text


@dataclass(frozen=True, slots=True)
class Cap:
    """
    At most `amount` spent by one run, or since a moment; open holds count.

    Exactly one of `run` and `since` is given.
    """

    name: str
    amount: MicroCredits
    run: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if (self.run is None) == (self.since is None):
            raise ValueError("a cap is on one run or since one moment")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a hold may not pass, checked in its own transaction."""

    reserve: MicroCredits = ZERO
    caps: Sequence[Cap] = ()


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """One account as `ledger balance` shows it; positive on the kind's normal side."""

    name: str
    kind: AccountKind
    balance: MicroCredits


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as operators read it; `state` is posted, pending, settled or voided."""

    id: str
    at: datetime
    state: str
    debit: str
    credit: str
    amount: MicroCredits
    code: str
    run: str | None
    attempt: str | None
    ref: str | None
    memo: str | None
    corrects: str | None


def deposit(
    tx: Connection,
    *,
    amount: MicroCredits,
    ref: str,
    at: datetime,
    source: str | None = None,
    memo: str | None = None,
) -> bool:
    """
    Book money that came in, once per (source, ref).

    Without a source it is the operator's own (`grants`); with one it is `revenue:<source>`.

    Returns:
        False when this very deposit was booked before.
    Raises:
        InvalidAmount: not positive, or beyond a billion credits.
        RefReused: the ref stands for another amount.
    """
    if not ZERO < amount <= MicroCredits(MICRO_MAX):
        raise InvalidAmount(f"a deposit must be positive and at most a billion, not {amount}")
    return posting.post(
        tx,
        id=f"deposit:{ref}" if source is None else f"revenue:{source}:{ref}",
        at=at,
        debit=TREASURY,
        credit=GRANTS if source is None else f"revenue:{source}",
        amount=amount,
        code=Code.DEPOSIT if source is None else Code.REVENUE,
        ref=ref,
        memo=memo,
    )


def refund(
    tx: Connection,
    *,
    amount: MicroCredits,
    ref: str,
    at: datetime,
    source: str,
    memo: str | None = None,
) -> bool:
    """
    Book revenue that went back, once per (source, ref): a refund, a dispute, a fee.

    The ref is one among those of the source's deposits. The money is gone, so nothing can refuse
    it: what is available may fall below zero, and every further hold is refused until more comes
    in.

    Args:
        amount: what went back, positive.
    Returns:
        False when this very refund was booked before.
    Raises:
        InvalidAmount: not positive, or beyond a billion credits.
        RefReused: the ref stands for another amount, or for a deposit.
    """
    if not ZERO < amount <= MicroCredits(MICRO_MAX):
        raise InvalidAmount(f"a refund must be positive and at most a billion, not {amount}")
    return posting.post(
        tx,
        id=f"revenue:{source}:{ref}",
        at=at,
        debit=f"revenue:{source}",
        credit=TREASURY,
        amount=amount,
        code=Code.REVENUE,
        ref=ref,
        memo=memo,
    )


def earn(
    tx: Connection,
    *,
    id: str,
    platform: str,
    amount: MicroCredits,
    cap: MicroCredits,
    since: datetime,
    at: datetime,
    run: str | None = None,
    ref: str | None = None,
    memo: str | None = None,
) -> MicroCredits:
    """
    Book what readers were worth, as far as a cap on all platforms leaves room, once per id.

    Args:
        cap: what engagement is credited with since a moment at most; see `credited_since`.
    Returns:
        What this id is credited with, now or by an earlier call; zero where there is no room, and
        then nothing is booked.
    Raises:
        InvalidAmount: not positive, or beyond a billion credits.
        RefReused: the id stands for another transfer, or for more than is offered now.
        UnknownAccount: no platform can be called so.
    """
    if not ZERO < amount <= MicroCredits(MICRO_MAX):
        raise InvalidAmount(f"income must be positive and at most a billion, not {amount}")
    known = posting.find(tx, id)
    if known is not None:
        credited = min(amount, MicroCredits(known.amount_micro))
    else:
        credited = min(amount, max(cap - credited_since(tx, since), ZERO))
    row = posting.new_row(
        id=id, at=at, action=Action.POST, debit=TREASURY, credit=f"engagement:{platform}",
        amount=credited, code=Code.ENGAGEMENT, run=run, ref=ref, memo=memo,
    )  # fmt: skip
    if credited and not posting.exists(tx, row):
        posting.append(tx, row)
    return credited


def hold(
    tx: Connection,
    *,
    id: str,
    account: str,
    amount: MicroCredits,
    at: datetime,
    limits: Limits,
    run: str | None = None,
    attempt: str | None = None,
) -> bool:
    """
    Reserve treasury money for `account`, or refuse. A hold of zero always passes.

    Returns:
        False when the same hold was made before.
    Raises:
        InsufficientFunds: available less the reserve does not cover it.
        CapReached: it would pass a cap.
        InvalidAmount: negative, or beyond a billion credits.
        UnknownAccount: not an expense; only spending is held for.
        RefReused: the id stands for another transfer.
    """
    if kind_of(account) is not AccountKind.EXPENSE:
        raise UnknownAccount(f"{account} is no expense that money could be held for")
    if amount < ZERO or amount.micro > MICRO_MAX:
        raise InvalidAmount(f"a hold cannot be {amount}")
    row = posting.new_row(
        id=id,
        at=at,
        action=Action.HOLD,
        debit=account,
        credit=TREASURY,
        amount=amount,
        code=Code.INFERENCE,
        run=run,
        attempt=attempt,
    )
    if posting.exists(tx, row):
        return False
    if amount:
        _check_limits(tx, amount, limits)
    posting.append(tx, row)
    return True


def settle(
    tx: Connection,
    hold_id: str,
    *,
    actual: MicroCredits,
    at: datetime,
    code: Code = Code.INFERENCE,
    memo: str | None = None,
) -> MicroCredits:
    """
    End a hold with what was really used; the rest becomes available again.

    More than was held is booked all the same, the part above as `overrun`: the bill is the
    truth, even where it passes the balance.

    Returns:
        The overrun, zero in the normal case.
    Raises:
        UnknownHold: no such hold.
        AlreadyResolved: it ended before, with another result.
        InvalidAmount: a negative cost.
    """
    if actual < ZERO or actual.micro > MICRO_MAX:
        raise InvalidAmount(f"a cost cannot be {actual}")
    held = posting.open_hold(tx, hold_id)
    if held is None:
        return max(actual - _ended_before(tx, hold_id, Action.SETTLE, actual), ZERO)
    overrun = max(actual - held.amount, ZERO)
    posting.end(tx, held, Action.SETTLE, actual - overrun, at, code, memo)
    if overrun:
        posting.append(
            tx,
            posting.new_row(
                id=f"{hold_id}:overrun",
                at=at,
                action=Action.POST,
                debit=held.account,
                credit=TREASURY,
                amount=overrun,
                code=Code.OVERRUN,
                run=held.run,
                attempt=held.attempt,
                ref=hold_id,
            ),
        )
    return overrun


def void(tx: Connection, hold_id: str, *, at: datetime, memo: str | None = None) -> None:
    """
    End a hold for which nothing is owed.

    Raises:
        UnknownHold: no such hold.
        AlreadyResolved: it was settled before.
    """
    held = posting.open_hold(tx, hold_id)
    if held is None:
        _ended_before(tx, hold_id, Action.VOID, ZERO)
    else:
        posting.end(tx, held, Action.VOID, ZERO, at, Code.INFERENCE, memo)


def adjust(
    tx: Connection,
    *,
    amount: MicroCredits,
    ref: str,
    memo: str,
    at: datetime,
    corrects: str | None = None,
) -> bool:
    """
    Book what a person knows better, once per ref: the treasury changes by `amount`.

    Args:
        amount: positive gives credits, negative takes them.
        corrects: the posted entry that was wrong; the other side is then that entry's own
            account, so that it shows the truth, else `adjustments`.
    Returns:
        False when this very adjustment was booked before.
    Raises:
        InvalidAmount: zero, beyond a billion credits, or more than the entry had moved.
        RefReused: the ref stands for another adjustment.
        UnknownEntry: no posted entry of that id.
        InsufficientFunds: it takes more than is available and corrects no entry.
    """
    if not amount or abs(amount.micro) > MICRO_MAX:
        raise InvalidAmount(f"an adjustment cannot be {amount}")
    wrong = None if corrects is None else _posted_entry(tx, corrects)
    row = posting.signed(
        id=f"adjustment:{ref}",
        other=ADJUSTMENTS if wrong is None else _other_side(wrong),
        amount=amount,
        code=Code.ADJUSTMENT,
        at=at,
        ref=ref,
        memo=memo,
        run=None if wrong is None else wrong.run,
        attempt=None if wrong is None else wrong.attempt,
        corrects=corrects,
    )
    if posting.exists(tx, row):
        return False
    if wrong is not None:
        _check_not_below_nothing(tx, wrong, amount)
    elif (available := balance(tx).available) + amount < min(available, ZERO):
        raise InsufficientFunds("the balance", -amount, max(available, ZERO))
    posting.append(tx, row)
    return True


def correct(
    tx: Connection,
    *,
    id: str,
    account: str,
    amount: MicroCredits,
    at: datetime,
    memo: str,
    run: str | None = None,
    attempt: str | None = None,
    corrects: str | None = None,
) -> bool:
    """
    Book by how much a provider's bill and the books differ; the bill is the truth.

    Args:
        account: the expense in question.
        amount: what the treasury gets back; negative where more was billed than booked.
    Returns:
        False when this very correction was booked before.
    Raises:
        InvalidAmount: zero, beyond a billion credits, or more than the entry had moved.
        RefReused: the id stands for another transfer.
        UnknownEntry: no posted entry of that id.
    """
    if not amount or abs(amount.micro) > MICRO_MAX:
        raise InvalidAmount(f"a correction cannot be {amount}")
    row = posting.signed(
        id=id, other=account, amount=amount, code=Code.CORRECTION, at=at, memo=memo,
        run=run, attempt=attempt, corrects=corrects,
    )  # fmt: skip
    if posting.exists(tx, row):
        return False
    if corrects is not None:
        _check_not_below_nothing(tx, _posted_entry(tx, corrects), amount)
    posting.append(tx, row)
    return True


def balance(tx: Connection) -> Balance:
    """The treasury: one row, however long the history."""
    totals = _totals(tx, TREASURY)
    return Balance(
        posted=totals.balance(AccountKind.ASSET), held=MicroCredits(totals.credits_pending)
    )


def account_balances(tx: Connection) -> list[AccountBalance]:
    """Every account that was ever used, by name."""
    rows = tx.execute(select(accounts).order_by(accounts.c.name))
    return [
        AccountBalance(
            row.name, AccountKind(row.kind), posting.totals(row).balance(AccountKind(row.kind))
        )
        for row in rows
    ]


def account_balance(tx: Connection, account: str) -> MicroCredits:
    """
    One account's posted balance, positive on its kind's normal side; zero before its first use.

    Raises:
        UnknownAccount: no account can be called so.
    """
    return _totals(tx, account).balance(kind_of(account))


_LAST_SEQ = number(text("SELECT COALESCE(MAX(seq), 0) FROM transfer"))
# A correction may correct another; what it goes back to counts.
_CORRECTED = number(
    text(
        """
WITH RECURSIVE correction (id, debit, credit, amount_micro) AS (
    SELECT c.id, c.debit, c.credit, c.amount_micro FROM transfer AS c
    JOIN transfer AS entry ON entry.id = c.corrects
    WHERE c.corrects IS NOT NULL AND entry.seq > :after AND entry.seq <= :until
    UNION
    SELECT c.id, c.debit, c.credit, c.amount_micro FROM transfer AS c
    JOIN correction ON c.corrects = correction.id
)
SELECT COALESCE(SUM(CASE WHEN debit = :account THEN amount_micro ELSE -amount_micro END), 0)
FROM correction WHERE debit = :account OR credit = :account
"""
    )
)


def last_seq(tx: Connection) -> int:
    """The number of the journal's last row; 0 before the first."""
    return _LAST_SEQ.one(tx) or 0


def corrected(tx: Connection, account: str, *, after: int, until: int) -> MicroCredits:
    """
    By how much corrections of some rows of the journal, whenever booked, moved an account.

    Args:
        account: an expense, so that what the treasury got back is negative.
        after: the number of the row before the first of them.
        until: the number of the last of them.
    """
    moved = _CORRECTED.one(tx, account=account, after=after, until=until)
    return MicroCredits(moved or 0)


def entry(tx: Connection, id: str) -> Entry | None:
    """One posted entry; None where there is none of that id."""
    row = posting.find(tx, id)
    if row is None or row.action not in (Action.POST, Action.SETTLE):
        return None
    return _as_entry(row, from_text(row.at), None)


# Whole hours come from `account_hour`; only the hour in which the window begins is read row by row.
_SPENT_SINCE = number(
    text(
        """
SELECT (SELECT COALESCE(SUM(debits_micro), 0) FROM account_hour
        WHERE hour > :hour AND account >= 'inference:' AND account < 'inference;')
     + (SELECT COALESCE(SUM(amount_micro), 0) FROM transfer
        WHERE at > :since AND at < :next AND action IN ('post', 'settle')
        AND debit >= 'inference:' AND debit < 'inference;')
     + (SELECT COALESCE(SUM(amount_micro), 0) FROM open_hold WHERE at > :since)
"""
    )
)
_SPENT_BY_RUN = number(
    text(
        """
SELECT (SELECT COALESCE(SUM(CASE WHEN credit = 'treasury' THEN amount_micro
                                 ELSE -amount_micro END), 0)
        FROM transfer WHERE run = :run AND action IN ('post', 'settle')
        AND ((debit >= 'inference:' AND debit < 'inference;')
             OR (credit >= 'inference:' AND credit < 'inference;')))
     + (SELECT COALESCE(SUM(amount_micro), 0) FROM open_hold WHERE run = :run)
"""
    )
)


_EARNED_BY_RUN = Statement(
    text(
        """
SELECT run, SUM(CASE WHEN debit = 'treasury' THEN amount_micro ELSE -amount_micro END)
FROM transfer WHERE run IS NOT NULL AND action = 'post'
AND (code IN ('engagement', 'revenue')
     OR (debit >= 'engagement:' AND debit < 'engagement;')
     OR (debit >= 'revenue:' AND debit < 'revenue;'))
GROUP BY run
"""
    ),
    tuple,
)
_DEPOSITED_SINCE = number(
    text(
        """
SELECT CASE WHEN EXISTS (SELECT 1 FROM transfer WHERE at > :since AND code = 'deposit')
THEN 1 ELSE 0 END
"""
    )
)
_EARNED_SINCE = number(
    text(
        """
SELECT (SELECT COALESCE(SUM(credits_micro - debits_micro), 0) FROM account_hour
        WHERE hour > :hour AND account >= :first AND account < :last)
     + (SELECT COALESCE(SUM(CASE WHEN debit = 'treasury' THEN amount_micro
                                 ELSE -amount_micro END), 0) FROM transfer
        WHERE at > :since AND at < :next AND action = 'post'
        AND ((debit >= :first AND debit < :last) OR (credit >= :first AND credit < :last)))
"""
    )
)


# Every transfer has the treasury on its other side.
_MOVED_SINCE = Statement(
    text(
        """
SELECT hour, SUM(credits_micro - debits_micro) FROM account_hour WHERE hour >= :hour GROUP BY hour
"""
    ),
    tuple,
)
_CREDITED_SINCE = number(
    text(
        """
SELECT (SELECT COALESCE(SUM(credits_micro), 0) FROM account_hour
        WHERE hour > :hour AND account >= 'engagement:' AND account < 'engagement;')
     + (SELECT COALESCE(SUM(amount_micro), 0) FROM transfer
        WHERE at > :since AND at < :next AND action = 'post'
        AND credit >= 'engagement:' AND credit < 'engagement;')
"""
    )
)


def spent(tx: Connection, *, run: str | None = None, since: datetime | None = None) -> MicroCredits:
    """
    Inference spend of one run, or since a moment, open holds included.

    A hold counts at the time it was made, a settlement at its own; what is dated in the future
    (a clock was set back) counts as now. What came back by a correction lowers what its run
    spent, but makes no room in a window of time: it may mend what was spent before the window.
    """
    if since is None:
        return _sum(_SPENT_BY_RUN.one(tx, run=run))
    return _sum(_SPENT_SINCE.one(tx, **posting.window(since)))


def earned(tx: Connection, *, since: datetime, family: str) -> MicroCredits:
    """Income booked since a moment to one family of accounts: `engagement` or `revenue`."""
    # Every name of a family, and no other, lies between "family:" and "family;".
    return _sum(
        _EARNED_SINCE.one(tx, **posting.window(since), first=f"{family}:", last=f"{family};")
    )


def credited_since(tx: Connection, since: datetime) -> MicroCredits:
    """
    What engagement was credited with since a moment; entries dated in the future count as now.

    Unlike in `earned`, what a correction took back makes no room: it may be from before.
    """
    return _sum(_CREDITED_SINCE.one(tx, **posting.window(since)))


def deposited_since(tx: Connection, since: datetime) -> bool:
    """Whether the operator has paid anything in after a moment."""
    return _DEPOSITED_SINCE.one(tx, since=to_text(since)) == 1


def posted_at(tx: Connection, hours: Sequence[datetime]) -> list[MicroCredits]:
    """
    The treasury's posted balance at some full hours; what is dated in the future counts as now.

    It is counted back from today's, and reads only what moved since the first of them.

    Args:
        hours: what is past the full hour counts as its beginning.
    """
    if not hours:
        return []
    # Text order is time order.
    names = [to_text(hour)[: posting.HOUR_CHARS] for hour in hours]
    moved, now = _MOVED_SINCE.all(tx, hour=min(names)), balance(tx).posted
    return [now - _sum(sum(int(micro) for hour, micro in moved if hour >= name)) for name in names]


def earned_by_run(tx: Connection) -> dict[str, MicroCredits]:
    """Income booked so far to the runs whose articles earned it; the others are not in it."""
    return {run: _sum(int(micro)) for run, micro in _EARNED_BY_RUN.all(tx)}


def entries(
    tx: Connection, *, since: datetime | None = None, limit: int | None = None
) -> Iterator[Entry]:
    """
    The entries as operators read them, oldest first.

    A void is no entry of its own: its hold reads `voided`. A settlement is one, with the hold's
    id as `ref`, and its hold reads `settled`.

    Args:
        limit: the newest so many.
    """
    resolution = transfers.alias("resolution")
    statement = (
        select(transfers, resolution.c.action.label("resolved_by"))
        .outerjoin(resolution, resolution.c.hold_id == transfers.c.id)
        .where(transfers.c.action != Action.VOID.value)
        .order_by(transfers.c.seq if limit is None else transfers.c.seq.desc())
    )
    if since is not None:
        statement = statement.where(
            transfers.c.at >= bindparam("since", since, transfers.c.at.type)
        )
    rows: Any = tx.execute(statement.limit(limit))
    if limit is not None:
        rows = reversed(rows.all())
    for row in rows:
        yield _as_entry(row, row.at, row.resolved_by)


_ACCOUNT = Statement(
    select(accounts).where(accounts.c.name == bindparam("account")), posting.totals
)
_GIVEN_BACK = number(
    text(
        """
SELECT COALESCE(SUM(CASE WHEN debit = :debit THEN -amount_micro ELSE amount_micro END), 0)
FROM transfer WHERE corrects = :entry
"""
    )
)


def _as_entry(row: Any, at: datetime, resolved_by: str | None) -> Entry:
    return Entry(
        id=row.id,
        at=at,
        state=_state(row.action, resolved_by),
        debit=row.debit,
        credit=row.credit,
        amount=MicroCredits(row.amount_micro),
        code=row.code,
        run=row.run,
        attempt=row.attempt,
        ref=row.hold_id if row.action == Action.SETTLE else row.ref,
        memo=row.memo,
        corrects=row.corrects,
    )


def _state(action: str, resolved_by: str | None) -> str:
    if action != Action.HOLD:
        return "posted"
    return {None: "pending", Action.SETTLE: "settled", Action.VOID: "voided"}[
        None if resolved_by is None else Action(resolved_by)
    ]


def _check_limits(tx: Connection, amount: MicroCredits, limits: Limits) -> None:
    spendable = balance(tx).available - limits.reserve
    if spendable < amount:
        raise InsufficientFunds("the balance less the reserve", amount, max(spendable, ZERO))
    for cap in limits.caps:
        room = cap.amount - spent(tx, run=cap.run, since=cap.since)
        if room < amount:
            raise CapReached(cap.name, amount, max(room, ZERO))


def _posted_entry(tx: Connection, id: str) -> Transfer:
    row = posting.find(tx, id)
    if row is None:
        raise UnknownEntry(f"there is no entry {id}; `penstock ledger entries` lists them")
    if row.action in (Action.POST, Action.SETTLE):
        return row
    end = posting.end_of(tx, id)
    if end is not None and end.action == Action.SETTLE:
        raise UnknownEntry(f"{id} only held money; the entry that moved it is {end.id}")
    raise UnknownEntry(f"{id} moved nothing, so there is nothing to correct")


def _other_side(entry: Transfer) -> str:
    """Every transfer has the treasury on one side; this is the account on the other."""
    return str(entry.debit if entry.credit == TREASURY else entry.credit)


def _check_not_below_nothing(tx: Connection, wrong: Transfer, amount: MicroCredits) -> None:
    """Corrections may take back all that an entry moved, and no more."""
    back = amount if wrong.credit == TREASURY else -amount
    mended = _GIVEN_BACK.one(tx, entry=wrong.id, debit=wrong.credit)
    left = MicroCredits(wrong.amount_micro) + _sum(mended)
    if left < back:
        raise InvalidAmount(f"{wrong.id} moved {left}, so {back} of it cannot be taken back")


def _ended_before(
    tx: Connection, hold_id: str, action: Action, actual: MicroCredits
) -> MicroCredits:
    """
    What a hold that is not open held, where it ended in just this way.

    Raises:
        UnknownHold: it was never made.
        AlreadyResolved: it ended with another result.
    """
    held = posting.find(tx, hold_id)
    if held is None or held.action != Action.HOLD:
        raise UnknownHold(f"there is no hold {hold_id}")
    ended = posting.end_of(tx, hold_id)
    assert ended is not None, "a hold is open or has ended"
    above = posting.find(tx, f"{hold_id}:overrun")
    booked = ended.amount_micro + (above.amount_micro if above is not None else 0)
    if (ended.action, booked) != (action, actual.micro):
        raise AlreadyResolved(f"the hold {hold_id} ended before, by a {ended.action}")
    return MicroCredits(held.amount_micro)


def _totals(tx: Connection, name: str) -> Totals:
    return _ACCOUNT.one(tx, account=name) or Totals()


def _sum(found: int | None) -> MicroCredits:
    """What a statement that always returns one sum returned."""
    assert found is not None
    return MicroCredits(found)
