"""
From what a model wrote to a validated value.

Models fence their JSON, put raw control characters into strings and stop before the last
brackets. All of that is read; what then does not fit the schema is an `InvalidAnswer` whose text
a model can act on.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)(?:\n```|\Z)", re.DOTALL)


class InvalidAnswer(Exception):
    """The answer does not fit; the message says how, in words for the model."""


def parse(text: str | None, schema: type[T], *, cut: bool = False) -> T:
    """
    Read an answer.

    Raises:
        InvalidAnswer: nothing there, cut at its limit, no JSON, or not fitting the schema.
    """
    if cut:
        raise InvalidAnswer("the answer was cut off at the length limit; answer more briefly")
    if not text or not text.strip():
        raise InvalidAnswer("the answer is empty")
    document = _document(text)
    if not isinstance(document, dict):
        raise InvalidAnswer("the answer is not a JSON object")
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        found = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:8]
        ]
        raise InvalidAnswer("; ".join(found)) from None


def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of an answer as strict mode wants it: every field, and no other."""
    document = schema.model_json_schema()
    for part in (document, *document.get("$defs", {}).values()):
        if "properties" in part:
            part["additionalProperties"] = False
            part["required"] = list(part["properties"])
            for field in part["properties"].values():
                # Strict mode knows none of these; we check them ourselves.
                for keyword in ("default", "minimum", "maximum", "minItems", "minLength"):
                    field.pop(keyword, None)
    return document


def _document(text: str) -> Any:
    fenced = _FENCE.search(text)
    for candidate in (text, fenced[1] if fenced else text):
        try:
            # strict=False lets raw newlines and tabs stand inside strings.
            return json.loads(candidate, strict=False)
        except ValueError:
            continue
    start = text.find("{")
    if start < 0:
        return None
    from json_repair import repair_json

    return repair_json(fenced[1] if fenced else text[start:], return_objects=True)
