"""What a run reads, and what becomes of it where pages, names and search engines fail."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from daemon import journal
from daemon.app import World, opened_database, opened_parts
from daemon.cli import exits
from daemon.cli.exits import Exit
from daemon.cycle import Report
from daemon.journal import RunOutcome, StepState
from tests.doubles.model import Asked
from tests.doubles.search import Mischief, SearchDouble, result, results
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Fault, InProcess, serve
from tests.stage import (
    BLOG_ADDRESS,
    TOPICS,
    Kill,
    Killed,
    Silent,
    Stage,
    blog_pages,
)

FEED = "/feed.xml"
FIRST = f"/{TOPICS[0].replace(' ', '-')}.html"
PATHS = [f"/{topic.replace(' ', '-')}.html" for topic in TOPICS]
HTML = "text/html; charset=utf-8"


class ReadingStage(Stage):
    """
    A stage with a search engine beside the blog, and names that do not resolve, or to anywhere.

    Args:
        search: the engine, where there is one.
    """

    def __init__(self, folder: Path, search: SearchDouble | None = None, **changes: str) -> None:
        if search is not None:
            changes |= {"PENSTOCK_SEARCH_URL": "https://searx.test"}
        super().__init__(folder, None, **changes)
        self.search = search
        self.addresses: dict[str, list[str]] = {}

    def world(self) -> World:
        engine = InProcess({"searx.test": self.search} if self.search else {})
        return replace(super().world(), search=engine, resolve=self._resolve)

    async def _resolve(self, host: str, port: int) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        found = self.addresses.get(host, [BLOG_ADDRESS])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def spoil(self, path: str, page: Page | bytes | str) -> None:
        self.blog.pages[path] = page

    def relink(self, path: str, url: str) -> None:
        """The feed says that an entry's page is elsewhere."""
        feed = self.blog.pages[FEED]
        assert isinstance(feed, str)
        link = f"<link>http://blog.test{path}</link>"
        assert link in feed
        self.blog.pages[FEED] = feed.replace(link, f"<link>{url}</link>")

    def sources(self, run: str | None) -> list[str]:
        with self.reading() as tx:
            return [str(row.url) for row in journal.sources(tx, str(run))]

    def left_out(self, run: str | None) -> str:
        """What the run's decisions say was left out, a line each."""
        with self.reading() as tx:
            rows = journal.decisions(tx, str(run))
        return "\n".join(row.sentence for row in rows if row.kind == "left out")

    def asked(self, schema: str) -> int:
        return sum(request.schema == schema for request in self.model.requests)


MakeStage = Callable[..., ReadingStage]


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    made: list[ReadingStage] = []

    def make(search: SearchDouble | None = None, **changes: str) -> ReadingStage:
        made.append(ReadingStage(tmp_path / str(len(made)), search, **changes))
        made[-1].deposit("5")
        return made[-1]

    return make


def blog(*paths: str) -> list[str]:
    return [f"http://blog.test{path}" for path in paths]


def prose(about: str, title: str | None = None) -> str:
    """A page that a run can use."""
    sentences = "".join(
        f"<p>The {about} moved {number * 7} records in its trial number {number}."
        f" An operator of the {about} should write down what was seen on day {number}.</p>"
        for number in range(1, 8)
    )
    title = title or f"The {about} in practice"
    return (
        f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{sentences}"
        "</article></body></html>"
    )


# Pages that are not what they should be

