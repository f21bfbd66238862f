"""
The bulletin board of a run: how its evidence and its claims appear in prompts.

Roles share this and not each other's transcripts: a source is a `<source>` block, a claim is one
line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from daemon.desk.evidence import Claim, Evidence
from daemon.sources.text import keywords, sentences

QUESTION_CHARACTERS_MAX = 12_000
PARAGRAPH_MAX = 2_000
_TAG = re.compile(r"<\s*(/?)\s*source", re.IGNORECASE)


def claim_line(claim: Claim) -> str:
    """One claim as prompts show it."""
    return f'[{claim.source}] {claim.statement} | "{claim.quote}"'


def claim_lines(claims: Sequence[Claim]) -> str:
    """Every claim, one a line."""
    return "\n".join(map(claim_line, claims))


def source_blocks(evidence: Sequence[Evidence], *, about: str, characters_max: int) -> str:
    """
    The passages that speak most of a question, within a bound, each under its source.

    Choosing is code's work: paying a model to read the same bytes again is not.
    """
    chosen = _passages(evidence, about, characters_max)
    return "\n\n".join(
        f'<source id="{source.id}" title="{html.escape(source.title)}">\n{passages}\n</source>'
        for source in evidence
        if (passages := _harmless("\n".join(chosen[source.id])))
    )


def _passages(
    evidence: Sequence[Evidence], about: str, characters_max: int
) -> dict[str, list[str]]:
    """Per source, the paragraphs to show, in their own order."""
    wanted = keywords(about)
    paragraphs = [
        (source.id, index, paragraph)
        for source in evidence
        for index, paragraph in enumerate(_pieces(source.text))
    ]

    def merit(item: tuple[str, int, str]) -> tuple[int, int]:
        # A source's first paragraphs say what the rest is about.
        return len(wanted & keywords(item[2])), -item[1]

    room, taken = characters_max, set()
    for source_id, index, paragraph in sorted(paragraphs, key=merit, reverse=True):
        if len(paragraph) + 1 <= room:
            room -= len(paragraph) + 1
            taken.add((source_id, index))
    chosen: dict[str, list[str]] = {source.id: [] for source in evidence}
    for source_id, index, paragraph in paragraphs:
        if (source_id, index) in taken:
            chosen[source_id].append(paragraph)
    return chosen


def _pieces(text: str) -> list[str]:
    """Paragraphs; one too long to be shown whole in its sentences."""
    return [
        piece
        for paragraph in text.split("\n")
        for piece in ([paragraph] if len(paragraph) <= PARAGRAPH_MAX else sentences(paragraph))
    ]


def _harmless(text: str) -> str:
    """A source cannot close its own block or open another."""
    return _TAG.sub(r"‹\1source", text)
