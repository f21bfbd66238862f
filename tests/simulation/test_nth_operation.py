"""
The n-th operation of a whole run fails, for n = 1, 2, 3 … until a run passes untouched.

Whatever fails, there is one article at each destination in the end, the books balance and cover the
bill, and nothing is held, unconfirmed or half there (`nth.py`). Here some n are tried; all are when
PENSTOCK_LONG=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.journal import RunOutcome
from ledger.errors import StorageFull
from tests import faults
from tests.simulation.nth import (
    WAYS,
    At,
    Failing,
    Nth,
    Tally,
    Way,
    Whole,
    case,
    enumerated,
    judge,
    prepare,
)

LONG = os.environ.get("PENSTOCK_LONG") == "1"
ROOT = Path(__file__).parents[2]
THINNED = "NOT RUN: all n take more than an hour, and some were tried; set PENSTOCK_LONG=1"
OVER_THE_WIRE = (*WAYS[At.REQUEST], *WAYS[At.LOOKUP])
# What ends a command in each of these; some hit a step that has an answer to it.
IN_THE_DATABASE = {
    Way.BUSY: "StorageBusy",
    Way.FULL: "StorageFull",
    Way.ROLLED_BACK: "StorageFull",
    Way.COMMITTED: "StorageError",
    Way.UNREADABLE: "StorageError",
    Way.NO_STATEMENT: "StorageFull",
}
# So many transactions come before the service is ready, and may end it; and so many statements,
# with the one that looks for alerts as it ends.
BEGINNING, BEGINNING_STATEMENTS = 4, 22
# It has to get over these later on.
OUTLIVED = (Way.ROLLED_BACK, Way.FULL_FOR_LONG, Way.COMMITTED)
# There is one feed: a run that cannot read it has nothing to write about, and nothing else may end
# one that way.
INDISPENSABLE = {"GET blog.test/robots.txt", "GET blog.test/feed.xml", "blog.test"}
# The first page that a run reads; the feed came before it.
PAGE = "GET blog.test/connection-pool.html"
PAGE_N = 3
IN_FILES = {
    Way.FILE_FULL: {"StorageFull"},
    Way.FILE_BROKEN: {"StorageError", "OSError"},
    Way.FILE_FULL_FOR_LONG: {"StorageFull"},
}
# What a run cannot do without on a disk: each of these has failed.
FILES = {
    "create penstock.db-wal", "write penstock.db-wal", "fdatasync penstock.db-wal",
    "write penstock.db", "fdatasync penstock.db", "mkdir outbox", "fsync outbox",
    "create .index.html.part", "write .index.html.part", "fsync .index.html.part",
    "rename index.html", "rename feed.xml", "rename bluesky-session.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


def assert_harmless(tally: Tally, tried_min: int, errors: set[str]) -> None:
    """Also that it was tried: else the absence of findings means nothing."""
    findings = tally.findings
    assert not findings, f"{len(findings)} findings, such as\n" + "\n".join(findings[:10])
    assert tally.tried >= tried_min, tally
    assert set(tally.errors) <= errors, tally


def assert_lost_to_the_feed_alone(tally: Tally) -> None:
    assert set(tally.lost) <= INDISPENSABLE, tally
    for reasons in tally.lost.values():
        assert all(reason.startswith("no feed could be read") for reason in reasons), tally


def over_the_wire(way: Way, whole: Whole, prepared: Path, folder: Path, *, long: bool) -> None:
    tally = enumerated(way, whole, prepared, folder / "state", long=long)
    assert_harmless(tally, tried_min=5, errors={""})
    # Without a network for long there is no model, either.
    if way is not Way.CUT_OFF:
        assert_lost_to_the_feed_alone(tally)


def in_the_database(way: Way, whole: Whole, prepared: Path, folder: Path, *, long: bool) -> None:
    tally = enumerated(way, whole, prepared, folder / "state", long=long)
    error = IN_THE_DATABASE.get(way, "StorageFull")
    assert_harmless(tally, tried_min=5, errors={"", error})
    assert not tally.lost, tally
    if whole is Failing.serve:
        beginning = BEGINNING_STATEMENTS if way is Way.NO_STATEMENT else BEGINNING
        assert tally.errors[error] <= beginning, tally
    else:
        assert tally.errors[error] > 0, tally


def in_files(prepared: Path, folder: Path, *, long: bool) -> None:
    try:
        library = faults.built(folder)
    except faults.NotToBeHad as reason:
        pytest.skip(f"NOT RUN: {reason}, so no write was made to fail")
    found = subprocess.run(
        [
            sys.executable, "-m", "tests.simulation.nth",
            library, prepared, folder.resolve(), str(int(long)),
        ],
        cwd=ROOT, env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    tallies = {Way(way): Tally(**tally) for way, tally in json.loads(found.stdout).items()}
    for way, errors in IN_FILES.items():
        # Where its log cannot be made, SQLite calls the database one that may only be read.
        assert_harmless(tallies[way], tried_min=15, errors=errors | {"", "StorageReadOnly"})
        assert errors <= set(tallies[way].errors), tallies[way]
        assert not tallies[way].lost, tallies[way]
    struck = {name for tally in tallies.values() for name in tally.struck}
    assert struck >= FILES, FILES - struck


# Some n


@pytest.mark.parametrize("way", OVER_THE_WIRE)
def test_whichever_request_fails_there_is_one_of_each(
    way: Way, prepared: Path, tmp_path: Path
) -> None:
    over_the_wire(way, Failing.command, prepared, tmp_path, long=False)


@pytest.mark.parametrize("way", IN_THE_DATABASE)
def test_whichever_transaction_fails_there_is_one_of_each(
    way: Way, prepared: Path, tmp_path: Path
) -> None:
    in_the_database(way, Failing.command, prepared, tmp_path, long=False)


@pytest.mark.parametrize("way", OUTLIVED)
def test_whichever_transaction_fails_the_service_goes_on_to_one_of_each(
    way: Way, prepared: Path, tmp_path: Path
) -> None:
    in_the_database(way, Failing.serve, prepared, tmp_path, long=False)


def test_whichever_file_call_fails_there_is_one_of_each(prepared: Path, tmp_path: Path) -> None:
    in_files(prepared, tmp_path, long=False)


# All of them


@pytest.mark.skipif(not LONG, reason=THINNED)
@pytest.mark.parametrize("whole", [Failing.command, Failing.serve])
@pytest.mark.parametrize("way", OVER_THE_WIRE)
def test_each_request_may_fail(way: Way, whole: Whole, prepared: Path, tmp_path: Path) -> None:
    over_the_wire(way, whole, prepared, tmp_path, long=True)


@pytest.mark.skipif(not LONG, reason=THINNED)
@pytest.mark.parametrize("whole", [Failing.command, Failing.serve])
@pytest.mark.parametrize("way", [*IN_THE_DATABASE, Way.FULL_FOR_LONG])
def test_each_transaction_may_fail(way: Way, whole: Whole, prepared: Path, tmp_path: Path) -> None:
    in_the_database(way, whole, prepared, tmp_path, long=True)


@pytest.mark.skipif(not LONG, reason=THINNED)
def test_each_file_call_may_fail(prepared: Path, tmp_path: Path) -> None:
    in_files(prepared, tmp_path, long=True)


# The judge


def test_the_judge_sees_what_is_wrong(prepared: Path, tmp_path: Path) -> None:
    """One harm after the other, and the words of its finding."""
    stage = Failing(tmp_path / "state", prepared)
    stage.nth = Nth(Way.SILENT, 9)
    stage.command()
    assert "llm.test" in stage.nth.struck
    assert [finding for finding in judge(stage, None).findings if "is still held" in finding]
    stage.mend()
    stage.go_on()
    assert judge(stage, None).findings == []
    for harm, words in (
        (lambda: stage.devto.write("Another", "…", published=True), "Dev.to has 2"),
        (lambda: stage.devto.articles.clear(), "Dev.to has 0"),
        (lambda: stage.bluesky.records.clear(), "Bluesky has 0"),
        (lambda: stage.articles()[0].unlink(), "the outbox has 0"),
        (lambda: stage.model.charge(1_000_000), "were billed, and"),
        (lambda: stage.model.bill.clear(), "are booked for certain"),
        (lambda: stage.webhook.told.clear(), "the webhook was told nothing"),
    ):
        assert not [finding for finding in judge(stage, None).findings if words in finding]
        harm()
        assert [finding for finding in judge(stage, None).findings if words in finding], words
    assert "it raised KeyError()" in judge(stage, KeyError()).findings
    assert "it raised" not in str(judge(stage, StorageFull("full")).findings)


def test_the_same_failure_comes_to_the_same(prepared: Path, tmp_path: Path) -> None:
    outcomes = [
        case(Nth(Way.RESET, 9), Failing.command, prepared, tmp_path / "state") for _ in range(2)
    ]
    assert outcomes[0] == outcomes[1]


# What this found, mended


def test_entries_whose_pages_could_not_be_reached_are_there_for_the_next_run(
    prepared: Path, tmp_path: Path
) -> None:
    nth, verdict = case(Nth(Way.CUT_OFF, PAGE_N), Failing.command, prepared, tmp_path / "state")
    assert nth.struck == PAGE
    assert verdict.findings == []


class AsADraftIsNoted(Nth):
    """The commit that follows the making of a draft at Dev.to."""

    stage: Failing

    def strikes(self, at: At, what: str) -> bool:
        is_it = at is At.COMMIT and bool(self.stage.devto.articles) and not self.seen
        self.seen += [what] * is_it
        return is_it


def test_a_full_disk_is_not_told_as_a_fault_of_the_program(prepared: Path, tmp_path: Path) -> None:
    stage = Failing(tmp_path / "state", prepared)
    stage.nth = nth = AsADraftIsNoted(Way.ROLLED_BACK)
    nth.stage = stage
    with pytest.raises(StorageFull):
        stage.once()
    assert nth.seen
    assert stage.once().outcome == RunOutcome.PUBLISHED
