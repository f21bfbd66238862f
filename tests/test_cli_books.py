"""The books from outside: paying in, mending, exporting, copying, and finding out what is owed."""

from __future__ import annotations

import csv
import fcntl
import inspect
import io
import json
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.export import FORMATS
from tests.cli_helpers import (
    AMOUNT,
    KEY,
    MOMENT,
    PENSTOCK,
    Books,
    Desk,
    Result,
    World,
    assert_billed_exactly,
    assert_covered,
    await_true,
    checked,
    checked_books,
    digest_desk,
    in_a_shell,
    ladder,
    micro,
    small_world,
)
from tests.ledger_helpers import tamper

DONE, FAILED, SETTINGS, _, _, _, BOOKS_WRONG, LOCKED, UNCONFIRMED = range(9)
BEAN_CHECK = str(Path(sys.executable).parent / "bean-check")
PAST = Path(__file__).parent / "databases" / "0001.sql"
# An answer that never ends is given up after a second, and another model is asked instead.
UNCLEAR = ladder("llm/alpha > llm/beta") | {"PENSTOCK_CALL_TIMEOUT": "1"}


# Several calls, one after the other, of one process

CLERK = """
import contextlib, io, json, sys
from daemon.__main__ import main

answers = []
for words in json.load(sys.stdin):
    sys.argv = ["penstock", *words]
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    answers.append((code, out.getvalue(), err.getvalue()))
json.dump(answers, sys.stdout)
"""


