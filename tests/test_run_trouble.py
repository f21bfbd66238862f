"""
`penstock run` where something is wrong with the machine: it says what, and what to do, or goes on.

The processes, files, sockets and signals are real. What ends it has its message and its code; what
passes is waited out. Killed with SIGKILL it is started again, until nothing is left to do, and a
judge looks at the platforms, at the provider's bill and at the books. What it works on is due at
its start, since each bell remembers when it rang last.

`python -m tests.test_run_trouble library` is the nursery, as in `test_publishing_kills`, of lives
that read feeds and pages.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.lock import process_lock
from ledger.types import from_text, to_text
from tests.cli_helpers import (
    KEY,
    PENSTOCK,
    PRICES,
    Desk,
    Result,
    World,
    assert_covered,
    checked,
    checked_books,
    digest_desk,
    mounting,
    pages,
    read_only,
    small_world,
    unshared,
)
from tests.doubles.model import ModelDouble
from tests.doubles.web import SiteDouble
from tests.doubles.webhook import Webhook
from tests.doubles.wire import serve
from tests.test_publishing_kills import (
    COMMIT,
    Case,
    Death,
    Ended,
    Fatal,
    Killers,
    Moment,
    Nursery,
    Ready,
    SharedClock,
    nurse,
    written,
)

PATIENCE_S = 60.0
# What a life that is not killed may take, longer than it works; what then waits for an hour goes on
# in another one.
LIFE_S = 4.0
ROUNDS_MAX = 10
APPROVED_SEEDS, SLOT_SEEDS, COMMANDS = 4, 8, 6
# Fewer would mean that most of the program was not there to be killed.
FLOORS = {"publishing": 25, "a run": 15, "the command": 6}
FAILED, SETTINGS, BOOKS_WRONG, LOCKED = 1, 2, 6, 7


class Daemon:
    """
    One life of `penstock run`, under something that listens as systemd does.

    Args:
        prefix: what starts it, in the same process in the end.
    """

    def __init__(self, desk: Desk, *prefix: str, **more: str) -> None:
        # Names of sockets are short, and those of tests' folders are not. It is no abstract one: a
        # network of one's own would not have it.
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-notify."))
        address = str(self._folder / "socket")
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._log = self._folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*prefix, PENSTOCK, "run"], cwd=desk.home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=desk.env() | {"NOTIFY_SOCKET": address} | more,
            )  # fmt: skip

    def await_(self, what: Callable[[], object], about: str) -> None:
        """Until it is so; the daemon must be alive all the while."""
        until = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < until, f"never {about}: {self.said}"
            assert self.process.poll() is None, self.said
            time.sleep(0.01)

    def is_ready(self) -> bool:
        while True:
            try:
                self.messages.append(self._socket.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return any("READY=1" in message for message in self.messages)

    def is_idle(self) -> bool:
        """Whether it has worked since it was ready, if only to see that nothing was left."""
        self.is_ready()
        words = "".join(self.messages).partition("READY=1")[2]
        return "=waiting" in words.rpartition("=working")[2] and "=working" in words

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def lines(self) -> list[str]:
        """What it logged, in words."""
        return [json.loads(line)["message"] for line in self.said.splitlines()]

    def told(self, words: str) -> list[str]:
        """The lines with these words."""
        return [line for line in self.lines if words in line]

    def ended(self) -> Result:
        """How it ended by itself."""
        code = self.process.wait(PATIENCE_S)
        return checked(["run"], code, b"", self._log.read_bytes())

    def stop(self) -> int:
        """End it as systemd does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()
        shutil.rmtree(self._folder)


@contextmanager
def started(desk: Desk, *prefix: str, **more: str) -> Iterator[Daemon]:
    daemon = Daemon(desk, *prefix, **more)
    try:
        yield daemon
    finally:
        daemon.close()


