"""Stripe's balance transactions: payments that settle days later, refunds, payouts, pages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.doubles.wire import Answer, Request

PATH = "/v1/balance_transactions"
PAGE_DEFAULT = 10
PAGE_MAX = 100


@dataclass(slots=True)
class StripeDouble:
    """
    One account.

    Args:
        key: the only key that is taken.
        may_read: whether that key has the permission.
        page_max: how many a page has at most; a real one has a hundred.
    """

    key: str
    may_read: bool = True
    page_max: int = PAGE_MAX
    transactions: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    _instead: deque[Answer] = field(default_factory=deque)

    def move(
        self, at: datetime, cents: int, kind: str = "charge", *, fee: int = 0, **fields: Any
    ) -> str:
        """
        A transaction of a gross amount, at first available unless `status` says otherwise.

        Returns:
            Its id.
        """
        name = f"txn_{len(self.transactions) + 1:04d}"
        self.transactions.append(
            {
                "id": name,
                "object": "balance_transaction",
                "amount": cents,
                "available_on": int(at.timestamp()),
                "balance_type": "payments",
                "created": int(at.timestamp()),
                "currency": "usd",
                "description": "An article\nfor somebody@example.org",
                "exchange_rate": None,
                "fee": fee,
                "fee_details": [],
                "net": cents - fee,
                "reporting_category": kind,
                "source": f"ch_{len(self.transactions) + 1:04d}",
                "status": "available",
                "type": kind,
                **fields,
            }
        )
        return name

    def settle(self, name: str) -> None:
        """A pending transaction becomes available."""
        next(one for one in self.transactions if one["id"] == name)["status"] = "available"

    def instead(self, *answers: Answer) -> None:
        """Give these answers first, in this order."""
        self._instead.extend(answers)

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        self.asked.append(request)
        if self._instead:
            return self._instead.popleft()
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return refused(401, f"Invalid API Key provided: {request.headers['authorization']}")
        if request.method != "GET" or request.path != PATH:
            return refused(404, f"Unrecognized request URL ({request.method}: {request.path}).")
        if not self.may_read:
            return refused(
                403,
                f"The provided key '{self.key}' does not have the required permissions for this"
                " endpoint. Having the 'rak_balance_read' permission would allow this request to"
                " continue.",
            )
        return self._page(request.query)

    def _page(self, query: dict[str, str]) -> Answer:
        limit = int(query.get("limit", PAGE_DEFAULT))
        if not 1 <= limit <= PAGE_MAX:
            return refused(400, "This value must be greater than or equal to 1.")
        since = int(query.get("created[gte]", 0))
        # Of one second, what was made last stands first.
        made = sorted(
            enumerate(self.transactions), key=lambda one: (one[1]["created"], one[0]), reverse=True
        )
        found = [one for _, one in made if one["created"] >= since]
        if after := query.get("starting_after"):
            names = [one["id"] for one in found]
            if after not in names:
                return refused(400, f"No such balance transaction: '{after}'")
            found = found[names.index(after) + 1 :]
        size = min(limit, self.page_max)
        return listed(found[:size], has_more=len(found) > size)


def listed(transactions: object, has_more: object = False) -> Answer:
    """A page, whatever it is made of."""
    return Answer.of({"object": "list", "url": PATH, "has_more": has_more, "data": transactions})


def refused(status: int, message: str, **headers: str) -> Answer:
    """An error as Stripe writes it."""
    error = {"error": {"type": "invalid_request_error", "message": message}}
    return Answer.of(error, status, **headers)
