"""`penstock run` as a process: READY, signals, the lock, metrics, and what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli_helpers import EXAMPLE_FEEDS, PENSTOCK, Desk
from tests.doubles.webhook import Webhook
from tests.doubles.wire import serve

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
            **{"PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / "millrace.xml"),
            "PENSTOCK_FRESH_DAYS": "36500", "PENSTOCK_PUBLISH_CRON": "0 12 1 1 *"} | settings,
        )  # fmt: skip
        env = self.desk.env() | {
            "NOTIFY_SOCKET": self.address.replace("\0", "@"), "WATCHDOG_USEC": "2000000",
            "PYTHONPATH": str(folder),
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
    assert "-01-01 " in daemon.heard("READY=1")
    (refused,) = [line for line in daemon.lines() if "PENSTOCK_DAILY_CAP" in line["message"]]
    assert "not used" in refused["message"]
    daemon.write(PENSTOCK_FEEDS=feeds, PENSTOCK_PUBLISH_CRON="0 12 2 2 *")
    daemon.process.send_signal(signal.SIGHUP)
    assert "-02-02 " in daemon.heard("READY=1")
    assert [line for line in daemon.lines() if line["message"] == "settings reloaded"]
    daemon.file.unlink()
    daemon.process.send_signal(signal.SIGHUP)
    assert "-02-02 " in daemon.heard("READY=1")
    (refused,) = [line for line in daemon.lines() if str(daemon.file) in line["message"]]
    assert "not used" in refused["message"]
    assert daemon.process.poll() is None


def test_who_is_not_there_learns_that_a_reload_left_the_old_settings_in_use(
    running: Callable[..., Running],
) -> None:
    hook = Webhook()
    with serve(hook) as address:
        right = {
            "PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / "millrace.xml"),
            "PENSTOCK_ALERT_URL": address.url,
        }
        daemon = running(**right)
        # The old cap is in force still, and what stands there by mistake may be a key.
        daemon.write(**right | {"PENSTOCK_DAILY_CAP": "sk-key-in-the-wrong-line"})
        for _ in range(2):
            daemon.process.send_signal(signal.SIGHUP)
            daemon.heard("RELOADING=1")
            daemon.heard("READY=1")
        assert daemon.desk.run("status", "--env-file", str(daemon.file)).code == 0
        daemon.write(**right)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.heard("RELOADING=1")
        daemon.heard("READY=1")
    told = [(alert["kind"], alert["cleared"]) for alert in hook.told]
    assert told == [("settings", False), ("settings", True)]
    assert hook.told[0]["message"] == (
        "a reload left the old settings in use: the settings are wrong: PENSTOCK_DAILY_CAP;"
        " `penstock doctor` says how"
    )


def test_a_reload_that_a_plug_in_refuses_keeps_the_settings_of_before(
    running: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "picky.py").write_text(
        "from publishers.outbox import Outbox\n"
        "def made(around):\n"
        "    if around.settings['language'] == 'bad':\n"
        "        raise ValueError('no such language')\n"
        "    outbox = Outbox(around.state_dir)\n"
        "    outbox.name = 'picky'\n"
        "    return outbox\n"
    )
    meta = tmp_path / "picky-0.1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: picky\nVersion: 0.1\n")
    (meta / "entry_points.txt").write_text("[penstock.publishers]\npicky = picky:made\n")
    feeds = str(EXAMPLE_FEEDS / "millrace.xml")
    wanted = {
        "PENSTOCK_FEEDS": feeds,
        "PENSTOCK_PUBLISHERS": "outbox,picky",
        "PENSTOCK_PUBLISHER_PICKY_LANGUAGE": "en",
    }
    daemon = running(**wanted)
    daemon.write(**wanted | {"PENSTOCK_PUBLISHER_PICKY_LANGUAGE": "bad"})
    daemon.process.send_signal(signal.SIGHUP)
    daemon.heard("RELOADING=1")
    daemon.heard("READY=1")
    (refused,) = [line for line in daemon.lines() if "no such language" in line["message"]]
    assert "not used" in refused["message"]
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
