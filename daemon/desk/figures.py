"""
Numbers in prose: read one way, however they are written.

Digits of any script, thousands set apart by commas, apostrophes or spaces, fractions, signs,
percent, millions, 万 and its kin, versions, and English number words. 7.10 is not 7.1; 1.5 million
is 1,500,000, and so is 150万.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from daemon.desk import shares, sizes

# Smaller ones in words are as often pronouns and counts of the text's own parts as facts, but in
# shares, multiples and rough sizes.
WORDS_LEAST = 11
_SPELT_END = 10**18
_SCALES = {
    "hundred": 100, "thousand": 1_000, "thousands": 1_000, "tausend": 1_000,
    "million": 10**6, "millions": 10**6, "millionen": 10**6, "millones": 10**6, "mio": 10**6,
    "mn": 10**6, "billion": 10**9, "billions": 10**9, "bn": 10**9, "milliard": 10**9,
    "milliards": 10**9, "milliarden": 10**9, "mrd": 10**9, "trillion": 10**12,
    "trillions": 10**12,
}  # fmt: skip
# Right behind a number; elsewhere these are letters like any other.
_LETTERS = {"k": 1_000, "K": 1_000, "M": 10**6, "B": 10**9, "T": 10**12}
# Of an amount of money alone: 5m is five metres elsewhere.
_COINS = {"m": 10**6, "b": 10**9}
_SMALL = {"十": 10, "십": 10, "百": 100, "백": 100, "千": 1_000, "천": 1_000}
_MYRIADS = {
    "万": 10**4, "萬": 10**4, "만": 10**4, "億": 10**8, "亿": 10**8, "억": 10**8,
    "兆": 10**12, "조": 10**12,
}  # fmt: skip
# 2024十大 is a year, so a small scale other than a thousand needs a large one behind it; 千克 is a
# unit, 万博 a fair, and 제3조 an article of a law.
_EASTERN = (
    rf"(?:[{''.join(_SMALL)}]?[{''.join(_MYRIADS)}]|[千천])"
    r"(?<!제\d조)(?<!제\d\d조)(?<!제\d\d\d조)"
    r"(?<![千兆](?=[克瓦米赫卡帕伏焦]|字节|比特))(?<!万(?=博(?!士)))"
)
# A number right beside a letter without case is in no name for that, as it would be in IPv6:
# Hebrew to Myanmar, Hangul, Ethiopic, Khmer, Kana and Han.
_CASELESS = (
    r"\u0590-\u109f\u1100-\u139f\u1780-\u17ff\u3005-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_INNER = rf"[^\W{_CASELESS}]"
_CURRENCIES = "EUR|USD|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN"
_SIGNS = r"[$£¥¢\u20a0-\u20cf]"
_CODES = rf"(?<!{_INNER})(?:{_CURRENCIES})"
# Digits behind a letter (IPv6, S3) are part of a name; behind a v alone they are a version, and
# behind a currency an amount.
_NUMBER = re.compile(
    rf"(?:(?<![^\W_{_CASELESS}])|(?<={_CODES}))"
    rf"(?:(?P<money>(?<={_SIGNS})|(?<={_SIGNS} )|(?<={_CODES})|(?<={_CODES} ))|)"
    r"(?<!\w_)(?<!\d[.,])(?:[vV](?=\d))?"
    r"(?P<sign>(?<![-\w)\]])-(?=[\d.]))?"
    rf"(?P<figure>(?:\d+ )?\d+⁄\d+|\d+(?:[.,]\d+)*(?:[eE][+-]?\d+(?!{_INNER}))?|\.\d+)"
    rf"(?:(?P<letter>[{''.join(_LETTERS)}](?!{_INNER}))"
    # A 5m $20 cable is five metres long.
    rf"|(?P<coin>[mb])(?!{_INNER})(?(money)|(?= ?(?:{_SIGNS}|(?:{_CURRENCIES})\b)(?! ?\d)))"
    rf"| ?(?P<eastern>{_EASTERN})"
    rf"|[ -]?(?P<scale>(?i:{'|'.join(_SCALES)}))\b)?"
    r"(?P<percent>\s?(?:%|percent\b|per cent\b|percentage points?\b|Prozent\b|pour ?cent\b))?"
)
# Names with a number in them: SHA-256, 64-bit, 24/7.
_COMPOUND = re.compile(
    r"(?<![\w.,/-])(?:[A-Z][A-Za-z]*[A-Z]-\d+(?:-\d+)*|\d+-bit|24/7)(?![\w%/]|[.,]\d|-\d)"
)
_RANGE = re.compile(r"\s*(?:-|–|—|~|〜|至|到|to|and|or|bis|und|oder)\s*")
_UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip
_LARGE = {"dozen": 12, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SMALL_WORDS = "|".join(sorted([*_UNITS, *_TENS], key=len, reverse=True))
_GROUP = "|".join(["hundred", *_LARGE])
# A bare million has its number in digits before it, or none.
_SPELT_RUN = re.compile(
    rf"\b(?:a[ ](?:{_GROUP})|{_SMALL_WORDS})\b(?:(?:[ -]|[ ]and[ ])(?:{_SMALL_WORDS}|{_GROUP})\b)*",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d)[,'’](?=\d{3}(?!\d))")
_MINUS = re.compile(r"(?<![^\s(])–(?=[\d.])")
# 5億3000万, 3천500만, 1万2000: one number in parts. A last 5 alone would be short for 5000.
_PART = re.compile(rf"(\d{{1,15}})({_EASTERN})")
_PARTS = re.compile(
    rf"(?<![\d.,])(?:\d{{1,15}}{_EASTERN}(?: (?=\d{{1,15}}{_EASTERN}))?)+"
    r"(?:(?P<rest>\d{2,4})(?![\d.,]\d|\d))?"
)
_SPACED = re.compile(rf"(?<![\d.,])(?<!{_INNER})[1-9]\d{{0,2}}(?: \d{{3}})+(?![\d])(?![.,]\d)")


def numbers(text: str) -> frozenset[str]:
    """Every number in digits: 1,000 is 1000, 40 % is 40%, and 7.10 is not 7.1."""
    return frozenset(figure.shown() for figure in _figures(normalised(text)))


def stated(text: str) -> frozenset[str]:
    """
    Each number a text states: in digits, as a share, a multiple or a rough size, or in words from
    eleven on.
    """
    return numbers(_in_digits(text, WORDS_LEAST)) | shares.stated(text) | sizes.stated(text)


def borne_out(quote: str) -> frozenset[str]:
    """Every number that words of a source bear out: also without its sign or percent."""
    plain = normalised(_in_digits(quote, 0))
    figures = (*_figures(plain, as_ranges=False), *_figures(plain))
    every = {form for figure in figures for form in figure.forms()}
    # What a source writes in words may be quoted in words of a compound, too.
    return frozenset(every) | numbers(quote) | shares.meant(quote) | sizes.meant(quote, every)


def compounds(text: str) -> frozenset[str]:
    """Every name with a number in it, such as SHA-256, 64-bit and 24/7."""
    return frozenset(_COMPOUND.findall(_dashed(text)))


def without_compounds(text: str, known: frozenset[str]) -> str:
    """Text without those of its names with numbers that are known: they state no number."""
    return _COMPOUND.sub(lambda found: " " if found[0] in known else found[0], _dashed(text))


def _dashed(text: str) -> str:
    return text.replace("\u2010", "-").replace("\u2011", "-")


def normalised(text: str) -> str:
    """Text with decimal digits of any script as ASCII, and no separators in thousands."""
    plain = text if text.isascii() else "".join(map(_plain, text))
    plain = unicodedata.normalize("NFKC", plain)
    plain = _MINUS.sub("-", plain)
    plain = _SPACED.sub(lambda found: found[0].replace(" ", ""), plain)
    return _PARTS.sub(_joined, _THOUSANDS.sub("", plain))


@dataclass(frozen=True, slots=True)
class _Figure:
    digits: str
    negative: bool
    percent: bool
    scale: int

    def shown(self) -> str:
        value = self.digits if self.scale == 1 else _scaled(self.digits, self.scale)
        return f"{'-' if self.negative else ''}{value}{'%' if self.percent else ''}"

    def forms(self) -> Iterator[str]:
        yield self.shown()
        yield replace(self, negative=False).shown()
        yield replace(self, percent=False).shown()
        yield replace(self, negative=False, percent=False).shown()
        # The 03 of 2024-12-03 is its third day.
        if re.fullmatch(r"0[1-9]", self.digits):
            yield from replace(self, digits=self.digits[1]).forms()


def _joined(parts: re.Match[str]) -> str:
    """A number in parts as one; unchanged where its parts do not go down, and so are several."""
    if not parts["rest"] and len(_PART.findall(parts[0])) < 2:
        return parts[0]
    total = section = 0
    # What the next scale must stay below, over the whole number and within its section.
    large = 10**16
    small = 10**4
    for digits, scales in _PART.findall(parts[0]):
        scale = _SMALL.get(scales[0], 1)
        if scale >= small or int(digits) * scale >= 10**4:
            return parts[0]
        section, small = section + int(digits) * scale, scale
        if scales[-1] in _MYRIADS:
            if _MYRIADS[scales[-1]] >= large:
                return parts[0]
            large, small = _MYRIADS[scales[-1]], 10**4
            total, section = total + section * large, 0
    rest = int(parts["rest"] or 0)
    # 1亿2千 is short for 1亿2千万.
    if ((section or rest) and large in (10**8, 10**12)) or rest >= small:
        return parts[0]
    return str(total + section + rest)


def _eastern(scales: str) -> int:
    """What a scale of one or two characters, such as 千万, multiplies by."""
    factor = 1
    for character in scales:
        factor *= _SMALL.get(character) or _MYRIADS[character]
    return factor


def _figures(text: str, *, as_ranges: bool = True) -> list[_Figure]:
    found: list[_Figure] = []
    following: tuple[_Figure, int] | None = None
    for match in reversed(list(_NUMBER.finditer(text))):
        scale = (
            _LETTERS.get(match["letter"])
            or _COINS.get(match["coin"])
            or _SCALES.get((match["scale"] or "").casefold())
            or _eastern(match["eastern"] or "")
        )
        percent = match["percent"] is not None
        figure = _Figure(match["figure"], match["sign"] is not None, percent, scale)
        # 5 to 10 % is 5 % to 10 %.
        if as_ranges and following and scale == 1 and not percent:
            after, start = following
            if _RANGE.fullmatch(text[match.end("figure") : start]):
                figure = replace(figure, percent=after.percent, scale=after.scale)
        found.append(figure)
        following = figure, match.start()
    return found


def _scaled(digits: str, scale: int) -> str:
    # Only what is surely one number of a human size is multiplied: no power is worked out for a
    # stranger, whose 1e999999999 million would be an error.
    if not re.fullmatch(r"\d{0,15}[.,]?\d{0,15}", digits):
        return f"{digits}*{scale}"
    value = Decimal(digits.replace(",", ".")) * scale
    return str(int(value)) if value == value.to_integral_value() else str(value.normalize())


def _plain(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if "<fraction>" in unicodedata.decomposition(character):
        return f" {unicodedata.normalize('NFKC', character)}"
    return {"٫": ".", "٬": ",", "−": "-"}.get(character, character)


def _in_digits(text: str, least: int) -> str:
    """Text with number words as digits, where they make a number of at least so much."""

    def written(run: re.Match[str]) -> str:
        out: list[str] = []
        for value, spelt in _read(run[0]):
            # A stranger's “hundred hundred hundred …” is no number that anybody states.
            out.append(str(value) if least <= value < _SPELT_END else spelt)
        return " and ".join(out)

    return _SPELT_RUN.sub(written, text)


def _read(run: str) -> Iterator[tuple[int, str]]:
    """The numbers in a run of number words: forty-two, or one and two."""
    total = part = 0
    taken: list[str] = []
    last = 10**15  # nothing smaller than what may follow
    for word in re.findall(r"[a-z]+", run.casefold()):
        if word == "a":
            part, last, taken = 1, 1, [word]
            continue
        if word == "and":
            continue
        if word in _LARGE:
            total, part, last = total + (part or 1) * _LARGE[word], 0, 10**15
        elif word == "hundred":
            part, last = (part or 1) * 100, 100
        else:
            value = _UNITS.get(word, _TENS.get(word, 0))
            # Only forty takes a two behind it, and only a hundred takes both.
            fits = last > 99 or (last in _TENS.values() and 0 < value < 10)
            if not fits:
                yield total + part, " ".join(taken)
                total, part, taken = 0, 0, []
            part, last = part + value, max(value, 1)
        taken.append(word)
    yield total + part, " ".join(taken)
