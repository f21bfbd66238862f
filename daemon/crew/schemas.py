"""
What the crew's models answer with; they are told the names of the fields.

Bounds are enforced here by cutting rather than by refusing: an answer one question too long is
still an answer. Descriptions reach the model as part of the JSON schema.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

TEXT_MAX = 1_000
MARKDOWN_MAX = 60_000
# Beyond what any post can have in characters or bytes, so that the desk does the cutting.
POST_MAX = 4_000
POSTS_MAX = 3


def _one_line(text: str) -> str:
    return " ".join(text.split())[:TEXT_MAX]


def _lines(found: object) -> object:
    """Some models send null or a single string where a list is asked for."""
    if found is None:
        return []
    return [found] if isinstance(found, str) else found


def _at_most(count: int) -> AfterValidator:
    return AfterValidator(lambda found: found[:count])


Line = Annotated[str, AfterValidator(_one_line)]
Lines = Annotated[list[Line], BeforeValidator(_lines), _at_most(20)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class Plan(_Answer):
    """What the article is to find out."""

    angle: Line = Field(description="the one idea of the article, in a sentence")
    working_title: Line
    questions: Annotated[list[Line], BeforeValidator(_lines), Field(min_length=1), _at_most(5)] = (
        Field(description="three to five questions that the sources can answer")
    )


class ClaimNote(_Answer):
    """One finding."""

    statement: Line = Field(description="what the source says, in your words, in one sentence")
    quote: Line = Field(description="the words of the source that say so, copied exactly")
    source: Line = Field(description="the id of the source, such as S1")


class Notes(_Answer):
    """Findings on one question."""

    claims: Annotated[list[ClaimNote], BeforeValidator(_lines), _at_most(12)]
    gaps: Lines = Field(default=[], description="what the sources do not say")


class Draft(_Answer):
    """An article."""

    title: Annotated[Line, Field(min_length=1)]
    description: Line = Field(description="one or two sentences for search results")
    tags: Annotated[list[Line], BeforeValidator(_lines), _at_most(4)] = Field(
        description="one to four, lower case, letters and digits only"
    )
    markdown: Annotated[
        str, Field(min_length=1), AfterValidator(lambda text: text[:MARKDOWN_MAX])
    ] = Field(description="the body, without the title, with citations like [S2]")


class Verdict(StrEnum):
    """What the editor wants done."""

    APPROVE = "approve"
    REVISE = "revise"
    RESEARCH = "research"


class Problem(_Answer):
    """One thing to mend."""

    where: Line = ""
    problem: Line
    fix: Line = ""


class Review(_Answer):
    """The editor's judgement."""

    verdict: Verdict
    score: float = Field(ge=0, le=10, description="0 to 10")
    problems: Annotated[list[Problem], BeforeValidator(_lines), _at_most(20)] = []
    unsupported: Lines = Field(
        default=[], description="statements of claims that their quotes do not bear out"
    )
    questions: Lines = Field(default=[], description="what research should still find out")


class Announcement(_Answer):
    """What is said of an article elsewhere."""

    posts: Annotated[
        list[Annotated[str, AfterValidator(lambda text: text[:POST_MAX])]],
        BeforeValidator(_lines),
        _at_most(POSTS_MAX),
    ] = Field(
        default=[], description="one post of at most 220 characters; up to three make a thread"
    )
