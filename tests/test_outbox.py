"""The folder always holds whole articles, and each of them once."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import stat
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import feedparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from publishers.errors import Rejected, Transient
from publishers.outbox import ATOM, FEED_ENTRIES_MAX, Outbox, render, slugify
from publishers.port import Hosting, Intent, Post, Receipt, Withdrawing
from publishers.testing import forgotten
from tests.cli_helpers import as_another
from tests.stage import Killed

AT = datetime(2026, 11, 3, 10, 30, tzinfo=UTC)
POST = Post(
    run="run-1",
    title="On sluices & gates",
    description="About <sluices>.",
    tags=("sluices", "water"),
    markdown="A *sluice* holds [water](https://one.example/a?b=1&c=2).\n\n## More\n\n- one\n- two",
    at=AT,
    language="en",
)
# What a picture is to the outbox: bytes that it does not look into, and that are no UTF-8.
CARD = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200
CARDED = replace(POST, card=CARD, reading_minutes=4)
SLUG = "2026-11-03-on-sluices-gates"
FILES = {f"{SLUG}.md", f"{SLUG}.html", f"{SLUG}.json", "index.html", "feed.xml"}
# An intent as an earlier version stored it: no picture, no reading time, no canonical address.
OLD_INTENT = b"""{
 "description": "About <sluices>.",
 "html": "<p>It holds.</p>\\n",
 "language": "en",
 "markdown": "It holds.",
 "published_at": "2026-11-03T10:30:00+00:00",
 "run": "run-1",
 "slug": "2026-11-03-on-sluices-gates",
 "tags": [
  "sluices"
 ],
 "title": "On sluices & gates"
}"""


def publish(outbox: Outbox, post: Post = POST) -> Intent:
    intent = outbox.intend(post)
    asyncio.run(outbox.publish(intent, forgotten))
    return intent


def files(folder: Path) -> dict[str, bytes]:
    """What a reader sees: names beginning with a dot are not served."""
    if not folder.exists():
        return {}
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


class Page(HTMLParser):
    """A page's tags with their attributes, and its text by innermost tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.text[self._open] = self.text.get(self._open, "") + data

    def has(self, tag: str) -> bool:
        return any(name == tag for name, _ in self.tags)

    def properties(self) -> dict[str, str | None]:
        """Open Graph's, the last of each name."""
        return {
            str(a["property"]): a["content"]
            for tag, a in self.tags
            if tag == "meta" and "property" in a
        }

    def linked_data(self) -> Any:
        return json.loads(self.text["script"])


# What is written


@pytest.mark.parametrize(
    "title",
    ["Read [this](https://evil.example)", "![x](y)", "<b onclick=x>b</b>", "*a* _b_ `c` \\d",
     "On &amp; and &#64;", "Why C# ##", "x86_64 in C#, R&D"],
)  # fmt: skip
def test_a_title_is_shown_as_it_is_by_markdown(tmp_path: Path, title: str) -> None:
    outbox = Outbox(tmp_path)
    asyncio.run(outbox.publish(outbox.intend(replace(POST, title=title)), forgotten))
    (path,) = tmp_path.glob("*.md")
    heading = MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8"))[1]
    assert "".join(child.content for child in heading.children or ()) == title
    assert {child.type for child in heading.children or ()} <= {"text", "text_special"}


def test_a_title_without_marks_is_written_without_escapes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    title = "x86_64, C# and R&D: 5 - 3!"
    asyncio.run(outbox.publish(outbox.intend(replace(POST, title=title)), forgotten))
    (path,) = tmp_path.glob("*.md")
    assert path.read_text(encoding="utf-8").startswith(f"# {title}\n")


def test_an_article_is_written_as_markdown_html_and_atom(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "new" / "outbox", title="The Sluice")
    receipt = asyncio.run(outbox.publish(outbox.intend(POST), forgotten))
    found = files(tmp_path / "new" / "outbox")
    assert set(found) == FILES
    assert receipt.remote_id == f"{SLUG}.md"
    assert receipt.url == (tmp_path / "new" / "outbox" / f"{SLUG}.html").as_uri()
    assert found[f"{SLUG}.md"].decode() == f"# {POST.title}\n\n{POST.markdown}\n"
    page = Page(found[f"{SLUG}.html"].decode())
    assert page.text["title"].strip() == POST.title
    assert page.text["h1"].startswith(POST.title)
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"name": "description", "content": "About <sluices>."}) in page.tags
    assert ("time", {"datetime": AT.isoformat()}) in page.tags
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [
        "https://one.example/a?b=1&c=2",
        "index.html",
    ]
    index = Page(found["index.html"].decode())
    assert index.text["h1"].startswith("The Sluice")
    assert [a["href"] for tag, a in index.tags if tag == "a"] == [f"{SLUG}.html"]


def test_only_a_folder_that_is_served_is_public_and_its_addresses_are_absolute(
    tmp_path: Path,
) -> None:
    served = Outbox(tmp_path, site_url="https://site.example/blog")
    assert served.public
    assert not Outbox(tmp_path).public
    receipt = asyncio.run(served.publish(served.intend(POST), forgotten))
    assert receipt.url == f"https://site.example/blog/{SLUG}.html"
    page = Page((tmp_path / f"{SLUG}.html").read_text())
    assert ("link", {"rel": "canonical", "href": receipt.url}) in page.tags


def test_intending_changes_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    assert outbox.intend(POST) == outbox.intend(POST)
    assert not (tmp_path / "outbox").exists()


def test_files_can_be_read_by_a_web_server_no_less_than_others_of_the_user(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        publish(Outbox(tmp_path))
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o644}


# What is told to machines


