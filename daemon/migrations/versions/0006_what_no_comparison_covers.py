"""
What was booked before a counter was first read is told from what a comparison covers.

Where a counter was compared already, nobody knows what had been booked before the first time, and
corrections of that are compared as they were.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.add_column("usage_counter", sa.Column("seq", sa.Integer))
    op.create_table(
        "uncompared",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("after_seq", sa.Integer, nullable=False),
        sa.Column("until_seq", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("provider", "after_seq"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