def calls(desk: Desk, *commands: str | Sequence[str]) -> list[Result]:
    """
    Commands of one machine in their order, each as if typed.

    Most of a command's time is Python starting, which they share; what a process alone can show
    (locks, kills, streams, exits) is tested with `desk.run`.
    """
    words = [call.split() if isinstance(call, str) else list(call) for call in commands]
    done = subprocess.run(
        [sys.executable, "-c", CLERK], input=json.dumps(words).encode(), env=desk.env(),
        cwd=desk.home, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return [
        checked(call, code, out.encode(), err.encode())
        for call, (code, out, err) in zip(words, json.loads(done.stdout), strict=True)
    ]


@dataclass
class Read(Desk):
    """A machine whose lists were read already, in one process."""

    documents: dict[str, Any] = field(default_factory=dict)

    def read_all(self, *commands: str) -> list[Any]:
        return [self.documents[command] for command in commands]


def read(desk: Desk, *more: str) -> Read:
    """The books, checked or not, and what else is asked for."""
    commands = ("ledger check", "ledger balance", "ledger entries", "ledger attempts", *more)
    documents = [result.json for result in calls(desk, *(f"{c} --json" for c in commands))]
    return Read(desk.home, desk.settings, dict(zip(commands, documents, strict=True)))


def audited(desk: Desk) -> Books:
    """The books, once everything that is said of them has agreed."""
    return checked_books(read(desk))


# What is more than a process or two runs beside others: all tests are begun by the first of them,
# and each reports when its turn comes.

Body = Callable[..., None]
_BODIES: dict[str, Body] = {}


@dataclass(frozen=True, slots=True)
class Paid:
    """A machine that bought one article, one request of which was refused; to be copied."""

    desk: Desk
    run: str
    books: Books

    def copy(self, home: Path) -> Desk:
        """Another machine with the same books."""
        return copied(self.desk, home)

    @property
    def plan(self) -> dict[str, Any]:
        """The entry that settled the first question."""
        return next(
            e for e in self.books.entries if e["code"] == "inference" and e["state"] == "posted"
        )

    def hold(self, state: str) -> str:
        """The first hold that ended so."""
        return next(str(e["id"]) for e in self.books.entries if e["state"] == state)


@dataclass(frozen=True, slots=True)
class Show:
    """Everything that was begun."""

    tests: dict[str, Future[None]]
    refusals: Future[dict[str, Result]]


def beside(body: Body) -> Callable[[Show], None]:
    """Mark a test of `tmp_path`, and of `world` or `paid` if it wants one, that runs so."""
    name = body.__name__
    _BODIES[name] = body

    def test(show: Show) -> None:
        show.tests[name].result()

    test.__name__ = name
    return test


@pytest.fixture(scope="module")
def show(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Show]:
    """Every chosen test of this file, begun."""
    items = [item.name for item in request.session.items if item.path == request.path]
    counter = Desk(tmp_path_factory.mktemp("refused")).initialised()

    def play(body: Body, folder: Path, paid: Future[Paid]) -> None:
        asked = inspect.signature(body).parameters
        more = {"paid": paid.result()} if "paid" in asked else {}
        if "world" in asked:
            with small_world() as world:
                body(folder, world, **more)
        else:
            body(folder, **more)

    # One more than most machines need: some of what is played waits for a deadline.
    with ThreadPoolExecutor(3) as pool:
        paid = pool.submit(bought, tmp_path_factory.mktemp("paid"))
        refusals = pool.submit(refused, counter)
        tests = {
            name: pool.submit(play, _BODIES[name], tmp_path_factory.mktemp("beside"), paid)
            for name in items
            if name in _BODIES
        }
        yield Show(tests, refusals)
        pool.shutdown(cancel_futures=True)


def bought(home: Path) -> Paid:
    with small_world() as world:
        world.model.misbehave("no_json_schema")
        desk = world.desk(home)
        done = desk.once()
        assert done.code == DONE, done
        found = audited(desk)
        assert_billed_exactly(found, world.model)
    return Paid(desk, done.json["run"], found)


def copied(desk: Desk, home: Path) -> Desk:
    """Another machine with the same settings and books."""
    other = Desk(home, desk.settings | {"PENSTOCK_STATE_DIR": str(home / "state")})
    return restored(other, desk.database)


def restored(desk: Desk, backup: Path) -> Desk:
    """A machine whose database is this file."""
    assert not backup.with_name(f"{backup.name}-wal").exists()
    desk.state.mkdir(mode=0o700, parents=True)
    shutil.copyfile(backup, desk.database)
    return desk


def adjusting(amount: str, ref: str, corrects: str | None = None) -> list[str]:
    """The words of `ledger adjust`, with its document."""
    more = [] if corrects is None else ["--corrects", corrects]
    return ["ledger", "adjust", amount, "--ref", ref, "--memo", "as billed", *more, "--json"]


def reconcile(desk: Desk) -> Result:
    """`reconcile`, with its document, and never with the key."""
    result = desk.run("reconcile", "--json")
    assert KEY not in result.said
    return result


def age(desk: Desk) -> None:
    """Let a minute and a half have passed since every request, so that nobody waits for it."""
    desk.sql(
        "UPDATE attempt SET at = strftime('%Y-%m-%dT%H:%M:%S', at, '-90 seconds') || substr(at, 20)"
    )


def journal(desk: Desk) -> list[tuple[Any, ...]]:
    """Every row of the books, to see that none came, went or changed."""
    return desk.rows("SELECT * FROM transfer ORDER BY seq")


# What is refused, and the words that say why

HUGE = str(10**400)
NO_NUMBER = "is not a decimal number"
DEPOSITS = {
    "-1": "must be positive",
    "0": "must be positive",
    "0.0000001": "finer than a millionth",
    "1000000000.000001": "more than a billion",
    HUGE: "more than a billion",
    "1e3": NO_NUMBER,
    "NaN": NO_NUMBER,
    "inf": NO_NUMBER,
    "": NO_NUMBER,
    " ": NO_NUMBER,
    "١": NO_NUMBER,
    "1,5": NO_NUMBER,
    "0x10": NO_NUMBER,
    "5 EUR": NO_NUMBER,
}
ADJUSTMENTS = {
    "0": "cannot be 0.000000",
    "-0.0000001": "finer than a millionth",
    f"-{HUGE}": "more than a billion",
    "-1,5": NO_NUMBER,
}
SOURCES = {"two parts": "a:b", "empty": "", "65 letters": "x" * 65, "two lines": "a\nb"}
FINE = ("--ref", "x", "--memo", "y")
REFUSALS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{
        f"deposit {amount[:20]!a}": (
            ("ledger", "deposit", amount, "--ref", "x"),
            (why if why != NO_NUMBER else f"{amount!r} {why}",),
        )
        for amount, why in DEPOSITS.items()
    },
    **{
        f"adjust {amount[:20]!a}": (("ledger", "adjust", amount, *FINE), (why,))
        for amount, why in ADJUSTMENTS.items()
    },
    **{
        f"source of {name}": (
            ("ledger", "deposit", "1", "--ref", "x", "--source", source),
            ("--source", "up to 64 letters"),
        )
        for name, source in SOURCES.items()
    },
    "used ref": (("ledger", "deposit", "99", "--ref", "first"), ("first", "another amount")),
    "blank ref": (("ledger", "adjust", "1", "--ref", " \t", "--memo", "y"), ("--ref",)),
    "blank deposit": (("ledger", "deposit", "1", "--ref", " "), ("--ref",)),
    "spaces around a ref": (
        ("ledger", "deposit", "99", "--ref", "\tfirst "),
        ("first", "another amount"),
    ),
    "blank reason": (("drafts", "reject", "r1", "--reason", ""), ("--reason",)),
    "blank reason to withdraw": (("posts", "withdraw", "r1", "--reason", " "), ("--reason",)),
    "no settings file": (("ledger", "balance", "--env-file", ""), ("--env-file",)),
    "blank memo": (("ledger", "adjust", "1", "--ref", "x", "--memo", "\n "), ("--memo",)),
    "more than there is": (
        ("ledger", "adjust", "-100.000001", *FINE),
        ("100.000001 needed", "100.000000 available"),
    ),
    "unknown entry": (
        ("ledger", "adjust", "1", *FINE, "--corrects", "deposit:second"),
        ("deposit:second", "penstock ledger entries"),
    ),
}


