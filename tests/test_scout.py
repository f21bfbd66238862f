"""Scouting picks what speaks of the niche, and not all of it from one feed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.crew import scout
from daemon.crew.scout import Candidate, choose, gather

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
    assert scores["most"] > scores["some"] > scores["gardens"] == 0


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
    entries = [entry(f"a{n}", "Small servers", feed="a") for n in range(9)]
    entries += [entry(f"b{n}", "Roses", feed="b", hours=n) for n in range(9)]
    chosen = Counter(name[0] for name in names(choose(entries, niche=NICHE, topic=None).urls))
    assert chosen == {"a": 4, "b": 2}
    chosen = Counter(name[0] for name in names(gather(entries, niche=NICHE).urls))
    assert chosen == {"a": 3, "b": 3}


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
    assert names(chosen.urls) == ["some", "most", "rose", "tulip"]
    assert chosen.reason.startswith("4 of 4 new entries")


def test_a_plural_meets_its_singular() -> None:
    chosen = choose([entry("a", "Roses"), entry("b", "One server", hours=9)], niche=("servers",),
                    topic=None)  # fmt: skip
    assert names(chosen.urls)[0] == "b"


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
        else:
            assert len(chosen.urls) == min(count, len(candidates))
        assert set(chosen.urls[:1]) <= set(chosen.scores)
        assert all(0 <= score <= 1 for score in chosen.scores.values())
    # Only which of two entries alike in every respect comes first may differ.
    assert len(choose(candidates[::-1], niche=NICHE, topic=topic).urls) == len(
        choose(candidates, niche=NICHE, topic=topic).urls
    )
