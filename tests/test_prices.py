"""Prices are whole numbers with a source, and a ladder says in which order they are paid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.app import opened_database
from daemon.books import Books
from daemon.control import Gate
from daemon.inference import attempts, prices
from daemon.inference.ladder import Ladder, Role, Rung, Tier, parse_ladder, parse_rung
from daemon.inference.meter import Meter, Purpose
from daemon.inference.port import ModelReply, ModelRequest, Outcome
from daemon.inference.prices import Price, PriceBook, UnknownPrice, Usage, parse_prices
from daemon.journal import RunOutcome
from ledger import store
from ledger.database import Database
from ledger.money import MicroCredits
from tests.cli_helpers import Desk
from tests.stage import Stage, blog_pages, renamed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OPENAI = {"llm": "https://api.openai.com/v1"}

# Micro-credits per million tokens, up to a thousand credits; tokens up to a few millions.
MICROS = st.one_of(st.just(0), st.integers(0, 10), st.integers(0, 1_000_000_000))
TOKENS = st.one_of(st.just(0), st.integers(0, 10), st.integers(0, 5_000_000))
PRICES = st.builds(Price, MICROS, MICROS, MICROS, st.just("test"), st.none() | MICROS)
USAGES = st.builds(
    lambda fresh, cached, written, text, reasoning: Usage(
        fresh + cached + written, cached, text + reasoning, written, reasoning
    ),
    TOKENS, TOKENS, TOKENS, TOKENS, TOKENS,
)  # fmt: skip


# The operator's own


def test_own_prices_are_read_in_credits_per_million_tokens() -> None:
    read = parse_prices(
        " llm/gpt-4o=2.5, 1.25 ,10 ;LLM/vendor/model:free=0,0,0;; local/*=0.000001,0,1;a/b=c=1,2,3 "
    )
    assert read == {
        "llm/gpt-4o": Price(2_500_000, 1_250_000, 10_000_000, "PENSTOCK_PRICES"),
        "llm/vendor/model:free": Price(0, 0, 0, "PENSTOCK_PRICES"),
        "local/*": Price(1, 0, 1_000_000, "PENSTOCK_PRICES"),
        "a/b=c": Price(1_000_000, 2_000_000, 3_000_000, "PENSTOCK_PRICES"),
    }


def test_no_text_is_no_prices() -> None:
    assert parse_prices("") == parse_prices(" ; ") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("llm/a", "is not provider/model=input,cached,output"),
        ("llm/a=1", "is not provider/model=input,cached,output"),
        ("llm/a=1,2", "is not provider/model=input,cached,output"),
        ("llm/a=1,2,3,4", "is not provider/model=input,cached,output"),
        ("=1,2,3", "is not provider/model=input,cached,output"),
        ("a=1,2,3", "is not provider/model"),
        ("/a=1,2,3", "is not provider/model"),
        ("llm/=1,2,3", "is not provider/model"),
        ("llm/a=1,2,", "is not a decimal"),
        ("llm/a=1,2,free", "is not a decimal"),
        ("llm/a=1,2,nan", "not a decimal number"),
        ("llm/a=1,2,-3", "negative price"),
        ("llm/a=0.0000001,1,1", "finer than a millionth"),
        ("llm/a=1,2,3 llm/b=1,2,3", "is not"),
    ],
)
def test_a_price_that_cannot_be_read_is_refused_with_its_item(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_prices(f"ok/ok=1,1,1;{text}")


# What a reply costs


@pytest.mark.parametrize(
    ("price", "usage", "micro"),
    [
        ((2_500_000, 1_250_000, 10_000_000), (1000, 0, 500), 7500),
        # Cached tokens are part of the input and are not paid twice.
        ((2_500_000, 1_250_000, 10_000_000), (1000, 400, 500), 7000),
        ((2_500_000, 1_250_000, 10_000_000), (1000, 1000, 0), 1250),
        ((3_000_000, 300_000, 15_000_000), (0, 0, 1), 15),
        # The next whole micro-credit, and only that.
        ((1, 1, 1), (1, 0, 0), 1),
        ((1, 0, 1), (500_000, 0, 500_000), 1),
        ((1, 0, 1), (500_000, 0, 500_001), 2),
        ((270_000, 70_000, 1_100_000), (3, 1, 2), 3),
        ((0, 0, 0), (10**6, 0, 10**6), 0),
        ((2_500_000, 1_250_000, 10_000_000), (0, 0, 0), 0),
        # A cache that costs more than plain input is charged what it costs.
        ((1_000_000, 2_000_000, 0), (10, 4, 0), 14),
    ],
)
def test_a_reply_costs_what_its_tokens_cost_rounded_up_once(
    price: tuple[int, int, int], usage: tuple[int, int, int], micro: int
) -> None:
    assert Price(*price, "test").cost(Usage(*usage)) == MicroCredits(micro)


def test_written_cache_costs_what_it_costs_and_hidden_reasoning_what_output_does() -> None:
    usage = Usage(1000, 100, 500, cache_write=300, reasoning=400)
    as_input = Price(2_000_000, 1_000_000, 4_000_000, "test")
    assert as_input.cost(usage) == as_input.cost(Usage(1000, 100, 500)) == MicroCredits(3900)
    dearer = replace(as_input, cache_write=2_500_000)
    assert dearer.cost(usage) == MicroCredits(600 * 2 + 100 + 300 * 5 // 2 + 500 * 4)
    assert replace(as_input, cache_write=0).cost(usage) == MicroCredits(600 * 2 + 100 + 500 * 4)


@given(PRICES, USAGES)
def test_a_cost_is_exact_but_for_less_than_one_micro_credit(price: Price, usage: Usage) -> None:
    written = price.input if price.cache_write is None else price.cache_write
    exact = (
        Fraction(price.input, 10**6) * (usage.input - usage.cached - usage.cache_write)
        + Fraction(price.cached, 10**6) * usage.cached
        + Fraction(written, 10**6) * usage.cache_write
        + Fraction(price.output, 10**6) * usage.output
    )
    assert exact <= price.cost(usage).micro < exact + 1


@given(PRICES, USAGES)
def test_each_token_is_counted_once(price: Price, usage: Usage) -> None:
    fresh = usage.input - usage.cached - usage.cache_write
    classes = [
        Usage(fresh, 0, 0),
        Usage(usage.cached, usage.cached, 0),
        Usage(usage.cache_write, 0, 0, cache_write=usage.cache_write),
        Usage(0, 0, usage.output, reasoning=usage.reasoning),
    ]
    apart = sum(price.cost(one).micro for one in classes)
    # Each class is rounded up by less than one.
    assert apart - len(classes) < price.cost(usage).micro <= apart


@given(PRICES, USAGES, TOKENS, TOKENS)
def test_no_usage_within_its_bounds_costs_more_than_the_worst_case(
    price: Price, usage: Usage, more_input: int, more_output: int
) -> None:
    worst = price.worst_case(
        input_max=usage.input + more_input, output_max=usage.output + more_output
    )
    assert price.cost(usage) <= worst


@given(PRICES, TOKENS, TOKENS)
def test_the_worst_case_can_happen(price: Price, input_max: int, output_max: int) -> None:
    usages = [
        Usage(input_max, 0, output_max),
        Usage(input_max, input_max, output_max),
        Usage(input_max, 0, output_max, cache_write=input_max),
    ]
    worst = price.worst_case(input_max=input_max, output_max=output_max)
    assert max(map(price.cost, usages)) == worst


def test_only_what_is_free_has_a_worst_case_of_nothing() -> None:
    assert not Price(0, 0, 0, "x").worst_case(input_max=10**9, output_max=10**9)
    assert Price(0, 1, 0, "x").worst_case(input_max=1, output_max=0) == MicroCredits(1)
    assert Price(0, 0, 0, "x", 1).worst_case(input_max=1, output_max=0) == MicroCredits(1)


# Looking a price up


def test_the_operators_line_comes_before_the_star_which_comes_before_the_list() -> None:
    rung = Rung("llm", "gpt-4o")
    own, star = Price(1, 1, 1, "own"), Price(2, 2, 2, "star")
    assert PriceBook({str(rung): own, "llm/*": star}, OPENAI).price(rung, NOW) == own
    assert PriceBook({"llm/*": star}, OPENAI).price(rung, NOW) == star
    listed = PriceBook({"llm/gpt-4o-mini": own, "other/*": star}, OPENAI).price(rung, NOW)
    assert listed.source == "genai-prices:openai/gpt-4o"


def test_an_own_price_of_zero_is_a_price() -> None:
    free = Price(0, 0, 0, "own")
    assert PriceBook({"llm/gpt-4o": free}, OPENAI).price(Rung("llm", "gpt-4o"), NOW) == free


@pytest.mark.parametrize(
    ("url", "model", "provider"),
    [
        ("https://api.openai.com/v1", "gpt-4o", "openai"),
        ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5", "openrouter"),
        ("https://api.anthropic.com/v1", "claude-sonnet-4-5", "anthropic"),
        ("https://api.deepseek.com/v1", "deepseek-chat", "deepseek"),
    ],
)
def test_a_list_price_is_known_by_the_providers_address(
    url: str, model: str, provider: str
) -> None:
    price = PriceBook({}, {"llm": url}).price(Rung("llm", model), NOW)
    assert price.source.startswith(f"genai-prices:{provider}/")
    # A million tokens cost somewhere between a cent and a hundred credits: the unit is right.
    assert 10_000 <= price.cached <= price.input < price.output <= 100_000_000


def test_a_list_price_is_the_lists_own_to_the_micro_credit() -> None:
    from genai_prices.data_snapshot import get_snapshot

    _, info = get_snapshot().find_provider_model("gpt-4o", None, "openai", None)
    listed = info.get_prices(NOW)
    price = PriceBook({}, OPENAI).price(Rung("llm", "gpt-4o"), NOW)
    figures = (listed.input_mtok, listed.cache_read_mtok, listed.output_mtok)
    assert (price.input, price.cached, price.output) == tuple(
        int(Decimal(str(figure)) * 1_000_000) for figure in figures
    )


def test_writing_to_a_cache_has_its_price_where_the_list_has_one() -> None:
    book = PriceBook({}, {"claude": "https://api.anthropic.com/v1"} | OPENAI)
    claude = book.price(Rung("claude", "claude-sonnet-4-5"), NOW)
    assert claude.cache_write == claude.input * 5 // 4
    assert book.price(Rung("llm", "gpt-4o"), NOW).cache_write is None
    assert parse_prices("llm/a=1,2,3")["llm/a"].cache_write is None


def test_every_listed_model_costs_what_the_list_says_to_the_micro_credit() -> None:
    from genai_prices import Usage as ListUsage
    from genai_prices.data_snapshot import get_snapshot

    usage = Usage(12_345, 2_345, 777, cache_write=1_001)
    told = ListUsage(
        input_tokens=usage.input,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
    )
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            listed = model.get_prices(NOW)
            price = prices._own_terms(listed, "test")
            if price is None:
                continue
            billed = math.ceil(listed.calc_price(told)["total_price"] * 1_000_000)
            # Of tiers that begin within our prompts, the dearest is taken for all of them.
            steps = [
                step.start
                for figure in vars(listed).values()
                for step in getattr(figure, "tiers", ())
            ]
            if min(steps, default=prices.PROMPT_TOKENS_MAX) < prices.PROMPT_TOKENS_MAX:
                assert price.cost(usage).micro >= billed, (provider.id, model.id)
            else:
                assert price.cost(usage).micro == billed, (provider.id, model.id)
            compared += 1
    assert compared > 500


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("https://gateway.example/v1", "gpt-4o"),
        ("http://127.0.0.1:8000/v1", "gpt-4o"),
        ("https://proxy.example/api.openai.com/v1", "gpt-4o"),
        ("", "gpt-4o"),
        ("https://api.openai.com/v1", "no-such-model"),
        ("https://openrouter.ai/api/v1", "no/such"),
    ],
)
def test_a_model_or_gateway_nobody_lists_has_no_price_and_is_never_free(
    url: str, model: str
) -> None:
    rung = Rung("llm", model)
    with pytest.raises(UnknownPrice) as unknown:
        PriceBook({}, {"llm": url}).price(rung, NOW)
    assert unknown.value.rung == rung
    assert f"PENSTOCK_PRICES=llm/{model}=INPUT,CACHED,OUTPUT" in str(unknown.value)


def test_a_provider_without_an_address_has_no_list_price() -> None:
    with pytest.raises(UnknownPrice):
        PriceBook({}, {}).price(Rung("llm", "gpt-4o"), NOW)


def test_a_listed_model_with_a_fee_that_tokens_do_not_show_is_not_priced_by_tokens() -> None:
    # Perplexity charges for each request as well: by tokens alone a call would cost too little.
    from genai_prices.data_snapshot import get_snapshot

    provider, info = get_snapshot().find_provider_model("sonar", None, "perplexity", None)
    fee = info.get_prices(NOW).requests_kcount
    if provider.id != "perplexity" or not fee:
        pytest.skip("NOT RUN: the list has no fee for a request of sonar any more")
    book = PriceBook({}, {"llm": "https://api.perplexity.ai"})
    with pytest.raises(UnknownPrice):
        book.price(Rung("llm", "sonar"), NOW)


def test_of_tiered_prices_the_dearest_that_our_prompts_reach_is_taken() -> None:
    from genai_prices.types import Tier as Step
    from genai_prices.types import TieredPrices

    below, above = prices.PROMPT_TOKENS_MAX - 1, prices.PROMPT_TOKENS_MAX + 100_000
    tiers = [Step(start=below, price=Decimal(3)), Step(start=above, price=Decimal(9))]
    assert prices._micro(TieredPrices(base=Decimal(2), tiers=tiers)) == 3_000_000
    cheaper = [Step(start=below, price=Decimal(1))]
    assert prices._micro(TieredPrices(base=Decimal(2), tiers=cheaper)) == 2_000_000
    assert prices._micro(Decimal("0.0000001")) == 1
    assert prices._micro(Decimal(0)) == 0
    assert prices._micro(None) is None


# In a run


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    one.deposit("50")
    yield one
    one.time.close()


def test_an_unpriced_model_is_refused_before_anything_is_held_or_sent(stage: Stage) -> None:
    class Untouched:
        """Whoever asks it for bytes, or sends any, fails the test."""

        def body(self, request: ModelRequest) -> bytes:
            raise AssertionError("bytes were made for a model without a price")

        async def send(self, request: ModelRequest) -> ModelReply:
            raise AssertionError("a model without a price was asked")

    async def call(database: Database) -> None:
        meter = Meter(
            books=Books(database, stage.time.clock),
            models={"llm": Untouched()},
            prices=PriceBook(parse_prices("llm/good=1,0.1,5;other/*=0,0,0"), {}),
            policy=stage.settings.policy,
            clock=stage.time.clock,
            gate=Gate(),
        )
        request = ModelRequest(Rung("llm", "new"), "s", "p", "draft", {}, 100, 10.0)
        await meter.call(Purpose("run", "step", Role.WRITE), request, lambda tx, reply: None)

    with opened_database(stage.settings.location) as database:
        with pytest.raises(UnknownPrice, match="llm/new"):
            stage.time.run(call(database))
        with database.read() as tx:
            assert not attempts.recent(tx)
            assert not store.balance(tx).held


def test_a_reported_cost_wins_and_ours_is_kept_beside_it(stage: Stage) -> None:
    # The provider gives a discount that our prices do not know.
    stage.model.prices["good"] = (600_000, 60_000, 3_000_000)
    stage.model.misbehave("reported_cost", times=None)
    report = stage.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert report.cost.micro == stage.model.billed_micro
    ours = Price(1_000_000, 100_000, 5_000_000, "PENSTOCK_PRICES")
    with stage.reading() as tx:
        made = attempts.of_run(tx, str(report.run))
    charged = sorted(charge.micro for charge in stage.model.bill)
    assert sorted(attempt.cost_micro for attempt in made) == charged
    for attempt in made:
        assert attempt.own_cost_micro == ours.cost(Usage(**attempt.usage)).micro
        assert attempt.cost_micro < attempt.own_cost_micro


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        ("llm/gpt-4o=10,5,40", "gpt-4o"),
        ("llm/gpt-4o=10,5,40;llm/*=0,0,0", "gpt-4o"),
        ("llm/gpt-4o=10,5,40;llm/gpt-4o-2024-08-06=9,4,30;llm/*=0,0,0", "gpt-4o-2024-08-06"),
        ("llm/*=10,5,40", "gpt-4o"),
        ("llm/*=0,0,0;llm/gpt-4o-2024-08-06=9,4,30", "gpt-4o-2024-08-06"),
    ],
)
def test_the_operators_own_price_stands_by_whatever_name_a_model_answers(
    stage: Stage, lines: str, counts: str
) -> None:
    used = Usage(1000, 0, 500)

    class Dated:
        """Asked for by one name, it answers by another, which the list has."""

        def body(self, request: ModelRequest) -> bytes:
            return b"{}"

        async def send(self, request: ModelRequest) -> ModelReply:
            dated = "gpt-4o-2024-08-06"
            return ModelReply(Outcome.OK, 200, text="{}", model_returned=dated, usage=used)

    book = PriceBook(parse_prices(lines), OPENAI)
    own = book.price(Rung("llm", counts), NOW)
    listed = PriceBook({}, OPENAI).price(Rung("llm", "gpt-4o-2024-08-06"), NOW)
    assert listed.cost(used) < own.cost(used)

    async def call(database: Database) -> None:
        clock = stage.time.clock
        meter = Meter(
            books=Books(database, clock), models={"llm": Dated()}, prices=book,
            policy=stage.settings.policy, clock=clock, gate=Gate(),
        )  # fmt: skip
        request = ModelRequest(Rung("llm", "gpt-4o"), "s", "p", "draft", {}, 1000, 10.0)
        await meter.call(Purpose("run", "step", Role.WRITE), request, lambda tx, reply: None)

    with opened_database(stage.settings.location) as database:
        stage.time.run(call(database))
        with database.read() as tx:
            (made,) = attempts.recent(tx)
    assert (made.price_source, made.cost_micro) == ("PENSTOCK_PRICES", own.cost(used).micro)


def test_a_price_change_never_touches_an_old_entry(stage: Stage, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk", {"PENSTOCK_STATE_DIR": str(tmp_path)})
    lists = [("ledger", "entries", "--json"), ("ledger", "attempts", "--json")]

    def told() -> list[str]:
        return [desk.run(*command).out.rstrip().removesuffix("]").rstrip() for command in lists]

    first = stage.once()
    before, billed = told(), stage.model.billed_micro
    assert first.outcome is RunOutcome.PUBLISHED, first.reason
    # Seven times as dear from now on, with news to write about on another day.
    stage.model.prices["good"] = (7_000_000, 700_000, 35_000_000)
    dearer = PriceBook(parse_prices("llm/good=7,0.7,35"), {})
    policy = replace(stage.settings.policy, run_budget=MicroCredits(5_000_000))
    stage.settings = replace(stage.settings, prices=dearer, policy=policy)
    stage.time.pass_by(timedelta(days=1))
    stage.blog.pages = renamed(blog_pages())
    second = stage.once()
    after = told()
    assert second.outcome is RunOutcome.PUBLISHED, second.reason
    assert second.cost.micro == stage.model.billed_micro - billed > 3 * first.cost.micro
    for old, new in zip(before, after, strict=True):
        assert new.startswith(old)
        assert len(new) > len(old)
    assert '"input": "7.000000"' in after[1].removeprefix(before[1])
    stage.judge()


# Ladders


@pytest.mark.parametrize(
    ("text", "ladder"),
    [
        ("digest", Ladder((), ends_in_digest=True)),
        (" digest ", Ladder((), ends_in_digest=True)),
        ("llm/a", Ladder((Rung("llm", "a"),), ends_in_digest=False)),
        (
            "llm/a>LLM/b/c:d > digest",
            Ladder((Rung("llm", "a"), Rung("llm", "b/c:d")), ends_in_digest=True),
        ),
        ("llm/A-b", Ladder((Rung("llm", "A-b"),), ends_in_digest=False)),
    ],
)
def test_a_ladder_is_read_best_first(text: str, ladder: Ladder) -> None:
    assert parse_ladder(text) == ladder


@pytest.mark.parametrize(
    "text",
    ["", " ", ">", "llm/a >", "> llm/a", "llm/a > > digest", "digest > llm/a", "digest > digest",
     "llm/a > digest > llm/b", "gpt-4o", "llm/", "/a"],
)  # fmt: skip
def test_a_ladder_with_a_hole_or_a_digest_in_the_middle_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"provider/model|last rung"):
        parse_ladder(text)


def test_the_first_slash_ends_the_providers_name_and_the_rest_goes_on_the_wire() -> None:
    rung = parse_rung(" OpenRouter/Anthropic/claude:free ")
    assert rung == Rung("openrouter", "Anthropic/claude:free")
    assert str(rung) == "openrouter/Anthropic/claude:free"


@pytest.mark.parametrize(
    ("length", "starts"),
    # surplus, standard, economy, throttled
    [(0, (0, 0, 0, 0)), (1, (0, 0, 0, 0)), (2, (0, 0, 1, 1)), (3, (0, 0, 1, 2)), (5, (0, 0, 1, 4))],
)
def test_a_tier_begins_on_its_rung_clamped_to_what_there_is(
    length: int, starts: tuple[int, ...]
) -> None:
    ladder = Ladder(tuple(Rung("llm", str(n)) for n in range(length)))
    tiers = (Tier.SURPLUS, Tier.STANDARD, Tier.ECONOMY, Tier.THROTTLED)
    assert tuple(ladder.start(tier) for tier in tiers) == starts
    for tier, start in zip(tiers, starts, strict=True):
        assert tuple(ladder.from_tier(tier)) == ladder.paid[start:]


def test_nothing_is_paid_while_dormant() -> None:
    assert tuple(Ladder((Rung("llm", "a"),)).from_tier(Tier.DORMANT)) == ()


def test_every_role_has_a_setting_of_its_name() -> None:
    assert [role.upper() for role in Role] == ["RESEARCH", "WRITE", "EDIT"]
