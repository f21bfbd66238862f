"""What the crew reads: the board and no transcripts, what stays the same first, and a bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from daemon import journal
from daemon.crew.board import QUESTION_CHARACTERS_MAX
from daemon.crew.prompts import prompt
from daemon.crew.researcher import PLAN_CHARACTERS_MAX
from daemon.cycle import Report
from daemon.inference.ladder import Tier
from daemon.journal import RunOutcome
from daemon.sources.text import sentences
from tests.doubles.model import CACHE_STEP_BYTES, Asked
from tests.doubles.web import Page, SiteDouble
from tests.stage import Stage

MakeStage = Callable[..., Stage]
QUESTIONS = 4
# What stands around a prompt's sources: the role's instructions, block marks, brief, question.
AROUND_MAX = 2_500
BYTES_PER_TOKEN = 4
SPREAD = {"plan": 1, "notes": QUESTIONS, "draft": 1, "review": 1}
REVISE = {
    "verdict": "revise", "score": 5, "unsupported": [], "questions": [],
    "problems": [{"where": "the opening", "problem": "it is slow", "fix": "begin with the point"}],
}  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[Stage] = []

    def make(paragraphs: int, *, caching: bool = False) -> Stage:
        one = Stage(tmp_path / str(len(made)), SiteDouble(pages=_pages(paragraphs)))
        one.model.caching = caching
        made.append(one)
        # Enough for four questions, too little for five.
        one.deposit("2")
        return one

    return make


def _pages(paragraphs: int) -> dict[str, Page | bytes | str]:
    """Four pages of so many paragraphs, with no sentence twice."""
    found: dict[str, Page | bytes | str] = {}
    items = ""
    for number, topic in enumerate(("checkpoint", "page cache", "busy timeout", "free list")):
        title = f"The {topic} of SQLite explained"
        path = f"/{number}.html"
        text = "".join(
            f"<p>The {topic} moved {7 * at + number + 2} records in one pass of a running"
            f" database. An operator who sets the {topic} to {3 * at + number + 2} pages should"
            f" measure the effect on a copy. Release {at + 2}.{number} made the {topic} safe for"
            f" readers that stay open.</p>"
            for at in range(paragraphs)
        )
        found[path] = (
            f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{text}"
            "</article></body></html>"
        )
        items += (
            f"<item><title>{title}</title><link>http://blog.test{path}</link>"
            f"<guid>http://blog.test{path}</guid><description>The {topic} in running databases."
            f"</description><pubDate>{20 + number % 3} Nov 2026 08:00:00 GMT</pubDate></item>"
        )
    found["/feed.xml"] = (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>Notes</title>'
        f"<link>http://blog.test/</link><description>d</description>{items}</channel></rss>"
    )
    return found


FITS, TOO_LONG = 5, 40


def published(one: Stage) -> Report:
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert report.tier is Tier.STANDARD
    return report


def asked(one: Stage, schema: str) -> list[Asked]:
    return [request for request in one.model.requests if request.schema == schema]


def shared(requests: list[Asked]) -> str:
    """What all of them begin with, instructions first."""
    texts = [request.text for request in requests]
    same = zip(*texts, strict=False)
    return "".join(letters[0] for letters in takewhile(lambda each: len(set(each)) == 1, same))


def test_a_run_asks_a_plan_four_questions_a_draft_and_a_review(stage: MakeStage) -> None:
    one = stage(FITS)
    published(one)
    assert {schema: len(asked(one, schema)) for schema in SPREAD} == SPREAD
    assert len(one.model.requests) == sum(SPREAD.values())


@pytest.mark.parametrize("paragraphs", [FITS, TOO_LONG])
def test_writer_and_editor_see_what_was_quoted_and_nothing_else_of_a_source(
    stage: MakeStage, paragraphs: int
) -> None:
    one = stage(paragraphs)
    one.model.reviews = [REVISE]
    report = published(one)
    with one.reading() as tx:
        read = [
            s for source in journal.sources(tx, str(report.run)) for s in sentences(source.text)
        ]
        quotes = {c.quote for c in journal.claims(tx, str(report.run)) if c.verified}
    unquoted = [s for s in read if len(s.split()) >= 8 and not any(s in q for q in quotes)]
    assert len(unquoted) > len(quotes)
    later = [*asked(one, "draft"), *asked(one, "review")]
    assert len(later) == 4
    for request in later:
        assert "<source" not in request.text
        assert not [sentence for sentence in unquoted if sentence in request.text]
        assert all(quote in request.text for quote in quotes)


def test_nobody_is_sent_a_conversation(stage: MakeStage) -> None:
    one = stage(FITS)
    one.model.reviews = [REVISE]
    published(one)
    roles = {"plan": "researcher", "notes": "researcher", "draft": "writer", "review": "editor"}
    for request in one.model.requests:
        system, user = request.messages
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"] == prompt(roles[request.schema])


def test_a_review_reads_the_claims_and_the_draft_and_little_beside_them(stage: MakeStage) -> None:
    one = stage(TOO_LONG)
    report = published(one)
    (review,) = asked(one, "review")
    with one.reading() as tx:
        claims = [c for c in journal.claims(tx, str(report.run)) if c.verified]
    lines = sum(len(f"[{c.source}] {c.statement} | {c.quote}") + 3 for c in claims)
    (article,) = one.articles()
    assert len(review.text) <= lines + len(article.read_text()) + AROUND_MAX


def test_all_that_is_read_comes_before_what_is_asked_of_it(stage: MakeStage) -> None:
    one = stage(FITS)
    published(one)
    plan, notes = asked(one, "plan"), asked(one, "notes")
    # The plan's sources and those of every question are the same bytes, so one reading warms all.
    ended = notes[0].text.rindex("</source>")
    assert notes[0].text.count("</source>") == 4
    assert len(shared(plan + notes)) > ended
    assert len(shared(notes)) >= notes[0].text.index("Question: ")


@pytest.mark.parametrize("schema", ["plan", "notes", "draft", "review"])
def test_where_not_all_of_it_is_shown_the_instructions_still_come_first(
    stage: MakeStage, schema: str
) -> None:
    one = stage(TOO_LONG)
    one.model.reviews = [REVISE]
    published(one)
    requests = asked(one, schema)
    instructions = str(requests[0].messages[0]["content"])
    assert shared(requests).startswith(instructions)


@pytest.mark.parametrize("schema", ["draft", "review"])
def test_another_round_repeats_brief_and_claims_and_differs_behind_them(
    stage: MakeStage, schema: str
) -> None:
    one = stage(FITS)
    one.model.reviews = [REVISE]
    published(one)
    first, second = asked(one, schema)
    same = shared([first, second])
    for line in re.findall(r"^(?:Readers|Voice|\[S\d\]).*$", first.text, re.M):
        assert line in same
    assert len(re.findall(r"^\[S\d\] .+ \| \".+\"$", same, re.M)) >= 3


def test_a_provider_that_caches_sells_the_second_reading_cheaper(stage: MakeStage) -> None:
    one, plain = stage(FITS, caching=True), stage(FITS)
    for each in (one, plain):
        each.model.reviews = [REVISE]
        report = published(each)
        # Both what was cached and what was not is booked as it was billed.
        assert report.cost.micro == each.model.billed_micro
    bill = one.model.bill
    plan, notes = bill[0], bill[1 : 1 + QUESTIONS]
    assert (plan.schema, plan.cached) == ("plan", 0)
    for charge in notes:
        assert charge.schema == "notes"
        # All but what is asked, and the last, broken step of the cache.
        unread = (charge.input - charge.cached) * BYTES_PER_TOKEN
        assert unread <= CACHE_STEP_BYTES + 500
    for schema in ("draft", "review"):
        first, second = (charge for charge in bill if charge.schema == schema)
        assert first.cached < second.cached
    assert one.model.billed_micro < plain.model.billed_micro


def test_however_much_there_is_to_read_a_run_reads_no_more_than_its_bound(
    stage: MakeStage,
) -> None:
    one = stage(TOO_LONG)
    report = published(one)
    with one.reading() as tx:
        found = sum(len(source.text) for source in journal.sources(tx, str(report.run)))
    assert found > 2 * QUESTION_CHARACTERS_MAX
    # The pages are ASCII, so that a character is a byte.
    reads = {"plan": PLAN_CHARACTERS_MAX, "notes": QUESTION_CHARACTERS_MAX}
    for schema, characters_max in reads.items():
        for request in asked(one, schema):
            assert len(request.text) <= characters_max + AROUND_MAX
    research = sum(c.input for c in one.model.bill if c.schema in reads)
    assert (
        research
        <= (
            PLAN_CHARACTERS_MAX + QUESTIONS * QUESTION_CHARACTERS_MAX + (1 + QUESTIONS) * AROUND_MAX
        )
        // BYTES_PER_TOKEN
    )
    # With a draft and its review, of claims only.
    assert sum(charge.input for charge in one.model.bill) <= 23_000
