"""The books from outside: paying in, mending, exporting, copying, and finding out what is owed."""

from __future__ import annotations

import csv
import fcntl
import inspect
import io
import re
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
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
    books,
    checked_books,
    digest_desk,
    ladder,
    micro,
    small_world,
)

DONE, FAILED, SETTINGS, _, _, _, BOOKS_WRONG, LOCKED, UNCONFIRMED = range(9)
BEAN_CHECK = str(Path(sys.executable).parent / "bean-check")
PAST = Path(__file__).parent / "databases" / "0001.sql"
# An answer that never ends is given up after a second, and another model is asked instead.
UNCLEAR = ladder("llm/alpha > llm/beta") | {"PENSTOCK_CALL_TIMEOUT": "1"}


# Most of a command's time is Python starting, so tests that share nothing run two at a time: all
# are begun by the first of them, and each reports when its turn comes.

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
    refusals: dict[str, Future[Result]]
    entries_before: str
    counter: Desk


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
    items = [item for item in request.session.items if item.path == request.path]
    bodies = [item.name for item in items if item.name in _BODIES]
    wanted = {name for item in items for name in REFUSALS if f"[{name}]" in item.name}
    counter = Desk(tmp_path_factory.mktemp("counter")).initialised()
    Desk(tmp_path_factory.mktemp("template")).initialised(None)
    before = counter.run("ledger", "entries", "--json").out

    def play(body: Body, folder: Path, paid: Future[Paid]) -> None:
        asked = inspect.signature(body).parameters
        more = {"paid": paid.result()} if "paid" in asked else {}
        if "world" in asked:
            with small_world() as world:
                body(folder, world, **more)
        else:
            body(folder, **more)

    # One more than there are cores: some of what is played waits for a deadline.
    with ThreadPoolExecutor(3) as pool:
        paid = pool.submit(bought, tmp_path_factory.mktemp("paid"))
        yield Show(
            {n: pool.submit(play, _BODIES[n], tmp_path_factory.mktemp("b"), paid) for n in bodies},
            {n: pool.submit(counter.run, *REFUSALS[n][0], "--json") for n in sorted(wanted)},
            before,
            counter,
        )
        pool.shutdown(cancel_futures=True)


def bought(home: Path) -> Paid:
    with small_world() as world:
        world.model.misbehave("no_json_schema")
        desk = world.desk(home)
        done = desk.once()
        assert done.code == DONE, done
        found = books(desk)
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


def adjust(desk: Desk, amount: str, ref: str, *more: str) -> Result:
    """`ledger adjust`, with its document."""
    return desk.run(
        "ledger", "adjust", amount, "--ref", ref, "--memo", "as billed", *more, "--json"
    )


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


def tamper(desk: Desk, *statements: str) -> list[str]:
    """Edit the books as somebody would who knows of the triggers; returns their names."""
    with closing(sqlite3.connect(desk.database)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        names = [str(name) for (name,) in rows]
    desk.sql(*(f"DROP TRIGGER {name}" for name in names), *statements)
    return names


def entries_of(desk: Desk) -> str:
    """The document of all entries, byte for byte."""
    result = desk.run("ledger", "entries", "--json")
    assert result.code == DONE, result
    return result.out


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
        f"deposit {amount[:20]!a}": (("ledger", "deposit", amount, "--ref", "x"), (why,))
        for amount, why in DEPOSITS.items()
    },
    **{
        f"adjust {amount[:20]!a}": (("ledger", "adjust", amount, *FINE), (why,))
        for amount, why in ADJUSTMENTS.items()
    },
    **{
        f"source of {name}": (
            ("ledger", "deposit", "1", "--ref", "x", "--source", source),
            ("no account", repr(f"revenue:{source}")),
        )
        for name, source in SOURCES.items()
    },
    "used ref": (("ledger", "deposit", "99", "--ref", "first"), ("first", "another amount")),
    "blank ref": (("ledger", "adjust", "1", "--ref", " \t", "--memo", "y"), ("--ref",)),
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


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_booked_is_refused_and_it_is_said_why(show: Show, name: str) -> None:
    result = show.refusals[name].result()
    assert result.code == SETTINGS, result
    for words in REFUSALS[name][1]:
        assert words in result.err
        assert words in result.json["error"]
    assert len(result.err) < 500, "what was typed is shown cut short"


