"""What the migrations add up to, and what they refuse."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from daemon import migrations
from ledger import audit, posting, store
from ledger.database import APPLICATION_ID, Database, create_schema
from ledger.errors import SchemaTooNew, SchemaTooOld
from tests.cli_helpers import KEY, PRICE_LINE, PRICES, Desk, checked_books, ladder
from tests.doubles.model import ModelDouble
from tests.doubles.wire import serve
from tests.simulation.history import VERSION_BEFORE

Open = Callable[[str], Database]

DUMPS = sorted(Path(__file__).with_name("databases").glob("*.sql"))
OLD_DUMPS = [path for path in DUMPS if path.stem != migrations.HEAD]

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
    # The index is a table of FTS5's, which keeps it in further ones, none of them STRICT.
    index = {key for key in made if key[1].startswith("article_index")}
    assert {name for kind, name in index if kind == "table"} > {"article_index"}
    tables = {name for kind, name in made.keys() - index if kind == "table"}
    assert tables == set(migrations.register_tables().tables)
    assert {"transfer", "account", "control"} <= tables
    assert all(made["table", name].endswith("STRICT") for name in tables)
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
        pytest.raises(SchemaTooOld, match=rf"no schema yet.*{migrations.HEAD}.*penstock init"),
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
    found = migrations.HEAD
    monkeypatch.setattr(migrations, "_KNOWN", (*migrations._KNOWN, "0998"))
    monkeypatch.setattr(migrations, "HEAD", "0998")
    with database.read() as tx, pytest.raises(SchemaTooOld, match=f"revision {found}.*needs 0998"):
        migrations.require_current(tx)


def test_an_unknown_revision_is_too_new(database: Database) -> None:
    migrations.upgrade(database)
    stamp(database, "0999")
    refused = pytest.raises(SchemaTooNew, match=f"revision 0999.*knows {migrations.HEAD}")
    with database.read() as tx, refused:
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


# Databases of past versions


def test_every_revision_but_the_newest_left_a_database_to_migrate() -> None:
    # A dump can only be made by its own version, so it must be there before the next revision is.
    assert {path.stem for path in DUMPS} >= set(migrations._KNOWN[:-1])


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem)
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A database file of a past version, where a `Desk` at `tmp_path` looks for it."""
    return loaded(request.param, tmp_path)


