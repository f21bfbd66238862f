"""
Search: a client of one SearXNG-compatible endpoint, which the operator runs or names.

The URL is the operator's own, so it may be private or plain http on loopback, where the guarded
fetcher would refuse to go; what comes back was written by strangers and is bounded and cleaned.
The addresses found are only ever read through the guarded fetcher.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urldefrag, urlsplit

import httpx

from daemon import tls
from daemon.sources import text
from daemon.sources.fetcher import USER_AGENT
from daemon.sources.parse import URL_MAX

BYTES_MAX = 1_000_000
# One page of SearXNG; asking for another page is another question to every engine behind it.
RESULTS_MAX = 20
# A question in full; engines take more words than that for noise, or cut them themselves.
QUERY_CHARS_MAX = 200
ENGINES_NAMED_MAX = 3

# At the head of a word these are SearXNG's own syntax: !engine, !!redirect, :language, <timeout.
# https://docs.searxng.org/user/search-syntax.html
_COMMANDS = "!:<"
# SearXNG answers 400 to a language with a script or variant in it (webadapter.py, parse_lang).
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:-(?:[a-z]{4}-)?([a-z]{2}))?(?:-.*)?", re.IGNORECASE)

_ENABLE_JSON = "enable `json` in search.formats of its settings.yml"
_LET_IN = "list this machine under botdetection.ip_lists.pass_ip of its limiter.toml"
_REMEDIES = {
    400: "look at PENSTOCK_LANGUAGE, which it is given",
    401: "it asks for a login, which the daemon does not have",
    403: _ENABLE_JSON,
    404: "look at PENSTOCK_SEARCH_URL",
    429: f"ask less often, or {_LET_IN}",
}


class SearchError(Exception):
    """Nothing was found out; the message says why, in a line, and the remedy where we know it."""


class Search:
    """
    Args:
        url: the endpoint's root, or its `/search`.
        language: a BCP 47 tag; the endpoint gets its language and region.
        timeout_s: for a whole answer, from the first connection to the last byte.
        transport: how bytes travel; None for real sockets.
    """

    def __init__(
        self,
        url: str,
        *,
        language: str = "en",
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = _endpoint(url)
        self._language = _searxng_language(language)
        self._timeout_s = timeout_s
        self._client = tls.client(
            transport,
            {
                "user-agent": USER_AGENT,
                "accept": "application/json",
                "accept-encoding": "identity",
            },
            timeout=timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def find(self, query: str, limit: int) -> list[str]:
        """
        Ask once.

        Args:
            query: plain words; SearXNG's own syntax in it loses its meaning, and what is longer
                than QUERY_CHARS_MAX is cut at a word.
            limit: at most so many addresses, and never more than RESULTS_MAX.
        Returns:
            Addresses in the endpoint's order, each once, http or https and without a fragment;
            nobody has checked where they lead. None for a query without words.
        Raises:
            SearchError: unreachable, refused, too slow, too large, or not what SearXNG sends.
        """
        asked = plain_query(query)
        if not asked or limit < 1:
            return []
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._ask(asked)
        except (TimeoutError, httpx.TimeoutException):
            self._fail(f"gave no whole answer in {self._timeout_s:g} s", "look whether it is well")
        except (httpx.HTTPError, OSError) as error:
            said = text.one_line(str(error), 200) or type(error).__name__
            self._fail(f"cannot be reached ({said})", "look at PENSTOCK_SEARCH_URL", error)
        answer = self._read(body)
        found = list(dict.fromkeys(_addresses(answer["results"])))
        silent = _silent_engines(answer)
        if not found and silent:
            self._fail(f"found nothing, and engines behind it did not answer: {silent}")
        return found[: min(limit, RESULTS_MAX)]

    async def close(self) -> None:
        """Close the client; nothing is kept open between questions."""
        await self._client.aclose()

    async def _ask(self, query: str) -> bytes:
        """The body of a 200, bounded."""
        url = self._url.copy_merge_params(
            {"q": query, "format": "json", "language": self._language, "safesearch": "1"}
        )
        async with self._client.stream("GET", url) as response:
            status = response.status_code
            if response.has_redirect_location:
                self._fail("answers with a redirect", "put its final URL in PENSTOCK_SEARCH_URL")
            if status != httpx.codes.OK:
                self._fail(f"answers HTTP {status}", _REMEDIES.get(status, ""))
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                # Unpacking is where a small answer becomes a large one.
                self._fail("compresses its answer though asked not to", "turn that off")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > BYTES_MAX:
                    self._fail(f"sends more than {BYTES_MAX // 1_000_000} MB")
            if "html" in response.headers.get("content-type", "") or body[:1] == b"<":
                self._fail("answers with a web page instead of JSON", _ENABLE_JSON)
            return bytes(body)

    def _read(self, body: bytes) -> dict[str, Any]:
        """The answer as SearXNG builds it, with a list of results."""
        try:
            answer = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            # The parser's own message quotes what strangers wrote; its position helps nobody.
            self._fail("answers with something that is not JSON", _ENABLE_JSON)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or (
            results and not any(isinstance(result, dict) for result in results)
        ):
            self._fail("answers with JSON that has no list of results", "is it SearXNG?")
        assert isinstance(answer, dict)
        return answer

    def _fail(self, what: str, remedy: str = "", cause: BaseException | None = None) -> NoReturn:
        # Without path and login: the message goes into logs and reports.
        port = f":{self._url.port}" if self._url.port else ""
        where = f"{self._url.scheme}://{self._url.host}{port}"
        raise SearchError(
            f"search at {where} {what}" + (f"; {remedy}" if remedy else "")
        ) from cause


def plain_query(query: str) -> str:
    """Words that a search endpoint takes for words, on one line and not too long."""
    shown = " ".join(text.clean(query).split())
    plain = [word.lstrip(_COMMANDS) for word in shown.split(" ")]
    joined = " ".join(word for word in plain if word)
    return joined if len(joined) <= QUERY_CHARS_MAX else _cut(joined)


def _cut(words: str) -> str:
    return words[: QUERY_CHARS_MAX + 1].rpartition(" ")[0] or words[:QUERY_CHARS_MAX]


def _endpoint(url: str) -> httpx.URL:
    given = httpx.URL(url)
    path = given.path.rstrip("/")
    return given.copy_with(path=path if path.endswith("/search") else f"{path}/search")


def _searxng_language(tag: str) -> str:
    """A BCP 47 tag as SearXNG knows it: a language, and a region of two letters if there is one."""
    match = _LANGUAGE.fullmatch(tag)
    if match is None:
        return "all"
    language, region = match[1].lower(), match[2]
    return f"{language}-{region.upper()}" if region else language


def _addresses(results: list[Any]) -> Iterator[str]:
    """What can be used; one odd result does not spoil the others."""
    for result in results:
        if isinstance(result, dict) and (url := _address(result.get("url"))):
            yield url


def _address(value: object) -> str | None:
    """A web address we could read, without its fragment; None for anything else."""
    if not isinstance(value, str) or len(value) > URL_MAX:
        return None
    try:
        url = urldefrag(text.clean(value)).url
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        # A login in an address, or a space, is somebody's trick or mistake.
        usable = usable and parts.username is None and not any(c.isspace() for c in url)
        return url if usable and parts.port != 0 else None
    except ValueError:
        return None


def _silent_engines(answer: dict[str, Any]) -> str:
    """The engines that failed and why, such as `brave (too many requests)`; "" for none."""
    silent = answer.get("unresponsive_engines")
    named = [
        f"{text.one_line(pair[0], 40)} ({text.one_line(pair[1], 60)})"
        for pair in (silent if isinstance(silent, list) else ())
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
    ]
    more = f" and {len(named) - ENGINES_NAMED_MAX} more" if len(named) > ENGINES_NAMED_MAX else ""
    return ", ".join(named[:ENGINES_NAMED_MAX]) + more


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
