"""
One XRPC request through the SDK, and what became of it.

    XrpcError
     ├─ Refused    the service answered, and nothing was changed
     ├─ NotSent    nobody was reached, so nothing was changed
     └─ Unclear    it may have taken effect

Of the SDK this uses the layer that sends and sorts errors, and not `AsyncClient` on top of it: that
one drops a `swapRecord` of null, reads the machine's clock, refreshes before a token ends but not
when the service says that it has ended, and names tokens in the errors of answers that do not fit
its models.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import httpx

from publishers.clock import Clock

# A picture takes longer than an answer.
UPLOAD_TIMEOUT_S = 90.0
# Who does not take the connection by then was not reached.
CONNECT_MAX_S = 15.0
# Twenty-five posts with everything in them are some 200 kB.
ANSWER_BYTES_MAX = 8_000_000
ERROR_CHARS_MAX = 200
RETRY_AFTER_MAX_S = 86_400.0

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")

Json: TypeAlias = dict[str, Any]


class XrpcError(Exception):
    """Base of everything a request can end in but an answer."""


class Refused(XrpcError):
    """
    The service said no.

    Args:
        error: its word for why, such as InvalidRequest; "" where it gave none.
        retry_after_s: when to come again, None where it did not say.
    """

    def __init__(
        self, status: int, error: str, message: str, retry_after_s: float | None = None
    ) -> None:
        told = ": ".join(part for part in (error, message) if part)
        super().__init__(f"{status} {told}".strip())
        self.status = status
        self.error = error
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def is_not_now(self) -> bool:
        """Whether the same request may pass later."""
        return self.status in (408, 425, 429)


class NotSent(XrpcError):
    """Nobody was reached."""


class Unclear(XrpcError):
    """Nobody can say whether it took effect."""


class Wire:
    """
    Connections to one account's services for as long as the block lasts.

    Args:
        secrets: never shown in an error, whoever says them.
        timeout_s: for one whole answer; what is uploaded has UPLOAD_TIMEOUT_S at least.
        transport: how bytes travel; None for real sockets.
        tls: None for what httpx makes itself.
    """

    def __init__(
        self,
        service: str,
        *,
        clock: Clock,
        secrets: set[str],
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._service = service
        self._clock = clock
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._upload_timeout_s = max(UPLOAD_TIMEOUT_S, timeout_s)
        self._transport = transport
        self._tls = tls

    async def __aenter__(self) -> Wire:
        from atproto_client.client.async_raw import (  # type: ignore[import-untyped]
            AsyncClientRaw,
        )
        from atproto_client.request import AsyncRequest  # type: ignore[import-untyped]

        self._request = AsyncRequest(
            transport=self._transport,
            verify=self._tls if self._tls is not None else True,
            timeout=httpx.Timeout(
                self._upload_timeout_s, connect=min(self._timeout_s / 2, CONNECT_MAX_S)
            ),
            # No proxies or netrc from the environment: the operator named this service.
            trust_env=False,
            event_hooks={"request": [self._leaves], "response": [self._arrives]},
        )
        self._request.add_additional_header("User-Agent", "penstock")
        self._client = AsyncClientRaw(self._service, request=self._request)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._request.close()

    def at(self, service: str) -> None:
        """Go on with this service: an account lives on another host than where it logs in."""
        self._client.update_base_url(service)

    async def query(self, nsid: str, params: Mapping[str, Any], token: str = "") -> Json:
        """
        Read.

        Raises:
            Refused, NotSent, Unclear
        """
        from atproto_client.models.dot_dict import DotDict  # type: ignore[import-untyped]

        asked = self._client.invoke_query(nsid, params=DotDict(params), headers=_headers(token))
        return await self._answer(asked, self._timeout_s)

    async def procedure(
        self, nsid: str, content: bytes, token: str = "", kind: str = "application/json"
    ) -> Json:
        """
        Write these very bytes.

        Raises:
            Refused, NotSent, Unclear
        """
        headers = _headers(token) | ({"Content-Type": kind} if content else {})
        limit_s = self._timeout_s if kind == "application/json" else self._upload_timeout_s
        return await self._answer(
            self._client.invoke_procedure(nsid, content=content or None, headers=headers), limit_s
        )

    async def _answer(self, asked: Any, limit_s: float) -> Json:
        from atproto_client import exceptions  # type: ignore[import-untyped]

        answer: Any = None
        trouble: XrpcError | None = None
        try:
            async with asyncio.timeout(limit_s):
                answer = (await asked).content
        except exceptions.RequestErrorBase as error:
            trouble = self._sorted(error.response, error.__cause__)
        except TimeoutError:
            trouble = Unclear(f"no whole answer within {limit_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            trouble = self._sorted(None, error)
        except (ValueError, RecursionError, exceptions.AtProtocolError):
            # The SDK raises ModelError for an error that is JSON but none of XRPC's.
            trouble = Unclear("the answer cannot be read")
        if trouble is not None:
            # Out here it has no context: the SDK's errors have the answer and the request in them.
            raise trouble
        if answer == b"":
            return {}
        if not isinstance(answer, dict):
            raise Unclear("the answer is no JSON object")
        return answer

    def _sorted(self, response: Any, cause: BaseException | None) -> XrpcError:
        """What an error of the SDK or of httpx means for who sent the request."""
        if response is None:
            told = self.cleaned(f"{type(cause).__name__} {cause}".strip())
            reached = not isinstance(
                cause,
                (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, _NotSentInTheClear),
            )
            return Unclear(told) if reached else NotSent(told)
        # The SDK leaves an error that is none of XRPC's as it came.
        error = str(getattr(response.content, "error", "") or "")
        message = self.cleaned(str(getattr(response.content, "message", "") or ""))
        status = int(response.status_code)
        if not 400 <= status < 500:
            return Unclear(self.cleaned(f"{status} {error} {message}".strip()))
        retry_after_s = self._retry_after_s(response.headers)
        return Refused(status, self.cleaned(error), message, retry_after_s)

    def _retry_after_s(self, headers: Mapping[str, str]) -> float | None:
        """Seconds until the service wants to be asked again, by our clock and within a day."""
        named, reset = headers.get("retry-after", ""), headers.get("ratelimit-reset", "")
        now = self._clock.now()
        wait: float | None = None
        try:
            wait = float(named)
        except ValueError:
            if named:
                wait = _seconds_until(named, now)
        if wait is None and reset.isascii() and reset.isdigit() and len(reset) < 12:
            wait = float(reset) - now.timestamp()
        if wait is None or not math.isfinite(wait):
            return None
        return min(max(wait, 0.0), RETRY_AFTER_MAX_S)

    def cleaned(self, text: str) -> str:
        """What a stranger said, on one short line and without our secrets."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "[secret]")
        # A token that was replaced, or is not ours, is no less a token.
        text = _TOKEN.sub("[secret]", text)
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:ERROR_CHARS_MAX]

    async def _leaves(self, request: httpx.Request) -> None:
        # The service names the host to go on with; a token never leaves in the clear for that.
        if self._service.startswith("https:") and request.url.scheme != "https":
            raise _NotSentInTheClear(f"{request.url.host} is not reached over https")

    async def _arrives(self, response: httpx.Response) -> None:
        # The SDK follows redirects, and would send the password along; XRPC has none.
        if response.is_redirect:
            raise httpx.RemoteProtocolError(f"{response.status_code}, a redirect")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx.RemoteProtocolError("compressed, which was not asked for")
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Bounded(response.stream)


class _NotSentInTheClear(httpx.TransportError):
    """Raised before anything leaves."""


class _Bounded(httpx.AsyncByteStream):
    """A body that ends with an error where it would not end."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise httpx.ReadError(f"more than {ANSWER_BYTES_MAX} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def dumped(value: object) -> bytes:
    """JSON as it is sent: the same bytes for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _headers(token: str) -> dict[str, str]:
    # Compressed, a body has a size that says nothing; and an answer is small.
    bare = {"Accept-Encoding": "identity"}
    return bare | ({"Authorization": f"Bearer {token}"} if token else {})


def _seconds_until(http_date: str, now: datetime) -> float | None:
    try:
        at = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - now).total_seconds()