LOGIN = (
    "<html><head><title>Sign in</title></head><body><h1>Sign in</h1><form method=post>"
    "<label>Name <input name=user></label><label>Password <input type=password></label>"
    "<button>Sign in</button></form><p>No account? <a href=/join>Join</a></p></body></html>"
)
SOFT_404 = (
    "<html><head><title>Not found</title></head><body><article><h1>Oops!</h1><p>We could not find"
    " the page that you were looking for.</p><a href='/'>Home</a></article></body></html>"
)
ROUND = Page(status=302, headers={"location": FIRST})
LOST: dict[str, tuple[Page | bytes | str, str]] = {
    "empty": (b"", "only 0 characters of text"),
    "white": (b" \n\t " * 1000, "only 0 characters of text"),
    "an image": (Page(b"\x89PNG\r\n\x1a\n" * 99, content_type="image/png"), "is not a text"),
    "a download": (Page(b"\0\1\2" * 999, content_type="application/octet-stream"), "not a text"),
    "an image that says it is HTML": (
        Page(b"\x89PNG\r\n\x1a\n\0\0\0" * 999, content_type=HTML), "characters of text",
    ),
    "a PDF that says it is text": (
        Page(b"%PDF-1.7\n" + b"BT (Hello) Tj ET\n" * 99, content_type="text/plain"), "not a text",
    ),
    "endless": (Page(b"<p>And so on. </p>", endless=True), "larger than 5 MB"),
    "a byte at a time": (Page(prose("log").encode(), fault=Fault.TRICKLE), "too slow"),
    "never answered": (Page(prose("log").encode(), fault=Fault.STALL), "too slow"),
    "late": (Page(prose("log").encode(), delay_s=500), "too slow"),
    "cut off": (Page(prose("log").encode(), fault=Fault.CUT), "before the body was complete"),
    "a broken connection": (Page(b"x", fault=Fault.RESET), "reset by peer"),
    "behind a login (401)": (Page(LOGIN.encode(), status=401), "HTTP 401"),
    "behind a login (403)": (Page(LOGIN.encode(), status=403), "HTTP 403"),
    "behind a login (200)": (LOGIN, "characters of text"),
    "gone (404)": (Page(SOFT_404.encode(), status=404), "HTTP 404"),
    "gone (410)": (Page(b"", status=410), "HTTP 410"),
    "gone (200)": (SOFT_404, "characters of text"),
    "for money (402)": (Page(b"", status=402), "HTTP 402"),
    "down (500)": (Page(b"", status=500), "HTTP 500"),
    "a redirect to itself": (ROUND, "more than 5 redirects"),
    "a redirect to nowhere": (Page(status=302, headers={"location": "gopher://x"}), "not an http"),
    "a redirect to this machine": (
        Page(status=302, headers={"location": "http://127.0.0.1/"}), "127.0.0.1 is not public",
    ),
}  # fmt: skip
# Another time they may be had.
PASSING = {
    "a byte at a time", "never answered", "late", "cut off", "a broken connection", "down (500)",
}  # fmt: skip


@pytest.mark.parametrize("what", LOST)
def test_a_page_that_cannot_be_read_is_left_out_with_its_reason(
    what: str, stage: MakeStage
) -> None:
    one = stage()
    page, why = LOST[what]
    one.spoil(FIRST, page)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS[1:]))
    (line,) = one.left_out(report.run).splitlines()
    assert line.startswith(f"could not read http://blog.test{FIRST}: ")
    assert why in line
    one.judge()


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (f"User-agent: *\nDisallow: {FIRST}\n", "robots.txt of blog.test does not allow it"),
        ("User-agent: penstock\nDisallow: /w\n\nUser-agent: *\n", "does not allow it"),
    ],
)
def test_a_page_that_robots_may_not_read_is_not_asked_for(
    rules: str, why: str, stage: MakeStage
) -> None:
    one = stage()
    one.spoil("/robots.txt", Page(rules.encode(), content_type="text/plain"))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert FIRST not in one.blog.hits
    assert why in one.left_out(report.run)


@pytest.mark.parametrize(
    ("url", "addresses", "why"),
    [
        ("http://nowhere.test/x", [], "Name or service not known"),
        ("http://inside.test/x", ["10.0.0.7"], "10.0.0.7 is not public"),
        ("http://mixed.test/x", [BLOG_ADDRESS, "::1"], "::1 is not public"),
        ("http://169.254.169.254/latest", [], "169.254.169.254 is not public"),
        ("http://blog.test:8080/x", [BLOG_ADDRESS], "port 8080 is not read"),
        ("http://other.test/x", ["198.51.100.1"], "198.51.100.1 is not public"),
        ("http://down.test/x", ["93.184.216.99"], "no double for 93.184.216.99"),
    ],
)
def test_an_entry_that_leads_where_nobody_may_go_is_left_out(
    url: str, addresses: list[str], why: str, stage: MakeStage
) -> None:
    one = stage()
    one.addresses[url.split("/")[2].partition(":")[0]] = addresses
    one.relink(FIRST, url)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    line = one.left_out(report.run)
    assert line.startswith(f"could not read {url}: ")
    assert why in line


