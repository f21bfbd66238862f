"""What may be read, and what counts as news."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """
    Bounds of one fetch.

    Args:
        allow: `host:port` pairs, as written in a URL, that may be private or on another port.
        timeout_s: for one request until its headers.
        gap_s: least time between the beginnings of two requests to one host.
    """

    allow: frozenset[str]
    timeout_s: float
    gap_s: float = 0.5


@dataclass(frozen=True, slots=True)
class FeedPolicy:
    """The feeds, as URLs or paths, and for how many days an entry is news."""

    feeds: tuple[str, ...]
    fresh_days: int
