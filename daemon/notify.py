"""
Telling systemd how we are: its notify protocol, over a datagram socket.

A message is lines of `NAME=VALUE` sent to `$NOTIFY_SOCKET` (sd_notify(3)). Nothing here blocks or
raises: a daemon must not fall over because nobody listens. READY, RELOADING and STOPPING, which
systemd waits for, are sent again with the next message where the socket did not take them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from daemon.clock import SystemClock

# `systemctl status` shows one line.
STATUS_MAX = 300


class Notifier:
    """
    Speaks to the service manager, or to nobody.

    Args:
        address: of the socket, as the protocol has it; None for nobody.
        watchdog_interval_s: seconds after which `watchdog` is due again, half of what systemd
            waits; None where it does not.
    """

    def __init__(
        self, address: str | None = None, watchdog_interval_s: float | None = None
    ) -> None:
        self._address = address
        self.watchdog_interval_s = watchdog_interval_s
        self._owed = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Notifier:
        """As `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID` say."""
        address = _address(env.get("NOTIFY_SOCKET", ""))
        return cls(address, None if address is None else _watchdog_interval_s(env))

    @property
    def listened_to(self) -> bool:
        """Whether there is a service manager."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """Started, or done with a reload."""
        self._tell(f"READY=1\nSTATUS={_line(status)}", must_arrive=True)

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._tell(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """We live."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. From within the running loop, whose time it asks."""
        # So that systemd can tell it from one before its signal.
        usec = int(SystemClock().monotonic() * 1_000_000)
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={usec}", must_arrive=True)

    def stopping(self) -> None:
        """An orderly end begins."""
        self._tell("STOPPING=1", must_arrive=True)

    def _tell(self, message: str, *, must_arrive: bool = False) -> None:
        if self._address is None:
            return
        # Only the newest state is owed: the one before it is over.
        owed = message if must_arrive else self._owed
        parts = (message,) if must_arrive or not self._owed else (self._owed, message)
        self._owed = "" if _sent(self._address, "\n".join(parts)) else owed


def _sent(address: str, message: str) -> bool:
    try:
        # A socket for each message: systemd's own may be replaced while we live.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(message.encode(errors="replace"), address)
    # ValueError: a path with a NUL in it.
    except (OSError, ValueError):
        return False
    return True


def _address(text: str) -> str | None:
    """A path, or an abstract name that is written with an @; vsock is for virtual machines."""
    if text.startswith("@"):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else None


def _watchdog_interval_s(env: Mapping[str, str]) -> float | None:
    """See sd_watchdog_enabled(3): the variables may be meant for a parent of ours."""
    usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not re.fullmatch(r"[0-9]{1,18}", usec) or not int(usec):
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def _line(text: str) -> str:
    """One line: a second one would be a message of its own."""
    return " ".join(text.split())[:STATUS_MAX]
