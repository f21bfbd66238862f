"""
Quotes and numbers, checked against the text that was stored.

A quote must stand in its source, letter for letter once spaces, quotation marks and dashes are
made alike. A near miss is replaced by the sentence it resembles, unless the two differ in a word
that turns the sense: a negation, a limit, a number, a word that is another word. A paraphrase is
never replaced.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from daemon.desk.figures import borne_out, normalised, numbers, stated
from daemon.sources.text import is_word_inner, sentences, word_count, words

__all__ = [
    "Claim",
    "Evidence",
    "Verdict",
    "alike",
    "borne_out",
    "contains",
    "nearest_sentence",
    "numbers",
    "stated",
    "verify",
]

# Measured on synthetic slips: recovers nearly all, lets no paraphrase through.
SIMILARITY_MIN = 0.9
QUOTE_WORDS_MIN = 3
# How far before a quote a negation can stand and still govern it: "is not really safe to use".
NEGATION_REACH_WORDS = 3
# Reading a long page costs more than looking a quote up in it; 32 pages are more than a run has.
_PAGES_KEPT = 32
_ALIKE = str.maketrans(
    {
        "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‟": '"', "‘": "'", "’": "'", "‚": "'",
        "‛": "'", "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-", "…": "...",
        # Joiners, which one side of a comparison may have lost.
        "\u200c": None, "\u200d": None, "\ufe0e": None, "\ufe0f": None,
    }
)  # fmt: skip
_SOURCE_ID = re.compile(r"(?:\b|(?<=\W))[Ss]?(\d+)\b")
_DIGITS = re.compile(r"\d+")


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATIONS = _listed(
    "no not never none nor neither nothing nobody nowhere without cannot hardly barely scarcely"
    " rarely seldom few little lacks fails isn't aren't wasn't weren't don't doesn't didn't won't"
    " wouldn't can't couldn't shouldn't mustn't hasn't haven't hadn't ain't needn't"
    " kein keine nicht nie niemals ohne pas jamais sans aucun nunca sin ningún"
)
# A quote that loses one of these says something else.
_TELLING = _NEGATIONS | _listed(
    "only almost nearly about some most many all every each any both either less more least"
    " fewer if unless until except but or may might could should would can will must often"
    " sometimes usually always mostly partly before after from against below above under over"
    " than too allegedly reportedly"
)
# A slip loses and misspells words; of its own it adds no more than these.
_SLIGHT = _listed("a an the that and also its")
_PREFIXES = (
    "un", "in", "im", "il", "ir", "dis", "non", "de", "re", "mis", "a", "anti", "under", "over",
    "pre", "sub", "super",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Evidence:
    """A page as this run read it. `id` is S1, S2, …"""

    id: str
    url: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement, and the words of a source that are to bear it out."""

    statement: str
    quote: str
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a claim holds; `claim` has the stored words, `remark` what was wrong or mended."""

    claim: Claim
    verified: bool
    remark: str | None = None


def verify(claim: Claim, texts: Mapping[str, str]) -> Verdict:
    """
    Check a claim's quote and numbers.

    Args:
        texts: the stored text of each source, by id.
    """
    # Models write `[S1]`, `Source 1` or `S1: its title`; one known number is the source.
    numbered = {f"S{number}" for number in _SOURCE_ID.findall(claim.source)}
    source = numbered.pop() if len(numbered) == 1 else claim.source
    if source not in texts:
        return Verdict(claim, False, f"there is no source {claim.source}")
    claim = Claim(claim.statement, claim.quote.strip(' "“”'), source)
    if word_count(claim.quote) < QUOTE_WORDS_MIN:
        return Verdict(claim, False, "the quote is too short to bear anything out")
    remark = None
    if not contains(texts[source], claim.quote):
        stored = nearest_sentence(claim.quote, texts[source])
        if stored is None:
            return Verdict(claim, False, "the quote does not stand in the source")
        claim = Claim(claim.statement, stored, source)
        remark = "the quote was a near miss; the stored sentence stands in its place"
    elif (whole := _denied(claim.quote, texts[source])) is not None:
        claim = Claim(claim.statement, whole, source)
        remark = "the quote left out a negation before it; the whole sentence stands in its place"
    foreign = stated(alike(claim.statement)) - borne_out(alike(claim.quote))
    if foreign:
        return Verdict(claim, False, f"the quote does not have {', '.join(sorted(foreign))}")
    return Verdict(claim, True, remark)


def contains(text: str, quote: str) -> bool:
    """Whether the quote stands in the text as whole words, typography aside."""
    wanted = alike(quote)
    found = _alike_page(text)
    return bool(wanted) and any(
        _is_whole(found, at, at + len(wanted)) for at in _places(found, wanted)
    )


def nearest_sentence(quote: str, text: str) -> str | None:
    """The stored sentence that a quote slipped from, with the same numbers and sense, or None."""
    wanted, best, best_ratio = alike(quote), None, SIMILARITY_MIN
    vocabulary = frozenset(words(wanted))
    matcher = SequenceMatcher(None, b=wanted, autojunk=False)
    for sentence in _page(text):
        if not _comparable(len(wanted), len(sentence.alike)):
            continue
        shared = len(vocabulary & sentence.words)
        if 2 * shared < max(len(vocabulary), len(sentence.words)):
            continue
        matcher.set_seq1(sentence.alike)
        if matcher.real_quick_ratio() < best_ratio or matcher.quick_ratio() < best_ratio:
            continue
        ratio = matcher.ratio()
        if ratio >= best_ratio and says_the_same(quote, sentence.stored):
            best, best_ratio = sentence.stored, ratio
    return best


def says_the_same(quote: str, stored: str) -> bool:
    """
    Whether a slipped quote kept the sense of the stored sentence, as far as words can tell.

    Its digits are the same and in the same order; what it lost is no negation, limit or condition;
    what it added is an article at most; and a word that changed is misspelt, not another word.
    """
    if _digits(quote) != _digits(stored) or numbers(quote) != numbers(stored):
        return False
    said, meant = words(alike(quote)), words(alike(stored))
    lost: list[str] = []
    added: list[str] = []
    matcher = SequenceMatcher(None, said, meant, autojunk=False)
    for kind, from_said, to_said, from_meant, to_meant in matcher.get_opcodes():
        old, new = said[from_said:to_said], meant[from_meant:to_meant]
        if kind == "equal" or "".join(old).replace("-", "") == "".join(new).replace("-", ""):
            continue
        if len(old) == len(new) and all(map(_is_misspelt, old, new)):
            continue
        lost += new
        added += old
    for word in list(added):
        # Where words repeat, a misspelt one and its original need not meet in the alignment.
        originals = [other for other in lost if other != word and _is_misspelt(word, other)]
        if originals:
            added.remove(word)
            lost.remove(originals[0])
    return not (_TELLING & set(lost) or set(added) - _SLIGHT)


def alike(text: str) -> str:
    """Text with spaces, quotation marks, dashes and compatibility forms made the same."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_ALIKE).split())


