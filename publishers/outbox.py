"""
The destination that always works: a folder with Markdown, HTML, a picture and an Atom feed.

Every file is written beside its place, flushed to the disk and moved there, so that a reader
never sees half a file. The article's `.json` is written last and is its receipt; the index and
the feed are made from those, so that publishing again, or after a crash, mends them.

The receipt is the intent, byte for byte, unless that carries a picture: then the picture is a file
of its own, and the receipt has its size and the intent's hash instead, so that an index of a
thousand articles need not read a thousand pictures.

A run has one article here, under one name, whatever the journal remembers of it. What was withdrawn
leaves a hidden `.NAME.withdrawn`, which keeps its name from being given to another article, says
why, and is found again when a withdrawal was interrupted.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import html
import json
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from publishers.disk import flush_folder, set_mode
from publishers.errors import Rejected, Transient, Withdrawn
from publishers.port import Intent, Note, Post, Receipt

FEED_ENTRIES_MAX = 50
SLUG_MAX = 60
# An underscore inside a word, as in x86_64, is none; a # closes a heading at its end only.
_MARKS = re.compile(r"[\\`*\[\]<>]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|#(?=#*\s*$)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# As `intend` makes names: a day, and what is left of a title.
_REMOTE_ID = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:-[a-z0-9]+)+\.md")
ATOM = "http://www.w3.org/2005/Atom"
# A feed says when it was changed; one that never had an article has no better date.
_NEVER = "1970-01-01T00:00:00+00:00"

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
        """Render the article and choose its file name, which is the run's own for good."""
        slug, markdown = self._slug_of(post), _utf8(post.markdown)
        article: dict[str, Any] = {
            "run": post.run,
            "slug": slug,
            "title": post.title,
            "description": post.description,
            "tags": list(post.tags),
            "language": post.language,
            "published_at": post.at.isoformat(),
            "markdown": markdown,
            "html": render(markdown),
        }
        # Only what there is, so that the same post has the bytes that earlier versions gave it.
        if post.canonical_url is not None:
            article["canonical_url"] = post.canonical_url
        if post.reading_minutes:
            article["reading_minutes"] = post.reading_minutes
        if post.card is not None:
            article["card"] = base64.b64encode(post.card).decode()
        payload = json.dumps(article, ensure_ascii=False, sort_keys=True, indent=1)
        return Intent(key=slug, payload=_utf8(payload).encode())

    def address(self, post: Post) -> str | None:
        """Where a post will be for the public, before it is there; None where nobody serves it."""
        return self._url(f"{self._slug_of(post)}.html") if self.public else None

    def picture(self, post: Post) -> str | None:
        """Where its card will be; None where nobody serves it, or there is none."""
        served = self.public and post.card is not None
        return self._url(f"{self._slug_of(post)}.png") if served else None

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """
        Write the article's files, then the index and the feed.

        Raises:
            Transient: the folder cannot be written.
            Withdrawn: the run's article was.
        """
        intended: dict[str, Any] = json.loads(intent.payload)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._refuse_withdrawn(intended["run"])
                slug = self._slug(intent.key, intended["run"])
                article, kept, card = _unpacked(intent, intended, slug)
                self._write(f"{slug}.md", _markdown(article))
                if card is not None:
                    self._write(f"{slug}.png", card)
                self._write(f"{slug}.html", self._page(article).encode())
                self._write(f"{slug}.json", kept)
                for name, content in self._lists().items():
                    self._write(name, content)
        except OSError as error:
            raise Transient(_explain(error, self._folder)) from error
        return self._receipt(slug)

    async def find(self, intent: Intent) -> Receipt | None:
        """
        The receipt, when the run's article is there, in whichever version, whole and listed.

        Where a part is missing, or is another version's, publishing again is what mends it. So it
        does with a folder that is not there, which has nothing in it.

        Raises:
            Transient: the folder cannot be read.
        """
        try:
            run = json.loads(intent.payload)["run"]
            article = next((a for a in self._articles() if a["run"] == run), None)
            there = article is not None and self._is_whole(article)
        except OSError as error:
            raise Transient(_explain(error, self._folder, "read")) from error
        except (ValueError, KeyError, TypeError):
            # Not what we write, the intent or the receipt.
            return None
        return self._receipt(article["slug"]) if article is not None and there else None

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        """
        Remove an article's files, and first what leads to them.

        Its receipt goes before everything else, so that an index made meanwhile, after a crash, has
        it no more.

        Raises:
            Transient: the folder cannot be written, and some of it may be there still; or the
                folder is not there, or empty as the place of a disk that is not mounted; or the
                article is in the folder that was named before.
            Rejected: it is no article of this folder.
        """
        if not _REMOTE_ID.fullmatch(receipt.remote_id):
            raise Rejected(f"{receipt.remote_id!r} is no article of the outbox")
        if not self._is_there():
            # Who has a receipt has published here, and that leaves an index.
            raise Transient(
                f"the outbox {self._folder} is not there: mount its disk, or look at"
                " PENSTOCK_OUTBOX_DIR; if it is gone for good, make it with an empty index.html"
            )
        slug = receipt.remote_id.removesuffix(".md")
        self._refuse_elsewhere(slug, receipt.url)
        self._take_out(slug)

    def _refuse_elsewhere(self, slug: str, url: str | None) -> None:
        """Where the article is still in another folder, as far as its address or this one tells."""
        if (url or "").startswith("http") and not self._has_had(slug):
            raise Transient(
                f"{slug} is not in {self._folder}: name the folder that it is in with"
                " PENSTOCK_OUTBOX_DIR; if it was removed by hand, empty"
                f" {self._folder}/index.html"
            )
        if not (url or "").startswith("file:"):
            return
        page = Path(unquote(urlsplit(url or "").path))
        try:
            is_there = _article(page.with_name(f"{slug}.json")) is not None
        except OSError as error:
            raise Transient(_explain(error, page.parent)) from error
        if is_there and page.parent != self._folder.absolute():
            raise Transient(
                f"it is in {page.parent}: name that folder in PENSTOCK_OUTBOX_DIR again, or move"
                f" its files into {self._folder}"
            )

    def _has_had(self, slug: str) -> bool:
        """Whether an article is or was in this folder; an empty index says that all was."""
        if any((self._folder / name).exists() for name in (f"{slug}.json", f".{slug}.withdrawn")):
            return True
        try:
            index = (self._folder / "index.html").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Transient(_explain(error, self._folder, "read")) from error
        return not index or f'"{slug}.html"' in index

    async def discard(self, intent: Intent) -> None:
        """Remove the files of an article that was being written when the process died."""
        try:
            slug = self._slug(intent.key, json.loads(intent.payload)["run"])
        except OSError as error:
            raise Transient(_explain(error, self._folder)) from error
        if self._is_there():
            self._take_out(slug)

    def _take_out(self, slug: str) -> None:
        try:
            with self._alone():
                path = self._folder / f"{slug}.json"
                article = _article(path)
                if article is not None:
                    self._bury(article)
                elif path.exists():
                    raise Rejected(f"{path} is none of Penstock's: look at it, and remove it")
                self._remove(f"{slug}.json")
                for name, content in self._lists().items():
                    if not self._holds(name, content):
                        self._write(name, content)
                for ending in ("html", "md", "png"):
                    self._remove(f"{slug}.{ending}")
        except OSError as error:
            raise Transient(_explain(error, self._folder)) from error

    def _receipt(self, slug: str) -> Receipt:
        return Receipt(url=self._url(f"{slug}.html"), remote_id=f"{slug}.md")

    def _url(self, name: str) -> str:
        base = self._site_url or self._folder.absolute().as_uri()
        return f"{base}/{name}"

    # Names

    def _slug_of(self, post: Post) -> str:
        wanted = f"{post.at:%Y-%m-%d}-{slugify(post.title)}"
        try:
            return self._slug(wanted, post.run)
        except OSError:
            # Publishing looks again, where the folder has to be there.
            return wanted

    def _slug(self, wanted: str, run: str) -> str:
        """
        The name of a run's article: the one it has, or one that is free.

        Two articles of one day may share a title; a run keeps its own name, also when its intent is
        made again on another day.
        """
        articles = self._articles()
        if (own := next((a["slug"] for a in articles if a["run"] == run), None)) is not None:
            return str(own)
        taken = {a["slug"] for a in (*articles, *self._withdrawn())}
        slug, number = wanted, 1
        while slug in taken:
            number += 1
            slug = f"{wanted}-{number}"
        return slug

    # What is in the folder

    def _is_there(self) -> bool:
        """
        Whether the folder is there and has something in it.

        Raises:
            Transient: nobody can tell.
        """
        try:
            return any(self._folder.iterdir())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Transient(_explain(error, self._folder)) from error

    def _names(self, ending: str) -> list[str]:
        # Not glob, which takes a folder that may not be read for an empty one.
        try:
            return [path.name for path in self._folder.iterdir() if path.name.endswith(ending)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _articles(self) -> list[dict[str, Any]]:
        """Everything published, newest first; not what is being withdrawn."""
        buried = {a["slug"] for a in self._withdrawn()}
        found = (_article(self._folder / name) for name in self._names(".json"))
        articles = [a for a in found if a is not None and a["slug"] not in buried]
        return sorted(articles, key=lambda a: (a["published_at"], a["slug"]), reverse=True)

    def _withdrawn(self) -> list[dict[str, Any]]:
        found = (_article(self._folder / name) for name in self._names(".withdrawn"))
        return [a for a in found if a is not None]

    def _is_whole(self, article: dict[str, Any]) -> bool:
        """Whether all that publishing an article writes is there as it would be written."""
        slug, card = article["slug"], article.get("card")
        wanted = {
            f"{slug}.md": _markdown(article),
            f"{slug}.html": self._page(article).encode(),
            **self._lists(),
        }
        if card is not None and self._size(f"{slug}.png") != card["bytes"]:
            return False
        return all(self._holds(name, content) for name, content in wanted.items())

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            return (self._folder / name).read_bytes() == content
        except FileNotFoundError:
            return False

    def _size(self, name: str) -> int | None:
        try:
            return (self._folder / name).stat().st_size
        except FileNotFoundError:
            return None

    # Changing it

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else of ours changes the folder, as a command beside the daemon may."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            # Where the file system has no locks there is one process here, or the next mends it.
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX)
            for name in self._names(".part"):
                if name.startswith("."):
                    # A killed process left it halfway.
                    (self._folder / name).unlink(missing_ok=True)
            yield
        finally:
            os.close(folder)

    def _refuse_withdrawn(self, run: str) -> None:
        for buried in self._withdrawn():
            if buried["run"] == run:
                raise Withdrawn(
                    f"run {run} was withdrawn from the outbox; it is published again only without"
                    f" {self._folder}/.{buried['slug']}.withdrawn"
                )

    def _bury(self, article: dict[str, Any]) -> None:
        """Leave word of an article that is being withdrawn, before anything of it goes."""
        kept = {name: article[name] for name in ("run", "slug", "title", "published_at")}
        # Not why: the journal has that, and this folder may be served.
        text = json.dumps(kept, sort_keys=True, indent=1)
        if _article(self._folder / (name := f".{article['slug']}.withdrawn")) is None:
            self._write(name, text.encode())

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        flush_folder(self._folder)

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one step that survives a power cut."""
        # No `.json` at the end, which would be taken for an article.
        temporary = self._folder / f".{name}.{os.getpid()}.part"
        try:
            with temporary.open("wb") as file:
                # Published means readable, by a web server too; the state folder above is private.
                set_mode(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(self._folder)

    # What is written

    def _lists(self) -> dict[str, bytes]:
        """The index and the feed as they have to be now."""
        articles = self._articles()
        changed = max((a["published_at"] for a in (*articles, *self._withdrawn())), default=_NEVER)
        return {
            "index.html": self._index(articles).encode(),
            "feed.xml": self._feed(articles[:FEED_ENTRIES_MAX], changed),
        }

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
        if not articles:
            body = f"<h1>{html.escape(self._title)}</h1>\n<p>There are no articles here now.</p>"
            return self._document(self._title, "", "en", body)
        items = "\n".join(
            f'<li><a href="{a["slug"]}.html">{html.escape(a["title"])}</a>'
            f'<br><span class="meta">{a["published_at"][:10]} · {html.escape(a["description"])}'
            "</span></li>"
            for a in articles
        )
        body = f"<h1>{html.escape(self._title)}</h1>\n<ul>\n{items}\n</ul>"
        return self._document(self._title, "", articles[0]["language"], body)

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

    def _feed(self, articles: list[dict[str, Any]], changed: str) -> bytes:
        """An Atom feed, RFC 4287; without an article it is none the less one."""
        feed = ElementTree.Element("feed", xmlns=ATOM)

        def add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
            clean = {name: _xml(value) for name, value in attributes.items()}
            ElementTree.SubElement(parent, tag, clean).text = _xml(text) or None

        add(feed, "id", self._url("feed.xml"))
        add(feed, "title", self._title)
        add(feed, "updated", changed)
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


def _unpacked(
    intent: Intent, intended: dict[str, Any], slug: str
) -> tuple[dict[str, Any], bytes, bytes | None]:
    """The article as its receipt has it under this name, the receipt's bytes, and the picture."""
    packed = intended.get("card")
    if packed is None and intended["slug"] == slug:
        return intended, intent.payload, None
    article = {**intended, "slug": slug}
    card = None
    if packed is not None:
        card = base64.b64decode(packed)
        article["card"] = {"bytes": len(card)}
    article["intent_sha256"] = hashlib.sha256(intent.payload).hexdigest()
    kept = json.dumps(article, ensure_ascii=False, sort_keys=True, indent=1)
    return article, kept.encode(), card


def _markdown(article: dict[str, Any]) -> bytes:
    return f"# {_literal(article['title'])}\n\n{article['markdown'].strip()}\n".encode()


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


def _utf8(text: str) -> str:
    """Text without halves of surrogate pairs, which have no bytes."""
    return text.encode("utf-8", "replace").decode()


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 cannot carry, not even escaped."""
    return _NOT_XML.sub("", text)


def _article(path: Path) -> dict[str, Any] | None:
    """An article's receipt, or word of one; None for a file that is not there or is not ours."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    ours = isinstance(found, dict) and {"run", "slug", "published_at", "title"} <= found.keys()
    # A copy under another name is nobody's article.
    return found if ours and path.name.lstrip(".").partition(".")[0] == found["slug"] else None


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


def _explain(error: OSError, folder: Path, done: str = "written") -> str:
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of the quota",
        errno.EACCES: "make it writable for the user that runs penstock",
        errno.EROFS: "make it writable for the user that runs penstock",
    }.get(error.errno or 0, "look at the folder")
    return f"the outbox {folder} cannot be {done}: {error.strerror}; {remedy}"
