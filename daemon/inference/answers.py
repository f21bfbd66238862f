"""
From what a model wrote to a validated value.

Models fence their JSON, put raw control characters into strings and stop before the last
brackets. All of that is read; what then does not fit the schema is an `InvalidAnswer` whose text
a model can act on.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)
# Of the whole document, and not of code within it.
_END = re.compile(r"(?<!\\)[\"\]]\s*,?\s*\}[\s`]*\Z")
# Places where the document may begin; later ones are inside it.
STARTS_MAX = 20


class InvalidAnswer(Exception):
    """The answer does not fit; the message says how, in words for the model."""


def parse(text: str | None, schema: type[T], *, cut: bool = False, whole: bool = False) -> T:
    """
    Read an answer.

    Args:
        whole: half of it is worth nothing, as with an article: a missing tail is not mended.
    Raises:
        InvalidAnswer: nothing there, cut at its limit, no JSON, or not fitting the schema.
    """
    if cut:
        raise InvalidAnswer("the answer was cut off at the length limit; answer more briefly")
    if not text or not text.strip():
        raise InvalidAnswer("the answer is empty")
    try:
        document, is_mended = _document(text, schema)
    except RecursionError:
        raise InvalidAnswer("the answer is not a JSON object: nested too deep") from None
    if not isinstance(document, dict):
        raise InvalidAnswer("the answer is not a JSON object")
    if whole and is_mended and not _END.search(text):
        raise InvalidAnswer("the answer ends before it is complete; answer it whole")
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        found = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:8]
        ]
        raise InvalidAnswer("; ".join(found)) from None


@cache
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


def _document(text: str, schema: type[BaseModel]) -> tuple[Any, bool]:
    """The JSON in an answer: alone, in a fence or amid prose; whether it had to be mended."""
    # strict=False lets raw newlines and tabs stand inside strings.
    decoder = json.JSONDecoder(strict=False)
    text = _REASONING.sub("", text)
    try:
        return decoder.decode(text), False
    except ValueError:
        starts = [match.start() for match in re.finditer(r"\{", text)][:STARTS_MAX]
    for start in starts:
        try:
            found, _ = decoder.raw_decode(text, start)
        except ValueError:
            continue
        # Prose may have braces of its own.
        if isinstance(found, dict) and found.keys() & schema.model_fields.keys():
            return found, False
    # 43 ms, and only for answers that need it.
    from json_repair import repair_json

    mended = (repair_json(text[start:], return_objects=True) for start in starts)
    return next((found for found in mended if isinstance(found, dict)), None), True
