"""
Recompute the books from their rows and say what does not agree.

Nothing here trusts a running sum: the accounts, their hours and the open holds are rebuilt from
the transfers, the hash chain from the columns it covers, and every hold is followed to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import OperationalError

from ledger.chain import GENESIS, SEALED, SEALED_LATER, seal
from ledger.database import file_problems, is_schema_error
from ledger.errors import BooksWrong, UnknownAccount
from ledger.posting import HOUR_CHARS, accounts, open_holds, totals
from ledger.rules import TREASURY, AccountKind, Action, Code, Totals, kind_of, movement

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
    try:
        for finding in file_problems(tx):
            report.note(finding)
        replay = _Replay(tx, report)
        replay.run()
        _compare_accounts(tx, replay, report)
        _compare_sums(tx, replay, report)
    except OperationalError as error:
        if not is_schema_error(error):
            raise
        report.note(f"the tables are not as they were made: {error.orig}")
    except Exception as error:
        # Rows of a damaged file may hold anything, and fail anywhere; in a sound one that is a bug.
        if report.ok:
            raise
        report.note(f"its rows could not be read to the end: {error.__class__.__name__}: {error}")
    return report


def require(tx: Connection) -> None:
    """
    Let pass only books that balance.

    Raises:
        BooksWrong: with every problem that `check` found.
    """
    report = check(tx)
    if not report.ok:
        raise BooksWrong(report.problems)


def glance(tx: Connection) -> list[str]:
    """
    What a look at the sums alone shows to be wrong, in a millisecond however long the history.

    `check` reads everything; this is for every time somebody looks.
    """
    found = []
    for side in ("posted", "pending"):
        difference = tx.exec_driver_sql(
            f"SELECT COALESCE(SUM(debits_{side}_micro - credits_{side}_micro), 0) FROM account"  # noqa: S608
        ).scalar_one()
        if difference:
            found.append(f"debits and credits differ by {difference} {side} micro-credits")
    held = sum(hold.amount.micro for hold in open_holds(tx))
    pending = tx.exec_driver_sql(
        "SELECT COALESCE(SUM(credits_pending_micro), 0) FROM account WHERE name = 'treasury'"
    ).scalar_one()
    if held != pending:
        found.append(f"the open holds add up to {held}, the treasury says {pending} micro-credits")
    return found


# Text and integers as they are stored: caps compare the text of a time, so another spelling of
# the same moment is another time. Through the driver, since a million rows are read.
_ROWS = f"SELECT {', '.join((*SEALED, *SEALED_LATER))}, hash FROM transfer ORDER BY seq"  # noqa: S608

# What may take more than is there: a bill above its hold, what a provider or a person knows, and
# revenue that went back.
_BEYOND_HOLDS = (Code.OVERRUN, Code.CORRECTION, Code.ADJUSTMENT, Code.REVENUE)


class _Replay:
    """
    The journal read from its first row to its last.

    Args:
        tx: one unchanging snapshot.
        report: what is odd about a row is noted here.
    """

    def __init__(self, tx: Connection, report: Report) -> None:
        self._tx = tx
        self._report = report
        # By account: debits posted, credits posted, debits pending, credits pending.
        self.sums: dict[str, list[int]] = {}
        # By hour and account: debits, credits; the treasury's would be the sum of the others.
        self.hours: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.holds: dict[str, tuple[Any, ...]] = {}
        self.above_holds = 0

    def run(self) -> None:
        """Read it; the sums are whole afterwards."""
        previous, expected = GENESIS, 1
        width = len(SEALED)
        for row in self._tx.exec_driver_sql(_ROWS):
            self._report.transfers += 1
            values, later, stored = row[:width], row[width:-1], row[-1]
            if values[0] != expected:
                self._report.note(f"transfers {expected} to {values[0] - 1} are missing")
            if seal(previous, values, later) != stored:
                self._report.note(
                    f"transfer {values[0]} ({values[1]}) was changed after it was booked"
                )
            previous, expected = stored, values[0] + 1
            self._book(dict(zip(SEALED, values, strict=True)))
            if later[0] is not None:
                self._follow_correction(values[0], values[1], later[0])

    def _book(self, row: Mapping[str, Any]) -> None:
        """Move the sums as the row says."""
        held = self._follow_hold(row)
        debit, credit, amount = row["debit"], row["credit"], row["amount_micro"]
        try:
            dr, cr = self._sums_of(debit), self._sums_of(credit)
            posted, pending = movement(Action(row["action"]), amount, held)
        except (ValueError, UnknownAccount) as error:
            self._report.note(f"transfer {row['seq']} ({row['id']}): {error}")
            return
        dr[0] += posted
        dr[2] += pending
        cr[1] += posted
        cr[3] += pending
        if posted:
            hour = row["at"][:HOUR_CHARS]
            if debit != TREASURY:
                self.hours[hour, debit][0] += posted
            if credit != TREASURY:
                self.hours[hour, credit][1] += posted
        if credit == TREASURY and row["code"] in _BEYOND_HOLDS:
            self.above_holds += amount

    def _sums_of(self, account: str) -> list[int]:
        known = self.sums.get(account)
        if known is None:
            kind_of(account)
            known = self.sums[account] = [0, 0, 0, 0]
        return known

    def _follow_hold(self, row: Mapping[str, Any]) -> int:
        """Track a hold or its end; returns the micro-credits that an end releases."""
        if row["action"] == Action.HOLD:
            self.holds[row["id"]] = tuple(
                row[name] for name in ("at", "debit", "amount_micro", "run", "attempt")
            )
        hold_id = row["hold_id"]
        if hold_id is None:
            return 0
        hold = self.holds.pop(hold_id, None)
        if hold is None:
            self._report.note(
                f"transfer {row['seq']} ({row['id']}) ends {hold_id}, which is no open hold by then"
            )
            return 0
        if row["amount_micro"] > hold[2]:
            self._report.note(f"transfer {row['seq']} ({row['id']}) settles more than was held")
        return int(hold[2])

    def _follow_correction(self, seq: int, id: str, corrects: str) -> None:
        found = self._tx.execute(
            text("SELECT 1 FROM transfer WHERE id = :id AND seq < :seq"),
            {"id": corrects, "seq": seq},
        )
        if found.first() is None:
            self._report.note(f"transfer {seq} ({id}) corrects {corrects}, which is not there")


def _compare_accounts(tx: Connection, replay: _Replay, report: Report) -> None:
    stored: dict[str, Totals] = {}
    for row in tx.execute(select(accounts)):
        report.accounts += 1
        _check_kind(row.name, row.kind, report)
        stored[row.name] = totals(row)
    replayed = {name: Totals(*sums) for name, sums in replay.sums.items()}
    for name in sorted(stored.keys() | replayed.keys()):
        have, want = stored.get(name, Totals()), replayed.get(name, Totals())
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
    treasury = stored.get(TREASURY, Totals())
    if treasury.credits_pending < 0:
        report.note("the treasury has less than nothing held")
    # A hold never passes the balance; what the bill, a person or a refund took beyond holds may.
    if treasury.balance(AccountKind.ASSET).micro < -replay.above_holds:
        report.note("the treasury is overdrawn by more than overruns and corrections explain")


def _compare_sums(tx: Connection, replay: _Replay, report: Report) -> None:
    """The open holds and the hours must be what the rows add up to, row by row."""
    rows = tx.exec_driver_sql("SELECT id, at, account, amount_micro, run, attempt FROM open_hold")
    _compare(report, "the open hold", replay.holds, {row[0]: tuple(row[1:]) for row in rows})
    rows = tx.exec_driver_sql("SELECT hour, account, debits_micro, credits_micro FROM account_hour")
    hours = {(row[0], row[1]): (row[2], row[3]) for row in rows}
    expected = {key: tuple(sums) for key, sums in replay.hours.items()}
    _compare(report, "the hour", expected, hours)


def _compare(
    report: Report,
    what: str,
    expected: Mapping[Any, tuple[Any, ...]],
    stored: Mapping[Any, tuple[Any, ...]],
) -> None:
    if expected == stored:
        return
    for key in expected.keys() | stored.keys():
        if expected.get(key) != stored.get(key):
            report.note(
                f"{what} {_named(key)} is kept as {_shown(stored.get(key))},"
                f" its rows say {_shown(expected.get(key))}"
            )


def _named(key: Hashable) -> str:
    return " of ".join(key) if isinstance(key, tuple) else str(key)


def _shown(values: tuple[Any, ...] | None) -> str:
    return "nothing" if values is None else ", ".join(map(str, values))


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
