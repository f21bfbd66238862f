"""
How fast the books are, as ratios taken in one run.

    .venv/bin/python -m benchmarks.ledger [--transfers 1000000] [--days 365] [--folder DIR]

The yardstick for writing is the sqlite3 module doing the same work: the same schema with its
triggers, the same questions asked and the same rows written, as durable. The yardstick for
starting is `python -c "import sqlmodel"`. Prints Markdown; docs/benchmarks.md keeps a run of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon import migrations
from ledger import audit, store
from ledger.chain import GENESIS, SEALED, seal
from ledger.database import Database
from ledger.money import MicroCredits
from ledger.types import to_text

PAIRS = 400
ROUNDS = 5
MODEL = "inference:llm"
HELD, PAID = 5_000, 3_000
ATTEMPTS_PER_RUN = 9
BIG = MicroCredits(10**14)


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(f"{os.cpu_count()} cores, CPython {sys.version.split()[0]}, SQLite", end=" ")
        print(sqlite3.sqlite_version, "\n")
        pairs(Path(folder))
        histories(Path(folder), args.transfers, args.days)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[1])
    parser.add_argument("--transfers", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365, help="that the history covers")
    parser.add_argument("--folder", help="where to put the databases; a real disk")
    return parser.parse_args()


# Holding and settling


def pairs(folder: Path) -> None:
    """Hold and settle, each in a durable transaction, taking turns with the yardstick."""
    ours, raw = [], []
    with opened(folder / "ours.db") as database, opened(folder / "raw.db") as other:
        other.close()
        with closing(_raw_connection(folder / "raw.db")) as connection:
            connection.execute(_RAW_ACCOUNT)
            for turn in range(ROUNDS):
                ours.append(_rate(lambda n: pair(database, n), turn))
                raw.append(_rate(lambda n: raw_pair(connection, n), turn))
    for path in (folder / "ours.db", folder / "raw.db"):
        with opened(path) as database, database.read() as tx:
            report = audit.check(tx)
            assert report.ok, report.problems
    ratios = [a / b for a, b in zip(ours, raw, strict=True)]
    print("| hold-and-settle pairs a second, durable | penstock | sqlite3, same work | ratio |")
    print("|---|---:|---:|---:|")
    print(
        f"| median of {ROUNDS} rounds of {PAIRS} | {statistics.median(ours):.0f}"
        f" | {statistics.median(raw):.0f} | {statistics.median(ratios):.2f} |\n"
    )


def _rate(act: Callable[[int], None], turn: int) -> float:
    started = time.perf_counter()
    for number in range(turn * PAIRS, (turn + 1) * PAIRS):
        act(number)
    return PAIRS / (time.perf_counter() - started)


def pair(database: Database, number: int) -> None:
    """What the meter does for one request."""
    now = datetime.now(UTC)
    run = f"r{number // ATTEMPTS_PER_RUN}"
    caps = (
        store.Cap("run", BIG, run=run),
        store.Cap("day", BIG, since=now - timedelta(days=1)),
        store.Cap("month", BIG, since=now - timedelta(days=30)),
    )
    with database.write() as tx:
        store.hold(
            tx, id=f"bench:{number}", account=MODEL, amount=MicroCredits(HELD), at=now,
            limits=store.Limits(MicroCredits(100_000), caps), run=run, attempt=f"{run}.{number}",
        )  # fmt: skip
    with database.write() as tx:
        store.settle(tx, f"bench:{number}", actual=MicroCredits(PAID), at=now)


_ADD = (
    "INSERT INTO transfer (seq, id, at, action, debit, credit, amount_micro, code, hold_id, run,"
    " attempt, ref, memo, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


_RAW_ACCOUNT = f"INSERT OR IGNORE INTO account VALUES ('{MODEL}', 'expense', 0, 0, 0, 0)"


def raw_pair(connection: sqlite3.Connection, number: int) -> None:
    """The same, by hand."""
    now = datetime.now(UTC)
    at, run, hold = to_text(now), f"r{number // ATTEMPTS_PER_RUN}", f"bench:{number}"
    attempt = f"{run}.{number}"
    ask, do = _asker(connection), connection.execute
    do("BEGIN IMMEDIATE")
    assert ask("SELECT * FROM transfer WHERE id = ?", hold) is None
    treasury = ask("SELECT * FROM account WHERE name = 'treasury'")
    assert treasury[2] - treasury[3] - treasury[5] - 100_000 >= HELD
    for days in (1, 30):
        since = to_text(now - timedelta(days=days))
        assert sum(_raw_spent(ask, since)) + HELD <= BIG.micro
    assert (
        ask(
            "SELECT coalesce(sum(CASE WHEN credit = 'treasury' THEN amount_micro"
            " ELSE -amount_micro END), 0) FROM transfer"
            " WHERE run = ? AND action IN ('post', 'settle')",
            run,
        )[0]
        + ask("SELECT coalesce(sum(amount_micro), 0) FROM open_hold WHERE run = ?", run)[0]
        + HELD
        <= BIG.micro
    )
    _raw_append(
        connection, (hold, at, "hold", MODEL, "treasury", HELD, "inference", None, run, attempt)
    )
    do(
        "UPDATE account SET debits_pending_micro = debits_pending_micro + ? WHERE name = ?",
        (HELD, MODEL),
    )
    do(
        "UPDATE account SET credits_pending_micro = credits_pending_micro + ?"
        " WHERE name = 'treasury'",
        (HELD,),
    )
    do("INSERT INTO open_hold VALUES (?, ?, ?, ?, ?, ?)", (hold, at, MODEL, HELD, run, attempt))
    do("COMMIT")

    do("BEGIN IMMEDIATE")
    held = ask("SELECT * FROM open_hold WHERE id = ?", hold)
    _raw_append(
        connection,
        (f"{hold}:settle", at, "settle", held[2], "treasury", PAID, "inference", hold, *held[4:]),
    )
    for side, name in (("debits", MODEL), ("credits", "treasury")):
        do(
            f"UPDATE account SET {side}_posted_micro = {side}_posted_micro + ?,"
            f" {side}_pending_micro = {side}_pending_micro - ? WHERE name = ?",
            (PAID, held[3], name),
        )
    do("DELETE FROM open_hold WHERE id = ?", (hold,))
    do(
        "INSERT INTO account_hour VALUES (?, ?, ?, 0) ON CONFLICT (hour, account)"
        " DO UPDATE SET debits_micro = debits_micro + excluded.debits_micro",
        (at[:13], MODEL, PAID),
    )
    do("COMMIT")


def _raw_spent(ask: Callable[..., Any], since: str) -> tuple[int, int, int]:
    return (
        ask(
            "SELECT coalesce(sum(debits_micro), 0) FROM account_hour WHERE hour > ?"
            " AND account >= 'inference:' AND account < 'inference;'",
            since[:13],
        )[0],
        ask(
            "SELECT coalesce(sum(amount_micro), 0) FROM transfer WHERE at > ? AND at < ?"
            " AND action IN ('post', 'settle') AND debit >= 'inference:' AND debit < 'inference;'",
            since,
            f"{since[:13]};",
        )[0],
        ask("SELECT coalesce(sum(amount_micro), 0) FROM open_hold WHERE at > ?", since)[0],
    )


def _raw_append(connection: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    seq, previous = connection.execute(
        "SELECT seq, hash FROM transfer ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    row = (seq + 1, *values, None, None)
    connection.execute(_ADD, (*row, seal(previous, row)))


def _asker(connection: sqlite3.Connection) -> Callable[..., Any]:
    return lambda sql, *values: connection.execute(sql, values).fetchone()


def _raw_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("foreign_keys = ON", "recursive_triggers = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


# Long histories


def histories(folder: Path, transfers: int, days: int) -> None:
    """Reading, checking and reporting, from a thousand transfers to the whole history."""
    sizes = [size for size in (1_000, 10_000, 100_000) if size < transfers] + [transfers]
    print(f"| transfers, over {days} days | balance | pair | check | check, a transfer | status |")
    print("|---:|---:|---:|---:|---:|---:|")
    rows = []
    for size in sizes:
        rows.append(history(folder / f"{size}", size, days))
        print(
            f"| {size:,} | {rows[-1]['balance'] * 1e6:.0f} µs | {rows[-1]['pair'] * 1e3:.2f} ms"
            f" | {rows[-1]['check']:.2f} s | {rows[-1]['check'] / size * 1e6:.1f} µs"
            f" | {rows[-1]['status']:.2f} × |",
            flush=True,
        )
    first, last = rows[0], rows[-1]
    print(f"\nBalance, largest over smallest: {last['balance'] / first['balance']:.2f}.")
    print(f"Hold and settle, largest over smallest: {last['pair'] / first['pair']:.2f}.")
    print(f"`penstock status --json` over `import sqlmodel`: {last['status']:.2f}.")


def history(folder: Path, size: int, days: int) -> dict[str, float]:
    """One publication's life, made in bulk, and how long it takes to look at it."""
    folder.mkdir()
    path = folder / "penstock.db"
    with opened(path) as database:
        fill(path, size, days)
        found = {"balance": statistics.median(_balance_s(database) for _ in range(ROUNDS))}
        started = time.perf_counter()
        with database.read() as tx:
            report = audit.check(tx)
        found["check"] = time.perf_counter() - started
        assert report.ok, report.problems
        assert report.transfers == size
        pair(database, -1)
        found["pair"] = 1 / _rate(lambda n: pair(database, n), 0)
    found["status"] = statistics.median(_status_ratio(folder) for _ in range(2 * ROUNDS + 1))
    path.unlink()
    return found


