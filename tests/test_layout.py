"""What goes out has its sources, and says that no person wrote it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from daemon.desk import layout
from daemon.desk.evidence import Evidence

READ_AT = datetime(2026, 11, 3, 23, 59, tzinfo=UTC)
EVIDENCE = {
    "S1": Evidence("S1", "https://one.example/a", "One", "text"),
    "S2": Evidence("S2", "https://two.example/b", "Two", "text"),
    "S3": Evidence("S3", "https://three.example/c", "Three", "text"),
}


def inline(markdown: str) -> list[Token]:
    """Every inline token, in order."""
    blocks = MarkdownIt("commonmark").parse(markdown)
    return [child for block in blocks for child in block.children or ()]


def links(markdown: str) -> list[tuple[str, str]]:
    """The text and address of each link, as a reader sees them."""
    found: list[tuple[str, str]] = []
    text, href = "", None
    for token in inline(markdown):
        if token.type == "link_open":
            text, href = "", str(token.attrGet("href"))
        elif token.type == "link_close":
            assert href is not None
            found.append((text, href))
            href = None
        elif href is not None:
            text += token.content
    return found


def article(markdown: str, evidence: dict[str, Evidence] | None = None) -> str:
    return layout.article(markdown, evidence or EVIDENCE, run="run-7", read_at=READ_AT)


def titled(title: str, url: str = "https://one.example/a") -> dict[str, Evidence]:
    return {"S1": Evidence("S1", url, title, "text")}


def test_citations_are_numbered_in_the_order_they_appear_and_listed_once() -> None:
    text = article("First [S3], then [S1], again [S3].")
    assert links(text) == [
        ("[1]", "https://three.example/c"),
        ("[2]", "https://one.example/a"),
        ("[1]", "https://three.example/c"),
        ("Three", "https://three.example/c"),
        ("One", "https://one.example/a"),
    ]
    assert "\n1. [Three](https://three.example/c)\n2. [One](https://one.example/a)\n" in text
    assert "[S" not in text
    assert "Two" not in text


def test_a_source_numbered_ten_is_not_the_first_one() -> None:
    evidence = {"S1": EVIDENCE["S1"], "S10": Evidence("S10", "https://ten.example/", "Ten", "")}
    assert links(article("So it is [S10].", evidence))[0] == ("[1]", "https://ten.example/")


@pytest.mark.parametrize(
    "text",
    [
        "It works[S1].",
        "It works [S1][S2].",
        "It works![S1]",
        "It works! [S1]",
        "(It works [S1])",
        "*It works [S1]*",
        "- It works [S1]\n- So it does [S2]",
        "> It works [S1]",
        "## It works [S1]",
    ],
)
def test_a_citation_is_a_link_wherever_it_stands(text: str) -> None:
    rendered = article(text)
    cited = text.count("[S")
    assert [shown for shown, _ in links(rendered)][:cited] == [
        f"[{n}]" for n in range(1, cited + 1)
    ]
    assert not any(token.type == "image" for token in inline(rendered))


@pytest.mark.parametrize(
    "url",
    [
        "https://en.example/wiki/Penstock_(water)",
        "https://en.example/a)b",
        "https://en.example/a(b",
        "https://en.example/((",
        "https://en.example/?q=<b>&r=1",
        "https://en.example/a_b_c*d*",
        "https://en.example/it's?x[]=1#frag",
    ],
)
def test_an_address_cannot_end_its_link_early(url: str) -> None:
    found = links(article("So it is [S1].", titled("One", url)))
    assert [text for text, _ in found] == ["[1]", "One"]
    # Encoded or not, it is the same address.
    decoded = {"%28": "(", "%29": ")", "%3C": "<", "%3E": ">", "%5B": "[", "%5D": "]"}
    for _, href in found:
        for code, character in decoded.items():
            href = href.replace(code, character)
        assert href == url


TITLES = [
    "Plain",
    "[link](/evil)",
    "](/evil)",
    "*stars* and _lines_ and __more__",
    "`code` and ``more``",
    "<b>bold</b><script>alert(1)</script>",
    "<evil:example>",
    "![image](/evil/i.png)",
    "a \\ b \\] c\\",
    "# heading #",
    "~~gone~~ | table | cell",
    "AT&T &amp; &lt;b&gt; &copy;",
    "5 > 3 < 4",
    "Très “élégant” – 日本語 🌊",
]


@pytest.mark.parametrize("title", TITLES)
def test_a_title_shows_as_it_is_and_makes_no_markup(title: str) -> None:
    listed = links(article("So it is [S1].", titled(title)))
    assert listed == [("[1]", "https://one.example/a"), (title, "https://one.example/a")]


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("{{ liquid }} {% raw %}", "{ { liquid }} { % raw %}"),
        ("By @ada and @@bob", "By ada and bob"),
        ("On one.example", "On one.example"),
        ("Since npm@4.0.0", "Since npm@4.0.0"),
        ("ze\u200bro \u202e\nlines", "zero lines"),
    ],
)
def test_a_title_pages_nobody_runs_nothing_and_links_to_its_source_alone(
    title: str, shown: str
) -> None:
    assert links(article("So it is [S1].", titled(title)))[1:] == [(shown, "https://one.example/a")]


@pytest.mark.parametrize(
    "title",
    [
        "Call +49 30 1234 5678 now",
        "Pay bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq now",
        "How sk-abcdefghijklmnop1234567890 got out",
        "On https://evil.example",
        "On www.evil.example, or on one.example",
        "Get it at evil.casino",
        "Get it at evil[.]casino",
        "Mail a@b.example",
    ],
)
def test_a_title_that_leads_elsewhere_or_has_a_key_is_shown_as_its_host(title: str) -> None:
    listed = links(article("So it is [S1].", titled(title)))[1:]
    assert listed == [("one.example", "https://one.example/a")]


def test_an_address_with_a_template_in_it_runs_nowhere() -> None:
    text = article("So it is [S1].", titled("One", "https://one.example/?q={{7}}&r={%x%}"))
    assert "{" not in text


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40))
@example("&#64;")
@example("\\&amp;")
def test_escaped_text_shows_as_it_is(text: str) -> None:
    shown = "".join(token.content for token in inline(f"x{layout.escape(text)}x"))
    assert shown == f"x{text}x"
    assert {token.type for token in inline(f"x{layout.escape(text)}x")} == {"text"}


def test_the_closing_line_says_that_software_wrote_it_and_in_which_run() -> None:
    for text, done in (
        (article("So it is [S1]."), "Researched, written and published"),
        (layout.digest("## Links", run="run-7"), "Gathered and published"),
    ):
        last = text.strip().rsplit("\n", 1)[1]
        assert last == (
            f"*{done} autonomously by software, Penstock, in run run-7. No person wrote this text.*"
        )
        assert MarkdownIt().render(text).rstrip().endswith("No person wrote this text.</em></p>")


def test_a_digest_keeps_its_text() -> None:
    assert layout.digest("One.\n\nTwo.", run="r").startswith("One.\n\nTwo.\n\n---\n\n")


def test_an_article_tells_when_its_sources_were_read() -> None:
    assert "\n\nRead on 3 November 2026.\n\n" in article("So it is [S1].")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), "1 January 2026"),
        (datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC), "29 February 2028"),
        (datetime(2026, 12, 31, tzinfo=UTC), "31 December 2026"),
    ],
)
def test_a_day_is_written_out(at: datetime, expected: str) -> None:
    assert layout.day(at) == expected
