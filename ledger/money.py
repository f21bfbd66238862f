"""
Credits as integers of a millionth.

One credit is one US dollar of inference. Decimals appear only where a person reads or types;
everywhere else an amount is a `MicroCredits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Self

MICRO_PER_CREDIT = 1_000_000
# A billion credits. Nine thousand such amounts still fit SQLite's 64-bit integers.
MICRO_MAX = 1_000_000_000 * MICRO_PER_CREDIT


class AmountError(ValueError):
    """The text or number is no amount of credits we can keep exactly."""


@dataclass(frozen=True, slots=True, order=True)
class MicroCredits:
    """An amount in millionths of a credit, positive or negative. Never a float."""

    micro: int

    def __post_init__(self) -> None:
        if type(self.micro) is not int:
            raise TypeError(f"micro-credits are whole numbers, not {type(self.micro).__name__}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read what a person typed, such as `4.81`.

        Raises:
            AmountError: not a finite decimal, finer than a millionth, or beyond a billion.
        """
        if not text.isascii():
            # Decimal() reads digits of every script, which nobody means in a budget.
            raise AmountError(f"{text!r} is not a decimal number")
        try:
            value = Decimal(text.strip())
        except InvalidOperation:
            raise AmountError(f"{text!r} is not a decimal number") from None
        return cls.of(value)

    @classmethod
    def of(cls, credits: Decimal) -> Self:
        """Convert decimal credits exactly, or raise AmountError."""
        if not credits.is_finite():
            raise AmountError(f"{credits} is not a finite amount")
        if abs(credits) > MICRO_MAX // MICRO_PER_CREDIT:
            raise AmountError(f"{credits} is more than a billion credits")
        scaled = credits.scaleb(6)
        if scaled != scaled.to_integral_value():
            raise AmountError(f"{credits} is finer than a millionth of a credit")
        return cls(int(scaled))

    def __str__(self) -> str:
        """Decimal credits with six places, as every report prints them."""
        whole, fraction = divmod(abs(self.micro), MICRO_PER_CREDIT)
        return f"{'-' if self.micro < 0 else ''}{whole}.{fraction:06d}"

    def __add__(self, other: MicroCredits) -> MicroCredits:
        return MicroCredits(self.micro + other.micro)

    def __sub__(self, other: MicroCredits) -> MicroCredits:
        return MicroCredits(self.micro - other.micro)

    def __neg__(self) -> MicroCredits:
        return MicroCredits(-self.micro)

    def __mul__(self, factor: int) -> MicroCredits:
        if type(factor) is not int:
            raise TypeError(f"credits scale by whole numbers, not {type(factor).__name__}")
        return MicroCredits(self.micro * factor)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return self.micro != 0


ZERO = MicroCredits(0)


def divide_up(numerator: int, denominator: int) -> int:
    """Divide whole numbers, rounding up: a cost is rounded against us."""
    return -(-numerator // denominator)
