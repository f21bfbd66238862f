"""`penstock run` as a process: READY, signals, the lock, metrics, and what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.cli_helpers import EXAMPLE_FEEDS, PENSTOCK, Desk

PATIENCE_S = 60.0


class Running:
    """A daemon under something that listens as systemd does."""

    def __init__(self, folder: Path, **settings: str) -> None:
        # Names of sockets are short, and those of tests' folders are not.
        self.address = f"\0penstock-{os.getpid()}-{time.monotonic_ns()}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(PATIENCE_S)
        self.file = folder / "settings.env"
        self.desk = Desk(folder, {})
        self.write(
            PENSTOCK_FEEDS=str(EXAMPLE_FEEDS / "millrace.xml"), PENSTOCK_FRESH_DAYS="36500",
            PENSTOCK_PUBLISH_CRON="0 4 1 1 *", **settings,
        )  # fmt: skip
        env = self.desk.env() | {
            "NOTIFY_SOCKET": self.address.replace("\0", "@"), "WATCHDOG_USEC": "2000000",
        }  # fmt: skip
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [PENSTOCK, "run", "--env-file", str(self.file)], env=env, stderr=self.log
        )

    def write(self, **settings: str) -> None:
        self.file.write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))

    def heard(self, wanted: str) -> str:
        """The next message to the service manager that has these words."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            message = self.socket.recv(4096).decode()
            if wanted in message:
                return message
        raise AssertionError(f"never heard {wanted}")

    def lines(self) -> list[dict[str, str]]:
        self.log.flush()
        return [json.loads(line) for line in Path(self.log.name).read_text().splitlines()]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()
        self.log.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(**settings: str) -> Running:
        made.append(Running(tmp_path, **settings))
        made[-1].heard("READY=1")
        return made[-1]

    yield start
    for each in made:
        each.end()


def test_it_says_that_it_is_ready_lives_and_stops(running: Callable[..., Running]) -> None:
    daemon = running()
    daemon.heard("WATCHDOG=1")
    # What is done beside it needs no lock; what it does itself does.
    assert daemon.desk.run("status", "--env-file", str(daemon.file)).code == 0
    assert daemon.desk.run("once", "--env-file", str(daemon.file)).code == 7
    assert daemon.desk.run("run", "--env-file", str(daemon.file)).code == 7
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.heard("STOPPING=1")
    assert daemon.process.wait(PATIENCE_S) == 0
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_reload_takes_good_settings_and_refuses_bad_ones(
    running: Callable[..., Running],
) -> None:
    daemon = running()
    feeds = str(EXAMPLE_FEEDS / "millrace.xml")
    daemon.write(PENSTOCK_FEEDS=feeds, PENSTOCK_DAILY_CAP="a lot")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.heard("RELOADING=1")
    daemon.heard("READY=1")
    (refused,) = [line for line in daemon.lines() if "PENSTOCK_DAILY_CAP" in line["message"]]
    assert "not used" in refused["message"]
    daemon.write(PENSTOCK_FEEDS=feeds, PENSTOCK_DAILY_CAP="2")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.heard("READY=1")
    assert [line for line in daemon.lines() if line["message"] == "settings reloaded"]
    assert daemon.process.poll() is None


def test_a_lock_left_by_a_killed_daemon_blocks_nobody(running: Callable[..., Running]) -> None:
    daemon = running()
    daemon.process.kill()
    daemon.process.wait()
    found = daemon.desk.run("once", "--json", "--env-file", str(daemon.file))
    assert found.code in (0, 4), found


def test_metrics_are_on_loopback_where_they_are_asked_for(
    running: Callable[..., Running],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running(PENSTOCK_METRICS_PORT=str(port))
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    assert answer.status_code == 200
    assert "penstock_build_info" in answer.text


def test_wrong_settings_are_exit_2_and_nothing_is_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"PENSTOCK_FEEDS": "", "PENSTOCK_PUBLISH_CRON": "never"})
    found = desk.run("run")
    assert found.code == 2
    assert "PENSTOCK_FEEDS" in found.err
    assert "PENSTOCK_PUBLISH_CRON" in found.err
    assert not desk.database.exists()


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        ("garbage", 6),
        ("UPDATE account SET debits_posted_micro = debits_posted_micro + 1", 6),
        ("UPDATE alembic_version SET version_num = '9999'", 2),
    ],
)
def test_a_database_it_cannot_trust_or_read_ends_it_before_it_is_ready(
    tmp_path: Path, harm: str, code: int
) -> None:
    desk = Desk(tmp_path, {"PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / "millrace.xml")})
    assert desk.run("init").code == 0
    assert desk.run("ledger", "deposit", "5", "--ref", "first").code == 0
    if harm == "garbage":
        desk.database.write_bytes(b"no database at all " * 1000)
    else:
        with closing(sqlite3.connect(desk.database, isolation_level=None)) as db:
            db.execute(harm)
    found = desk.run("run")
    assert found.code == code
    assert found.err.startswith("penstock: ")


def test_without_a_network_it_starts_and_says_what_it_could_not_read(
    running: Callable[..., Running],
) -> None:
    daemon = running(
        PENSTOCK_PROVIDER_LLM_URL="https://llm.invalid/v1",
        PENSTOCK_ALERT_URL="https://alerts.invalid/hook",
    )
    daemon.heard("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE_S) == 0
