"""
From a manuscript the desk has passed to the text that goes out.

Citations become numbered links in the order they appear, the sources are listed, and the closing
line says that no person wrote this, with the run's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from daemon.desk.evidence import Evidence
from daemon.desk.house import CITATION

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~{}]|&(?=#?\w+;))")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def article(markdown: str, evidence: Mapping[str, Evidence], *, run: str, read_at: datetime) -> str:
    """The body of an article with its sources and its disclosure."""
    # `![…](…)` would be an image.
    markdown = re.sub(r"!(?=\[S\d+\])", "! ", markdown)
    order = list(dict.fromkeys(f"S{number}" for number in CITATION.findall(markdown)))
    number_of = {source: index for index, source in enumerate(order, start=1)}

    def link(citation: re.Match[str]) -> str:
        source = f"S{citation[1]}"
        return f"[[{number_of[source]}]]({target(evidence[source].url)})"

    listed = "\n".join(
        f"{number_of[source]}. [{escape(evidence[source].title)}]({target(evidence[source].url)})"
        for source in order
    )
    return (
        f"{CITATION.sub(link, markdown)}\n\n## Sources\n\n{listed}\n\n"
        f"Read on {day(read_at)}.\n\n---\n\n"
        f"*{disclosure(run, 'Researched, written and published')}*\n"
    )


def digest(markdown: str, *, run: str) -> str:
    """The body of a digest with its disclosure."""
    return f"{markdown}\n\n---\n\n*{disclosure(run, 'Gathered and published')}*\n"


def disclosure(run: str, done: str) -> str:
    """The visible closing line."""
    return f"{done} autonomously by software, Penstock, in run {run}. No person wrote this text."


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", text)


def target(url: str) -> str:
    """An address that Markdown cannot end early."""
    for character, code in (("(", "%28"), (")", "%29"), ("<", "%3C"), (">", "%3E"), ("\\", "%5C")):
        url = url.replace(character, code)
    return _ENTITY.sub("&amp;", url)


def day(at: datetime) -> str:
    """Such as 3 November 2026."""
    return f"{at.day} {at:%B %Y}"
