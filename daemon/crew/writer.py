"""The writer: sees claims only, never the sources."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.crew.board import claim_lines
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.crew.schemas import Draft, Plan
from daemon.desk.evidence import Claim
from daemon.inference.asking import Question

Link = tuple[str, str]


def draft(
    brief: Brief, plan: Plan, claims: Sequence[Claim], earlier: Sequence[Link]
) -> Question[Draft]:
    """
    Ask for the article.

    Args:
        earlier: titles and addresses of earlier articles that it may link to.
    """
    text = f"{_assignment(brief, plan, claims, earlier)}\n\nWrite the article."
    return Question("draft", Draft, prompt("writer"), text, _tokens_max(brief), whole=True)


def revision(
    brief: Brief,
    plan: Plan,
    claims: Sequence[Claim],
    earlier: Sequence[Link],
    last: Draft,
    problems: Sequence[str],
) -> Question[Draft]:
    """Ask for the article again, with every problem of the last one."""
    text = (
        f"{_assignment(brief, plan, claims, earlier)}\n\nYour last draft:\n\n"
        f"Title: {last.title}\n\n{last.markdown}\n\n"
        "Mend each of these in turn, keep what is good, and write the whole article again:\n"
        + "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
    )
    return Question("draft", Draft, prompt("writer"), text, _tokens_max(brief), whole=True)


def _assignment(brief: Brief, plan: Plan, claims: Sequence[Claim], earlier: Sequence[Link]) -> str:
    links = "\n".join(f"- {title}: {address}" for title, address in earlier)
    return (
        f"Readers: {brief.audience}.\nVoice: {brief.voice}.\nLanguage: {brief.language}.\n"
        f"Length: {brief.words_min}-{brief.words_max} words.\n"
        f"Working title: {plan.working_title}\nAngle: {plan.angle}\n\n"
        f"Claims:\n{claim_lines(claims)}"
        + (f"\n\nEarlier articles of ours:\n{links}" if links else "")
    )


def _tokens_max(brief: Brief) -> int:
    # A word is 1.3 to 1.6 tokens in English and more elsewhere; the JSON around it is small.
    return 3 * brief.words_max + 600
