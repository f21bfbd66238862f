"""What is told about an article is measured, and a warning never refuses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.desk.package import (
    CHARACTERS_PER_MINUTE,
    PARAGRAPH_WORDS_MAX,
    WORDS_PER_MINUTE,
    Package,
    _syllables,
    package,
    readability,
    reading_minutes,
    summary,
)
from daemon.desk.rules.form import DESCRIPTION_MAX

# Abraham Lincoln, 1863; its ease is about 65 by the counts that are usually given.
GETTYSBURG = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation,"
    " conceived in Liberty, and dedicated to the proposition that all men are created equal.\n\n"
    "Now we are engaged in a great civil war, testing whether that nation, or any nation so"
    " conceived and so dedicated, can long endure. We are met on a great battle-field of that war."
    " We have come to dedicate a portion of that field, as a final resting place for those who"
    " here gave their lives that that nation might live. It is altogether fitting and proper that"
    " we should do this.\n\n"
    "But, in a larger sense, we can not dedicate, we can not consecrate, we can not hallow this"
    " ground. The brave men, living and dead, who struggled here, have consecrated it, far above"
    " our poor power to add or detract. The world will little note, nor long remember what we say"
    " here, but it can never forget what they did here."
)
PLAIN = "The cat sat on the mat. " * 30
HARD = (
    "Organisational interoperability considerations necessitate comprehensive characterisation"
    " of heterogeneous infrastructural dependencies. "
) * 15


def packed(markdown: str = "A text.", **changes: object) -> Package:
    given = {"title": "T", "description": "D", "markdown": markdown, "tags": ("a",), **changes}
    return package(**given)  # type: ignore[arg-type]


# Words and minutes


@pytest.mark.parametrize(
    ("markdown", "words"),
    {
        "": 0,
        "one two three": 3,
        "*one* **two** [three](https://one.example/four-five)": 3,
        "one [S1] two [S2][S3].": 2,
        "one [[1]](https://one.example/a) two": 2,
        "## one\n\n- two\n- three\n\n> four": 4,
        "one\n\n```\nnot counted here\n```\n\n    nor this\n\ntwo": 2,
        "run `not this` now": 2,
        "| one | two |\n|---|---|\n| three | four |": 4,
        "one\n\n## Sources\n\n1. [A page](https://one.example)\n\n*No person wrote this.*": 1,
        "don't state-of-the-art C++ 3.14": 4,
        "C\\+\\+ 3\\.14 A&amp;B": 4,
        "水は流れる": 3,
        "Rust と水": 2,
    }.items(),
)
def test_words_are_counted_without_code_and_markup(markdown: str, words: int) -> None:
    assert packed(markdown).words == words


@pytest.mark.parametrize(
    ("words", "minutes"),
    {
        0: 0, 1: 1, WORDS_PER_MINUTE: 1, WORDS_PER_MINUTE + 1: 2, 2 * WORDS_PER_MINUTE: 2,
        10 * WORDS_PER_MINUTE: 10,
    }.items(),
)  # fmt: skip
def test_minutes_are_whole_and_rounded_up(words: int, minutes: int) -> None:
    assert reading_minutes("word " * words) == minutes
    assert packed("word " * words).reading_minutes == minutes


def test_minutes_of_a_text_without_spaces_are_counted_by_character() -> None:
    assert reading_minutes("水" * CHARACTERS_PER_MINUTE) == 1
    assert reading_minutes("水" * (CHARACTERS_PER_MINUTE + 1)) == 2
    half = "水" * CHARACTERS_PER_MINUTE + " word" * WORDS_PER_MINUTE
    assert reading_minutes(half) == 2


# Readability


def test_readability_of_a_known_text_is_about_what_others_say() -> None:
    ease = readability(GETTYSBURG)
    assert ease is not None
    assert 60 <= ease <= 75


def test_plain_words_are_easier_than_long_ones() -> None:
    plain, hard = readability(PLAIN), readability(HARD)
    assert plain is not None
    assert hard is not None
    assert plain > 100 > 0 > hard


@pytest.mark.parametrize("language", ["de", "fr-CA", "eng-x", "", "ja"])
def test_another_language_has_no_number_rather_than_a_wrong_one(language: str) -> None:
    assert packed(PLAIN, language=language).readability is None


@pytest.mark.parametrize("language", ["en", "en-GB", "EN"])
def test_english_has_one(language: str) -> None:
    assert packed(PLAIN, language=language).readability is not None


def test_a_short_text_has_none() -> None:
    assert readability("The cat sat on the mat.") is None


@pytest.mark.parametrize(
    ("word", "count"),
    {
        "a": 1, "the": 1, "make": 1, "makes": 1, "made": 1, "asked": 1, "added": 2, "wishes": 2,
        "table": 2, "tables": 2, "water": 2, "people": 2, "area": 3, "idea": 3, "video": 3,
        "science": 2, "created": 3, "being": 2, "reading": 2, "manual": 3, "database": 3,
        "organisation": 5, "state-of-the-art": 4, "x86": 1, "rhythm": 1, "2026": 1,
    }.items(),
)  # fmt: skip
def test_syllables_are_those_one_hears(word: str, count: int) -> None:
    assert _syllables(word) == count


# Description and tags


def test_the_writers_description_stands() -> None:
    assert packed("A paragraph.", description="  Mine. ").description == "Mine."


@pytest.mark.parametrize(
    ("markdown", "description"),
    {
        "": "",
        "## Only a heading": "",
        "```\ncode\n```": "",
        "## Heading\n\nThe *first* [paragraph](https://one.example) [S1].\n\nThe second.":
            "The first paragraph.",
        "One sentence.\nAnother one.": "One sentence. Another one.",
        "word " * 100: ("word " * 59).strip() + "…",
        "S. " * 3 + "X" * 400: "S. S. S.",
    }.items(),
)  # fmt: skip
def test_without_one_it_is_the_first_paragraph(markdown: str, description: str) -> None:
    assert packed(markdown, description=" ").description == description


@given(st.text(max_size=2000))
def test_a_summary_is_one_short_line(markdown: str) -> None:
    made = summary(markdown)
    assert len(made) <= DESCRIPTION_MAX
    assert made == " ".join(made.split())


def test_tags_are_what_every_platform_takes() -> None:
    assert packed(tags=("Web Dev", "web-dev", "C++", "", "日本", "x", "y")).tags == (
        "webdev", "c", "x", "y",
    )  # fmt: skip


# Evidence and warnings


def test_sources_and_claims_are_passed_on() -> None:
    made = packed(sources=3, claims=8, claims_verified=6)
    assert (made.sources, made.claims, made.claims_verified) == (3, 8, 6)


def test_an_article_that_is_in_order_has_no_warning() -> None:
    assert packed(GETTYSBURG, sources=3, claims=8, claims_verified=6).warnings == ()


def test_what_an_operator_may_want_to_know_is_a_sentence() -> None:
    assert PARAGRAPH_WORDS_MAX < 180
    long = "The water runs down the hill. " * 30
    made = packed(f"{HARD}\n\n{long}", sources=1, claims=3)
    assert all(w.endswith(".") and w[0].isupper() and "\n" not in w for w in made.warnings)
    text = " ".join(made.warnings)
    for part in (f"has {6 * 30} words", "None of 3 claims", "one source"):
        assert part in text


def test_a_sentence_without_an_end_is_told() -> None:
    (warning,) = packed("so " * 60 + "it ends.", language="de").warnings
    assert "has 62 words" in warning


@given(st.text(max_size=3000), st.sampled_from(["en", "de"]))
def test_no_text_is_too_odd_to_measure(markdown: str, language: str) -> None:
    made = packed(markdown, language=language)
    assert made.words >= 0
    assert made.reading_minutes <= made.words
    assert made == packed(markdown, language=language)