def test_the_picture_lies_beside_the_article_and_the_page_names_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example/blog", title="The Sluice")
    publish(outbox, CARDED)
    found = files(tmp_path)
    assert set(found) == FILES | {f"{SLUG}.png"}
    assert found[f"{SLUG}.png"] == CARD
    page = Page(found[f"{SLUG}.html"].decode())
    address = f"https://site.example/blog/{SLUG}"
    assert page.properties() == {
        "og:type": "article",
        "og:site_name": "The Sluice",
        "og:title": POST.title,
        "og:description": POST.description,
        "og:url": f"{address}.html",
        "og:image": f"{address}.png",
        "og:image:type": "image/png",
        "og:image:alt": POST.title,
        "article:published_time": AT.isoformat(),
        "article:tag": "water",
    }
    assert page.linked_data() == {
        "@context": "https://schema.org",
        "@type": "Article",
        "headline": POST.title,
        "description": POST.description,
        "datePublished": AT.isoformat(),
        "inLanguage": "en",
        "keywords": ["sluices", "water"],
        "author": {"@type": "Organization", "name": "The Sluice (autonomous)"},
        "publisher": {"@type": "Organization", "name": "The Sluice"},
        "url": f"{address}.html",
        "image": f"{address}.png",
        "timeRequired": "PT4M",
    }
    assert "4 min read" in found[f"{SLUG}.html"].decode()
    # The picture shows the title, which the page has already.
    assert not page.has("img")


def test_a_folder_that_nobody_serves_names_no_address_of_its_own(tmp_path: Path) -> None:
    publish(Outbox(tmp_path), CARDED)
    text = (tmp_path / f"{SLUG}.html").read_text()
    assert not {"og:url", "og:image"} & set(Page(text).properties())
    assert "canonical" not in text
    assert "file://" not in text
    assert (tmp_path / f"{SLUG}.png").read_bytes() == CARD


def test_an_article_without_extras_has_no_empty_ones(tmp_path: Path) -> None:
    publish(Outbox(tmp_path), replace(POST, description="", tags=()))
    text = (tmp_path / f"{SLUG}.html").read_text()
    assert 'content=""' not in text
    assert "min read" not in text
    assert Page(text).linked_data().keys().isdisjoint({"image", "timeRequired", "url", "keywords"})


def test_the_canonical_address_may_be_elsewhere(tmp_path: Path) -> None:
    elsewhere = "https://dev.example/me/on-sluices?a=1&b=2"
    receipt = asyncio.run(
        (outbox := Outbox(tmp_path, site_url="https://site.example")).publish(
            outbox.intend(replace(POST, canonical_url=elsewhere)), forgotten
        )
    )
    assert receipt.url == f"https://site.example/{SLUG}.html"
    page = Page((tmp_path / f"{SLUG}.html").read_text())
    assert [a["href"] for tag, a in page.tags if tag == "link" and a["rel"] == "canonical"] == [
        elsewhere
    ]
    assert page.properties()["og:url"] == elsewhere


def test_the_address_is_known_before_anything_is_there(tmp_path: Path) -> None:
    served = Outbox(tmp_path, site_url="https://site.example")
    assert served.address(POST) == f"https://site.example/{SLUG}.html"
    assert Outbox(tmp_path).address(POST) is None
    publish(served, replace(POST, run="run-0"))
    address = served.address(POST)
    assert address == f"https://site.example/{SLUG}-2.html"
    assert asyncio.run(served.publish(served.intend(POST), forgotten)).url == address
    assert served.address(POST) == address


def test_the_address_of_the_picture_is_known_before_it_is_there(tmp_path: Path) -> None:
    served = Outbox(tmp_path, site_url="https://site.example")
    assert isinstance(served, Hosting)
    address = served.picture(CARDED)
    assert address == f"https://site.example/{SLUG}.png"
    assert served.picture(POST) is None
    assert Outbox(tmp_path).picture(CARDED) is None
    assert not list(tmp_path.iterdir())
    publish(served, CARDED)
    assert Page((tmp_path / f"{SLUG}.html").read_text()).properties()["og:image"] == address
    assert served.picture(CARDED) == address


