"""What the desk judges, what it judges by, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.desk.evidence import Claim, Evidence

# Fewer words than this are no article, whatever the operator asked for.
WORDS_FLOOR = 60


@dataclass(frozen=True, slots=True)
class Manuscript:
    """An article as the desk sees it: the body has citations like [S2] and no title."""

    title: str
    description: str
    tags: tuple[str, ...]
    markdown: str


@dataclass(frozen=True, slots=True)
class Context:
    """
    What a manuscript is held against.

    Args:
        claims: verified ones only.
        links: addresses it may link to: pages read for this run, or a digest's entries.
        prompts: standing instructions, whose text must not appear.
        secrets: values that must never appear.
        cites: whether it rests on citations; a digest does not.
    """

    evidence: Mapping[str, Evidence]
    claims: Sequence[Claim]
    links: frozenset[str]
    earlier_titles: Sequence[str] = ()
    prompts: Sequence[str] = ()
    secrets: Sequence[str] = field(default=(), repr=False)
    words_min: int = WORDS_FLOOR
    words_max: int = 100_000
    cites: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is not kept, where, and what to do about it."""

    rule: str
    message: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


Rule = Callable[[Manuscript, Context], Iterator[Finding]]
EXCERPT_MAX = 80


def excerpt(text: str) -> str:
    """The words concerned, on one line and short enough for a message."""
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT_MAX else flat[: EXCERPT_MAX - 1] + "…"


def around(text: str, start: int, end: int) -> str:
    """The words around a place."""
    return excerpt(text[max(0, start - 30) : end + 40])
