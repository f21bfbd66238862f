"""
A stage with every destination: Dev.to, Bluesky and the outbox, on virtual time.

Besides at commits, a life of the process can end at any request to a platform, before it is sent
or after it took effect, unanswered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from daemon.app import World, opened_database, opened_parts
from daemon.cycle import Report
from daemon.engagement import Collected
from daemon.press import Press
from tests.doubles import devto, wire
from tests.doubles.bluesky import BlueskyDouble
from tests.doubles.devto import DevToDouble
from tests.doubles.webhook import Webhook
from tests.doubles.wire import InProcess
from tests.stage import Kill, Killed, MortalDatabase, Silent, Stage

T = TypeVar("T")


class Mortal(httpx.AsyncBaseTransport):
    """Counts what is sent to platforms and strikes there as at commits."""

    def __init__(self, inner: httpx.AsyncBaseTransport, kill: Kill | None) -> None:
        self._inner = inner
        self._kill = kill

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        kill = self._kill
        if kill is None:
            return await self._inner.handle_async_request(request)
        if kill.dead:
            raise Killed
        strikes = kill.strikes()
        if strikes and not kill.after:
            raise Killed
        answer = await self._inner.handle_async_request(request)
        if strikes:
            await answer.aclose()
            raise Killed
        return answer


class Platforms(Stage):
    """The stage, whose settings name all three destinations unless told otherwise."""

    def __init__(self, folder: Path, /, **changes: str) -> None:
        super().__init__(
            folder,
            **{
                "PENSTOCK_PUBLISHERS": "outbox,devto,bluesky",
                "PENSTOCK_APPROVAL": "auto",
                "PENSTOCK_MAX_POSTS_PER_DAY": "100",
                "PENSTOCK_DAILY_CAP": "100",
                "PENSTOCK_MONTHLY_CAP": "100",
                "PENSTOCK_ALERT_URL": "https://alerts.test/hook",
                "DEVTO_API_KEY": devto.KEY,
                "BLUESKY_HANDLE": BlueskyDouble().name,
                "BLUESKY_APP_PASSWORD": BlueskyDouble().password,
            }
            | changes,
        )
        self.devto = DevToDouble(self.time.loop.time)
        self.bluesky = BlueskyDouble(now=self.time.clock.now)
        self.webhook = Webhook()
        self.sources: dict[str, wire.Double] = {}

    def world(self, kill: Kill | None = None) -> World:
        platforms = InProcess({"dev.to": self.devto, "bsky.social": self.bluesky, **self.sources})
        return replace(
            super().world(),
            platforms=Mortal(platforms, kill),
            alerts=InProcess({"alerts.test": self.webhook}),
        )

    def once(self, *, kill: Kill | None = None, topic: str | None = None) -> Report:
        async def live(database: MortalDatabase) -> Report:
            world = self.world(kill)
            async with opened_parts(self.settings, database, Silent(), world) as parts:
                return await parts.cycle.once(topic=topic)

        return self._life(live, kill)

    def pursue(self, *, kill: Kill | None = None) -> list[Any]:
        """What the service does hourly."""
        return self._with_press(lambda press: press.pursue(), kill)

    def withdraw(self, run: str, *, kill: Kill | None = None) -> list[Any]:
        return self._with_press(lambda press: press.withdraw(run, "it is wrong"), kill)

    def collect(self, *, kill: Kill | None = None) -> Collected:
        async def live(database: MortalDatabase) -> Collected:
            world = self.world(kill)
            async with opened_parts(self.settings, database, Silent(), world) as parts:
                return await parts.collector.run()

        return self._life(live, kill)

    def sleep(self, seconds: float) -> None:
        self.time.run(self.time.clock.sleep(seconds))

    def states(self, run: str) -> dict[str, str]:
        """State by platform."""
        return {row.platform: row.state for row in self.rows(run)}

    def rows(self, run: str) -> list[Any]:
        from daemon import journal

        with self.reading() as tx:
            return list(journal.publications(tx, run=run))

    def _with_press(
        self, act: Callable[[Press], Awaitable[list[Any]]], kill: Kill | None
    ) -> list[Any]:
        async def live(database: MortalDatabase) -> list[Any]:
            world = self.world(kill)
            async with opened_parts(self.settings, database, Silent(), world) as parts:
                return await act(parts.press)

        return self._life(live, kill)

    def _life(
        self, live: Callable[[MortalDatabase], Coroutine[Any, Any, T]], kill: Kill | None
    ) -> T:
        with opened_database(self.settings.location):
            database = MortalDatabase(self.settings.location.database_url, kill)
            try:
                return self.time.run(live(database))
            finally:
                database.close()