@pytest.fixture(params=OLD_DUMPS, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same, of those that must be migrated."""
    return loaded(request.param, tmp_path)


def loaded(dump_file: Path, home: Path) -> Path:
    state = home / "state"
    state.mkdir(mode=0o700)
    with closed(state / "penstock.db") as db:
        db.executescript(dump_file.read_text(encoding="utf-8"))
    return state / "penstock.db"


def test_a_past_database_is_whole_and_what_its_name_says(
    past: Path, request: pytest.FixtureRequest
) -> None:
    with closed(past) as db:
        assert rows(db, "PRAGMA application_id") == [(APPLICATION_ID,)]
        assert rows(db, "PRAGMA journal_mode") == [("wal",)]
        assert rows(db, "PRAGMA integrity_check") == [("ok",)]
        assert rows(db, "PRAGMA foreign_key_check") == []
        (revision,) = rows(db, "SELECT version_num FROM alembic_version")[0]
        assert revision in migrations._KNOWN
        assert f"[{revision}]" in request.node.name
        # What `databases/README.md` promises of every file.
        codes = {code for (code,) in rows(db, "SELECT code FROM transfer")}
        outcomes = {outcome for (outcome,) in rows(db, "SELECT outcome FROM attempt")}
        states = {state for (state,) in rows(db, "SELECT state FROM run")}
        assert codes >= {"deposit", "revenue", "inference", "overrun"}
        assert outcomes >= {"ok", "refused", "unknown", None}
        assert states >= {"finished", "failed", "running"}
        assert len(open_holds(db)) > len(rows(db, "SELECT 1 FROM attempt WHERE outcome IS NULL"))


def test_no_command_but_a_run_touches_an_old_database_and_each_says_what_to_do(
    old: Path, tmp_path: Path
) -> None:
    before, desk = old.read_bytes(), Desk(tmp_path)
    commands = ("status", "ledger entries", "runs list", "ledger deposit 1 --ref x", "pause")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda words: desk.run(*words.split()), commands))
    for result in results:
        assert result.code == 2, result
        assert "penstock init" in result.err
        assert f"needs {migrations.HEAD}" in result.err
    assert old.read_bytes() == before


def test_migrating_loses_and_changes_nothing_that_was_there(old: Path) -> None:
    with closed(old) as db:
        before = contents(db)
        held, spending = open_holds(db), spending_by_the_rows(db)
    with migrated(old) as database, database.read() as tx:
        report = audit.check(tx)
        assert report.ok, report.problems
        assert {hold.id: hold.amount.micro for hold in posting.open_holds(tx)} == held
        assert store.balance(tx).held.micro == sum(held.values())
        # Just before, at and after every entry, where a wrong sum of an hour would show.
        assert spending == {since: spent_since(tx, since) for since in spending}
    with closed(old) as db:
        assert contents(db, {table: columns for table, (columns, _) in before.items()}) == before


def test_an_old_database_is_migrated_to_the_very_schema_of_a_new_one(
    old: Path, open_database: Open
) -> None:
    new = open_database("new")
    migrations.upgrade(new)
    with migrated(old) as database, database.read() as ours, new.read() as theirs:
        assert schema_sql(ours) == schema_sql(theirs)
        assert structure(ours) == structure(theirs)


def test_a_migrated_database_still_refuses_to_be_edited(old: Path) -> None:
    with migrated(old) as database:
        for statement in (
            "UPDATE transfer SET memo = 'other' WHERE seq = 1",
            "DELETE FROM transfer WHERE seq = 1",
            "INSERT OR REPLACE INTO transfer SELECT * FROM transfer WHERE seq = 1",
            "DELETE FROM account WHERE name = 'treasury'",
        ):
            refused = pytest.raises(IntegrityError, match=r"append-only|kept for ever")
            with refused, database.write() as tx:
                tx.execute(text(statement))


def test_migrating_an_old_database_twice_is_harmless(old: Path) -> None:
    with migrated(old) as database:
        with database.read() as tx:
            before = dump(tx)
        migrations.upgrade(database)
        with database.read() as tx:
            assert dump(tx) == before


def test_what_a_history_puts_back_is_the_version_before(database: Database) -> None:
    migrations.upgrade(database)
    with database.read() as tx:
        newest = structure(tx)
    with closed(Path(database.path)) as db:
        db.executescript(";".join(VERSION_BEFORE))
    with database.read() as tx:
        assert migrations.version(tx) == migrations._KNOWN[-2]
    migrations.upgrade(database)
    with database.read() as tx:
        assert structure(tx) == newest


class Cut(BaseException):
    """The migration ended here."""


def at_statement(database: Database, number: int, act: Callable[[], None]) -> list[int]:
    """Act before the statement of that number, from 1; counts them in the list it returns."""
    count = [0]

    def look(*_: Any) -> None:
        count[0] += 1
        if count[0] == number:
            act()

    event.listen(database._engine, "before_cursor_execute", look)
    return count


def cut() -> None:
    raise Cut


def test_a_migration_cut_off_before_any_statement_leaves_the_old_version_whole(old: Path) -> None:
    before = script(old)
    for number in range(1, 1000):
        database = Database(f"sqlite:///{old}")
        at_statement(database, number, cut)
        try:
            migrations.upgrade(database)
        except Cut:
            assert script(old) == before
        else:
            break
        finally:
            database.close()
    assert number > 5, "the migration was cut off nowhere"
    with migrated(old) as database, database.read() as tx:
        assert audit.check(tx).ok


def test_a_migration_killed_in_the_middle_leaves_the_old_version_whole(
    old: Path, tmp_path: Path
) -> None:
    before, last = script(old), statements_of_a_migration(old, tmp_path)
    spawn = multiprocessing.get_context("spawn")
    for number in (last // 2, last):
        victim = spawn.Process(target=die_migrating, args=(str(old), number))
        victim.start()
        victim.join(60)
        assert victim.exitcode == -signal.SIGKILL
        unfinished = old.with_name("penstock.db-wal").stat().st_size
        assert script(old) == before
    # What only adds a column writes no more than the cache holds.
    assert unfinished > 0 or last < 10, "no page of the migration had reached the disk"
    with migrated(old) as database, database.read() as tx:
        migrations.require_current(tx)
        assert audit.check(tx).ok


def statements_of_a_migration(old: Path, tmp_path: Path) -> int:
    copy = tmp_path / "counted.db"
    copy.write_bytes(old.read_bytes())
    database = Database(f"sqlite:///{copy}")
    try:
        count = at_statement(database, 0, cut)
        migrations.upgrade(database)
        return count[0]
    finally:
        database.close()


def die_migrating(path: str, number: int) -> None:
    database = Database(f"sqlite:///{path}")
    at_statement(database, number, lambda: os.kill(os.getpid(), signal.SIGKILL))

    @event.listens_for(database._engine, "connect")
    def spill(connection: Any, _record: Any) -> None:
        # With a cache of five pages SQLite writes to disk long before the commit.
        connection.execute("PRAGMA cache_size = 5")

    migrations.upgrade(database)


def test_the_next_run_migrates_an_old_database_and_goes_on_with_what_was_interrupted(
    old: Path, tmp_path: Path
) -> None:
    with closed(old) as db:
        entries = {i for (i,) in rows(db, "SELECT id FROM transfer WHERE action <> 'void'")}
        attempts = {i for (i,) in rows(db, "SELECT id FROM attempt")}
        flying = {i for (i,) in rows(db, "SELECT id FROM attempt WHERE outcome IS NULL")}
        (run,) = rows(db, "SELECT id FROM run WHERE state = 'running'")[0]
        answers = rows(db, f"SELECT step FROM attempt WHERE run = '{run}' AND outcome = 'ok'")
        spent = max(spending_by_the_rows(db).values())
        corrected = rows(db, "SELECT amount_micro FROM transfer WHERE credit LIKE 'inference:%'")
    model = ModelDouble(dict(PRICES), key=KEY)
    with serve(model) as provider:
        desk = Desk(
            tmp_path,
            {
                "PENSTOCK_NICHE": "SQLite on small servers, write-ahead logging",
                "PENSTOCK_FEEDS": "http://127.0.0.1:9/feed.xml",
                "PENSTOCK_PROVIDER_LLM_URL": f"{provider.url}/v1",
                "PENSTOCK_PROVIDER_LLM_KEY": KEY,
                "PENSTOCK_PRICES": PRICE_LINE,
                "PENSTOCK_RUN_BUDGET": "5",
                "PENSTOCK_WORDS": "400-900",
                # What was in doubt may go out first, and is an article of today, too; and on the
                # day it was made, what the file spent is of today.
                "PENSTOCK_MAX_POSTS_PER_DAY": "9",
                "PENSTOCK_DAILY_CAP": "5",
                **ladder("llm/alpha > llm/beta"),
            },
        )
        paused = desk.once()
        status, shown, listed = desk.read_all("status", "ledger entries", "runs list")
        resumed, gone_on = desk.run("resume"), desk.once()
    assert (paused.code, resumed.code, gone_on.code) == (5, 0, 0), gone_on
    assert status["paused"] is True
    assert entries <= {entry["id"] for entry in shown}
    assert run in {row["run"] for row in listed}
    assert gone_on.json["run"] == run
    found = checked_books(desk)
    later = [attempt for attempt in found.attempts if attempt["id"] not in attempts]
    assert flying <= {attempt["id"] for attempt in found.outcomes("unknown")}
    # What may have been billed is still held, or charged by now: a hold's age is the file's.
    better_known = sum(amount for (amount,) in corrected)
    assert found.booked + found.held == spent - better_known + model.billed_micro
    # No answer was bought a second time.
    assert len(later) == len(model.requests)
    assert not {step for (step,) in answers} & {attempt["step"] for attempt in later}


def migrated(path: Path) -> closing[Database]:
    database = Database(f"sqlite:///{path}")
    migrations.upgrade(database)
    return closing(database)


def closed(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path))


def script(path: Path) -> str:
    """The whole database as SQL."""
    with closed(path) as db:
        return "\n".join(db.iterdump())


def rows(db: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]]:
    return db.execute(statement).fetchall()


def contents(
    db: sqlite3.Connection, tables: dict[str, str] | None = None
) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """Columns and rows of every table but Alembic's, as SQL literals, so that types count too."""
    if tables is None:
        found = rows(db, "SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {
            name: ", ".join(
                f"quote({column[1]})" for column in rows(db, f"PRAGMA table_info({name})")
            )
            for (name,) in found
            if name != "alembic_version"
        }
    return {
        name: (columns, rows(db, f"SELECT {columns} FROM {name} ORDER BY {columns}"))
        for name, columns in tables.items()
    }


def open_holds(db: sqlite3.Connection) -> dict[str, int]:
    """Micro-credits by hold, from the journal alone."""
    return dict(
        rows(
            db,
            "SELECT id, amount_micro FROM transfer AS held WHERE action = 'hold'"
            " AND NOT EXISTS (SELECT 1 FROM transfer WHERE hold_id = held.id)",
        )
    )


def spending_by_the_rows(db: sqlite3.Connection) -> dict[datetime, int]:
    """Micro-credits spent or held since many moments, from the journal alone."""
    held = open_holds(db)
    spends = [
        (datetime.fromisoformat(at), amount)
        for name, at, action, debit, amount in rows(
            db, "SELECT id, at, action, debit, amount_micro FROM transfer"
        )
        if debit.startswith("inference:") and (action in ("post", "settle") or name in held)
    ]
    moments = {
        at + timedelta(microseconds=by)
        for (text_,) in rows(db, "SELECT DISTINCT at FROM transfer")
        for at in [datetime.fromisoformat(text_)]
        for by in (-1, 0, 1)
    }
    return {since: sum(amount for at, amount in spends if at > since) for since in moments}


def spent_since(tx: Connection, since: datetime) -> int:
    return store.spent(tx, since=since).micro


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
