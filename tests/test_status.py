"""`penstock status`: the page a person reads, and the one that is redrawn."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from daemon import alerts, control, journal
from daemon.alerts import Kind
from daemon.cli import page, status
from daemon.cli.context import Context, UsageError
from daemon.cli.page import BLOCKS, LETTERS, Line, plain, printable, sections, sparkline, trend
from daemon.journal import PublicationState, RunOutcome, RunState
from daemon.settings import Settings
from daemon.settings import load as load_settings
from ledger import store
from ledger.database import Database
from ledger.errors import SchemaTooOld, StorageBusy
from ledger.money import ZERO, MicroCredits
from tests.cli_helpers import AMOUNT, MOMENT, PENSTOCK, Desk, as_another, digest_desk
from tests.ledger_helpers import NO_LIMITS, open_run, whole_book
from tests.virtual import VirtualTime

NOW = datetime(2026, 11, 23, 8, 20, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with whole_book(tmp_path / "books.db") as database:
        yield database


def ago(days: float = 0, *, hours: float = 0) -> datetime:
    return NOW - timedelta(days=days, hours=hours)


def deposit(tx: Connection, micro: int, at: datetime) -> None:
    store.deposit(tx, amount=MicroCredits(micro), ref=at.isoformat(), at=at)


def spend(tx: Connection, micro: int, at: datetime) -> None:
    hold = f"h-{at.isoformat()}"
    amount = MicroCredits(micro)
    store.hold(tx, id=hold, account="inference:llm", amount=amount, at=at, limits=NO_LIMITS)
    store.settle(tx, hold, actual=amount, at=at)


def earn(tx: Connection, micro: int, at: datetime) -> None:
    store.earn(
        tx, id=f"e-{at.isoformat()}", platform="devto", amount=MicroCredits(micro),
        cap=MicroCredits(10**12), since=NOW - timedelta(days=400), at=at,
    )  # fmt: skip


def a_run(
    tx: Connection, id: str, at: datetime, outcome: RunOutcome | None = None, **changes: Any
) -> None:
    open_run(tx, id, at)
    if outcome is not None:
        journal.finish_run(tx, id, outcome=outcome, reason="why", at=at + timedelta(minutes=5))
    if changes:
        journal.change_run(tx, id, **changes)


def chosen(**changes: str) -> Settings:
    env = {
        "PENSTOCK_NICHE": "databases", "PENSTOCK_FEEDS": "http://blog.test/feed.xml",
        "PENSTOCK_TIMEZONE": "Europe/Berlin", "PENSTOCK_STATE_DIR": "/nowhere",
    }  # fmt: skip
    paid = {
        "PENSTOCK_PROVIDER_LLM_URL": "https://llm.test/v1", "PENSTOCK_PROVIDER_LLM_KEY": "k",
        "PENSTOCK_MODELS_RESEARCH": "llm/good", "PENSTOCK_MODELS_WRITE": "llm/good",
        "PENSTOCK_MODELS_EDIT": "llm/good", "PENSTOCK_PRICES": "llm/good=1,0.1,5",
    }  # fmt: skip
    return load_settings(env | paid | changes, at=NOW)


def document(database: Database, settings: Settings | None = None) -> dict[str, Any]:
    with database.read() as tx:
        return status.document(tx, settings, "", NOW)


def told(document: dict[str, Any], *, blocks: bool = True) -> str:
    return plain(sections(document, BERLIN, blocks=blocks))


# The trend


def test_the_trend_is_the_balance_at_each_day_and_now(database: Database) -> None:
    with database.write() as tx:
        deposit(tx, 10_000_000, ago(40))
        spend(tx, 1_000_000, ago(35))
        spend(tx, 2_000_000, ago(10, hours=1))
        earn(tx, 500_000, ago(3, hours=1))
    points = document(database)["trend"]
    assert [point["at"] for point in (points[0], points[-1])] == [
        "2026-10-24T08:00:00Z", "2026-11-23T08:20:00Z",
    ]  # fmt: skip
    micro = [point["balance"].micro for point in points]
    assert micro == [9_000_000] * 20 + [7_000_000] * 7 + [7_500_000] * 4


moves = st.tuples(st.integers(-45 * 24 * 60, 60), st.integers(-900, 1_000))


@given(st.lists(moves, max_size=25))
def test_balances_of_the_past_are_what_the_entries_up_to_then_add_up_to(
    books: Database, drawn: list[tuple[int, int]]
) -> None:
    class Rollback(Exception):
        pass

    hours = [ago(30).replace(minute=0), ago(2).replace(minute=0), NOW.replace(minute=0)]
    with pytest.raises(Rollback), books.write() as tx:
        for number, (minute, micro) in enumerate(drawn):
            at, ref = NOW + timedelta(minutes=minute), str(number)
            if micro > 0:
                store.deposit(tx, amount=MicroCredits(micro), ref=ref, at=at)
            elif micro < 0:
                store.correct(
                    tx, id=ref, account="inference:llm", amount=MicroCredits(micro), at=at, memo="m"
                )
        entries = list(store.entries(tx))
        assert store.posted_at(tx, []) == []
        for hour, found in zip(hours, store.posted_at(tx, hours), strict=True):
            assert found == sum(
                (
                    entry.amount if entry.debit == "treasury" else -entry.amount
                    for entry in entries
                    if entry.at < hour
                ),
                start=ZERO,
            )
        raise Rollback


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with whole_book(tmp_path_factory.mktemp("books") / "books.db") as database:
        yield database


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([5, 5, 5], "▁▁▁"),
        ([10, 0, 5], "█▁▄"),
        ([-7, 0], "▁█"),
        ([3], "▁"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[int], drawn: str) -> None:
    assert sparkline(values, BLOCKS) == drawn
    assert sparkline(values, LETTERS) == drawn.translate(str.maketrans(BLOCKS, LETTERS))


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (9_000_000, 7_500_000, "down 1.500000 in 30 d"),
        (0, 1, "up 0.000001 in 30 d"),
        (5, 5, "as it was 30 d ago"),
    ],
)
def test_the_change_is_said_in_words(first: int, last: int, words: str) -> None:
    points = [
        {"at": "2026-10-24T08:00:00Z", "balance": MicroCredits(first)},
        {"at": "2026-11-23T08:20:00Z", "balance": MicroCredits(last)},
    ]
    assert trend(points).endswith(f" {words}")


@pytest.mark.parametrize(
    ("encoding", "can"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("no-such", False)],
)
def test_blocks_are_drawn_where_the_terminal_has_them(encoding: str | None, can: bool) -> None:
    assert printable(encoding) is can


# The page


def test_a_new_publication_is_told_what_to_do(database: Database) -> None:
    found = document(database, chosen())
    said = told(found)
    assert "nothing yet; `penstock once` makes the first run" in said
    assert "`penstock ledger deposit AMOUNT --ref RECEIPT`" in said
    assert found["last_runs"] == []
    assert found["last_run"] is None


def test_what_it_earned_stands_beside_what_it_spent(database: Database) -> None:
    with database.write() as tx:
        deposit(tx, 10_000_000, ago(40))
        spend(tx, 2_000_000, ago(10))
        earn(tx, 500_000, ago(3))
    said = told(document(database))
    assert "0.500000 against 2.000000 spent in 30 d: 25 %" in said
    assert "0.500000 notional from readers, 0.000000 in money" in said


def test_the_last_three_runs_are_listed_the_newest_first_for_a_person(database: Database) -> None:
    with database.write() as tx:
        for number, outcome in enumerate(
            [RunOutcome.PUBLISHED, RunOutcome.PUBLISHED, RunOutcome.ABSTAINED, RunOutcome.FAILED]
        ):
            a_run(tx, f"r{number}", ago(8 - number), outcome, title=f"Title {number}")
    found = document(database)
    # JSON lists are oldest first.
    assert [run["run"] for run in found["last_runs"]] == ["r1", "r2", "r3"]
    assert found["last_run"] == found["last_runs"][-1]
    lines = [line.text for lines in sections(found, BERLIN) for line in lines]
    ran = [line for line in lines if "Nov" in line]
    assert [line.split()[-1] for line in ran] == ["why", "why", "1”"]
    assert ran[2] == "Mon 16 Nov 09:20  published  0.000000  r1  “Title 1”"


def test_what_comes_next_is_in_the_operators_time_and_utc_in_json(database: Database) -> None:
    found = document(database, chosen(PENSTOCK_PUBLISH_CRON="0 9 * * wed"))
    assert found["next"]["publish"] == "2026-11-25T08:00:00Z"
    assert found["next"]["collect"] == "2026-11-23T08:30:00Z"
    said = told(found)
    assert "publish  Wed 25 Nov 09:00, in 1 d 23 h" in said
    assert "collect  Mon 23 Nov 09:30, in 10 min" in said
    assert "feeds    Mon 23 Nov 10:07, in 47 min" in said
    assert "(Europe/Berlin)" in said


def test_whatever_waits_for_a_person_has_its_command(database: Database) -> None:
    with database.write() as tx:
        deposit(tx, 100_000_000, ago(40))
        a_run(tx, "draft", ago(1), title="On vacuum")
        journal.begin_step(tx, "draft", "desk", ago(1))
        journal.finish_step(tx, "draft", "desk", {}, ago(1))
        journal.change_run(tx, "draft", state=RunState.AWAITING_APPROVAL)
        waits = "“On vacuum” waits for approval: `penstock drafts show draft`"
        alerts.sound(tx, Kind.APPROVAL, "draft", waits, run="draft", at=ago(1))
        for run, platform, state in (
            ("refused", "devto", PublicationState.FAILED),
            ("retried", "devto", PublicationState.INTENDED),
            ("lost", "bluesky", PublicationState.UNCONFIRMED),
        ):
            a_run(tx, run, ago(2), RunOutcome.PUBLISHED)
            journal.intend(tx, run, platform, key=run, payload=b"{}", title="T", at=ago(2))
            journal.change_publication(tx, run, platform, state=state)
            if run != "lost":
                message = f"“{run}” at devto: no"
                about = f"{run}:{platform}"
                alerts.sound(tx, Kind.REFUSED, about, message, run=run, at=ago(2))
        control.pause(tx, reason="holiday", at=ago(1))
    found = document(database, chosen())
    assert {one["command"] for one in found["waiting"]} == {
        "penstock drafts show draft", "penstock posts retry refused", "penstock reconcile",
        "penstock resume",
    }  # fmt: skip
    assert found["drafts_waiting"] == 1
    said = told(found)
    assert "`penstock drafts show draft` (by Sun 29 Nov 09:20, 6 d left)" in said
    # What is said with its command is not said again; the rest is.
    assert said.count("On vacuum” waits") == said.count("“refused” at devto") == 1
    assert "look at   “retried” at devto: no" in said
    assert waits in found["alerts"]


def test_money_is_asked_for_only_where_it_is_what_lacks(database: Database) -> None:
    with database.write() as tx:
        deposit(tx, 100_000_000, ago(40))
    assert document(database, chosen())["waiting"] == []
    # The caps are what is in the way.
    capped = document(database, chosen(PENSTOCK_DAILY_CAP="0"))
    assert capped["pace"]["tier"] == "dormant"
    assert capped["waiting"] == []


def test_nothing_that_others_wrote_moves_the_cursor(database: Database) -> None:
    title = "Red\x1b[31m\x1b[2J\nbalance   9 available"
    with database.write() as tx:
        a_run(tx, "r", ago(1), RunOutcome.PUBLISHED, title=title)
        control.pause(tx, reason="\x07bell\u202e", at=ago(1))
        alerts.sound(tx, Kind.BARRED, "devto", "no\x9b2J\r\nentry", at=ago(1))
    said = told(document(database))
    assert all(letter == "\n" or letter.isprintable() for letter in said)
    assert sum(line.startswith("balance") for line in said.splitlines()) == 1


def test_without_blocks_the_page_is_ascii_but_for_what_others_wrote(database: Database) -> None:
    with database.write() as tx:
        deposit(tx, 10_000_000, ago(20))
        a_run(tx, "r", ago(1), RunOutcome.PUBLISHED, title="A long title, " * 10)
    assert told(document(database, chosen()), blocks=False).isascii()


def test_on_a_terminal_long_lines_hang_under_their_beginning() -> None:
    text = " ".join(["word"] * 40)
    wrapped = plain([[Line("why", text)], [Line("", "`penstock drafts-show-me x`")]], 40)
    lines = wrapped.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[0].startswith("why       word")
    assert lines[1].startswith("          word")
    assert plain([[Line("why", text)]]) == f"why       {text}"


def test_every_name_fits_its_column(database: Database) -> None:
    with database.write() as tx:
        a_run(tx, "r", ago(1), RunOutcome.PUBLISHED)
        control.pause(tx, reason="holiday", at=ago(1))
    found = document(database, chosen())
    names = [line.name for lines in sections(found, BERLIN) for line in lines if line.name]
    assert {"paused", "your turn"} <= {*names}
    assert max(map(len, names)) <= page.LABEL


# From outside


def test_json_keeps_amounts_as_text_and_times_in_utc(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, PENSTOCK_TIMEZONE="Asia/Kolkata").initialised("5")
    assert desk.once().code == 0
    found = desk.read("status")
    assert len(found["trend"]) == 31
    assert all(AMOUNT.fullmatch(point["balance"]) for point in found["trend"])
    assert all(MOMENT.fullmatch(point["at"]) for point in found["trend"])
    assert found["trend"][-1] == {"at": found["at"], "balance": "5.000000"}
    assert [run["run"] for run in found["last_runs"]] == [found["last_run"]["run"]]
    assert all(MOMENT.fullmatch(at) for at in found["next"].values())
    assert set(found["next"]) == {"publish", "collect", "feed"}
    said = desk.run("status").out
    assert "(Asia/Kolkata)" in said
    assert "▁█ up 5.000000 in 30 d" in said
    plainly = desk.run("status", settings={"PYTHONIOENCODING": "ascii"}).out
    assert "_# up 5.000000 in 30 d" in plainly


def test_watching_needs_a_terminal_and_no_json(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised()
    for words in (("--watch",), ("--watch", "--json")):
        result = desk.run("status", *words)
        assert result.code == 2
        assert "--watch" in result.err
    assert "--watch" in result.json["error"]


@contextmanager
def terminal(desk: Desk, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command on a terminal of its own, of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    with subprocess.Popen(
        [PENSTOCK, *args], env=desk.env({"TERM": "xterm"}), cwd=desk.home,
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_until(screen: int, *, wanted: str | None, seconds: float = 30.0) -> str:
    """What is drawn until something stands there, or, where nothing is wanted, until the end."""
    deadline, found = time.monotonic() + seconds, b""
    while wanted is None or wanted.encode() not in found:
        assert time.monotonic() < deadline, found.decode(errors="replace")
        if not select.select([screen], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(screen, 65_536)
        except OSError as error:
            # Linux says so when the other side of a terminal is closed.
            if error.errno != errno.EIO:
                raise
            part = b""
        if not part:
            assert wanted is None, found.decode(errors="replace")
            break
        found += part
    return found.decode(errors="replace")


def test_a_watched_page_outlives_its_database_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised("5")
    with terminal(desk, "status", "--watch") as (process, screen):
        read_until(screen, wanted="5.000000 available")
        away = desk.database.with_name("away.db")
        desk.database.rename(away)
        read_until(screen, wanted="there is no database at")
        away.rename(desk.database)
        assert desk.run("ledger", "deposit", "2", "--ref", "more").code == 0
        read_until(screen, wanted="7.000000 available")
        process.send_signal(signal.SIGINT)
        last = read_until(screen, wanted=None)
        assert process.wait(10) == 0
    assert "Traceback" not in last
    # The page stays when the other screen is gone.
    assert "7.000000 available" in last.rpartition("\x1b[?1049l")[2]


def test_a_page_that_can_never_be_had_is_the_error_it_is(tmp_path: Path) -> None:
    with terminal(Desk(tmp_path), "status", "--watch") as (process, screen):
        said = read_until(screen, wanted=None)
        assert process.wait(10) == 2
    assert "there is no database" in said
    assert "\x1b[?1049h" not in said


# The view


def drawn(view: status.View) -> str:
    from rich.console import Console

    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_a_view_keeps_its_last_page_while_there_is_trouble(database: Database) -> None:
    errors: list[Exception] = []

    def ask() -> tuple[dict[str, Any], Any]:
        if errors:
            raise errors.pop()
        return document(database), BERLIN

    view = status.View(ask)
    view.look(NOW)
    errors += [SchemaTooOld("gone\nfor a moment"), StorageBusy("locked")]
    for seconds, trouble in ((2, "locked; "), (4, "gone for a moment")):
        view.try_look(NOW + timedelta(seconds=seconds))
        assert f"trouble   {trouble}" in drawn(view)
        assert "(as of 09:20:00)" in drawn(view)
        assert "0.000000 available" in drawn(view)
    view.try_look(NOW + timedelta(seconds=6))
    assert "trouble" not in drawn(view)
    assert "as of     09:20:06" in drawn(view)
    # A fault of ours is not trouble that passes.
    errors.append(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        view.try_look(NOW)


def test_a_database_that_somebody_has_for_himself_is_trouble_that_passes(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised("5")
    args = Namespace(env_file=None, json=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("PENSTOCK_STATE_DIR", str(desk.state))
        view = status.View(lambda: status.look_up(args))
        view.look(NOW)
        whole = desk.database.read_bytes()
        desk.database.write_bytes(b"something else entirely, " * 1000)
        view.try_look(NOW)
        assert view.trouble
        desk.database.write_bytes(whole)
        view.try_look(NOW)
        assert not view.trouble


def test_it_is_redrawn_every_two_seconds(database: Database) -> None:
    time = VirtualTime()
    seen: list[datetime] = []
    view = status.View(lambda: (document(database), BERLIN))

    class Enough(Exception):
        pass

    def refresh() -> None:
        seen.append(time.clock.now())
        if len(seen) == 4:
            raise Enough

    redraw: Callable[..., Any] = status._redraw
    with pytest.raises(Enough):
        time.run(redraw(view, refresh, time.clock))
    assert [(at - seen[0]).total_seconds() for at in seen] == [0, 2, 4, 6]


def test_who_may_not_look_at_the_state_is_told_who_may(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Desk(tmp_path_factory.mktemp("closed")).initialised().state

    def said() -> str:
        try:
            with Context(Namespace(env_file=None, json=False)).reading():
                return "read"
        except UsageError as error:
            return str(error)

    monkeypatch.chdir("/")
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(state))
    assert said() == "read"
    assert as_another(said, state).startswith(
        f"{state}/penstock.db: this user may not look there; call penstock with sudo"
    )
