"""
The digest: links with attribution, made from feed metadata, without a model.

The last rung of every ladder. Excerpts are the publishers' own words, short enough to be fair.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.desk.house import BODY_RULES, Context, Manuscript, mended
from daemon.desk.layout import day, inert, target
from daemon.desk.lures import contacts_in, domains_in, hosts, leads_away
from daemon.desk.markdown import addresses_in
from daemon.desk.mending import plain_tags, without_addresses, without_mentions
from daemon.desk.rules.grounds import FAIR_QUOTATION_WORDS
from daemon.desk.rules.markup import head_is_plain, no_contacts
from daemon.desk.rules.secrecy import looks_secret
from daemon.sources.text import keywords, sentences, shortened

ITEMS_MIN = 2
# Leaves room in a title for the count and the dates.
SUBJECT_MAX = 60
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class DigestItem:
    """An entry with its attribution."""

    url: str
    title: str
    feed: str
    author: str | None
    summary: str
    at: datetime


def usable(item: DigestItem) -> bool:
    """
    Whether an entry can be shown.

    Not where a template would run it, a key may stand in it, or its title sends readers elsewhere;
    nor where the desk would refuse it by itself, since one entry must not cost the others.
    """
    shown = f"{item.title} {item.summary} {item.author or ''} {item.feed} {item.url}"
    if looks_secret(shown) or any(mark in shown for mark in ("{%", "{{")):
        return False
    if leads_away(item.title, [item.feed, *hosts([item.url])]):
        return False
    alone = mended(Manuscript("", _plain(item.feed), (), _section(item)))
    context = Context(
        {}, (), frozenset((item.url, target(item.url))), cites=False,
        prompts=[prompt(role) for role in ("researcher", "writer", "editor", "publicist")],
    )  # fmt: skip
    rules = (*BODY_RULES, head_is_plain, no_contacts)
    return not any(found.refuses for rule in rules for found in rule(alone, context))


def compose(items: Sequence[DigestItem], brief: Brief, at: datetime, subject: str) -> Manuscript:
    """
    Write the digest, newest entry first.

    Args:
        subject: what all of it is about; "" where nobody can say.
    """
    newest = sorted(items, key=lambda item: item.at, reverse=True)
    feeds = list(dict.fromkeys(item.feed for item in newest))
    span = _span(newest[-1].at, newest[0].at)
    subject = shortened(_plain(subject), SUBJECT_MAX)
    number = _COUNTS[len(items)] if len(items) < len(_COUNTS) else str(len(items))
    counted = f"{number} new read{'s' if len(items) != 1 else ''}"
    title = f"{_capital(subject)}: {counted}" if subject else _capital(counted)
    opening = (
        f"{_capital(counted)} from {_enumerate([inert(feed) for feed in feeds])}, gathered from"
        f" their feeds on {day(at)}. The excerpts are the authors' own words; the links lead to"
        " the rest."
    )
    description = (
        f"{_capital(counted)} from {_enumerate([_plain(feed) for feed in feeds])}, {span}."
    )
    return Manuscript(
        title=f"{title}, {span}",
        description=description,
        tags=plain_tags(brief.niche) or plain_tags(_shared_words(newest)) or ("digest",),
        markdown="\n\n".join([opening, *(_section(item) for item in newest)]),
    )


def _shared_words(items: Sequence[DigestItem]) -> list[str]:
    """Words that most titles have, those of one alone left out."""
    counted = Counter(word for item in items for word in keywords(item.title))
    shared = [word for word, count in counted.items() if count > 1 and word.isalpha()]
    return sorted(shared, key=lambda word: (-counted[word], word))


def _section(item: DigestItem) -> str:
    byline = ", ".join(filter(None, (item.author, item.feed, day(item.at))))
    parts = [f"## [{inert(item.title)}]({target(item.url)})", f"*{inert(byline)}*"]
    if excerpt := _excerpt(item.summary):
        parts.append(f"> {_plain_start(inert(excerpt))}")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """The same for a description, which is no Markdown, and may not look like it."""
    return re.sub(r"[\[\]<>]", "", without_mentions(without_addresses(text)))


def _plain_start(line: str) -> str:
    """A line whose beginning makes no list, rule or heading."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line)


def _excerpt(summary: str) -> str:
    """The first sentences, as many as fit a fair quotation; those that lead elsewhere are not."""
    told = [s for s in sentences(summary) if not _leads_elsewhere(s)]
    taken: list[str] = []
    count = 0
    for sentence in told:
        length = len(sentence.split())
        if count + length > FAIR_QUOTATION_WORDS:
            break
        taken.append(sentence)
        count += length
    if taken:
        return " ".join(taken)
    start = " ".join(told).split()[: FAIR_QUOTATION_WORDS - 1]
    return " ".join(start) + " …" if start else ""


def _leads_elsewhere(text: str) -> bool:
    return bool(addresses_in(text) or domains_in(text) or contacts_in(text))


def _span(first: datetime, last: datetime) -> str:
    """Such as 2–19 November 2026."""
    if first.date() == last.date():
        return day(last)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{day(last)}"
    if first.year == last.year:
        return f"{first.day} {first:%B} – {day(last)}"
    return f"{day(first)} – {day(last)}"


def _enumerate(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
