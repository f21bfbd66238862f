"""
The guarded fetcher: what strangers name, read without letting them choose where we connect.

A name is resolved once, every address is checked against an explicit table, and the connection
goes to an address that was checked; each redirect starts over. Bytes and time are bounded, before
and after decompression. The operator can allow private `host:port` pairs by name.

What robots.txt does not allow is not asked for, and no host is asked more often than it bears.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import httpx

from daemon import __version__, tls
from daemon.clock import Clock, SystemClock
from daemon.sources import robots
from daemon.sources.pacing import NotNow, Pacing, retry_after_s
from daemon.sources.parse import URL_MAX
from daemon.sources.policy import FetchPolicy
from daemon.sources.robots import PRODUCT_TOKEN, Robots, Rules

BYTES_MAX = 5_000_000
BODY_TIMEOUT_S = 30.0
REDIRECTS_MAX = 5
# Longer ones would be stored and sent back with every request.
VALIDATOR_MAX = 1_000
USER_AGENT = (
    f"{PRODUCT_TOKEN}/{__version__} (autonomous publication; reads feeds and what they link to)"
)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# ipaddress.is_global calls NAT64, 6to4, multicast and others global (measured on CPython 3.11),
# so the table is spelled out: IANA's special-purpose registries, and what embeds IPv4. Of IPv6
# only 2000::/3 is handed out to anyone; mapped, translated and local addresses lie outside it.
_FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "::/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "4000::/2", "8000::/1",
    )
)  # fmt: skip
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")


class FetchError(Exception):
    """The page cannot be had; the message says why, in a line."""


class Forbidden(FetchError):
    """Its address is none of a page, or not public: nothing may lead there."""


class Unreachable(FetchError):
    """It cannot be had now; that says nothing about another time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    A complete answer.

    Args:
        url: where it came from in the end.
        body: decompressed; empty where `not_modified`.
    """

    url: str
    body: bytes
    content_type: str
    etag: str | None
    last_modified: str | None
    not_modified: bool = False


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL we might read: as it was written, as it is sent, and whom it asks."""

    written: str
    url: httpx.URL
    host: str
    port: int
    allowed: bool

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return str(self.url.copy_with(raw_path=b"/", fragment=None)).rstrip("/")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request gave; `cut` where the body was longer than asked for."""

    status: int
    headers: httpx.Headers
    location: str | None
    body: bytes
    cut: bool


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, from the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """
    Args:
        transport: how bytes travel; None for real sockets.
        resolve: names to addresses.
        clock: for pauses, and for how long a robots.txt is kept; None for the machine's.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        transport: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve = resolve,
        clock: Clock | None = None,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._clock = clock or SystemClock()
        self._pacing = Pacing(self._clock)
        self._robots = Robots(self._ask_robots, self._clock)
        # A proxy would resolve names again, and a redirect be followed unchecked.
        self._client = tls.client(
            transport,
            {"user-agent": USER_AGENT, "accept-encoding": "identity"},
            timeout=policy.timeout_s,
            # A connection is pooled by the address we pinned, so one that was verified for a host
            # would serve another on the same address; and a cookie would follow it.
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def get(
        self, url: str, *, etag: str | None = None, last_modified: str | None = None
    ) -> Fetched:
        """
        Fetch one page, conditionally where validators are given.

        Waiting for the host's turn has no time-out; the requests themselves do.

        Raises:
            Unreachable: not reached, too slow, not to be asked for now, or failing itself.
            FetchError: refused, not allowed by robots.txt, too large, or not a 200.
        """
        headers = {"if-none-match": etag, "if-modified-since": last_modified}
        conditional = {name: value for name, value in headers.items() if value}
        try:
            with _problems_told():
                return await self._follow(url, conditional)
        except NotNow as error:
            raise Unreachable(str(error)) from None

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def _follow(self, url: str, conditional: Mapping[str, str]) -> Fetched:
        """One page, wherever redirects lead; each target is a new beginning."""
        target = self._target(url)
        for _ in range(REDIRECTS_MAX + 1):
            self._pacing.check(target.host)
            address = await self._checked_address(target)
            rules = await self._obeyed(target)
            gap_s = max(self._policy.gap_s, rules.crawl_delay_s)
            answer = await self._ask(target, address, gap_s, BYTES_MAX, conditional)
            if answer.location is None:
                return _fetched(target, answer, conditional)
            target = self._redirected(target, answer.location)
        raise FetchError(f"more than {REDIRECTS_MAX} redirects")

    async def _obeyed(self, target: _Target) -> Rules:
        """
        The rules of the target's origin, which allow it.

        Raises:
            FetchError: they do not, or cannot be had.
        """
        rules = await self._robots.of(target.origin)
        if rules.problem:
            raise Unreachable(
                f"robots.txt of {target.host} cannot be had ({rules.problem}), "
                "so nothing is read there for now"
            )
        # As it is sent: dot segments and escapes that we resolve must not slip past a rule.
        if not rules.allow(str(target.url)):
            raise FetchError(f"robots.txt of {target.host} does not allow it")
        return rules

    async def _ask_robots(self, origin: str) -> Rules:
        """
        The rules of an origin, through the same guard.

        Raises:
            NotNow: a host asked us to stay away; nothing is known, and nothing to be kept.
        """
        try:
            with _problems_told():
                target = self._target(f"{origin}/robots.txt")
                for _ in range(REDIRECTS_MAX + 1):
                    address = await self._checked_address(target)
                    answer = await self._ask(
                        target, address, self._policy.gap_s, robots.BYTES_MAX, counts=False
                    )
                    if answer.status == httpx.codes.TOO_MANY_REQUESTS:
                        self._pacing.check(target.host)
                    if answer.location is None:
                        return robots.answered(answer.status, answer.body)
                    target = self._redirected(target, answer.location)
        except FetchError as error:
            return robots.unreached(str(error))
        # RFC 9309, 2.3.1.2: as if there were none.
        return robots.answered(httpx.codes.NOT_FOUND, b"")

    async def _ask(
        self,
        target: _Target,
        address: str,
        gap_s: float,
        bytes_max: int,
        headers: Mapping[str, str] | None = None,
        *,
        counts: bool = True,
    ) -> _Answer:
        """One request in its host's turn; the body of a success, up to the bound."""
        async with self._pacing.turn(target.host, gap_s, counts=counts):
            request = self._client.build_request(
                "GET",
                # Connect to the address that was checked; name and certificate stay the host's.
                target.url.copy_with(host=address),
                headers={"host": target.url.netloc.decode("ascii"), **(headers or {})},
                extensions={"sni_hostname": target.host},
            )
            # httpx bounds each read; a header a second would pass that for ever.
            async with asyncio.timeout(self._policy.timeout_s):
                response = await self._client.send(request, stream=True)
            try:
                body, cut = b"", False
                if response.is_success:
                    body, cut = await _bounded_body(response, bytes_max)
            finally:
                await response.aclose()
            if response.status_code in (
                httpx.codes.TOO_MANY_REQUESTS,
                httpx.codes.SERVICE_UNAVAILABLE,
            ):
                asked = response.headers.get("retry-after")
                self._pacing.rest(target.host, retry_after_s(asked, self._clock.now()))
        location = response.headers.get("location") if response.has_redirect_location else None
        return _Answer(response.status_code, response.headers, location, body, cut)

    def _target(self, url: str) -> _Target:
        """
        A URL, read by both parsers that will see it.

        Raises:
            Forbidden: it or its host is not for us.
            FetchError: its length or its port is not.
        """
        if len(url) > URL_MAX:
            raise FetchError(f"its address is longer than {URL_MAX} characters")
        try:
            parts = urlsplit(url)
            usual = {"http": 80, "https": 443}[parts.scheme]
            port = usual if parts.port is None else parts.port
        except (ValueError, KeyError):
            raise Forbidden("not an http or https address") from None
        name = (parts.hostname or "").rstrip(".")
        if not name or parts.username is not None:
            raise Forbidden("not an address we read")
        sent = httpx.URL(url)
        host = sent.raw_host.decode("ascii").strip("[]").rstrip(".").lower()
        # The one checks what the operator allowed, the other connects: they must mean the same.
        sent_port = usual if sent.port is None else sent.port
        same = (sent.scheme, sent_port) == (parts.scheme, port)
        if not same or (name.isascii() and name != host) or not _HOST.fullmatch(host):
            raise Forbidden("not an address we read")
        written = f"[{name}]" if ":" in name else name
        allowed = f"{written}:{port}" in self._policy.allow
        if not allowed and port not in (80, 443):
            raise FetchError(f"port {port} is not read (PENSTOCK_FETCH_ALLOW)")
        return _Target(url, sent, host, port, allowed)

    def _redirected(self, target: _Target, location: str) -> _Target:
        """
        Where a redirect leads, its address percent-encoded as it will be sent.

        Raises:
            FetchError: that is not for us.
        """
        found = self._target(urljoin(str(target.url), location))
        # What was asked for by a name that was proven must not come from whoever is on the way.
        if (target.url.scheme, found.url.scheme) == ("https", "http"):
            raise FetchError("a redirect from https to http is not followed")
        return replace(found, written=str(found.url))

    async def _checked_address(self, target: _Target) -> str:
        """
        An address we may connect to for this target.

        Raises:
            Unreachable: there is none.
            Forbidden: one of them is not public.
        """
        host = target.url.raw_host.decode("ascii").strip("[]")
        async with asyncio.timeout(self._policy.timeout_s):
            addresses = await self._resolve(host, target.port)
        if not addresses:
            raise Unreachable("the name has no address")
        for address in addresses:
            if not target.allowed and is_forbidden(address):
                raise Forbidden(f"{address} is not public (PENSTOCK_FETCH_ALLOW)")
        return addresses[0]


def is_forbidden(address: str) -> bool:
    """Whether an address is private, local, multicast, or stands for another one."""
    try:
        parsed: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return any(parsed in network for network in _FORBIDDEN if network.version == parsed.version)


@contextmanager
def _problems_told() -> Iterator[None]:
    """Whatever goes wrong on the way to a page, as a FetchError."""
    try:
        yield
    except TimeoutError:
        raise Unreachable("too slow") from None
    except (httpx.TransportError, OSError) as error:
        raise Unreachable(_reason(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FetchError(_reason(error)) from error


def _fetched(target: _Target, answer: _Answer, conditional: Mapping[str, str]) -> Fetched:
    if answer.status == httpx.codes.NOT_MODIFIED and conditional:
        return Fetched(target.written, b"", "", None, None, not_modified=True)
    if answer.status >= 500 or answer.status == httpx.codes.TOO_MANY_REQUESTS:
        raise Unreachable(f"HTTP {answer.status}")
    if answer.status != httpx.codes.OK:
        raise FetchError(f"HTTP {answer.status}")
    if answer.cut:
        raise FetchError(f"larger than {BYTES_MAX // 1_000_000} MB")
    return Fetched(
        target.written,
        answer.body,
        _plain(answer.headers.get("content-type")) or "",
        _plain(answer.headers.get("etag")),
        _plain(answer.headers.get("last-modified")),
    )


async def _bounded_body(response: httpx.Response, bytes_max: int) -> tuple[bytes, bool]:
    """The body, never holding more than the bound, compressed or not; and whether it was cut."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise FetchError(f"the encoding {encoding[:40]!r} is not read")
    inflate = None
    if encoding in ("gzip", "x-gzip", "deflate"):
        # 32: gzip or zlib, told from the header.
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    body, received = bytearray(), 0
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for chunk in response.aiter_raw():
            received += len(chunk)
            try:
                room = bytes_max + 1 - len(body)
                body += chunk if inflate is None else inflate.decompress(chunk, room)
            except zlib.error:
                raise FetchError("its compression is broken") from None
            if received > bytes_max or len(body) > bytes_max:
                return bytes(body), True
    if inflate is not None and (not inflate.eof or inflate.unused_data):
        raise FetchError("its compression is cut short or has more than one part")
    return bytes(body), False


def _plain(value: str | None) -> str | None:
    """A header's value that can be stored, shown and sent back as it came; others are as none."""
    plain = value and value.isascii() and value.isprintable() and len(value) <= VALIDATOR_MAX
    return value if plain else None


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "too slow"
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
