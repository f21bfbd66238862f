"""
Credits as integers of a millionth.

One credit is one US dollar of inference. Decimals appear only where a person reads or types;
everywhere else an amount is a `MicroCredits`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

MICRO_PER_CREDIT = 1_000_000
# A billion credits. Nine thousand such amounts still fit SQLite's 64-bit integers.
MICRO_MAX = 1_000_000_000 * MICRO_PER_CREDIT
# ASCII only: \d would read the digits of every script, which nobody means in a budget.
_DECIMAL = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?")


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
        Read what a person typed, such as `4.81`, exactly.

        Raises:
            AmountError: not a plain decimal, finer than a millionth, or beyond a billion.
        """
        match = _DECIMAL.fullmatch(text.strip(" \t\r\n"))
        if match is None:
            raise AmountError(f"{_shown(text)} is not a decimal number")
        sign, whole, fraction = match[1], match[2] or "0", (match[3] or "").rstrip("0")
        if len(fraction) > 6:
            raise AmountError(f"{_shown(text)} is finer than a millionth of a credit")
        # Of a stranger's endless number the first digits are too much already.
        whole = whole.lstrip("0")[:12] or "0"
        micro = int(whole) * MICRO_PER_CREDIT + int(fraction.ljust(6, "0"))
        if micro > MICRO_MAX:
            raise AmountError(f"{_shown(text)} is more than a billion credits")
        return cls(-micro if sign == "-" else micro)

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


def _shown(text: str) -> str:
    """What was typed, short enough for a message."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
