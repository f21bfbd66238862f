"""
Rough sizes: dozens of, tens of thousands of, several hundred.

Each is the least power of ten, or the dozen, that it counts by, and is borne out by some two to a
hundred of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_SIZES = {
    "ten": 10, "dozen": 12, "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
_ANY = "|".join(_SIZES)
_ROUGHLY = re.compile(
    rf"\b(?:(?:(?P<many>{_ANY})s\s+of\s+)?(?P<size>{_ANY})s\s+of"
    rf"|(?:several|(?:a\s+)?few|many|a\s+couple(?:\s+of)?)(?:\s+(?P<lot>{_ANY})s?)?"
    rf"\s+(?P<few>{_ANY})s?)\b",
    re.IGNORECASE,
)
_UNITS = (10, 12, *(10**power for power in range(2, 15)))
# A year bears out no thousands.
_YEARS = range(1900, 2100)


def stated(text: str) -> frozenset[str]:
    """The rough sizes that words state: `100s`."""
    return frozenset(f"{unit}s" for unit in _roughly(text))


def meant(quote: str, numbers: Iterable[str]) -> frozenset[str]:
    """Every rough size that words of a source bear out, with the numbers in digits that they do."""
    some = {int(digits) for digits in numbers if re.fullmatch(r"\d{2,18}", digits)}
    some = some.difference(_YEARS) | {2 * unit for unit in _roughly(quote)}
    return frozenset(
        f"{unit}s" for size in some for unit in _UNITS if 2 * unit <= size < 100 * unit
    )


def _roughly(text: str) -> Iterator[int]:
    for found in _ROUGHLY.finditer(text):
        words = filter(None, (found["many"], found["size"], found["lot"], found["few"]))
        unit = 1
        for word in words:
            unit *= _SIZES[word.casefold()]
        yield unit
