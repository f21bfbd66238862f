"""
The archive of published articles with its full-text index, entries by address, and notes.

Articles of earlier versions are not in it: what they printed was kept as each destination's
bytes, not as prose.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.types import Json, Timestamp

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "article",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("tags", Json, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("published_at", Timestamp),
        sa.Column("words", sa.Integer, nullable=False),
        sa.Column("reading_minutes", sa.Integer, nullable=False),
        sa.Column("readability", sa.REAL),
        sa.Column("sources", sa.Integer, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("claims_verified", sa.Integer, nullable=False),
        sa.Column("warnings", Json, nullable=False),
        sa.Column("card", sa.LargeBinary),
        sa.Column("search_id", sa.Integer),
        sa.PrimaryKeyConstraint("run"),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sqlite_strict=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE article_index USING fts5("
            "title, description, text, tokenize = 'porter unicode61 remove_diacritics 2')"
        )
    op.create_index("entry_by_url", "entry", ["url", "used_by"])
    op.add_column("publication", sa.Column("noted", sa.Text))


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
