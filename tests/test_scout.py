"""Scouting picks what speaks of the niche, and not all of it from one feed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.crew import scout
from daemon.crew.scout import Candidate, Earned, Selection, choose, gather
from daemon.sources.published import Earlier

MIDNIGHT = datetime(2026, 11, 3, tzinfo=UTC)
NICHE = ("self-hosting", "small servers")


def entry(
    name: str, title: str = "", summary: str = "", feed: str = "", hours: float = 0
) -> Candidate:
    """`hours` old."""
    at = MIDNIGHT - timedelta(hours=hours)
    return Candidate(f"https://x.example/{name}", feed or name, title or name, summary, at)


def names(urls: tuple[str, ...]) -> list[str]:
    return [url.rsplit("/", 1)[1] for url in urls]


def test_the_entry_that_speaks_most_of_the_niche_leads() -> None:
    chosen = choose(
        [
            entry("gardens", "Roses in winter"),
            entry("some", "A server at home", hours=1),
            entry("most", "Self-hosting on small servers", hours=90),
        ],
        niche=NICHE,
        topic=None,
    )
    assert names(chosen.urls)[0] == "most"
    assert "“Self-hosting on small servers” speaks most of self-hosting, small servers" in (
        chosen.reason
    )
    scores = {
        name: chosen.scores[f"https://x.example/{name}"] for name in ("most", "some", "gardens")
    }
    assert scores["most"].total > scores["some"].total > scores["gardens"].total == 0


def test_a_word_in_the_title_weighs_more_than_in_the_summary() -> None:
    chosen = choose(
        [entry("below", "News", "All about servers"), entry("above", "All about servers", "News")],
        niche=NICHE, topic=None,
    )  # fmt: skip
    assert names(chosen.urls)[0] == "above"


def test_of_two_alike_the_newer_one_leads() -> None:
    chosen = choose(
        [entry("old", "Servers", hours=2), entry("new", "Servers", hours=1)],
        niche=NICHE, topic=None,
    )  # fmt: skip
    assert names(chosen.urls) == ["new", "old"]


def test_a_topic_goes_before_the_niche() -> None:
    entries = [
        entry("niche", "Self-hosting on small servers"),
        entry("topic", "How backups fail", hours=50),
    ]
    assert names(choose(entries, niche=NICHE, topic=None).urls)[0] == "niche"
    chosen = choose(entries, niche=NICHE, topic="backups that fail")
    assert names(chosen.urls)[0] == "topic"
    assert "backups that fail" in chosen.reason


def test_the_newest_leads_where_nothing_speaks_of_the_topic_and_the_reason_says_so() -> None:
    chosen = choose(
        [entry("old", "Roses", hours=2), entry("new", "Tulips")], niche=NICHE, topic="quarks"
    )
    assert names(chosen.urls)[0] == "new"
    assert chosen.reason == "no entry speaks of quarks, so the newest leads: “Tulips”"


def test_further_sources_are_kin_of_the_lead() -> None:
    chosen = choose(
        [
            entry("lead", "Self-hosting mail on small servers", "Postfix and spam"),
            entry("other", "Small servers compared", hours=1),
            entry("kin", "Spam and Postfix: mail again", hours=99),
        ],
        niche=NICHE,
        topic=None,
    )
    assert names(chosen.urls) == ["lead", "kin", "other"]


def test_what_has_nothing_to_do_with_the_lead_or_the_niche_is_no_source() -> None:
    chosen = choose(
        [
            entry("lead", "Small servers"),
            entry("rose", "Roses"),
            entry("also", "A server", hours=9),
        ],
        niche=NICHE,
        topic=None,
    )
    assert names(chosen.urls) == ["lead", "also"]


@pytest.mark.parametrize("topic", [None, "quarks"])
def test_without_candidates_nothing_is_chosen(topic: str | None) -> None:
    chosen = choose([], niche=NICHE, topic=topic)
    assert chosen.urls == ()
    assert chosen.reason == "no entry is new"
    assert gather([], niche=NICHE).urls == ()


def test_without_a_niche_the_newest_leads() -> None:
    chosen = choose([entry("old", hours=5), entry("new")], niche=(), topic=None)
    assert names(chosen.urls)[0] == "new"
    assert "anything in particular" in chosen.reason


def test_one_feed_does_not_fill_an_article_while_others_have_something() -> None:
    entries = [entry(f"a{n}", f"Small servers, {n}0 of them", feed="a") for n in range(9)]
    entries += [entry(f"b{n}", f"One server, {n} years", feed="b", hours=n) for n in range(9)]
    chosen = Counter(name[0] for name in names(choose(entries, niche=NICHE, topic=None).urls))
    assert chosen == {"a": 4, "b": 2}
    chosen = Counter(name[0] for name in names(gather(entries, niche=NICHE).urls))
    assert chosen == {"a": 3, "b": 3}


def test_one_host_does_not_fill_an_article_by_way_of_several_feeds() -> None:
    entries = [
        Candidate(f"https://www.a.example/{n}", f"tag-{n}", f"Small servers {n}0", "", MIDNIGHT)
        for n in range(9)
    ]
    entries += [
        Candidate(f"https://b.example/{n}", "b", f"A server {n}1", "", MIDNIGHT) for n in range(9)
    ]
    for chosen, most in (
        (choose(entries, niche=NICHE, topic=None), scout.FROM_ONE_FEED_MAX),
        (gather(entries, niche=NICHE), scout.DIGEST_FROM_ONE_FEED_MAX),
    ):
        assert max(Counter(url.split("/")[2] for url in chosen.urls).values()) == most


def test_a_single_feed_may_fill_an_article() -> None:
    entries = [entry(f"a{n}", "Small servers", feed="a", hours=n) for n in range(20)]
    assert names(choose(entries, niche=NICHE, topic=None).urls) == [f"a{n}" for n in range(6)]
    assert names(gather(entries, niche=NICHE).urls) == [f"a{n}" for n in range(8)]


def test_a_digest_has_what_is_relevant_first_and_then_the_newest() -> None:
    entries = [
        entry("rose", "Roses", hours=0),
        entry("most", "Self-hosting on small servers", hours=9),
        entry("some", "Servers", hours=8),
        entry("tulip", "Tulips", hours=1),
    ]
    chosen = gather(entries, niche=NICHE)
    assert names(chosen.urls) == ["most", "some", "rose", "tulip"]
    assert chosen.reason == "4 of 4 new entries, relevant ones first, then the newest"
    assert not chosen.relevant


def test_a_digest_with_enough_that_is_relevant_has_nothing_else() -> None:
    entries = [entry(f"s{n}", f"Server number {n}", hours=9) for n in range(3)]
    chosen = gather([*entries, entry("rose", "Roses")], niche=NICHE)
    assert sorted(names(chosen.urls)) == ["s0", "s1", "s2"]
    assert chosen.reason == "3 of 4 new entries, all of them relevant"
    assert chosen.relevant


def test_a_digest_on_a_topic_has_what_speaks_of_it() -> None:
    entries = [
        *(entry(f"s{n}", f"Server number {n}", hours=n) for n in range(3)),
        *(entry(f"r{n}", f"Roses, part {n}", hours=9 + n) for n in range(3)),
    ]
    chosen = gather(entries, niche=NICHE, topic="roses")
    assert sorted(names(chosen.urls)) == ["r0", "r1", "r2"]
    assert chosen.relevant


def test_a_digest_has_a_story_once() -> None:
    entries = [
        entry("one", "Ferret 4.2 runs on small servers", feed="a", hours=2),
        entry("two", "Ferret 4.2 now runs on small servers!", feed="b"),
        entry("three", "Ferret 4.1 runs on small servers", feed="c"),
    ]
    assert names(gather(entries, niche=NICHE).urls) == ["two", "three"]


def test_a_plural_meets_its_singular() -> None:
    chosen = choose([entry("a", "Roses"), entry("b", "One server", hours=9)], niche=("servers",),
                    topic=None)  # fmt: skip
    assert names(chosen.urls)[0] == "b"


@pytest.mark.parametrize(
    ("niche", "title"),
    [
        ("databases", "One database"),
        ("database", "Databases compared"),
        ("caching", "How caches fail"),
        ("logs", "Logging for a year"),
        ("policies", "A policy that holds"),
        ("self-hosting", "We self-hosted everything"),
        ("write-ahead log", "SQLite’s Write-Ahead Logging"),
        ("Übersetzung", "Ubersetzung"),
        ("базы данных", "Все о базы данных и серверах"),
        ("διακομιστής", "ΔΙΑΚΟΜΙΣΤΉΣ στο σπίτι"),
        ("数据库", "开源数据库性能对比"),
        ("データベース", "小さなデータベースの話"),
    ],
)
def test_a_phrase_meets_its_inflections_and_other_scripts(niche: str, title: str) -> None:
    chosen = choose([entry("a", "Roses"), entry("b", title, hours=9)], niche=[niche], topic=None)
    assert names(chosen.urls)[0] == "b"
    assert chosen.scores["https://x.example/b"].relevance >= scout.TITLE_WEIGHT


def test_a_phrase_is_worth_more_than_its_words() -> None:
    chosen = choose(
        [entry("words", "Small pages on big servers"), entry("phrase", "Small servers", hours=50)],
        niche=NICHE, topic=None, at=MIDNIGHT,
    )  # fmt: skip
    assert names(chosen.urls)[0] == "phrase"


def test_a_long_niche_does_not_thin_out_what_speaks_of_one_side_of_it() -> None:
    entries = [entry("a", "Small servers at home")]
    short = choose(entries, niche=NICHE, topic=None)
    long = choose(entries, niche=[*NICHE, "roses", "bread", "cheap tea"], topic=None)
    (one,), (other,) = short.scores.values(), long.scores.values()
    assert one.relevance == other.relevance


def test_what_is_fresh_goes_before_what_is_a_little_more_relevant() -> None:
    entries = [
        entry("old", "Small servers", "Small servers again", hours=24 * 28),
        entry("new", "Small servers", "On something else"),
    ]
    chosen = choose(entries, niche=NICHE, topic=None, at=MIDNIGHT)
    assert names(chosen.urls)[0] == "new"
    assert "new today" in chosen.reason


def test_what_is_much_more_relevant_goes_before_what_is_fresh() -> None:
    entries = [entry("old", "Small servers", hours=24 * 28), entry("new", "A server")]
    chosen = choose(entries, niche=NICHE, topic=None, at=MIDNIGHT)
    assert names(chosen.urls)[0] == "old"
    assert "28 days old" in chosen.reason


def test_a_story_that_several_feeds_tell_is_one_and_goes_before_another() -> None:
    entries = [
        entry("alone", "Small servers and old disks", feed="a"),
        entry("told", "Ferret 4.2 brings small servers back", feed="b"),
        entry("again", "Ferret 4.2 brings back small servers", feed="c"),
        entry("third", "Ferret 4.2 brings small servers back, they say", feed="d"),
        entry("fourth", "Ferret 4.2 brings small servers back today", feed="e"),
    ]
    chosen = choose(entries, niche=NICHE, topic=None, at=MIDNIGHT)
    assert names(chosen.urls)[0] in ("told", "again", "third", "fourth")
    assert "told by 4 feeds" in chosen.reason
    # Two bear it out, and the rest of the places is for something else.
    assert len(chosen.urls) == 1 + scout.SAME_STORY_MAX + 1
    assert "alone" in names(chosen.urls)


def test_parts_of_a_series_and_other_versions_are_other_stories() -> None:
    for one, other, feed in (
        ("Small servers for the patient", "Small servers for the patient", "a"),
        ("Ferret 4.2 for small servers", "Ferret 4.1 for small servers", "b"),
        ("Small servers", "Small servers", "b"),
    ):
        entries = [entry("one", one, feed="a"), entry("other", other, feed=feed)]
        chosen = choose(entries, niche=NICHE, topic=None)
        assert [score.feeds for score in chosen.scores.values()] == [1, 1]


# The archive


def said(title: str = "Something else", score: float = 1.0) -> list[Earlier]:
    return [Earlier("r1", title, "https://x.example/r1", score)]


SUMMARY = "Ten words or more say enough: disks, power, noise, heat, cost, age, space, dust."


def test_what_is_close_to_an_earlier_article_goes_down() -> None:
    entries = [entry("known", "Small servers", SUMMARY), entry("new", "Small servers", hours=30)]
    url = entries[0].url
    for score, lead in ((0.5, "known"), (0.75, "new")):
        chosen = choose(
            entries, niche=NICHE, topic=None, at=MIDNIGHT, earlier={url: said(score=score)}
        )
        assert names(chosen.urls)[0] == lead
    assert 0 < chosen.scores[url].novelty < 1


@pytest.mark.parametrize("again", [said(), said("Small servers in a cellar", 0.3)])
def test_what_repeats_an_earlier_article_does_not_lead(again: list[Earlier]) -> None:
    entries = [
        entry("known", "Small servers in the cellar", SUMMARY),
        entry("weak", "News", "A server", hours=99),
        entry("some", "A server", hours=99),
    ]
    chosen = choose(entries, niche=NICHE, topic=None, earlier={entries[0].url: again})
    assert names(chosen.urls)[0] == "some"
    assert chosen.scores[entries[0].url].novelty == 0
    alone = choose(entries[:1], niche=NICHE, topic=None, earlier={entries[0].url: again})
    assert alone.urls == ()
    assert "repeats what was published, such as “S" in alone.reason


def test_a_bare_title_never_repeats_by_its_words_alone() -> None:
    entries = [entry("known", "Small servers")]
    chosen = choose(entries, niche=NICHE, topic=None, earlier={entries[0].url: said()})
    assert names(chosen.urls) == ["known"]


# What earned


def test_words_that_earned_before_decide_between_equals() -> None:
    entries = [entry("tea", "Small servers and tea"), entry("rum", "Small servers and rum")]
    history = [Earned("All about rum", 900), Earned("Tea again", 10), Earned("Tea, still", 0)]
    assert names(choose(entries, niche=NICHE, topic=None, earned=history).urls)[0] == "rum"
    history = [Earned("All about tea", 900), Earned("Rum again", 10), Earned("Rum, still", 0)]
    chosen = choose(entries, niche=NICHE, topic=None, earned=history)
    assert names(chosen.urls)[0] == "tea"
    assert "its words earned more than others" in chosen.reason


@pytest.mark.parametrize(
    "history", [[], [Earned("rum", 10**9)] * 2, [Earned("rum", 0)] * 9], ids=len
)
def test_no_history_little_history_and_no_income_change_nothing(history: list[Earned]) -> None:
    entries = [entry("tea", "Small servers and tea"), entry("rum", "Small servers and rum")]
    chosen = choose(entries, niche=NICHE, topic=None, earned=history)
    assert chosen == choose(entries, niche=NICHE, topic=None)


CANDIDATE = st.builds(
    entry,
    st.text("abcdef", min_size=3, max_size=6),
    st.sampled_from(["Small servers", "Roses", "Self-hosting roses", "Ünïcode 日本", "***"]),
    st.sampled_from(["", "Servers at home", "Nothing"]),
    st.sampled_from(["one", "two", "three"]),
    st.integers(0, 100),
)


@given(
    st.lists(CANDIDATE, max_size=30, unique_by=lambda c: c.url), st.sampled_from([None, "roses"])
)
def test_a_choice_is_bounded_spread_and_the_same_in_any_order(
    candidates: list[Candidate], topic: str | None
) -> None:
    feeds = {c.url: c.feed for c in candidates}
    for chosen, count, from_one in (
        (choose(candidates, niche=NICHE, topic=topic), scout.SOURCES_MAX, 4),
        (gather(candidates, niche=NICHE), scout.DIGEST_MAX, 3),
    ):
        assert len(set(chosen.urls)) == len(chosen.urls) <= count
        assert set(chosen.urls) <= set(feeds)
        assert bool(chosen.urls) == bool(candidates)
        if len(set(feeds.values())) > 1:
            assert max(Counter(feeds[url] for url in chosen.urls).values()) <= from_one
        assert set(chosen.urls[:1]) <= set(chosen.scores)
        assert len(chosen.scores) <= scout.SCORES_MAX
        for score in chosen.scores.values():
            parts = (score.relevance, score.freshness, score.novelty, score.total)
            assert all(0 <= part <= 1 for part in parts)
            assert -1 <= score.earned <= 1
        json.dumps(asdict(chosen))
    assert choose(candidates[::-1], niche=NICHE, topic=topic) == choose(
        candidates, niche=NICHE, topic=topic
    )
    assert gather(candidates[::-1], niche=NICHE) == gather(candidates, niche=NICHE)


HISTORIES = st.lists(
    st.builds(
        Earned, st.sampled_from(["Small servers", "Roses", "Self-hosting at home", "News"]),
        st.integers(0, 10**9),
    ),
    max_size=6,
)  # fmt: skip
CANDIDATES = st.lists(CANDIDATE, min_size=1, max_size=12, unique_by=lambda c: c.url)


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, list[Earlier]]]:
    candidates = draw(CANDIDATES)
    scores = st.lists(st.sampled_from([0.2, 0.6, 0.8, 1.0]), max_size=2)
    return candidates, {c.url: [said(score=s)[0] for s in draw(scores)] for c in candidates}


@given(archives(), HISTORIES, CANDIDATE, st.text("αβγδ ", max_size=30))
def test_an_irrelevant_candidate_never_changes_the_lead(
    found: tuple[list[Candidate], dict[str, list[Earlier]]],
    history: list[Earned],
    stranger: Candidate,
    title: str,
) -> None:
    candidates, earlier = found

    def chosen(some: list[Candidate]) -> Selection:
        return choose(some, niche=NICHE, topic=None, at=MIDNIGHT, earlier=earlier, earned=history)

    stranger = replace(stranger, url="https://x.example/stranger", title=title, summary="")
    before, after = chosen(candidates), chosen([*candidates, stranger])
    if "no entry speaks of" not in before.reason:
        assert after.urls[:1] == before.urls[:1]


@given(CANDIDATES, HISTORIES, st.integers(1, 2000))
def test_an_older_identical_candidate_never_goes_before_the_newer(
    candidates: list[Candidate], history: list[Earned], hours: int
) -> None:
    newer = candidates[0]
    older = replace(newer, url="https://zzz.example/older", at=newer.at - timedelta(hours=hours))
    urls = choose([*candidates, older], niche=NICHE, topic=None, at=MIDNIGHT, earned=history).urls
    if older.url in urls and newer.feed == older.feed:
        # Others of its host may have taken the newer one's place, never the older one itself.
        assert urls[0] != older.url
        assert newer.url not in urls or urls.index(newer.url) < urls.index(older.url)


@given(HISTORIES, st.integers(0, 10**9))
def test_what_earned_never_outweighs_relevance(history: list[Earned], micro: int) -> None:
    entries = [
        entry("most", "Small servers", "Small servers", feed="a"),
        entry("less", "Small servers and roses", feed="b"),
    ]
    history = [*history, Earned("roses", micro)]
    assert names(choose(entries, niche=NICHE, topic=None, earned=history).urls)[0] == "most"


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_has_terms_and_any_niche_can_be_asked_for(title: str, niche: str) -> None:
    assert all(term == term.strip() and term for term in scout.terms(title))
    chosen = choose([entry("a", title)], niche=[niche], topic=None)
    assert len(chosen.urls) == 1
