"""
A real Bluesky network on loopback: PDS, directory of accounts and, where it can be, the AppView.

It is installed outside the repository, in PENSTOCK_PEERS_DIR (default ~/.cache/penstock-peers), by
`make peers` (2 minutes, 665 MB), or by the tests themselves where PENSTOCK_PEERS_INSTALL is 1.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.peers.install import NotToBeHad, folder, installed

SCRIPT = Path(__file__).with_name("bluesky-pds.sh")
START_MAX_S, STOP_MAX_S, INDEXED_MAX_S = 120, 30, 30


@dataclass(frozen=True)
class Network:
    """A running network."""

    pds: str
    appview: str | None
    pid: int
    dids: dict[str, str]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The servers take connections and say nothing, as when a machine hangs."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def call(
        self, nsid: str, body: dict[str, Any] | None = None, token: str = "", **params: str
    ) -> Any:
        """One request as somebody else would make it, without our adapter or the SDK."""
        headers = {"authorization": token if " " in token else f"Bearer {token}"} if token else {}
        url = f"{self.pds}/xrpc/{nsid}"
        answer = (
            httpx.get(url, params=params, headers=headers)
            if body is None
            else httpx.post(url, json=body, headers=headers)
        )
        if answer.status_code != 200:
            raise RuntimeError(f"{nsid}: {answer.status_code} {answer.text}")
        kind = answer.headers.get("content-type", "")
        return answer.json() if "json" in kind and answer.content else answer.content

    def with_appview(self) -> Network:
        """This network; where its AppView cannot be, it is said."""
        if self.appview is None:
            pytest.skip("NOT RUN: the AppView needs postgresql and redis-server on this machine")
        return self


@dataclass
class Account:
    """Somebody's account, and what anybody can see of it."""

    network: Network
    name: str

    @property
    def did(self) -> str:
        return self.network.dids[f"{self.name}.test"]

    def token(self) -> str:
        """An access token, got anew."""
        body = {"identifier": f"{self.name}.test", "password": f"{self.name}-password"}
        return str(self.network.call("com.atproto.server.createSession", body)["accessJwt"])

    def records(self, collection: str = "app.bsky.feed.post") -> dict[str, Any]:
        """What is in its repository, by record key, the oldest first."""
        listed = self.network.call(
            "com.atproto.repo.listRecords", repo=self.did, collection=collection, limit="100"
        )["records"]
        return {r["uri"].rpartition("/")[2]: r for r in reversed(listed)}


def until(found: Callable[[], Any], said: str = "the AppView does not show it") -> Any:
    """What is found once the AppView has caught up."""
    deadline = time.monotonic() + INDEXED_MAX_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(said)


def has_appview() -> bool:
    """Whether PostgreSQL and Redis, which the AppView needs, are on this machine."""
    return bool(
        shutil.which("redis-server") and list(Path("/usr/lib").glob("postgresql/*/bin/initdb"))
    )


@contextmanager
def network(
    names: Sequence[str], *, appview: bool = False, rate_limits: bool = False
) -> Iterator[Network]:
    """
    Run a network with these accounts; where it is not installed and cannot be, it is said.

    Args:
        appview: run it too, where this machine has what it needs.
    Raises:
        RuntimeError: it is installed, and does not start.
    """
    try:
        installed(SCRIPT, folder())
    except NotToBeHad as problem:
        pytest.skip(f"NOT RUN: {problem}")
    appview = appview and has_appview()
    options = [part for name in names for part in ("--account", f"{name}:{name}-password")]
    options += ["--rate-limits"] if rate_limits else []
    ports = {"PGPORT": str(_free_port()), "REDISPORT": str(_free_port())}
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as stored:
        said = Path(stored) / "stderr"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                ["sh", str(SCRIPT), str(folder()), "run-appview" if appview else "run", *options],
                stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
                env=os.environ | ports | {"PEERS_TMP": stored},
            )  # fmt: skip
        try:
            yield _started(process, said)
        finally:
            process.terminate()
            try:
                process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                # It leads a session of its own: this ends it with its database, and nothing else.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _started(process: subprocess.Popen[bytes], said: Path) -> Network:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_MAX_S)
    line = process.stdout.readline() if ready else b""
    try:
        told = json.loads(line)
    except ValueError:
        last = said.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the network does not start: {line!r}\n{last}") from None
    dids = {account["handle"]: account["did"] for account in told["accounts"]}
    return Network(told["pds"], told["appview"], told["pid"], dids)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