def refused(desk: Desk, *prefix: str, **more: str) -> Result:
    """It ended before it was ready; `checked` has seen that no traceback was shown."""
    with started(desk, *prefix, **more) as daemon:
        result = daemon.ended()
        assert not daemon.is_ready()
    assert result.err.startswith("penstock: "), result
    return result


# What it cannot start with


@pytest.mark.parametrize("beneath", ["", "state"])
def test_a_file_where_the_state_is_to_be_is_named_with_its_setting(
    tmp_path: Path, beneath: str
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    result = refused(digest_desk(tmp_path, PENSTOCK_STATE_DIR=str(file / beneath)))
    assert result.code == SETTINGS
    assert f"PENSTOCK_STATE_DIR: {file / beneath} cannot be a folder" in result.err
    assert "name another place" in result.err
    assert file.read_text() == "kept"


def test_where_no_folder_can_be_made_is_named_with_its_setting(tmp_path: Path) -> None:
    result = Desk(tmp_path, {"PENSTOCK_STATE_DIR": "/proc/nope"}).run("init")
    assert result.code == SETTINGS
    assert "PENSTOCK_STATE_DIR: /proc/nope cannot be a folder" in result.err


def test_the_database_of_another_program_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.state.mkdir()
    desk.sql("CREATE TABLE theirs (it TEXT)")
    before = desk.database.read_bytes()
    for command in ("init", "status"):
        result = desk.run(command)
        assert result.code == SETTINGS
        assert f"{desk.database} holds tables, and they are not Penstock's" in result.err
    assert desk.database.read_bytes() == before


def test_every_setting_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    wrong = {
        "PENSTOCK_TIMEZONE": "Europe/Berln",
        "PENSTOCK_PUBLISH_CRON": "0 0 30 2 *",
        "PENSTOCK_COLLECT_CRON": "hourly",
        "PENSTOCK_DAILY_CAP": "1,50",
        "PENSTOCK_MAX_POSTS_PER_DAY": "0.5",
        "PENSTOCK_WORDS": "1200-600",
        "PENSTOCK_PROVIDER_LLM_URL": "llm.example",
        "PENSTOCK_LOG_LEVEL": "loud",
        "PENSTOCK_DAYLY_CAP": "1",
        "DEVTO_URL": "http://dev.to",
    }
    desk = digest_desk(tmp_path, **wrong)
    result = refused(desk)
    assert result.code == SETTINGS
    lines = result.err.removeprefix("penstock: ").splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(wrong)
    for line in lines:
        value = wrong[line.partition(":")[0]]
        assert value in line or "there is no such setting" in line
    assert not desk.state.exists()


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_machine_without_time_zone_data_says_what_to_install(
    tmp_path: Path, zone: str | None
) -> None:
    # A module of the name, before the package that has the data.
    (tmp_path / "tzdata.py").write_text("raise ImportError\n")
    desk = digest_desk(tmp_path, PENSTOCK_DAILY_CAP="a lot")
    if zone is None:
        del desk.settings["PENSTOCK_TIMEZONE"]
    else:
        desk.settings["PENSTOCK_TIMEZONE"] = zone
    result = refused(desk, PYTHONTZPATH="", PYTHONPATH=str(tmp_path))
    assert result.code == SETTINGS
    assert "PENSTOCK_TIMEZONE: this machine has no time zone data; install tzdata" in result.err
    # Nor does it keep what else is wrong from being told.
    assert "PENSTOCK_DAILY_CAP" in result.err


def damage(path: Path) -> None:
    """Overwrite a page in the middle, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(os.urandom(4096))


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"no database " * 999),
        damage,
        lambda path: os.truncate(path, 8192),
    ],
    ids=["no database", "a bad page", "cut short"],
)
def test_a_database_that_is_damaged_stops_it(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    desk = digest_desk(tmp_path).initialised()
    harm(desk.database)
    before = desk.database.read_bytes()
    result = refused(desk)
    assert result.code == BOOKS_WRONG
    assert result.err.startswith(f"penstock: {desk.database}: ")
    assert "restore the last checked backup" in result.err
    # Whoever mends it finds what there was.
    assert desk.database.read_bytes() == before


def test_books_that_do_not_add_up_stop_it(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised()
    desk.sql("UPDATE account SET debits_posted_micro = debits_posted_micro + 1")
    result = refused(desk)
    assert result.code == BOOKS_WRONG, result
    assert result.err.startswith("penstock: the books do not balance: the account grants"), result


def test_a_database_of_a_later_version_is_left_to_that(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised()
    desk.sql("UPDATE alembic_version SET version_num = '9999'")
    before = desk.database.read_bytes()
    result = refused(desk)
    assert result.code == SETTINGS
    assert "install that version or a later one" in result.err
    assert desk.database.read_bytes() == before


@pytest.mark.parametrize("known", [False, True], ids=["new", "used"])
def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(
    tmp_path: Path, known: bool
) -> None:
    desk = digest_desk(tmp_path / "home")
    desk.state.mkdir()
    if known:
        desk.initialised()
    before = sorted(desk.state.iterdir())
    result = refused(desk, *read_only(desk.state))
    assert result.code == FAILED
    assert f"penstock: {desk.state}: Read-only file system; make the state directory" in result.err
    assert sorted(desk.state.iterdir()) == before


@pytest.mark.parametrize("left_kb", [0, 8, 40])
def test_a_disk_that_is_full_is_named_with_the_remedy(tmp_path: Path, left_kb: int) -> None:
    desk = digest_desk(tmp_path / "home")
    desk.state.mkdir()
    template = Desk(tmp_path / "template").initialised().database
    size_kb = -(-template.stat().st_size // 1024) + 4 + left_kb
    full = mounting(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k,mode=0700", "tmpfs", str(desk.state)],
        ["cp", str(template), str(desk.database)],
    )
    result = refused(desk, *full)
    assert result.code == FAILED
    assert str(desk.state) in result.err
    assert "free some space" in result.err


# Whom a start that fails is told to


def passed(runtime: Path, minutes: float) -> None:
    """Make it so long ago that starts began to fail."""
    (file,) = runtime.iterdir()
    kept = json.loads(file.read_text())
    kept["since"] = to_text(from_text(kept["since"]) - timedelta(minutes=minutes))
    file.write_text(json.dumps(kept))


def test_starts_that_fail_for_long_are_told_once_and_so_is_their_end(tmp_path: Path) -> None:
    (runtime := tmp_path / "run").mkdir()
    hook = Webhook()
    with serve(hook) as webhook:
        desk = digest_desk(tmp_path / "home", PENSTOCK_ALERT_URL=webhook.url).initialised()
        kept = {"RUNTIME_DIRECTORY": str(runtime)}
        with process_lock(desk.database):
            for minutes in (0, 8, 1):
                assert refused(desk, **kept).code == LOCKED
                assert hook.told == []
                passed(runtime, minutes)
            passed(runtime, 1)
            # Who did not hear it is told again.
            hook.status = 500
            assert "PENSTOCK_ALERT_URL answered 500" in refused(desk, **kept).err
            hook.status = 204
            assert refused(desk, **kept).code == refused(desk, **kept).code == LOCKED
            assert len(hook.told) == 1
        with started(desk, **kept) as daemon:
            daemon.await_(daemon.is_ready, "ready")
            daemon.await_(lambda: len(hook.told) == 2, "told that it is over")
            daemon.await_(lambda: not list(runtime.iterdir()), "forgot it")
            assert daemon.stop() == 0
        with started(desk, **kept) as daemon:
            daemon.await_(daemon.is_ready, "ready")
            assert daemon.stop() == 0
    assert [(alert["kind"], alert["cleared"]) for alert in hook.told] == [
        ("fault", False), ("fault", True)
    ]  # fmt: skip
    assert "another penstock" in hook.told[0]["message"]
    (said,) = rows(desk.database, "SELECT inputs FROM decision WHERE kind = 'storage'")
    assert "another penstock" in said[0]


@pytest.mark.parametrize("unit", [True, False], ids=["as a unit", "by hand"])
def test_what_systemd_does_not_try_again_is_told_at_once(tmp_path: Path, unit: bool) -> None:
    (runtime := tmp_path / "run").mkdir()
    hook = Webhook()
    with serve(hook) as webhook:
        desk = digest_desk(tmp_path / "home", PENSTOCK_ALERT_URL=webhook.url).initialised()
        damage(desk.database)
        result = refused(desk, **{"RUNTIME_DIRECTORY": str(runtime)} if unit else {})
    assert result.code == BOOKS_WRONG
    heard = [(alert["kind"], alert["cleared"]) for alert in hook.told]
    assert heard == ([("books", False)] if unit else [])
    assert all("restore the last checked backup" in alert["message"] for alert in hook.told)


def test_settings_that_are_wrong_after_a_reboot_are_told_without_what_they_say(
    tmp_path: Path,
) -> None:
    (runtime := tmp_path / "run").mkdir()
    hook = Webhook()
    with serve(hook) as webhook:
        desk = digest_desk(tmp_path / "home", PENSTOCK_ALERT_URL=webhook.url).initialised()
        wrong = {"PENSTOCK_TIMEZONE": "sk-key-in-the-wrong-line"}
        assert refused(desk, **wrong).code == SETTINGS
        assert hook.told == []
        kept = {"RUNTIME_DIRECTORY": str(runtime)}
        assert refused(desk, **wrong, **kept).code == SETTINGS
        nowhere = refused(desk, **wrong, **kept, PENSTOCK_ALERT_URL="no address")
    assert (nowhere.code, "PENSTOCK_ALERT_URL" in nowhere.err) == (SETTINGS, True)
    (alert,) = hook.told
    assert alert["message"].endswith(
        "settings are wrong: PENSTOCK_TIMEZONE; `penstock doctor` says how"
    )


# Nobody to be reached


def rung_long_ago(desk: Desk, *bells: str) -> None:
    """Make it so long since these bells rang that a slot of each is due."""
    ago = to_text(datetime.now(UTC) - timedelta(hours=2))
    desk.sql(
        *(f"INSERT OR REPLACE INTO bell VALUES ('{bell}', '{ago}', 1, '{ago}')" for bell in bells)
    )


def hurry(library: Path, clock: Path) -> dict[str, str]:
    """The environment of a process whose clock jumps where it does nothing but sleep."""
    return {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(clock)}


@pytest.fixture(scope="module")
def approved(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """One article, written and approved, and nowhere yet."""
    return written(tmp_path_factory.mktemp("approved").resolve())


def test_without_a_network_it_is_ready_and_says_whom_it_did_not_reach(
    tmp_path: Path, approved: Ready
) -> None:
    alone = unshared("-n")
    home = tmp_path / "home"
    shutil.copytree(approved.home, home)
    hosts = {
        "PENSTOCK_FEEDS": "https://feeds.example/feed.xml", "DEVTO_URL": "https://forem.example",
        "PENSTOCK_PROVIDER_LLM_URL": "https://llm.example/v1",
        "PENSTOCK_ALERT_URL": "https://alerts.example/hook",
    }  # fmt: skip
    more = {
        "PENSTOCK_STATE_DIR": str(home / "state"), "PENSTOCK_PUBLISHERS": "devto",
        "PENSTOCK_MAX_POSTS_PER_DAY": "3", "PENSTOCK_PUBLISH_CRON": "0 * * * *",
    }  # fmt: skip
    desk = Desk(home, {**approved.settings, **hosts, **more})
    rung_long_ago(desk, "publish", "collect", "feed", "pursue", "daily")
    with started(desk, *alone) as daemon:
        daemon.await_(lambda: daemon.told("feed: "), "polled the feeds")
        assert daemon.told("feed: https://feeds.example/feed.xml: ")
        assert daemon.told("Dev.to cannot be reached")
        assert daemon.is_ready()
        assert daemon.stop() == 0
    # It waits, as it did.
    (run,) = desk.read("runs", "list")
    assert (run["run"], run["state"]) == (approved.run, "parked")
    assert desk.read("ledger", "check")["ok"]


def test_a_model_that_cannot_be_reached_costs_nothing_and_ends_nothing(tmp_path: Path) -> None:
    with socket.socket() as nobody, small_world() as world:
        # Bound, and never listened at.
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        desk = world.desk(
            tmp_path, PENSTOCK_PROVIDER_LLM_URL=url, PENSTOCK_TIMEZONE="UTC",
            PENSTOCK_PUBLISH_CRON=f"{datetime.now(UTC):0 %-H %-d} * *",
        )  # fmt: skip
        rung_long_ago(desk, "publish")
        with started(desk) as daemon:
            daemon.await_(lambda: daemon.told("failed: "), "used the slot")
            assert daemon.told("no model is left for research: llm/alpha: ConnectError")
            assert daemon.stop() == 0
        balance, attempts = desk.read_all("ledger balance", "ledger attempts")
        assert (balance["posted"], balance["held"]) == ("100.000000", "0.000000")
        assert {attempt["outcome"] for attempt in attempts} == {"unsent"}
        (run,) = desk.read("runs", "list")
        assert (run["state"], run["outcome"], run["cost"]) == ("failed", "failed", "0.000000")


# A disk that fills up while it runs


# None; enough for a small commit; enough for a run to begin.
@pytest.mark.parametrize("left_kb", [0, 60])
def test_a_disk_that_fills_up_is_waited_out(tmp_path: Path, library: Path, left_kb: int) -> None:
    (tmp_path / "home").mkdir()
    clock, hook = SharedClock(tmp_path / "home" / "clock"), Webhook()
    slot = clock.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=3)
    with serve(hook) as webhook:
        desk = digest_desk(
            tmp_path / "home", PENSTOCK_TIMEZONE="UTC",
            PENSTOCK_PUBLISH_CRON=f"0 {slot.hour} * * *", PENSTOCK_ALERT_URL=webhook.url,
        )  # fmt: skip
        desk.state.mkdir()
        disk = mounting(
            ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(desk.state)]
        )
        # It looks some hundred times a second, for hours.
        with started(desk, *disk, **hurry(library, desk.home / "clock")) as daemon:
            daemon.await_(daemon.is_idle, "ready, and done with what was left")
            daemon.process.send_signal(signal.SIGSTOP)
            assert clock.now() < slot
            # What is mounted there alone is seen through a folder that is open.
            kept = os.open(f"/proc/{daemon.process.pid}/root{desk.state}", os.O_PATH)
            state = Path(f"/proc/self/fd/{kept}")
            fill(state / "filler", left_kb)
            daemon.process.send_signal(signal.SIGCONT)
            daemon.await_(lambda: daemon.told("cannot be used"), "said that it is full")
            daemon.await_(lambda: clock.now() > slot + timedelta(hours=1), "came to the slot")
            full = daemon.told("cannot be used")
            (state / "filler").unlink()
            daemon.await_(lambda: daemon.told("can be used again"), "went on")
            daemon.await_(lambda: daemon.told("published: "), "used the slot")
            daemon.await_(daemon.is_idle, "ready, and done with what was left")
            assert daemon.stop() == 0
            shutil.copytree(state, desk.home / "kept")
            os.close(kept)
    # Not at every one of some nine hundred looks. With a little room it comes and goes.
    assert len(full) == 1 if not left_kb else len(full) <= 5, full
    assert all("free some space" in line for line in full)
    faults = [alert for alert in hook.told if alert["kind"] == "fault"]
    raised = [alert["message"] for alert in faults if not alert["cleared"]]
    assert all("free some space" in message for message in raised)
    # With a little room each kind of work that finds none is told as well, and once.
    assert len(raised) == len({message.partition(":")[0] for message in raised})
    assert len(raised) in (range(1, 4) if left_kb else (1,))
    assert len(faults) > len(raised)
    after = Desk(desk.home, desk.settings | {"PENSTOCK_STATE_DIR": str(desk.home / "kept")})
    assert len(after.articles) == 1
    assert after.read("ledger", "check")["ok"]
    (run,) = after.read("runs", "list")
    assert (run["slot"], run["outcome"]) == (moment(slot), "published")
    assert rows(after.database, "SELECT last FROM bell WHERE name = 'publish'") == [
        (to_text(slot),)
    ]


def fill(path: Path, left_kb: int) -> None:
    """Leave no more room than that."""
    room = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - left_kb * 1024)


def rows(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query, values).fetchall()


def moment(at: datetime) -> str:
    """As JSON has it."""
    return at.isoformat().replace("+00:00", "Z")


# Killed, and started again


class Served(Case):
    """A state, platforms, a site and a provider, and lives of `penstock run` in between."""

    def __init__(self, ready: Ready, home: Path, nursery: Nursery, servers: ExitStack) -> None:
        super().__init__(ready, home, nursery, servers)
        # It was a while ago, and is due at the start; the next one is in a month.
        self.slot = self.clock.now().replace(minute=0, second=0, microsecond=0)
        self.site = SiteDouble()
        self.model = ModelDouble(dict(PRICES), key=KEY)
        site_url, model_url = (
            servers.enter_context(serve(Fatal(double, self._sentence))).url
            for double in (self.site, self.model)
        )
        self.site.pages.update(pages(site_url))
        self.settings |= World(self.site, self.model, site_url, model_url).settings | {
            "PENSTOCK_TIMEZONE": "UTC",
            "PENSTOCK_PUBLISH_CRON": f"0 {self.slot.hour} {self.slot.day} * *",
            "PENSTOCK_HOLD_EXPIRY": "1",
        }
        lines = (f'{name}="{value}"\n' for name, value in self.settings.items())
        (home / "env").write_text("".join(lines))
        self.desk = Desk(home, {"PENSTOCK_STATE_DIR": str(home / "state")})
        rung_long_ago(self.desk, "publish")

    def serve(self, death: Death | None = None, after_s: float | None = None) -> Ended:
        """
        One life, until it is killed, or there is nothing left to do, or it waits for long.

        Args:
            after_s: when it is killed, counted from its start.
        """
        self._sentence.death, self._sentence.pid = death, None
        self._sentence.asked.clear()
        doom = (0, int(Moment.AFTER), 0)
        if death is not None and death.at != "request":
            doom = (death.number, int(death.moment), int(death.at == "write"))
        calls = self.home / "calls"
        calls.unlink(missing_ok=True)
        pid = self._sentence.pid = self._nursery.fork(self.home, ["run"], doom)
        alive, began = os.pidfd_open(pid), time.monotonic()
        while not select.select([alive], [], [], 0.01)[0]:
            passed = time.monotonic() - began
            if after_s is not None and passed > after_s:
                os.kill(pid, signal.SIGKILL)
                break
            # Its first commit comes when it listens to signals.
            begun = calls.exists() and COMMIT in calls.read_text()
            if passed > LIFE_S or (after_s is None and begun and self.is_done()):
                os.kill(pid, signal.SIGTERM)
                break
        os.close(alive)
        ended = Ended(["run"], self._nursery.bury(pid), "", (self.home / "err").read_text())
        # Neither the lock of the life before nor what it left is in its way.
        assert ended.killed or ended.code == 0, ended
        assert "Traceback" not in ended.err, ended.err
        return ended

    def is_done(self) -> bool:
        """Whether an article is out, its slot is used, and nothing waits."""
        out, waiting = rows(self.desk.database, DONE, to_text(self.slot))[0]
        return bool(out) and not waiting

    def is_settled(self) -> bool:
        """Whether nothing is unknown, either."""
        return self.is_done() and not rows(self.desk.database, OPEN_HOLDS)

    def judge(self) -> None:
        """One article, wherever it was to go; one run for one slot; the bill is covered."""
        (self.run, *state), *more = rows(
            self.desk.database, "SELECT id, state, outcome FROM run ORDER BY started_at"
        )
        assert (state, more) == (["finished", "published"], [])
        self.judge_published()
        ((last,),) = rows(self.desk.database, "SELECT last FROM bell WHERE name = 'publish'")
        assert last == to_text(self.slot)
        ((booked,),) = rows(
            self.desk.database,
            "SELECT COALESCE(sum(debits_posted_micro - credits_posted_micro), 0) FROM account"
            " WHERE name LIKE 'inference:%'",
        )
        assert booked >= self.model.billed_micro
        ((attempts,),) = rows(self.desk.database, "SELECT count(*) FROM attempt")
        assert attempts >= len(self.model.requests)
        assert rows(self.desk.database, "SELECT * FROM alert WHERE kind = 'fault'") == []

    def settle(self) -> None:
        """Start it again until nothing is left to do."""
        for _ in range(ROUNDS_MAX):
            ended = self.serve()
            if self.is_settled():
                return
            self.clock.skip(3600)
        raise AssertionError(f"something is left to do: {ended}")


DONE = """
SELECT (SELECT count(*) FROM run WHERE outcome = 'published'),
    (SELECT count(*) FROM run WHERE state NOT IN ('finished', 'failed'))
    + (SELECT count(*) FROM publication WHERE state IN ('intended', 'unconfirmed'))
    + (SELECT count(*) FROM bell WHERE name = 'publish' AND last < ?)
"""
OPEN_HOLDS = "SELECT name FROM account WHERE debits_pending_micro > 0"


class ServedKillers(Killers[Served]):
    """They end a life where they are told to, or draw lots."""

    def kill(
        self,
        case: Served,
        rng: random.Random,
        length: Length,
        kind: str,
        death: Death | None = None,
    ) -> None:
        """One life that ends there, or may end anywhere."""
        at = rng.choice(("time", "file", "write", "request")) if death is None else death.at
        if death is None and at != "time":
            # Some three calls that change a file go with each that makes it durable.
            count = {"file": length.calls, "write": 4 * length.calls}.get(at, length.asked)
            moments = (Moment.BEFORE, Moment.HALFWAY, Moment.AFTER)
            moment = rng.choice(moments[:: 1 if at == "write" else 2])
            death = Death(at, rng.randrange(1, count + 1), moment)
        after_s = rng.uniform(0, length.seconds) if death is None else None
        self.count(f"{kind}, by {at}", case.serve(death, after_s).killed)


@dataclass(frozen=True)
class Length:
    """How long a life is that nobody ends early."""

    seconds: float
    calls: int
    asked: int

    @classmethod
    def of(cls, killers: ServedKillers, ready: Ready) -> Length:
        with killers.case(ready) as case:
            began = time.monotonic()
            ended = case.serve()
            assert case.is_settled(), ended
            case.judge()
            return cls(time.monotonic() - began, len(case.calls), len(case.asked))


@pytest.fixture(scope="module")
def kills() -> Counter[str]:
    """How many there were of a kind."""
    return Counter()


@pytest.fixture(scope="module")
def killers(
    library: Path,
    approved: Ready,
    kills: Counter[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServedKillers]:
    folder, nursery = tmp_path_factory.mktemp("cases").resolve(), Nursery(library, __name__)
    with closing(ServedKillers(folder, nursery, Served, kills)) as made:
        made.rehearse(approved, "once --json")
        yield made


@pytest.fixture(scope="module")
def empty(approved: Ready, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Books with a deposit and nothing else; an article goes out unseen."""
    home = tmp_path_factory.mktemp("empty").resolve()
    Desk(home).initialised()
    SharedClock(home / "clock")
    settings = dict(approved.settings) | {"PENSTOCK_APPROVAL": "auto"}
    return replace(approved, home=home, run="", settings=settings, publishers="outbox,devto")


def test_killed_while_it_publishes_there_is_one_of_each(
    killers: ServedKillers, approved: Ready
) -> None:
    length = Length.of(killers, approved)
    asked = [
        Death("request", number, moment)
        for number in range(1, length.asked + 1)
        for moment in (Moment.BEFORE, Moment.AFTER)
    ]

    def live(seed: int) -> None:
        rng = random.Random(seed)
        with killers.case(approved) as case:
            # At each request once, and then sometimes anywhere.
            first = asked[seed] if seed < len(asked) else None
            for death in (first, None)[: 2 if first is None else rng.choice((1, 1, 2))]:
                if case.is_done():
                    break
                killers.kill(case, rng, length, "publishing", death)
                # After five minutes Dev.to takes the same title again.
                case.clock.skip(400)
            case.settle()
            case.judge()

    killers.each(live, range(len(asked) + APPROVED_SEEDS))


def test_killed_in_a_run_its_slot_is_used_once_and_all_is_booked(
    killers: ServedKillers, empty: Ready
) -> None:
    length = Length.of(killers, empty)

    def live(seed: int) -> None:
        rng = random.Random(seed)
        with killers.case(empty) as case:
            for _ in range(rng.randrange(2, 6)):
                if case.is_done():
                    break
                killers.kill(case, rng, length, "a run")
                # After five minutes Dev.to takes the same title again.
                case.clock.skip(rng.choice((0, 61, 400)))
            case.settle()
            case.judge()

    killers.each(live, range(SLOT_SEEDS))


def test_killed_as_the_command_it_is_the_next_one_goes_on(
    tmp_path: Path, kills: Counter[str]
) -> None:
    """In real time, from the first moment of Python's start."""
    rng = random.Random(1)
    with small_world() as world:
        desk = world.desk(
            tmp_path, PENSTOCK_TIMEZONE="UTC", PENSTOCK_PUBLISHERS="outbox",
            PENSTOCK_PUBLISH_CRON=f"{datetime.now(UTC):0 %-H %-d} * *",
        )  # fmt: skip
        rung_long_ago(desk, "publish")
        for number in range(COMMANDS):
            with started(desk) as daemon:
                if number % 3:
                    daemon.await_(daemon.is_ready, "ready")
                time.sleep(rng.uniform(0, 0.6))
                daemon.process.kill()
                assert daemon.process.wait() == -signal.SIGKILL, daemon.said
                kills["the command, by time"] += 1
        with started(desk) as daemon:
            out = "SELECT * FROM run WHERE outcome = 'published'"
            daemon.await_(daemon.is_ready, "ready")
            daemon.await_(lambda: rows(desk.database, out), "published it")
            assert daemon.stop() == 0
        (run,) = desk.read("runs", "list")
        assert (run["outcome"], len(desk.articles)) == ("published", 1)
        assert run["run"] in desk.articles[0].read_text()
        found = checked_books(desk)
        assert_covered(found, world.model)
        assert len(found.attempts) >= len(world.model.requests)


def test_how_many_were_killed(
    kills: Counter[str], record_property: Callable[[str, object], None]
) -> None:
    """Runs last, and says it; a part that ran by itself has killed fewer."""
    for kind, count in sorted(kills.items()):
        record_property(kind, count)
        print(f"{count:5} kills: {kind}")
    print(f"{kills.total():5} kills")
    for part in {kind.partition(",")[0] for kind in kills}:
        killed = sum(count for kind, count in kills.items() if kind.startswith(part))
        assert killed >= FLOORS[part], part


if __name__ == "__main__":
    nurse(sys.argv[1], "daemon.cli.run", "daemon.cli.reconcile")
