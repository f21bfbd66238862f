"""Nothing that a platform would act on, and nothing that does not show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from daemon.desk.lures import contacts_in, domains_in
from daemon.desk.manuscript import Context, Finding, Manuscript, around, excerpt
from daemon.desk.markdown import PAGES, addresses_in, open_to_liquid, read, same_address
from daemon.sources.text import hidden_in

_LIQUID = re.compile(r"\{\\?[%{]")
_FRONT_MATTER = re.compile(r"[\s\ufeff]*(?:-{3,}|\+{3,}|;{3,})")
# What CommonMark leaves as text for want of an end, and a laxer reader does not.
_UNCLOSED_TAG = re.compile(r"<(?:/[a-zA-Z]|[a-zA-Z][\w-]*(?:\s+[\w:-]+\s*=|/)|!--|!\[CDATA|\?\w)")
_HEAD_LINK = re.compile(r"\]\s{0,9}[(\[]|^\s*\[[^\]]*\]:|!\[")
_TAG = re.compile(rf"<[a-zA-Z/!?][^<>]*>|{_UNCLOSED_TAG.pattern}")
# Redcarpet lets space stand between the brackets of an image.
_LOOSE_IMAGE = re.compile(r"!\[[^\]\n]{0,300}\]\s*[(\[]")


def links_are_known(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It links only to what was read for it."""
    known = {same_address(url) for url in context.links}
    for url in sorted(read(manuscript.markdown).links):
        if same_address(url) not in known:
            yield Finding("links", f"{url[:120]} was not read for this article; remove the link")


def head_is_plain(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Title, description and tags are plain text: no Markdown link, tag, address or contact."""
    head = [("title", manuscript.title), ("description", manuscript.description)]
    for name, text in (*head, *(("tags", tag) for tag in manuscript.tags)):
        plain = unicodedata.normalize("NFKC", text)
        # A digest names feeds, and some are called by their domain.
        bare = domains_in(plain) if context.cites else []
        reach = [*addresses_in(plain), *bare, *contacts_in(plain)]
        if link := _HEAD_LINK.search(plain):
            what = f"“{around(plain, link.start(), link.end())}”, which is a link or an image"
        elif tag := _TAG.search(plain):
            what = f"“{around(plain, tag.start(), tag.end())}”, which is raw HTML"
        elif reach:
            what = f"“{excerpt(reach[0])}”, which sends readers elsewhere"
        else:
            continue
        yield Finding("head", f"the {name} has {what}; write it in plain words")


def no_contacts(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """
    No telephone number, mail address or wallet, in code neither: nobody is to be called, written
    to or paid. Mail at example.com is fine.
    """
    for contact in contacts_in(read(manuscript.markdown).shown)[:1]:
        yield Finding(
            "contacts", f"“{excerpt(contact)}” asks readers to call, write or pay; remove it"
        )


def no_html(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No raw HTML: no element, comment, CDATA or processing instruction, closed or not."""
    reading = read(manuscript.markdown)
    found = reading.html[0] if reading.html else None
    if found is None and (tag := _TAG.search(reading.unescaped)):
        found = around(reading.unescaped, tag.start(), tag.end())
    if found is not None:
        yield Finding(
            "html",
            f"“{excerpt(found)}” is raw HTML; use Markdown, or backticks where the tag is meant",
        )


def no_images(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No images, foreign or other."""
    reading = read(manuscript.markdown)
    loose = _LOOSE_IMAGE.search(reading.unescaped)
    for image in [*reading.images, *([loose[0]] if loose else [])][:1]:
        yield Finding("images", f"it has an image, “{excerpt(image)}”; remove it")


def code_is_plain(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Code is written so that every platform takes it for code, and nothing else for it."""
    for code in read(manuscript.markdown).misread[:1]:
        yield Finding(
            "code",
            f"“{excerpt(code)}” is read otherwise by some platforms; put a block of code between"
            " lines of three backticks, with at most one word behind the first, leave backticks"
            " out of code, and write no footnotes",
        )


def no_front_matter(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It does not begin as front matter does: that would override what is sent beside it."""
    if _FRONT_MATTER.match(manuscript.markdown):
        begins = excerpt(manuscript.markdown.lstrip()[:60])
        yield Finding(
            "front matter",
            f"it begins like front matter, “{begins}”; begin with a paragraph",
        )


def no_liquid(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No template tags, except in code that Dev.to shields from its template language."""
    reading = read(manuscript.markdown)
    head = (manuscript.title, manuscript.description, *manuscript.tags)
    for text in (*head, reading.spoken, open_to_liquid(manuscript.markdown)):
        if tag := _LIQUID.search(text) or re.search(r"endraw", text):
            yield Finding(
                "liquid",
                f"“{around(text, tag.start(), tag.end())}” has {{% or {{{{, which a platform"
                " would run; leave it out, or show it in a block of three backticks",
            )
            return


def no_mentions(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No @mention, in whatever form of the sign: it would page somebody."""
    head = (manuscript.title, manuscript.description, *manuscript.tags)
    reading = read(manuscript.markdown)
    for text in (*head, reading.spoken, reading.apart):
        plain = unicodedata.normalize("NFKC", text)
        if mention := PAGES.search(plain):
            yield Finding(
                "mentions",
                f"“{around(plain, mention.start(), mention.end())}” has an @mention; write the"
                " name without the @, or code in backticks",
            )
            return


def nothing_is_hidden(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No control, bidi, zero-width, tag or private characters; joiners only where they work."""
    head = (manuscript.title, manuscript.description, *manuscript.tags)
    for text in (*head, manuscript.markdown, read(manuscript.markdown).shown):
        if found := hidden_in(text):
            codes = ", ".join(dict.fromkeys(f"U+{ord(c):04X}" for c in found[:3]))
            at = text.index(found[0])
            shown = "".join(c for c in text[max(0, at - 30) : at + 40] if c not in found)
            yield Finding(
                "hidden", f"near “{excerpt(shown)}” are characters that do not show: {codes}"
            )
            return
