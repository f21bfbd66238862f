"""
From a manuscript the desk has passed to the text that goes out.

Citations become numbered links in the order they appear, the sources are listed, and the closing
line says that no person wrote this, with the run's id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime

from daemon.desk.evidence import Evidence
from daemon.desk.lures import hosts, leads_away
from daemon.desk.markdown import CITATION, read
from daemon.desk.mending import without_addresses, without_mentions
from daemon.desk.rules.secrecy import looks_secret
from daemon.sources.text import without_hidden

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~{}]|&(?=#?\w+;))")
_NOBODY = "No person wrote this text."
_ENTITY = re.compile(r"&(?=#?\w+;)")


def article(markdown: str, evidence: Mapping[str, Evidence], *, run: str, read_at: datetime) -> str:
    """The body of an article with its sources and its disclosure."""
    # `![…](…)` would be an image.
    markdown = re.sub(r"!(?=\[S\d+\])", "! ", markdown)
    cited = dict.fromkeys(f"S{number}" for number in CITATION.findall(markdown))
    # One that leads nowhere stays as it is, for the desk to find.
    order = [source for source in cited if source in evidence]
    number_of = {source: index for index, source in enumerate(order, start=1)}

    def link(citation: re.Match[str]) -> str:
        source = f"S{citation[1]}"
        if source not in number_of:
            return citation[0]
        return f"[[{number_of[source]}]]({target(evidence[source].url)})"

    listed = "\n".join(
        f"{number_of[page.id]}. [{inert(name(page.title, [page.url]))}]({target(page.url)})"
        for page in map(evidence.__getitem__, order)
    )
    return (
        f"{CITATION.sub(link, markdown)}\n\n## Sources\n\n{listed}\n\n"
        f"Read on {day(read_at)}.\n\n---\n\n"
        f"*{disclosure(run, 'Researched, written and published')}*\n"
    )


def name(title: str, urls: Collection[str]) -> str:
    """
    What something at these addresses is called: its title, or the first one's host where it has
    none, a key stands in it, or it leads readers elsewhere.
    """
    own = list(hosts(urls))
    return title if title and not (leads_away(title, own) or looks_secret(title)) else own[0]


def digest(markdown: str, *, run: str) -> str:
    """The body of a digest with its disclosure."""
    return f"{markdown}\n\n---\n\n*{disclosure(run, 'Gathered and published')}*\n"


def disclosure(run: str, done: str) -> str:
    """The visible closing line."""
    return f"{done} autonomously by software, Penstock, in run {run}. {_NOBODY}"


def disclosed(body: str, *, run: str) -> bool:
    """Whether a body ends by saying, where a reader sees it, that software wrote it in this run."""
    blocks = read(body).blocks
    if not blocks or blocks[-1].quoted or blocks[-1].heading:
        return False
    return blocks[-1].spoken.endswith(f"by software, Penstock, in run {run}. {_NOBODY}")


def inert(text: str) -> str:
    """A stranger's words as Markdown that shows them, pages nobody, links nowhere, runs nothing."""
    plain = without_mentions(without_addresses(" ".join(without_hidden(text).split())))
    # Dev.to runs templates after Markdown, so that no escape holds them off.
    return escape(re.sub(r"(?<=\{)(?=[%{])", " ", plain))


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", text)


def target(url: str) -> str:
    """An address that Markdown cannot end early."""
    for character in "()<>\\{}":
        url = url.replace(character, f"%{ord(character):02X}")
    return _ENTITY.sub("&amp;", url)


def day(at: datetime) -> str:
    """Such as 3 November 2026."""
    return f"{at.day} {at:%B %Y}"
