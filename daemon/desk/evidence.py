"""
Quotes and numbers, checked against the text that was stored.

A quote must stand in its source, letter for letter once spaces, quotation marks and dashes are
made alike. A near miss is replaced by the sentence it resembles, unless the two differ in a word
that turns the sense: a negation, a limit, a number, a word that is another word. A paraphrase is
never replaced.

A statement says no more than its quote as far as words can tell: its numbers are the quote's, its
names stand in the source, and near the words of the quote it has the same negations and limits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from daemon.desk.figures import (
    borne_out,
    compounds,
    normalised,
    numbers,
    stated,
    without_compounds,
)
from daemon.desk.lures import contacts_in, order_in
from daemon.sources.text import is_word_inner, keywords, sentences, word_count, words

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
# What turns a whole clause when it stands right before it.
_LIMITS = _listed(
    "only except unless if almost nearly some most might may could allegedly reportedly"
)
# Per kind: words of it, words that can stand for them, whether a statement may not add one either.
_TURNS: tuple[tuple[frozenset[str], frozenset[str], bool], ...] = (
    (
        _NEGATIONS - _listed("few little lacks fails"),
        _listed(
            "few little lack lacks lacking fail fails failed failing impossible unable unlike"
            " prevent prevents avoid avoids refuse refuses miss missing misses against instead"
            " rather stop stops disable disabled disables unnecessary free ignore ignores except"
            " unless only"
        ),
        True,
    ),
    (_listed("only solely exclusively merely"), _listed("just alone nothing except unless"), True),
    (
        _listed("almost nearly"),
        _listed("about roughly approximately close virtually practically around most mostly"),
        True,
    ),
    (_listed("always forever"), _listed("all every each any whenever constantly never"), True),
    (
        _listed("may might could possibly perhaps maybe"),
        _listed("can potentially likely probably risk risks sometimes if possible allow allows"),
        False,
    ),
    (
        _listed("some several few"),
        _listed("many sometimes partly part parts certain various often can may might among"),
        False,
    ),
    (
        _listed("sometimes often usually mostly seldom rarely most"),
        _listed("many normally generally typically commonly frequently tend tends can may some"),
        False,
    ),
    (
        _listed("if unless except until"),
        _listed("when whenever where provided while without depending depends other but only before"
                " once as long"),
        False,
    ),
)  # fmt: skip
# Of a clause's words, those that must be shared before two are held against one another.
_SHARED_MIN = 0.6
_CLAUSE_END = re.compile(
    r"[,;:()]|\s-\s|\b(?:but|while|whereas|although|though|because|which)\b", re.IGNORECASE
)
_SAID_THAT = re.compile(
    r"\b(?:reports?|says?|writes?|read|notes?|states?|adds?|explains?) that\b", re.IGNORECASE
)
_ATTRIBUTION = re.compile(
    r"\A(?:In .{1,160}? we read that |As .{1,160}? (?:puts it|says|writes|notes), "
    r"|According to .{1,160}?, |.{1,160}? (?:reports|says|writes|notes|states|explains) that )"
)
_GAP = re.compile(r"\s*[\[(]?\.{3}[\])]?\s*")
_PART_WORDS_MIN = 3
_NAME = re.compile(r"(?<![\w'.-])[^\W\d_]\w*(?:[.&+-]\w+)*")
# Where nouns have capitals, a capital tells no name; a text with one of these, of which none is
# German, has no such nouns.
_ENGLISH = _listed(
    "the of and is are to that with a has have for by it from as on at or be been were but if when"
    " where which this these than into about using how can my our your their its we you they"
)
_SQUEEZED_MIN = 4
_DATE = re.compile(r"(?<![\w-])\d{4}-(0[1-9]|1[0-2])-\d\d(?![\d-])")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
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


def verify(
    claim: Claim, texts: Mapping[str, str], titles: Mapping[str, str] | None = None
) -> Verdict:
    """
    Check a claim's quote, and its statement's numbers, names, negations and limits.

    Args:
        texts: the stored text of each source, by id.
        titles: their titles, by id, which a statement may name. Without them the words that say
            where something was read are not looked at: “According to Some Title,” may be one.
    """
    # Models write `[S1]`, `Source 1` or `S1: its title`; one known number is the source.
    numbered = {f"S{number}" for number in _SOURCE_ID.findall(claim.source)}
    source = numbered.pop() if len(numbered) == 1 else claim.source
    if source not in texts:
        return Verdict(claim, False, f"there is no source {claim.source}")
    claim = Claim(claim.statement, claim.quote.strip(' "“”'), source)
    if word_count(claim.quote) < QUOTE_WORDS_MIN:
        return Verdict(claim, False, "the quote is too short to bear anything out")
    text, remark = texts[source], None
    if not contains(text, claim.quote):
        stored = _unshortened(claim.quote, text) or nearest_sentence(claim.quote, text)
        if stored is None:
            return Verdict(claim, False, "the quote does not stand in the source")
        claim = Claim(claim.statement, stored, source)
        remark = "the quote was a near miss; the stored sentence stands in its place"
    elif (whole := _denied(claim.quote, text)) is not None:
        claim = Claim(claim.statement, whole, source)
        remark = "the quote left out a negation before it; the whole sentence stands in its place"
    title = None if titles is None else titles.get(source, "")
    objection = _objection(claim, text, title)
    return Verdict(claim, objection is None, objection or remark)


def _objection(claim: Claim, text: str, title: str | None) -> str | None:
    """Why a quote that stands in its source does not bear its statement out, or None."""
    said, whole = alike(claim.statement), _sentence_of(claim.quote, text)
    if contacts_in(claim.quote) or contacts_in(claim.statement):
        return "the quote asks the reader to call, write or pay"
    if order_in(whole) or order_in(claim.statement):
        return "the quote tells a model what to do"
    stating = without_compounds(said, _page_compounds(text))
    if foreign := stated(stating) - borne_out(alike(claim.quote)):
        return f"the quote does not have {', '.join(sorted(foreign))}"
    named = _ATTRIBUTION.sub("", said) if title is None else said
    dated = _months(claim.quote)
    unknown = _unknown_names(named, f"{title or ''}\n{text}")
    if names := [name for name in unknown if name.casefold() not in dated]:
        return f"{', '.join(names)} is not in the source"
    return _turned(said, alike(whole))


def shortens(quote: str, text: str) -> bool:
    """
    Whether a quote is a text's words with … for some of them.

    What is left out is no negation, limit or condition, and what is kept is no single words.
    """
    parts = _parts(quote)
    if len(parts) < 2 or any(word_count(part) < _PART_WORDS_MIN for part in parts):
        return False
    gaps = _between(parts, alike(text))
    return gaps is not None and not any(_TELLING & set(words(gap)) for gap in gaps)


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
    """The whole sentence, where a quote begins just behind the negation or limit governing it."""
    wanted = alike(quote)
    for sentence in _page(text):
        at = sentence.alike.find(wanted)
        if at < 0:
            continue
        clause = re.split(r"[,;:()]|\s-\s", sentence.alike[:at])[-1]
        before = words(clause)[-NEGATION_REACH_WORDS:]
        if _NEGATIONS & set(before) or _LIMITS & set(before[-1:]):
            return sentence.stored
        return None
    return None


def _unshortened(quote: str, text: str) -> str | None:
    """The stored sentence that a quote has with … for some of its words."""
    parts = _parts(quote)
    if len(parts) < 2:
        return None
    found = (s.stored for s in _page(text) if _between(parts, s.alike) is not None)
    return next(found, None)


def _parts(quote: str) -> list[str]:
    return [part for part in _GAP.split(alike(quote)) if part]


def _between(parts: Sequence[str], text: str) -> list[str] | None:
    """What stands between the parts of a text, or None where they do not stand in it in order."""
    end, gaps = 0, []
    for part in parts:
        places = (at for at in _places(text, part) if at >= end)
        at = next((at for at in places if _is_whole(text, at, at + len(part))), None)
        if at is None:
            return None
        gaps.append(text[end:at])
        end = at + len(part)
    return gaps[1:]


def _sentence_of(quote: str, text: str) -> str:
    """The stored sentence in which a quote stands; the quote itself where it has more than one."""
    wanted = alike(quote)
    return next((s.stored for s in _page(text) if wanted in s.alike), quote)


def _turned(said: str, stored: str) -> str | None:
    """Which negation or limit one of two has, where they say the same else, as a remark."""
    mine, theirs = keywords(said), keywords(stored)
    shared = mine & theirs
    if len(shared) < max(2, _SHARED_MIN * min(len(mine), len(theirs))):
        return None
    stating = _close_words(_SAID_THAT.sub(",", said), shared)
    quoted = _close_words(stored, shared)
    for strict, soft, both_ways in _TURNS:
        lost = [word for word in quoted if word in strict]
        if lost and not (strict | soft) & _with_opposites(said, stored):
            return f"the quote says it with “{lost[0]}”, the statement does not"
        added = [word for word in stating if word in strict]
        # Another clause of the source with a fail or an if in it does not make up for a not.
        known = strict.intersection(words(stored)) or soft.intersection(quoted)
        if both_ways and added and not known:
            return f"the statement says it with “{added[0]}”, the quote does not"
    return None


def _with_opposites(text: str, other: str) -> set[str]:
    """The words of a text; one that negates a word of the other, as unused does, says `unable`."""
    found, known = set(words(text)), frozenset(words(other))
    for prefix in ("un", "in", "im", "dis", "non", "non-"):
        if any(w.startswith(prefix) and w[len(prefix) :] in known for w in found):
            return found | {"unable"}
    return found


def _close_words(text: str, shared: frozenset[str]) -> list[str]:
    """The words of those clauses whose keywords are mostly shared."""
    found: list[str] = []
    for clause in _CLAUSE_END.split(text):
        keys = keywords(clause) - _TELLING
        if keys and len(keys & shared) >= _SHARED_MIN * len(keys):
            told = words(clause)
            # May 2019 is a month.
            dated = {at for at, word in enumerate(told[:-1]) if told[at + 1].isdecimal()}
            found += [w for at, w in enumerate(told) if w != "may" or at not in dated]
    return found


def _unknown_names(said: str, text: str) -> list[str]:
    """Names in a statement, capitalised or with digits in them, that its source does not have."""
    english = bool(_ENGLISH.intersection(words(said)))
    known, squeezed = _page_names(text)
    unknown: list[str] = []
    for found in _NAME.finditer(said):
        name = found[0].removesuffix("'s").rstrip(".")
        starts = re.search(r"(?:^|[.!?:]\s*|[\"'(\[*]\s*)\Z", said[: found.start()]) is not None
        # Letters without case beside a number are words beside it: 人口は3500万.
        cased = name.upper() != name.lower() and not re.fullmatch(r"[vV]?[\d.]+\w?", name)
        digits = cased and any(c.isdigit() for c in name)
        capital = name[0].isupper() and not starts and english and len(name) > 1
        if not (digits or capital):
            continue
        for part in re.split(r"[-&+.]", name) if capital else [name]:
            small = part.casefold()
            plain = "".join(c for c in small if c.isalnum())
            stems = (small, small.removesuffix("s"), f"{small}s")
            if known.isdisjoint(stems) and (len(plain) < _SQUEEZED_MIN or plain not in squeezed):
                unknown.append(name)
                break
    return list(dict.fromkeys(unknown))


def _months(quote: str) -> frozenset[str]:
    """The names of the months of its dates in digits, in full and in three letters."""
    names = [_MONTHS[int(month) - 1] for month in _DATE.findall(alike(quote))]
    return frozenset(names) | {name[:3] for name in names}


@lru_cache(maxsize=_PAGES_KEPT)
def _page_names(text: str) -> tuple[frozenset[str], str]:
    same = alike(text).casefold()
    parts = frozenset(re.findall(r"\w+", same))
    return parts | frozenset(words(same)), "".join(c for c in same if c.isalnum())


@lru_cache(maxsize=_PAGES_KEPT)
def _page_compounds(text: str) -> frozenset[str]:
    return compounds(alike(text))


def _digits(text: str) -> list[str]:
    """Every digit group in order, those of names too."""
    return _DIGITS.findall(normalised(text))