def refused(desk: Desk) -> dict[str, Result]:
    """Try all of it on one machine, and see that the books are what they were."""
    asking = "ledger entries --json"
    tries = [[*words, "--json"] for words, _ in REFUSALS.values()]
    before, *results, after, check = calls(desk, asking, *tries, asking, "ledger check")
    assert after.out == before.out, "byte for byte"
    assert check.code == DONE, check
    return dict(zip(REFUSALS, results, strict=True))


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_booked_is_refused_and_it_is_said_why(show: Show, name: str) -> None:
    result = show.refusals.result()[name]
    assert result.code == SETTINGS, result
    for words in REFUSALS[name][1]:
        assert words in result.err
        assert words in result.json["error"]
    assert len(result.err) < 500, "what was typed is shown cut short"


@beside
def test_a_call_that_cannot_be_read_still_writes_its_document(tmp_path: Path) -> None:
    # `checked` reads the document of every call with --json.
    assert Desk(tmp_path).run("ledger", "deposit", "1", "--ref", b"\xff", "--json").code == SETTINGS


@beside
def test_a_refusal_is_json_in_utf_8_whatever_letters_the_terminal_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [PENSTOCK, "ledger", "deposit", "5 é😀", "--ref", "x", "--json"], cwd=tmp_path,
        env=Desk(tmp_path).env({"PYTHONIOENCODING": "latin-1"}), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == SETTINGS
    assert "5 é😀" in json.loads(done.stdout.decode("utf-8"))["error"]


# Adjustments


@beside
def test_an_adjustment_is_booked_once_per_ref_with_either_sign(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    plain, dashed = calls(
        desk, adjusting("-0.5", "fee"), "ledger adjust --ref two --memo x --json -- -0.5"
    )
    assert (plain.code, dashed.code) == (DONE, DONE)
    assert plain.json == {
        "created": True, "amount": "-0.500000", "ref": "fee", "corrects": None,
        "available": "99.500000",
    }  # fmt: skip
    before = journal(desk)
    again, said, other, otherwise = calls(
        desk,
        adjusting("-0.50", "fee"),
        ["ledger", "adjust", "-0.5", "--ref", "fee", "--memo", "in other words"],
        adjusting("-0.6", "fee"),
        adjusting("-0.5", "fee", "deposit:first"),
    )
    assert (again.code, again.json["created"]) == (DONE, False)
    assert (said.code, "booked before" in said.out) == (DONE, True)
    assert (other.code, otherwise.code) == (SETTINGS, SETTINGS)
    assert "another amount" in other.err
    assert "another" in otherwise.err
    assert journal(desk) == before
    assert calls(desk, adjusting("+.25", "gift"))[0].json["available"] == "99.250000"
    sides = [(e["code"], e["debit"], e["credit"], e["memo"]) for e in audited(desk).entries[1:]]
    assert sides == [
        ("adjustment", "adjustments", "treasury", "as billed"),
        ("adjustment", "adjustments", "treasury", "x"),
        ("adjustment", "treasury", "adjustments", "as billed"),
    ]


@beside
def test_a_deposit_of_fifty_that_was_five_is_put_right(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    deposit = "ledger deposit 50 --ref typo --json"
    first, mended, replayed, twice = calls(
        desk,
        deposit,
        adjusting("-45", "oops", "deposit:typo"),
        deposit,
        adjusting("-5.000001", "again", "deposit:typo"),
    )
    assert [r.code for r in (first, mended, replayed, twice)] == [DONE, DONE, DONE, SETTINGS]
    assert (mended.json["corrects"], mended.json["available"]) == ("deposit:typo", "105.000000")
    assert (replayed.json["created"], replayed.json["available"]) == (False, "105.000000")
    assert "moved 5.000000" in twice.err
    found = audited(desk)
    assert found.sums == {"treasury": 105_000_000, "grants": -105_000_000}
    assert found.entries[-1]["corrects"] == "deposit:typo"


@beside
def test_only_a_correction_may_take_what_is_not_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    *results, last = calls(
        desk,
        adjusting("-99", "fee"),
        adjusting("-1.000001", "more"),
        adjusting("-100", "bounced", "deposit:first"),
        adjusting("-0.000001", "more"),
        adjusting("1", "found"),
    )
    assert [result.code for result in results] == [DONE, SETTINGS, DONE, SETTINGS]
    assert "1.000000 available" in results[1].err
    assert results[2].json["available"] == "-99.000000"
    # What comes in is welcome even where it does not suffice.
    assert (last.code, last.json["available"]) == (DONE, "-98.000000")
    found = read(desk, "status")
    assert checked_books(found).sums == {"treasury": -98_000_000, "adjustments": 98_000_000}
    status = found.documents["status"]
    assert status["balance"]["available"] == "-98.000000"
    assert not [alert for alert in status["alerts"] if "BALANCE" in alert]


@beside
def test_a_correction_shows_wherever_the_cost_of_its_request_is_shown(
    tmp_path: Path, paid: Paid
) -> None:
    desk, plan = paid.copy(tmp_path), paid.plan
    results = calls(
        desk,
        adjusting("0.005", "bill", plan["id"]),
        adjusting("0.005", "bill", plan["id"]),
        adjusting("-0.002", "bill-2", "adjustment:bill"),
    )
    assert [(result.code, result.json["created"]) for result in results] == [
        (DONE, True), (DONE, False), (DONE, True),
    ]  # fmt: skip
    seen = read(desk, f"runs show {paid.run}", f"runs trace {paid.run}", "runs list")
    found = checked_books(seen)
    shown, traced, (listed,) = list(seen.documents.values())[-3:]
    assert found.booked == paid.books.booked - 3_000
    assert micro(shown["cost"]) == micro(listed["cost"]) == found.booked
    assert sum(micro(step["cost"]) for step in shown["steps"]) == found.booked
    expected = {a["id"]: micro(a["cost"]) for a in paid.books.attempts}
    expected[plan["attempt"]] -= 3_000
    assert {a["id"]: micro(a["cost"]) for a in found.attempts} == expected
    assert {
        a["id"]: micro(a["cost"]) for step in traced["steps"] for a in step["attempts"]
    } == expected
    assert [(e["run"], e["attempt"], e["corrects"]) for e in found.entries[-2:]] == [
        (paid.run, plan["attempt"], plan["id"]), (paid.run, plan["attempt"], "adjustment:bill"),
    ]  # fmt: skip


@beside
def test_what_two_give_back_at_once_is_given_back_once(tmp_path: Path, paid: Paid) -> None:
    desk, plan = paid.copy(tmp_path), paid.plan
    most = micro(plan["amount"]) * 6 // 10
    words = [adjusting(f"0.{most:06d}", ref, plan["id"]) for ref in "ab"]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda one: desk.run(*one), words))
    assert sorted(result.code for result in results) == [DONE, SETTINGS]
    (refusal,) = [result for result in results if result.code == SETTINGS]
    assert "cannot be taken back" in refusal.err
    assert plan["id"] in refusal.err
    assert audited(desk).booked == paid.books.booked - most


