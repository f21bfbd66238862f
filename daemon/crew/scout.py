"""
Scouting: what to write about, out of what is new. Pure, so that anyone can see why.

An entry is worth what it has to do with the niche, less what it loses by age and by what was
published before, a little more where others tell the same story or where its words have earned.
The best one leads; those that speak of the same things become its further sources.

Every part only scales relevance, so nothing makes an entry interesting that is about something
else, and nothing irrelevant changes what is chosen.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from urllib.parse import urlsplit

from daemon.sources.published import Earlier, comparable
from daemon.sources.text import keywords, words

SOURCES_MAX = 6
DIGEST_MAX = 8
# With so many relevant entries a digest does without the others: its title names the niche.
DIGEST_ENOUGH = 3
# More from one feed would make an article a paraphrase of one author.
FROM_ONE_FEED_MAX = 4
DIGEST_FROM_ONE_FEED_MAX = 3
# Two are enough to bear out a story; the other places are for what they do not say.
SAME_STORY_MAX = 2
# So many are kept with the decision: whoever asks why looks at the first few.
SCORES_MAX = 20

# A title says what an entry is about; a summary also says what it mentions.
TITLE_WEIGHT = 0.75
SUMMARY_WEIGHT = 0.25
# The words of a phrase without the phrase: “servers that are small” is worth less than “small
# servers”, and one word out of two less than half of that, since it often means another thing.
SCATTERED = 0.6
# One word of a phrase of two, once in a summary, gives 0.04 and is chance; in a title it gives
# 0.11 and may be something.
RELEVANT_MIN = 0.1

# What is left of an entry at the far end of fresh_days, and of one that is close to an earlier
# article without repeating it: a much better match still wins over a newer or a newer-sounding one.
STALE_FACTOR = 0.6
KNOWN_FACTOR = 0.4
# Freshness halves four times within fresh_days: with 30 days, about once a week.
HALVINGS = 4
# Of the words of a title and a summary, another post of one niche has about half (median 0.47 of 24
# posts of a real blog), the next part of a series 0.7 to 0.8, the very post 0.94 or more.
SIMILAR_FROM = 0.55
REPEATS_FROM = 0.9
# A bare title is too few words to tell by.
REPEATS_TERMS_MIN = 10
# Titles this much alike, in words, tell one story; with fewer words they are names of columns.
SAME_TITLE = 0.6
SAME_TITLE_TERMS_MIN = 3
# Each further feed with the story shows that it matters, up to two.
CORROBORATION_FACTOR = 0.05
CORROBORATION_MAX = 2
# What sold is a hint and never a compass: at most this much, up or down, so that an entry that is
# a fifth more relevant always wins.
EARNED_FACTOR = 0.09
# Before that many articles had time to earn, a hit is luck.
EARNED_ARTICLES_MIN = 3
# So many average articles are added to what is known of a word, and no article counts for more
# than so many averages: one hit does not make a word.
EARNED_PRIOR = 3
EARNED_RATIO_MAX = 3.0
# Less in common with the lead than this is chance (on a real blog a tenth is usual, a fifth is a
# shared subject): another subject, unless it speaks of the niche itself.
KIN_MIN = 0.15
# A further source is first of all about the same thing.
KIN_WEIGHT = 0.7


@dataclass(frozen=True, slots=True)
class Candidate:
    """An unused entry, as scouting sees it."""

    url: str
    feed: str
    title: str
    summary: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Earned:
    """An earlier article that had time to earn: its words, and its income in micro-credits."""

    text: str
    micro: int


@dataclass(frozen=True, slots=True)
class Score:
    """
    What an entry is worth, in parts.

    `relevance`, `freshness` and `novelty` run from 0 to 1 (novelty 0 repeats an earlier article),
    `earned` from -1 to 1 with 0 for no reason either way; `feeds` counts those that have the
    story. `total` is relevance, scaled by the others.
    """

    relevance: float
    freshness: float
    novelty: float
    earned: float
    feeds: int
    total: float


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The entries of a run, the lead first, why, and the scores of the best, the chosen first.

    Args:
        relevant: whether each of them speaks of what was looked for.
    """

    urls: tuple[str, ...]
    reason: str
    scores: dict[str, Score]
    relevant: bool = False


