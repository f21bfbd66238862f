"""
Shares and multiples: two thirds, half of, one in three, ten times, doubled, threefold.

They are what is made up most readily, and small number words elsewhere are as often pronouns.
"""

from __future__ import annotations

import re

_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_VALUES = {word: number for number, word in enumerate(_ONES, start=1)} | {"a": 1, "an": 1}
_NTHS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6,
    "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip
_MULTIPLES = {"twice": 2, "thrice": 3, "doubl": 2, "tripl": 3, "trebl": 3, "quadrupl": 4}
_ANY_ONE = "|".join(_ONES)
_SHARE = rf"\b(?P<n>an?|{_ANY_ONE})[ -](?P<nth>{'|'.join(_NTHS)})s?\b"
# As a share, and not as a part of the day, of a match or of the text itself.
_SURE_SHARE = rf"{_SHARE}(?:(?<=s)|(?=\s+of\b))"
_HALF = r"\b(?P<half>half|halv(?:e[sd]?|ing))\b"
_SURE_HALF = (
    r"(?<!\bfirst )(?<!\bsecond )(?<!\bother )(?<!\blatter )(?<!\blast )(?<!\bnext )"
    r"\b(?P<half>half(?=\s+(?:of|the|as)\b)|halv(?:e[sd]?|ing))\b"
)
_VERBS = r"(?:doubl|tripl|trebl|quadrupl)"
_MULTIPLE = rf"\b(?P<multiple>twice|thrice|{_VERBS}(?:e[sd]?|ing))\b(?!-)"
_SURE_MULTIPLE = (
    rf"\b(?P<multiple>twice(?=\s+(?:as|the)\b)|{_VERBS}(?:e[sd]|ing|e(?=\s+the\b)))\b(?!-)"
)
# A twofold purpose is two purposes.
_FOLD = rf"\b(?P<fold>{'|'.join(_ONES[2:])})[ -]?fold\b"
_TIMES = rf"\b(?P<times>{_ANY_ONE})(?=\s+times\b)"
_IN = rf"\b(?P<part>{_ANY_ONE})\s+(?:in|out\s+of)\s+(?P<whole>{_ANY_ONE})\b"
_STATED, _MEANT = (
    re.compile("|".join((share, half, multiple, _FOLD, _TIMES, _IN)), re.IGNORECASE)
    for share, half, multiple in (
        (_SURE_SHARE, _SURE_HALF, _SURE_MULTIPLE),
        (_SHARE, _HALF, _MULTIPLE),
    )
)
# How digits write them.
_IN_DIGITS = re.compile(r"(?<![\w/.,])([1-9])(?:/| in | out of )(10|[2-9])(?![\w/]|[.,]\d)")
_TIMES_IN_DIGITS = re.compile(
    r"(?<![\w.,])(10|[2-9])(?: times\b|[ -]?fold\b| ?[x×](?!\w))|(?<!\w)[x×] ?(10|[2-9])(?![\w.,])",
    re.IGNORECASE,
)
# What surely is one: neither a date, nor the 4x of 4x 10 GB.
_SURELY_IN_DIGITS = re.compile(r"(?<![\w/.,])([1-9]) (?:in|out of) (10|[2-9])(?![\w/]|[.,]\d)")
_SURELY_TIMES = re.compile(
    r"(?<![\w.,])(10|[2-9])(?: times\b|[ -]?fold\b|[x×](?!\w| ?\d))", re.IGNORECASE
)
# In the lowest terms: 50 is 1⁄2.
_OF_PERCENT = {
    100 * n // d: f"{n}⁄{d}" for d in range(10, 1, -1) for n in range(1, d) if not 100 * n % d
}
_PERCENT = re.compile(r"(?<![\w.,])(\d\d)(?: ?%| percent\b| per cent\b)", re.IGNORECASE)


def stated(text: str) -> frozenset[str]:
    """The shares and multiples that a text states surely: `2⁄3`, `10×`."""
    found = set(filter(None, map(_written, _STATED.finditer(text))))
    found |= {f"{n}⁄{d}" for n, d in _SURELY_IN_DIGITS.findall(text) if int(n) < int(d)}
    found |= {f"{times}×" for times in _SURELY_TIMES.findall(text)}
    return frozenset(found)


def meant(quote: str) -> frozenset[str]:
    """
    Every share and multiple that words of a source bear out: also in digits, and where such a word
    may mean something else.
    """
    found = set(filter(None, map(_written, _MEANT.finditer(quote))))
    found |= {f"{n}⁄{d}" for n, d in _IN_DIGITS.findall(quote)}
    found |= {f"{before or after}×" for before, after in _TIMES_IN_DIGITS.findall(quote)}
    found |= {_OF_PERCENT[of] for of in map(int, _PERCENT.findall(quote)) if of in _OF_PERCENT}
    return frozenset(found)


def _written(found: re.Match[str]) -> str | None:
    if found["nth"]:
        return f"{_VALUES[found['n'].casefold()]}⁄{_NTHS[found['nth'].casefold()]}"
    if found["half"]:
        return "1⁄2"
    if found["multiple"]:
        word = found["multiple"].casefold()
        return f"{next(n for stem, n in _MULTIPLES.items() if word.startswith(stem))}×"
    if found["part"]:
        part, whole = (_VALUES[found[name].casefold()] for name in ("part", "whole"))
        # One in one place is no share.
        return f"{part}⁄{whole}" if part < whole else None
    times = _VALUES[(found["fold"] or found["times"]).casefold()]
    return f"{times}×" if times > 1 else None
