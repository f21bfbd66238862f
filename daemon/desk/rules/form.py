"""What platforms take and what readers deserve: lengths, tags, headings, plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from daemon.desk.evidence import alike
from daemon.desk.figures import numbers
from daemon.desk.manuscript import WORDS_FLOOR, Context, Finding, Manuscript, excerpt
from daemon.desk.markdown import CITATION, read
from daemon.sources.text import sentences, word_count, words

TITLE_MAX = 128
BODY_BYTES_MAX = 800 * 1024
# What layout adds to a body (sources, disclosure) must fit as well.
LAYOUT_BYTES = 16 * 1024
TAGS_MAX = 4
TAG_MAX = 30
TAGS_TOGETHER_MAX = 126
DESCRIPTION_MAX = 300
REPEAT_SIMILARITY = 0.9
# LIX, Björnsson's index of reading: words a sentence plus per cent of words over six letters.
# Official texts measure 50 to 60. It needs no syllables, so it means something in more than one
# language.
LIX_MAX = 65
LIX_WORDS_MIN = 100
LONG_WORD_MIN = 7
_WORN_OUT = (
    "in today's fast-paced world", "in today's digital age", "in the ever-evolving",
    "ever-changing landscape", "game-changer", "game changer", "unlock the power",
    "unleash the power", "delve into", "dive deep into", "let's dive in", "buckle up",
    "it's important to note that", "it is important to note that", "in conclusion,",
    "a testament to", "rich tapestry", "navigate the complexities", "look no further",
    "harness the power", "revolutionize the way", "at the end of the day",
)  # fmt: skip


def not_a_repeat(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It is not an earlier article again."""
    title = alike(manuscript.title).casefold()
    for earlier in context.earlier_titles:
        other = alike(earlier).casefold()
        if title == other or (
            numbers(title) == numbers(other)
            and SequenceMatcher(None, title, other).ratio() >= REPEAT_SIMILARITY
        ):
            yield Finding("repeat", f"the publication already has “{earlier}”; find another angle")
            return


def title_fits(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """The title is one line of 1 to 128 characters."""
    length = len(manuscript.title)
    if not manuscript.title.strip() or length > TITLE_MAX:
        yield Finding("length", f"the title has {length} characters; give it 1 to {TITLE_MAX}")
    elif "\n" in manuscript.title:
        yield Finding("length", "the title has more than one line; give it one")


def body_fits(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """The text, with room for its sources, is within what platforms take."""
    if len(manuscript.markdown.encode("utf-8", "surrogatepass")) > BODY_BYTES_MAX - LAYOUT_BYTES:
        room = (BODY_BYTES_MAX - LAYOUT_BYTES) // 1024
        yield Finding("length", f"the text is larger than {room} kB; shorten it")


def tags_fit(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """One to four tags of lower-case letters and digits, none longer than thirty."""
    if not manuscript.tags:
        yield Finding("tags", "it has no usable tag; give one to four of letters and digits")
    if len(manuscript.tags) > TAGS_MAX or len(", ".join(manuscript.tags)) > TAGS_TOGETHER_MAX:
        yield Finding("tags", f"it has {len(manuscript.tags)} tags; give four short ones at most")
    for tag in manuscript.tags:
        if not re.fullmatch(rf"[a-z0-9]{{1,{TAG_MAX}}}", tag):
            yield Finding("tags", f"the tag “{excerpt(tag)}” is not lower-case letters and digits")


def long_enough(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It is long enough to be an article at all."""
    count = _length(manuscript)
    if context.cites and count < WORDS_FLOOR:
        yield Finding("length", f"{count} words are no article; write {context.words_min} at least")


def length_is_wanted(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It has the length the operator asked for, give or take a tenth."""
    count = _length(manuscript)
    if context.cites and count < WORDS_FLOOR:
        return
    if not context.words_min * 0.9 <= count <= context.words_max * 1.1:
        yield Finding(
            "length",
            f"it has {count} words; {context.words_min} to {context.words_max} are wanted",
            refuses=False,
        )


def headings_are_sound(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Headings begin at the second level and skip none."""
    level = 1
    for found in read(manuscript.markdown).headings:
        if found == 1 or found > level + 1:
            yield Finding("headings", "headings begin with ## and go one level at a time")
            return
        level = found


def nothing_is_worn_out(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It does without the phrases that readers have learnt to skip."""
    text = alike(f"{manuscript.title} {manuscript.description} {manuscript.markdown}").casefold()
    for phrase in _WORN_OUT:
        if phrase in text:
            yield Finding("style", f"“{phrase}” is worn out; say what you mean", refuses=False)


def reads_easily(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It reads no harder than an official letter; measured and warned about only."""
    text = CITATION.sub("", read(manuscript.markdown).spoken)
    index = lix(text)
    if index is not None and index > LIX_MAX:
        longest = max(sentences(text), key=word_count)
        yield Finding(
            "style",
            f"it reads hard (readability index {index:.0f}, wanted {LIX_MAX} or less);"
            f" shorten sentences such as “{excerpt(longest)}”",
            refuses=False,
        )


def lix(text: str) -> float | None:
    """Björnsson's index, dimensionless; None where a text is too short to measure."""
    told = words(text)
    if len(told) < LIX_WORDS_MIN:
        return None
    long = sum(len(word) >= LONG_WORD_MIN for word in told)
    return len(told) / max(1, len(sentences(text))) + 100 * long / len(told)


def _length(manuscript: Manuscript) -> int:
    return word_count(CITATION.sub("", manuscript.markdown))