def _balance_s(database: Database) -> float:
    """Seconds for one reading of the balance, the transaction around it included."""
    count = 200
    started = time.perf_counter()
    for _ in range(count):
        with database.read() as tx:
            store.balance(tx)
    return (time.perf_counter() - started) / count


def _status_ratio(folder: Path) -> float:
    env = {
        "PATH": os.environ["PATH"],
        "PENSTOCK_STATE_DIR": str(folder),
        "PENSTOCK_FEEDS": "https://example.com/feed.xml",
        "PENSTOCK_NICHE": "benchmarks",
        "PENSTOCK_PROVIDER_LLM_URL": "http://127.0.0.1:1/v1",
        "PENSTOCK_PRICES": "llm/good=3,0.3,15",
        **{f"PENSTOCK_MODELS_{role}": "llm/good" for role in ("RESEARCH", "WRITE", "EDIT")},
    }
    penstock = Path(sys.executable).with_name("penstock")
    yardstick = _wall_s([sys.executable, "-c", "import sqlmodel"], env)
    return _wall_s([str(penstock), "status", "--json"], env) / yardstick


def _wall_s(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    if "--json" in command:
        assert json.loads(done.stdout)["balance"]["posted"] != "0.000000"
    return time.perf_counter() - started


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """A database at the newest schema, with something in it to spend."""
    database = Database(f"sqlite:///{path}")
    try:
        migrations.upgrade(database)
        with database.write() as tx:
            store.deposit(tx, amount=MicroCredits(10**12), ref="first", at=datetime.now(UTC))
        yield database
    finally:
        database.close()


def fill(path: Path, size: int, days: int) -> None:
    """Append holds and settlements up to `size` transfers, with their runs and attempts."""
    start = datetime.now(UTC) - timedelta(days=days)
    step = timedelta(days=days) / size
    with closing(_raw_connection(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        (previous,) = connection.execute("SELECT hash FROM transfer").fetchone()
        assert previous != GENESIS
        transfers, attempts, runs = [], [], []
        for seq in range(2, size + 1, 2):
            number = seq // 2
            run = f"r{number // ATTEMPTS_PER_RUN:09d}"
            attempt, at = f"{run}.{number}", to_text(start + step * seq)
            hold = f"hold:{attempt}"
            kept = (MODEL, "treasury")
            for row in (
                (seq, hold, at, "hold", *kept, HELD, "inference", None, run, attempt, None, None),
                (seq + 1, f"{hold}:settle", at, "settle", *kept, PAID, "inference", hold, run,
                 attempt, None, None),
            )[: size - seq + 1]:  # fmt: skip
                previous = seal(previous, row)
                transfers.append((*row, previous))
            # An odd history ends on a hold that is still open.
            cost = PAID if seq < size else None
            attempts.append((attempt, at, run, hold, cost))
            if number % ATTEMPTS_PER_RUN == 0:
                runs.append((run, at, at))
        assert len(SEALED) == len(transfers[0]) - 1
        connection.execute(_RAW_ACCOUNT)
        connection.executemany(_ADD, transfers)
        connection.executemany(
            "INSERT INTO attempt (id, at, run, step, role, provider, model, outcome, http_status,"
            " usage, price_input, price_cached, price_output, price_source, hold, cost_micro,"
            " answer) VALUES (?, ?, ?, 'notes-1', 'research', 'llm', 'good', 'ok', 200,"
            f" '{{}}', 1, 1, 1, 'bench', ?, ?, '{'x' * 200}')",
            attempts,
        )
        connection.executemany(
            "INSERT INTO run (id, state, outcome, tier, kind, title, budget_micro, started_at,"
            " finished_at) VALUES (?, 'finished', 'published', 'standard', 'article', 'A title',"
            " 250000, ?, ?)",
            runs,
        )
        _sum_up(connection)
        connection.execute("COMMIT")
        # Else the first measured pair pays for writing all of this back.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _sum_up(connection: sqlite3.Connection) -> None:
    """The sums that are kept of the rows, as the schema's own migration makes them."""
    connection.execute(
        "INSERT INTO open_hold SELECT id, at, debit, amount_micro, run, attempt FROM transfer AS h"
        " WHERE action = 'hold' AND NOT EXISTS (SELECT 1 FROM transfer WHERE hold_id = h.id)"
    )
    connection.execute(
        "INSERT INTO account_hour SELECT substr(at, 1, 13), debit, sum(amount_micro), 0"
        " FROM transfer WHERE action = 'settle' GROUP BY 1"
    )
    posted, pending = (
        connection.execute(f"SELECT coalesce(sum(amount_micro), 0) FROM {source}").fetchone()[0]
        for source in ("transfer WHERE action = 'settle'", "open_hold")
    )
    for side, name in (("debits", MODEL), ("credits", "treasury")):
        connection.execute(
            f"UPDATE account SET {side}_posted_micro = ?, {side}_pending_micro = ? WHERE name = ?",
            (posted, pending, name),
        )


if __name__ == "__main__":
    main()
