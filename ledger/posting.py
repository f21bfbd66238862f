"""
Append one row to the journal, and to every sum that is kept of it, in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, text
from sqlmodel import SQLModel

from ledger import models
from ledger.chain import GENESIS, row_hash
from ledger.errors import RefReused
from ledger.money import ZERO, MicroCredits
from ledger.rules import TREASURY, Action, Code, Totals, kind_of, movement
from ledger.statements import Statement, Value, change
from ledger.types import from_text, to_text

accounts, transfers, holds = (
    SQLModel.metadata.tables[str(table.__tablename__)]
    for table in (models.Account, models.Transfer, models.OpenHold)
)


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold that has not ended."""

    id: str
    at: datetime
    account: str
    amount: MicroCredits
    run: str | None
    attempt: str | None

    @classmethod
    def of(cls, row: Iterable[Any]) -> OpenHold:
        """A row of `open_hold` as it is stored."""
        name, at, account, micro, run, attempt = row
        return cls(name, from_text(at), account, MicroCredits(micro), run, attempt)


def totals(row: Iterable[Any]) -> Totals:
    """The sums of a row of `account` as it is stored."""
    _, _, *sums = row
    return Totals(*sums)


class Transfer(NamedTuple):
    """A row of the journal as it is stored; see `models.Transfer`."""

    seq: int
    id: str
    at: str
    action: str
    debit: str
    credit: str
    amount_micro: int
    code: str
    hold_id: str | None
    run: str | None
    attempt: str | None
    ref: str | None
    memo: str | None
    hash: str
    corrects: str | None


class _Last(NamedTuple):
    seq: int
    hash: str


_SUMS = (
    "debits_posted_micro",
    "credits_posted_micro",
    "debits_pending_micro",
    "credits_pending_micro",
)
_EMPTY = dict.fromkeys(_SUMS, 0)

_TRANSFER = Statement(
    select(transfers).where(transfers.c.id == bindparam("transfer")), Transfer._make
)
_ENDED = Statement(
    select(transfers).where(transfers.c.hold_id == bindparam("hold")), Transfer._make
)
_LAST = Statement(
    select(transfers.c.seq, transfers.c.hash).order_by(transfers.c.seq.desc()).limit(1),
    _Last._make,
)
_OPEN_HOLD = Statement(select(holds).where(holds.c.id == bindparam("hold")), OpenHold.of)
_OPEN_HOLDS = Statement(select(holds).order_by(holds.c.at, holds.c.id), OpenHold.of)
_APPEND = change(transfers.insert())
_OPEN = change(holds.insert())
_CLOSE = change(holds.delete().where(holds.c.id == bindparam("hold")))
_NEW_ACCOUNT = change(accounts.insert())
_MOVE = change(
    accounts.update()
    .where(accounts.c.name == bindparam("account"))
    .values({column: accounts.c[column] + bindparam(f"add_{column}") for column in _SUMS})
)
_ADD_TO_HOUR = change(
    text(
        """
INSERT INTO account_hour (hour, account, debits_micro, credits_micro)
VALUES (:hour, :account, :debits, :credits)
ON CONFLICT (hour, account) DO UPDATE
SET debits_micro = account_hour.debits_micro + excluded.debits_micro,
    credits_micro = account_hour.credits_micro + excluded.credits_micro
"""
    )
)
# `2026-03-01T12` of a time as it is stored.
HOUR_CHARS = 13


def window(since: datetime) -> dict[str, str]:
    """The values that `account_hour` and the rows of the first hour are asked with."""
    at = to_text(since)
    # Every time of the hour sorts below its text with a semicolon, the character after the colon.
    return {"since": at, "hour": at[:HOUR_CHARS], "next": f"{at[:HOUR_CHARS]};"}


def find(tx: Connection, id: str) -> Transfer | None:
    """A transfer's row."""
    return _TRANSFER.one(tx, transfer=id)


def end_of(tx: Connection, hold_id: str) -> Transfer | None:
    """The row that ended a hold."""
    return _ENDED.one(tx, hold=hold_id)


def open_hold(tx: Connection, id: str) -> OpenHold | None:
    """A hold that has not ended; None when it has, or was never made."""
    return _OPEN_HOLD.one(tx, hold=id)


def open_holds(tx: Connection) -> list[OpenHold]:
    """The holds that have not ended, oldest first."""
    return _OPEN_HOLDS.all(tx)


