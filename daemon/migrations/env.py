"""
Alembic runs this file for every command; see `daemon.migrations.upgrade`, its only caller.

The connection is handed in with its transaction open. Alembic sees that and leaves begin and
commit to the caller, so a failure halfway rolls everything back. Logging stays the daemon's.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)
assert connection.in_transaction(), "outside a transaction a failure would leave half a schema"

context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