@pytest.mark.parametrize(
    "body",
    [
        prose("Schreibprotokoll").replace("</h1>", " für Überläufe</h1>").encode("latin-1"),
        "<html><body><article>".encode("utf-16") + prose("log").encode("utf-16-le"),
        b"<meta charset=nosuch>" + prose("write-ahead log").encode(),
        ("<html lang=ja><body><article>" + "<p>先行書き込みログは変更を先に記録する。</p>" * 1
         + "".join(f"<p>第{n}節では、データベースの復旧手順を{n}段階で説明します。</p>"
                   for n in range(40))).encode(),
    ],
    ids=["in another encoding than it says", "in UTF-16", "in no encoding", "in another language"],
)  # fmt: skip
def test_a_page_in_an_odd_encoding_or_language_does_not_stop_the_run(
    body: bytes, stage: MakeStage
) -> None:
    one = stage()
    one.spoil(FIRST, Page(body, content_type=HTML))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert set(one.sources(report.run)) >= set(blog(*PATHS[1:]))


def test_what_the_feed_carries_stands_in_for_a_page_that_cannot_be_read(stage: MakeStage) -> None:
    one = stage()
    feed = str(one.blog.pages[FEED])
    carried = " ".join(
        f"The log of day {n} kept {n * 13} records for its readers." for n in range(9)
    )
    at = f"<guid>http://blog.test{FIRST}</guid><description>"
    assert at in feed
    one.spoil(FEED, feed.replace(at, f"{at}{carried} "))
    one.spoil(FIRST, Page(b"", status=403))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS))
    assert "HTTP 403; used what its feed carries" in one.left_out(report.run)


def test_no_feed_carries_a_page_whose_address_nothing_may_lead_to(stage: MakeStage) -> None:
    one = stage()
    feed = str(one.blog.pages[FEED])
    carried = " ".join(f"The log of day {n} kept {n * 13} records." for n in range(19))
    inside = "http://169.254.169.254/latest"
    at = f"http://blog.test{FIRST}"
    one.spoil(
        FEED,
        feed.replace(f"<guid>{at}</guid><description>", f"<guid>{at}</guid><description>{carried} ")
        .replace(at, inside),
    )  # fmt: skip
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS[1:]))
    (said,) = [line for line in one.left_out(report.run).splitlines() if inside in line]
    assert "is not public" in said
    assert "used what its feed carries" not in said


# With too little, nothing is paid for


def abstained(one: ReadingStage, report: Report) -> str:
    """The run found nothing fit, told the shell so, and no draft is on the bill."""
    assert report.outcome is RunOutcome.ABSTAINED, report.reason
    assert exits.of_outcome(report.outcome) is Exit.NOTHING_FIT
    assert one.asked("draft") == 0
    assert not any(charge.schema == "draft" for charge in one.model.bill)
    assert not one.articles()
    one.judge()
    return report.reason


@pytest.mark.parametrize("what", [name for name in LOST if name != "a redirect to itself"])
def test_a_run_that_can_read_nothing_abstains_before_it_asks_a_model(
    what: str, stage: MakeStage
) -> None:
    one = stage()
    page, why = LOST[what]
    for path in PATHS:
        one.spoil(path, page)
    if what in PASSING:
        # It may pass, and the entries are there for the next run; the third time it is theirs.
        for _ in range(2):
            failed = one.once()
            assert failed.outcome is RunOutcome.FAILED
            assert why in failed.reason
            assert failed.cost.micro == 0
            one.time.pass_by(timedelta(days=1))
    report = one.once()
    reason = abstained(one, report)
    assert reason.startswith("none of the chosen pages could be read: ")
    assert reason.count("could not read") == len(PATHS)
    assert why in reason
    assert not one.model.requests
    assert report.cost.micro == 0