def end(
    tx: Connection,
    held: OpenHold,
    action: Action,
    amount: MicroCredits,
    at: datetime,
    code: Code,
    memo: str | None,
) -> None:
    """End an open hold by at most what it held."""
    row = new_row(
        id=f"{held.id}:{action}",
        at=at,
        action=action,
        debit=held.account,
        credit=TREASURY,
        amount=amount,
        code=code,
        run=held.run,
        attempt=held.attempt,
        hold_id=held.id,
        memo=memo,
    )
    append(tx, row, held.amount)


def signed(*, other: str, amount: MicroCredits, **values: Any) -> dict[str, Any]:
    """A posted row by which the treasury changes by a signed amount."""
    debit, credit = (TREASURY, other) if amount > ZERO else (other, TREASURY)
    size = MicroCredits(abs(amount.micro))
    return new_row(action=Action.POST, debit=debit, credit=credit, amount=size, **values)


def new_row(
    *,
    id: str,
    at: datetime,
    action: Action,
    debit: str,
    credit: str,
    amount: MicroCredits,
    code: Code,
    run: str | None = None,
    attempt: str | None = None,
    hold_id: str | None = None,
    ref: str | None = None,
    memo: str | None = None,
    corrects: str | None = None,
) -> dict[str, Any]:
    """The columns of a transfer that its caller decides."""
    return {
        "id": id, "at": to_text(at), "action": action.value, "debit": debit, "credit": credit,
        "amount_micro": amount.micro, "code": code.value, "hold_id": hold_id, "run": run,
        "attempt": attempt, "ref": ref, "memo": memo, "corrects": corrects,
    }  # fmt: skip


# The time of a repeated offer may differ, and so may its remark; what it moves may not.
_SAME_EACH_TIME = (
    "action", "debit", "credit", "amount_micro", "code", "hold_id", "run", "attempt", "ref",
    "corrects",
)  # fmt: skip


def exists(tx: Connection, row: Mapping[str, Any]) -> bool:
    """Whether this very transfer was booked before; another one under its id is refused."""
    known = find(tx, row["id"])
    if known is None:
        return False
    differs = [name for name in _SAME_EACH_TIME if getattr(known, name) != row[name]]
    if differs:
        named = ", ".join(name.removesuffix("_micro") for name in differs)
        raise RefReused(f"{row['ref'] or row['id']} was booked before with another {named}")
    return True


def post(tx: Connection, **values: Any) -> bool:
    """Book a transfer that waits for nothing, once; False when it is there already."""
    row = new_row(action=Action.POST, **values)
    if exists(tx, row):
        return False
    append(tx, row)
    return True


def append(tx: Connection, row: dict[str, Any], held: MicroCredits = ZERO) -> None:
    """
    Add one row to the journal and to every sum that is kept of it.

    Args:
        held: the hold that this row ends.
    """
    _move(tx, row, held)
    last = _LAST.one(tx)
    seq, previous = (last.seq, last.hash) if last is not None else (0, GENESIS)
    row["seq"] = seq + 1
    _APPEND.run(tx, **row, hash=row_hash(previous, row))
    amount, hold_id = row["amount_micro"], row["hold_id"]
    if row["action"] == Action.HOLD:
        _OPEN.run(
            tx, id=row["id"], at=row["at"], account=row["debit"], amount_micro=amount,
            run=row["run"], attempt=row["attempt"],
        )  # fmt: skip
        return
    if hold_id is not None:
        _CLOSE.run(tx, hold=hold_id)
    if amount:
        debited = row["credit"] == TREASURY
        _ADD_TO_HOUR.run(
            tx,
            hour=row["at"][:HOUR_CHARS],
            account=row["debit"] if debited else row["credit"],
            debits=amount if debited else 0,
            credits=0 if debited else amount,
        )


def _move(tx: Connection, row: Mapping[str, Any], held: MicroCredits) -> None:
    """Move the sums of both accounts; an account's row is made on first use."""
    posted, pending = movement(Action(row["action"]), row["amount_micro"], held.micro)
    for side, other in (("debit", "credit"), ("credit", "debit")):
        name = row[side]
        kind = kind_of(name)
        sums: dict[str, Value] = {
            "account": name,
            f"add_{side}s_posted_micro": posted,
            f"add_{side}s_pending_micro": pending,
            f"add_{other}s_posted_micro": 0,
            f"add_{other}s_pending_micro": 0,
        }
        if not _MOVE.run(tx, **sums):
            _NEW_ACCOUNT.run(tx, name=name, kind=kind.value, **_EMPTY)
            _MOVE.run(tx, **sums)
