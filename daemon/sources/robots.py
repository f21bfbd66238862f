"""
robots.txt: what an origin asks of robots, read as RFC 9309 has it and kept for a while.

The parser is Protego, Scrapy's. It gets only what can matter to us, and no more than it weighs in
an instant: a product of user agents and rules, or rules by the ten thousand, would hold up the
daemon (measured: 3.6 s for 2,000 agents by 500 rules, a 35 kB file; tests/test_robots.py has more).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from daemon.clock import Clock

if TYPE_CHECKING:
    from protego import Protego

# What rules call us; our User-Agent header begins with it.
PRODUCT_TOKEN = "Penstock"  # noqa: S105
# RFC 9309, 2.5: at least this much is read; what lies beyond is as if it were not there.
BYTES_MAX = 500 * 1024
# RFC 9309, 2.4: no longer than a day.
KEPT_S = 24 * 3600.0
# Where it could not be had, it is asked for again before long.
KEPT_UNREACHED_S = 600.0
CRAWL_DELAY_MAX_S = 10.0
# 500 KiB hold 57,000 rules; no honest file comes near.
RULES_MAX = 10_000
# An address of ours has 2,000 characters at most, three times that once quoted.
LINE_MAX = 16_000
# Rules kept in memory in total, some 700 bytes each; an origin without any counts as a hundred.
KEPT_RULES_MAX = 50_000

# Wider than what Protego takes for these fields, misspellings included.
_USER_AGENT = re.compile(r"user(?:-|\s+)?agent(?:\s*:|\s|$)(.*)", re.IGNORECASE)
_RULE = re.compile(r"(?:d[a-z]{6,8}|allow|crawl(?:-|\s+)delay)(?:\s|:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What an origin asks of us.

    Args:
        parsed: the rules; None where everything is allowed, or nothing for a `problem`.
        problem: why nothing may be read for now, in a few words; else empty.
        crawl_delay_s: least time between two requests, at most `CRAWL_DELAY_MAX_S`.
        kept_s: for how long this stands.
        count: of rules, for the bound on memory.
    """

    parsed: Protego | None = None
    problem: str = ""
    crawl_delay_s: float = 0.0
    kept_s: float = KEPT_S
    count: int = 0

    def allow(self, url: str) -> bool:
        """Whether we may read this URL, given as it goes over the wire."""
        if self.parsed is None:
            return not self.problem
        return self.parsed.can_fetch(url, PRODUCT_TOKEN)


class Robots:
    """
    The rules of every origin met, asked for once and kept while they stand.

    Args:
        ask: fetches an origin's rules; what it raises is passed on and nothing kept.
        clock: for monotonic time.
    """

    def __init__(self, ask: Callable[[str], Awaitable[Rules]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._kept: dict[str, tuple[Rules, float]] = {}
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, origin: str) -> Rules:
        """The rules of an origin, such as `https://example.org`."""
        # Whoever comes while it is being asked waits for that answer; if that one gives up, the
        # next asks.
        asking = self._asking.setdefault(origin, asyncio.Lock())
        async with asking:
            rules, until = self._kept.get(origin, (Rules(), -math.inf))
            if self._clock.monotonic() >= until:
                rules = await self._ask(origin)
                self._keep(origin, rules)
            return rules

    def _keep(self, origin: str, rules: Rules) -> None:
        """Remember these, and forget the oldest where it is too much to remember."""
        self._kept.pop(origin, None)
        self._kept[origin] = rules, self._clock.monotonic() + rules.kept_s
        held = sum(100 + kept.count for kept, _ in self._kept.values())
        while held > KEPT_RULES_MAX:
            oldest = next(iter(self._kept))
            held -= 100 + self._kept.pop(oldest)[0].count


def answered(status: int, body: bytes) -> Rules:
    """
    Rules from an answer that was not a redirect.

    Args:
        body: may be cut at `BYTES_MAX`.
    Source: RFC 9309, 2.3.1.
    """
    if status >= 500:
        return unreached(f"HTTP {status}")
    return parse(body) if 200 <= status < 300 else Rules()


def unreached(problem: str) -> Rules:
    """Rules of an origin whose robots.txt could not be had: nothing may be read for now."""
    return Rules(problem=problem, kept_s=KEPT_UNREACHED_S)


def parse(body: bytes) -> Rules:
    """Rules for us from a robots.txt; whatever else it holds is passed over."""
    if len(body) > BYTES_MAX:
        # A line that was cut could allow or forbid what it did not mean to.
        body = body[:BYTES_MAX]
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    lines = list(_relevant(body.decode("utf-8-sig", "replace")))
    if len(lines) > RULES_MAX:
        return Rules(problem=f"more than {RULES_MAX} rules")
    from protego import Protego

    parsed = Protego.parse("\n".join(lines))
    return Rules(
        parsed=parsed,
        crawl_delay_s=_bounded(parsed.crawl_delay(PRODUCT_TOKEN)),
        count=len(lines),
    )


def _relevant(text: str) -> Iterator[str]:
    """
    The lines that can matter, each user agent reduced to its product token.

    Protego compares a whole value: it would not see us in `Penstock/1.0`, and would in `Pen`.
    Every other robot becomes one and the same, so that its groups stay apart and cost nothing.
    """
    for whole in text.splitlines():
        line = whole.partition("#")[0].strip()
        if named := _USER_AGENT.match(line):
            yield f"user-agent: {_token(named[1].strip())}"
        elif len(line) <= LINE_MAX and _RULE.match(line):
            yield line


def _token(value: str) -> str:
    if value == "*" or re.match(r"\*\s", value):
        return "*"
    token = re.match(r"[a-z_-]+", value.replace("*", ""), re.IGNORECASE)
    return PRODUCT_TOKEN if token and token[0].lower() == PRODUCT_TOKEN.lower() else "other"


def _bounded(delay_s: float | None) -> float:
    if delay_s is None or not delay_s > 0:
        return 0.0
    return min(delay_s, CRAWL_DELAY_MAX_S)
