"""The publicist: says in a short post that there is an article."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daemon.crew.board import claim_line
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.crew.schemas import Announcement
from daemon.desk.evidence import Claim
from daemon.desk.manuscript import Manuscript
from daemon.desk.markdown import CITATION
from daemon.inference.asking import Question

ANNOUNCEMENT_TOKENS_MAX = 400
# A post has room for one thing; these are to choose from.
CLAIMS_CHARACTERS_MAX = 3_000
SHOWN_CHARACTERS_MAX = 1_500


def announcement(
    brief: Brief, manuscript: Manuscript, claims: Sequence[Claim]
) -> Question[Announcement]:
    """
    Ask for the post.

    Args:
        claims: the run's; shown are those of the sources that the article cites.
    """
    lines = "\n".join(_cited(manuscript, claims)) or "none"
    text = (
        f"Readers: {brief.audience}.\nVoice: {brief.voice}.\nLanguage: {brief.language}.\n\n"
        f"Claims:\n{lines}\n\nTitle: {manuscript.title}\nDescription: {manuscript.description}\n\n"
        "Announce the article."
    )
    return _question(text)


def again(
    question: Question[Announcement], posts: Sequence[str], findings: Sequence[str]
) -> Question[Announcement]:
    """Ask once more, with what the desk found."""
    shown = "\n".join(f"{number}. {post}" for number, post in enumerate(posts, start=1))
    found = "\n".join(f"- {finding}" for finding in findings)
    return _question(
        f"{question.prompt}\n\nYour last answer:\n{shown[:SHOWN_CHARACTERS_MAX] or 'no post'}\n\n"
        f"It cannot appear:\n{found[:SHOWN_CHARACTERS_MAX]}\n\nMend each of these."
    )


def by_code(manuscript: Manuscript) -> Iterator[str]:
    """What an article says of itself, the more telling first."""
    if manuscript.description:
        end = " " if manuscript.title.endswith(("?", "!", ".", "…")) else ": "
        yield f"{manuscript.title}{end}{manuscript.description}"
        yield manuscript.description
    yield manuscript.title


def _question(text: str) -> Question[Announcement]:
    return Question(
        "announcement", Announcement, prompt("publicist"), text, ANNOUNCEMENT_TOKENS_MAX
    )


def _cited(manuscript: Manuscript, claims: Sequence[Claim]) -> Iterator[str]:
    cited = {f"S{number}" for number in CITATION.findall(manuscript.markdown)}
    room = CLAIMS_CHARACTERS_MAX
    for claim in claims:
        line = claim_line(claim)
        if claim.source in cited and len(line) < room:
            room -= len(line) + 1
            yield line
