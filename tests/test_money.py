"""Credits are exact: what is typed is kept to the millionth, or refused."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.money import (
    MICRO_MAX,
    MICRO_PER_CREDIT,
    ZERO,
    AmountError,
    MicroCredits,
    divide_up,
)

amounts = st.integers(-MICRO_MAX, MICRO_MAX).map(MicroCredits)


@given(amounts)
@example(MicroCredits(MICRO_MAX))
@example(MicroCredits(-1))
def test_what_is_printed_parses_back_to_the_same_amount(amount: MicroCredits) -> None:
    assert MicroCredits.parse(str(amount)) == amount


@given(amounts)
@example(MicroCredits(0))
def test_an_amount_prints_with_six_places_and_the_value_it_has(amount: MicroCredits) -> None:
    whole, _, places = str(amount).partition(".")
    assert len(places) == 6
    assert whole.startswith("-") == (amount.micro < 0)
    assert Decimal(f"{whole}.{places}") * MICRO_PER_CREDIT == amount.micro


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=6))
def test_a_decimal_of_six_places_is_read_exactly(value: Decimal) -> None:
    assert Decimal(MicroCredits.parse(f"{value:f}").micro) == value * MICRO_PER_CREDIT


@given(st.text(alphabet="0123456789.eE+-_ naif", max_size=40))
@example("1e3")
@example("1E-6")
@example("1_000")
@example("0.0000001")
@example("1." + "0" * 30 + "1")
def test_text_is_read_as_exactly_the_number_it_spells_or_refused(text: str) -> None:
    try:
        amount = MicroCredits.parse(text)
    except AmountError:
        return
    # Comparing decimals is exact whatever the precision; arithmetic on them is not.
    assert Decimal(str(amount)) == Decimal(text.strip())


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("4.81", 4_810_000),
        ("4.812345", 4_812_345),
        ("0.000001", 1),
        ("-0.5", -500_000),
        ("+5", 5_000_000),
        (".5", 500_000),
        ("5.", 5_000_000),
        (" 7 \n", 7_000_000),
        ("-0", 0),
        ("1.0000000000", 1_000_000),
        ("1000000000", MICRO_MAX),
        ("-1000000000", -MICRO_MAX),
    ],
)
def test_decimal_text_is_read_to_the_millionth(text: str, micro: int) -> None:
    assert MicroCredits.parse(text).micro == micro


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "-",
        "--1",
        "1,5",
        "1 000",
        "$5",
        "0x10",
        "five",
        "nan",
        "-NaN",
        "sNaN",
        "inf",
        "-Infinity",
        "0.0000001",
        "1e-7",
        "4.8123456",
        "1000000000.000001",
        "-1000000000.000001",
        "1e10",
        "1e999999",
        "1e99999999999999999999",
        "9" * 5_000,
        "٣",
        "１２",
        "५.५",
        "1\u00a0000",
        "−1",
    ],
)
def test_text_that_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountError):
        MicroCredits.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "1." + "0" * 30 + "1",
        "0.123456" + "0" * 40 + "9",
        "1000000000." + "0" * 30 + "1",
        "1e-999999999999999",
        "-1." + "0" * 30 + "1",
    ],
)
def test_what_is_finer_than_a_millionth_is_refused_however_fine(text: str) -> None:
    with pytest.raises(AmountError):
        MicroCredits.parse(text)


def test_reading_does_not_depend_on_the_decimal_precision_of_the_caller() -> None:
    with localcontext() as context:
        context.prec = 4
        assert MicroCredits.parse("12345.678901").micro == 12_345_678_901


def test_a_refusal_quotes_what_was_typed() -> None:
    with pytest.raises(AmountError, match=r"'4\.8\.1' is not a decimal number"):
        MicroCredits.parse("4.8.1")


# Under mypy --strict an ignore that is not needed is an error, so these lines also hold the types.
def test_a_float_is_refused_wherever_an_amount_is_made_or_moved() -> None:
    one = MicroCredits(1_000_000)
    with pytest.raises(TypeError):
        MicroCredits(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        one * 1.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        1.5 * one  # type: ignore[operator]
    with pytest.raises(TypeError):
        assert one < 1.5  # type: ignore[operator]
    with pytest.raises((TypeError, AttributeError)):
        one + 0.5  # type: ignore[operator]
    with pytest.raises((TypeError, AttributeError)):
        one - 0.5  # type: ignore[operator]
    with pytest.raises((TypeError, AttributeError)):
        MicroCredits.parse(0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        one / 2  # type: ignore[operator]


@pytest.mark.parametrize("number", [True, "1", Decimal(1), None])
def test_only_a_whole_number_makes_an_amount(number: object) -> None:
    with pytest.raises(TypeError):
        MicroCredits(number)  # type: ignore[arg-type]


def test_truth_is_no_factor() -> None:
    with pytest.raises(TypeError):
        MicroCredits(1) * True


def test_an_amount_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ZERO.micro = 1  # type: ignore[misc]
    assert ZERO.micro == 0


@given(amounts, amounts, st.integers(-1000, 1000))
def test_amounts_add_subtract_scale_and_order_as_their_micros_do(
    a: MicroCredits, b: MicroCredits, factor: int
) -> None:
    assert (a + b).micro == a.micro + b.micro
    assert a - b == a + -b
    assert (a * factor).micro == (factor * a).micro == a.micro * factor
    assert (a < b) is (a.micro < b.micro)
    assert bool(a) is (a != ZERO)


@given(st.integers(), st.integers(min_value=1))
@example(10**40 + 1, 10**20)
@example(-1, 2)
def test_division_gives_the_smallest_whole_number_that_covers_the_cost(
    numerator: int, denominator: int
) -> None:
    quotient = divide_up(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator


@given(st.integers(0, 10**18), st.integers(1, 10**6))
def test_a_cost_rounds_up_by_less_than_one_micro_credit(numerator: int, denominator: int) -> None:
    paid = divide_up(numerator, denominator)
    assert 0 <= paid * denominator - numerator < denominator


def test_dividing_by_nothing_is_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        divide_up(1, 0)
