"""
Whole histories: the same seed is the same history, faults on purpose are found, years go well.

`PENSTOCK_SIMULATE=101-140` lives other seeds than those of every day.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from daemon import journal, migrations, proof, reconcile, service
from ledger import store
from ledger.database import Database
from ledger.money import MicroCredits
from publishers.outbox import Outbox
from publishers.port import Intent
from tests.simulation import history
from tests.simulation.history import lived
from tests.simulation.minimise import minimised
from tests.simulation.plan import COUNTERS, DAY_S, Fault, Plan, drawn
from tests.test_migrations import migrated, schema_sql, structure

LONG = bool(os.environ.get("PENSTOCK_LONG"))


def simulate(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command that a failure names."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *args],
        env={**os.environ, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_same_seed_is_the_same_history_byte_for_byte(tmp_path: Path) -> None:
    logs = []
    for hash_seed in ("1", "2"):
        log = tmp_path / hash_seed
        done = simulate("--seed", "12", "--days", "6", "--log", str(log), PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stdout + done.stderr
        logs.append(log.read_bytes())
    assert logs[0] == logs[1]
    lines = logs[0].decode().splitlines()
    assert len(lines) > 300
    assert {"llm", "devto", "bluesky", "blog", "fault", "life"} <= {
        line.split()[1] for line in lines
    }


def test_what_a_history_puts_back_is_the_database_of_the_version_before(tmp_path: Path) -> None:
    before = migrations._KNOWN[-2]
    dump = Path(__file__).parents[1] / "databases" / f"{before}.sql"
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    with migrated(ours):
        pass
    schemas = []
    for path, statements in (
        (ours, ";".join(history.VERSION_BEFORE)),
        (theirs, dump.read_text(encoding="utf-8")),
    ):
        with closing(sqlite3.connect(path)) as file:
            file.executescript(statements)
        with closing(Database(f"sqlite:///{path}")) as database, database.read() as tx:
            assert migrations.version(tx) == before
            schemas.append((schema_sql(tx), structure(tx)))
    assert schemas[0] == schemas[1]


def test_another_seed_is_another_history() -> None:
    assert lived(drawn(1, 2)).checksum != lived(drawn(2, 2)).checksum


# Faults of the program, made on purpose, are found


PAID = {
    "PENSTOCK_MODELS_RESEARCH": "llm/good", "PENSTOCK_MODELS_WRITE": "llm/good",
    "PENSTOCK_MODELS_EDIT": "llm/good", "PENSTOCK_PUBLISHERS": "outbox,devto,bluesky",
    "PENSTOCK_APPROVAL": "auto", "PENSTOCK_TIMEZONE": "UTC", "PENSTOCK_RUN_BUDGET": "1",
    "PENSTOCK_DAILY_CAP": "5", "PENSTOCK_MONTHLY_CAP": "20", "PENSTOCK_RESERVE": "0",
    "PENSTOCK_HOLD_EXPIRY": "1", "PENSTOCK_SITE_URL": "", "PENSTOCK_MAX_POSTS_PER_DAY": "1",
    # A run on the first day, and one when all is calm.
    "PENSTOCK_PUBLISH_CRON": "0 9 23,26 11 *", "PENSTOCK_COLLECT_CRON": "15 */6 * * *",
    "PENSTOCK_FEED_CRON": "7 */6 * * *",
}  # fmt: skip
# The world begins at eight.
SLOT_S = 3_600


def plan(*faults: Fault) -> Plan:
    """A day with one run, and these faults."""
    return Plan(seed=1, days=1, settings=PAID, deposit="5", faults=faults)


def short(of: Plan) -> history.Told:
    return lived(of, afterwards_s=2 * DAY_S)


def test_a_day_without_faults_goes_well() -> None:
    told = short(plan())
    assert told.violations == []
    assert (told.tally.runs, told.tally.published, told.tally.kills) == (2, 6, 0)


def crash(number: int, side: str) -> Fault:
    """A kill at an effect of the first run."""
    return Fault(3, SLOT_S - 10, "crash_at_effect", 60, number, side)


def test_a_daemon_that_forgets_what_was_interrupted_is_found_and_told_by_one_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile, "note_interrupted", lambda tx: None)
    monkeypatch.setattr(reconcile, "expire", lambda *args, **kwargs: [])
    others = [Fault(number, number * 900, "site", 60, 0, "slow") for number in (1, 2)]

    def held(tried: Plan) -> bool:
        return any("is still held" in line for line in short(tried).violations)

    # Somewhere here a question is under way.
    failing = next(tried for n in range(20, 30) if held(tried := plan(*others, crash(n, "after"))))
    small = minimised(failing, held, tries_max=12)
    assert small.faults == failing.faults[-1:]


def test_a_daemon_that_writes_what_is_there_already_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(self: Outbox, intent: Intent) -> None:
        pass

    def always_new(self: Outbox, wanted: str, run: str) -> str:
        taken = {article["slug"] for article in self._articles()}
        return next(slug for n in count() if (slug := f"{wanted}-{n}") not in taken)

    monkeypatch.setattr(Outbox, "find", nothing)
    monkeypatch.setattr(Outbox, "_slug", always_new)
    found = [line for n in range(56, 70) for line in short(plan(crash(n, "before"))).violations]
    assert any("the outbox has 2 files" in line for line in found)


def test_books_that_are_a_millionth_off_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = store.settle

    def short_of_it(
        tx: Connection, hold: str, *, actual: MicroCredits, **rest: Any
    ) -> MicroCredits:
        return settle(tx, hold, actual=MicroCredits(max(0, actual.micro - 1)), **rest)

    monkeypatch.setattr(store, "settle", short_of_it)
    assert any("the books only" in line for line in short(plan()).violations)


@pytest.mark.parametrize("api", COUNTERS)
def test_a_counter_that_shows_a_doubt_to_be_none_is_booked_or_found(
    monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """On the second day, when its counter was read, an answer is lost, and charged in full."""
    lost = Fault(3, DAY_S + SLOT_S - 10, "model", 3_600, 1, "drop_after")
    counted = replace(
        plan(lost), days=3, counters={"llm": api},
        settings={**PAID, "PENSTOCK_PUBLISH_CRON": "0 9 24,28 11 *"},
    )  # fmt: skip
    assert short(counted).violations == []
    corrected = []

    def forgotten(*args: Any, amount: MicroCredits, **values: Any) -> bool:
        corrected.append(amount)
        return True

    monkeypatch.setattr(store, "correct", forgotten)
    assert any("llm tells of" in line for line in short(counted).violations)
    assert corrected


def test_a_desk_without_its_rules_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfaithful(seed: int) -> list[str]:
        fault = Fault(1, SLOT_S - 10, "unfaithful", DAY_S, 75)
        return short(replace(plan(fault), seed=seed)).violations

    seeds = range(1, 9)
    assert not [line for seed in seeds for line in unfaithful(seed)]
    monkeypatch.setattr(proof, "findings", lambda *args: [])
    assert [line for seed in seeds for line in unfaithful(seed)]


def test_an_intent_that_is_looked_for_daily_is_found_in_a_lull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble = [Fault(1, SLOT_S - 10, "devto", 6 * 3600, 8, "reset_before")]
    # Before this one there is a lull.
    trouble.append(Fault(2, SLOT_S + 600, "site", 60, 0, "slow"))
    told = short(plan(*trouble))
    assert (told.violations, told.tally.lulls) == ([], 1)
    monkeypatch.setattr(service, "HOURLY", timedelta(days=1))
    assert any("is still intended" in line for line in short(plan(*trouble)).violations)


# Killed at every boundary

# Counted from ten seconds before its slot, with its end; see the last test.
EFFECTS_OF_A_RUN = 90


def test_killed_at_every_boundary_of_a_run_all_promises_are_kept() -> None:
    """
    Every commit of journal, ledger and intents, and every request to a model or a platform.

    Killed before and after in turn; PENSTOCK_LONG=1 does both at each.
    """
    for number in range(1, EFFECTS_OF_A_RUN + 1):
        for side in ("before", "after") if LONG else (("before", "after")[number % 2],):
            told = short(plan(crash(number, side)))
            assert told.tally.kills == 1, number
            assert told.violations == [], (number, side, told.violations)


def test_a_run_has_no_more_boundaries_than_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    mortal: list[history.Mortality] = []
    ends: list[int] = []
    arm, finish_run = history.Mortality.arm, journal.finish_run

    def armed(self: history.Mortality, number: int, *, after: bool) -> None:
        mortal.append(self)
        ends.append(self.commits)
        arm(self, number, after=after)

    def finished(*args: Any, **kwargs: Any) -> None:
        ends.append(mortal[0].commits)
        finish_run(*args, **kwargs)

    monkeypatch.setattr(history.Mortality, "arm", armed)
    monkeypatch.setattr(journal, "finish_run", finished)
    assert short(plan(crash(9_999, "after"))).tally.kills == 0
    begun, first_end = ends[:2]
    assert 60 < first_end - begun < EFFECTS_OF_A_RUN
