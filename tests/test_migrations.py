"""What the migrations add up to, and what they refuse."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from daemon import migrations
from ledger.database import Database, create_schema
from ledger.errors import SchemaTooNew, SchemaTooOld

Open = Callable[[str], Database]

TRANSFER = (
    "INTO transfer (seq, id, at, action, debit, credit, amount_micro, code, hash) "
    "VALUES (1, 't1', '2026-01-01T00:00:00.000000Z', 'post', 'grants', 'treasury', 5, 'grant', 'h')"
)


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[Open]:
    opened: list[Database] = []

    def open_(name: str) -> Database:
        opened.append(Database(f"sqlite:///{tmp_path / name}.db"))
        return opened[-1]

    yield open_
    for database in opened:
        database.close()


@pytest.fixture
def database(open_database: Open) -> Database:
    return open_database("penstock")


def test_the_migrations_add_up_to_the_tables_of_the_code(open_database: Open) -> None:
    migrated, fresh = open_database("migrated"), open_database("fresh")
    migrations.upgrade(migrated)
    with fresh.write() as tx:
        create_schema(tx, migrations.register_tables())
    with migrated.read() as ours, fresh.read() as theirs:
        assert schema_sql(ours) == schema_sql(theirs)
        assert structure(ours) == structure(theirs)


def test_the_comparison_is_not_between_two_empty_schemas(database: Database) -> None:
    migrations.upgrade(database)
    with database.read() as tx:
        made = schema_sql(tx)
    tables = {name for kind, name in made if kind == "table"}
    assert tables == set(migrations.register_tables().tables)
    assert {"transfer", "account", "control"} <= tables
    assert all(sql.endswith("STRICT") for (kind, _), sql in made.items() if kind == "table")
    assert sum(kind == "trigger" for kind, _ in made) == 4


def test_the_newest_script_is_the_revision_the_code_knows() -> None:
    scripts = ScriptDirectory.from_config(migrations.alembic_config())
    assert scripts.get_heads() == [migrations.HEAD]
    known = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(known)) == migrations._KNOWN


def test_a_migrated_database_is_current(database: Database) -> None:
    migrations.upgrade(database)
    with database.read() as tx:
        migrations.require_current(tx)
        assert migrations.version(tx) == migrations.HEAD


def test_upgrading_twice_is_harmless(database: Database) -> None:
    migrations.upgrade(database)
    with database.write() as tx:
        tx.execute(text("INSERT INTO control VALUES ('pause', NULL, '2026-01-01')"))
    with database.read() as tx:
        before = dump(tx)
    migrations.upgrade(database)
    with database.read() as tx:
        assert dump(tx) == before


def test_a_database_without_a_schema_is_too_old(database: Database) -> None:
    with (
        database.read() as tx,
        pytest.raises(SchemaTooOld, match=r"no schema yet.*0001.*penstock init"),
    ):
        migrations.require_current(tx)


def test_a_database_whose_first_migration_never_finished_is_too_old(database: Database) -> None:
    stamp(database, None)
    with database.read() as tx, pytest.raises(SchemaTooOld, match="no schema yet"):
        migrations.require_current(tx)
    migrations.upgrade(database)
    with database.read() as tx:
        migrations.require_current(tx)


def test_an_earlier_revision_is_too_old(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(database)
    monkeypatch.setattr(migrations, "_KNOWN", ("0001", "0002"))
    monkeypatch.setattr(migrations, "HEAD", "0002")
    with database.read() as tx, pytest.raises(SchemaTooOld, match=r"revision 0001.*needs 0002"):
        migrations.require_current(tx)


def test_an_unknown_revision_is_too_new(database: Database) -> None:
    migrations.upgrade(database)
    stamp(database, "0999")
    with database.read() as tx, pytest.raises(SchemaTooNew, match=r"revision 0999.*knows 0001"):
        migrations.require_current(tx)


def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    stamp(database, "0999")
    with database.read() as tx:
        before = dump(tx)
    with pytest.raises(SchemaTooNew, match="install that version or a later one"):
        migrations.upgrade(database)
    with database.read() as tx:
        assert dump(tx) == before


def test_a_failing_migration_leaves_nothing_behind(database: Database) -> None:
    # It stands in the way of one of the last tables to be made.
    with database.write() as tx:
        tx.execute(text("CREATE TABLE publication (stray TEXT)"))
    with pytest.raises(OperationalError, match="publication already exists"):
        migrations.upgrade(database)
    with database.read() as tx:
        left = tx.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    assert left == ["publication"]


def test_a_migration_that_failed_succeeds_once_its_cause_is_gone(database: Database) -> None:
    with database.write() as tx:
        tx.execute(text("CREATE TABLE publication (stray TEXT)"))
    with pytest.raises(OperationalError):
        migrations.upgrade(database)
    with database.write() as tx:
        tx.execute(text("DROP TABLE publication"))
    migrations.upgrade(database)
    with database.read() as tx:
        migrations.require_current(tx)


def test_two_processes_may_upgrade_at_once(database: Database) -> None:
    # Opened once, so that the two race for the migration and not for the file's creation.
    with database.read() as tx:
        assert migrations.version(tx) is None
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    racers = [
        spawn.Process(target=upgrade_together, args=(str(database.path), barrier)) for _ in range(2)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    with database.read() as tx:
        migrations.require_current(tx)


def test_who_waited_for_another_upgrade_finds_it_done(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = open_database("penstock"), open_database("penstock")
    look = migrations.version
    looks: list[str | None] = []

    def look_then_be_overtaken(tx: Connection) -> str | None:
        looks.append(look(tx))
        if len(looks) == 1:
            monkeypatch.setattr(migrations, "version", look)
            migrations.upgrade(quick)
            monkeypatch.setattr(migrations, "version", look_then_be_overtaken)
        return looks[-1]

    monkeypatch.setattr(migrations, "version", look_then_be_overtaken)
    migrations.upgrade(slow)
    assert looks == [None, migrations.HEAD]


def test_a_current_database_costs_no_import_of_alembic(database: Database) -> None:
    migrations.upgrade(database)
    program = (
        "import sys\n"
        "from daemon.migrations import upgrade\n"
        "from ledger.database import Database\n"
        f"upgrade(Database({f'sqlite:///{database.path}'!r}))\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    root = Path(migrations.__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=60)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transfer SET memo = 'other'",
        "DELETE FROM transfer",
        f"INSERT OR REPLACE {TRANSFER}",
        f"REPLACE {TRANSFER}",
    ],
)
def test_a_migrated_journal_is_append_only(database: Database, statement: str) -> None:
    migrations.upgrade(database)
    with database.write() as tx:
        for account in ("grants", "treasury"):
            tx.execute(text(f"INSERT INTO account VALUES ('{account}', 'x', 0, 0, 0, 0)"))
        tx.execute(text(f"INSERT {TRANSFER}"))
        before = dump(tx)
    with pytest.raises(IntegrityError, match="append-only"), database.write() as tx:
        tx.execute(text(statement))
    with database.read() as tx:
        assert dump(tx) == before


def test_a_migrated_account_is_kept_for_ever(database: Database) -> None:
    migrations.upgrade(database)
    with database.write() as tx:
        tx.execute(text("INSERT INTO account VALUES ('treasury', 'x', 0, 0, 0, 0)"))
    with pytest.raises(IntegrityError, match="kept for ever"), database.write() as tx:
        tx.execute(text("DELETE FROM account"))


def test_there_is_no_way_back_but_a_backup() -> None:
    for script in ScriptDirectory.from_config(migrations.alembic_config()).walk_revisions():
        with pytest.raises(NotImplementedError, match="restore a backup"):
            script.module.downgrade()


def upgrade_together(path: str, barrier: Barrier) -> None:
    database = Database(f"sqlite:///{path}")
    barrier.wait(60)
    migrations.upgrade(database)
    database.close()


def stamp(database: Database, revision: str | None) -> None:
    """Leave Alembic's mark as some other version would."""
    with database.write() as tx:
        tx.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num TEXT)"))
        tx.execute(text("DELETE FROM alembic_version"))
        if revision is not None:
            tx.execute(text("INSERT INTO alembic_version VALUES (:it)"), {"it": revision})


