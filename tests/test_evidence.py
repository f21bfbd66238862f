"""A quote stands in its source, or it does not pass."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.desk.evidence import Claim, Verdict, contains, nearest_sentence, numbers, verify

SOURCE = (
    "The daemon keeps “its own” ledger – and it never spends what isn’t there.\n"
    "Version 3 of the protocol moved 1,000 requests a second on a Raspberry\u00a0Pi.\n"
    "The lock file is written before the first request, and removed after the last one.\n"
    "IPv6 has been on by default since 2019. It costs 1,500.75 credits a year, not 3.5 a day."
)
TEXTS = {"S1": SOURCE, "S2": "Another page, which speaks of gardens and of nothing else."}


def check(quote: str, statement: str = "It does.", source: str = "S1") -> Verdict:
    return verify(Claim(statement, quote, source), TEXTS)


@pytest.mark.parametrize(
    "quote",
    [
        "The daemon keeps “its own” ledger – and it never spends what isn’t there.",
        'The daemon keeps "its own" ledger - and it never spends what isn\'t there.',
        "keeps „its own“ ledger — and it never",
        "keeps «its own» ledger \u2011 and it never",
        "it never spends what isn‘t there",
        "on a Raspberry Pi",
        "on a\nRaspberry\t\u2003Pi",
        "  “The lock file is written before the first request”  ",
        '"removed after the last one."',
        "what isn’t there.\nVersion 3 of",
        "ＩＰｖ６ has been on by default",
    ],
)
def test_a_quote_is_found_whatever_its_quotation_marks_dashes_and_spaces(quote: str) -> None:
    verdict = check(quote)
    assert verdict.verified
    assert verdict.remark is None


@pytest.mark.parametrize(
    "quote",
    [
        "he daemon keeps",  # The
        "it never spend",  # spends
        "ersion 3 of the",
        "removed after the las",
        "v6 has been on by default",
        "a quote about something else entirely",
    ],
)
def test_a_quote_is_not_found_inside_other_words(quote: str) -> None:
    assert not contains(SOURCE, quote)


def test_whole_words_are_found_at_both_ends_of_a_text() -> None:
    assert contains("one two three", "one two three")
    assert contains("(one two three)", "one two three")
    assert not contains("one two three", "")
    assert not contains("one two three", " \n")


CUT_NUMBERS = {
    "before the thousands": ("It costs 1", "It costs 1 credit"),
    "before the decimals": ("credits a year, not 3", "It is not 3 a day"),
    "behind the decimal point": ("5 a day", "It is 5 a day"),
    "behind the thousands": ("500.75 credits a year", "It costs 500.75 credits"),
}


@pytest.mark.parametrize("kind", CUT_NUMBERS)
def test_a_quote_that_ends_or_begins_inside_a_number_does_not_stand(kind: str) -> None:
    quote, statement = CUT_NUMBERS[kind]
    assert not contains(SOURCE, quote)
    assert not check(quote, statement).verified


LOCK = "The lock file is written before the first request, and removed after the last one."
assert LOCK in SOURCE
NEAR_MISSES = {
    "an ellipsis": LOCK.replace(", and", " …"),
    "a fixed typo": LOCK.replace("written", "writen"),
    "a dropped word": LOCK.replace("first ", ""),
    "another case": LOCK.lower(),
    "a comma": LOCK.replace(",", ""),
}


@pytest.mark.parametrize("slip", NEAR_MISSES)
def test_a_near_miss_becomes_the_stored_sentence_and_says_so(slip: str) -> None:
    assert not contains(SOURCE, NEAR_MISSES[slip])
    verdict = check(NEAR_MISSES[slip])
    assert verdict.verified
    assert verdict.claim.quote == LOCK
    assert verdict.remark
    assert "near miss" in verdict.remark


@pytest.mark.parametrize(
    "paraphrase",
    [
        "Before the first request a lock file is written, which is removed after the last.",
        "The lock is taken ahead of any request and let go once all of them are done.",
        "It writes a lock file first and deletes it in the end.",
        "The daemon never spends more than its own ledger holds.",
    ],
)
def test_a_paraphrase_is_no_quote(paraphrase: str) -> None:
    verdict = check(paraphrase)
    assert not verdict.verified
    assert verdict.remark == "the quote does not stand in the source"
    assert verdict.claim.quote == paraphrase


SENTENCES_WITH_DIGITS = {
    "a number": ("The pump moved 42 litres in the first hour of the test", "42", "43"),
    "thousands": ("It took 1,000 requests to fill the reservoir on that day", "1,000", "7,000"),
    "a decimal": ("The median rose to 3.5 seconds while the test was running", "3.5", "3.6"),
    "a version": ("The release v1.2 mended the lock file of the daemon for good", "v1.2", "v1.3"),
    "a name": ("The daemon listens on IPv6 as soon as the socket unit is up", "IPv6", "IPv4"),
}


@pytest.mark.parametrize("kind", SENTENCES_WITH_DIGITS)
def test_a_changed_number_is_never_mended_into_the_stored_one(kind: str) -> None:
    sentence, stored, changed = SENTENCES_WITH_DIGITS[kind]
    quote = sentence.replace(stored, changed)
    assert nearest_sentence(quote, f"{sentence}.") is None
    verdict = verify(Claim(quote, quote, "S1"), {"S1": f"{sentence}."})
    assert not verdict.verified


def test_two_numbers_changed_round_are_changed_numbers() -> None:
    stored = "The load of the old machine fell from 20 to 10 requests within a second."
    quote = "The load of the old machine fell from 10 to 20 requests within a second."
    assert nearest_sentence(quote, stored) is None


@pytest.mark.parametrize(
    ("statement", "foreign"),
    [
        ("It moved 1000 requests.", None),
        ("It moved 1,000 requests.", None),
        ("It moved a thousand requests with version 3.", None),
        ("It moved 1,001 requests.", "1001"),
        ("It moved 10 requests with version 3.", "10"),
        ("It moved 1000 requests with 3 or 4 threads and 12 hosts.", "12, 4"),
    ],
)
def test_every_number_of_a_statement_stands_in_its_quote(
    statement: str, foreign: str | None
) -> None:
    verdict = check("Version 3 of the protocol moved 1,000 requests a second", statement)
    assert verdict.verified == (foreign is None)
    assert verdict.remark == (foreign and f"the quote does not have {foreign}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000", {"1000"}),
        ("1,000,000 or 1000000", {"1000000"}),
        ("12,345.67", {"12345.67"}),
        ("7.10 is not 7.1", {"7.10", "7.1"}),
        ("1,5 Liter", {"1,5"}),
        ("IPv6, S3, v2.1, H264 and x86_64 are names", set()),
        ("40%, $7, 3rd and 10x", {"40", "7", "3", "10"}),
        ("the 90s, in 2026.", {"90", "2026"}),
        ("１２ full-width", {"12"}),
        ("none", set()),
        ("", set()),
    ],
)
def test_numbers_are_written_one_way(text: str, expected: set[str]) -> None:
    assert numbers(text) == expected


def test_a_number_without_its_zero_is_a_number_all_the_same() -> None:
    assert numbers("it costs .5 credits") - numbers("it costs 1 credit")


@pytest.mark.parametrize("source", ["S1", "s1", "[S1]", " [s1] "])
def test_a_source_is_known_however_it_is_spelt(source: str) -> None:
    verdict = check("has been on by default", source=source)
    assert verdict.verified
    assert verdict.claim.source == "S1"


@pytest.mark.parametrize("source", ["S3", "S11", "", "S1, S2", "https://blog.example/"])
def test_a_source_that_is_not_there_bears_nothing_out(source: str) -> None:
    verdict = check("has been on by default", source=source)
    assert not verdict.verified
    assert verdict.remark == f"there is no source {source}"


def test_a_quote_stands_in_the_source_it_names_and_not_in_another() -> None:
    assert not check("has been on by default", source="S2").verified
    assert check("speaks of gardens and of nothing else", source="S2").verified


@pytest.mark.parametrize("quote", ["", "  ", "“”", "default", "IPv6 has", '"by default"'])
def test_a_word_or_two_bear_nothing_out(quote: str) -> None:
    verdict = check(quote)
    assert not verdict.verified
    assert verdict.remark == "the quote is too short to bear anything out"


def test_an_empty_source_bears_nothing_out() -> None:
    assert not verify(Claim("a", "one two three", "S1"), {"S1": ""}).verified


# Laws

WORD = st.sampled_from(
    ["the", "pump", "moved", "water", "through", "a", "gate", "keeper’s", "“watch”", "—", "or",
     "not;", "v2", "IPv6", "S3", "of", "it", "café", "naïve", "Straße", "данные"]
)  # fmt: skip
NUMBER = st.one_of(
    st.integers(0, 99_999).map(str),
    st.integers(1000, 9_999_999).map(lambda n: f"{n:,}"),
    st.decimals(0, 99, places=1).map(str),
)


@st.composite
def sentence(draw: st.DrawFn, numbers_min: int = 0) -> str:
    """Such as “So the 7 gate 12 v2 moved it.”"""
    found = draw(st.lists(WORD, min_size=6, max_size=20))
    for number in draw(st.lists(NUMBER, min_size=numbers_min, max_size=4)):
        found.insert(draw(st.integers(0, len(found))), number)
    return f"So {' '.join(found)}."


DISGUISES = {
    " ": [" ", "\u00a0", "\n", "  ", "\u2009"],
    "’": ["’", "'", "‘"],
    "“": ["“", '"', "„", "«"],
    "”": ["”", '"', "“", "»"],
    "—": ["—", "–", "-", "‑"],
}


@given(st.lists(sentence(), min_size=1, max_size=5), st.data())
def test_a_sentence_of_a_text_always_stands_in_it(text: list[str], data: st.DataObject) -> None:
    stored = data.draw(st.sampled_from(text))
    quote = "".join(data.draw(st.sampled_from(DISGUISES.get(c, [c]))) for c in stored)
    verdict = verify(Claim(stored, quote, "S1"), {"S1": "\n".join(text)})
    assert verdict.verified
    assert verdict.remark is None


@given(sentence(numbers_min=1), st.data())
def test_a_quote_with_one_digit_changed_never_stands(stored: str, data: st.DataObject) -> None:
    places = [index for index, character in enumerate(stored) if character.isdigit()]
    at = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from("0123456789").filter(lambda d: d != stored[at]))
    quote = stored[:at] + digit + stored[at + 1 :]
    text = f"Before it comes something else.\n{stored} After it comes something else again."
    verdict = verify(Claim(quote, quote, "S1"), {"S1": text})
    assert not verdict.verified


@given(st.lists(sentence(), min_size=1, max_size=4), st.text(max_size=80))
def test_what_is_verified_stands_in_the_stored_text(text: list[str], quote: str) -> None:
    stored = "\n".join(text)
    verdict = verify(Claim("It does.", quote, "S1"), {"S1": stored})
    if verdict.verified:
        assert contains(stored, verdict.claim.quote)


@given(st.lists(sentence(), min_size=1, max_size=4), st.data())
def test_a_slip_of_one_letter_is_mended_into_a_stored_sentence(
    text: list[str], data: st.DataObject
) -> None:
    stored = data.draw(st.sampled_from(text))
    letters = [index for index, c in enumerate(stored) if c.isascii() and c.isalpha()]
    # Not in a name with digits, where a letter makes another number.
    letters = [i for i in letters if not stored[i + 1].isdigit() and not stored[i - 1].isdigit()]
    at = data.draw(st.sampled_from(letters))
    quote = f"{stored[:at]}{stored[at + 1 :]}"
    whole = "\n".join(text)
    assume(numbers(quote) == numbers(stored))
    assume(not contains(whole, quote))
    verdict = verify(Claim("It does.", quote, "S1"), {"S1": whole})
    assert verdict.verified
    assert verdict.claim.quote in text
