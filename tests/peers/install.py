"""Where peers are installed, and what it says where one is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

INSTALL_MAX_S = 900


class NotToBeHad(Exception):
    """Why there is no such peer to test against, and what would bring one."""


def folder() -> Path:
    """Where peers are installed."""
    named = os.environ.get("PENSTOCK_PEERS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "penstock-peers"


def installed(script: Path, into: Path) -> None:
    """
    See to it that a peer is installed, by its own script.

    Raises:
        NotToBeHad: it is not, and may not be or cannot be.
    """
    command = ["sh", str(script), str(into)]
    if subprocess.run([*command, "have"], check=False).returncode == 0:
        return
    if os.environ.get("PENSTOCK_PEERS_INSTALL") != "1":
        raise NotToBeHad(f"no peer is installed in {into}; `make peers` does it")
    try:
        subprocess.run([*command, "install"], check=True, timeout=INSTALL_MAX_S)
    except (OSError, subprocess.SubprocessError) as problem:
        raise NotToBeHad(f"`{' '.join(command)} install` failed: {problem}") from problem