def schema_sql(tx: Connection) -> dict[tuple[str, str], str]:
    """The text of every table, index and trigger, by kind and name."""
    rows = tx.execute(
        text("SELECT type, name, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'")
    )
    # An index that a constraint made has no text of its own; `structure` covers it.
    return {(kind, name): " ".join(sql.split()) for kind, name, sql in rows if sql is not None}


def structure(tx: Connection) -> dict[str, dict[str, Any]]:
    """What SQLite itself makes of every table, whatever its text looks like."""
    tables = tx.execute(
        text("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    ).all()
    return {
        table: {
            "strict": strict,
            "columns": pragma(tx, "table_xinfo", table),
            "foreign_keys": pragma(tx, "foreign_key_list", table),
            "indexes": {
                index[1:]: pragma(tx, "index_xinfo", index[1])
                for index in pragma(tx, "index_list", table)
            },
        }
        for table, strict in tables
        if table != "alembic_version"
    }


def pragma(tx: Connection, name: str, argument: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in tx.exec_driver_sql(f"PRAGMA {name}('{argument}')")]


def dump(tx: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, the schema's own included."""
    tables = tx.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
    return {
        table: [tuple(row) for row in tx.exec_driver_sql(f'SELECT * FROM "{table}"')]
        for table in ("sqlite_master", *tables)
    }