@pytest.mark.parametrize("amount", ["-1", "five", "1,5"])
def test_a_refusal_shows_the_amount_that_was_typed(show: Show, amount: str) -> None:
    name = f"deposit {amount!a}"
    if name in show.refusals:
        assert amount in show.refusals[name].result().err


def test_after_all_refusals_the_books_are_as_they_were_byte_for_byte(show: Show) -> None:
    for refusal in show.refusals.values():
        refusal.result()
    assert entries_of(show.counter) == show.entries_before
    assert show.counter.read("ledger", "check")["ok"] is True


@beside
def test_a_call_that_cannot_be_read_still_writes_its_document(tmp_path: Path) -> None:
    # `checked` reads the document of every call with --json.
    assert Desk(tmp_path).run("ledger", "deposit", "1", "--ref", b"\xff", "--json").code == SETTINGS


@beside
def test_a_refusal_is_json_in_utf_8_whatever_letters_the_terminal_has(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for encoding in ("ascii", "latin-1"):
        done = subprocess.run(
            [PENSTOCK, "ledger", "deposit", "5 é😀", "--ref", "x", "--json"], cwd=tmp_path,
            env=desk.env({"PYTHONIOENCODING": encoding}), capture_output=True, check=False,
        )  # fmt: skip
        result = Result(("--json",), done.returncode, done.stdout.decode(), "")
        assert result.code == SETTINGS
        assert "5 é😀" in result.json["error"]


# Adjustments


@beside
def test_an_adjustment_is_booked_once_per_ref_with_either_sign(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised("5")
    plain = adjust(desk, "-0.5", "fee")
    dashed = desk.run("ledger", "adjust", "--ref", "two", "--memo", "x", "--json", "--", "-0.5")
    given = adjust(desk, "+.25", "gift")
    assert [r.code for r in (plain, dashed, given)] == [DONE] * 3
    assert plain.json == {
        "created": True, "amount": "-0.500000", "ref": "fee", "corrects": None,
        "available": "4.500000",
    }  # fmt: skip
    before = entries_of(desk)
    again = desk.run("ledger", "adjust", "-0.50", "--ref", "fee", "--memo", "in other words")
    assert again.code == DONE
    assert "booked before" in again.out
    assert adjust(desk, "-0.5", "fee").json["created"] is False
    other = adjust(desk, "-0.6", "fee")
    assert other.code == SETTINGS
    assert "another amount" in other.err
    assert entries_of(desk) == before
    balance, entries = desk.read_all("ledger balance", "ledger entries")
    assert balance["available"] == "4.250000"
    sides = [(e["code"], e["debit"], e["credit"], e["memo"]) for e in entries[1:]]
    assert sides == [
        ("adjustment", "adjustments", "treasury", "as billed"),
        ("adjustment", "adjustments", "treasury", "x"),
        ("adjustment", "treasury", "adjustments", "as billed"),
    ]


@beside
def test_a_deposit_of_fifty_that_was_five_is_put_right(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    assert desk.run("ledger", "deposit", "50", "--ref", "typo").code == DONE
    put_right = adjust(desk, "-45", "oops", "--corrects", "deposit:typo")
    assert put_right.code == DONE, put_right
    assert (put_right.json["corrects"], put_right.json["available"]) == ("deposit:typo", "5.000000")
    # A replay of the deposit changes nothing, and the money cannot be taken back twice.
    assert desk.run("ledger", "deposit", "50", "--ref", "typo").code == DONE
    twice = adjust(desk, "-5.000001", "again", "--corrects", "deposit:typo")
    assert twice.code == SETTINGS
    assert "moved 5.000000" in twice.err
    found = checked_books(desk)
    assert found.sums == {"treasury": 5_000_000, "grants": -5_000_000}
    assert found.entries[-1]["corrects"] == "deposit:typo"


@beside
def test_only_a_correction_may_take_what_is_not_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised("5")
    assert adjust(desk, "-4", "fee").code == DONE
    assert adjust(desk, "-2", "more").code == SETTINGS
    bounced = adjust(desk, "-5", "bounced", "--corrects", "deposit:first")
    assert bounced.code == DONE, bounced
    assert bounced.json["available"] == "-4.000000"
    assert adjust(desk, "-0.000001", "more").code == SETTINGS
    status = desk.read("status")
    assert status["balance"]["available"] == "-4.000000"
    assert not [alert for alert in status["alerts"] if "BALANCE" in alert]
    assert adjust(desk, "1", "found").code == DONE
    assert checked_books(desk).sums == {"treasury": -3_000_000, "adjustments": 3_000_000}


@beside
def test_a_correction_shows_wherever_the_cost_of_its_request_is_shown(
    tmp_path: Path, paid: Paid
) -> None:
    desk, plan = paid.copy(tmp_path), paid.plan
    first = adjust(desk, "0.009", "bill", "--corrects", plan["id"])
    again = adjust(desk, "0.009", "bill", "--corrects", plan["id"])
    back = adjust(desk, "-0.002", "bill-2", "--corrects", "adjustment:bill")
    assert [(r.code, r.json["created"]) for r in (first, again, back)] == [
        (DONE, True), (DONE, False), (DONE, True),
    ]  # fmt: skip
    found = checked_books(desk)
    shown, runs = desk.read_all(f"runs show {paid.run}", "runs list")
    assert found.booked == paid.books.booked - 7_000
    assert micro(shown["cost"]) == micro(runs[0]["cost"]) == found.booked
    assert sum(micro(step["cost"]) for step in shown["steps"]) == found.booked
    costs = {a["id"]: micro(a["cost"]) for a in found.attempts}
    expected = {a["id"]: micro(a["cost"]) for a in paid.books.attempts}
    expected[plan["attempt"]] -= 7_000
    assert costs == expected
    assert [(e["run"], e["attempt"], e["corrects"]) for e in found.entries[-2:]] == [
        (paid.run, plan["attempt"], plan["id"]), (paid.run, plan["attempt"], "adjustment:bill"),
    ]  # fmt: skip


@beside
def test_two_who_give_the_same_money_back_at_once_give_it_back_once(
    tmp_path: Path, paid: Paid
) -> None:
    desk, plan = paid.copy(tmp_path), paid.plan
    most = f"{micro(plan['amount']) * 6 // 10 / 1e6:.6f}"
    with ThreadPoolExecutor(2) as pool:
        results = list(
            pool.map(lambda ref: adjust(desk, most, ref, "--corrects", plan["id"]), "ab")
        )
    assert sorted(result.code for result in results) == [DONE, SETTINGS]
    (refused,) = [result for result in results if result.code == SETTINGS]
    assert "cannot be taken back" in refused.err
    assert plan["id"] in refused.err
    assert checked_books(desk).booked == paid.books.booked - micro(most)


@beside
def test_a_hold_cannot_be_corrected_and_the_refusal_names_the_entry_that_can(
    tmp_path: Path, paid: Paid
) -> None:
    desk, ids = paid.copy(tmp_path), {e["id"] for e in paid.books.entries}
    before = entries_of(desk)
    hold = paid.hold("settled")
    result = adjust(desk, "0.001", "x", "--corrects", hold)
    assert result.code == SETTINGS, result
    (named,) = set(re.findall(r"\S+:settle", result.err))
    assert named == f"{hold}:settle"
    assert named in ids
    assert entries_of(desk) == before


@beside
def test_the_refusal_to_correct_a_void_hold_names_no_entry_that_is_not_there(
    tmp_path: Path, paid: Paid
) -> None:
    desk, ids = paid.copy(tmp_path), {e["id"] for e in paid.books.entries}
    hold = paid.hold("voided")
    for name in (hold, f"{hold}:void"):
        result = adjust(desk, "0.001", "x", "--corrects", name)
        assert result.code == SETTINGS, result
        assert hold in result.err
        assert set(re.findall(r"\S+:settle", result.err)) <= ids, result.err


# Exports

MEMOS = ("naïve 😀 €5, \"quoted\" 'n' %20", "=1+1", "two\nlines\r\n\tand a tab", "'quoted first")
TERMINALS = ({"LANG": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "latin-1"})


@beside
def test_every_export_has_the_books_of_a_paid_run_whole(tmp_path: Path, paid: Paid) -> None:
    desk = paid.copy(tmp_path)
    for number, memo in enumerate(MEMOS):
        words = ("ledger", "adjust", f"-0.00000{number + 1}", "--ref", f"r {number}")
        assert desk.run(*words, "--memo", memo).code == DONE
    entries, balance = desk.read_all("ledger entries", "ledger balance")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(FORMATS, pool.map(lambda f: exported(desk, f, {}), FORMATS), strict=True))
        # What programs read is UTF-8, whatever letters the terminal has.
        calls = [(desk, "beancount", TERMINALS[0]), (desk, "csv", TERMINALS[1])]
        assert list(pool.map(lambda call: exported(*call), calls)) == [
            found["beancount"], found["csv"],
        ]  # fmt: skip
    assert Result((), 0, found["json"], "").json == entries
    assert [entry["memo"] for entry in entries[-4:]] == list(MEMOS)
    assert list(csv.DictReader(io.StringIO(found["csv"], newline=""))) == [
        {name: as_a_cell(value) for name, value in entry.items()} for entry in entries
    ]
    names = {account["name"] for account in balance["accounts"]}
    assert set(re.findall(r"^account \w+:(\S+)", found["hledger"], re.MULTILINE)) == names
    path = tmp_path / "books.beancount"
    path.write_text(found["beancount"], encoding="utf-8", newline="")
    checked = subprocess.run(
        [BEAN_CHECK, str(path)], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert all(f'name: "{name}"' in found["beancount"] for name in names)


def exported(desk: Desk, form: str, settings: dict[str, str | None]) -> str:
    result = desk.run("ledger", "export", "--format", form, settings=settings)
    assert (result.code, result.err) == (DONE, ""), result
    return result.out


def as_a_cell(value: str | None) -> str:
    """What a spreadsheet would take for a formula has an apostrophe in front."""
    formula = value is not None and value.strip()[:1] in tuple("-=+@'")
    return f"'{value}" if formula else value or ""


@beside
def test_entries_are_utf_8_on_every_terminal(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    assert desk.run("ledger", "adjust", "1", "--ref", "é", "--memo", MEMOS[0]).code == DONE
    for settings in TERMINALS:
        result = desk.run("ledger", "entries", "--json", settings=settings)
        assert result.json[-1]["memo"] == MEMOS[0]


@beside
def test_the_formats_that_can_be_asked_for_are_those_there_are(tmp_path: Path) -> None:
    result = Desk(tmp_path).run("ledger", "export", "--format", "xlsx")
    assert result.code == SETTINGS
    assert result.out == ""
    offered = re.search(r"'xlsx' \(choose from (.*)\)", result.err)
    assert offered is not None, result.err
    assert re.findall(r"\w+", offered[1]) == list(FORMATS)


@beside
def test_an_export_whose_reader_goes_away_is_no_error(tmp_path: Path, paid: Paid) -> None:
    desk = paid.copy(tmp_path)
    for form in ("json", "beancount"):
        export = f"{shlex.quote(PENSTOCK)} ledger export --format {form}"
        done = in_a_shell(desk, f"{export} | head -n 0; echo ${{PIPESTATUS[0]}}")
        assert (done.stdout, done.stderr) == ("0\n", "")


@beside
def test_an_export_onto_a_full_disk_fails_as_every_failure_does(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("NOT RUN: this machine has no /dev/full")
    desk = Desk(tmp_path).initialised()
    done = in_a_shell(desk, f"{shlex.quote(PENSTOCK)} ledger export --format csv > /dev/full")
    assert "No space left" in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode == FAILED


@beside
def test_a_deposit_is_booked_and_said_to_be_where_nobody_listens(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    done = in_a_shell(desk, f"{shlex.quote(PENSTOCK)} ledger deposit 1 --ref x >&-")
    assert "unexpected" not in done.stderr
    assert done.returncode == DONE
    assert desk.read("ledger", "balance")["available"] == "1.000000"


def in_a_shell(desk: Desk, words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", words], env=desk.env(), cwd=desk.home, capture_output=True,
        encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip


# Backups


@beside
def test_a_backup_is_a_file_of_its_own_that_works_in_the_place_of_the_database(
    tmp_path: Path, paid: Paid
) -> None:
    desk, path = paid.copy(tmp_path / "home"), tmp_path / "nightly.db"
    first = desk.run("backup", str(path), "--json")
    assert first.code == DONE, first
    assert first.json["path"] == str(path)
    assert first.json["bytes"] == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert desk.run("ledger", "deposit", "1", "--ref", "later").code == DONE
    second = desk.run("backup", str(path), "--json")
    assert second.json["transfers"] == first.json["transfers"] + 1
    assert {p.name for p in tmp_path.iterdir()} == {"home", "nightly.db"}
    other = Desk(tmp_path / "other", desk.settings | {"PENSTOCK_STATE_DIR": str(tmp_path / "new")})
    restored(other, path)
    assert entries_of(other) == entries_of(desk)
    again = other.run("ledger", "deposit", "1", "--ref", "later", "--json")
    assert (again.code, again.json["created"]) == (DONE, False)
    assert checked_books(other).booked == paid.books.booked


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
    for place, why in places.items():
        result = desk.run("backup", str(place), "--json")
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
        deadline = time.monotonic() + 30
        while not world.model.requests:
            assert time.monotonic() < deadline, "nothing was asked"
            time.sleep(0.02)
        assert desk.run("backup", str(path)).code == DONE
        assert desk.run("reconcile").code == LOCKED
    other = restored(world_desk(world, tmp_path / "other"), path)
    assert_covered(checked_books(other), world.model)
    assert other.read("status")["holds"]["open"] == 1
    found = reconcile(other)
    assert found.code == UNCONFIRMED, found
    assert [hold["state"] for hold in found.json["holds"]] == ["pending"]


def world_desk(world: World, home: Path) -> Desk:
    """A machine in a world, without a database."""
    return Desk(home, dict(world.settings))


@beside
def test_books_that_do_not_balance_are_never_a_backup(tmp_path: Path) -> None:
    desk, folder = Desk(tmp_path / "home").initialised(), tmp_path / "backups"
    folder.mkdir()
    assert desk.run("backup", str(folder / "good.db")).code == DONE
    good = (folder / "good.db").read_bytes()
    tamper(desk, "UPDATE transfer SET amount_micro = amount_micro + 1")
    for name in ("good.db", "new.db"):
        result = desk.run("backup", str(folder / name), "--json")
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
    before = entries_of(desk)
    found = reconcile(desk)
    assert found.code == DONE
    assert found.json == {
        "unconfirmed": False, "available": "100.000000", "holds": [], "providers": [],
        "publications": [],
    }  # fmt: skip
    assert entries_of(desk) == before


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
    tamper(desk, "UPDATE transfer SET memo = 'edited'")
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
    before = books(desk)
    ((hold, held),) = before.pending.items()
    found = reconcile(desk)
    assert found.code == UNCONFIRMED
    assert found.json["unconfirmed"] is True
    assert [(h["id"], h["state"], h["cost"], micro(h["held"])) for h in found.json["holds"]] == [
        (hold, "pending", None, held)
    ]
    assert [(p["name"], p["api"], p["error"]) for p in found.json["providers"]] == [
        ("llm", None, None)
    ]
    told_in_status(desk, before)
    at_once = desk.changed(PENSTOCK_HOLD_EXPIRY="0")
    status = at_once.read("status")
    assert status["holds"]["charged_at"] is None
    assert any("next `penstock reconcile`" in alert for alert in status["alerts"])
    charged = reconcile(at_once)
    assert charged.code == DONE
    assert charged.json["unconfirmed"] is False
    assert [(h["id"], h["state"], micro(h["cost"])) for h in charged.json["holds"]] == [
        (hold, "uncertain", held)
    ]
    after = checked_books(desk)
    assert_covered(after, world.model)
    assert after.held == 0
    assert (after.entries[-1]["code"], after.entries[-1]["ref"]) == ("uncertain", hold)
    assert after.booked == before.booked + held
    assert desk.read("status")["holds"] == {
        "open": 0, "unknown": 0, "unknown_held": "0.000000", "charged_at": None,
    }  # fmt: skip


def told_in_status(desk: Desk, found: Books) -> None:
    """The one hold nobody waits for any more, with its amount and the time it is charged."""
    ((hold, held),) = found.pending.items()
    page, text = desk.read("status"), desk.run("status").out
    holds = page["holds"]
    assert set(holds) >= {"open", "unknown", "unknown_held", "charged_at"}
    assert (holds["open"], holds["unknown"]) == (1, 1)
    assert AMOUNT.fullmatch(holds["unknown_held"])
    assert micro(holds["unknown_held"]) == micro(page["balance"]["held"]) == held
    assert MOMENT.fullmatch(holds["charged_at"])
    (made,) = [e["at"] for e in found.entries if e["id"] == hold]
    waited = datetime.fromisoformat(holds["charged_at"]) - datetime.fromisoformat(made)
    assert waited == timedelta(hours=24)
    (alert,) = page["alerts"]
    for words in (holds["unknown_held"], holds["charged_at"], "penstock reconcile"):
        assert words in alert
    assert alert in text


@beside
def test_a_provider_that_can_be_asked_brings_the_books_to_its_bill(
    tmp_path: Path, world: World
) -> None:
    model = world.model
    model.usage_api, model.used_before = "openrouter", 123_456_789
    desk = world.desk(tmp_path, **UNCLEAR)
    first = reconcile(desk)
    assert first.code == DONE
    (provider,) = first.json["providers"]
    assert (provider["api"], provider["used"]) == ("openrouter", "123.456789")
    assert provider["note"]
    model.misbehave("stall", schema="draft", model="alpha")
    assert desk.once().code == DONE
    age(desk)
    before = entries_of(desk)

    # It does not answer: nothing is booked, and the hold is still open.
    model.usage_status = 503
    silent = reconcile(desk)
    assert silent.code == UNCONFIRMED
    assert re.search(r"\bllm\b.*503", silent.json["providers"][0]["error"])
    assert [hold["state"] for hold in silent.json["holds"]] == ["pending"]
    assert entries_of(desk) == before

    model.usage_status = 200
    asked = reconcile(desk)
    assert (asked.code, asked.json["unconfirmed"]) == (DONE, False)
    (hold,) = asked.json["holds"]
    charges = [c.micro for c in model.bill if (c.schema, c.model) == ("draft", "alpha")]
    assert (hold["state"], [micro(hold["cost"])]) == ("settled", charges)
    assert asked.json["providers"][0]["corrected"] == "0.000000"
    found = checked_books(desk)
    assert_billed_exactly(found, model)
    assert [a["cost"] for a in found.outcomes("unknown")] == [hold["cost"]]

    # What somebody else used the key for is booked, once.
    model.charge(7_777)
    differed = reconcile(desk)
    assert differed.code == DONE
    assert differed.json["providers"][0]["corrected"] == "0.007777"
    now = entries_of(desk)
    again = desk.run("reconcile")
    assert again.code == DONE
    assert "nothing was unconfirmed" in again.out
    assert entries_of(desk) == now
    last = Result((), 0, now, "").json[-1]
    assert (last["code"], last["amount"], last["debit"]) == (
        "correction", "0.007777", "inference:llm",
    )  # fmt: skip
    assert_billed_exactly(checked_books(desk), model)

    # It does not answer, and nothing is open: a failure all the same.
    model.usage_status = 503
    failed, told = reconcile(desk), desk.run("reconcile")
    assert (failed.code, told.code) == (FAILED, FAILED)
    assert failed.json["unconfirmed"] is False
    assert "503" in failed.json["providers"][0]["error"]
    assert re.search(r"\bllm\b.*503", told.out)
    assert KEY not in told.said
    assert entries_of(desk) == now


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
    after = checked_books(desk)
    assert 0 <= after.booked - model.billed_micro <= 1
    assert after.held == 0
    assert [a["cost"] for a in after.outcomes("unknown")] == [hold["cost"]]
    assert entries_of(desk) == (reconcile(desk), entries_of(desk))[1]


@beside
def test_what_a_person_mended_and_the_provider_tells_later_ends_at_the_bill(
    tmp_path: Path, world: World
) -> None:
    model = world.model
    model.misbehave("no_usage", schema="draft", model="alpha")
    desk = world.desk(tmp_path / "home", **UNCLEAR, PENSTOCK_HOLD_EXPIRY="0")
    assert desk.once().code == DONE
    age(desk)
    assert reconcile(desk).json["holds"][0]["state"] == "uncertain"
    uncertain = books(desk).entries[-1]
    model.usage_api = "openrouter"
    # Less than the provider will say, and more.
    for back in ("0.001", "0.06"):
        other = copied(desk, tmp_path / back)
        assert adjust(other, back, "bill", "--corrects", uncertain["id"]).code == DONE
        found = reconcile(other)
        assert found.code == DONE, found
        assert_billed_exactly(checked_books(other), model)


# Databases of the past, and edited ones


@beside
def test_books_of_a_past_version_are_left_alone_until_init_brings_them_up(tmp_path: Path) -> None:
    desk = past(tmp_path)
    before = desk.database.read_bytes()
    commands = (
        ("ledger", "check", "--json"),
        ("ledger", "export", "--format", "beancount"),
        ("ledger", "adjust", "1", "--ref", "x", "--memo", "y"),
        ("backup", str(tmp_path / "copy.db"), "--json"),
    )
    for words in commands:
        result = desk.run(*words)
        assert result.code == SETTINGS, result
        assert "0001" in result.err
        assert "penstock init" in result.err
    assert desk.database.read_bytes() == before
    assert not (tmp_path / "copy.db").exists()
    assert desk.run("init").code == DONE
    found = checked_books(desk)
    holds = desk.read("status")["holds"]
    assert holds["open"] == len(found.pending) > 0
    assert 0 < micro(holds["unknown_held"]) <= found.held
    assert adjust(desk, "-0.000001", "x").code == DONE
    assert desk.run("ledger", "check").code == DONE


@beside
def test_reconcile_brings_books_of_a_past_version_up_and_ends_what_they_left_open(
    tmp_path: Path,
) -> None:
    desk = past(tmp_path)
    found = reconcile(desk)
    states = {hold["state"] for hold in found.json["holds"]}
    # What is charged by now depends on the day this runs: they are books of one November.
    assert found.code == (UNCONFIRMED if "pending" in states else DONE)
    assert states <= {"pending", "uncertain"}
    after = checked_books(desk)
    still = {hold["id"] for hold in found.json["holds"] if hold["state"] == "pending"}
    assert set(after.pending) == still
    assert all(attempt["outcome"] for attempt in after.attempts)
    assert desk.read("status")["holds"]["unknown"] == len(still)


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
    names = tamper(desk)
    assert names
    result = desk.run("ledger", "check", "--json")
    assert result.code == BOOKS_WRONG
    assert result.json["ok"] is False
    for name in names:
        assert any(name in problem for problem in result.json["problems"]), name


@beside
def test_edited_sums_are_an_alert_and_stop_the_next_run(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised()
    desk.sql("UPDATE account SET credits_posted_micro = 1 WHERE name = 'grants'")
    status, text = desk.read("status"), desk.run("status")
    (alert,) = [alert for alert in status["alerts"] if "DO NOT BALANCE" in alert]
    assert alert in text.out
    once, check = desk.once(), desk.run("ledger", "check", "--json")
    assert (once.code, check.code) == (BOOKS_WRONG, BOOKS_WRONG)
    assert once.json["outcome"] == "failed"
    assert any("grants" in problem for problem in check.json["problems"])
    assert desk.articles == []


@beside
def test_a_request_whose_cost_was_edited_is_named(tmp_path: Path, paid: Paid) -> None:
    desk = paid.copy(tmp_path)
    attempt = paid.plan["attempt"]
    desk.sql(f"UPDATE attempt SET cost_micro = cost_micro - 1 WHERE id = '{attempt}'")
    result, text = desk.run("ledger", "check", "--json"), desk.run("ledger", "check")
    assert (result.code, text.code) == (BOOKS_WRONG, BOOKS_WRONG)
    (problem,) = result.json["problems"]
    assert attempt in problem
    assert "THE BOOKS DO NOT BALANCE" in text.out
    assert attempt in text.out
