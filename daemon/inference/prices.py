"""
What a token costs: the operator's own prices over the list prices of genai-prices.

Prices are integers of a micro-credit per million tokens, so that a cost is one multiplication
and one division, rounded up once. A model without a price is refused, never assumed free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from daemon.inference.ladder import Rung, parse_rung
from ledger.money import MicroCredits, divide_up

TOKENS_PER_PRICE = 1_000_000
PROMPT_TOKENS_MAX = 100_000
# The source of what the operator says.
OWN = "PENSTOCK_PRICES"
_NOT_BY_TOKENS_ALONE = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")


class UnknownPrice(Exception):
    """No price on file for a model; we would rather stop than guess."""

    def __init__(self, rung: Rung) -> None:
        super().__init__(
            f"no price is known for {rung}; set PENSTOCK_PRICES={rung}=INPUT,CACHED,OUTPUT"
            " (credits per million tokens)"
        )
        self.rung = rung


@dataclass(frozen=True, slots=True)
class Price:
    """
    Micro-credits per million tokens, and where the figures come from.

    Args:
        cached: for input read from a cache.
        cache_write: for input written to a cache; None where that costs what plain input does.
    """

    input: int
    cached: int
    output: int
    source: str
    cache_write: int | None = None

    def cost(self, usage: Usage) -> MicroCredits:
        """Price one reply, each token once, rounded up to the next whole micro-credit."""
        fresh = usage.input - usage.cached - usage.cache_write
        total = (
            fresh * self.input
            + usage.cached * self.cached
            + usage.cache_write * self._written
            + usage.output * self.output
        )
        return MicroCredits(divide_up(total, TOKENS_PER_PRICE))

    def worst_case(self, *, input_max: int, output_max: int) -> MicroCredits:
        """The most a reply within these token bounds can cost."""
        # Whether a provider caches what we send is its own choice.
        dearest = max(self.input, self.cached, self._written)
        total = input_max * dearest + output_max * self.output
        return MicroCredits(divide_up(total, TOKENS_PER_PRICE))

    @property
    def _written(self) -> int:
        return self.input if self.cache_write is None else self.cache_write


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens billed for one reply; `usage.read_usage` brings every provider's counts to this form.

    Args:
        input: all tokens of the prompt, `cached` and `cache_write` included.
        cached: the part of `input` that was read from a cache.
        output: all tokens of the answer, `reasoning` included.
        cache_write: another part of `input`, which was written to a cache.
        reasoning: the part of `output` nobody sees; it costs what the rest does.
    """

    input: int
    cached: int
    output: int
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class PriceBook:
    """
    Looks a price up: the operator's line, then `provider/*`, then the public list.

    Args:
        own: prices by `provider/model`, from PENSTOCK_PRICES.
        urls: the base URL of each provider, by which the public list knows it.
    """

    own: Mapping[str, Price]
    urls: Mapping[str, str]

    def price(self, rung: Rung, at: datetime) -> Price:
        """
        The price in force at a moment; some providers charge less at night.

        Raises:
            UnknownPrice: neither the operator nor the public list has one.
        """
        for key in (str(rung), f"{rung.provider}/*"):
            if key in self.own:
                return self.own[key]
        listed = _list_price(rung, self.urls.get(rung.provider, ""), at)
        if listed is None:
            raise UnknownPrice(rung)
        return listed


def parse_prices(text: str) -> dict[str, Price]:
    """
    Read `provider/model=input,cached,output;…` in credits per million tokens.

    Raises:
        ValueError: says which item is wrong.
    """
    prices: dict[str, Price] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, numbers = item.rpartition("=")
        figures = [figure.strip() for figure in numbers.split(",")]
        if not name or len(figures) != 3:
            raise ValueError(f"{item!r} is not provider/model=input,cached,output")
        # A credit per million tokens has a million micro-credits: the same scale as an amount.
        fresh, cached, output = (MicroCredits.parse(figure).micro for figure in figures)
        if min(fresh, cached, output) < 0:
            raise ValueError(f"{item!r} has a negative price")
        prices[str(parse_rung(name))] = Price(fresh, cached, output, source=OWN)
    return prices


def _list_price(rung: Rung, url: str, at: datetime) -> Price | None:
    # 0.2 s, and only models without a price of the operator's own need it.
    from genai_prices.data_snapshot import get_snapshot

    try:
        provider, info = get_snapshot().find_provider_model(rung.model, None, None, url)
    except LookupError:
        return None
    return _own_terms(info.get_prices(at), f"genai-prices:{provider.id}/{info.id}")


def _own_terms(listed: Any, source: str) -> Price | None:
    """A listed price as one of ours; None where tokens alone do not tell the cost."""
    if any(getattr(listed, name, None) for name in _NOT_BY_TOKENS_ALONE):
        # A hold from token prices would be too small; the operator's own price can allow for it.
        return None
    fresh, cached, output, written = (
        _micro(getattr(listed, name, None))
        for name in ("input_mtok", "cache_read_mtok", "output_mtok", "cache_write_mtok")
    )
    if fresh is None or output is None:
        return None
    return Price(fresh, fresh if cached is None else cached, output, source, written)


def _micro(listed: Any) -> int | None:
    """Micro-credits per million tokens of a listed price, which may come in tiers."""
    if listed is None:
        return None
    candidates = [listed]
    if hasattr(listed, "tiers"):
        # Our prompts stay far below the sizes where long-context tiers begin.
        reached = [tier.price for tier in listed.tiers if tier.start < PROMPT_TOKENS_MAX]
        candidates = [listed.base, *reached]
    dearest = max(Decimal(candidate) for candidate in candidates)
    return int((dearest * TOKENS_PER_PRICE).to_integral_value(ROUND_CEILING))
