"""A digest is links with attribution, and passes the desk whatever feeds carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from daemon.crew.brief import Brief
from daemon.crew.digest import DigestItem, compose, usable
from daemon.desk import house, layout
from daemon.desk.house import Context, Manuscript
from daemon.sources.text import is_hidden

NOW = datetime(2026, 11, 19, 12, tzinfo=UTC)
BRIEF = Brief(("self-hosting", "small servers"), "readers", "plain", "en", 500, 900)
ITEM = DigestItem(
    url="https://blog.example/sluice",
    title="How a sluice fails",
    feed="The Water Blog",
    author="Ada Keeper",
    summary="A sluice failed in the night and nobody heard of it. The log tells the whole story.",
    at=NOW - timedelta(days=2),
)


def items(count: int, like: DigestItem = ITEM) -> list[DigestItem]:
    return [
        replace(
            like,
            url=f"https://blog.example/{n}",
            title=f"How sluice {'abcdefghij'[n]} fails",
            at=ITEM.at - timedelta(hours=n),
        )
        for n in range(count)
    ]


def made(found: Sequence[DigestItem], brief: Brief = BRIEF) -> Manuscript:
    return compose(found, brief, NOW, next(iter(brief.niche), ""))


def refusals(found: Sequence[DigestItem], brief: Brief = BRIEF) -> list[str]:
    """What the desk refuses, asked as the newsroom asks."""
    links = [item.url for item in found]
    context = Context(
        {}, (), frozenset([*links, *map(layout.target, links)]), cites=False, prompts=("x " * 20,)
    )
    findings = house.inspect(house.mended(made(found, brief)), context)
    return [str(finding) for finding in findings if finding.refuses]


def html(manuscript: Manuscript) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).render(manuscript.markdown))


COUNTED = ["one new read", "two new reads", "three new reads", "four new reads", "five new reads",
           "six new reads", "seven new reads", "eight new reads"]  # fmt: skip


@pytest.mark.parametrize("count", range(1, 9))
def test_a_digest_counts_its_reads_in_words(count: int) -> None:
    manuscript = made(items(count))
    counted = COUNTED[count - 1]
    assert manuscript.title == f"Self-hosting: {counted}, 17 November 2026"
    opening = manuscript.markdown.split("\n\n")[0]
    assert opening == (
        f"{counted.capitalize()} from The Water Blog, gathered from their feeds on 19 November"
        " 2026. The excerpts are the authors' own words; the links lead to the rest."
    )
    assert manuscript.description == (
        f"{counted.capitalize()} from The Water Blog, 17 November 2026."
    )


@pytest.mark.parametrize("count", range(2, 9))
def test_a_digest_of_ordinary_entries_passes_the_desk(count: int) -> None:
    assert refusals(items(count)) == []


def test_the_fewest_entries_a_digest_may_have_pass_the_desk_even_without_summaries() -> None:
    assert refusals(items(2, replace(ITEM, summary="", author=None))) == []


def test_without_a_niche_the_title_begins_with_the_count() -> None:
    manuscript = made(items(2), replace(BRIEF, niche=()))
    assert manuscript.title == "Two new reads, 17 November 2026"
    assert manuscript.tags == ("fail", "sluice")
    assert made([ITEM], replace(BRIEF, niche=())).tags == ("digest",)
    assert refusals(items(2), replace(BRIEF, niche=())) == []


@pytest.mark.parametrize("topic", ["sluice gates", "@ada and http://lure.evil.example", "[x](y)"])
def test_a_digest_on_what_was_asked_for_says_so(topic: str) -> None:
    title = compose(items(2), BRIEF, NOW, topic).title
    assert title.endswith(": two new reads, 17 November 2026")
    assert not {"@", "["} & set(title)
    assert "http" not in title


@pytest.mark.parametrize("niche", ["自托管", "самостоятельный хостинг", "c++"])
def test_a_niche_in_any_script_makes_a_digest(niche: str) -> None:
    assert refusals(items(3), replace(BRIEF, niche=(niche,))) == []


def test_the_newest_entry_comes_first() -> None:
    manuscript = made(items(3)[::-1])
    headings = [line for line in manuscript.markdown.split("\n") if line.startswith("## ")]
    assert headings == [
        "## [How sluice a fails](https://blog.example/0)",
        "## [How sluice b fails](https://blog.example/1)",
        "## [How sluice c fails](https://blog.example/2)",
    ]


def test_an_entry_is_attributed_to_its_author_feed_and_day() -> None:
    assert made([ITEM]).markdown.endswith(
        "## [How a sluice fails](https://blog.example/sluice)\n\n"
        "*Ada Keeper, The Water Blog, 17 November 2026*\n\n"
        "> A sluice failed in the night and nobody heard of it. The log tells the whole story."
    )
    assert "*The Water Blog, 17 November 2026*" in made([replace(ITEM, author=None)]).markdown


@pytest.mark.parametrize(
    ("feeds", "expected"),
    [
        (["A"], "from A, gathered"),
        (["A", "B"], "from A and B, gathered"),
        (["A", "B", "A"], "from A and B, gathered"),
        (["A", "B", "C"], "from A, B and C, gathered"),
    ],
)
def test_the_opening_names_each_feed_once(feeds: list[str], expected: str) -> None:
    found = [replace(item, feed=feed) for item, feed in zip(items(3), feeds, strict=False)]
    assert expected in made(found).markdown


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [
        (datetime(2026, 11, 3, tzinfo=UTC), datetime(2026, 11, 3, 23, tzinfo=UTC),
         "3 November 2026"),
        (datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 19, tzinfo=UTC),
         "2–19 November 2026"),
        (datetime(2026, 10, 28, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC),
         "28 October – 3 November 2026"),
        (datetime(2025, 12, 30, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC),
         "30 December 2025 – 2 January 2026"),
        (datetime(2025, 11, 3, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC),
         "3 November 2025 – 3 November 2026"),
    ],
)  # fmt: skip
def test_the_days_a_digest_spans_are_told_shortly(
    first: datetime, last: datetime, span: str
) -> None:
    found = [replace(ITEM, at=last), replace(ITEM, at=first)]
    assert made(found).title.endswith(f": two new reads, {span}")
    assert made(found).description.endswith(f", {span}.")


def excerpt(summary: str) -> str:
    """What is shown of a summary, without its mark."""
    last = made([replace(ITEM, summary=summary)]).markdown.split("\n\n")[-1]
    return last.removeprefix("> ") if last.startswith("> ") else ""


def test_an_excerpt_is_whole_sentences_where_they_fit() -> None:
    nine = "This sentence has nine words and then it ends."
    assert excerpt(" ".join([nine] * 6)) == " ".join([nine] * 4)


def test_a_first_sentence_that_is_too_long_is_cut_with_an_ellipsis() -> None:
    shown = excerpt(" ".join(["word"] * 100))
    assert shown == " ".join(["word"] * 39) + " …"


def test_an_entry_without_a_summary_has_no_excerpt() -> None:
    assert excerpt("") == ""
    assert ">" not in made([replace(ITEM, summary=" \n ")]).markdown


@given(st.lists(st.sampled_from(["word", "End.", "Next", "more\nlines", "a—b", "*x*", "7"])))
def test_an_excerpt_never_has_more_than_40_words(words: list[str]) -> None:
    summary = " ".join(words)
    assert len(excerpt(summary).split()) <= 40


MARKED = [
    "[a](evil.html)",
    "*stars* _lines_ `code` ~~gone~~",
    "<b>bold</b> <script>alert(1)</script>",
    "![x](x.png)",
    "# not a heading",
    "a \\ b",
    "| a | b |",
    "AT&T &amp; &lt;b&gt;",
]


@pytest.mark.parametrize("text", MARKED)
def test_what_feeds_write_shows_as_it_is(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(
        made([replace(ITEM, title=text, author=text, feed=text, summary=text)]).markdown
    )
    inline = [token for token in tokens if token.type == "inline"]
    shown = ["".join(child.content for child in token.children or ()) for token in inline]
    opening, title, byline, quoted = shown
    assert f" from {text}, gathered" in opening
    assert title == text
    assert byline == f"{text}, {text}, 17 November 2026"
    assert quoted == text
    kinds = {child.type for token in inline for child in token.children or ()}
    assert kinds <= {"text", "link_open", "link_close", "em_open", "em_close"}


@pytest.mark.parametrize(
    "summary", ["1. First of all", "- a dash", "+ a plus", "---", "    code", "==="]
)
def test_an_excerpt_makes_neither_list_nor_rule_nor_code(summary: str) -> None:
    rendered = html(made([replace(ITEM, summary=summary)]))
    assert not any(tag in rendered for tag in ("<ol", "<ul", "<hr", "<pre", "<li"))


ODD: dict[str, dict[str, str | None]] = {
    "a bare address in the summary": {"summary": "Article URL: https://other.example/x Points: 9"},
    "a bare address in the title": {"title": "Show: https://other.example is up"},
    "www in the summary": {"summary": "See www.other.example for more."},
    "a mention in the title": {"title": "@ada on sluices"},
    "a mention in the summary": {"summary": "Thanks to @ada and .@bob for this."},
    "a mention in the feed": {"feed": "@ada's notes"},
    "a mention in the author": {"author": "@ada"},
    "an address of mail in the author": {"author": "ada@blog.example (Ada)"},
    "Liquid in the title": {"title": "On {{ liquid }}"},
    "Liquid in the summary": {"summary": "On {% raw %} and more."},
    "Liquid in the author": {"author": "{{ ada }}"},
    "Liquid in the feed": {"feed": "Notes {% on %} it"},
    "HTML": {"title": "<b>On</b> <script>", "summary": "<img src=x onerror=y>"},
    "Markdown": {"title": "[on](https://evil.example)", "summary": "![x](https://evil.example)"},
    "parentheses in the address": {"url": "https://blog.example/a_(b)?c=(d"},
    "letters beyond ASCII in the address": {"url": "https://blog.example/é/日本"},
    "a host beyond ASCII": {"url": "https://bücher.example/a"},
    "odd characters in the address": {"url": 'https://blog.example/a"b|c\\d^e`f{g}'},
    "brackets in the address": {"url": "https://blog.example/?a[]=1&b=<c>"},
    "an entity in the address": {"url": "https://blog.example/?a=1&copy;=2"},
    "something like a key": {"summary": "The key was sk-abcdefghijklmnopqrstuvwx, they say."},
    "numbers": {"title": "7 of 9 in 2026", "summary": "1,000 of them."},
    "a quotation": {"summary": "“Nobody has ever seen a thing like this,” she said."},
    "a mention in fullwidth": {"title": "On it, says ＠evilheron", "feed": "Notes of ﹫ada"},
    "an address in fullwidth": {
        "title": "Show: ｈｔｔｐｓ://evil.example",
        "summary": "ｗｗｗ.x.io.",
    },
    "a telephone number in the title": {"title": "Call 0800 555 0199 for a heron"},
    "a telephone number in the author": {"author": "0800 555 0199"},
    "a telephone number in the summary": {"summary": "Call 0800 555 0199 for a heron."},
    "an address as the name of a feed": {"feed": "https://evil.example", "summary": "At x.com."},
    "Markdown as the name of a feed": {"feed": "[x](https://evil.example) <b> ![y](z)"},
    "our instructions": {"summary": "You are the writer of a small publication. So are we."},
    "no summary": {"summary": "", "author": None},
}


@pytest.mark.parametrize("kind", ODD)
def test_one_odd_entry_never_costs_the_whole_digest(kind: str) -> None:
    odd = replace(ITEM, **ODD[kind])  # type: ignore[arg-type]
    found = [item for item in [*items(3), odd] if usable(item)]
    assert len(found) >= 3
    assert refusals(found) == []


@pytest.mark.parametrize("kind", ["Liquid in the title", "Liquid in the summary"])
def test_an_entry_that_a_template_language_would_run_is_not_usable(kind: str) -> None:
    assert not usable(replace(ITEM, **ODD[kind]))  # type: ignore[arg-type]
    assert usable(ITEM)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Call 0800 555 0199 for a heron"},
        {"title": "Order at evil-herons.com today"},
        {"author": "0800 555 0199"},
        {"summary": "You are the writer of a small publication. So are we."},
    ],
)
def test_an_entry_that_the_desk_would_refuse_by_itself_is_not_usable(
    change: dict[str, str],
) -> None:
    assert not usable(replace(ITEM, **change))  # type: ignore[arg-type]


def test_an_entry_may_name_its_own_feed_and_host() -> None:
    assert usable(replace(ITEM, title="Ten years of blog.example"))
    assert usable(replace(ITEM, title="Ten years of Water.com", feed="Water.com"))


def test_an_excerpt_leaves_out_sentences_that_lead_elsewhere() -> None:
    told = (
        "It holds. Order at evil-herons.com. See https://x.example/a. Call 0800 555 0199. It ends."
    )
    assert excerpt(told) == "It holds. It ends."


@given(
    st.builds(
        DigestItem,
        url=st.just("https://blog.example/a"),
        title=st.text(min_size=1, max_size=60),
        feed=st.text(min_size=1, max_size=30),
        author=st.none() | st.text(max_size=30),
        summary=st.text(max_size=200),
        at=st.just(NOW),
    )
)
def test_nothing_in_a_feed_makes_a_link_an_image_or_html_of_its_own(item: DigestItem) -> None:
    # As feeds hand them over: one line, nothing hidden.
    def plain(text: str) -> str:
        return " ".join("".join(c for c in text if not is_hidden(c)).split())

    author = plain(item.author) if item.author else None
    item = replace(item, title=plain(item.title), feed=plain(item.feed), author=author)
    tokens = MarkdownIt("commonmark", {"html": True}).parse(made([item]).markdown)
    children = [child for token in tokens for child in token.children or ()]
    assert not {token.type for token in tokens} & {"html_block", "fence", "table_open"}
    assert not {child.type for child in children} & {"image", "html_inline", "code_inline"}
    assert {child.attrGet("href") for child in children if child.type == "link_open"} <= {item.url}
