"""
What a provider says about its own bill: the cost of one answer, and what a key has used so far.

OpenRouter and New-API can be asked (`facts` of both are cited below); most others cannot, and an
unknown charge of theirs waits for its expiry. Everything here only reads.

Sources: OpenRouter's `GET /key` (`data.usage`, `data.byok_usage`, in dollars) and
`GET /generation?id=` (`data.total_cost`); New-API's `GET /api/usage/token/` (`data.total_used`, in
quota units) and `GET /api/status` (`data.quota_per_unit`, units a dollar).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from daemon import tls
from daemon.inference.port import Endpoint, UsageApi
from daemon.inference.usage import amount, micro, read_json
from ledger.money import ZERO, MicroCredits

ANSWER_BYTES_MAX = 1_000_000


class Unreadable(Exception):
    """The provider has such an API, or may have one, and did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What a key has used since it was made, and where that was read."""

    used: MicroCredits
    api: UsageApi


class Billing:
    """
    The billing side of one provider.

    Args:
        endpoint: its `usage_api` says what to ask; AUTO tries what is known.
        transport: how bytes travel; None for real sockets.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._key = endpoint.key.reveal()
        headers = {"user-agent": "penstock", **endpoint.authorization}
        self._client = tls.client(transport, headers, timeout=timeout_s)

    async def counter(self) -> Counter | None:
        """
        What the key has used so far; None where the provider has no counter to ask.

        Raises:
            Unreadable: it could not be read this time.
        """
        asked = self._endpoint.usage_api
        if asked in (UsageApi.AUTO, UsageApi.OPENROUTER):
            data = await self._data(f"{self._endpoint.url}/key")
            used = _dollars(data.get("usage"))
            if used is not None:
                own = _dollars(data.get("byok_usage")) or ZERO
                return Counter(used + own, UsageApi.OPENROUTER)
        if asked in (UsageApi.AUTO, UsageApi.NEW_API):
            root = self._endpoint.url.removesuffix("/v1")
            data = await self._data(f"{root}/api/usage/token/")
            units = amount(data.get("total_used"))
            if units is not None:
                status = await self._data(f"{root}/api/status")
                # Half a million as it ships, and another where the site says so: never supposed.
                worth = amount(status.get("quota_per_unit"))
                if not worth or (used := micro(units, worth)) is None:
                    raise Unreadable(f"{root}/api/status does not say what its units are worth")
                return Counter(used, UsageApi.NEW_API)
        if asked in (UsageApi.AUTO, UsageApi.NONE):
            return None
        raise Unreadable(f"it does not answer as {asked} does")

    async def cost_of(self, remote_id: str) -> MicroCredits | None:
        """
        What one answer cost; None where the provider does not say, or not yet.

        Raises:
            Unreadable: it could not be asked.
        """
        if self._endpoint.usage_api in (UsageApi.NONE, UsageApi.NEW_API):
            return None
        data = await self._data(f"{self._endpoint.url}/generation", {"id": remote_id})
        cost = _dollars(data.get("total_cost"))
        if cost is None or data.get("is_byok") is not True:
            return cost
        # The operator pays the model's owner, too, with a key of their own.
        upstream = _dollars(data.get("upstream_inference_cost"))
        return None if upstream is None else cost + upstream

    async def _data(self, url: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The `data` of an answer; empty where there is no such place."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("GET", url, params=query) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        raise Unreadable(f"the answer of {url} has no end")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            said = str(error).replace(self._key, "***") if self._key else str(error)
            raise Unreadable(f"{error.__class__.__name__} {said}".strip()) from None
        if response.status_code == 429 or response.status_code >= 500:
            raise Unreadable(f"HTTP {response.status_code} for {url}")
        if response.status_code != 200:
            return {}
        document = read_json(bytes(content))
        data = document.get("data") if isinstance(document, dict) else None
        return data if isinstance(data, dict) else {}

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()


def _dollars(value: Any) -> MicroCredits | None:
    """Dollars as micro-credits, rounded up; None for what is no amount."""
    number = amount(value)
    return None if number is None else micro(number)
