"""What a publication remembers: it links to what it said before, and does not say it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon import journal
from daemon.cycle import Report
from daemon.journal import RunOutcome
from daemon.sources import published
from tests.doubles import author
from tests.doubles.model import Asked
from tests.stage import Stage

MakeStage = Callable[..., Stage]
SITE = "https://penstock.example"
SERVED = {"PENSTOCK_SITE_URL": SITE, "PENSTOCK_APPROVAL": "auto"}


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[Stage] = []

    def make(**changes: str) -> Stage:
        one = Stage(tmp_path / str(len(made)), **SERVED | changes)
        one.deposit("9")
        made.append(one)
        return one

    return make


def published_by(one: Stage) -> Report:
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    return report


def next_day(one: Stage, *titles: str) -> None:
    """A day goes by, and the blog has new pages."""
    one.time.pass_by(timedelta(days=1))
    items = ""
    for number, title in enumerate(titles, start=1):
        path = f"/new-{number}-{len(one.blog.pages)}.html"
        prose = "".join(
            f"<p>In year {n} the {title} was measured by {n + 20} people of one team. They found"
            f" that a running database with {n + 3} tables needs the write-ahead log to be small."
            f" Nobody who read version {n}.{number} of the report was surprised by it.</p>"
            for n in range(1, 8)
        )
        one.blog.pages[path] = (
            f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{prose}"
            "</article></body></html>"
        )
        items += (
            f"<item><title>{title}</title><link>http://blog.test{path}</link>"
            f"<description>How the {title} of SQLite works in running databases.</description>"
            "<pubDate>24 Nov 2026 07:00:00 GMT</pubDate></item>"
        )
    one.blog.pages["/feed.xml"] = (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>Database Notes</title>'
        f"<link>http://blog.test/</link><description>d</description>{items}</channel></rss>"
    )


def first_article(one: Stage) -> Any:
    with one.reading() as tx:
        (row,) = published.published(tx)
    return row


def linking(address: str) -> Callable[[Asked], str]:
    """A writer who links to an address at the end of the first paragraph."""

    def draft(asked: Asked) -> str:
        written = author.draft(asked.text)
        first, _, rest = str(written["markdown"]).partition("\n\n")
        linked = f"{first} We wrote about [this before]({address}).\n\n{rest}"
        return json.dumps(written | {"markdown": linked})

    return draft


def test_a_writer_is_shown_related_articles_and_may_link_to_them(stage: MakeStage) -> None:
    one = stage()
    published_by(one)
    earlier = first_article(one)
    assert earlier.url.startswith(f"{SITE}/")
    next_day(one, "write-ahead log in practice", "write-ahead log of SQLite")
    one.model.answers["draft"] = linking(earlier.url)
    published_by(one)
    asked = [r for r in one.model.requests if r.schema == "draft"][-1]
    assert f"- {earlier.title}: {earlier.url}" in asked.text
    assert f"[this before]({earlier.url})" in one.articles()[-1].read_text()


def test_no_other_address_of_ours_may_be_linked_to(stage: MakeStage) -> None:
    one = stage()
    published_by(one)
    next_day(one, "write-ahead log in practice", "write-ahead log of SQLite")
    one.model.answers["draft"] = linking(f"{SITE}/elsewhere.html")
    report = one.once()
    assert report.outcome is RunOutcome.ABSTAINED
    assert "elsewhere.html" in report.reason
    assert len(one.articles()) == 1


def test_what_nobody_serves_is_not_linked_to(stage: MakeStage) -> None:
    one = stage(PENSTOCK_SITE_URL="")
    published_by(one)
    assert first_article(one).url is None
    next_day(one, "write-ahead log in practice", "write-ahead log of SQLite")
    published_by(one)
    asked = [r for r in one.model.requests if r.schema == "draft"][-1]
    assert "Earlier articles" not in asked.text


def test_an_entry_that_repeats_an_article_does_not_lead(stage: MakeStage) -> None:
    one = stage()
    published_by(one)
    repeated = first_article(one).title
    next_day(one, repeated, "vacuum and the free list of SQLite in running databases")
    report = published_by(one)
    with one.reading() as tx:
        (scouted,) = [d for d in journal.decisions(tx, str(report.run)) if d.kind == "scout"]
    scores = {url: score["novelty"] for url, score in scouted.inputs["scores"].items()}
    (repeat,) = [url for url in scores if url.startswith("http://blog.test/new-1")]
    (fresh,) = [url for url in scores if url.startswith("http://blog.test/new-2")]
    assert scores[repeat] < 0.3 < scores[fresh]
    assert scouted.inputs["chosen"][0] == fresh


def test_an_article_is_kept_with_its_measures_and_its_card(stage: MakeStage) -> None:
    one = stage()
    report = published_by(one)
    with one.reading() as tx:
        kept = published.article(tx, str(report.run))
        claims = journal.claims(tx, str(report.run))
        sources = journal.sources(tx, str(report.run))
    assert kept is not None
    assert (kept.claims, kept.claims_verified) == (len(claims), sum(c.verified for c in claims))
    assert kept.sources == len(sources)
    assert kept.words > 100
    assert kept.reading_minutes >= 1
    assert kept.readability is not None
    assert kept.card == one.articles()[0].with_suffix(".png").read_bytes()
    assert kept.card.startswith(b"\x89PNG")
    assert "[S1]" not in kept.text


def test_a_page_that_an_earlier_run_read_serves_again(stage: MakeStage) -> None:
    one = stage()
    published_by(one)
    with one.reading() as tx:
        before = {source.url for source in journal.sources(tx, _only_run(one))}
    next_day(one, "busy timeout and readers")
    topic = next(iter(sorted(before)))
    words = topic.rsplit("/", 1)[1].removesuffix(".html").replace("-", " ")
    plan = {
        "angle": "a", "working_title": "The busy timeout",
        "questions": [f"What keeps records in its first pass over the file in the {words}?"] * 3,
    }  # fmt: skip
    one.model.answers["plan"] = lambda asked: json.dumps(plan)
    report = one.once()
    with one.reading() as tx:
        rows = journal.sources(tx, str(report.run))
    assert topic in {row.url for row in rows}
    assert len({row.url for row in rows}) == len(rows)
    assert [row.id for row in rows] == [f"S{n}" for n in range(1, len(rows) + 1)]


def _only_run(one: Stage) -> str:
    return str(first_article(one).run)
