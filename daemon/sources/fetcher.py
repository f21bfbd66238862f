"""
The guarded fetcher: what strangers name, read without letting them choose where we connect.

A name is resolved once, every address is checked against an explicit table, and the connection
goes to an address that was checked; each redirect starts over. Bytes and time are bounded, before
and after decompression. The operator can allow private `host:port` pairs by name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import httpx

from daemon import __version__
from daemon.sources.policy import FetchPolicy

BYTES_MAX = 5_000_000
BODY_TIMEOUT_S = 30.0
REDIRECTS_MAX = 5
USER_AGENT = f"Penstock/{__version__} (autonomous publication; reads feeds and what they link to)"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# ipaddress.is_global calls NAT64, 6to4, multicast and others global (measured on CPython 3.11),
# so the table is spelled out: IANA's special-purpose registries, and what embeds IPv4.
_FORBIDDEN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23",
        "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
        "fec0::/10", "ff00::/8",
    )
)  # fmt: skip


class FetchError(Exception):
    """The page cannot be had; the message says why, in a line."""


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


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, from the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """
    Args:
        transport: how bytes travel; None for real sockets.
        resolve: names to addresses.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        transport: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        # No proxies from the environment: a proxy would resolve names again, behind our back.
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=policy.timeout_s,
            # A connection is pooled by the address we pinned, so one that was verified for a host
            # would serve another on the same address; and a cookie would follow it.
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )

    async def get(
        self, url: str, *, etag: str | None = None, last_modified: str | None = None
    ) -> Fetched:
        """
        Fetch one page, conditionally where validators are given.

        Raises:
            FetchError: refused, unreachable, too large, too slow, or not a 200.
        """
        headers = {"if-none-match": etag, "if-modified-since": last_modified}
        conditional = {name: value for name, value in headers.items() if value}
        for _ in range(REDIRECTS_MAX + 1):
            try:
                async with asyncio.timeout(self._policy.timeout_s + BODY_TIMEOUT_S):
                    answer = await self._get_once(url, conditional)
            except TimeoutError:
                raise FetchError("too slow") from None
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                raise FetchError(_reason(error)) from error
            if isinstance(answer, Fetched):
                return answer
            url = answer
        raise FetchError(f"more than {REDIRECTS_MAX} redirects")

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def _get_once(self, url: str, conditional: Mapping[str, str]) -> Fetched | str:
        """One request; a redirect's target where that is the answer."""
        address, host = await self._checked_address(url)
        target = httpx.URL(url)
        # Connect to the address that was checked; name and certificate stay the host's.
        pinned = target.copy_with(host=address)
        async with self._client.stream(
            "GET",
            pinned,
            headers={"host": target.netloc.decode("ascii"), **conditional},
            extensions={"sni_hostname": host},
        ) as response:
            if response.has_redirect_location:
                return str(urljoin(url, response.headers.get("location", "")))
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return Fetched(url, b"", "", None, None, not_modified=True)
            if response.status_code != httpx.codes.OK:
                raise FetchError(f"HTTP {response.status_code}")
            body = await _bounded_body(response)
            return Fetched(
                url,
                body,
                response.headers.get("content-type", ""),
                _validator(response.headers.get("etag")),
                _validator(response.headers.get("last-modified")),
            )

    async def _checked_address(self, url: str) -> tuple[str, str]:
        """
        An address we may connect to for this URL, and the host's name.

        Raises:
            FetchError: the URL, its port or one of its addresses is not for us.
        """
        try:
            parts = urlsplit(url)
            usual = {"http": 80, "https": 443}[parts.scheme]
            port = parts.port or usual
        except (ValueError, KeyError):
            raise FetchError("not an http or https address") from None
        host = (parts.hostname or "").rstrip(".")
        if not host or parts.username is not None:
            raise FetchError("not an address we read")
        written = f"[{host}]" if ":" in host else host
        allowed = f"{written}:{port}" in self._policy.allow
        if not allowed and port not in (80, 443):
            raise FetchError(f"port {port} is not read (PENSTOCK_FETCH_ALLOW)")
        addresses = await self._resolve(httpx.URL(url).raw_host.decode("ascii").strip("[]"), port)
        if not addresses:
            raise FetchError("the name has no address")
        for address in addresses:
            if not allowed and is_forbidden(address):
                raise FetchError(f"{address} is not public (PENSTOCK_FETCH_ALLOW)")
        return addresses[0], host


def is_forbidden(address: str) -> bool:
    """Whether an address is private, local, multicast, or stands for another one."""
    try:
        parsed: IPAddress = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return any(parsed in network for network in _FORBIDDEN if network.version == parsed.version)


async def _bounded_body(response: httpx.Response) -> bytes:
    """The body, never holding more than the bound, compressed or not."""
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
                room = BYTES_MAX + 1 - len(body)
                body += chunk if inflate is None else inflate.decompress(chunk, room)
            except zlib.error:
                raise FetchError("its compression is broken") from None
            if received > BYTES_MAX or len(body) > BYTES_MAX:
                raise FetchError(f"larger than {BYTES_MAX // 1_000_000} MB")
    if inflate is not None and (not inflate.eof or inflate.unused_data):
        raise FetchError("its compression is cut short or has more than one part")
    return bytes(body)


def _validator(value: str | None) -> str | None:
    """A validator we can send back as it came; others are as good as none."""
    return value if value and value.isascii() and value.isprintable() else None


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "too slow"
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
