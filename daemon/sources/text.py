"""Plain text out of what strangers wrote: no markup, no characters that hide or steer."""

from __future__ import annotations

import html
import re
import unicodedata

# Neither pattern can look past the next "<", so both are linear in what strangers send.
_BLOCK = re.compile(
    r"</?(?:p|div|br|li|ul|ol|h[1-6]|tr|table|blockquote|pre|section|article)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-z/!?][^<>]*>", re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style|noscript)\b[^<>]*>", re.IGNORECASE)
MARKUP_MAX = 200_000
# Shown as nothing, though Unicode calls them letters or marks; some can carry bytes.
_BLANK = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")
_SPACE = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÞА-Я])|\n+")


def is_hidden(character: str) -> bool:
    """
    Whether a character shows nothing and may carry something.

    Control, format (zero-width, bidi overrides, the tag block), private-use and unassigned
    characters, fillers and the variation selectors that carry bytes; not newline and tab.
    """
    if character in "\n\t":
        return False
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Cn")
    return hidden or character in _BLANK or "\U000e0100" <= character <= "\U000e01ef"


def clean(text: str) -> str:
    """Text without hidden characters, single spaces, one newline between lines."""
    shown = "".join(" " if c == "\u00a0" else c for c in text if not is_hidden(c))
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
    lower, kept, position = markup.lower(), [], 0
    while (opening := _UNSEEN.search(markup, position)) is not None:
        kept.append(markup[position : opening.start()])
        position = lower.find(f"</{opening[1].lower()}", opening.end())
        if position < 0:
            return "".join(kept)
    return "".join([*kept, markup[position:]])


def sentences(text: str) -> list[str]:
    """Split where a line ends, or a sentence before one that begins with a capital or number."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def shortened(full: str, length_max: int) -> str:
    """At most so many characters, cut at a word."""
    if len(full) <= length_max:
        return full
    return full[: length_max - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


_WORD = re.compile(r"[^\W_]+(?:['’.+#-][^\W_]+)*[+#]*")


def words(text: str) -> list[str]:
    """Lower-case words, as they are compared everywhere."""
    return _WORD.findall(text.casefold())


_COMMON = frozenset(
    [
        "a",
        "about",
        "after",
        "all",
        "also",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "before",
        "but",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "like",
        "make",
        "many",
        "may",
        "more",
        "most",
        "my",
        "new",
        "no",
        "not",
        "of",
        "on",
        "one",
        "only",
        "or",
        "other",
        "our",
        "out",
        "over",
        "so",
        "some",
        "such",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "too",
        "up",
        "use",
        "used",
        "using",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "part",
    ]
)


def keywords(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(_stem(w) for w in words(text) if w not in _COMMON and len(w) > 1)


def _stem(word: str) -> str:
    # Enough to let servers meet server; a stemmer would have to know the language.
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