@dataclass(frozen=True, slots=True)
class _Sentence:
    stored: str
    alike: str
    words: frozenset[str]


@lru_cache(maxsize=_PAGES_KEPT)
def _page(text: str) -> Sequence[_Sentence]:
    made = [(stored, alike(stored)) for stored in sentences(text)]
    return [_Sentence(stored, same, frozenset(words(same))) for stored, same in made]


@lru_cache(maxsize=_PAGES_KEPT)
def _alike_long(text: str) -> str:
    return alike(text)


def _alike_page(text: str) -> str:
    # Quotes are looked into as well; they must not push the pages out.
    return _alike_long(text) if len(text) > 2_000 else alike(text)


def _places(text: str, wanted: str) -> Iterator[int]:
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether a stretch begins and ends with words, and neither inside a number."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return not (
        (before and is_word_inner(before[-1]))
        or (after and is_word_inner(after[0]))
        or re.fullmatch(r"\d[.,]", before)
        or re.fullmatch(r"[.,]\d", after)
    )


def _comparable(one: int, other: int) -> bool:
    """Whether texts of these lengths can be as similar as is asked for."""
    return 2 * min(one, other) >= SIMILARITY_MIN * (one + other)


def _is_misspelt(said: str, meant: str) -> bool:
    """Whether one word is the other with a letter or two astray, and not its opposite."""
    if said.removesuffix("'s") == meant.removesuffix("'s"):
        return True
    if len(meant) >= 5 and said[0] == meant[0] and sorted(said) == sorted(meant):
        return True  # letters changed places
    short, long = sorted((said, meant), key=len)
    if {said, meant} & _TELLING or any(long == prefix + short for prefix in _PREFIXES):
        return False
    blocks = SequenceMatcher(None, said, meant, autojunk=False).get_matching_blocks()
    astray = len(long) - sum(block.size for block in blocks)
    # A letter lost or doubled; otherwise words that begin alike and are long enough to tell.
    if astray == 1 and len(long) == len(short) + 1:
        return True
    return said[0] == meant[0] and len(short) >= 4 and astray <= (1 if len(short) < 8 else 2)


def _denied(quote: str, text: str) -> str | None:
    """The whole sentence, where a quote begins just behind the negation that governs it."""
    wanted = alike(quote)
    for sentence in _page(text):
        at = sentence.alike.find(wanted)
        if at < 0:
            continue
        clause = re.split(r"[,;:()]|\s-\s", sentence.alike[:at])[-1]
        if _NEGATIONS & set(words(clause)[-NEGATION_REACH_WORDS:]):
            return sentence.stored
        return None
    return None


def _digits(text: str) -> list[str]:
    """Every digit group in order, those of names too."""
    return _DIGITS.findall(normalised(text))
