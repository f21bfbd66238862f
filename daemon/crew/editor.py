"""The editor: judges the draft against the claims."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.crew.board import claim_lines
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.crew.schemas import Draft, Review
from daemon.desk.evidence import Claim
from daemon.inference.asking import Question

REVIEW_TOKENS_MAX = 1_500


def review(
    brief: Brief,
    claims: Sequence[Claim],
    draft: Draft,
    findings: Sequence[str],
    asked_for: Sequence[str] = (),
) -> Question[Review]:
    """
    Ask for a judgement.

    Args:
        findings: what the desk found in this draft.
        asked_for: what was to be mended in the draft before.
    """
    earlier = (
        "Asked for last time, one by one; what is still not mended is a problem again:\n"
        + "\n".join(f"{number}. {line}" for number, line in enumerate(asked_for, start=1))
        + "\n\n"
        if asked_for
        else ""
    )
    desk = "\n".join(f"- {finding}" for finding in findings) or "- none"
    text = (
        f"Readers: {brief.audience}.\nVoice: {brief.voice}.\n"
        f"Length wanted: {brief.words_min}-{brief.words_max} words.\n\n"
        f"Claims:\n{claim_lines(claims)}\n\nDraft:\n\nTitle: {draft.title}\n"
        f"Description: {draft.description}\nTags: {', '.join(draft.tags)}\n\n{draft.markdown}\n\n"
        f"The desk's findings:\n{desk}\n\n{earlier}Judge the draft."
    )
    return Question("review", Review, prompt("editor"), text, REVIEW_TOKENS_MAX)
