"""
Pacing: how often one host is asked, and how long it is left alone when it asks for that.

Turns are per host and in the order of asking; a request that waits for one host holds up no other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from daemon.clock import Clock

# What a host that is too busy and does not say for how long is given, and the most it is given.
REST_S = 30.0
REST_MAX_S = 60.0
# Callers ask a handful at a time; more for one host would wait longer than an answer is wanted.
QUEUE_MAX = 32
# A host that was asked is remembered while its gap or rest may last; beyond this the idle ones go.
HOSTS_MAX = 1_000


class NotNow(Exception):
    """This host is not asked for the time being; the message names it and says why, in a line."""


class Pacing:
    """
    Gives each host one request at a time, and none while it rests.

    Args:
        clock: for monotonic time, and for waiting.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, host: str, gap_s: float, *, counts: bool = True) -> AsyncIterator[None]:
        """
        Wait for this host's turn and hold it for the block, which makes one request.

        Args:
            gap_s: least time since the beginning of the turn before, to the clock's resolution.
            counts: whether the next turn keeps its distance from this one; robots.txt is only
                asked for the sake of the request that follows.
        Raises:
            NotNow: the host rests, or too many wait for it already.
        """
        self.check(host)
        state = self._state(host)
        if state.queued >= QUEUE_MAX:
            raise NotNow(f"{QUEUE_MAX} requests wait for {host} already")
        state.queued += 1
        try:
            async with state.turns:
                # Whoever had the turn before may have been told to stay away.
                self.check(host)
                wait_s = state.began_at + gap_s - self._clock.monotonic()
                if wait_s > 0:
                    await self._clock.sleep(wait_s)
                if counts:
                    state.began_at = self._clock.monotonic()
                yield
        finally:
            state.queued -= 1

    def check(self, host: str) -> None:
        """Raise NotNow while a host rests."""
        state = self._hosts.get(host)
        left_s = state.rests_until - self._clock.monotonic() if state else 0.0
        if left_s > 0:
            raise NotNow(f"{host} asked for a pause, {math.ceil(left_s)} s are left of it")

    def rest(self, host: str, seconds: float) -> None:
        """Leave a host alone for these seconds, at most `REST_MAX_S`; a longer rest stands."""
        state = self._state(host)
        until = self._clock.monotonic() + min(seconds, REST_MAX_S)
        state.rests_until = max(state.rests_until, until)

    def _state(self, host: str) -> _Host:
        if host not in self._hosts and len(self._hosts) >= HOSTS_MAX:
            idle_since = self._clock.monotonic() - REST_MAX_S
            self._hosts = {
                name: state
                for name, state in self._hosts.items()
                if state.queued or max(state.began_at, state.rests_until) > idle_since
            }
        return self._hosts.setdefault(host, _Host())


@dataclass(slots=True)
class _Host:
    """One host; times are the clock's monotonic seconds, `queued` counts the one in turn too."""

    turns: asyncio.Lock = field(default_factory=asyncio.Lock)
    queued: int = 0
    began_at: float = -math.inf
    rests_until: float = -math.inf


def retry_after_s(value: str | None, at: datetime) -> float:
    """
    The seconds a Retry-After header asks for, between none and `REST_MAX_S`.

    Args:
        value: the header as it came; absent or unreadable gives `REST_S`.
        at: the time it came, for a date.
    Source: RFC 9110, 10.2.3: whole seconds or a date.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(REST_MAX_S, float(text))
    try:
        until = parsedate_to_datetime(text)
        # A date without a zone is in GMT, as every date in HTTP is.
        aware = until if until.tzinfo else until.replace(tzinfo=UTC)
        return min(REST_MAX_S, max(0.0, (aware - at).total_seconds()))
    except (ValueError, TypeError, OverflowError, IndexError):
        return REST_S
