"""
The destination that always works: a folder with Markdown, HTML, a picture and an Atom feed.

Every file is written beside its place, flushed to the disk and moved there, so that a reader
never sees half a file. The article's `.json` is written last and is its receipt; the index and
the feed are made from those, so that publishing again, or after a crash, mends them.

The receipt is the intent, byte for byte, unless that carries a picture: then the picture is a file
of its own, and the receipt has its size and the intent's hash instead, so that an index of a
thousand articles need not read a thousand pictures.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from datetime import datetime
from pathlib import Path
from typing import Any

from publishers.errors import Rejected, Transient
from publishers.port import Intent, Note, Post, Receipt

FEED_ENTRIES_MAX = 50
SLUG_MAX = 60
# An underscore inside a word, as in x86_64, is none; a # closes a heading at its end only.
_MARKS = re.compile(r"[\\`*\[\]<>]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|#(?=#*\s*$)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ATOM = "http://www.w3.org/2005/Atom"

_STYLE = (Path(__file__).parent / "outbox.css").read_text(encoding="utf-8")


class Outbox:
    """
    Args:
        folder: made when missing.
        site_url: where the operator serves the folder, "" when nowhere; makes it public.
        title: the publication's name on the index and in the feed.
    """

    name = "outbox"

    def __init__(self, folder: Path, *, site_url: str = "", title: str = "Penstock") -> None:
        self._folder = folder
        self._site_url = site_url
        self._title = title

    @property
    def public(self) -> bool:
        """Whether the folder is served somewhere."""
        return bool(self._site_url)

    def intend(self, post: Post) -> Intent:
        """Render the article and choose its file name."""
        slug = self._free_slug(f"{post.at:%Y-%m-%d}-{slugify(post.title)}", post.run)
        article: dict[str, Any] = {
            "run": post.run,
            "slug": slug,
            "title": post.title,
            "description": post.description,
            "tags": list(post.tags),
            "language": post.language,
            "published_at": post.at.isoformat(),
            "markdown": post.markdown,
            "html": render(post.markdown),
        }
        # Only what there is, so that the same post has the bytes that earlier versions gave it.
        if post.canonical_url is not None:
            article["canonical_url"] = post.canonical_url
        if post.reading_minutes:
            article["reading_minutes"] = post.reading_minutes
        if post.card is not None:
            article["card"] = base64.b64encode(post.card).decode()
        payload = json.dumps(article, ensure_ascii=False, sort_keys=True, indent=1)
        return Intent(key=slug, payload=payload.encode())

    def address(self, post: Post) -> str | None:
        """Where a post will be for the public, before it is there; None where nobody serves it."""
        return self._url(f"{self.intend(post).key}.html") if self.public else None

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """Write the article's files, then the index and the feed."""
        article, kept, card = _unpacked(intent)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for abandoned in self._folder.glob(".*.part"):
                # A killed process left it halfway; nobody else writes here.
                abandoned.unlink(missing_ok=True)
            there = _article(self._folder / f"{intent.key}.json")
            if there and there["run"] != article["run"]:
                raise Rejected(f"{intent.key} is the article of run {there['run']}")
            title = _literal(article["title"])
            self._write(
                f"{intent.key}.md", f"# {title}\n\n{article['markdown'].strip()}\n".encode()
            )
            if card is not None:
                self._write(f"{intent.key}.png", card)
            self._write(f"{intent.key}.html", self._page(article).encode())
            self._write(f"{intent.key}.json", kept)
            articles = self._articles()
            self._write("index.html", self._index(articles).encode())
            self._write("feed.xml", self._feed(articles[:FEED_ENTRIES_MAX]))
        except OSError as error:
            raise Transient(_explain(error, self._folder)) from error
        return self._receipt(intent)

    async def find(self, intent: Intent) -> Receipt | None:
        """The receipt, when the article's last file is there."""
        path = self._folder / f"{intent.key}.json"
        try:
            written = path.read_bytes() == _unpacked(intent)[1]
        except (OSError, ValueError):
            return None
        return self._receipt(intent) if written else None

    def _receipt(self, intent: Intent) -> Receipt:
        return Receipt(url=self._url(f"{intent.key}.html"), remote_id=f"{intent.key}.md")

    def _url(self, name: str) -> str:
        base = self._site_url or self._folder.absolute().as_uri()
        return f"{base}/{name}"

    def _free_slug(self, wanted: str, run: str) -> str:
        """Two articles of one day may share a title; a run keeps its own name."""
        slug, number = wanted, 1
        while (there := _article(self._folder / f"{slug}.json")) and there["run"] != run:
            number += 1
            slug = f"{wanted}-{number}"
        return slug

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one step that survives a power cut."""
        # No `.json` at the end, which would be taken for an article.
        temporary = self._folder / f".{name}.{os.getpid()}.part"
        try:
            with temporary.open("wb") as file:
                # Published means readable, by a web server too; the state folder above is private.
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # The name itself is durable only when its folder was flushed.
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _articles(self) -> list[dict[str, Any]]:
        """Everything published, newest first."""
        articles = [a for path in self._folder.glob("*.json") if (a := _article(path))]
        return sorted(articles, key=lambda a: (a["published_at"], a["slug"]), reverse=True)

    def _page(self, article: dict[str, Any]) -> str:
        at = datetime.fromisoformat(article["published_at"])
        about = [f'<time datetime="{article["published_at"]}">{at:%-d %B %Y}</time>']
        if minutes := article.get("reading_minutes"):
            about.append(f"{minutes} min read")
        about += [html.escape(tag) for tag in article["tags"]]
        body = (
            f"<article>\n<h1>{html.escape(article['title'])}</h1>\n"
            f'<p class="meta">{" · ".join(about)}</p>\n{article["html"]}\n</article>\n'
            '<p class="meta"><a href="index.html">All articles</a></p>'
        )
        return self._document(
            article["title"], article["description"], article["language"], body,
            head=self._told_to_machines(article),
        )  # fmt: skip

    def _told_to_machines(self, article: dict[str, Any]) -> str:
        """Canonical address, Open Graph and schema.org, for whoever makes cards and lists of it."""
        own = self._url(f"{article['slug']}.html") if self.public else None
        canonical = article.get("canonical_url") or own
        # A picture is found by its whole address or not at all.
        image = self._url(f"{article['slug']}.png") if self.public and "card" in article else None
        properties = [
            ("og:type", "article"),
            ("og:site_name", self._title),
            ("og:title", article["title"]),
            ("og:description", article["description"]),
            ("og:url", canonical),
            ("og:image", image),
            ("og:image:type", "image/png" if image else None),
            ("og:image:alt", article["title"] if image else None),
            ("article:published_time", article["published_at"]),
            *(("article:tag", tag) for tag in article["tags"]),
        ]
        lines = [
            f'<meta property="{name}" content="{html.escape(value)}">'
            for name, value in properties
            if value
        ]
        if canonical:
            lines.insert(0, f'<link rel="canonical" href="{html.escape(canonical)}">')
        if image:
            lines.append('<meta name="twitter:card" content="summary_large_image">')
        lines.append(_linked_data(article, self._title, canonical, image))
        return "\n".join(lines) + "\n"

    def _index(self, articles: list[dict[str, Any]]) -> str:
        items = "\n".join(
            f'<li><a href="{a["slug"]}.html">{html.escape(a["title"])}</a>'
            f'<br><span class="meta">{a["published_at"][:10]} · {html.escape(a["description"])}'
            "</span></li>"
            for a in articles
        )
        language = articles[0]["language"] if articles else "en"
        body = f"<h1>{html.escape(self._title)}</h1>\n<ul>\n{items}\n</ul>"
        return self._document(self._title, "", language, body)

    def _document(
        self, title: str, description: str, language: str, body: str, head: str = ""
    ) -> str:
        about = (
            f'<meta name="description" content="{html.escape(description)}">\n'
            if description
            else ""
        )
        return (
            f'<!doctype html>\n<html lang="{html.escape(language)}">\n<head>\n'
            '<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title>\n{about}{head}"
            '<link rel="alternate" type="application/atom+xml" href="feed.xml">\n'
            f"<style>\n{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )

    def _feed(self, articles: list[dict[str, Any]]) -> bytes:
        """An Atom feed, RFC 4287."""
        feed = ElementTree.Element("feed", xmlns=ATOM)

        def add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
            clean = {name: _xml(value) for name, value in attributes.items()}
            ElementTree.SubElement(parent, tag, clean).text = _xml(text) or None

        add(feed, "id", self._url("feed.xml"))
        add(feed, "title", self._title)
        add(feed, "updated", max(a["published_at"] for a in articles))
        add(feed, "link", rel="self", href=self._url("feed.xml"))
        add(feed, "link", rel="alternate", href=self._url("index.html"))
        author = ElementTree.SubElement(feed, "author")
        add(author, "name", "Penstock (autonomous)")
        for article in articles:
            entry = ElementTree.SubElement(feed, "entry")
            # A run's id never changes, even when the site moves.
            add(entry, "id", f"tag:penstock,2026:run:{article['run']}")
            add(entry, "title", article["title"])
            add(entry, "link", rel="alternate", href=self._url(f"{article['slug']}.html"))
            if isinstance(card := article.get("card"), dict):
                add(
                    entry, "link", rel="enclosure", type="image/png", length=str(card["bytes"]),
                    href=self._url(f"{article['slug']}.png"),
                )  # fmt: skip
            add(entry, "published", article["published_at"])
            add(entry, "updated", article["published_at"])
            add(entry, "summary", article["description"])
            for tag in article["tags"]:
                add(entry, "category", term=tag)
            add(entry, "content", article["html"], type="html")
        return bytes(ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True))


def _unpacked(intent: Intent) -> tuple[dict[str, Any], bytes, bytes | None]:
    """The article as its receipt has it, the receipt's bytes, and the picture."""
    article: dict[str, Any] = json.loads(intent.payload)
    packed = article.get("card")
    if packed is None:
        return article, intent.payload, None
    card = base64.b64decode(packed)
    article["card"] = {"bytes": len(card)}
    article["intent_sha256"] = hashlib.sha256(intent.payload).hexdigest()
    kept = json.dumps(article, ensure_ascii=False, sort_keys=True, indent=1)
    return article, kept.encode(), card