def choose(
    candidates: Sequence[Candidate],
    *,
    niche: Iterable[str],
    topic: str | None,
    at: datetime | None = None,
    fresh_days: float = 30,
    earlier: Mapping[str, Sequence[Earlier]] | None = None,
    earned: Sequence[Earned] = (),
) -> Selection:
    """
    Pick the entries an article is researched from; none when there are none to lead.

    Args:
        niche: phrases; a topic takes their place.
        at: now; without it, the time of the newest candidate.
        fresh_days: the age in days at which an entry is hardly news.
        earlier: by candidate's URL, the published articles most like it.
        earned: published articles old enough to have earned what they will.
    """
    if not candidates:
        return Selection((), "no entry is new", {})
    niche = tuple(niche)
    look = _Look.at(candidates, _phrases(niche, topic), at, fresh_days, earlier or {}, earned)
    about = _name(topic, niche)
    relevant = [c for c in look.ranked if look.is_relevant(c)]
    fit = relevant or look.newest_first()
    leads = [c for c in fit if look.scores[c.url].novelty > 0]
    if not leads:
        said = (earlier or {})[fit[0].url][0].title
        return Selection(
            (), f"everything that speaks of {about} repeats what was published, such as “{said}”",
            look.shown([]),
        )  # fmt: skip
    lead = leads[0]
    others = look.kin(lead)
    chosen = _spread([lead, *others], candidates, SOURCES_MAX, FROM_ONE_FEED_MAX, look.story)
    reason = (
        f"“{lead.title}” speaks most of {about}: {look.told(lead)}"
        if relevant
        else f"no entry speaks of {about}, so the newest leads: “{lead.title}”"
    )
    return Selection(
        tuple(c.url for c in chosen), reason, look.shown(chosen), look.are_relevant(chosen)
    )


