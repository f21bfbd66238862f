"""
When a publication was last sent is kept, so that one which may be out counts for that day.

Before, it counted for the day its intent was frozen, and of one that was under way when the process
ended nothing told that it had been sent.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.types import Timestamp

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it."""
    op.add_column("publication", sa.Column("sent_at", Timestamp))


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
