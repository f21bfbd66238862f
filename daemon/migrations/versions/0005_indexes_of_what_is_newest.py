"""What the service asks at each of its looks is found without reading the years before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("publication_by_time", "publication", ["published_at"])
    op.create_index(
        "attempt_answered",
        "attempt",
        ["provider", "at"],
        sqlite_where=sa.text("http_status IS NOT NULL"),
    )


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