def _linked_data(
    article: dict[str, Any], site: str, canonical: str | None, image: str | None
) -> str:
    """https://schema.org/Article as JSON-LD, in a script element that nothing in it can end."""
    minutes = article.get("reading_minutes")
    about = {
        "@context": "https://schema.org",
        "@type": "Article",
        "headline": article["title"],
        "description": article["description"],
        "datePublished": article["published_at"],
        "inLanguage": article["language"],
        "keywords": article["tags"],
        "author": {"@type": "Organization", "name": f"{site} (autonomous)"},
        "publisher": {"@type": "Organization", "name": site},
        "url": canonical,
        "image": image,
        "timeRequired": f"PT{minutes}M" if minutes else None,
    }
    text = json.dumps({name: value for name, value in about.items() if value}, ensure_ascii=False)
    # The same value for whoever parses it as JSON, and no markup for whoever parses it as HTML.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/ld+json">{text}</script>'


def _literal(title: str) -> str:
    """A title as Markdown that shows it as it is, with no more escapes than that takes."""
    return _MARKS.sub(r"\\\g<0>", title)


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 cannot carry, not even escaped."""
    return _NOT_XML.sub("", text)


def _article(path: Path) -> dict[str, Any] | None:
    """An article's receipt; None for a file that is not there or is not ours."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError, NotADirectoryError):
        return None
    ours = isinstance(found, dict) and {"run", "slug", "published_at", "title"} <= found.keys()
    return found if ours else None


def render(markdown: str) -> str:
    """CommonMark to HTML that carries no scripts, no foreign images and no raw HTML."""
    import nh3
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return nh3.clean(
        parser.render(markdown),
        tags=nh3.ALLOWED_TAGS - {"img"},
        link_rel="noopener nofollow",
        url_schemes={"http", "https"},
    )


def slugify(title: str) -> str:
    """A file name of ASCII letters, digits and dashes; `article` when nothing is left."""
    letters = (c for c in unicodedata.normalize("NFKD", title) if not unicodedata.combining(c))
    slug = re.sub(r"[^a-z0-9]+", "-", "".join(letters).lower()).strip("-")
    if len(slug) > SLUG_MAX:
        slug = slug[: SLUG_MAX + 1].rpartition("-")[0] or slug[:SLUG_MAX]
    return slug or "article"


def _explain(error: OSError, folder: Path) -> str:
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of the quota",
        errno.EACCES: "make it writable for the user that runs penstock",
        errno.EROFS: "make it writable for the user that runs penstock",
    }.get(error.errno or 0, "look at the folder")
    return f"the outbox {folder} cannot be written: {error.strerror}; {remedy}"
