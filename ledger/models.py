"""
The tables of the books.

`transfer` is append-only: triggers refuse every change to a row, and each row's hash covers the
one before it. The others are sums of it, kept in the same transaction so that no reading grows
with the history: `account` (balances), `account_hour` (what a window of time moved) and
`open_hold` (what is still claimed). `audit` recomputes all three from the transfers.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Integer, Text, text
from sqlmodel import Field, SQLModel

from ledger.types import MicroColumn, Timestamp


class Account(SQLModel, table=True):
    """Running sums of one account, in micro-credits."""

    __tablename__ = "account"
    __table_args__ = (
        CheckConstraint("debits_pending_micro >= 0 AND credits_pending_micro >= 0"),
        {"sqlite_strict": True},
    )

    name: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    debits_posted_micro: int = Field(sa_type=MicroColumn)
    credits_posted_micro: int = Field(sa_type=MicroColumn)
    debits_pending_micro: int = Field(sa_type=MicroColumn)
    credits_pending_micro: int = Field(sa_type=MicroColumn)


class Transfer(SQLModel, table=True):
    """
    One row of the journal: a post, a hold, or what became of a hold.

    `at` is when it happened, in the books' own order `seq`. `hold_id` points from a settle or
    void to its hold and is unique, so that a hold ends at most once. `ref` is the operator's or
    the platform's name for what was booked. `corrects` points at the entry a correction mends.
    """

    __tablename__ = "transfer"
    __table_args__ = (
        CheckConstraint("amount_micro >= 0"),
        CheckConstraint("debit <> credit"),
        CheckConstraint("action IN ('post', 'hold', 'settle', 'void')"),
        CheckConstraint("(action IN ('settle', 'void')) = (hold_id IS NOT NULL)"),
        Index("transfer_by_time", "at"),
        Index("transfer_by_run", "run"),
        Index(
            "transfer_by_corrected",
            "corrects",
            sqlite_where=text("corrects IS NOT NULL"),
            postgresql_where=text("corrects IS NOT NULL"),
        ),
        {"sqlite_strict": True},
    )

    seq: int = Field(primary_key=True, sa_type=Integer)
    id: str = Field(sa_type=Text, unique=True)
    at: datetime = Field(sa_type=Timestamp)
    action: str = Field(sa_type=Text)
    debit: str = Field(sa_type=Text, foreign_key="account.name")
    credit: str = Field(sa_type=Text, foreign_key="account.name")
    amount_micro: int = Field(sa_type=MicroColumn)
    code: str = Field(sa_type=Text)
    hold_id: str | None = Field(sa_type=Text, foreign_key="transfer.id", unique=True)
    run: str | None = Field(sa_type=Text)
    attempt: str | None = Field(sa_type=Text)
    ref: str | None = Field(sa_type=Text)
    memo: str | None = Field(sa_type=Text)
    hash: str = Field(sa_type=Text)
    corrects: str | None = Field(sa_type=Text)


class OpenHold(SQLModel, table=True):
    """A hold that has not ended; its row goes when it does."""

    __tablename__ = "open_hold"
    __table_args__ = ({"sqlite_strict": True},)

    id: str = Field(primary_key=True, sa_type=Text)
    at: datetime = Field(sa_type=Timestamp)
    account: str = Field(sa_type=Text)
    amount_micro: int = Field(sa_type=MicroColumn)
    run: str | None = Field(sa_type=Text)
    attempt: str | None = Field(sa_type=Text)


class AccountHour(SQLModel, table=True):
    """
    What the posted entries of one hour moved, in micro-credits, for every account but the treasury.

    `hour` is the first 13 characters of the time, as in `2026-03-01T12`.
    """

    __tablename__ = "account_hour"
    __table_args__ = ({"sqlite_strict": True},)

    hour: str = Field(primary_key=True, sa_type=Text)
    account: str = Field(primary_key=True, sa_type=Text)
    debits_micro: int = Field(sa_type=MicroColumn)
    credits_micro: int = Field(sa_type=MicroColumn)


# Append-only in the database itself. INSERT OR REPLACE would slip past the delete trigger on a
# connection without recursive_triggers, so an insert over an existing key is refused as well.
SQLITE_TRIGGERS = (
    """CREATE TRIGGER transfer_no_update BEFORE UPDATE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END""",
    """CREATE TRIGGER transfer_no_delete BEFORE DELETE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END""",
    """CREATE TRIGGER transfer_no_replace BEFORE INSERT ON transfer
WHEN EXISTS (SELECT 1 FROM transfer WHERE seq = NEW.seq OR id = NEW.id
             OR (NEW.hold_id IS NOT NULL AND hold_id = NEW.hold_id))
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END""",
    """CREATE TRIGGER account_no_delete BEFORE DELETE ON account
BEGIN SELECT RAISE(ABORT, 'accounts are kept for ever'); END""",
)