def test_a_feed_that_cannot_be_read_ends_the_run_with_its_reason(stage: MakeStage) -> None:
    one = stage()
    one.spoil(FEED, Page(b"", status=503))
    reason = abstained(one, one.once())
    assert reason == "no feed could be read: http://blog.test/feed.xml: HTTP 503"
    assert not one.model.requests


def test_one_page_with_too_little_in_it_ends_before_a_draft_is_paid_for(stage: MakeStage) -> None:
    one = stage()
    for path in PATHS:
        one.spoil(path, Page(b"", status=410))
    thin = "words that go on and on without an end, " * 20
    one.spoil(
        FIRST,
        f"<html><body><article><p>The write-ahead log keeps all records in one file of its own.</p>"
        f"<p>{thin}</p></article></body></html>",
    )
    report = one.once()
    assert one.sources(report.run) == blog(FIRST)
    reason = abstained(one, report)
    assert reason.endswith("claims that the sources bear out; 3 are needed for an article")
    assert one.asked("notes") >= 1


def test_notes_that_no_source_bears_out_end_before_a_draft_is_paid_for(stage: MakeStage) -> None:
    one = stage()
    one.model.misbehave("invented_quote", schema="notes", times=None)
    assert "0 claims that the sources bear out" in abstained(one, one.once())


# Over sockets, with the clock on the wall


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (Page(prose("log").encode(), fault=Fault.STALL), "too slow"),
        (Page(b"<p>And so on. </p>", endless=True), "larger than 5 MB"),
        (Page(prose("log").encode(), fault=Fault.CUT), "could not read"),
        (Page(prose("log").encode(), fault=Fault.RESET), "could not read"),
    ],
    ids=["stalls", "endless", "cut", "reset"],
)
def test_over_a_socket_a_bad_page_costs_the_run_that_page(
    page: Page, why: str, tmp_path: Path
) -> None:
    # This life has the real clock, and old news are none.
    site = SiteDouble(pages=blog_pages(datetime.now(UTC)), rewrite=("http://blog.test", "{self}"))
    site.pages[FIRST] = page
    with serve(site) as at:
        one = Stage(
            tmp_path, site, PENSTOCK_FEEDS=f"{at.url}/feed.xml",
            PENSTOCK_FETCH_ALLOW=f"127.0.0.1:{at.port}", PENSTOCK_HTTP_TIMEOUT="1",
        )  # fmt: skip
        one.deposit("5")
        report = _once_over_sockets(one)
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    with one.reading() as tx:
        sources = [str(row.url) for row in journal.sources(tx, str(report.run))]
        decisions = [row.sentence for row in journal.decisions(tx, str(report.run))]
    assert sorted(sources) == sorted(f"{at.url}{path}" for path in PATHS[1:])
    assert any(FIRST in line and why in line for line in decisions), decisions


def _once_over_sockets(one: Stage) -> Report:
    """A life of the process on the real clock, its parser in a process with limits."""

    async def live() -> Report:
        world = World(models=InProcess({"llm.test": one.model}))
        async with opened_parts(one.settings, database, Silent(), world) as parts:
            return await parts.cycle.once()

    with opened_database(one.settings.location) as database:
        return asyncio.run(live())


# Search


def searched(*urls: str, **changes: Any) -> SearchDouble:
    return replace(SearchDouble(results=results(urls)), **changes)


