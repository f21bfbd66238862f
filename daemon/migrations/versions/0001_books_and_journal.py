"""
The books, the journal, the attempts, the archive and the switches: where every database begins.

Never changed once released: it imports no tables, and spells out what it makes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.types import Json, MicroColumn, Timestamp

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table, index and trigger."""
    _make_books()
    _make_journal()
    _make_attempts()
    _make_archive()
    _make_control()


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")


def _make_books() -> None:
    op.create_table(
        "account",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("debits_posted_micro", MicroColumn, nullable=False),
        sa.Column("credits_posted_micro", MicroColumn, nullable=False),
        sa.Column("debits_pending_micro", MicroColumn, nullable=False),
        sa.Column("credits_pending_micro", MicroColumn, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("debits_pending_micro >= 0 AND credits_pending_micro >= 0"),
        sqlite_strict=True,
    )
    op.create_table(
        "transfer",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("debit", sa.Text, nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("amount_micro", MicroColumn, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("hold_id", sa.Text),
        sa.Column("run", sa.Text),
        sa.Column("attempt", sa.Text),
        sa.Column("ref", sa.Text),
        sa.Column("memo", sa.Text),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.CheckConstraint("amount_micro >= 0"),
        sa.CheckConstraint("debit <> credit"),
        sa.CheckConstraint("action IN ('post', 'hold', 'settle', 'void')"),
        sa.CheckConstraint("(action IN ('settle', 'void')) = (hold_id IS NOT NULL)"),
        sa.UniqueConstraint("id"),
        sa.ForeignKeyConstraint(["debit"], ["account.name"]),
        sa.ForeignKeyConstraint(["credit"], ["account.name"]),
        sa.UniqueConstraint("hold_id"),
        sa.ForeignKeyConstraint(["hold_id"], ["transfer.id"]),
        sqlite_strict=True,
    )
    op.create_index("transfer_by_time", "transfer", ["at"])
    op.create_index("transfer_by_run", "transfer", ["run"])
    op.execute(
        """CREATE TRIGGER transfer_no_update BEFORE UPDATE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END"""
    )
    op.execute(
        """CREATE TRIGGER transfer_no_delete BEFORE DELETE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END"""
    )
    op.execute(
        """CREATE TRIGGER transfer_no_replace BEFORE INSERT ON transfer
WHEN EXISTS (SELECT 1 FROM transfer WHERE seq = NEW.seq OR id = NEW.id
             OR (NEW.hold_id IS NOT NULL AND hold_id = NEW.hold_id))
BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END"""
    )
    op.execute(
        """CREATE TRIGGER account_no_delete BEFORE DELETE ON account
BEGIN SELECT RAISE(ABORT, 'accounts are kept for ever'); END"""
    )


def _make_journal() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("slot", Timestamp),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("topic", sa.Text),
        sa.Column("title", sa.Text),
        sa.Column("budget_micro", MicroColumn, nullable=False),
        sa.Column("approved_at", Timestamp),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("finished_at", Timestamp),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slot"),
        sqlite_strict=True,
    )
    op.create_index("run_by_state", "run", ["state"])
    op.create_table(
        "step",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("output", Json),
        sa.Column("error", sa.Text),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("finished_at", Timestamp),
        sa.PrimaryKeyConstraint("run", "name"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("inputs", Json, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_index("decision_by_run", "decision", ["run"])
    op.create_table(
        "source",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("fetched_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("run", "id"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_table(
        "claim",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("quote", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("verified", sa.Integer, nullable=False),
        sa.Column("remark", sa.Text),
        sa.PrimaryKeyConstraint("run", "seq"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_table(
        "publication",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("remote_id", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("intended_at", Timestamp, nullable=False),
        sa.Column("published_at", Timestamp),
        sa.PrimaryKeyConstraint("run", "platform"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_index("publication_by_state", "publication", ["state"])


def _make_attempts() -> None:
    op.create_table(
        "attempt",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_returned", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("http_status", sa.Integer),
        sa.Column("usage", Json),
        sa.Column("price_input", MicroColumn, nullable=False),
        sa.Column("price_cached", MicroColumn, nullable=False),
        sa.Column("price_output", MicroColumn, nullable=False),
        sa.Column("price_source", sa.Text, nullable=False),
        sa.Column("hold", sa.Text, nullable=False),
        sa.Column("cost_micro", MicroColumn),
        sa.Column("own_cost_micro", MicroColumn),
        sa.Column("duration_ms", sa.Integer),
        sa.Column("answer", sa.Text),
        sa.Column("cut", sa.Integer),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("attempt_by_run", "attempt", ["run", "step"])
    op.create_index("attempt_by_time", "attempt", ["at"])


def _make_archive() -> None:
    op.create_table(
        "feed",
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("checked_at", Timestamp, nullable=False),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("location"),
        sqlite_strict=True,
    )
    op.create_table(
        "entry",
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("guid", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("author", sa.Text),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("published_at", Timestamp),
        sa.Column("seen_at", Timestamp, nullable=False),
        sa.Column("used_by", sa.Text),
        sa.PrimaryKeyConstraint("feed", "guid"),
        sa.ForeignKeyConstraint(["feed"], ["feed.location"]),
        sqlite_strict=True,
    )
    op.create_index("entry_by_use", "entry", ["used_by", "seen_at"])
    op.create_table(
        "page",
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("final_url", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("fetched_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("url"),
        sqlite_strict=True,
    )


def _make_control() -> None:
    op.create_table(
        "control",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_strict=True,
    )
