"""Every provider's way to count comes to the same tokens, each counted once."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from daemon.inference.ladder import Rung
from daemon.inference.prices import Price, PriceBook, Usage
from daemon.inference.usage import TOKENS_MAX, read_json, read_usage, reported_cost
from ledger.money import MICRO_MAX, MicroCredits

NOW = datetime(2026, 3, 1, tzinfo=UTC)

URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}

# Answers as they came, or as the sources named in daemon/inference/usage.py say they come.
GOLDEN: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 192,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(2006, 1920, 300, reasoning=192),
    ),
    "OpenAI, where writing to the cache is charged": (
        {
            "prompt_tokens": 3000,
            "completion_tokens": 40,
            "total_tokens": 3040,
            "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 1500},
        },
        Usage(3000, 1024, 40, cache_write=1500),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_cache_hit_tokens": 640,
            "prompt_cache_miss_tokens": 360,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(1000, 640, 50, reasoning=20),
    ),
    "DeepSeek, told both ways": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 640},
            "prompt_cache_hit_tokens": 640,
            "prompt_cache_miss_tokens": 360,
        },
        Usage(1000, 640, 50),
    ),
    "DeepSeek through a gateway that fills what it does not know with zeros": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "prompt_cache_hit_tokens": 640,
            "input_tokens": 0,
            "output_tokens": 0,
            "input_tokens_details": None,
        },
        Usage(1000, 640, 50),
    ),
    # From a LiteLLM 1.106.2 proxy before an Anthropic endpoint that said 40 fresh, 2000 read, 300
    # written and 25 out.
    "Anthropic behind LiteLLM": (
        {
            "completion_tokens": 25,
            "prompt_tokens": 2340,
            "total_tokens": 2365,
            "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 25},
            "prompt_tokens_details": {
                "cache_write_tokens": 300,
                "cached_tokens": 2000,
                "text_tokens": 40,
                "cache_creation_tokens": 300,
                "cache_creation_token_details": {
                    "ephemeral_5m_input_tokens": 300,
                    "ephemeral_1h_input_tokens": 0,
                },
            },
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 2000,
        },
        Usage(2340, 2000, 25, cache_write=300),
    ),
    "Anthropic's cache names beside a prompt that has the cache in it": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 200,
        },
        Usage(1000, 300, 50, cache_write=200),
    ),
    "Anthropic behind Portkey": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1550,
            "prompt_tokens_details": {"cached_tokens": 300},
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 200,
        },
        Usage(1500, 300, 50, cache_write=200),
    ),
    "Anthropic behind a gateway whose prompt has no room for its cache": (
        {
            "prompt_tokens": 12,
            "completion_tokens": 50,
            "total_tokens": 62,
            "prompt_tokens_details": {"cached_tokens": 5000},
        },
        Usage(5012, 5000, 50),
    ),
    "Anthropic behind New-API": (
        {
            "prompt_tokens": 180,
            "completion_tokens": 20,
            "total_tokens": 200,
            "usage_semantic": "openai",
            "usage_source": "anthropic",
            "prompt_tokens_details": {
                "cached_tokens": 30,
                "cached_creation_tokens": 50,
                "text_tokens": 0,
                "audio_tokens": 0,
                "image_tokens": 0,
            },
            "completion_tokens_details": {"text_tokens": 0, "reasoning_tokens": 0},
            "input_tokens": 180,
            "output_tokens": 0,
            "input_tokens_details": None,
            "claude_cache_creation_5_m_tokens": 50,
            "claude_cache_creation_1_h_tokens": 0,
        },
        Usage(180, 30, 20, cache_write=50),
    ),
    "Anthropic behind New-API, in Anthropic's meaning": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "usage_semantic": "anthropic",
            "prompt_tokens_details": {"cached_tokens": 30},
            "input_tokens": 0,
            "output_tokens": 0,
        },
        Usage(130, 30, 20),
    ),
    "Anthropic behind New-API before it said which meaning": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 30, "cached_creation_tokens": 50},
            "input_tokens": 0,
            "output_tokens": 0,
            "claude_cache_creation_5_m_tokens": 10,
            "claude_cache_creation_1_h_tokens": 20,
        },
        Usage(180, 30, 20, cache_write=50),
    ),
    "Anthropic behind New-API, told by age alone": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 30},
            "claude_cache_creation_5_m_tokens": 10,
            "claude_cache_creation_1_h_tokens": 20,
        },
        Usage(160, 30, 20, cache_write=30),
    ),
    "Anthropic, passed through": (
        {
            "input_tokens": 40,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 2000,
            "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 25,
            "service_tier": "standard",
        },
        Usage(2340, 2000, 25, cache_write=300),
    ),
    "OpenAI's newer names": (
        {
            "input_tokens": 125,
            "output_tokens": 48,
            "total_tokens": 173,
            "input_tokens_details": {"cached_tokens": 98},
            "output_tokens_details": {"reasoning_tokens": 9},
        },
        Usage(125, 98, 48, reasoning=9),
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.95,
            "is_byok": False,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 100,
                "audio_tokens": 0,
            },
            "cost_details": {"upstream_inference_cost": None},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(194, 0, 2, cache_write=100),
    ),
    # Wei-Shaw/sub2api issue 5771, with the provider's own charge.
    "xAI": (
        {
            "prompt_tokens": 10120,
            "completion_tokens": 1499,
            "total_tokens": 14428,
            "prompt_tokens_details": {"cached_tokens": 128},
            "completion_tokens_details": {"reasoning_tokens": 2809},
            "cost_in_usd_ticks": 232856000,
        },
        Usage(10120, 128, 4308, reasoning=2809),
    ),
    "Gemini": (
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        Usage(20, 0, 603),
    ),
    "Gemini, which only thought": (
        {"prompt_tokens": 21, "total_tokens": 81},
        Usage(21, 0, 60),
    ),
    "Gemini behind a gateway that tells its thoughts": (
        {
            "prompt_tokens": 21,
            "completion_tokens": 0,
            "total_tokens": 81,
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
        Usage(21, 0, 60, reasoning=60),
    ),
    "Ollama": (
        {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324},
        Usage(26, 0, 298),
    ),
    "llama.cpp": (
        {
            "completion_tokens": 8,
            "prompt_tokens": 35,
            "total_tokens": 43,
            "prompt_tokens_details": {"cached_tokens": 34},
        },
        Usage(35, 34, 8),
    ),
    "no total": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": None},
        Usage(10, 0, 5),
    ),
    "whole numbers written as fractions": (
        {"prompt_tokens": 12.0, "completion_tokens": Decimal("5.00"), "total_tokens": 17.0},
        Usage(12, 0, 5),
    ),
    "details that are none": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []},
        Usage(10, 0, 5),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_answer_comes_to_its_tokens(name: str) -> None:
    told, usage = GOLDEN[name]
    assert read_usage(told) == usage
    assert read_usage(read_json(json.dumps(told, default=float).encode())) == usage


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("OpenAI", "openai", "gpt-5"),
        ("OpenAI, where writing to the cache is charged", "openai", "gpt-5.6-sol"),
        ("DeepSeek", "deepseek", "deepseek-chat"),
        ("DeepSeek, told both ways", "deepseek", "deepseek-reasoner"),
        ("Anthropic behind LiteLLM", "anthropic", "claude-sonnet-4-5"),
        ("Anthropic behind Portkey", "anthropic", "claude-sonnet-4-5"),
        ("Anthropic behind New-API", "anthropic", "claude-haiku-4-5"),
        ("Anthropic, passed through", "anthropic", "claude-opus-4-1"),
        ("OpenRouter", "openrouter", "anthropic/claude-sonnet-4.5"),
    ],
)
def test_a_golden_answer_costs_what_the_list_prices_say_to_the_micro_credit(
    name: str, provider: str, model: str
) -> None:
    from genai_prices import Usage as ListUsage
    from genai_prices import calc_price

    usage = GOLDEN[name][1]
    listed = calc_price(
        ListUsage(
            input_tokens=usage.input,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.cache_write,
            output_tokens=usage.output,
        ),
        model_ref=model,
        provider_id=provider,
        genai_request_timestamp=NOW,
    )
    price = PriceBook({}, {"llm": URLS[provider]}).price(Rung("llm", model), NOW)
    assert price.source.startswith(f"genai-prices:{provider}/")
    assert price.cost(usage).micro == math.ceil(listed.total_price * 1_000_000)


def test_what_a_litellm_proxy_says_an_answer_cost_is_what_we_say() -> None:
    # Its header for the golden answer: x-litellm-response-cost: 0.00222, at 3, 0.3, 3.75 and 15.
    price = Price(3_000_000, 300_000, 15_000_000, "test", 3_750_000)
    assert price.cost(GOLDEN["Anthropic behind LiteLLM"][1]) == MicroCredits(2220)


def test_what_xai_charged_is_what_we_say() -> None:
    told, usage = GOLDEN["xAI"]
    price = Price(1_250_000, 200_000, 2_500_000, "test")
    assert price.cost(usage) == reported_cost(told) == MicroCredits(23_286)


# The same tokens, told in every way

COUNTS = st.integers(0, 50) | st.integers(0, 200_000)


def as_openai(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    prompt, completion = fresh + cached + written, text + reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def as_litellm(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    told = as_openai(fresh, cached, written, text, reasoning)
    return told | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": written}


def as_deepseek(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    told = as_openai(fresh + written, cached, 0, text, reasoning)
    del told["prompt_tokens_details"]
    miss = fresh + written
    return told | {"prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": miss}


def as_anthropic(
    fresh: int, cached: int, written: int, text: int, reasoning: int
) -> dict[str, Any]:
    return {
        "input_tokens": fresh,
        "output_tokens": text + reasoning,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
    }


def as_portkey(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    told = as_openai(fresh, cached, written, text, reasoning)
    # Where both are as many, nobody can say which of them the total has on top.
    assume(reasoning != cached + written)
    return told | {"prompt_tokens": fresh}


def as_new_api(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    told = as_openai(fresh, cached, written, text, reasoning)
    details = {"cached_tokens": cached, "cached_creation_tokens": written}
    return told | {"usage_semantic": "openai", "prompt_tokens_details": details}


def as_old_new_api(
    fresh: int, cached: int, written: int, text: int, reasoning: int
) -> dict[str, Any]:
    assume(written or cached > fresh or not cached)
    told = as_new_api(fresh, cached, written, text, reasoning)
    del told["usage_semantic"]
    return told | {"prompt_tokens": fresh, "total_tokens": fresh + text + reasoning}


def as_xai(fresh: int, cached: int, written: int, text: int, reasoning: int) -> dict[str, Any]:
    told = as_openai(fresh + written, cached, 0, text, reasoning)
    return told | {"completion_tokens": text}


def as_xai_without_cache_in_the_prompt(
    fresh: int, cached: int, written: int, text: int, reasoning: int
) -> dict[str, Any]:
    assume(reasoning and cached + written)
    told = as_portkey(fresh, cached, written, text, reasoning)
    return told | {"completion_tokens": text}


@pytest.mark.parametrize(
    "told",
    [
        as_openai, as_litellm, as_deepseek, as_anthropic, as_portkey, as_new_api, as_old_new_api,
        as_xai, as_xai_without_cache_in_the_prompt,
    ],
)  # fmt: skip
@given(st.data())
def test_the_same_tokens_told_in_any_way_are_each_counted_once(
    told: Any, data: st.DataObject
) -> None:
    fresh, cached, written, text, reasoning = (data.draw(COUNTS) for _ in range(5))
    usage = read_usage(told(fresh, cached, written, text, reasoning))
    assert usage is not None
    assert usage.input == fresh + cached + written
    assert (usage.cached, usage.output) == (cached, text + reasoning)
    if told not in (as_deepseek, as_xai):
        assert usage.cache_write == written
    if told is not as_anthropic:
        assert usage.reasoning == reasoning


# Where two readings are possible, the dearer one


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        # What the total has on top is as many as the cached and as the reasoning: it is output.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            Usage(100, 40, 50, reasoning=40),
        ),
        # What nothing explains was written by the model.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 127,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
            Usage(100, 40, 27),
        ),
        # Reasoning that does not fit into the completion is beside it.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(10, 0, 25, reasoning=20),
        ),
        # A total of the prompt alone says that nothing was written.
        ({"prompt_tokens": 10, "total_tokens": 10}, Usage(10, 0, 0)),
        # A total below its parts decides nothing.
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, Usage(10, 0, 5)),
        # Read and written do not fit into the prompt together, so neither is in it.
        (
            {
                "prompt_tokens": 5010,
                "completion_tokens": 5,
                "total_tokens": 5015,
                "cache_read_input_tokens": 5000,
                "cache_creation_input_tokens": 20,
            },
            Usage(10030, 5000, 5, cache_write=20),
        ),
        # Both names are filled: the larger.
        (
            {"prompt_tokens": 10, "input_tokens": 40, "completion_tokens": 5, "output_tokens": 7},
            Usage(40, 0, 7),
        ),
        # Said to be inside the prompt, more cannot have been read than the prompt is long.
        (
            {
                "usage_semantic": "openai",
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 3},
            },
            Usage(10, 10, 5),
        ),
    ],
)
def test_a_doubt_is_read_the_dearer_way(told: dict[str, Any], usage: Usage) -> None:
    assert read_usage(told) == usage


# Garbage


@pytest.mark.parametrize(
    "found",
    [
        None, True, 0, 12, 1.5, "", "usage", [], [{"prompt_tokens": 1}], {},
        {"prompt_tokens": 10},
        {"completion_tokens": 10},
        {"total_tokens": 10},
        {"completion_tokens": 5, "total_tokens": 15},
        {"prompt_tokens": 10, "total_tokens": 9},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 15},
        {"cost": 0.5},
    ],
)  # fmt: skip
def test_usage_without_counts_is_none(found: Any) -> None:
    assert read_usage(found) is None


GARBAGE = [
    -1, -1.0, True, False, "12", "", "many", [], [12], {}, {"tokens": 12}, 12.5, TOKENS_MAX + 1,
    10**400, 1e300, math.inf, -math.inf, math.nan, Decimal("12.000001"), Decimal("1e999999999999"),
    Decimal("1e-999999999999"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"),
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens",
        "cache_read_input_tokens", "cache_creation_input_tokens", "prompt_cache_hit_tokens",
        "reasoning_tokens", "claude_cache_creation_5_m_tokens", "details",
    ],
)  # fmt: skip
def test_one_count_that_is_none_makes_the_whole_unreadable(place: str, garbage: Any) -> None:
    told: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    # Even where another name has told it already.
    told["prompt_tokens_details"] = {"cached_tokens": 3, "cache_write_tokens": 2}
    told["completion_tokens_details"] = {"reasoning_tokens": 1}
    if place == "details":
        told["prompt_tokens_details"] = {"cached_tokens": 3, "cache_write_tokens": garbage}
    else:
        told[place] = garbage
    assert read_usage(told) is None


def test_the_largest_count_is_one() -> None:
    assert read_usage({"prompt_tokens": TOKENS_MAX, "completion_tokens": 0}) == Usage(
        TOKENS_MAX, 0, 0
    )


NAMES = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
        "prompt_tokens_details", "completion_tokens_details", "input_tokens_details",
        "output_tokens_details", "cached_tokens", "cache_write_tokens", "cache_creation_tokens",
        "cached_creation_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens",
        "cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_tokens",
        "claude_cache_creation_5_m_tokens", "claude_cache_creation_1_h_tokens", "usage_semantic",
        "cost", "cost_details", "upstream_inference_cost", "is_byok", "cost_in_usd_ticks",
    ]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(0, 100)
    | st.integers()
    | st.floats()
    | st.decimals(allow_nan=True, allow_infinity=True)
    | st.sampled_from([*GARBAGE, "openai", "anthropic"])
    | st.text(max_size=5)
)
JSON = st.recursive(
    LEAVES,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=12),
    max_leaves=30,
)
COUNTED = st.dictionaries(NAMES, st.integers(0, 100) | JSON, min_size=3)


@given(COUNTED | JSON)
@example({"cost": Decimal("1e999999999999"), "cost_in_usd_ticks": 1})
@example({"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": Decimal("NaN")}})
def test_no_json_makes_it_fail_or_come_to_impossible_tokens(found: Any) -> None:
    usage, cost = read_usage(found), reported_cost(found)
    if usage is not None:
        assert all(type(getattr(usage, name)) is int for name in Usage.__slots__)
        assert min(usage.input, usage.cached, usage.cache_write, usage.output) >= 0
        assert usage.cached + usage.cache_write <= usage.input
        assert 0 <= usage.reasoning <= usage.output
    if cost is not None:
        assert 0 <= cost.micro <= MICRO_MAX


# What the provider says it charged


@pytest.mark.parametrize(
    ("told", "micro"),
    [
        ({"cost": 0.95}, 950_000),
        ({"cost": Decimal("0.00014")}, 140),
        ({"cost": 1}, 1_000_000),
        ({"cost": 0.1 + 0.2}, 300_001),
        ({"cost": 5e-07}, 1),
        ({"cost": Decimal("1e-999999999")}, 1),
        ({"cost": Decimal("0.00000100000000000000000000000000000000000000000000000001")}, 2),
        # A free model says zero, and means it.
        ({"cost": 0}, 0),
        ({"cost": 0.0}, 0),
        ({"cost": -0.0}, 0),
        ({"cost": Decimal("0E-10")}, 0),
        ({"cost": 0, "prompt_tokens": 100, "completion_tokens": 20}, 0),
        # Not the operator's own key: the second figure repeats the first.
        (
            {
                "cost": 0.0033789,
                "is_byok": False,
                "cost_details": {"upstream_inference_cost": 0.0033789},
            },
            3379,
        ),
        ({"cost": 0.01, "is_byok": False, "cost_details": {"upstream_inference_cost": 9}}, 10_000),
        ({"cost": 0.017558, "is_byok": False, "cost_details": None}, 17_558),
        # The operator's own key: the fee, and what the model's owner charges (tailcallhq/forgecode
        # issue 1641; DataDog/dd-trace-py pull 19324).
        (
            {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0360795}},
            36_080,
        ),
        (
            {"cost": 0.0018, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.036}},
            37_800,
        ),
        # Rounded once, after adding.
        (
            {
                "cost": Decimal("0.0000004"),
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": Decimal("0.0000006")},
            },
            1,
        ),
        # OpenRouter's own example, from before the mark.
        ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, 19_950_000),
        ({"cost": 0.00482, "cost_details": {"upstream_inference_cost": 0.00482}}, 4820),
        # A mark that is neither is none.
        (
            {"cost": 0.01, "is_byok": "no", "cost_details": {"upstream_inference_cost": 0.01}},
            10_000,
        ),
        (
            {"cost": 0.01, "is_byok": "yes", "cost_details": {"upstream_inference_cost": 2}},
            2_010_000,
        ),
        ({"cost_in_usd_ticks": 37_756_000}, 3776),
        ({"cost_in_usd_ticks": 0}, 0),
        ({"cost_in_usd_ticks": 1}, 1),
        ({"cost": 0.0232856, "cost_in_usd_ticks": 232_856_000}, 23_286),
        ({"cost": MICRO_MAX // 1_000_000}, MICRO_MAX),
    ],
)
def test_a_reported_cost_is_read_exactly_and_rounded_up(told: dict[str, Any], micro: int) -> None:
    assert reported_cost(told) == MicroCredits(micro)


@pytest.mark.parametrize(
    "told",
    [
        None, [], "0.5", 0.5, {}, {"prompt_tokens": 1, "completion_tokens": 1},
        {"cost": None}, {"cost": True}, {"cost": "0.5"}, {"cost": "free"}, {"cost": [0.5]},
        {"cost": {"total_cost": 0.5}}, {"cost": -0.000001}, {"cost": math.nan},
        {"cost": math.inf}, {"cost": Decimal("NaN")}, {"cost": Decimal("1e999999")},
        {"cost": Decimal("1e999999999999")}, {"cost": 10**400}, {"cost": MICRO_MAX},
        {"cost_in_usd_ticks": "1"}, {"cost_in_usd_ticks": -1}, {"total_cost": 1},
        # Only the fee is known, and the fee is not the bill.
        {"cost": 0, "is_byok": True},
        {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}},
        {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": "0.02"}},
    ],
)  # fmt: skip
def test_what_is_no_amount_is_no_reported_cost(told: Any) -> None:
    assert reported_cost(told) is None


# Documents


@pytest.mark.parametrize(
    ("content", "document"),
    [
        (b'{"a": 0.1}', {"a": Decimal("0.1")}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "one\ntwo\t\x01"}', {"a": "one\ntwo\t\x01"}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"a": [null, Infinity]}', {"a": [None, math.inf]}),
        (b"", None),
        (b"<html>", None),
        (b'{"a": 1', None),
        (b'{"a": 1e99999999999999999999}', None),
        (b'{"a": -1e-99999999999999999999}', None),
        (b"[" * 200_000, None),
        (b'{"a":' * 200_000, None),
        (b"9" * 5000, None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_document_is_read_tolerantly_and_never_stops_us(content: bytes, document: Any) -> None:
    assert read_json(content) == document