def test_pages_that_a_search_finds_become_sources_after_the_chosen_ones(stage: MakeStage) -> None:
    one = stage(searched("http://other.test/a.html", "http://third.test/b.html"))
    one.spoil("/a.html", prose("checkpoint"))
    one.spoil("/b.html", prose("page cache"))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    found = one.sources(report.run)
    assert sorted(found[:4]) == sorted(blog(*PATHS))
    assert found[4:] == ["http://other.test/a.html", "http://third.test/b.html"]
    assert one.blog.hits["/a.html"] == one.blog.hits["/b.html"] == 1
    assert one.search is not None
    with one.reading() as tx:
        plan = journal.step(tx, str(report.run), "plan")
    assert plan is not None
    assert [asked["q"] for asked in one.search.asked] == plan.output["questions"]
    notes = next(request for request in one.model.requests if request.schema == "notes")
    assert "other.test/a.html" in notes.text or "The checkpoint in practice" in notes.text


def test_what_the_operator_asks_for_is_searched_for_before_the_plan(stage: MakeStage) -> None:
    one = stage(searched("http://other.test/a.html"))
    one.spoil("/a.html", prose("checkpoint"))
    report = one.once(topic="the checkpoint of SQLite")
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert one.search is not None
    assert one.search.asked[0]["q"] == "the checkpoint of SQLite"
    plan = next(request for request in one.model.requests if request.schema == "plan")
    assert "checkpoint" in plan.text.partition("The operator asks")[0]
    assert one.sources(report.run).count("http://other.test/a.html") == 1


@pytest.mark.parametrize("mischief", list(Mischief), ids=lambda m: m.name.lower())
def test_a_search_engine_that_fails_is_a_decision_and_not_a_failure(
    mischief: Mischief, stage: MakeStage
) -> None:
    one = stage(searched("http://other.test/a.html"))
    assert one.search is not None
    one.search.misbehave(*[mischief] * 5)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS))
    lines = one.left_out(report.run).splitlines()
    assert lines
    # What comes slowly, or says NaN where nobody looks, is an answer; its page is not there.
    if mischief not in (Mischief.NAN, Mischief.TRICKLE):
        assert all("search at https://searx.test" in line for line in lines), lines


def test_a_search_engine_that_is_not_there_is_a_decision(stage: MakeStage) -> None:
    one = stage(PENSTOCK_SEARCH_URL="https://searx.test")
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert "search at https://searx.test cannot be reached" in one.left_out(report.run)


def test_results_on_private_addresses_are_refused(stage: MakeStage) -> None:
    one = stage(
        searched("http://127.0.0.1/admin", "http://inside.test/wiki", "http://169.254.169.254/")
    )
    one.addresses["inside.test"] = ["192.168.1.10"]
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS))
    lines = one.left_out(report.run)
    assert "could not read http://127.0.0.1/admin: 127.0.0.1 is not public" in lines
    assert "could not read http://inside.test/wiki: 192.168.1.10 is not public" in lines


def test_results_that_are_sources_already_are_neither_asked_for_nor_doubled(
    stage: MakeStage,
) -> None:
    one = stage(searched(*blog(*PATHS)))
    report = one.once()
    assert sorted(one.sources(report.run)) == sorted(blog(*PATHS))
    assert all(one.blog.hits[path] == 1 for path in PATHS)


def test_results_that_lead_to_a_source_or_to_each_other_are_not_doubled(stage: MakeStage) -> None:
    one = stage(
        SearchDouble(
            results=[
                result("http://go.test/1"), result("http://go.test/2"),
                result("http://go.test/3"), result("http://go.test/4"),
            ]
        )
    )  # fmt: skip
    for number, target in enumerate((*blog(FIRST), "http://other.test/a.html"), start=1):
        one.spoil(f"/{number}", Page(status=301, headers={"location": target}))
        one.spoil(f"/{number + 2}", Page(status=301, headers={"location": target}))
    one.spoil("/a.html", prose("checkpoint"))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    found = one.sources(report.run)
    assert sorted(found[:4]) == sorted(blog(*PATHS))
    assert found[4:] == ["http://other.test/a.html"]


def test_two_entries_that_lead_to_one_page_are_one_source(stage: MakeStage) -> None:
    one = stage()
    for number in (1, 2):
        one.relink(PATHS[number], f"http://go.test/{number}")
        one.spoil(f"/{number}", Page(status=301, headers={"location": blog(FIRST)[0]}))
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    found = one.sources(report.run)
    assert len(found) == len(set(found)), found


