"""
Scouting: what to write about, out of what is new. Pure, so that anyone can see why.

An entry scores by how much of the niche it speaks of, in its title above all. The best one leads;
the others that speak of the same things, and then other good ones, become its further sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.sources.text import keywords

SOURCES_MAX = 6
DIGEST_MAX = 8
# More from one feed would make an article a paraphrase of one author.
FROM_ONE_FEED_MAX = 4
DIGEST_FROM_ONE_FEED_MAX = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """An unused entry, as scouting sees it."""

    url: str
    feed: str
    title: str
    summary: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """The entries of a run, the lead first, and why."""

    urls: tuple[str, ...]
    reason: str
    scores: dict[str, float]


def choose(
    candidates: Sequence[Candidate], *, niche: Iterable[str], topic: str | None
) -> Selection:
    """Pick the entries an article is researched from; none when there are none."""
    wanted = keywords(topic) if topic else keywords(" ".join(niche))
    scores = {c.url: _relevance(c, wanted) for c in candidates}
    ranked = sorted(candidates, key=lambda c: (scores[c.url], c.at), reverse=True)
    if not ranked:
        return Selection((), "no entry is new", {})
    lead = ranked[0]
    about = keywords(f"{lead.title} {lead.summary}")

    def kinship(candidate: Candidate) -> tuple[int, float, datetime]:
        shared = len(about & keywords(f"{candidate.title} {candidate.summary}"))
        return shared, scores[candidate.url], candidate.at

    others = sorted(ranked[1:], key=kinship, reverse=True)
    chosen = _spread([lead, *others], SOURCES_MAX, FROM_ONE_FEED_MAX)
    reason = (
        f"“{lead.title}” speaks most of {_name(topic, niche)}"
        if scores[lead.url]
        else f"no entry speaks of {_name(topic, niche)}, so the newest leads: “{lead.title}”"
    )
    return Selection(
        tuple(c.url for c in chosen), reason, {c.url: round(scores[c.url], 2) for c in ranked[:20]}
    )


def gather(candidates: Sequence[Candidate], *, niche: Iterable[str]) -> Selection:
    """Pick the entries of a digest: relevant, new, and not all from one feed."""
    wanted = keywords(" ".join(niche))
    scores = {c.url: _relevance(c, wanted) for c in candidates}
    ranked = sorted(candidates, key=lambda c: (scores[c.url] > 0, c.at), reverse=True)
    chosen = _spread(ranked, DIGEST_MAX, DIGEST_FROM_ONE_FEED_MAX)
    return Selection(
        tuple(c.url for c in chosen),
        f"{len(chosen)} of {len(candidates)} new entries, relevant ones first, then the newest",
        {c.url: round(scores[c.url], 2) for c in ranked[:20]},
    )


def _relevance(candidate: Candidate, wanted: frozenset[str]) -> float:
    """The share of the wanted words that the entry has; a word in the title counts three times."""
    if not wanted:
        return 0.0
    in_title = len(wanted & keywords(candidate.title))
    in_summary = len(wanted & keywords(candidate.summary))
    return (3 * in_title + in_summary) / (4 * len(wanted))


def _spread(ranked: Sequence[Candidate], count: int, from_one_feed: int) -> list[Candidate]:
    """The first `count`, with at most so many of one feed while other feeds have any."""
    taken: Counter[str] = Counter()
    chosen: list[Candidate] = []
    for candidate in ranked:
        if len(chosen) < count and taken[candidate.feed] < from_one_feed:
            taken[candidate.feed] += 1
            chosen.append(candidate)
    rest = [candidate for candidate in ranked if candidate not in chosen]
    return chosen if len(taken) > 1 else (chosen + rest)[:count]


def _name(topic: str | None, niche: Iterable[str]) -> str:
    return topic or ", ".join(niche) or "anything in particular"
