"""
The job in words, for the peers: read from JSON, and nothing but the standard library.

Their prompts say what ours say, in the same order, so that the difference is in the design: each
question is given every page, since choosing passages is no part of a framework.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TOKENS_MAX = 4_200


class Job:
    """What is to be written, from which pages, and where the model is."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.url: str = fields["url"]
        self.key: str = fields["key"]
        self.model: str = fields["model"]
        self.questions_max: int = fields["questions"]
        self.instructions: dict[str, str] = fields["instructions"]
        self.schemas: dict[str, Any] = fields["schemas"]
        self.brief: dict[str, str] = fields["brief"]
        self.out = Path(fields["out"])
        self.blocks = "\n\n".join(
            f'<source id="{source["id"]}" title="{source["title"]}">\n{source["text"]}\n</source>'
            for source in fields["sources"]
        )

    def body(self, role: str, schema: str, prompt: str) -> dict[str, Any]:
        """A chat request."""
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": self.instructions[role]},
                {"role": "user", "content": prompt},
            ],
            "max_tokens": TOKENS_MAX,
            "response_format": self.response_format(schema),
        }

    def response_format(self, schema: str) -> dict[str, Any]:
        """As OpenAI takes it."""
        named = {"name": schema, "schema": self.schemas[schema], "strict": True}
        return {"type": "json_schema", "json_schema": named}

    def plan(self) -> str:
        """The researcher's first prompt."""
        return f"{self.blocks}\n\n{self.about()}\n\n{PLAN}"

    def about(self) -> str:
        """What the publication is."""
        brief = self.brief
        return (
            f"The publication is about: {brief['niche']}.\nIts readers: {brief['audience']}.\n"
            f"Language: {brief['language']}."
        )

    def notes(self, question: str) -> str:
        """The researcher's prompt on one question."""
        return f"{self.blocks}\n\nQuestion: {question}\n\n{NOTES}"

    def assignment(self) -> str:
        """What the writer and the editor are told of the article."""
        brief = self.brief
        return (
            f"Readers: {brief['audience']}.\nVoice: {brief['voice']}.\n"
            f"Language: {brief['language']}.\nLength: {brief['words']} words."
        )

    def draft(self, plan: dict[str, Any], notes: list[dict[str, Any]]) -> str:
        """The writer's prompt."""
        return (
            f"{self.assignment()}\nWorking title: {plan['working_title']}\n"
            f"Angle: {plan['angle']}\n\nClaims:\n{_lines(notes)}\n\n{DRAFT}"
        )

    def review(self, notes: list[dict[str, Any]], draft: dict[str, Any]) -> str:
        """The editor's prompt."""
        return (
            f"{self.assignment()}\n\nClaims:\n{_lines(notes)}\n\nDraft:\n\n"
            f"Title: {draft['title']}\nDescription: {draft['description']}\n"
            f"Tags: {', '.join(draft['tags'])}\n\n{draft['markdown']}\n\n{REVIEW}"
        )

    def publish(self, draft: dict[str, Any], review: dict[str, Any]) -> None:
        """The publisher is code: one file, not even flushed."""
        assert review["verdict"] == "approve", review
        self.out.write_text(f"# {draft['title']}\n\n{draft['markdown']}", encoding="utf-8")


PLAN = (
    "Plan one article that these sources can carry: its angle, a working title, and three to"
    " five questions whose answers stand in the sources."
)
NOTES = (
    "Note up to six claims that answer it, each with its quote and the id of its source, and the"
    " gaps that remain."
)
DRAFT = "Write the article."
REVIEW = "Judge the draft."


def _lines(notes: list[dict[str, Any]]) -> str:
    claims = {claim["quote"]: claim for note in notes for claim in note["claims"]}
    return "\n".join(
        f'[{claim["source"]}] {claim["statement"]} | "{claim["quote"]}"'
        for claim in claims.values()
    )


def read() -> Job:
    """The job that the command line names."""
    return Job(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