# The archive


def planning(*questions: str) -> Callable[[Asked], dict[str, Any]]:
    def plan(asked: Asked) -> dict[str, Any]:
        return {"angle": "What to know.", "working_title": "On logs", "questions": list(questions)}

    return plan


ABOUT_FIRST = "Which records does the write-ahead log keep in its first pass?"
AGAIN = "Is the write-ahead log safe for readers that stay open?"


def next_day(one: ReadingStage) -> None:
    """The blog has one more entry, which no run has seen."""
    one.time.pass_by(timedelta(days=1))
    feed = str(one.blog.pages[FEED])
    entry = (
        "<item><title>The checkpoint explained</title><link>http://blog.test/checkpoint.html</link>"
        "<guid>c</guid><description>How the checkpoint of SQLite works in running databases."
        "</description><pubDate>24 Nov 2026 06:00:00 GMT</pubDate></item>"
    )
    one.spoil(FEED, Page(feed.replace("</channel>", f"{entry}</channel>").encode()))
    one.spoil("/checkpoint.html", prose("checkpoint"))


@pytest.mark.parametrize("engine", [False, True])
def test_pages_of_earlier_runs_answer_questions_and_are_not_doubled(
    engine: bool, stage: MakeStage
) -> None:
    one = stage(searched(*blog(FIRST, "/checkpoint.html")) if engine else None)
    first = one.once()
    assert first.outcome is RunOutcome.PUBLISHED, first.reason
    next_day(one)
    one.model.answers["plan"] = planning(ABOUT_FIRST, AGAIN, "How far does the checkpoint go?")
    second = one.once()
    assert one.sources(second.run) == blog("/checkpoint.html", FIRST), second.reason
    assert one.blog.hits[FIRST] == 1
    one.judge()


def test_a_question_of_few_words_remembers_nothing(stage: MakeStage) -> None:
    one = stage()
    one.once()
    next_day(one)
    one.model.answers["plan"] = planning("What of the write-ahead log?")
    second = one.once()
    assert one.sources(second.run) == blog("/checkpoint.html")


# Kills


class KillWhile(Kill):
    """Dies at the n-th commit that finds a run in the midst of one step."""

    def __init__(self, one: ReadingStage, step: str, after_step: str, number: int, *, after: bool):
        self._left = number
        super().__init__(lambda commit: self._is_due(one, step, after_step), after=after)

    def _is_due(self, one: ReadingStage, step: str, after_step: str) -> bool:
        with one.reading() as tx:
            (run,) = journal.runs(tx, limit=1)
            states: Mapping[str, str] = {row.name: row.state for row in journal.steps(tx, run.id)}
        within = states.get(after_step) == StepState.DONE and states.get(step) != StepState.DONE
        self._left -= within
        return within and self._left == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_commit_of_widening_doubles_no_source(after: bool, stage: MakeStage) -> None:
    def staged() -> ReadingStage:
        one = stage(searched("http://other.test/a.html", "http://other.test/b.html", *blog(FIRST)))
        one.spoil("/a.html", prose("page cache"))
        one.spoil("/b.html", prose("rollback journal"))
        one.once()
        next_day(one)
        one.model.answers["plan"] = planning(ABOUT_FIRST, AGAIN, "How far does a checkpoint go?")
        return one

    undisturbed = staged()
    report = undisturbed.once()
    wanted = undisturbed.sources(report.run)
    assert len(wanted) >= 3
    for number in count(1):
        one = staged()
        kill = KillWhile(one, "widen", "plan", number, after=after)
        with suppress(Killed):
            one.once(kill=kill)
        if not kill.dead:
            break
        resumed = one.once()
        assert resumed.outcome is report.outcome, resumed.reason
        assert one.sources(resumed.run) == wanted
        assert one.asked("plan") == 2
        one.judge()
    # Begun and ended, at the least.
    assert number > 2
