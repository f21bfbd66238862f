"""A SearXNG instance: formats that are switched on or off, a limiter, engines that fail."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from tests.doubles.wire import Answer, Fault, Request

# What werkzeug sends; a real instance answers so to a format that is not in search.formats.
FORBIDDEN = b"<!doctype html>\n<html lang=en>\n<title>403 Forbidden</title>\n<h1>Forbidden</h1>\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>SearXNG</title></head><body>results</body></html>\n"
DEPTH = 200_000


class Mischief(Enum):
    """How one answer goes wrong."""

    HTML = auto()  # 200 and the search page
    HTML_AS_JSON = auto()  # the page, called JSON
    NOT_JSON = auto()
    EMPTY = auto()
    CUT_JSON = auto()  # whole on the wire, but not to its last bracket
    BINARY = auto()
    WRONG_TOP = auto()  # a list at the top
    WRONG_RESULTS = auto()  # results is an object
    NULL_RESULTS = auto()
    WRONG_RESULT = auto()  # results is a list of texts
    NAN = auto()
    DEEP = auto()
    HUGE = auto()  # a body without an end
    HUGE_NUMBER = auto()  # an integer of more digits than Python reads
    COMPRESSED = auto()
    REDIRECT = auto()
    SERVER_ERROR = auto()
    UNAUTHORIZED = auto()
    BAD_LANGUAGE = auto()
    STALL = auto()
    TRICKLE = auto()
    CUT = auto()
    RESET = auto()
    DROP = auto()


@dataclass(slots=True)
class SearchDouble:
    """
    An instance that remembers what it was asked.

    Args:
        results: given to every question, as SearXNG writes them.
        formats: search.formats of its settings.yml.
        unresponsive: engines behind it that failed, and why.
        limit: the limiter lets so many questions through, then answers 429; None for no limiter.
        path: where it is served; other paths are 404.
    """

    results: list[Any] = field(default_factory=list)
    formats: frozenset[str] = frozenset({"html", "json"})
    unresponsive: list[list[str]] = field(default_factory=list)
    limit: int | None = None
    path: str = "/search"
    asked: list[Mapping[str, str]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _mischief: deque[Mischief] = field(default_factory=deque)

    def misbehave(self, *mischief: Mischief) -> None:
        """Spoil the next answers in this order; after them it is well again."""
        self._mischief.extend(mischief)

    async def handle(self, request: Request) -> Answer:
        """Answer one question, or go wrong as arranged."""
        self.headers.append(request.headers)
        if request.method != "GET" or request.path != self.path:
            return Answer(404, {"content-type": "text/html"}, PAGE)
        if self.limit is not None and len(self.asked) >= self.limit:
            return Answer(429, {"content-type": "text/plain"}, b"Too Many Requests")
        self.asked.append(request.query)
        wanted = request.query.get("format", "html")
        if wanted not in self.formats:
            return Answer(403, {"content-type": "text/html; charset=utf-8"}, FORBIDDEN)
        if self._mischief:
            return _spoiled(self._mischief.popleft(), self._answer(request))
        if wanted == "html":
            return Answer(200, {"content-type": "text/html; charset=utf-8"}, PAGE)
        return self._answer(request)

    def _answer(self, request: Request) -> Answer:
        # Escaped to ASCII, so that half a surrogate pair travels as other programs let it travel.
        return _of(
            {
                "query": request.query.get("q", ""),
                "number_of_results": 0,
                "results": self.results,
                "answers": [],
                "corrections": [],
                "infoboxes": [],
                "suggestions": [],
                "unresponsive_engines": self.unresponsive,
            }
        )


def result(url: object, title: object = "A page", content: object = "What it says.") -> Any:
    """One result with the fields that matter and some that do not."""
    return {"url": url, "title": title, "content": content, "engine": "brave", "score": 1.0}


def results(urls: Iterable[str]) -> list[Any]:
    """Results at these addresses."""
    return [result(url) for url in urls]


def _spoiled(mischief: Mischief, well: Answer) -> Answer:
    if mischief.name in Fault.__members__:
        return Answer(200, well.headers, well.body, Fault[mischief.name])
    return _ANSWERS[mischief]


def _of(body: bytes | object, status: int = 200, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, raw)


_ANSWERS = {
    Mischief.HTML: _of(PAGE, content_type="text/html; charset=utf-8"),
    Mischief.HTML_AS_JSON: _of(PAGE),
    Mischief.NOT_JSON: _of(b"rate limit exceeded"),
    Mischief.EMPTY: _of(b""),
    Mischief.CUT_JSON: _of(b'{"results": [{"url": "https://one.example/", "ti'),
    Mischief.BINARY: _of(b"\xff\xfe\x00\x01"),
    Mischief.WRONG_TOP: _of([1, 2]),
    Mischief.WRONG_RESULTS: _of({"results": {"url": "https://one.example/"}}),
    Mischief.NULL_RESULTS: _of({"results": None}),
    Mischief.WRONG_RESULT: _of({"results": ["https://one.example/", 7, None]}),
    Mischief.NAN: _of(b'{"results": [], "number_of_results": NaN}'),
    Mischief.DEEP: _of(b'{"results": ' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    Mischief.HUGE: Answer(200, {"content-type": "application/json"}, b" ", endless=True),
    Mischief.HUGE_NUMBER: _of(b'{"results": [], "score": ' + b"9" * 5000 + b"}"),
    Mischief.COMPRESSED: _of(b"\x1f\x8b\x08\x00", content_encoding="gzip"),
    Mischief.REDIRECT: _of(b"", 302, location="http://169.254.169.254/"),
    Mischief.SERVER_ERROR: _of(b"oops", 500),
    Mischief.UNAUTHORIZED: _of(b"", 401),
    Mischief.BAD_LANGUAGE: _of(b"Invalid value for parameter language", 400),
}