def test_an_intent_of_an_earlier_version_is_still_published_and_found(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    intent = Intent(SLUG, OLD_INTENT)
    assert asyncio.run(outbox.find(intent)) is None
    asyncio.run(outbox.publish(intent, forgotten))
    found = files(tmp_path)
    assert set(found) == FILES
    assert found[f"{SLUG}.json"] == OLD_INTENT
    assert asyncio.run(outbox.find(intent)) is not None
    publish(outbox, replace(CARDED, run="run-2", title="Another"))
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 2


def test_a_post_without_extras_has_the_intent_that_earlier_versions_gave_it(
    tmp_path: Path,
) -> None:
    post = replace(POST, markdown="It holds.", tags=("sluices",))
    assert Outbox(tmp_path).intend(post) == Intent(SLUG, OLD_INTENT)


def test_an_intent_is_text_whatever_it_carries(tmp_path: Path) -> None:
    intent = Outbox(tmp_path).intend(CARDED)
    assert Intent(intent.key, intent.payload.decode().encode()) == intent


def test_the_receipt_tells_of_the_picture_and_does_not_repeat_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    intent = publish(outbox, CARDED)
    receipt = (tmp_path / f"{SLUG}.json").read_bytes()
    assert len(receipt) < 2000 < len(intent.payload)
    assert json.loads(receipt)["card"] == {"bytes": len(CARD)}
    # Another picture is another intent, though the article is the same.
    other = outbox.intend(replace(CARDED, card=CARD[::-1]))
    assert (other.key, other.payload) != (intent.key, intent.payload)
    asyncio.run(outbox.publish(other, forgotten))
    assert (tmp_path / f"{SLUG}.json").read_bytes() != receipt


# The feed


def atom(folder: Path) -> ElementTree.Element:
    return ElementTree.fromstring((folder / "feed.xml").read_bytes())


def one(parent: ElementTree.Element, tag: str) -> str:
    """The text of the one child of that name."""
    (child,) = parent.findall(f"{{{ATOM}}}{tag}")
    return child.text or ""


def test_the_feed_has_everything_that_atom_requires(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example", title="The <Sluice>")
    publish(outbox)
    publish(outbox, replace(POST, run="run-2", title="Another", at=AT + timedelta(days=1)))
    root = atom(tmp_path)
    assert root.tag == f"{{{ATOM}}}feed"
    assert one(root, "id") == "https://site.example/feed.xml"
    assert one(root, "title") == "The <Sluice>"
    assert datetime.fromisoformat(one(root, "updated")) == AT + timedelta(days=1)
    (author,) = root.findall(f"{{{ATOM}}}author")
    assert one(author, "name")
    links = {e.get("rel"): e.get("href") for e in root.findall(f"{{{ATOM}}}link")}
    assert links == {
        "self": "https://site.example/feed.xml",
        "alternate": "https://site.example/index.html",
    }
    entries = root.findall(f"{{{ATOM}}}entry")
    assert [one(e, "title") for e in entries] == ["Another", POST.title]
    assert len({one(e, "id") for e in entries}) == 2
    for entry in entries:
        assert one(entry, "id").startswith("tag:")
        assert datetime.fromisoformat(one(entry, "updated")).tzinfo
        assert datetime.fromisoformat(one(entry, "published")).tzinfo
        assert one(entry, "summary") == POST.description
        (content,) = entry.findall(f"{{{ATOM}}}content")
        assert content.get("type") == "html"
        assert "<em>sluice</em>" in (content.text or "")
        (link,) = entry.findall(f"{{{ATOM}}}link")
        assert link.get("rel") == "alternate"
        assert (link.get("href") or "").startswith("https://site.example/2026-11-0")
        assert [e.get("term") for e in entry.findall(f"{{{ATOM}}}category")] == list(POST.tags)


def test_a_feed_reader_reads_the_feed(tmp_path: Path) -> None:
    publish(Outbox(tmp_path, title="The Sluice"))
    parsed = feedparser.parse(io.BytesIO((tmp_path / "feed.xml").read_bytes()))
    assert not parsed.bozo
    assert parsed.version == "atom10"
    assert parsed.feed.title == "The Sluice"
    (entry,) = parsed.entries
    assert entry.title == POST.title
    assert entry.published == AT.isoformat()
    assert [tag.term for tag in entry.tags] == list(POST.tags)
    assert "<em>sluice</em>" in entry.content[0].value


def test_the_picture_is_an_enclosure_of_its_entry(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example")
    publish(outbox, CARDED)
    publish(outbox, replace(POST, run="run-2", title="Without", at=AT + timedelta(days=1)))
    without, entry = feedparser.parse(io.BytesIO((tmp_path / "feed.xml").read_bytes())).entries
    assert without.enclosures == []
    (enclosure,) = entry.enclosures
    assert enclosure.href == f"https://site.example/{SLUG}.png"
    assert enclosure.type == "image/png"
    assert enclosure.length == str(len(CARD))


def test_the_feed_is_newest_first_whatever_the_order_of_publishing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for days in (3, 1, 2):
        publish(outbox, replace(POST, run=f"r{days}", title=f"T{days}", at=AT + timedelta(days)))
    root = atom(tmp_path)
    assert [one(e, "title") for e in root.findall(f"{{{ATOM}}}entry")] == ["T3", "T2", "T1"]
    assert one(root, "updated") == (AT + timedelta(3)).isoformat()
    index = (tmp_path / "index.html").read_text()
    assert index.index(">T3<") < index.index(">T2<") < index.index(">T1<")


def test_the_feed_ends_somewhere_but_the_index_has_everything(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for number in range(FEED_ENTRIES_MAX + 5):
        post = replace(POST, run=f"r{number}", title=f"T{number}", at=AT + timedelta(number))
        intent = outbox.intend(post)
        (tmp_path / f"{intent.key}.json").write_bytes(intent.payload)
    publish(outbox, replace(POST, title="Newest", at=AT + timedelta(999)))
    entries = atom(tmp_path).findall(f"{{{ATOM}}}entry")
    assert len(entries) == FEED_ENTRIES_MAX
    assert one(entries[0], "title") == "Newest"
    assert (tmp_path / "index.html").read_text().count("<li>") == FEED_ENTRIES_MAX + 6


@pytest.mark.parametrize(
    "text", ["\x00", "a\x0bb", "a\x1bb", "\ufffe", "a\x0cb", "&#12; and &#x1b;", "日本 🌊 ñ", "]]>"]
)
def test_no_character_makes_the_feed_unreadable(tmp_path: Path, text: str) -> None:
    outbox = Outbox(tmp_path, title=f"The {text}")
    publish(outbox, replace(POST, title=f"On {text}", description=text, markdown=f"So {text} is."))
    publish(outbox, replace(POST, run="run-2", title="The next one"))
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 2
    assert not feedparser.parse(io.BytesIO((tmp_path / "feed.xml").read_bytes())).bozo


# What must not get out

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<iframe src=https://evil.example></iframe>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](  javascript:alert(1) )",
    "[x](java&#115;cript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:x)",
    "[x](data:image/gif;base64,R0lGODlhAQABAAAAACw=)",
    "[x](ftp://one.example/a)",
    "[x](file:///etc/passwd)",
    "<mailto:a@b.example>",
    "[x][y]\n\n[y]: javascript:alert(1)",
    "<javascript:alert(1)>",
    '[x](https://one.example "onmouseover=alert(1)")',
    '[x](https://one.example" onmouseover="alert(1))',
    "![x](https://evil.example/track.png)",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "`<script>`",
    "```html\n<script>alert(1)</script>\n```",
    "<!-- --><script>alert(1)</script>",
    "--><script>",
    "&lt;script&gt;",
    "{{ x }}",
]
HARMLESS = {"html", "head", "meta", "title", "link", "style", "body", "article", "h1", "h2", "h3",
            "p", "time", "a", "ul", "ol", "li", "span", "br", "em", "strong", "code", "pre", "hr",
            "blockquote", "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip


def assert_harmless(html: str, *, scripts: int = 0) -> None:
    page = Page(html)
    tags = [tag for tag, _ in page.tags]
    assert {*tags} <= HARMLESS | {"script"}
    assert tags.count("script") == scripts
    for tag, attributes in page.tags:
        if tag == "script":
            # Data, which no browser runs.
            assert attributes == {"type": "application/ld+json"}
            assert page.linked_data()["@type"] == "Article"
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("href", "src"):
            address = (attributes.get(name) or "").strip().lower()
            scheme = address.partition(":")[0] if ":" in address else ""
            assert scheme in ("", "http", "https"), address


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_reaches_html(tmp_path: Path, text: str) -> None:
    outbox = Outbox(tmp_path, title=text, site_url="https://site.example")
    post = replace(CARDED, title=text, description=text, tags=(text,), markdown=text, language=text)
    intent = publish(outbox, post)
    page = (tmp_path / f"{intent.key}.html").read_text()
    assert_harmless(page, scripts=1)
    assert Page(page).linked_data()["headline"] == text
    assert_harmless((tmp_path / "index.html").read_text())
    assert Page(page).text["title"].strip() == text.strip()
    (entry,) = atom(tmp_path).findall(f"{{{ATOM}}}entry")
    assert one(entry, "title") == text
    assert_harmless(one(entry, "content"))


@given(st.lists(st.sampled_from([*HOSTILE, "<", ">", '"', "\n\n", "`", "](", "a", " on", "="])))
def test_no_mixture_of_hostile_pieces_reaches_html(pieces: list[str]) -> None:
    assert_harmless(render("".join(pieces)))


def test_html_in_the_text_is_shown_and_not_run() -> None:
    assert render("a <b>bold</b> word") == "<p>a &lt;b&gt;bold&lt;/b&gt; word</p>\n"


def test_a_table_and_code_are_rendered() -> None:
    assert "<td>1</td>" in render("| a |\n|---|\n| 1 |")
    assert "<code>x &lt; y" in render("```\nx < y\n```")


# Once


@pytest.fixture(params=[POST, CARDED], ids=["plain", "with a card"])
def post(request: pytest.FixtureRequest) -> Post:
    """Everything about crashes holds with a picture and without."""
    return cast("Post", request.param)


def steps(post: Post) -> int:
    """File operations of one publication: each file is flushed, moved, its folder flushed."""
    return 3 * (len(FILES) + (post.card is not None))


def test_publishing_again_changes_no_byte_and_adds_no_entry(tmp_path: Path, post: Post) -> None:
    outbox = Outbox(tmp_path)
    intent = publish(outbox, post)
    before = files(tmp_path)
    receipt = asyncio.run(Outbox(tmp_path).publish(intent, forgotten))
    assert files(tmp_path) == before
    assert receipt == asyncio.run(outbox.find(intent))
    assert outbox.intend(post) == intent
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 1


def test_two_runs_of_one_day_may_share_a_title(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    keys = [publish(outbox, replace(POST, run=f"run-{n}")).key for n in (1, 2, 3)]
    assert keys == [SLUG, f"{SLUG}-2", f"{SLUG}-3"]
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 3
    for number, key in enumerate(keys, start=1):
        assert json.loads((tmp_path / f"{key}.json").read_bytes())["run"] == f"run-{number}"
        # A run that comes back finds its own name again.
        assert outbox.intend(replace(POST, run=f"run-{number}")).key == key


def test_a_run_never_writes_over_the_article_of_another(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    # The first one could not be published yet when the second came along.
    first, second = (outbox.intend(replace(POST, run=f"run-{n}")) for n in (1, 2))
    receipts = {asyncio.run(outbox.publish(intent, forgotten)) for intent in (second, first)}
    assert len(receipts) == 2
    runs = {json.loads(p.read_bytes())["run"] for p in tmp_path.glob("*.json")}
    assert runs == {"run-1", "run-2"}
    assert {asyncio.run(outbox.find(intent)) for intent in (first, second)} == receipts


def test_find_tells_what_was_published_from_what_was_not(tmp_path: Path, post: Post) -> None:
    outbox = Outbox(tmp_path / "outbox")
    intent = outbox.intend(post)
    assert asyncio.run(outbox.find(intent)) is None
    asyncio.run(outbox.publish(intent, forgotten))
    receipt = asyncio.run(outbox.find(intent))
    assert receipt is not None
    assert receipt.remote_id == f"{SLUG}.md"
    assert asyncio.run(outbox.find(outbox.intend(replace(post, run="run-2")))) is None
    assert asyncio.run(outbox.find(Intent(intent.key, b"not ours"))) is None
    (tmp_path / "outbox" / f"{SLUG}.json").unlink()
    assert asyncio.run(outbox.find(intent)) is None


@pytest.mark.parametrize("name", sorted(FILES | {f"{SLUG}.png"}))
@pytest.mark.parametrize("spoiled", [None, b"half"])
def test_what_is_found_is_whole_and_listed_and_publishing_again_mends_the_rest(
    tmp_path: Path, name: str, spoiled: bytes | None
) -> None:
    outbox = Outbox(tmp_path)
    publish(outbox, replace(POST, run="run-0", title="An earlier one"))
    intent = publish(outbox, CARDED)
    before = files(tmp_path)
    (tmp_path / name).unlink()
    if spoiled is not None:
        (tmp_path / name).write_bytes(spoiled)
    assert asyncio.run(outbox.find(intent)) is None
    asyncio.run(outbox.publish(intent, forgotten))
    assert asyncio.run(outbox.find(intent)) is not None
    assert files(tmp_path) == before


def test_an_article_that_has_left_the_feed_by_age_is_found(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    first = publish(outbox)
    for number in range(FEED_ENTRIES_MAX):
        publish(outbox, replace(POST, run=f"later-{number}", at=AT + timedelta(hours=number)))
    assert "run:run-1<" not in (tmp_path / "feed.xml").read_text()
    assert asyncio.run(outbox.find(first)) is not None


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path)
    intent = publish(outbox)

    def denied(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", denied)
        with pytest.raises(Transient, match="cannot be read"):
            asyncio.run(outbox.find(intent))
    assert asyncio.run(outbox.find(intent)) is not None


# A journal that was restored from a backup, and knows nothing of it


LATER: dict[str, Any] = {
    "at": AT + timedelta(days=3),
    "title": "Another title",
    "markdown": "Other words.",
}


def test_a_run_that_is_intended_again_on_another_day_keeps_its_name(
    tmp_path: Path, post: Post
) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example")
    first = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    again = replace(post, **LATER)
    intent = outbox.intend(again)
    assert intent.key == SLUG
    assert outbox.address(again) == first.url
    assert asyncio.run(outbox.find(intent)) == first
    assert asyncio.run(outbox.publish(intent, forgotten)) == first
    assert asyncio.run(outbox.find(outbox.intend(post))) == first
    assert len(list(tmp_path.glob("*.html"))) == 2
    assert [one(e, "title") for e in atom(tmp_path).findall(f"{{{ATOM}}}entry")] == [
        "Another title"
    ]


def test_an_intent_made_while_the_folder_was_away_is_published_under_the_runs_own_name(
    tmp_path: Path, post: Post
) -> None:
    outbox = Outbox(tmp_path / "outbox")
    elsewhere = Outbox(tmp_path / "empty").intend(replace(post, **LATER))
    assert elsewhere.key != SLUG
    first = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    assert asyncio.run(outbox.publish(elsewhere, forgotten)) == first
    assert asyncio.run(outbox.find(elsewhere)) == first
    assert len(list((tmp_path / "outbox").glob("*.json"))) == 1


def test_a_folder_that_is_away_stops_no_intent_and_is_not_taken_for_an_empty_one(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "outbox"
    outbox = Outbox(folder, site_url="https://site.example")
    receipt = asyncio.run(outbox.publish(outbox.intend(POST), forgotten))
    folder.rename(tmp_path / "away")
    folder.symlink_to(folder)
    intent = outbox.intend(replace(POST, **LATER))
    for asked in (
        outbox.find(intent), outbox.publish(intent, forgotten), outbox.withdraw(receipt, "wrong"),
    ):  # fmt: skip
        with pytest.raises(Transient):
            asyncio.run(cast("Any", asked))
    folder.unlink()
    (tmp_path / "away").rename(folder)
    assert asyncio.run(outbox.publish(intent, forgotten)) == receipt


def test_half_a_surrogate_pair_does_not_stop_an_article(tmp_path: Path) -> None:
    half = "half \ud83d of it"
    outbox = Outbox(tmp_path)
    intent = publish(
        outbox, replace(POST, title=half, description=half, markdown=half, tags=(half,))
    )
    assert asyncio.run(outbox.find(intent)) is not None
    assert [one(e, "title") for e in atom(tmp_path).findall(f"{{{ATOM}}}entry")] == ["half ? of it"]


def test_a_copy_of_a_receipt_is_no_second_article(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    intent = publish(outbox)
    (tmp_path / "copy.json").write_bytes((tmp_path / f"{SLUG}.json").read_bytes())
    asyncio.run(outbox.publish(intent, forgotten))
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 1


# Trouble


STEPS_MAX = 40


def interrupted(
    monkeypatch: pytest.MonkeyPatch, at: int, stop: Callable[[], None], *also: str
) -> list[str]:
    """Stops at the file operation number `at`, before it happens; returns those that were made."""
    made: list[str] = []

    def guard(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            if len(made) == at:
                stop()
            made.append(name)
            return act(*args, **options)

        return guarded

    for name in ("replace", "fsync", *also):
        monkeypatch.setattr(os, name, guard(name, getattr(os, name)))
    return made


def assert_whole(folder: Path, whole: dict[str, bytes], before: dict[str, bytes]) -> None:
    """Every file that shows is either as it was or as it will be."""
    for name, content in files(folder).items():
        assert content in (whole[name], before.get(name)), f"{name} is neither old nor new"
    assert set(before) <= set(files(folder))


def prepared(folder: Path, post: Post) -> tuple[Outbox, Intent, dict[str, bytes]]:
    """An outbox with one article in it and another about to come, at addresses that stay."""
    outbox = Outbox(folder, site_url="https://site.example")
    publish(outbox, replace(post, run="run-0", title="An earlier one", at=AT - timedelta(1)))
    return outbox, outbox.intend(post), files(folder)


@pytest.fixture
def whole(tmp_path: Path, post: Post) -> dict[str, bytes]:
    """The files as they are in the end."""
    outbox, intent, _ = prepared(tmp_path / "whole", post)
    asyncio.run(outbox.publish(intent, forgotten))
    return files(tmp_path / "whole")


def test_an_error_between_any_two_file_operations_leaves_no_half_file(
    tmp_path: Path, whole: dict[str, bytes], post: Post
) -> None:
    def stop() -> None:
        raise Killed

    for at in range(STEPS_MAX):
        folder = tmp_path / str(at)
        outbox, intent, before = prepared(folder, post)
        with pytest.MonkeyPatch.context() as monkeypatch:
            made = interrupted(monkeypatch, at, stop)
            try:
                asyncio.run(outbox.publish(intent, forgotten))
            except Killed:
                pass
            else:
                break
        assert_whole(folder, whole, before)
        assert not list(folder.glob(".*")), "a temporary file was left behind"
        asyncio.run(Outbox(folder, site_url="https://site.example").publish(intent, forgotten))
        assert files(folder) == whole
    # Each file is flushed before it is moved into place, and its folder afterwards.
    assert made == ["fsync", "replace", "fsync"] * (steps(post) // 3)


def test_a_kill_between_any_two_file_operations_leaves_no_half_file(
    tmp_path: Path, whole: dict[str, bytes], post: Post
) -> None:
    for at in range(STEPS_MAX):
        folder = tmp_path / str(at)
        outbox, intent, before = prepared(folder, post)
        child = os.fork()
        if not child:
            status = 1
            try:
                interrupted(pytest.MonkeyPatch(), at, lambda: os._exit(9))
                asyncio.run(outbox.publish(intent, forgotten))
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        assert_whole(folder, whole, before)
        assert not feedparser.parse(io.BytesIO((folder / "feed.xml").read_bytes())).bozo
        if not status:
            break
        again = Outbox(folder, site_url="https://site.example")
        assert again.intend(post) == intent
        asyncio.run(again.publish(intent, forgotten))
        assert files(folder) == whole
        assert asyncio.run(again.find(intent)) is not None
    assert at == steps(post)


def test_what_is_found_after_a_kill_is_in_the_folder_whole(
    tmp_path: Path, whole: dict[str, bytes], post: Post
) -> None:
    def stop() -> None:
        raise Killed

    found = []
    for at in range(steps(post)):
        folder = tmp_path / str(at)
        outbox, intent, _ = prepared(folder, post)
        with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Killed):
            interrupted(monkeypatch, at, stop)
            asyncio.run(outbox.publish(intent, forgotten))
        if asyncio.run(outbox.find(intent)) is not None:
            found.append(at)
            shown = files(folder)
            for name in (n for n in whole if n.startswith(SLUG)):
                assert shown[name] == whole[name]
    # Its page, its receipt, the index and the feed are in place; only a folder is to be flushed.
    assert found == [steps(post) - 1]


ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EIO: "look at the folder",
}


def attempt(outbox: Outbox, intent: Intent) -> Transient | None:
    try:
        asyncio.run(outbox.publish(intent, forgotten))
    except Transient as error:
        return error
    return None


@pytest.mark.parametrize("number", ERRORS)
def test_a_disk_in_trouble_is_tried_again_later_and_the_operator_told_what_to_do(
    tmp_path: Path, number: int, whole: dict[str, bytes], post: Post
) -> None:
    def stop() -> None:
        raise OSError(number, os.strerror(number))

    for at in range(STEPS_MAX):
        folder = tmp_path / str(at)
        outbox, intent, before = prepared(folder, post)
        with pytest.MonkeyPatch.context() as monkeypatch:
            interrupted(monkeypatch, at, stop)
            error = attempt(outbox, intent)
        if error is None:
            break
        assert str(folder) in str(error)
        assert ERRORS[number] in str(error)
        assert os.strerror(number) in str(error)
        assert isinstance(error.__cause__, OSError)
        assert_whole(folder, whole, before)
        assert not list(folder.glob(".*"))
    assert at == steps(post)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_share_that_knows_no_modes_and_flushes_no_folder_takes_articles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, post: Post, number: int
) -> None:
    fsync = os.fsync

    def no_mode(descriptor: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    def no_folder(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fchmod", no_mode)
    monkeypatch.setattr(os, "fsync", no_folder)
    outbox = Outbox(tmp_path / "share")
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    assert asyncio.run(outbox.find(outbox.intend(post))) == receipt
    asyncio.run(outbox.withdraw(receipt, "a reason"))
    assert set(files(tmp_path / "share")) == {"index.html", "feed.xml"}


def test_a_folder_that_may_not_be_written_is_tried_again_later() -> None:
    def said() -> str:
        with pytest.raises(Transient) as caught:
            publish(outbox)
        assert asyncio.run(outbox.find(outbox.intend(POST))) is None
        return str(caught.value)

    with tempfile.TemporaryDirectory(prefix="penstock-test.") as home:
        Path(home).chmod(0o755)
        folder = Path(home) / "outbox"
        outbox = Outbox(folder)
        publish(outbox, replace(POST, run="another"))
        assert "make it writable" in as_another(said, folder, mode=0o555)


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("not a folder")
    outbox = Outbox(tmp_path / "outbox")
    with pytest.raises(Transient, match="look at the folder"):
        publish(outbox)
    assert asyncio.run(outbox.find(outbox.intend(POST))) is None


# Taking back


def withdraw(folder: Path, receipt: Receipt) -> None:
    outbox = Outbox(folder, site_url="https://site.example")
    asyncio.run(outbox.withdraw(receipt, "a figure was wrong"))


def test_an_article_is_taken_back_with_all_that_leads_to_it(tmp_path: Path, post: Post) -> None:
    outbox, intent, _ = prepared(tmp_path, post)
    assert isinstance(outbox, Withdrawing)
    kept = {name for name in files(tmp_path) if name.startswith("2026-11-02")}
    receipt = asyncio.run(outbox.publish(intent, forgotten))
    withdraw(tmp_path, receipt)
    left = files(tmp_path)
    assert set(left) == kept | {"index.html", "feed.xml"}
    assert SLUG.encode() not in left["index.html"] + left["feed.xml"]
    (entry,) = atom(tmp_path).findall(f"{{{ATOM}}}entry")
    assert one(entry, "title") == "An earlier one"
    # What a feed said last is not younger than what it says now.
    assert datetime.fromisoformat(one(atom(tmp_path), "updated")) == AT
    assert asyncio.run(outbox.find(intent)) is None
    withdraw(tmp_path, receipt)
    assert files(tmp_path) == left


def test_when_no_article_is_left_the_feed_is_still_one_and_the_index_says_so(
    tmp_path: Path, post: Post
) -> None:
    outbox = Outbox(tmp_path, title="The Sluice")
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    withdraw(tmp_path, receipt)
    assert set(files(tmp_path)) == {"index.html", "feed.xml"}
    assert "no articles" in (tmp_path / "index.html").read_text()
    root = atom(tmp_path)
    assert root.findall(f"{{{ATOM}}}entry") == []
    for required in ("id", "title", "updated"):
        assert one(root, required)
    assert datetime.fromisoformat(one(root, "updated")) == AT
    parsed = feedparser.parse(io.BytesIO((tmp_path / "feed.xml").read_bytes()))
    assert not parsed.bozo
    assert parsed.version == "atom10"
    publish(outbox, replace(post, run="run-2", title="The next"))
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 1


def test_a_name_that_was_withdrawn_goes_to_no_other_article(tmp_path: Path, post: Post) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example")
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    withdraw(tmp_path, receipt)
    other = outbox.intend(replace(post, run="run-2"))
    assert other.key == f"{SLUG}-2"
    asyncio.run(outbox.publish(other, forgotten))
    before = files(tmp_path)
    withdraw(tmp_path, receipt)
    assert files(tmp_path) == before


def test_what_was_withdrawn_is_not_published_again_by_a_journal_that_forgot_it(
    tmp_path: Path, post: Post
) -> None:
    outbox = Outbox(tmp_path, site_url="https://site.example")
    withdraw(tmp_path, asyncio.run(outbox.publish(outbox.intend(post), forgotten)))
    for again in (post, replace(post, **LATER)):
        intent = outbox.intend(again)
        assert asyncio.run(outbox.find(intent)) is None
        with pytest.raises(Rejected, match="was withdrawn from the outbox"):
            asyncio.run(outbox.publish(intent, forgotten))
    (tmp_path / f".{SLUG}.withdrawn").unlink()
    publish(outbox, post)
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 1


@pytest.mark.parametrize("remote_id", [
    "", "x", ".md", "index.md", "../2026-11-03-secret.md", "/etc/passwd.md", "2026-11-03-a/b.md",
    "2026-11-03-a\x00.md", "2026-11-03-a.md\n", "2026-11-03-a.html", "2026-11-03-.md",
    "2026-11-03.md", "2026-11-03-A.md", "2026-11-03-a..md", "٢٠٢٦-11-03-a.md", "2026-11-03-*.md",
    "at://did:plc:x/app.bsky.feed.post/3khvghbtc2222", "1000001", "2026-11-03--a.md",
])  # fmt: skip
def test_what_is_no_article_of_ours_is_not_touched(tmp_path: Path, remote_id: str) -> None:
    folder = tmp_path / "outbox"
    publish(Outbox(folder))
    (tmp_path / "2026-11-03-secret.md").write_text("somebody's")
    before = files(folder)
    with pytest.raises(Rejected):
        withdraw(folder, Receipt(None, remote_id))
    assert files(folder) == before
    assert (tmp_path / "2026-11-03-secret.md").exists()


def test_taking_back_what_was_never_there_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    publish(Outbox(folder, site_url="https://site.example"))
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    withdraw(folder, Receipt(None, f"{SLUG}-2.md"))
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_from_a_folder_that_is_not_mounted_nothing_is_taken_back(
    tmp_path: Path, post: Post, left: str
) -> None:
    folder, away = tmp_path / "outbox", tmp_path / "away"
    outbox = Outbox(folder, site_url="https://site.example")
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    folder.rename(away)
    if left == "an empty folder":
        folder.mkdir()
    with pytest.raises(Transient, match=f"{folder} is not there: mount"):
        withdraw(folder, receipt)
    # What was never published has nothing to be looked for.
    asyncio.run(outbox.discard(outbox.intend(replace(post, run="run-2"))))
    assert folder.exists() == (left == "an empty folder")
    if folder.exists():
        folder.rmdir()
    away.rename(folder)
    withdraw(folder, receipt)
    assert set(files(folder)) == {"index.html", "feed.xml"}


def test_an_article_in_the_folder_that_was_named_before_is_not_called_taken_back(
    tmp_path: Path, post: Post
) -> None:
    before, now = tmp_path / "be fore", tmp_path / "now"
    receipt = asyncio.run(Outbox(before).publish(Outbox(before).intend(post), forgotten))
    other = Outbox(now)
    asyncio.run(other.publish(other.intend(replace(post, run="run-2", title="Another")), forgotten))
    with pytest.raises(Transient, match="PENSTOCK_OUTBOX_DIR again"):
        asyncio.run(other.withdraw(receipt, "a reason"))
    assert (before / f"{SLUG}.html").exists()
    # Moved as it is told, or gone from there, it is.
    for path in before.glob(f"{SLUG}.*"):
        path.rename(now / path.name)
    asyncio.run(other.withdraw(receipt, "a reason"))
    assert not (now / f"{SLUG}.html").exists()


def test_an_article_of_a_site_that_is_in_another_folder_is_not_called_taken_back(
    tmp_path: Path, post: Post
) -> None:
    before, now = (
        Outbox(tmp_path / name, site_url="https://site.example") for name in ("before", "now")
    )
    receipt = asyncio.run(before.publish(before.intend(post), forgotten))
    asyncio.run(now.publish(now.intend(replace(post, run="run-2", title="Another")), forgotten))
    with pytest.raises(Transient, match="with PENSTOCK_OUTBOX_DIR"):
        asyncio.run(now.withdraw(receipt, "a reason"))
    asyncio.run(before.withdraw(receipt, "a reason"))
    # Again, as after a crash, it is known to have been there.
    asyncio.run(before.withdraw(receipt, "a reason"))
    assert not (tmp_path / "before" / f"{SLUG}.html").exists()


def test_why_it_was_taken_back_is_nowhere_in_a_folder_that_may_be_served(
    tmp_path: Path, post: Post
) -> None:
    outbox = Outbox(tmp_path)
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    asyncio.run(outbox.withdraw(receipt, "so says Ada"))
    left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert left
    assert not any(b"Ada" in content for content in left)


def test_what_a_person_removed_is_taken_back(tmp_path: Path, post: Post) -> None:
    folder = tmp_path / "outbox"
    outbox = Outbox(folder, site_url="https://site.example")
    receipt = asyncio.run(outbox.publish(outbox.intend(post), forgotten))
    for path in folder.glob(f"{SLUG}.*"):
        path.unlink()
    withdraw(folder, receipt)
    assert SLUG not in (folder / "index.html").read_text()
    # All of it, and the folder as well: an empty index says that this is meant.
    shutil.rmtree(folder)
    with pytest.raises(Transient, match="empty index"):
        withdraw(folder, receipt)
    folder.mkdir()
    (folder / "index.html").touch()
    withdraw(folder, receipt)
    assert "no articles" in (folder / "index.html").read_text()


def test_a_file_of_somebody_else_under_an_articles_name_is_left_to_a_person(
    tmp_path: Path,
) -> None:
    (tmp_path / f"{SLUG}.json").write_text('{"name": "mine"}')
    with pytest.raises(Rejected, match=f"{SLUG}.json"):
        withdraw(tmp_path, Receipt(None, f"{SLUG}.md"))
    assert set(files(tmp_path)) == {f"{SLUG}.json"}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_withdrawal_that_ends_between_any_two_file_operations_is_gone_on_with(
    tmp_path: Path, post: Post, killed: bool, alone: bool, meanwhile: bool
) -> None:
    def published(folder: Path) -> tuple[Outbox, Intent, Receipt]:
        outbox = Outbox(folder, site_url="https://site.example")
        if not alone:
            outbox, intent, _ = prepared(folder, post)
        intent = outbox.intend(post)
        return outbox, intent, asyncio.run(outbox.publish(intent, forgotten))

    def others(outbox: Outbox) -> None:
        """Another article of the same day and title goes out before it is gone on with."""
        if meanwhile:
            publish(outbox, replace(post, run="run-2"))

    outbox, _, receipt = published(tmp_path / "whole")
    withdraw(tmp_path / "whole", receipt)
    others(outbox)
    wanted = files(tmp_path / "whole")
    for at in range(STEPS_MAX):
        folder = tmp_path / str(at)
        outbox, intent, receipt = published(folder)
        ended = cut_short(outbox, receipt, at, killed)
        if not ended:
            # Nothing leads to what is not there, and no file is half one.
            shown = files(folder)
            assert not feedparser.parse(io.BytesIO(shown["feed.xml"])).bozo
            linked = Page(shown["index.html"].decode()).tags
            assert {a["href"] for tag, a in linked if tag == "a"} <= set(shown)
        others(outbox)
        if meanwhile and (folder / f".{SLUG}.withdrawn").exists():
            assert f'"{SLUG}.html"' not in (folder / "index.html").read_text()
        withdraw(folder, receipt)
        assert files(folder) == wanted
        assert asyncio.run(outbox.find(intent)) is None
        if ended:
            break
    assert at > 10


def cut_short(outbox: Outbox, receipt: Receipt, at: int, killed: bool) -> bool:
    """A withdrawal that dies, or fails, at a file operation; whether it came to its end."""
    if killed:
        child = os.fork()
        if not child:
            status = 1
            try:
                interrupted(pytest.MonkeyPatch(), at, lambda: os._exit(9), "unlink")
                asyncio.run(outbox.withdraw(receipt, "reason"))
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        return status == 0

    def stop() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    error: Transient | None = None
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupted(monkeypatch, at, stop, "unlink")
        try:
            asyncio.run(outbox.withdraw(receipt, "reason"))
        except Transient as caught:
            error = caught
    assert error is None or "free some space" in str(error)
    return error is None


class Desk:
    """Publishes and takes back articles of a few runs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(folder, site_url="https://site.example")
        self.intents: dict[int, Intent] = {}
        self.receipts: dict[int, Receipt] = {}
        self.gone: set[int] = set()

    def publish(self, run: int) -> None:
        self.intents.setdefault(run, self.outbox.intend(replace(CARDED, run=f"run-{run}")))
        if run not in self.gone:
            receipt = asyncio.run(self.outbox.publish(self.intents[run], forgotten))
            assert self.receipts.setdefault(run, receipt) == receipt

    def withdraw(self, run: int) -> None:
        if run in self.receipts:
            self.gone.add(run)
            asyncio.run(self.outbox.withdraw(self.receipts[run], "wrong"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Desk.publish, Desk.withdraw]),
            st.integers(0, 3),
            st.none() | st.integers(0, 25),
        )
    )
)
@settings(max_examples=60, deadline=None)
def test_after_any_sequence_of_publishing_taking_back_and_faults_the_folder_is_right(
    acts: list[tuple[Callable[[Desk, int], None], int, int | None]],
) -> None:
    def stop() -> None:
        raise OSError(errno.EIO, "broken")

    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        for act, run, at in acts:
            with pytest.MonkeyPatch.context() as monkeypatch, suppress(Transient):
                if at is not None:
                    interrupted(monkeypatch, at, stop, "unlink")
                act(desk, run)
        kept = desk.receipts.keys() - desk.gone
        for run in desk.receipts:
            (Desk.publish if run in kept else Desk.withdraw)(desk, run)
        for run, receipt in desk.receipts.items():
            found = asyncio.run(desk.outbox.find(desk.intents[run]))
            assert found == (receipt if run in kept else None)
        left = {name.partition(".")[0] for name in files(Path(folder)) if name[0] == "2"}
        for run in desk.gone:
            assert desk.receipts[run].remote_id.removesuffix(".md") not in left


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", "", '{"name": "my site"}', "\xff"])
def test_a_file_that_somebody_else_put_there_changes_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    publish(Outbox(tmp_path))
    assert len(atom(tmp_path).findall(f"{{{ATOM}}}entry")) == 1
    assert (tmp_path / "manifest.json").read_bytes() == content.encode("latin-1")


# Names

TITLES = {
    "Plain title": "plain-title",
    "  Über Größe: 10 % mehr?  ": "uber-gro-e-10-mehr",
    "Crème brûlée": "creme-brulee",
    "🌊🌊": "article",
    "日本語の題名": "article",
    "!?…—": "article",
    "": "article",
    "../../etc/passwd": "etc-passwd",
    "C:\\con\x00.html": "c-con-html",
    "a" * 300: "a" * 60,
    "word " * 60: "word-" * 11 + "word",
    ".hidden": "hidden",
}


@pytest.mark.parametrize("title", TITLES)
def test_a_title_becomes_a_name_of_plain_characters(tmp_path: Path, title: str) -> None:
    assert slugify(title) == TITLES[title]
    intent = publish(Outbox(tmp_path), replace(POST, title=title))
    assert intent.key.startswith(f"2026-11-03-{TITLES[title]}")
    assert f"{intent.key}.html" in files(tmp_path)


@given(st.text())
def test_every_name_is_short_and_safe(title: str) -> None:
    slug = slugify(title)
    assert 0 < len(slug) <= 60
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug == slug.strip("-")
