"""What systemd is told, at a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.notify import STATUS_MAX, Notifier
from tests.virtual import VirtualTime


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(65_536).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    one = Manager(address)
    with closing(one.socket):
        yield one


def test_a_life_is_told_in_the_words_of_the_protocol(manager: Manager, address: str) -> None:
    async def life() -> tuple[int, int]:
        notifier = Notifier.from_env({"NOTIFY_SOCKET": address})
        notifier.ready("waiting; next slot 09:00")
        notifier.watchdog()
        notifier.status("working")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.ready("reloaded")
        notifier.stopping()
        return before, after

    before, after = asyncio.run(life())
    *first, reloading, again, stopping = manager.heard()
    assert first == ["READY=1\nSTATUS=waiting; next slot 09:00", "WATCHDOG=1", "STATUS=working"]
    word, stamp = reloading.split("\n")
    assert word == "RELOADING=1"
    name, usec = stamp.split("=")
    assert name == "MONOTONIC_USEC"
    # Whole microseconds, rounded down.
    assert before - 1 <= int(usec) <= after
    assert (again, stopping) == ("READY=1\nSTATUS=reloaded", "STOPPING=1")


def test_an_abstract_socket_is_reached() -> None:
    name = f"penstock-{uuid.uuid4()}"
    manager = Manager(f"\0{name}")
    with closing(manager.socket):
        Notifier.from_env({"NOTIFY_SOCKET": f"@{name}"}).watchdog()
        assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nobody_is_told_where_nobody_asked(env: dict[str, str]) -> None:
    notifier = Notifier.from_env(env | {"WATCHDOG_USEC": "1000000"})
    notifier.ready("up")
    notifier.watchdog()
    notifier.stopping()
    assert notifier.watchdog_interval_s is None


@pytest.mark.parametrize("name", ["nobody-here", "\0", "x" * 300, "a\0b"])
def test_a_socket_that_is_not_there_stops_nothing(tmp_path: Path, name: str) -> None:
    notifier = Notifier(str(tmp_path / "notify") + name)
    notifier.ready("up")
    notifier.watchdog()


def test_what_systemd_waits_for_is_sent_again_when_the_socket_is_back(address: str) -> None:
    notifier = Notifier(address)
    notifier.ready("up")
    notifier.status("lost, and worth no second try")
    with closing((manager := Manager(address)).socket):
        notifier.watchdog()
        notifier.watchdog()
        assert manager.heard() == ["READY=1\nSTATUS=up\nWATCHDOG=1", "WATCHDOG=1"]


def test_of_what_is_owed_only_the_newest_is_sent(address: str) -> None:
    notifier = Notifier(address)
    notifier.ready("up")
    notifier.stopping()
    with closing((manager := Manager(address)).socket):
        notifier.status("ending")
        assert manager.heard() == ["STOPPING=1\nSTATUS=ending"]


def test_a_full_socket_does_not_block(manager: Manager, address: str) -> None:
    notifier = Notifier(address)
    begun = time.monotonic()
    for number in range(5000):
        notifier.status(f"{number} {'x' * 200}")
    notifier.stopping()
    assert time.monotonic() - begun < 30
    taken = manager.heard()
    assert 0 < len(taken) < 5000
    notifier.watchdog()
    assert manager.heard() == ["STOPPING=1\nWATCHDOG=1"]


@given(st.text())
def test_no_status_can_be_a_message_of_its_own(text: str) -> None:
    with VirtualAddress() as manager:
        Notifier(manager.name).status(f"{text}\nWATCHDOG=trigger")
        (message,) = manager.manager.heard()
    assert message.startswith("STATUS=")
    assert len(message.splitlines()) <= 1
    assert len(message) <= len("STATUS=") + STATUS_MAX


class VirtualAddress:
    """A socket that needs no folder."""

    def __enter__(self) -> VirtualAddress:
        self.name = f"\0penstock-{uuid.uuid4()}"
        self.manager = Manager(self.name)
        return self

    def __exit__(self, *error: object) -> None:
        self.manager.socket.close()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("60000000", None, 30.0),
        ("60000000", "own", 30.0),
        ("60000000", "1", None),
        ("60000000", "", 30.0),
        ("0", None, None),
        ("", None, None),
        ("soon", None, None),
        ("-5", None, None),
        ("²", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(
    usec: str, pid: str | None, expected: float | None
) -> None:
    env = {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": usec}
    if pid is not None:
        env["WATCHDOG_PID"] = str(os.getpid()) if pid == "own" else pid
    assert Notifier.from_env(env).watchdog_interval_s == expected


def test_a_reload_is_dated_by_the_clock_it_was_given(manager: Manager, address: str) -> None:
    async def later() -> None:
        await asyncio.sleep(90)
        Notifier(address).reloading()

    virtual = VirtualTime()
    try:
        virtual.run(later())
    finally:
        virtual.close()
    assert manager.heard() == ["RELOADING=1\nMONOTONIC_USEC=90000000"]
