"""What has one right fix is fixed before anybody is asked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from daemon.desk.evidence import alike
from daemon.desk.manuscript import Manuscript
from daemon.desk.markdown import CITATION, EMAIL, PAGES, addresses_in
from daemon.desk.rules.form import DESCRIPTION_MAX, TAG_MAX, TAGS_MAX
from daemon.sources.text import shortened, without_hidden

# A run of @ is taken whole, from its first on; a single one behind a word is an address's.
_MENTION = re.compile(r"(?<![A-Za-z0-9_@])@++(?=[\w-])|(?<=[A-Za-z0-9_])@@++(?=[\w-])")
_AT_SIGNS = {ord("＠"): "@", ord("﹫"): "@"}
# [^S1], [s1], and \[S1\] as some models escape it.
_ODD_CITATION = re.compile(r"\\*\[\^?[Ss](\d+)\\*\](?!:)")
_ROUND_CITATION = re.compile(r"\\*\(S(\d+)\\*\)")
_CITATION_GROUP = re.compile(r"\[\s*(S\d+(?:\s*[,;&]\s*S\d+)+)\s*\]", re.IGNORECASE)
# A citation that was given an address of the model's own: the desk knows where S1 leads.
_LINKED_CITATION = re.compile(r"\[S(\d+)\]\((?:[a-z]+:|/|#)[^()\s]*\)", re.IGNORECASE)
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)*[ \t]*")
# What stands behind a fence's language: titles, lines to mark.
_FENCE_EXTRAS = re.compile(r"^([ \t>]*`{3,}[ \t]*)([^\s`]+)[ \t][^`\n]*$", re.MULTILINE)
_SEPARATORS = str.maketrans({"\u2028": "\n", "\u2029": "\n", "\x85": "\n"})


def mended(manuscript: Manuscript) -> Manuscript:
    """The manuscript with everything fixed that has one right fix."""
    markdown = _trimmed(_visible(manuscript.markdown))
    markdown = _CITATION_GROUP.sub(_separate_citations, markdown)
    markdown = _ODD_CITATION.sub(r"[S\1]", markdown)
    if not CITATION.search(markdown):
        # Beside citations in brackets, (S3) is Amazon's.
        markdown = _ROUND_CITATION.sub(r"[S\1]", markdown)
    markdown = _LINKED_CITATION.sub(r"[S\1]", markdown)
    markdown = _FENCE_EXTRAS.sub(r"\1\2", markdown)
    title = one_line(manuscript.title)
    markdown = _level_headings(markdown, title)
    return replace(
        manuscript,
        title=title,
        description=shortened(one_line(manuscript.description), DESCRIPTION_MAX),
        tags=plain_tags(manuscript.tags),
        markdown=markdown,
    )


def one_line(text: str) -> str:
    """Plain text on one line, with nothing hidden, that pages nobody."""
    return without_mentions(" ".join(_visible(text).split()))


def plain_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as every platform takes them: at most four, lower-case letters and digits."""
    plain = (re.sub(r"[^a-z0-9]", "", tag.casefold())[:TAG_MAX] for tag in tags)
    return tuple(dict.fromkeys(tag for tag in plain if tag))[:TAGS_MAX]


def without_mentions(text: str) -> str:
    """Plain text in which @name is a name and pages nobody, in whatever form of the sign."""
    plain = _MENTION.sub("", text.translate(_AT_SIGNS))
    if PAGES.search(unicodedata.normalize("NFKC", plain)):
        # A letter that only becomes one when it is made plain.
        plain = plain.replace("@", "")
    return plain


def without_addresses(text: str) -> str:
    """Plain text in which an address, of a page or of mail, is a name and makes no link."""
    plain = _without_schemes(text)
    normal = unicodedata.normalize("NFKC", plain)
    if plain != normal and addresses_in(normal):
        plain = _without_schemes(normal)
    return EMAIL.sub(lambda found: found[0].replace("@", " at "), plain)


def _without_schemes(text: str) -> str:
    return re.sub(r"(?:(?:https?|ftp)://|\bwww\.)+", "", text, flags=re.IGNORECASE)


def _visible(text: str) -> str:
    return without_hidden(text.replace("\r\n", "\n").translate(_SEPARATORS))


def _trimmed(markdown: str) -> str:
    """Without blank lines around it; the indent of a first line of code stays."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", markdown).rstrip()


def _separate_citations(group: re.Match[str]) -> str:
    return " ".join(f"[S{number}]" for number in re.findall(r"\d+", group[1]))


def _level_headings(markdown: str, title: str) -> str:
    """Headings from the second level down, none skipped, the title not repeated."""
    out, level, shift, fence = [], 1, None, ""
    for line in markdown.split("\n"):
        mark = re.match(r"\s{0,3}(`{3,}|~{3,})", line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading is None:
            out.append(line)
            continue
        if not any(text.strip() for text in out) and alike(heading[2]) == alike(title):
            continue
        found = len(heading[1])
        shift = 2 - found if shift is None else shift
        level = max(2, min(found + shift, level + 1, 6))
        out.append(f"{'#' * level} {heading[2]}")
    return _trimmed("\n".join(out))
