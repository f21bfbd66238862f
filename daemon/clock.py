"""
The only source of time. The core is told the time; the shell asks a `Clock`.

Durations are taken from `asyncio`'s loop, which is monotonic; a test runs the same code on a loop
whose time is virtual, so nothing here has to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the shell may ask about time."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC: for records and slots."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for durations."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._wall = wall

    def now(self) -> datetime:
        """Wall time, aware, in UTC."""
        return self._wall()

    def monotonic(self) -> float:
        """The running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(seconds)
