"""GET and nothing else, bounded, and with the times that answers name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from daemon import tls
from daemon.clock import Clock

# OpenRouter's list of models is 700 kB.
ANSWER_BYTES_MAX = 8_000_000


class Unreached(Exception):
    """No answer came; the message says why, in a line."""


class _OnlyReads(AssertionError):
    """A check was about to change something."""


@dataclass(slots=True)
class Times:
    """By how much the clocks of those who answered are ahead of ours."""

    clock: Clock
    offsets: list[timedelta] = field(default_factory=list)

    def note(self, headers: Mapping[str, str]) -> None:
        """Compare an answer's date with our clock."""
        try:
            at = parsedate_to_datetime(headers["date"])
            # What a cache kept was dated when it was made.
            age = timedelta(seconds=min(int(headers.get("age", "0")), 10**8))
        except (KeyError, ValueError, TypeError, OverflowError):
            return
        aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        self.offsets.append(aware + age - self.clock.now().replace(microsecond=0))


class Watched(httpx.AsyncBaseTransport):
    """
    Lets only GET through, and notes what time the others have.

    Args:
        inner: how bytes travel; None for real sockets.
    """

    def __init__(self, times: Times, inner: httpx.AsyncBaseTransport | None) -> None:
        self._times = times
        self._inner = inner or httpx.AsyncHTTPTransport(
            verify=tls.context(),
            trust_env=False,
            # As the guarded fetcher has it: no connection serves a second host.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            raise _OnlyReads(f"{request.method} is not for a check")
        response = await self._inner.handle_async_request(request)
        self._times.note(response.headers)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `document` is None where its body is no JSON."""

    status: int
    document: Any
    redirects: bool

    @property
    def fields(self) -> Mapping[str, Any]:
        """The document's fields, where it has some."""
        return self.document if isinstance(self.document, dict) else {}

    @property
    def said(self) -> str:
        """What it says about itself, behind a colon; "" where it says nothing."""
        error = self.fields.get("error")
        told = error.get("message") if isinstance(error, dict) else error
        told = told or self.fields.get("message")
        # Masked and cut where all findings are.
        return f": {told}" if isinstance(told, str) else ""


class Getter:
    """Asks for documents."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        Ask once.

        Raises:
            Unreached
        """
        try:
            async with self._client.stream("GET", url, headers=headers, params=params) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise Unreached(f"sends more than {ANSWER_BYTES_MAX // 1_000_000} MB")
        except httpx.TimeoutException:
            raise Unreached("gave no whole answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # Not as its cause: httpx's errors carry the request, and with it the key.
            raise Unreached(_line(error)) from None
        return Answer(response.status_code, _json(body), response.has_redirect_location)


@asynccontextmanager
async def getter(
    times: Times, transport: httpx.AsyncBaseTransport | None, timeout_s: float
) -> AsyncIterator[Getter]:
    """Someone who asks, closed again afterwards."""
    async with tls.client(
        Watched(times, transport),
        {"user-agent": "penstock", "accept-encoding": "identity"},
        timeout=timeout_s,
    ) as client:
        yield Getter(client)


def _line(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "cannot be asked: the key has characters that no key has; was it copied whole?"
    return f"cannot be reached ({type(error).__name__} {error})".replace(" )", ")")


def _json(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
