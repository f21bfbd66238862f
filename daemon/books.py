"""
The database as the service uses it: waiting for another writer never blocks the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

from sqlalchemy import Connection

from daemon.clock import Clock
from ledger.database import Database
from ledger.errors import StorageBusy

# As long as an operator's own command may keep the lock.
WAIT_S = 10.0
# Between two tries; twice as long each time.
PAUSE_MIN_S, PAUSE_MAX_S = 0.005, 0.25


class Books:
    """
    Transactions for coroutines.

    Between entering `write` and leaving it nothing may be awaited, so that no other task can
    slip in halfway.

    Args:
        database: opened with `busy_timeout_ms=0`.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """
        One transaction that may write.

        Raises:
            StorageBusy: another process held the lock for ten seconds.
        """
        deadline, pause_s = self._clock.monotonic() + WAIT_S, PAUSE_MIN_S
        while True:
            transaction = self._database.write()
            try:
                tx = transaction.__enter__()
                break
            except StorageBusy:
                if self._clock.monotonic() > deadline:
                    raise
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        try:
            yield tx
        except BaseException as error:
            transaction.__exit__(type(error), error, error.__traceback__)
            raise
        transaction.__exit__(None, None, None)

    def read(self) -> AbstractContextManager[Connection]:
        """One transaction that only reads; in WAL mode it never waits."""
        return self._database.read()
