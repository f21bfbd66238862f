"""An operator's webhook, which keeps what it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.doubles.wire import Answer, Request


class Webhook:
    """
    Takes alerts, or answers `status` instead.

    Attributes:
        told: the bodies that were taken, in their order.
        before: called at each request.
    """

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.status = 204
        self.before: Callable[[], None] = lambda: None

    async def handle(self, request: Request) -> Answer:
        self.before()
        if self.status < 300:
            self.told.append(request.json)
        return Answer(self.status)