@beside
def test_a_hold_cannot_be_corrected_and_the_refusal_names_the_entry_that_can(
    tmp_path: Path, paid: Paid
) -> None:
    desk, hold = paid.copy(tmp_path), paid.hold("settled")
    (result,) = calls(desk, adjusting("0.001", "x", hold))
    assert result.code == SETTINGS, result
    named = set(re.findall(r"\S+:settle", result.err))
    assert named == {f"{hold}:settle"}
    assert named <= {entry["id"] for entry in paid.books.entries}


@beside
def test_the_refusal_to_correct_a_void_hold_names_no_entry_that_is_not_there(
    tmp_path: Path, paid: Paid
) -> None:
    desk, hold = paid.copy(tmp_path), paid.hold("voided")
    for result in calls(desk, *(adjusting("0.1", "x", name) for name in (hold, f"{hold}:void"))):
        assert result.code == SETTINGS, result
        assert hold in result.err
        named = set(re.findall(r"\S+:settle", result.err))
        assert named <= {entry["id"] for entry in paid.books.entries}, result.err


# Exports

MEMOS = ("naïve 😀 €5, \"quoted\" 'n' %20", "=1+1", "two\nlines\r\n\tand a tab", "'quoted first")
PLAIN_C = {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}


@beside
def test_every_export_has_the_books_of_a_paid_run_whole(tmp_path: Path, paid: Paid) -> None:
    desk = paid.copy(tmp_path)
    for result in calls(
        desk,
        *(
            ["ledger", "adjust", f"-0.00000{number}", "--ref", f"r {number}", "--memo", memo]
            for number, memo in enumerate(MEMOS, start=1)
        ),
    ):
        assert result.code == DONE, result
    # What programs read is UTF-8, whatever letters the terminal has.
    terminals = {"json": PLAIN_C, "csv": LATIN, "beancount": LATIN, "hledger": PLAIN_C}
    found = {}
    for form in FORMATS:
        export = desk.run("ledger", "export", "--format", form, settings=terminals[form])
        assert (export.code, export.err) == (DONE, "")
        found[form] = export.out
    listed = desk.run("ledger", "entries", "--json", settings=LATIN)
    entries = listed.json
    assert [entry["memo"] for entry in entries[-4:]] == list(MEMOS)
    assert json.loads(found["json"]) == entries
    assert list(csv.DictReader(io.StringIO(found["csv"], newline=""))) == [
        {name: as_a_cell(value) for name, value in entry.items()} for entry in entries
    ]
    names = {name for entry in entries for name in (entry["debit"], entry["credit"])}
    assert set(re.findall(r"^account \w+:(\S+)", found["hledger"], re.MULTILINE)) == names
    assert all(f'name: "{name}"' in found["beancount"] for name in names)
    path = tmp_path / "books.beancount"
    path.write_text(found["beancount"], encoding="utf-8", newline="")
    bean = subprocess.run(
        [BEAN_CHECK, str(path)], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert (bean.returncode, bean.stdout + bean.stderr) == (0, "")


def as_a_cell(value: str | None) -> str:
    """What a spreadsheet would take for a formula has an apostrophe in front."""
    formula = value is not None and value.strip()[:1] in tuple("-=+@'")
    return f"'{value}" if formula else value or ""


@beside
def test_the_formats_that_can_be_asked_for_are_those_there_are(tmp_path: Path) -> None:
    result = Desk(tmp_path).run("ledger", "export", "--format", "xlsx")
    assert (result.code, result.out) == (SETTINGS, "")
    offered = re.search(r"'?xlsx'? \(choose from (.*)\)", result.err)
    assert offered is not None, result.err
    assert re.findall(r"\w+", offered[1]) == list(FORMATS)


@beside
def test_an_export_whose_reader_goes_away_is_no_error(tmp_path: Path, paid: Paid) -> None:
    # The reader ends without reading a byte, long before the first is written.
    words = "ledger export --format beancount | exec sleep 0"
    done = in_a_shell(paid.copy(tmp_path), words, "${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == (f"{DONE}\n", "")


@beside
def test_an_export_onto_a_full_disk_fails_as_every_failure_does(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("NOT RUN: this machine has no /dev/full")
    wrong = in_a_shell(Desk(tmp_path / "wrong"), "bogus --json > /dev/full")
    assert wrong.stdout == "2\n"
    done = in_a_shell(Desk(tmp_path).initialised(), "ledger export --format csv > /dev/full")
    assert "No space left" in done.stderr
    assert "Exception" not in done.stderr
    assert done.stdout == f"{FAILED}\n"


@beside
def test_a_deposit_where_nobody_listens_is_booked_and_no_surprise(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    done = in_a_shell(desk, "ledger deposit 1 --ref x >&-")
    assert len(journal(desk)) == 2
    assert (done.stdout, done.stderr) == (f"{DONE}\n", "")


# Backups


@beside
def test_a_backup_is_a_file_of_its_own_that_works_in_the_place_of_the_database(
    tmp_path: Path, paid: Paid
) -> None:
    desk, path = paid.copy(tmp_path / "home"), tmp_path / "nightly.db"
    backup = ["backup", str(path), "--json"]
    first = desk.run(*backup)
    assert first.code == DONE, first
    assert first.json["path"] == str(path)
    assert first.json["bytes"] == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    deposit, second = calls(desk, "ledger deposit 1 --ref later", backup)
    assert (deposit.code, second.code) == (DONE, DONE)
    assert second.json["transfers"] == first.json["transfers"] + 1
    assert {p.name for p in tmp_path.iterdir()} == {"home", "nightly.db"}
    home = tmp_path / "other"
    other = Desk(home, desk.settings | {"PENSTOCK_STATE_DIR": str(home / "state")})
    restored(other, path)
    assert journal(other) == journal(desk)
    again, more = calls(
        other, "ledger deposit 1 --ref later --json", "ledger deposit 2 --ref new --json"
    )
    assert (again.json["created"], more.json["created"]) == (False, True)
    assert audited(other).booked == paid.books.booked


@beside
def test_a_backup_into_a_folder_is_named_after_the_time(tmp_path: Path) -> None:
    desk, folder = Desk(tmp_path / "home").initialised(), tmp_path / "backups"
    folder.mkdir()
    result = desk.run("backup", f"{folder}/")
    assert result.code == DONE, result
    (made,) = folder.iterdir()
    assert re.fullmatch(r"penstock-\d{8}T\d{6}Z\.db", made.name)
    assert str(made) in result.out
    assert "opened and checked" in result.out


@beside
def test_what_is_no_place_for_a_backup_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    notes = tmp_path / "notes.txt"
    notes.write_text("not a backup")
    live = desk.database.read_bytes()
    places = {
        desk.database: "live database",
        tmp_path / "unmounted" / "x.db": "no such folder",
        notes: "no backup",
    }
    results = calls(desk, *(["backup", str(place), "--json"] for place in places))
    for (place, why), result in zip(places.items(), results, strict=True):
        assert result.code == SETTINGS, result
        assert why in result.err
        assert str(place) in result.err
    assert notes.read_text() == "not a backup"
    assert desk.database.read_bytes() == live
    assert {path.name for path in tmp_path.iterdir()} == {"state", "notes.txt"}
    assert {path.name for path in desk.state.iterdir()} == {"penstock.db"}


@beside
def test_a_backup_beside_a_run_has_the_request_that_is_under_way(
    tmp_path: Path, world: World
) -> None:
    world.model.misbehave("slow", seconds=60)
    desk, path = world.desk(tmp_path / "home"), tmp_path / "backup.db"
    with desk.started("once"):
        await_true(lambda: bool(world.model.requests))
        assert desk.run("backup", str(path)).code == DONE
        assert desk.run("reconcile").code == LOCKED
    other = restored(Desk(tmp_path / "other", dict(world.settings)), path)
    found = read(other, "status")
    assert_covered(checked_books(found), world.model)
    assert found.documents["status"]["holds"]["open"] == 1
    told = reconcile(other)
    assert told.code == UNCONFIRMED, told
    assert [hold["state"] for hold in told.json["holds"]] == ["pending"]


@beside
def test_books_that_do_not_balance_are_never_a_backup(tmp_path: Path) -> None:
    desk, folder = Desk(tmp_path / "home").initialised(), tmp_path / "backups"
    folder.mkdir()
    assert desk.run("backup", str(folder / "good.db")).code == DONE
    good = (folder / "good.db").read_bytes()
    tamper(desk.database, "UPDATE transfer SET amount_micro = amount_micro + 1")
    names = ("good.db", "new.db")
    for result in calls(desk, *(["backup", str(folder / name), "--json"] for name in names)):
        assert result.code == BOOKS_WRONG, result
        assert "does not balance" in result.err
        assert any("deposit:first" in problem for problem in result.json["problems"])
    assert [path.name for path in folder.iterdir()] == ["good.db"]
    assert (folder / "good.db").read_bytes() == good


# Reconciling


@beside
def test_with_nothing_to_find_out_reconcile_says_so(tmp_path: Path) -> None:
    result = Desk(tmp_path / "bare").run("reconcile")
    assert result.code == DONE
    assert "nothing was unconfirmed" in result.out
    desk = Desk(tmp_path / "funded").initialised()
    before = journal(desk)
    found = reconcile(desk)
    assert found.code == DONE
    assert found.json == {
        "unconfirmed": False, "available": "100.000000", "holds": [], "providers": [],
        "publications": [],
    }  # fmt: skip
    assert journal(desk) == before


@beside
def test_reconcile_stops_before_a_lock_a_wrong_setting_and_books_that_are_wrong(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path).initialised()
    with (desk.state / "penstock.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = reconcile(desk)
    assert locked.code == LOCKED
    assert "another penstock" in locked.json["error"]
    wrong = reconcile(desk.changed(PENSTOCK_HOLD_EXPIRY="soon"))
    assert wrong.code == SETTINGS
    assert "PENSTOCK_HOLD_EXPIRY" in wrong.json["error"]
    tamper(desk.database, "UPDATE transfer SET memo = 'edited'")
    edited = reconcile(desk)
    assert edited.code == BOOKS_WRONG
    assert any("deposit:first" in problem for problem in edited.json["problems"])


@beside
def test_where_nobody_can_be_asked_the_hold_is_told_of_until_it_is_charged(
    tmp_path: Path, world: World
) -> None:
    world.model.misbehave("cut_after", schema="draft", model="alpha")
    desk = world.desk(tmp_path, **UNCLEAR)
    assert desk.once().code == DONE
    told = reconcile(desk)
    assert told.code == UNCONFIRMED
    found = read(desk, "status")
    before = checked_books(found)
    ((hold, held),) = before.pending.items()
    assert told.json["unconfirmed"] is True
    assert [(h["id"], h["state"], h["cost"], micro(h["held"])) for h in told.json["holds"]] == [
        (hold, "pending", None, held)
    ]
    assert [(p["name"], p["api"], p["error"]) for p in told.json["providers"]] == [
        ("llm", None, None)
    ]
    assert_told(found.documents["status"], before)
    at_once = desk.changed(PENSTOCK_HOLD_EXPIRY="0")
    status, charged = calls(at_once, "status --json", "reconcile --json")
    assert status.json["holds"]["charged_at"] is None
    assert any("next `penstock reconcile`" in alert for alert in status.json["alerts"])
    assert (charged.code, charged.json["unconfirmed"]) == (DONE, False)
    assert [(h["id"], h["state"], micro(h["cost"])) for h in charged.json["holds"]] == [
        (hold, "uncertain", held)
    ]
    found = read(desk, "status")
    after = checked_books(found)
    assert_covered(after, world.model)
    assert (after.held, after.booked) == (0, before.booked + held)
    assert (after.entries[-1]["code"], after.entries[-1]["ref"]) == ("uncertain", hold)
    assert found.documents["status"]["holds"] == {
        "open": 0, "unknown": 0, "unknown_held": "0.000000", "charged_at": None,
    }  # fmt: skip
    assert found.documents["status"]["alerts"] == []


def assert_told(page: dict[str, Any], found: Books) -> None:
    """The one hold that nobody waits for any more, its amount, and when it is charged."""
    ((hold, held),) = found.pending.items()
    holds, (alert,) = page["holds"], page["alerts"]
    assert set(holds) >= {"open", "unknown", "unknown_held", "charged_at"}
    assert (holds["open"], holds["unknown"]) == (1, 1)
    assert AMOUNT.fullmatch(holds["unknown_held"])
    assert micro(holds["unknown_held"]) == micro(page["balance"]["held"]) == held
    assert MOMENT.fullmatch(holds["charged_at"])
    (made,) = [entry["at"] for entry in found.entries if entry["id"] == hold]
    waited = datetime.fromisoformat(holds["charged_at"]) - datetime.fromisoformat(made)
    assert waited == timedelta(hours=24)
    for words in (holds["unknown_held"], holds["charged_at"], "penstock reconcile"):
        assert words in alert


@beside
def test_a_provider_that_can_be_asked_brings_the_books_to_its_bill(
    tmp_path: Path, world: World
) -> None:
    model = world.model
    model.usage_api, model.used_before = "openrouter", 123_456_789
    desk = world.desk(tmp_path, **UNCLEAR)
    first = reconcile(desk)
    (provider,) = first.json["providers"]
    assert (first.code, provider["api"], provider["used"]) == (DONE, "openrouter", "123.456789")
    assert provider["note"]
    model.misbehave("stall", schema="draft", model="alpha")
    assert desk.once().code == DONE
    age(desk)
    before = journal(desk)

    # It does not answer: nothing is booked, and the hold is still open.
    model.usage_status = 503
    silent = reconcile(desk)
    assert silent.code == UNCONFIRMED
    assert silent.json["providers"][0]["name"] == "llm"
    assert "503" in silent.json["providers"][0]["error"]
    assert [hold["state"] for hold in silent.json["holds"]] == ["pending"]
    assert journal(desk) == before

    model.usage_status = 200
    asked = reconcile(desk)
    assert (asked.code, asked.json["unconfirmed"]) == (DONE, False)
    (hold,) = asked.json["holds"]
    (charge,) = [c.micro for c in model.bill if (c.schema, c.model) == ("draft", "alpha")]
    assert (hold["state"], micro(hold["cost"])) == ("settled", charge)
    assert asked.json["providers"][0]["corrected"] == "0.000000"
    found = audited(desk)
    assert_billed_exactly(found, model)
    assert [a["cost"] for a in found.outcomes("unknown")] == [hold["cost"]]

    # What somebody else used the key for is booked, once.
    model.charge(7_777)
    differed, again = calls(desk, "reconcile --json", "reconcile")
    assert (differed.code, again.code) == (DONE, DONE)
    assert differed.json["providers"][0]["corrected"] == "0.007777"
    assert "nothing was unconfirmed" in again.out
    found, before = audited(desk), journal(desk)
    assert_billed_exactly(found, model)
    booked = [(entry["code"], entry["amount"]) for entry in found.entries]
    assert booked[-1] == ("correction", "0.007777")
    assert [code for code, _ in booked].count("correction") == 1

    # It does not answer, and nothing is open: a failure all the same.
    model.usage_status = 503
    failed, told = calls(desk, "reconcile --json", "reconcile")
    assert (failed.code, told.code) == (FAILED, FAILED)
    assert failed.json["unconfirmed"] is False
    assert "503" in failed.json["providers"][0]["error"]
    assert re.search(r"^llm: .*503", told.out, re.MULTILINE)
    assert KEY not in differed.said + again.said + failed.said + told.said
    assert journal(desk) == before


@beside
def test_what_a_killed_run_had_asked_for_is_found_out_from_a_new_api(
    tmp_path: Path, world: World
) -> None:
    model = world.model
    model.usage_api = "new-api"
    desk = world.desk(tmp_path)
    first = reconcile(desk)
    assert (first.code, first.json["providers"][0]["api"]) == (DONE, "new-api")
    model.misbehave("slow", schema="draft", seconds=60)
    assert desk.killed(lambda: any(a.schema == "draft" for a in model.requests), "once")
    age(desk)
    (draft,) = [charge.micro for charge in model.bill if charge.schema == "draft"]
    found = reconcile(desk)
    assert found.code == DONE, found
    (hold,) = found.json["holds"]
    assert hold["state"] == "settled"
    # New-API counts in units of two millionths.
    assert 0 <= micro(hold["cost"]) - draft <= 1
    (again,) = calls(desk, "reconcile --json")
    assert (again.code, again.json["holds"]) == (DONE, [])
    after = audited(desk)
    assert 0 <= after.booked - model.billed_micro <= 1
    assert after.held == 0
    assert [a["cost"] for a in after.outcomes("unknown")] == [hold["cost"]]
    assert "correction" not in {entry["code"] for entry in after.entries}


@beside
def test_what_a_person_mended_and_the_provider_tells_later_ends_at_the_bill(
    tmp_path: Path, world: World
) -> None:
    model = world.model
    model.misbehave("no_usage", schema="draft", model="alpha")
    desk = world.desk(tmp_path / "home", **UNCLEAR, PENSTOCK_HOLD_EXPIRY="0")
    assert desk.once().code == DONE
    age(desk)
    (hold,) = reconcile(desk).json["holds"]
    assert hold["state"] == "uncertain"
    model.usage_api = "openrouter"
    came_to = {}
    # By less than the provider will say, and by more.
    for back in ("0.001", "0.06"):
        other = copied(desk, tmp_path / back)
        mending = adjusting(back, "bill", f"{hold['id']}:settle")
        mended, told = calls(other, mending, "reconcile --json")
        assert mended.code == DONE, mended
        found = read(other)
        came_to[back] = (told.code, found.documents["ledger check"]["problems"], booked(found))
    assert came_to == dict.fromkeys(came_to, (DONE, [], model.billed_micro))


def booked(found: Read) -> int:
    """Micro-credits booked as inference, whether or not the books are right."""
    return Books(*found.read_all("ledger entries", "ledger attempts")).booked


# Databases of the past, and edited ones


@beside
def test_books_of_a_past_version_are_left_alone_until_init_brings_them_up(tmp_path: Path) -> None:
    desk = past(tmp_path)
    before = desk.database.read_bytes()
    copy = tmp_path / "copy.db"
    for result in calls(
        desk,
        "ledger check --json",
        "ledger export --format beancount",
        adjusting("1", "x"),
        ["backup", str(copy), "--json"],
    ):
        assert result.code == SETTINGS, result
        assert "0001" in result.err
        assert "penstock init" in result.err
    assert desk.database.read_bytes() == before
    assert not copy.exists()
    assert desk.run("init").code == DONE
    found = read(desk, "status")
    held = checked_books(found).pending
    holds = found.documents["status"]["holds"]
    assert holds["open"] == len(held) > 0
    assert 0 < micro(holds["unknown_held"]) <= sum(held.values())
    for result in calls(desk, adjusting("-0.000001", "x"), "ledger check", "status"):
        assert result.code == DONE, result


@beside
def test_reconcile_brings_books_of_a_past_version_up_and_ends_what_they_left_open(
    tmp_path: Path,
) -> None:
    desk = past(tmp_path).changed(PENSTOCK_HOLD_EXPIRY="0")
    told = reconcile(desk)
    assert told.code == DONE, told
    assert {hold["state"] for hold in told.json["holds"]} == {"uncertain"}
    found = read(desk, "status")
    after = checked_books(found)
    assert after.pending == {}
    assert all(attempt["outcome"] for attempt in after.attempts)
    assert found.documents["status"]["holds"]["open"] == 0


def past(home: Path) -> Desk:
    """A machine with the database of the first version."""
    desk = Desk(home)
    desk.state.mkdir(mode=0o700)
    with closing(sqlite3.connect(desk.database)) as connection:
        connection.executescript(PAST.read_text(encoding="utf-8"))
    return desk


@beside
def test_a_trigger_that_was_not_put_back_is_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    names = [n for (n,) in desk.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    assert names
    desk.sql(*(f"DROP TRIGGER {name}" for name in names))
    result = desk.run("ledger", "check", "--json")
    assert (result.code, result.json["ok"]) == (BOOKS_WRONG, False)
    for name in names:
        assert any(name in problem for problem in result.json["problems"]), name


@beside
def test_nothing_is_booked_on_wrong_books(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    tamper(desk.database, "UPDATE account SET debits_posted_micro = debits_posted_micro + 1")
    before = desk.read("ledger", "entries")
    for words in ("deposit 1 --ref x", "adjust 1 --ref y --memo z"):
        result = desk.run("ledger", *words.split(), "--json")
        assert result.code == BOOKS_WRONG, result
        assert result.json["problems"]
    assert desk.read("ledger", "entries") == before


@beside
def test_wrong_books_are_exit_6_though_nobody_reads_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    tamper(desk.database, "UPDATE transfer SET memo = 'edited'")
    for unbuffered in ("", "1"):
        desk.settings["PYTHONUNBUFFERED"] = unbuffered
        done = in_a_shell(desk, "ledger check | exec sleep 0", "${PIPESTATUS[0]}")
        assert (done.stdout, done.stderr) == (f"{BOOKS_WRONG}\n", "")


@beside
def test_edited_sums_are_an_alert_and_stop_the_next_run(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised()
    desk.sql("UPDATE account SET credits_posted_micro = 1 WHERE name = 'grants'")
    page, text, check = calls(desk, "status --json", "status", "ledger check --json")
    assert (page.code, text.code, check.code) == (DONE, DONE, BOOKS_WRONG)
    (alert,) = page.json["alerts"]
    assert "DO NOT BALANCE" in alert
    assert alert in text.out
    assert any("grants" in problem for problem in check.json["problems"])
    once = desk.once()
    assert (once.code, once.json["outcome"]) == (BOOKS_WRONG, "failed")
    assert desk.articles == []


@beside
def test_a_request_whose_cost_was_edited_is_named(tmp_path: Path, paid: Paid) -> None:
    desk, attempt = paid.copy(tmp_path), paid.plan["attempt"]
    desk.sql(f"UPDATE attempt SET cost_micro = cost_micro - 1 WHERE id = '{attempt}'")
    result, text = calls(desk, "ledger check --json", "ledger check")
    assert (result.code, text.code) == (BOOKS_WRONG, BOOKS_WRONG)
    (problem,) = result.json["problems"]
    assert attempt in problem
    assert "THE BOOKS DO NOT BALANCE" in text.out
    assert attempt in text.out
