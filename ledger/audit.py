"""
Recompute the books from their rows and say what does not agree.

Nothing here trusts a running sum: the accounts are rebuilt from the transfers, the hash chain
from the columns it covers, and every hold is followed to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Text, select, text, type_coerce
from sqlmodel import SQLModel

from ledger.database import file_problems
from ledger.errors import UnknownAccount
from ledger.models import Account, Transfer
from ledger.rules import TREASURY, AccountKind, Action, Totals, apply, kind_of
from ledger.store import GENESIS, row_hash

_accounts = SQLModel.metadata.tables[str(Account.__tablename__)]
_transfers = SQLModel.metadata.tables[str(Transfer.__tablename__)]

# A broken chain makes every later row differ; the first few tell the story.
PROBLEMS_MAX = 20


@dataclass(slots=True)
class Report:
    """What a check found; `ok` when nothing is wrong."""

    transfers: int = 0
    accounts: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the books balance."""
        return not self.problems

    def note(self, problem: str) -> None:
        """Record a problem, up to a readable number."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


def check(tx: Connection) -> Report:
    """Read every transfer once and compare with everything the database says of them."""
    report = Report()
    for finding in file_problems(tx):
        report.note(finding)
    totals = _replay(tx, report)
    _compare(tx, totals, report)
    return report


def _replay(tx: Connection, report: Report) -> dict[str, Totals]:
    totals: dict[str, Totals] = {}
    holds: dict[str, int] = {}
    ended: set[str] = set()
    previous, seq = GENESIS, 0
    # The time as it is stored: caps compare that text, so another spelling is another time.
    columns = [c if c.name != "at" else type_coerce(c, Text).label("at") for c in _transfers.c]
    for row in tx.execute(select(*columns).order_by(_transfers.c.seq)):
        report.transfers += 1
        seq += 1
        if row.seq != seq:
            report.note(f"transfers {seq} to {row.seq - 1} are missing")
            seq = row.seq
        if row_hash(previous, row._mapping) != row.hash:
            report.note(f"transfer {row.seq} ({row.id}) was changed after it was booked")
        previous = row.hash
        held = _follow_hold(row, holds, ended, report)
        try:
            kind_of(row.debit), kind_of(row.credit)
            totals |= apply(
                totals,
                action=Action(row.action),
                debit=row.debit,
                credit=row.credit,
                amount=row.amount_micro,
                held=held,
            )
        except (ValueError, UnknownAccount) as error:
            report.note(f"transfer {row.seq} ({row.id}): {error}")
    return totals


def _follow_hold(row: Any, holds: dict[str, int], ended: set[str], report: Report) -> int:
    """Track a hold or its end; returns the micro-credits that an end releases."""
    if row.action == Action.HOLD:
        holds[row.id] = row.amount_micro
    if row.hold_id is None:
        return 0
    if row.hold_id not in holds:
        report.note(f"transfer {row.seq} ({row.id}) ends a hold that was never made")
        return 0
    if row.hold_id in ended:
        report.note(f"the hold {row.hold_id} ended twice")
        return 0
    ended.add(row.hold_id)
    if row.amount_micro > holds[row.hold_id]:
        report.note(f"transfer {row.seq} ({row.id}) settles more than was held")
    return holds[row.hold_id]


def _compare(tx: Connection, totals: dict[str, Totals], report: Report) -> None:
    stored: dict[str, Totals] = {}
    for row in tx.execute(select(_accounts)):
        report.accounts += 1
        _check_kind(row.name, row.kind, report)
        stored[row.name] = Totals(
            row.debits_posted_micro,
            row.credits_posted_micro,
            row.debits_pending_micro,
            row.credits_pending_micro,
        )
    for name in sorted(stored.keys() | totals.keys()):
        have, want = stored.get(name, Totals()), totals.get(name, Totals())
        if have != want:
            report.note(
                f"the account {name} says {_in_words(have)}, its rows say {_in_words(want)}"
            )
    posted = sum(t.debits_posted - t.credits_posted for t in stored.values())
    pending = sum(t.debits_pending - t.credits_pending for t in stored.values())
    if posted or pending:
        report.note(
            f"debits and credits differ by {posted} posted, {pending} pending micro-credits"
        )
    held = stored.get(TREASURY, Totals()).credits_pending
    if held < 0 or stored.get(TREASURY, Totals()).balance(AccountKind.ASSET).micro < -_overruns(tx):
        report.note("the treasury is overdrawn by more than overruns explain")


def _in_words(totals: Totals) -> str:
    return (
        f"{totals.debits_posted} debited and {totals.credits_posted} credited"
        f" ({totals.debits_pending} and {totals.credits_pending} pending) micro-credits"
    )


def _check_kind(name: str, kind: str, report: Report) -> None:
    try:
        if kind_of(name) != kind:
            report.note(f"the account {name} is called {kind}, it is {kind_of(name)}")
    except UnknownAccount as error:
        report.note(str(error))


def _overruns(tx: Connection) -> int:
    """Micro-credits that were billed above a hold: the only way below zero."""
    statement = text("SELECT COALESCE(SUM(amount_micro), 0) FROM transfer WHERE code = 'overrun'")
    return int(tx.execute(statement).scalar_one())
