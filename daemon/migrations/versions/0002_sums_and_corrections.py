"""
Sums that keep every reading short, corrections, and what reconciling with a provider needs.

The new tables of the books are filled from the transfers that are there; no old row is touched.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.types import MicroColumn, Timestamp

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    _add_sums()
    # No foreign key: SQLite could add one only by making the table anew. The audit follows it.
    op.add_column("transfer", sa.Column("corrects", sa.Text))
    op.create_index(
        "transfer_by_corrected",
        "transfer",
        ["corrects"],
        sqlite_where=sa.text("corrects IS NOT NULL"),
        postgresql_where=sa.text("corrects IS NOT NULL"),
    )
    op.add_column("attempt", sa.Column("remote_id", sa.Text))
    op.add_column("attempt", sa.Column("price_cache_write", MicroColumn))
    op.create_index(
        "attempt_unresolved",
        "attempt",
        ["outcome"],
        sqlite_where=sa.text("cost_micro IS NULL"),
        postgresql_where=sa.text("cost_micro IS NULL"),
    )
    op.create_index("run_by_start", "run", ["started_at"])
    op.create_table(
        "usage_counter",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("key_mark", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("used_micro", MicroColumn, nullable=False),
        sa.Column("booked_micro", MicroColumn, nullable=False),
        sa.PrimaryKeyConstraint("provider"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")


def _add_sums() -> None:
    op.create_table(
        "open_hold",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("amount_micro", MicroColumn, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("attempt", sa.Text),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.execute(
        """INSERT INTO open_hold (id, at, account, amount_micro, run, attempt)
SELECT id, at, debit, amount_micro, run, attempt FROM transfer AS held
WHERE action = 'hold' AND NOT EXISTS (SELECT 1 FROM transfer WHERE hold_id = held.id)"""
    )
    op.create_table(
        "account_hour",
        sa.Column("hour", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("debits_micro", MicroColumn, nullable=False),
        sa.Column("credits_micro", MicroColumn, nullable=False),
        sa.PrimaryKeyConstraint("hour", "account"),
        sqlite_strict=True,
    )
    op.execute(
        """INSERT INTO account_hour (hour, account, debits_micro, credits_micro)
SELECT hour, account, sum(debits), sum(credits) FROM (
    SELECT substr(at, 1, 13) AS hour, debit AS account, amount_micro AS debits, 0 AS credits
    FROM transfer WHERE action IN ('post', 'settle') AND amount_micro > 0
    UNION ALL
    SELECT substr(at, 1, 13), credit, 0, amount_micro
    FROM transfer WHERE action IN ('post', 'settle') AND amount_micro > 0
) AS side WHERE account <> 'treasury' GROUP BY hour, account"""
    )