def gather(
    candidates: Sequence[Candidate],
    *,
    niche: Iterable[str],
    topic: str | None = None,
    at: datetime | None = None,
    fresh_days: float = 30,
    earlier: Mapping[str, Sequence[Earlier]] | None = None,
) -> Selection:
    """
    Pick the entries of a digest: each story once, and not all of one feed.

    Where enough is relevant there is nothing else in it; else the newest fill it.

    Args:
        niche, topic: as `choose` has them.
    """
    if not candidates:
        return Selection((), "no entry is new", {})
    look = _Look.at(candidates, _phrases(niche, topic), at, fresh_days, earlier or {}, ())
    relevant = look.each_story_once([c for c in look.ranked if look.is_relevant(c)])
    enough = len(relevant) >= DIGEST_ENOUGH
    fit = relevant if enough else look.each_story_once([*relevant, *look.newest_first()])
    chosen = _spread(fit, candidates, DIGEST_MAX, DIGEST_FROM_ONE_FEED_MAX, {})
    return Selection(
        tuple(c.url for c in chosen),
        f"{len(chosen)} of {len(candidates)} new entries, "
        + ("all of them relevant" if enough else "relevant ones first, then the newest"),
        look.shown(chosen),
        look.are_relevant(chosen),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """All that was found out about the candidates, the best first."""

    ranked: list[Candidate]
    scores: dict[str, Score]
    story: dict[str, int]
    wanted: frozenset[str]
    now: datetime

    @classmethod
    def at(
        cls,
        candidates: Sequence[Candidate],
        phrases: Sequence[tuple[str, ...]],
        at: datetime | None,
        fresh_days: float,
        earlier: Mapping[str, Sequence[Earlier]],
        earned: Sequence[Earned],
    ) -> _Look:
        now = at or max(c.at for c in candidates)
        worth = _worth(earned)
        scores = {}
        for candidate in candidates:
            parts = Score(
                relevance=_relevance(candidate, phrases),
                freshness=_freshness(now - candidate.at, fresh_days),
                novelty=_novelty(candidate, earlier.get(candidate.url, ())),
                earned=_earned(candidate, worth),
                feeds=1,
                total=0,
            )
            scores[candidate.url] = replace(parts, total=_total(parts))
        ranked = _sorted(candidates, scores)
        story = _stories(ranked)
        feeds: defaultdict[int, set[str]] = defaultdict(set)
        for c in ranked:
            # Only what speaks of the niche bears it out: the rest must not change the choice.
            if scores[c.url].relevance >= RELEVANT_MIN:
                feeds[story[c.url]].add(c.feed)
        for c in ranked:
            told = replace(scores[c.url], feeds=max(1, len(feeds[story[c.url]])))
            scores[c.url] = replace(told, total=_total(told))
        wanted = frozenset(term for phrase in phrases for term in phrase)
        return cls(_sorted(candidates, scores), scores, story, wanted, now)

    def is_relevant(self, candidate: Candidate) -> bool:
        return self.scores[candidate.url].relevance >= RELEVANT_MIN

    def are_relevant(self, candidates: Sequence[Candidate]) -> bool:
        return bool(candidates) and all(map(self.is_relevant, candidates))

    def newest_first(self) -> list[Candidate]:
        return sorted(self.ranked, key=lambda c: (c.at, c.url), reverse=True)

    def each_story_once(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        first: dict[int, Candidate] = {}
        for candidate in candidates:
            first.setdefault(self.story[candidate.url], candidate)
        return list(first.values())

    def kin(self, lead: Candidate) -> list[Candidate]:
        """What may stand beside the lead: about the same, or at least about the niche."""
        worth = {}
        for c in self.ranked:
            kinship = _kinship(lead, c, self.wanted)
            if c.url != lead.url and (kinship >= KIN_MIN or self.is_relevant(c)):
                total = self.scores[c.url].total
                worth[c.url] = KIN_WEIGHT * kinship + (1 - KIN_WEIGHT) * total
        kin = [c for c in self.ranked if c.url in worth]
        return sorted(kin, key=lambda c: (worth[c.url], c.at, c.url), reverse=True)

    def told(self, lead: Candidate) -> str:
        """The parts of the lead's score, in words."""
        score = self.scores[lead.url]
        days = max(0, (self.now - lead.at).days)
        parts = [
            f"relevance {score.relevance:.2f}",
            "new today" if days == 0 else f"{days} day{'s' * (days != 1)} old",
        ]
        if score.novelty < 1:
            parts.append(f"novelty {score.novelty:.2f} beside earlier articles")
        if score.feeds > 1:
            parts.append(f"told by {score.feeds} feeds")
        if abs(score.earned) >= 0.1:
            parts.append(f"its words earned {'more' if score.earned > 0 else 'less'} than others")
        return ", ".join(parts)

    def shown(self, chosen: Sequence[Candidate]) -> dict[str, Score]:
        """The scores worth keeping, to two places."""
        first = dict.fromkeys(c.url for c in [*chosen, *self.ranked])
        return {url: _rounded(self.scores[url]) for url in list(first)[:SCORES_MAX]}


def _sorted(candidates: Iterable[Candidate], scores: Mapping[str, Score]) -> list[Candidate]:
    """Best first; of equals the newer one, and a fixed one of those, so that order never counts."""
    return sorted(
        candidates, key=lambda c: (scores[c.url].total, c.at, c.url, c.feed), reverse=True
    )


def _total(score: Score) -> float:
    further = min(score.feeds - 1, CORROBORATION_MAX)
    return (
        score.relevance
        * (STALE_FACTOR + (1 - STALE_FACTOR) * score.freshness)
        * (KNOWN_FACTOR + (1 - KNOWN_FACTOR) * score.novelty)
        * (1 + EARNED_FACTOR * score.earned)
        * (1 + CORROBORATION_FACTOR * further)
        / ((1 + EARNED_FACTOR) * (1 + CORROBORATION_FACTOR * CORROBORATION_MAX))
    )


def _rounded(score: Score) -> Score:
    return Score(
        relevance=round(score.relevance, 2), freshness=round(score.freshness, 2),
        novelty=round(score.novelty, 2), earned=round(score.earned, 2),
        feeds=score.feeds, total=round(score.total, 3),
    )  # fmt: skip


# Relevance


def _phrases(niche: Iterable[str], topic: str | None) -> list[tuple[str, ...]]:
    wanted = [topic] if topic else list(niche)
    return [found for found in dict.fromkeys(map(terms, wanted)) if found]


def _relevance(candidate: Candidate, phrases: Sequence[tuple[str, ...]]) -> float:
    """
    How much an entry is about any of the phrases, 0 to 1.

    One phrase in full is enough to be relevant; each further one closes part of what is left, so
    a long niche does not thin out what speaks of one side of it.
    """
    title, summary = terms(candidate.title), terms(candidate.summary)
    missed = 1.0
    for phrase in phrases:
        missed *= 1 - TITLE_WEIGHT * _has(title, phrase) - SUMMARY_WEIGHT * _has(summary, phrase)
    return 1 - missed


def _has(text: tuple[str, ...], phrase: tuple[str, ...]) -> float:
    """1 for the phrase itself, less for some of its words."""
    length = len(phrase)
    if any(text[n : n + length] == phrase for n in range(len(text) - length + 1)):
        return 1.0
    share = len(set(phrase) & set(text)) / len(set(phrase))
    return SCATTERED * share**2


@lru_cache(maxsize=8192)
def terms(text: str) -> tuple[str, ...]:
    """
    The words of a text that say what it is about, in order, in one form for all inflections.

    Compounds are taken apart, accents folded, Chinese and Japanese cut into pairs of characters.
    """
    found = []
    for word in words(comparable(text)):
        for part in _JOINT.split(word):
            if len(part) > 1 and keywords(part):
                found.append(_stem(part))
    return tuple(found)


# write-ahead is write ahead, and SQLite's is SQLite; node.js and c++ stay what they are.
_JOINT = re.compile(r"[-'’]")


def _stem(word: str) -> str:
    """An English word without its simple endings; both sides are cut alike, so odd stems meet."""
    if not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and not word.endswith("eed") and _VOWEL.search(stem):
            doubled = stem[-1] == stem[-2] and stem[-1] not in "lsz"
            word = stem[:-1] if doubled else stem
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


_VOWEL = re.compile("[aeiouy]")


# Freshness and novelty


def _freshness(age: timedelta, fresh_days: float) -> float:
    days = max(0.0, age / timedelta(days=1))
    return float(0.5 ** (HALVINGS * days / fresh_days))


def _novelty(candidate: Candidate, earlier: Sequence[Earlier]) -> float:
    """1 for what is like nothing before, 0 for what repeats an earlier article."""
    title = frozenset(terms(candidate.title))
    if any(_same_title(title, frozenset(terms(one.title))) for one in earlier):
        return 0.0
    closest = max((one.score for one in earlier), default=0.0)
    known = (closest - SIMILAR_FROM) / (REPEATS_FROM - SIMILAR_FROM)
    # Few words are soon found together; they show less, and never a repetition.
    sure = min(1.0, len(_all_terms(candidate)) / REPEATS_TERMS_MIN)
    most = 1.0 if sure == 1 else 0.9
    return 1 - min(most, max(0.0, known * sure))


# One story


def _stories(ranked: Sequence[Candidate]) -> dict[str, int]:
    """
    A number per candidate, the same for those that tell one story in several feeds.

    Each joins the best-ranked one it is like. Of one feed, entries with the same title are the
    parts of a series.
    """
    story: dict[str, int] = {}
    firsts: list[Candidate] = []
    by_term: defaultdict[str, list[int]] = defaultdict(list)
    for candidate in ranked:
        title = frozenset(terms(candidate.title))
        shared = Counter(number for term in title for number in by_term[term])
        number = next(
            (
                n for n in sorted(n for n, count in shared.items() if count >= SAME_TITLE_TERMS_MIN)
                if firsts[n].feed != candidate.feed
                and _same_title(title, frozenset(terms(firsts[n].title)))
            ),
            None,
        )  # fmt: skip
        if number is None:
            number = len(firsts)
            firsts.append(candidate)
            for term in title:
                by_term[term].append(number)
        story[candidate.url] = number
    return story


def _same_title(one: frozenset[str], other: frozenset[str]) -> bool:
    shared = len(one & other)
    if shared < SAME_TITLE_TERMS_MIN or _numbers(one) != _numbers(other):
        return False
    return shared / len(one | other) >= SAME_TITLE


def _numbers(title: frozenset[str]) -> frozenset[str]:
    """3.46 is not 3.45, however alike the rest is."""
    return frozenset(term for term in title if term[0].isdigit())


# What earned


def _worth(earned: Sequence[Earned]) -> dict[str, float]:
    """Per word, by how many averages the articles that have it earned above (or below) one."""
    average = sum(one.micro for one in earned) / len(earned) if earned else 0
    if len(earned) < EARNED_ARTICLES_MIN or average <= 0:
        return {}
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for one in earned:
        ratio = min(EARNED_RATIO_MAX, max(0, one.micro) / average)
        for term in set(terms(one.text)):
            ratios[term].append(ratio)
    return {
        term: (sum(found) + EARNED_PRIOR) / (len(found) + EARNED_PRIOR) - 1
        for term, found in ratios.items()
    }


def _earned(candidate: Candidate, worth: Mapping[str, float]) -> float:
    known = [worth[term] for term in sorted(_all_terms(candidate)) if term in worth]
    return max(-1.0, min(1.0, sum(known) / len(known))) if known else 0.0


# Choosing


def _all_terms(candidate: Candidate) -> frozenset[str]:
    return frozenset(terms(candidate.title)) | frozenset(terms(candidate.summary))


def _kinship(one: Candidate, other: Candidate, common: frozenset[str]) -> float:
    """How much two entries have in common, 0 to 1, beside what all have; titles are half of it."""
    titles = _cosine(frozenset(terms(one.title)) - common, frozenset(terms(other.title)) - common)
    return (titles + _cosine(_all_terms(one) - common, _all_terms(other) - common)) / 2


def _cosine(one: frozenset[str], other: frozenset[str]) -> float:
    if not one or not other:
        return 0.0
    return float(len(one & other) / (len(one) * len(other)) ** 0.5)


def _spread(
    ranked: Sequence[Candidate],
    candidates: Sequence[Candidate],
    count: int,
    from_one: int,
    story: Mapping[str, int],
) -> list[Candidate]:
    """
    The first `count`, with at most so many of one feed, and of one host.

    Where all candidates are of one feed, or of one host, that limit could only leave places
    empty. Of the lead's story there are at most so many further ones.
    """
    feeds_max = from_one if len({c.feed for c in candidates}) > 1 else count
    hosts_max = from_one if len({_host(c.url) for c in candidates}) > 1 else count
    feeds: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    stories: Counter[int] = Counter()
    chosen: list[Candidate] = []
    for candidate in ranked:
        host, number = _host(candidate.url), story.get(candidate.url, -1)
        room = feeds[candidate.feed] < feeds_max and hosts[host] < hosts_max
        if len(chosen) == count or not room or (story and stories[number] > SAME_STORY_MAX):
            continue
        chosen.append(candidate)
        feeds[candidate.feed] += 1
        hosts[host] += 1
        stories[number] += 1
    return chosen


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _name(topic: str | None, niche: Iterable[str]) -> str:
    return topic or ", ".join(niche) or "anything in particular"
