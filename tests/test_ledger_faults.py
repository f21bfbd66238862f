"""On a disk that fails at any call, a transfer is booked whole or not at all, and once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import BROKEN, CREATION, FAULTS, VERBS

ROOT = Path(__file__).parents[1]
# What a commit, a checkpoint and an opening cannot do without: each of these calls has failed.
COMMITS = {"write books.db-wal", "fdatasync books.db-wal"}
CHECKPOINTS = {"write books.db", "fdatasync books.db"}
OPENS = {"create books.db-wal", "create books.db-shm", "write books.db-shm"}
CREATES = {"create books.db", "create books.db-journal", "unlink books.db-journal"}


@pytest.fixture(scope="module")
def found(library: Path) -> dict[str, dict[str, Any]]:
    """By part and act, what became of every case; two processes share the work."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults", library, library.parent / parts[0], *parts],
            cwd=ROOT,
            env=os.environ | {"LD_PRELOAD": str(library)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for parts in (("quiet", "creation"), ("live", "broken"))
    ]
    found: dict[str, dict[str, Any]] = {}
    try:
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert err == ""
            found |= json.loads(out)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return found


def assert_whole_or_absent(tally: dict[str, Any]) -> None:
    findings = tally["findings"]
    assert not findings, f"{len(findings)} findings, such as\n" + "\n".join(findings[:10])


def assert_tried(tally: dict[str, Any], calls: set[str]) -> None:
    """The faults did strike, and where it matters; else the absence of findings means nothing."""
    assert min(tally["calls"][str(fault)] for fault in FAULTS) > 3, tally
    assert calls <= tally["failed_calls"].keys(), tally
    # Some faults came before the point of no return, some after, some at it.
    assert {"StorageFull", "StorageError", "passed"} <= tally["answers"].keys(), tally
    assert tally["there_after_all"] > 0, tally


@pytest.mark.parametrize("verb", VERBS)
def test_a_book_opened_on_a_failing_disk_takes_a_transfer_whole_or_not_at_all(
    found: dict[str, dict[str, Any]], verb: str
) -> None:
    tally = found["quiet"][verb]
    assert_tried(tally, OPENS | COMMITS | CHECKPOINTS)
    assert_whole_or_absent(tally)


@pytest.mark.parametrize("verb", VERBS)
def test_a_book_in_use_on_a_failing_disk_takes_a_transfer_whole_or_not_at_all(
    found: dict[str, dict[str, Any]], verb: str
) -> None:
    tally = found["live"][verb]
    assert_tried(tally, COMMITS | CHECKPOINTS)
    assert_whole_or_absent(tally)


@pytest.mark.parametrize("act", CREATION)
def test_a_book_that_could_not_be_made_is_made_by_the_next_attempt(
    found: dict[str, dict[str, Any]], act: str
) -> None:
    tally = found["creation"][act]
    assert_tried(tally, CREATES | OPENS | COMMITS | CHECKPOINTS)
    assert_whole_or_absent(tally)


@pytest.mark.parametrize("act", BROKEN)
def test_code_that_books_carelessly_is_found_out(
    found: dict[str, dict[str, Any]], act: str
) -> None:
    _, words = BROKEN[act]
    findings = found["broken"][act]["findings"]
    assert [finding for finding in findings if words in finding], findings


def test_faults_strike_thousands_of_times(found: dict[str, dict[str, Any]]) -> None:
    assert sum(tally["fired"] for part in found.values() for tally in part.values()) > 2000
