"""
What surrounds an article when it goes out, and what an operator may want to know of it.

Measured here and warned about, never a reason to refuse: that is for `daemon.desk.house`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import regex

from daemon.desk.markdown import parser
from daemon.desk.mending import plain_tags
from daemon.desk.rules.form import DESCRIPTION_MAX
from daemon.sources.text import sentences, shortened, word_count, words

# Silent reading of English non-fiction by adults, a mean over 190 studies: M. Brysbaert, "How many
# words do we read per minute?", Journal of Memory and Language 109 (2019).
WORDS_PER_MINUTE = 238
# Chinese and Japanese put no spaces between words. Characters a minute of Chinese read aloud, so
# rather too slow than too fast: S. Trauzettel-Klosinski and K. Dietz, "Standardized Assessment of
# Reading Performance", Investigative Ophthalmology & Visual Science 53 (2012).
CHARACTERS_PER_MINUTE = 255

# Fewer words give a number that one long word can turn around.
READABILITY_WORDS_MIN = 100
PARAGRAPH_WORDS_MAX = 150
SENTENCE_WORDS_MAX = 45

# Kana and Han, where a character is what can be counted.
_WIDE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
# The list and the line that the layout adds are no part of the reading.
_SOURCES = re.compile(r"^## Sources\s*$.*", re.MULTILINE | re.DOTALL)
# A citation, or the numbered link that it becomes, with the space before it.
_CITED = re.compile(r"[ \t]*(?:\[S\d+\]|\[\[\d+\]\]\([^)\s]*\))")


@dataclass(frozen=True, slots=True)
class Package:
    """
    An article with what is said about it.

    Args:
        description: the writer's, or the first paragraph's beginning; at most DESCRIPTION_MAX
            characters, empty where there is nothing to take it from.
        prose: the text without code, markup, citations and the list of sources.
        words: of prose, as the house rules count them.
        reading_minutes: rounded up; 0 only where there are no words.
        readability: Flesch Reading Ease, mostly 0 (very hard) to 100 (very easy); None for other
            languages than English, for which its constants mean nothing, and for short texts.
        sources: how many the article rests on.
        claims: how many were made in research; verified, those whose quote was found.
        warnings: sentences for the operator.
    """

    title: str
    description: str
    tags: tuple[str, ...]
    prose: str
    words: int
    reading_minutes: int
    readability: float | None
    sources: int
    claims: int
    claims_verified: int
    warnings: tuple[str, ...]


def package(
    *,
    title: str,
    description: str,
    markdown: str,
    tags: Sequence[str],
    language: str = "en",
    sources: int = 0,
    claims: int = 0,
    claims_verified: int = 0,
) -> Package:
    """
    Measure an article.

    Args:
        markdown: with citations like [S2], or as the layout left it.
        language: a BCP 47 tag.
        claims_verified: at most `claims`.
    """
    assert 0 <= claims_verified <= claims, (claims_verified, claims)
    body = _without_apparatus(markdown)
    paragraphs = [text for text in _paragraphs(body) if text]
    prose = "\n".join(paragraphs)
    # A heading or a table cell would pass for a very short sentence.
    running = "\n".join(_paragraphs(body, running=True))
    ease = readability(running) if _is_english(language) else None
    return Package(
        title=title,
        description=description.strip() or summary(body),
        tags=plain_tags(tags),
        prose=prose,
        words=word_count(prose),
        reading_minutes=reading_minutes(prose),
        readability=ease,
        sources=sources,
        claims=claims,
        claims_verified=claims_verified,
        warnings=(*_long(paragraphs), *_untold(sources, claims, claims_verified)),
    )


def summary(markdown: str) -> str:
    """The first sentences of the first paragraph, as a description; "" where there is none."""
    for paragraph in _paragraphs(_without_apparatus(markdown), running=True):
        kept = ""
        for sentence in sentences(paragraph):
            if kept and len(kept) + 1 + len(sentence) > DESCRIPTION_MAX:
                break
            kept = f"{kept} {sentence}".strip()
        if kept:
            return shortened(kept, DESCRIPTION_MAX)
    return ""


def reading_minutes(prose: str) -> int:
    """Whole minutes, rounded up."""
    wide = len(_WIDE.findall(prose))
    spaced = len(words(_WIDE.sub(" ", prose)))
    # Integers, so that a text of exactly two minutes does not take three.
    parts = spaced * CHARACTERS_PER_MINUTE + wide * WORDS_PER_MINUTE
    return -(-parts // (WORDS_PER_MINUTE * CHARACTERS_PER_MINUTE))


def readability(prose: str) -> float | None:
    """
    Flesch Reading Ease of an English text; None where it has too few words to say.

    The syllables are counted by spelling: on 299,000 words of technical prose 95 % have as many as
    CMUdict says, and the sum is 4 % low, which is four points too easy. Pyphen, which looks up
    where a word may be hyphenated, has 87 % and is 9 % low; textstat fetches a dictionary over the
    network when first used.
    """
    found = [w for w in words(prose) if any(c.isalpha() for c in w)]
    if len(found) < READABILITY_WORDS_MIN:
        return None
    per_sentence = len(found) / max(1, len(sentences(prose)))
    per_word = sum(_syllables(word) for word in found) / len(found)
    return round(206.835 - 1.015 * per_sentence - 84.6 * per_word, 1)


def _long(paragraphs: Sequence[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        count = word_count(paragraph)
        if count > PARAGRAPH_WORDS_MAX:
            yield f"The paragraph “{_beginning(paragraph)}” has {count} words; better make it two."
    longest = max(
        (s for paragraph in paragraphs for s in sentences(paragraph)), key=word_count, default=""
    )
    if (count := word_count(longest)) > SENTENCE_WORDS_MAX:
        yield f"The sentence “{_beginning(longest)}” has {count} words."


def _untold(sources: int, claims: int, verified: int) -> Iterator[str]:
    if claims and not verified:
        yield f"None of {claims} claims could be verified."
    if claims and sources == 1:
        yield "Everything in it rests on one source."


def _beginning(text: str) -> str:
    return shortened(text.replace("\n", " "), 60)


def _is_english(language: str) -> bool:
    return language.casefold().partition("-")[0] == "en"


def _without_apparatus(markdown: str) -> str:
    """Without citations, and without the sources and the closing line that the layout adds."""
    return _CITED.sub("", _SOURCES.sub("", markdown))


def _paragraphs(markdown: str, *, running: bool = False) -> Iterator[str]:
    """The text of each block, without code; `running`, of no heading and no table cell."""
    opened = ""
    for block in parser().parse(markdown):
        if block.type == "inline" and (opened == "paragraph_open" or not running):
            yield " ".join(_inline(block).split())
        opened = block.type


def _inline(block: Any) -> str:
    return "".join(
        child.content if child.type in ("text", "text_special") else " "
        for child in block.children or ()
        if child.type in ("text", "text_special", "softbreak", "hardbreak", "code_inline")
    )


# Syllables

_VOWELS = re.compile(r"[aeiouy]+")
# An e that is written and not spoken: made, tables, asked, wishes keeps its own.
_SILENT = re.compile(r"[^aeiouyl]e$|[aeiouy]le$|[^aeiouytd]ed$|[^aeiouyscxzghl]es$|[aeiouy]les$")
# Two vowels that are two syllables: idea, video, manual, prism, trying, being, radium, science.
_APART = re.compile(
    r"(?:^|[^ctsgq])ia|[^aeioup]eo(?!u)|[^gq]ua[^r]|ism$|ying$|[aeo]ing$|iu|rea[lt]|idea|area|crea"
    r"|[tl]uou|uou|iet|ience"
)


@cache
def _syllables(word: str) -> int:
    """As many as the spelling suggests, at least one for each part of a compound."""
    parts = re.findall(r"[a-z]+", word.casefold())
    return sum(
        max(1, len(_VOWELS.findall(p)) - bool(_SILENT.search(p)) + bool(_APART.search(p)))
        for p in parts
    ) or 1  # fmt: skip
