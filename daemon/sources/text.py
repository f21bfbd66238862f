"""Plain text out of what strangers wrote: no markup, no characters that hide or steer."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

import regex

# Neither pattern can look past the next "<", so both are linear in what strangers send.
_BLOCK = re.compile(
    r"</?(?:p|div|br|li|ul|ol|h[1-6]|tr|table|blockquote|pre|section|article)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-z/!?][^<>]*>", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|noscript)\b[^<>]*>", re.IGNORECASE | re.ASCII)
MARKUP_MAX = 200_000
# Shown as nothing, though Unicode calls them letters or marks; some can carry bytes.
_BLANK = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")
# Format characters that show: signs that enclose the numbers behind them.
_SHOWN_FORMAT = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
# Where a joiner or selector changes what is seen: RFC 5892, appendix A, and emoji sequences.
_LEGITIMATE = regex.compile(
    r"(?<=\p{Canonical_Combining_Class=Virama})[\u200c\u200d](?=[\p{L}\p{M}])"
    r"|(?<=[\p{Joining_Type=D}\p{Joining_Type=L}]\p{Joining_Type=T}*+)\u200c"
    r"(?=(?:(?!\u200c)\p{Joining_Type=T})*[\p{Joining_Type=D}\p{Joining_Type=R}])"
    r"|(?<=\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|\ufe0f)?)\u200d"
    r"(?=\p{Extended_Pictographic})"
    r"|(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}])[\ufe0e\ufe0f]"
    r"|(?<=[0-9#*])\ufe0f(?=\u20e3)"
)
_SPACE = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])|\n+")


def is_hidden(character: str) -> bool:
    """
    Whether a character, by itself, shows nothing and may carry something.

    Control, format (zero-width, bidi overrides, the tag block), private-use and unassigned
    characters, fillers and the variation selectors that carry bytes; not newline and tab.
    """
    if character in "\n\t":
        return False
    if character in _SHOWN_FORMAT:
        return False
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Cn")
    return (
        hidden
        or character in _BLANK
        or "\ufe00" <= character <= "\ufe0d"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def hidden_in(text: str) -> list[str]:
    """
    Every character of a text that shows nothing and has no work to do where it stands.

    Joiners have work in Persian, in the scripts of India and between emoji, and the emoji
    selector behind an emoji.
    """
    # A text has few different characters, and nearly every text has none of these.
    if not any(_is_idle(character) for character in set(text)):
        return []
    return [found for found in _LEGITIMATE.sub("", text) if _is_idle(found)]


def without_hidden(text: str) -> str:
    """The text without the characters that `hidden_in` finds."""
    if not hidden_in(text):
        return text
    kept, position = [], 0
    for legitimate in _LEGITIMATE.finditer(text):
        kept.append("".join(c for c in text[position : legitimate.start()] if not _is_idle(c)))
        kept.append(legitimate[0])
        position = legitimate.end()
    kept.append("".join(c for c in text[position:] if not _is_idle(c)))
    out = "".join(kept)
    # What stood between two characters may have been what kept a joiner idle, or at work.
    return out if out == text else without_hidden(out)


def _is_idle(character: str) -> bool:
    return is_hidden(character) or character in "\ufe0e\ufe0f"


def clean(text: str) -> str:
    """Text without hidden characters, single spaces, one newline between lines."""
    shown = without_hidden(text.replace("\u00a0", " "))
    return _LINES.sub("\n", _SPACE.sub(" ", shown)).strip()


def from_markup(markup: str) -> str:
    """
    The text of an HTML fragment, a line per block.

    The result is plain text, to be escaped like any other before it is shown as markup.
    """
    lines = _BLOCK.sub("\n", _without_scripts(markup[:MARKUP_MAX]))
    return clean(html.unescape(_TAG.sub("", lines)))


def _without_scripts(markup: str) -> str:
    """Without what no reader sees; an element that is never closed takes the rest with it."""
    kept, position = [], 0
    while (opening := _UNSEEN.search(markup, position)) is not None:
        kept.append(markup[position : opening.start()])
        # Not in a lower-case copy, which can be longer: that of İ is two characters.
        closing = re.compile(f"</{opening[1]}", re.IGNORECASE | re.ASCII).search(
            markup, opening.end()
        )
        if closing is None:
            return "".join(kept)
        position = closing.start()
    return "".join([*kept, markup[position:]])


def sentences(text: str) -> list[str]:
    """Split where a line ends, or a sentence before one that begins with a capital or number."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def shortened(full: str, length_max: int) -> str:
    """At most so many characters, cut at a word."""
    if len(full) <= length_max:
        return full
    return full[: length_max - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def one_line(said: str, length_max: int) -> str:
    """What a stranger said, on one line of at most so many characters."""
    # Cut twice, so that cleaning never works on more than it has to.
    return shortened(" ".join(clean(said[: 4 * length_max]).split()), length_max)


# Marks are part of a word: without its vowel signs a Hindi word would fall to pieces.
_PART = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*"
_WORD = regex.compile(rf"{_PART}(?:['’.+#-]{_PART})*[+#]*")
_JOINERS = str.maketrans("", "", "\u200c\u200d\ufe0e\ufe0f")
# Scripts that set no space between words.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


def words(text: str) -> list[str]:
    """Lower-case words, as they are compared everywhere."""
    return list(_WORD.findall(text.casefold().translate(_JOINERS)))


def is_word_inner(character: str) -> bool:
    """Whether a word goes on with this character; a script without spaces has no such."""
    if _UNSPACED.match(character):
        return False
    return character == "_" or unicodedata.category(character)[0] in "LNM"


def word_count(text: str) -> int:
    """
    Words, where a script sets no spaces counted as two characters a word.

    A rough measure for limits on length; not how words are compared.
    """
    unspaced = len(_UNSPACED.findall(text))
    return len(words(_UNSPACED.sub(" ", text))) + -(-unspaced // 2)


_COMMON = frozenset([
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "been",
    "before", "but", "by", "can", "do", "does", "for", "from", "had", "has", "have", "how", "i",
    "if", "in", "into", "is", "it", "its", "just", "like", "make", "many", "may", "more", "most",
    "my", "new", "no", "not", "of", "on", "one", "only", "or", "other", "our", "out", "over",
    "part", "so", "some", "such", "than", "that", "the", "their", "them", "then", "there",
    "these", "they", "this", "those", "to", "too", "up", "use", "used", "using", "very", "was",
    "we", "were", "what", "when", "where", "which", "while", "who", "why", "will", "with",
    "would", "you", "your",
])  # fmt: skip


@lru_cache(maxsize=1024)
def keywords(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(_stem(w) for w in words(text) if w not in _COMMON and len(w) > 1)


def _stem(word: str) -> str:
    # Enough to let servers meet server; a stemmer would have to know the language.
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
