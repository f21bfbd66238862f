"""
${message}

Never changed once released: it imports no tables, and spells out what it makes. Add the revision
to `_KNOWN` in daemon/migrations/__init__.py.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """There is no way back but a backup."""
    raise NotImplementedError("penstock does not migrate backwards; restore a backup instead")
