"""
What publications still wait for, what their readers did, what a person must know, and revenue.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.types import MicroColumn, Timestamp

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.add_column("publication", sa.Column("retry_at", Timestamp))
    op.add_column("publication", sa.Column("withdrawal", sa.Text))
    op.add_column("publication", sa.Column("counted_at", Timestamp))
    op.create_table(
        "alert",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("raised_at", Timestamp, nullable=False),
        sa.Column("cleared_at", Timestamp),
        sa.Column("told_at", Timestamp),
        sa.PrimaryKeyConstraint("key"),
        sqlite_strict=True,
    )
    op.create_table(
        "bell",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("last", Timestamp, nullable=False),
        sa.Column("owed", sa.REAL, nullable=False),
        sa.Column("hung_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "revenue_source",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("since", Timestamp, nullable=False),
        sa.Column("collected_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "metric",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("highest", sa.Integer, nullable=False),
        sa.Column("earned_micro", MicroColumn, nullable=False),
        sa.Column("forfeited_micro", MicroColumn, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("run", "platform", "metric"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    op.create_table(
        "snapshot",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("at", Timestamp, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("run", "platform", "metric", "at"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
