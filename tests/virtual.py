"""
Virtual time: an event loop whose clock jumps to the next deadline as soon as everyone waits.

Time is an integer of nanoseconds, so that a year later it still has every microsecond. The code
under test runs unchanged: `asyncio.sleep`, `asyncio.timeout` and `SystemClock` all read the loop.
"""

from __future__ import annotations

import asyncio
import selectors
import time
import weakref
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from daemon.clock import SystemClock

T = TypeVar("T")

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class Deadlock(RuntimeError):
    """Everyone waits and no deadline is set: real time would pass for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Where the loop would wait, the clock jumps."""

    now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Deadlock("nothing is scheduled and nothing is ready")
        # At least a microsecond: a deadline a float's breadth away must still be reached.
        self.now_ns += max(1_000, round(timeout * 1e9))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time that starts at zero."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Timers within a microsecond are due together, as on a real clock.
        self._clock_resolution = 1e-6

    @property
    def nanoseconds(self) -> int:
        """Time since the loop was made."""
        return self._jumping.now_ns

    def time(self) -> float:
        return self._jumping.now_ns / 1e9

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Other threads take real time, which there is none of: the work is done at once."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def wall(self) -> datetime:
        """Wall time: the start plus what has virtually passed."""
        return START + timedelta(microseconds=self._jumping.now_ns // 1_000)


class VirtualTime:
    """One virtual stretch of time, which may span several runs of the program."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.clock = SystemClock(self.loop.wall)
        # Nobody has to: a loop goes with the time that it keeps.
        weakref.finalize(self, self.loop.close)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; what it left behind is cancelled, as a dead process's is."""
        try:
            return self.loop.run_until_complete(coroutine)
        finally:
            if left := asyncio.all_tasks(self.loop):
                for task in left:
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(left))

    def pass_by(self, span: timedelta) -> None:
        """Let time go by."""
        self.run(asyncio.sleep(span.total_seconds()))

    def close(self) -> None:
        self.loop.close()


class HastyClock:
    """Real time in which nobody waits: a wait moves the clock by as much, and is noted."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._begun = time.monotonic()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return time.monotonic() - self._begun + sum(self.waits)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)
