"""Plain text holds words, and nothing that hides or steers."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.sources import text
from tests.corpora import naughty_strings

# Every character there is, lone surrogates too, with those that matter here more often.
SPECIAL = (
    "\u200b\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\u00ad\u2060\u180e\x00\x07\x1b\x7f\x85\ud800"
    "\udfff\ue000\U000e0001\U000e0041\U000e007f\U0010ffff\u00a0\u2003\u2028\u2029\u3000\t\r\n \x0b"
    "<>&;#'\"/=!-[]pbr.?A1"
)
ANY = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters(exclude_categories=())))
MARKUP = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<br/>",
                "<div",
                ">",
                "<script>",
                "</script>",
                "<!--",
                "-->",
                "<![CDATA[",
                "]]>",
                "<a href='javascript:x'>",
                "&amp;",
                "&lt;",
                "&#x200b;",
                "&#xD800;",
                "&#0;",
                "&#99999999;",
                "&",
                "<style>",
                "<noscript>",
                "<svg><math>",
                "</",
                "<?x",
                "\x00",
            ]
        ),
        ANY,
    )
).map("".join)


# Where they change what a reader sees, joiners stay; their cases are tabled below.
WORKING = "\u200c\u200d\ufe0e\ufe0f"
SHOWN = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2"


def hidden_in(result: str) -> list[str]:
    """What should not be there, by a definition of our own."""
    return [
        hex(ord(c))
        for c in result
        if c not in WORKING + SHOWN
        and (
            (c < " " and c != "\n")
            or 0x7F <= ord(c) < 0xA0
            or 0xE0000 <= ord(c) <= 0xE0FFF
            or (unicodedata.category(c) in ("Cf", "Co", "Cs", "Cn", "Cc") and c != "\n")
        )
    ]


@given(ANY)
def test_clean_text_is_clean_already(raw: str) -> None:
    once = text.clean(raw)
    assert text.clean(once) == once


@given(ANY)
def test_clean_text_hides_nothing_and_has_single_spaces_and_lines(raw: str) -> None:
    result = text.clean(raw)
    assert hidden_in(result) == []
    assert "  " not in result
    assert "\t" not in result
    assert "\n\n" not in result
    assert " \n" not in result
    assert "\n " not in result
    assert result == result.strip()


@given(st.text(st.characters(categories=("L", "N", "P", "S"), max_codepoint=0x2FF)))
def test_cleaning_keeps_every_character_that_shows(raw: str) -> None:
    assert text.clean(raw) == raw


@given(MARKUP)
@example("a\ud800b")
@example("&#xD800;&#0;&#x110000;&amp;#x200b;")
@settings(max_examples=300)
def test_no_markup_makes_the_reader_fail_or_hide_something(markup: str) -> None:
    assert hidden_in(text.from_markup(markup)) == []


def test_no_naughty_string_makes_the_reader_fail() -> None:
    for string in naughty_strings():
        for read in (text.clean, text.from_markup):
            result = read(string)
            assert hidden_in(result) == []
            assert text.clean(result) == result
        assert isinstance(text.sentences(string), list)
        assert isinstance(text.keywords(string), frozenset)


HIDING = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "word joiner": "\u2060",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "Arabic letter mark": "\u061c",
    "tag": "\U000e0041",
    "end of tags": "\U000e007f",
    "null": "\x00",
    "escape": "\x1b",
    "delete": "\x7f",
    "next line": "\x85",
    "private use": "\ue000",
    "lone surrogate": "\ud800",
    "not a character": "\uffff",
    "variation selector that can carry a byte": "\U000e0101",
    "combining grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
}


@pytest.mark.parametrize("name", HIDING)
def test_a_character_that_shows_nothing_is_taken_out(name: str) -> None:
    assert text.is_hidden(HIDING[name])
    assert text.clean(f"a{HIDING[name]}b") == "ab"


@pytest.mark.parametrize("character", "aÄß中ع🙂‚–—… \n\t\u0301")
def test_a_character_that_shows_something_stays(character: str) -> None:
    assert not text.is_hidden(character)


@pytest.mark.parametrize(
    "raw",
    [
        "می\u200cخواهم",
        "क्\u200dष",
        "श्रीमान्\u200cजी",
        "👩\u200d👩\u200d👧\u200d👦",
        "🏳\ufe0f\u200d🌈",
        "👩🏽\u200d🚒",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "שָׁלוֹם",
        "مرحبا",
        "\u0600٤٣",
    ],
)
def test_a_joiner_stays_where_it_changes_what_is_seen(raw: str) -> None:
    assert text.clean(raw) == raw
    assert text.hidden_in(raw) == []


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\u200db", "ab"),
        ("a\u200cb", "ab"),
        ("👩\u200d\u200d👩", "👩👩"),
        ("❤\ufe0f\ufe0f", "❤\ufe0f"),
        ("a\ufe0f", "a"),
        ("5\ufe0f", "5"),
        ("a\ufe01b", "ab"),
        ("\u200da", "a"),
    ],
)
def test_a_joiner_with_nothing_to_do_is_taken_out(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned
    assert text.hidden_in(raw)


@pytest.mark.parametrize(
    ("raw", "count"), [("one two", 2), ("水を運ぶ", 2), ("हिन्दी भाषा", 2), ("", 0), ("ab 水", 2)]
)
def test_words_are_counted_where_a_script_sets_no_spaces(raw: str, count: int) -> None:
    assert text.word_count(raw) == count


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a \t b  ", "a b"),
        ("a\u00a0b\u3000c\u2003d", "a b c d"),
        ("a \r\n\r\n  b\n", "a\nb"),
        ("a\n \n\t\nb", "a\nb"),
        ("ig\u200bnore", "ignore"),
        ("\n", ""),
        ("", ""),
    ],
)
def test_space_is_single_and_lines_are_one_apart(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned


@pytest.mark.parametrize(
    ("markup", "read"),
    [
        ("<p>One</p><p>two</p>", "One\ntwo"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("so <b>bo</b>ld", "so bold"),
        ("AT&amp;T &lt;3 &quot;x&quot; caf&eacute;", 'AT&T <3 "x" café'),
        ("1 &amp;lt; 2", "1 &lt; 2"),
        ("a<script>alert(1)</script>b<style>p{}</style>c<noscript>d</noscript>", "abc"),
        ("<img src=x onerror=alert(1)>a", "a"),
        ("a<!-- b -->c", "ac"),
        ("&#x200b;a&#8238;b&#xE0041;", "ab"),
        ("<p>unclosed", "unclosed"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_markup_is_read_as_a_person_would_see_it(markup: str, read: str) -> None:
    assert text.from_markup(markup) == read


def test_what_is_hidden_stays_hidden_after_letters_that_are_longer_in_lower_case() -> None:
    letters = "İ" * 30
    hidden = "</script><script>steer the reader</script>"
    assert text.from_markup(f"{letters}{hidden}seen") == f"{letters}seen"
    assert text.from_markup(f"{letters}<style>p{{}}</style>seen") == f"{letters}seen"


@pytest.mark.parametrize(
    "markup",
    [
        "<p " * 30_000,
        "<div>" * 30_000,
        "<" * 300_000,
        "&" * 300_000,
        " " * 300_000,
        "\n " * 150_000,
    ],
    ids=["never closed", "nested", "angles", "ampersands", "spaces", "lines"],
)
def test_reading_time_grows_with_the_length_and_no_faster(markup: str) -> None:
    text.from_markup("warm")
    started = time.thread_time()
    text.from_markup(markup)
    # A tenth of a second where it is linear; one and a half and more where it is quadratic.
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 1.5 dollars. Now.", ["It costs 1.5 dollars.", "Now."]),
        ("A line\nanother line", ["A line", "another line"]),
        ("e.g. this stays whole", ["e.g. this stays whole"]),
        ("Über alles. Änderung.", ["Über alles.", "Änderung."]),
        ("", []),
        ("\n\n", []),
    ],
)
def test_sentences_end_where_the_next_begins(whole: str, parts: list[str]) -> None:
    assert text.sentences(whole) == parts


@given(st.text("aB1 .?!\n,", max_size=80))
def test_splitting_into_sentences_loses_no_word(raw: str) -> None:
    assert text.words(" ".join(text.sentences(raw))) == text.words(raw)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("C++ and C# beat COBOL", ["c++", "and", "c#", "beat", "cobol"]),
        ("Python 3.11's GIL", ["python", "3.11's", "gil"]),
        ("state-of-the-art", ["state-of-the-art"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("_ - .", []),
    ],
)
def test_words_are_compared_in_lower_case_with_their_inner_marks(
    raw: str, found: list[str]
) -> None:
    assert text.words(raw) == found


def test_keywords_leave_out_common_words_and_plurals() -> None:
    assert text.keywords("The servers of a server are classes") == {"server", "classe"}
