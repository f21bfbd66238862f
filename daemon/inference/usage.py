"""
What an answer's `usage` says: the tokens it is billed for, and the cost where it names one.

Providers agree on names more than on meanings. Each shape below has a golden test; the sources
were read in 2026-11. `total_tokens` decides where the fields leave it open, a doubt it leaves is
read the dearer way, and a count that is no count makes the whole unreadable, which is unknown
and never free.

- OpenAI, OpenRouter, llama.cpp, Gemini: cached and written tokens are inside the prompt,
  reasoning is inside the completion (openai-python types/completion_usage.py; OpenRouter's
  usage-accounting page). Gemini leaves thoughts out of the completion, and the total has them.
- DeepSeek: `prompt_cache_hit_tokens` and `prompt_cache_miss_tokens` make up the prompt, at times
  with OpenAI's names beside them.
- xAI: reasoning is beside the completion and inside the total; `cost_in_usd_ticks` is the charge,
  10^10 ticks a dollar (docs.x.ai/developers/cost-tracking).
- Anthropic's own names: `input_tokens` leaves the cache out, as genai-prices reads it, too.
- LiteLLM: everything inside the prompt, Anthropic's cache names repeated beside it
  (llms/anthropic/chat/transformation.py, calculate_usage). Some versions (005e5efa) left written
  tokens out of the prompt; that shows only where the prompt has no room for them.
- Portkey and others: the prompt without cache, which only the total has
  (src/providers/anthropic/chatComplete.ts).
- New-API: the prompt with cache where `usage_semantic` is "openai", without it in Anthropic's
  meaning; before it had that field, written tokens under its own names mean the latter
  (relay/channel/claude/relay-claude.go, buildOpenAIStyleUsageFromClaudeUsage). Its oldest
  versions, with fewer cached tokens than the prompt and no other sign, cannot be told from OpenAI.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

from daemon.inference.prices import Usage
from ledger.money import MICRO_MAX, MICRO_PER_CREDIT, MicroCredits

# Ten times the longest context there is; a larger count is a fault, and booking it would be one.
TOKENS_MAX = 100_000_000
TICKS_PER_CREDIT = 10**10

_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_ANTHROPIC_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens")
_NEW_API_WRITTEN = "cached_creation_tokens"
_NEW_API_WRITTEN_BY_AGE = ("claude_cache_creation_5_m_tokens", "claude_cache_creation_1_h_tokens")
# Never rounds down, and has no exponent that could stop us.
_UPWARD = Context(prec=40, rounding=ROUND_CEILING, traps=[])


class _NoCount(Exception):
    """Something stands where a count belongs."""


def read_usage(found: Any) -> Usage | None:
    """
    The tokens billed for an answer, each counted once; None where that cannot be read.

    Args:
        found: whatever JSON stood under `usage`.
    """
    try:
        return _read(fields(found))
    except _NoCount:
        return None


def reported_cost(found: Any) -> MicroCredits | None:
    """
    What the provider says it charged, rounded up; zero is a charge, too.

    OpenRouter's `usage.cost` is what its account is charged. With a key of the operator's own
    (`is_byok`) that is only its fee, and the model's owner charges
    `cost_details.upstream_inference_cost` to that key; both are the bill. Without the mark the
    field repeats the cost, so it is added only where it is more. A number in a string is none.

    A gateway's cost header (LiteLLM's) is not read: it is an estimate, at times of zero.

    Args:
        found: whatever JSON stood under `usage`.
    """
    usage = fields(found)
    cost = amount(usage.get("cost"))
    if cost is None:
        ticks = amount(usage.get("cost_in_usd_ticks"))
        return None if ticks is None else micro(ticks, TICKS_PER_CREDIT)
    upstream = amount(fields(usage.get("cost_details")).get("upstream_inference_cost"))
    if usage.get("is_byok") is True:
        # A fee alone is not the bill; our own price is nearer to it.
        return None if upstream is None else micro(_UPWARD.add(cost, upstream))
    if usage.get("is_byok") is not False and upstream is not None and upstream > cost:
        return micro(_UPWARD.add(cost, upstream))
    return micro(cost)


def read_json(content: bytes) -> Any:
    """A provider's document with its numbers as they were written; None where it is none."""
    try:
        # Control characters stand raw in some servers' strings. Apart from what is no JSON, numbers
        # with absurd exponents and brackets without end would raise errors of their own.
        text = content.decode("utf-8-sig", "replace")
        return json.loads(text, parse_float=Decimal, strict=False)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def amount(value: Any) -> Decimal | None:
    """A JSON number as it was written; None for anything else, a negative or endless one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() and number >= 0 else None


def micro(units: Decimal, units_per_credit: Decimal | int = 1) -> MicroCredits | None:
    """An amount of credits, rounded up to the next millionth; None beyond what can be kept."""
    whole = _UPWARD.divide(units, units_per_credit)
    if whole > MICRO_MAX // MICRO_PER_CREDIT:
        return None
    exact = _UPWARD.multiply(whole, MICRO_PER_CREDIT)
    return MicroCredits(int(exact.to_integral_value(ROUND_CEILING)))


def _read(usage: Mapping[str, Any]) -> Usage | None:
    prompt, completion = _most(usage, _PROMPT), _most(usage, _COMPLETION)
    total = _count(usage, "total_tokens")
    if prompt is None or (completion is None and (total is None or total < prompt)):
        return None
    cached, written, reasoning = _cached(usage), _written(usage), _reasoning(usage)
    output = completion or 0
    beside = cached + written
    if beside and _is_beside(usage, beside, excess=(total or 0) - prompt - output):
        prompt += beside
    # Whatever the total has above the prompt was written by the model.
    output = max(output, (total or 0) - prompt)
    if reasoning > output:
        output += reasoning
    cached = min(cached, prompt)
    return Usage(
        input=prompt,
        cached=cached,
        output=output,
        cache_write=min(written, prompt - cached),
        reasoning=reasoning,
    )


def _is_beside(usage: Mapping[str, Any], cache: int, *, excess: int) -> bool:
    """
    Whether the prompt's count leaves out what was read from or written to a cache.

    Args:
        cache: read and written tokens.
        excess: what the total has above prompt and completion.
    """
    if (meaning := usage.get("usage_semantic")) in ("openai", "anthropic"):
        return bool(meaning == "anthropic")
    if _new_api_written(usage) or cache > (_most(usage, _PROMPT) or 0):
        return True
    if not usage.get("prompt_tokens") and any(name in usage for name in _ANTHROPIC_CACHE):
        return True
    # Equal to both, it is taken for reasoning: output is dearer.
    reasoning = _reasoning(usage)
    return excess != reasoning and excess in (cache, cache + reasoning)


def _cached(usage: Mapping[str, Any]) -> int:
    places = [*_details(usage, _PROMPT_DETAILS), usage]
    return _first(_count(place, name) for place in places for name in _CACHED)


def _written(usage: Mapping[str, Any]) -> int:
    places = [*_details(usage, _PROMPT_DETAILS), usage]
    told = _first(_count(place, name) for place in places for name in _WRITTEN)
    return told or _new_api_written(usage)


def _new_api_written(usage: Mapping[str, Any]) -> int:
    """Tokens written to a cache, by the names that only New-API has."""
    whole = _first(_count(place, _NEW_API_WRITTEN) for place in _details(usage, _PROMPT_DETAILS))
    parts = sum(_count(usage, name) or 0 for name in _NEW_API_WRITTEN_BY_AGE)
    return max(whole, parts)


def _reasoning(usage: Mapping[str, Any]) -> int:
    places = [*_details(usage, _COMPLETION_DETAILS), usage]
    return _first(_count(place, "reasoning_tokens") for place in places)


def _details(usage: Mapping[str, Any], names: tuple[str, ...]) -> list[Mapping[str, Any]]:
    return [fields(usage.get(name)) for name in names]


def _first(counts: Iterable[int | None]) -> int:
    """The first count that is not zero: gateways fill fields they do not know with zeros."""
    # A list, so that every one of them is looked at: none may be garbage.
    return next(filter(None, list(counts)), 0)


def _most(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    counts = [count for name in names if (count := _count(usage, name)) is not None]
    return max(counts, default=None)


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    """
    A count of tokens; None where the field is missing or null.

    Raises:
        _NoCount: it is neither a whole number nor absent.
    """
    value = fields.get(name)
    if value is None:
        return None
    number = amount(value)
    # Some gateways write 12.0 for 12.
    if number is None or number > TOKENS_MAX or number != int(number):
        raise _NoCount
    return int(number)


def fields(value: Any) -> Mapping[str, Any]:
    """A JSON object's fields; anything else has none."""
    return value if isinstance(value, dict) else {}
