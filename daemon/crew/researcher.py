"""The researcher: a plan of questions, then notes on each over the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from daemon.crew.board import QUESTION_CHARACTERS_MAX, source_blocks
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.crew.schemas import Notes, Plan
from daemon.desk.evidence import Evidence
from daemon.inference.asking import Question

PLAN_CHARACTERS_MAX = 8_000
PLAN_TOKENS_MAX = 1_000
NOTES_TOKENS_MAX = 1_800
# With less to read than this a question is not worth its fixed part.
CHARACTERS_MIN = 3_000


def plan(brief: Brief, evidence: Sequence[Evidence], topic: str | None) -> Question[Plan]:
    """Ask what the article should find out."""
    titles = " ".join(source.title for source in evidence)
    asked = f"\nThe operator asks for this topic: {topic}" if topic else ""
    text = (
        f"{source_blocks(evidence, about=topic or titles, characters_max=PLAN_CHARACTERS_MAX)}\n\n"
        f"The publication is about: {', '.join(brief.niche)}.\n"
        f"Its readers: {brief.audience}.\nLanguage: {brief.language}.{asked}\n\n"
        "Plan one article that these sources can carry: its angle, a working title, and three to"
        " five questions whose answers stand in the sources."
    )
    return Question("plan", Plan, prompt("researcher"), text, PLAN_TOKENS_MAX)


def notes(
    brief: Brief,
    evidence: Sequence[Evidence],
    question: str,
    characters_max: int = QUESTION_CHARACTERS_MAX,
) -> Question[Notes]:
    """Ask what the sources say on one question; where that is too dear, with half to read."""
    blocks = source_blocks(evidence, about=question, characters_max=characters_max)
    text = (
        f"{blocks}\n\nQuestion: {question}\n\n"
        f"Note up to six claims that answer it, in the language {brief.language}, each with its"
        " quote and the id of its source, and the gaps that remain."
    )
    half = characters_max // 2
    shorter = partial(notes, brief, evidence, question, half) if half >= CHARACTERS_MIN else None
    return Question("notes", Notes, prompt("researcher"), text, NOTES_TOKENS_MAX, shorter)


def notes_again(
    question: Question[Notes], rejected: Sequence[str], candidates: Sequence[str]
) -> Question[Notes]:
    """Ask once more after quotes that do not stand in their source."""
    text = (
        f"{question.prompt}\n\nThese claims failed the check against the sources:\n"
        + "\n".join(rejected)
        + "\n\nSentences that do stand in the sources, for copying:\n"
        + "\n".join(candidates)
        + "\n\nGive only claims whose quotes are copied exactly."
    )
    return Question("notes", Notes, question.system, text, NOTES_TOKENS_MAX)
