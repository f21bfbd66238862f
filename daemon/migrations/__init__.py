"""
The database's schema, step by step.

`upgrade` brings a database to the newest revision, `require_current` refuses one that is not
there. `versions/` holds the steps, written by hand and never changed once released; what they add
up to is compared with the tables in tests/test_migrations.py. `env.py` and `script.py.mako` are
Alembic's side of it.

Alembic costs 0.3 s to import, so it is imported only while there is something to migrate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, inspect, text

from ledger.database import Database
from ledger.errors import SchemaTooNew, SchemaTooOld

if TYPE_CHECKING:
    from alembic.config import Config

_KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")  # oldest first
HEAD = _KNOWN[-1]


def register_tables() -> MetaData:
    """Every table of this code; importing the modules that define them is what registers them."""
    from sqlmodel import SQLModel

    import daemon.alerts
    import daemon.bells
    import daemon.control
    import daemon.engagement
    import daemon.inference.attempts
    import daemon.inference.counters
    import daemon.journal
    import daemon.revenue.booking
    import daemon.sources.archive
    import daemon.sources.published  # noqa: F401
    import ledger.models  # noqa: F401

    return SQLModel.metadata


def version(tx: Connection) -> str | None:
    """The database's revision; None when no migration ever ran on it."""
    if not inspect(tx).has_table("alembic_version"):
        return None
    found: str | None = tx.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return found


def require_current(tx: Connection) -> None:
    """
    Let pass only a database this code was written for.

    Raises:
        SchemaTooNew: its revision is one this code has never heard of.
        SchemaTooOld: it is at an earlier revision, or at none.
    """
    if _is_behind(found := version(tx)):
        stands = "has no schema yet" if found is None else f"is at revision {found}"
        raise SchemaTooOld(f"the database {stands}, this version needs {HEAD}")


def upgrade(database: Database) -> None:
    """
    Bring a database to HEAD, in one transaction: all of it or nothing.

    Raises:
        SchemaTooNew: a later version wrote it; nothing was touched.
        NoFullTextSearch: this SQLite cannot make the index; nothing was touched.
    """
    with database.read() as tx:
        if not _is_behind(version(tx)):
            return
    # Imported before the write lock is taken, so that nobody waits for the import.
    from alembic import command

    from daemon.sources.published import require_search

    config = alembic_config()
    with database.write() as tx:
        # Looked at again: another process may have migrated while we waited for the lock.
        if _is_behind(version(tx)):
            require_search(tx)
            config.attributes["connection"] = tx
            command.upgrade(config, HEAD)


def alembic_config() -> Config:
    """What an alembic.ini would say."""
    from alembic.config import Config

    config = Config()
    # The option goes through configparser, where a percent sign begins an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _is_behind(found: str | None) -> bool:
    """Whether migrations are missing; an unknown revision can only come from later code."""
    if found is not None and found not in _KNOWN:
        raise SchemaTooNew(f"the database is at revision {found}, this version knows {HEAD}")
    return found != HEAD
