"""Whatever a model writes is read, or refused in words that it can act on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from daemon.crew.schemas import Draft, Notes, Plan, Review
from daemon.inference.answers import InvalidAnswer, json_schema, parse

CLAIM = {"statement": "It moved 42 litres.", "quote": "moved 42 litres", "source": "S1"}
NOTES: dict[str, Any] = {"claims": [CLAIM], "gaps": ["who paid"]}
MARKDOWN = "Some text.\n\n```python\nprint('{}')\n```\n\nAnd the end of it [S1]."
DRAFT: dict[str, Any] = {
    "title": "On sluices",
    "description": "About sluices.",
    "tags": ["sluices"],
    "markdown": MARKDOWN,
}
REVIEW: dict[str, Any] = {"verdict": "approve", "score": 7}
PLAN: dict[str, Any] = {"angle": "One idea.", "working_title": "On it", "questions": ["Why?"]}

GOOD = json.dumps(NOTES)
WRAPPED = {
    "plain": GOOD,
    "indented": json.dumps(NOTES, indent=2),
    "white space": f"\n\n  {GOOD}\n ",
    "a fence": f"```json\n{GOOD}\n```",
    "a bare fence": f"```\n{GOOD}\n```",
    "a fence in capitals": f"```JSON\n{GOOD}\n```",
    "a fence that was not closed": f"```json\n{GOOD}",
    "a fence in prose": f"Here are the notes:\n\n```json\n{GOOD}\n```\n\nI hope they help.",
    "prose before": f"Here are the notes: {GOOD}",
    "prose after": f"{GOOD}\n\nI hope they help.",
    "prose around": f"Sure! {GOOD} Anything else?",
    "braces before": f"I filled in the {{template}} as asked:\n{GOOD}",
    "braces after": f"Here are the notes: {GOOD} I hope the {{notes}} help.",
    "a byte-order mark": f"\ufeff{GOOD}",
    "a comma too many": GOOD[:-1] + ",}",
    "the last brackets missing": GOOD[:-3],
    "single quotes": str(NOTES),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_notes_are_read_through(kind: str) -> None:
    notes = parse(WRAPPED[kind], Notes)
    assert [claim.model_dump() for claim in notes.claims] == [CLAIM]
    assert notes.gaps == ["who paid"]


def raw(document: dict[str, Any]) -> str:
    """JSON with newlines standing bare in its strings, as models write it."""
    return json.dumps(document).replace("\\n", "\n")


def test_raw_control_characters_in_a_string_are_read() -> None:
    assert parse(raw(DRAFT), Draft).markdown == MARKDOWN
    tabbed = json.dumps(DRAFT | {"markdown": "a\tb\x0bc"}).replace("\\t", "\t")
    assert parse(tabbed.replace("\\u000b", "\x0b"), Draft).markdown == "a\tb\x0bc"


CODE = {
    "escaped": json.dumps(DRAFT),
    "bare newlines": raw(DRAFT),
    "a fence": f"```json\n{json.dumps(DRAFT)}\n```",
    "a fence and bare newlines": f"```json\n{raw(DRAFT)}\n```",
    "prose and bare newlines": f"Here it is:\n{raw(DRAFT)}\nDone.",
    "a comma too many": json.dumps(DRAFT)[:-1] + ",}",
    "a comma too many and bare newlines": raw(DRAFT)[:-1] + ",}",
}


@pytest.mark.parametrize("kind", CODE)
def test_an_article_with_code_in_it_is_never_cut_at_its_own_fence(kind: str) -> None:
    draft = parse(CODE[kind], Draft)
    assert draft.markdown == MARKDOWN
    assert draft.title == "On sluices"


@pytest.mark.parametrize("kind", [kind for kind in CODE if "comma" not in kind])
def test_what_a_model_says_behind_a_whole_article_does_not_spoil_it(kind: str) -> None:
    draft = parse(f"{CODE[kind]}\n\nLet me know what to change.", Draft, whole=True)
    assert draft.markdown == MARKDOWN


@pytest.mark.parametrize("kind", ["escaped", "bare newlines"])
def test_half_an_article_is_not_mended(kind: str) -> None:
    """Wherever it was cut, behind a bracket of its own code, too."""
    text = CODE[kind]
    for length in range(len(text)):
        for end in ("", "\n\nLet me know what to change."):
            with pytest.raises(InvalidAnswer):
                parse(text[:length] + end, Draft, whole=True)


def test_a_whole_article_with_a_slip_is_mended() -> None:
    assert parse(CODE["a comma too many"], Draft, whole=True).markdown == MARKDOWN


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_an_empty_answer_is_called_empty(text: str | None) -> None:
    with pytest.raises(InvalidAnswer, match="empty"):
        parse(text, Notes)


@pytest.mark.parametrize(
    "text",
    ["[]", "[1, 2]", f"[{GOOD}]", "true", "null", "12", '"text"', "I cannot do that.", "```"],
)
def test_what_is_no_object_is_called_so(text: str) -> None:
    with pytest.raises(InvalidAnswer, match="not a JSON object"):
        parse(text, Notes)


def test_a_whole_answer_cut_at_its_limit_is_refused_all_the_same() -> None:
    with pytest.raises(InvalidAnswer, match="cut off at the length limit"):
        parse(GOOD, Notes, cut=True)
    with pytest.raises(InvalidAnswer, match="cut off"):
        parse(None, Notes, cut=True)


@pytest.mark.parametrize(
    ("schema", "document", "fields"),
    [
        (Notes, {}, ["claims"]),
        (Notes, {"claims": [{"statement": "a", "source": "S1"}]}, ["claims.0.quote"]),
        (Plan, {"angle": "a"}, ["working_title", "questions"]),
        (Draft, DRAFT | {"title": "  "}, ["title"]),
        (Draft, DRAFT | {"markdown": ""}, ["markdown"]),
        (Draft, {"title": "a"}, ["description", "tags", "markdown"]),
        (Review, {"verdict": "perhaps", "score": 7}, ["verdict"]),
        (Review, {"verdict": "approve"}, ["score"]),
        (Review, REVIEW | {"score": 11}, ["score"]),
        (Review, REVIEW | {"score": -1}, ["score"]),
        (Review, REVIEW | {"score": float("nan")}, ["score"]),
        (Review, REVIEW | {"score": float("inf")}, ["score"]),
        (Plan, PLAN | {"questions": []}, ["questions"]),
        (Plan, PLAN | {"questions": None}, ["questions"]),
    ],
)
def test_what_does_not_fit_is_named(
    schema: type[BaseModel], document: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        parse(json.dumps(document), schema)
    named = [part.split(": ")[0] for part in str(caught.value).split("; ")]
    assert named == fields


def test_a_refusal_stays_short_and_keeps_the_answer_to_itself() -> None:
    claims = [{"statement": f"secret {n}"} for n in range(12)]
    with pytest.raises(InvalidAnswer) as caught:
        parse(json.dumps({"claims": claims}), Notes)
    assert len(str(caught.value)) < 500
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


DEEP = {
    "lists": '{"claims":' + "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "closed lists": '{"claims":' + "[" * 100_000 + "]" * 100_000 + "}",
    "lists alone": "[" * 100_000,
}


@pytest.mark.parametrize("kind", DEEP)
def test_an_answer_nested_without_end_is_refused_like_any_other(kind: str) -> None:
    with pytest.raises(InvalidAnswer):
        parse(DEEP[kind], Notes)


def read(text: str, schema: type[BaseModel]) -> BaseModel | InvalidAnswer:
    """The answer, or how it does not fit."""
    try:
        return parse(text, schema)
    except InvalidAnswer as error:
        return error


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(st.sampled_from('{}[]",:`\n\\ abjson01'), max_size=60),
        st.builds(lambda cut: GOOD[:cut], st.integers(0, len(GOOD))),
        st.builds(lambda cut: f"```json\n{GOOD[:cut]}", st.integers(0, len(GOOD))),
        st.builds(lambda at, c: GOOD[:at] + c + GOOD[at + 1 :], st.integers(0, len(GOOD) - 1),
                  st.characters()),
    )
)  # fmt: skip
def test_every_text_is_an_answer_or_an_invalid_one(text: str) -> None:
    for schema in (Notes, Draft, Review):
        found = read(text, schema)
        assert isinstance(found, schema) or str(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["claims", "gaps", "verdict", "score", "problems"]), JSON))
def test_no_json_breaks_a_schema(document: dict[str, Any]) -> None:
    for schema in (Notes, Review):
        found = read(json.dumps(document), schema)
        assert isinstance(found, schema) or str(found)


# What models get wrong without meaning to


def test_null_is_an_empty_list_where_a_list_may_be_empty() -> None:
    notes = parse('{"claims": null, "gaps": null}', Notes)
    assert (len(notes.claims), notes.gaps) == (0, [])
    review = parse(
        json.dumps(REVIEW | {"problems": None, "unsupported": None, "questions": None}), Review
    )
    assert (len(review.problems), review.unsupported, review.questions) == (0, [], [])
    assert parse(json.dumps(DRAFT | {"tags": None}), Draft).tags == []


def test_a_list_left_out_is_empty() -> None:
    assert parse('{"claims": []}', Notes).gaps == []
    assert parse(json.dumps(REVIEW), Review).unsupported == []


def test_a_single_string_is_a_list_of_one() -> None:
    assert parse(json.dumps(NOTES | {"gaps": "who paid"}), Notes).gaps == ["who paid"]
    assert parse(json.dumps(DRAFT | {"tags": "sluices"}), Draft).tags == ["sluices"]
    review = parse(json.dumps(REVIEW | {"unsupported": "It moved."}), Review)
    assert review.unsupported == ["It moved."]
    assert parse(json.dumps(PLAN | {"questions": "Why?"}), Plan).questions == ["Why?"]


def test_what_is_too_long_is_cut_and_not_refused() -> None:
    questions = [f"Question {n}?" for n in range(9)]
    assert parse(json.dumps(PLAN | {"questions": questions}), Plan).questions == questions[:5]
    assert len(parse(json.dumps({"claims": [CLAIM] * 30}), Notes).claims) == 12
    draft = parse(json.dumps(DRAFT | {"tags": list("abcdefg"), "markdown": "x" * 70_000}), Draft)
    assert draft.tags == list("abcd")
    assert len(draft.markdown) == 60_000
    assert len(parse(json.dumps(PLAN | {"angle": "x" * 2_000}), Plan).angle) == 1_000
    review = parse(json.dumps(REVIEW | {"problems": [{"problem": "p"}] * 30}), Review)
    assert len(review.problems) == 20


def test_a_line_is_one_line_but_an_article_keeps_its_own() -> None:
    draft = parse(json.dumps(DRAFT | {"title": " On\n sluices\t "}), Draft)
    assert draft.title == "On sluices"
    assert draft.markdown == MARKDOWN
    claim = parse(json.dumps({"claims": [CLAIM | {"quote": "moved\n42 litres"}]}), Notes).claims[0]
    assert claim.quote == "moved 42 litres"


def test_fields_nobody_asked_for_are_passed_over() -> None:
    assert parse(json.dumps(NOTES | {"thoughts": "hm"}), Notes).gaps == ["who paid"]


@pytest.mark.parametrize("score", [0, 10, 6.5, "7"])
def test_a_score_may_be_any_number_from_0_to_10(score: object) -> None:
    assert parse(json.dumps(REVIEW | {"score": score}), Review).score == float(str(score))


# The schema as strict mode wants it

SCHEMAS: list[type[BaseModel]] = [Plan, Notes, Draft, Review]
# What strict mode of the providers is not sure to know.
FOREIGN = {"default", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength",
           "pattern", "format", "exclusiveMinimum", "exclusiveMaximum"}  # fmt: skip


def parts(document: Any) -> list[dict[str, Any]]:
    """Every schema within a schema."""
    if isinstance(document, list):
        return [part for item in document for part in parts(item)]
    if not isinstance(document, dict):
        return []
    inner = [
        part
        for key, value in document.items()
        for part in (
            [p for v in value.values() for p in parts(v)]
            if key in ("properties", "$defs")
            else parts(value)
        )
    ]
    return [document, *inner]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_object_of_a_schema_requires_all_its_fields_and_allows_no_other(
    schema: type[BaseModel],
) -> None:
    document = json_schema(schema)
    objects = [part for part in parts(document) if part.get("type") == "object"]
    assert objects
    for part in objects:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    for part in parts(document):
        assert not FOREIGN & set(part), part


@pytest.mark.parametrize(
    ("schema", "fields"),
    [
        (Plan, "angle working_title questions"),
        (Notes, "claims gaps"),
        (Draft, "title description tags markdown"),
        (Review, "verdict score problems unsupported questions"),
    ],
)
def test_a_schema_has_the_fields_of_the_contract(schema: type[BaseModel], fields: str) -> None:
    assert json_schema(schema)["required"] == fields.split()


def test_the_parts_of_notes_and_reviews_have_the_fields_of_the_contract() -> None:
    assert json_schema(Notes)["$defs"]["ClaimNote"]["required"] == ["statement", "quote", "source"]
    definitions = json_schema(Review)["$defs"]
    assert definitions["Problem"]["required"] == ["where", "problem", "fix"]
    assert definitions["Verdict"]["enum"] == ["approve", "revise", "research"]


def test_asking_for_a_schema_changes_nothing_for_the_next_one() -> None:
    assert json_schema(Review) == json_schema(Review)
    assert parse(json.dumps(REVIEW), Review).problems == []
