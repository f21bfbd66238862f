"""What is thinned after some days, and that nothing else ever is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from daemon import journal, retention
from daemon.app import opened_database, opened_parts
from daemon.books import Books
from daemon.cli.runs import details, run_document
from daemon.inference import attempts
from daemon.journal import PublicationState, RunOutcome, RunState
from daemon.retention import WALKS, Cut, Thinned
from daemon.sources import archive
from daemon.sources.parse import Item
from ledger import audit
from ledger.database import Database
from ledger.types import to_text
from tests.doubles.web import SiteDouble
from tests.ledger_helpers import open_run, whole_book
from tests.stage import TOPICS, Kill, Killed, MortalDatabase, Silent, Stage, blog_pages
from tests.virtual import START, VirtualTime

DAYS, FRESH = 180, 30
NOW = START + timedelta(days=400)
OLD, YOUNG = NOW - timedelta(days=DAYS + 30), NOW - timedelta(days=DAYS - 30)

Tables = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with whole_book(tmp_path / "books.db") as database:
        yield database


def thin(tx: Connection, *, days: int = DAYS, fresh_days: int = FRESH, batch: int = 2) -> Thinned:
    """Everything, a few keys at a time."""
    cut, total = Cut.of(NOW, days=days, fresh_days=fresh_days), Thinned()
    for walk in WALKS:
        after: str | None = ""
        while after is not None:
            thinned, after = retention.thin(tx, walk, cut, after, batch)
            total += thinned
    return total


def contents(tx: Connection) -> Tables:
    """Every row of every table, the index of the archive included."""
    names = [*SQLModel.metadata.tables, "article_index"]
    return {
        name: sorted((tuple(row) for row in tx.execute(text(f"SELECT * FROM {name}"))), key=repr)
        for name in names
    }


# A year of a publication


SUBJECTS = (
    ("page cache", "busy handler", "rollback journal", "freelist"),
    ("virtual table", "covering index", "collation", "trigger"),
    ("checkpoint", "savepoint", "shared memory", "lock manager"),
    ("replica", "snapshot reader", "archive writer", "standby server"),
    ("vacuum command", "integrity check", "statistics table", "cost model"),
)


def news(number: int, at: datetime) -> dict[str, Any]:
    """The blog with other pages each time."""
    made, items = dict[str, Any](), ""
    for old, new in zip(TOPICS, SUBJECTS[number - 1], strict=True):
        page = blog_pages()[f"/{old.replace(' ', '-')}.html"]
        assert isinstance(page, str)
        path = f"/{new.replace(' ', '-')}.html"
        made[path] = page.replace(old, new)
        items += (
            f"<item><title>The {new} explained</title><link>http://blog.test{path}</link>"
            f"<guid>http://blog.test{path}</guid><description>How the {new} of SQLite works in"
            f" running databases.</description><pubDate>{format_datetime(at)}</pubDate></item>"
        )
    feed = (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>Database Notes</title>'
        f"<link>http://blog.test/</link><description>d</description>{items}</channel></rss>"
    )
    return {**made, "/feed.xml": feed}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A run every ten weeks for a year."""
    one = Stage(tmp_path_factory.mktemp("year"), SiteDouble(pages={}))
    one.deposit("50")
    for number in range(1, 6):
        one.blog.pages.clear()
        one.blog.pages |= news(number, one.time.clock.now())
        report = one.once()
        assert report.outcome is RunOutcome.PUBLISHED, report.reason
        one.time.pass_by(timedelta(weeks=10))
    return one


@pytest.fixture
def past(year: Stage, tmp_path: Path) -> Iterator[Database]:
    """A copy of that year's database."""
    path = tmp_path / "copy.db"
    with closing(Database(year.settings.location.database_url)) as original, original.write() as tx:
        tx.exec_driver_sql("SELECT 1")
    path.write_bytes(Path(str(original.path)).read_bytes())
    with closing(Database(f"sqlite:///{path}", busy_timeout_ms=0)) as database:
        yield database


def thinned(year: Stage, database: Database, days: int = DAYS) -> Thinned:
    books = Books(database, year.time.clock)
    return year.time.run(retention.run(books, year.time.clock, days, fresh_days=FRESH))


def test_after_a_year_the_old_texts_are_gone_and_everything_else_is_as_it_was(
    year: Stage, past: Database
) -> None:
    with past.read() as tx:
        before = contents(tx)
    went = thinned(year, past)
    with past.read() as tx:
        after = contents(tx)
        assert audit.check(tx).ok
        assert attempts.disagreements(tx) == []
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"source", "attempt", "publication", "page", "entry", "decision"}
    old = year.time.clock.now() - timedelta(days=DAYS)
    runs = {row[0] for row in before["run"] if row[-1] < to_text(old)}
    assert 0 < len(runs) < 5
    # Only these columns changed, and only of these runs.
    for name, column in (("source", "text"), ("attempt", "answer"), ("publication", "payload")):
        columns = list(SQLModel.metadata.tables[name].c.keys())
        blank = columns.index(column)
        key = columns.index("run")
        rows = [
            {row[:blank] + row[blank + 1 :]: (row[key], row[blank]) for row in one[name]}
            for one in (before, after)
        ]
        assert rows[0].keys() == rows[1].keys()
        for rest, (run, value) in rows[1].items():
            assert (value == rows[0][rest][1]) == (run not in runs), (name, run)
    new = [row for row in after["decision"] if row not in before["decision"]]
    assert {row[1] for row in new} == runs
    assert [row for row in before["decision"] if row not in after["decision"]] == []
    assert {row[3] for row in new} == {"thinned"}
    gone = {field.name for field in fields(went) if getattr(went, field.name) > 0}
    assert gone == {"pages", "sources", "answers", "payloads", "entries"}


def test_thinning_again_changes_nothing(year: Stage, past: Database) -> None:
    thinned(year, past)
    with past.read() as tx:
        once = contents(tx)
    assert thinned(year, past) == Thinned()
    with past.read() as tx:
        assert contents(tx) == once


def test_a_kill_in_the_middle_loses_nothing_that_is_kept(year: Stage, past: Database) -> None:
    with past.read() as tx:
        before = contents(tx)
    path = past.path
    url = f"sqlite:///{path}"
    for commit in range(1, 10):
        mortal = MortalDatabase(url, Kill.at(commit % 3 + 1, after=bool(commit % 2)))
        with closing(mortal), pytest.raises(Killed):
            thinned(year, mortal)
    thinned(year, past)
    with past.read() as tx:
        after = contents(tx)
        assert audit.check(tx).ok
    for name in ("transfer", "account", "run", "step", "claim", "article", "article_index"):
        assert after[name] == before[name]
    # A run is told once that its texts are gone.
    told = [row[1] for row in after["decision"] if row[3] == "thinned"]
    assert len(told) == len(set(told)) > 0


def test_an_old_run_is_still_shown_and_says_what_went(year: Stage, past: Database) -> None:
    thinned(year, past)
    with past.read() as tx:
        row = journal.runs(tx)[0]
        shown = run_document(tx, row) | details(tx, row)
        texts = [source.text for source in journal.sources(tx, row.id)]
    assert set(texts) == {""}
    assert f"the texts of the {len(texts)} page(s)" in shown["decisions"][-1]["sentence"]
    assert all(source["url"] and source["title"] for source in shown["sources"])
    assert all(claim["quote"] for claim in shown["claims"])
    assert shown["article"]["markdown"]


def test_the_publication_goes_on_after_it_was_thinned(tmp_path: Path) -> None:
    one = Stage(tmp_path / "stage", SiteDouble(pages=dict(news(1, START))))
    one.deposit("5")
    assert one.once().outcome is RunOutcome.PUBLISHED
    first = one.articles()
    one.time.pass_by(timedelta(days=DAYS + 1))
    with opened_database(one.settings.location), closing(
        MortalDatabase(one.settings.location.database_url, None)
    ) as database:  # fmt: skip
        thinned(one, database)
    # The same pages are still in the feed.
    assert one.once().outcome is RunOutcome.ABSTAINED
    one.blog.pages |= news(2, one.time.clock.now())
    assert one.once().outcome is RunOutcome.PUBLISHED
    assert first[0] in one.articles()
    assert len(one.articles()) == 2
    run = json.loads(first[0].with_suffix(".json").read_text())["run"]

    async def withdraw() -> list[Any]:
        async with opened_parts(one.settings, database, Silent(), one.world()) as parts:
            return await parts.press.withdraw(run, "a person wants it")

    with opened_database(one.settings.location), closing(
        MortalDatabase(one.settings.location.database_url, None)
    ) as database:  # fmt: skip
        rows = one.time.run(withdraw())
    assert [row.state for row in rows] == ["withdrawn"]
    assert first[0] not in one.articles()
    one.judge()


# What is kept


def a_run(tx: Connection, id: str, at: datetime, state: RunState = RunState.FINISHED) -> None:
    open_run(tx, id, at)
    journal.add_source(tx, id, id="S1", url="http://a.test/", title="A", text="t", fetched_at=at)
    if state in (RunState.FINISHED, RunState.FAILED):
        journal.finish_run(tx, id, outcome=RunOutcome.PUBLISHED, reason=None, at=at)
    journal.change_run(tx, id, state=state)


@pytest.mark.parametrize(
    ("state", "at", "kept"),
    [
        (RunState.FINISHED, OLD, False),
        (RunState.FAILED, OLD, False),
        (RunState.FINISHED, YOUNG, True),
        (RunState.FINISHED, NOW - timedelta(days=DAYS), True),
        (RunState.RUNNING, OLD, True),
        (RunState.PARKED, OLD, True),
        (RunState.AWAITING_APPROVAL, OLD, True),
    ],
)
def test_evidence_stays_until_its_run_has_long_ended(
    database: Database, state: RunState, at: datetime, kept: bool
) -> None:
    with database.write() as tx:
        a_run(tx, "r", at, state)
        thin(tx)
        assert journal.sources(tx, "r")[0].text == ("t" if kept else "")
        assert len(journal.decisions(tx, "r")) == (0 if kept else 1)


def test_a_run_that_took_long_is_counted_from_its_end(database: Database) -> None:
    with database.write() as tx:
        a_run(tx, "r", OLD)
        journal.change_run(tx, "r", finished_at=YOUNG)
        assert thin(tx) == Thinned()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"state": PublicationState.PUBLISHED}, False),
        ({"state": PublicationState.WITHDRAWN, "withdrawal": "it was wrong"}, False),
        ({"state": PublicationState.PUBLISHED, "withdrawal": "on its way back"}, True),
        ({"state": PublicationState.PUBLISHED, "published_at": YOUNG}, True),
        ({"state": PublicationState.FAILED}, True),
        ({"state": PublicationState.INTENDED}, True),
        ({"state": PublicationState.UNCONFIRMED}, True),
    ],
)
def test_the_bytes_of_what_is_out_go_and_those_still_needed_stay(
    database: Database, changes: dict[str, Any], kept: bool
) -> None:
    with database.write() as tx:
        a_run(tx, "r", OLD)
        journal.intend(tx, "r", "outbox", key="k", payload=b'{"run":"r"}', title="T", at=OLD)
        journal.change_publication(tx, "r", "outbox", **changes)
        thin(tx)
        row = journal.publication(tx, "r", "outbox")
        assert row is not None
        payload = json.loads(row.payload)
        assert payload == ({"run": "r"} if kept else {"thinned": to_text(NOW)})
        assert (row.state, row.key, row.title) == (changes["state"], "k", "T")


def test_an_intent_that_was_never_frozen_stays_unfrozen(database: Database) -> None:
    with database.write() as tx:
        a_run(tx, "r", OLD)
        journal.intend(tx, "r", "bluesky", key="", payload=b"", title="T", at=OLD)
        journal.change_publication(tx, "r", "bluesky", state=PublicationState.WITHDRAWN)
        thin(tx)
        row = journal.publication(tx, "r", "bluesky")
        assert row is not None
        assert row.payload == ""


# News


def entry(guid: str, published_at: datetime | None) -> Item:
    return Item(
        guid=guid, url=f"http://blog.test/{guid}", title=guid, author=None, summary="said",
        text="all of it", published_at=published_at,
    )  # fmt: skip


def unused(tx: Connection) -> list[str]:
    rows = archive.unused(tx, ["feed"], newer_than=NOW - timedelta(days=FRESH))
    return sorted(row.guid for row in rows)


def test_an_old_entry_does_not_become_news_again(database: Database) -> None:
    carried = [entry("dated", OLD), entry("undated", None), entry("used", None)]
    with database.write() as tx:
        archive.note_feed(tx, "feed", at=OLD, title="Feed")
        archive.remember(tx, "feed", carried, OLD)
        a_run(tx, "r", OLD)
        archive.use(tx, "r", ["http://blog.test/used"])
        assert thin(tx).entries == 3
        rows = {row.guid: row for row in tx.execute(text("SELECT * FROM entry"))}
        assert {(row.summary, row.text) for row in rows.values()} == {("", "")}
        # The feed carries all of them still, and dates one of them anew.
        later = [entry("dated", NOW), *carried[1:], entry("new", NOW)]
        assert archive.remember(tx, "feed", later, NOW) == 1
        assert unused(tx) == ["new"]
        # One that was used is used under another name, too.
        other = Item(
            guid="again", url="http://blog.test/used", title="used", author=None, summary="s",
            text="t", published_at=NOW,
        )  # fmt: skip
        archive.remember(tx, "feed", [other], NOW)
        assert unused(tx) == ["new"]


@pytest.mark.parametrize(
    ("seen", "dated", "days", "fresh_days", "kept"),
    [
        (200, None, 180, 30, False),
        (200, 200, 180, 30, False),
        (100, 300, 180, 30, True),  # seen lately
        (200, 150, 180, 30, True),  # of no feed that we know: dated later than seen
        (20, None, 10, 30, True),  # still news
        (40, None, 10, 30, False),
        (200, None, 180, 365, True),
    ],
)
def test_what_is_news_keeps_its_words(
    database: Database, seen: int, dated: int | None, days: int, fresh_days: int, kept: bool
) -> None:
    with database.write() as tx:
        archive.note_feed(tx, "feed", at=NOW, title="Feed")
        at = None if dated is None else NOW - timedelta(days=dated)
        archive.remember(tx, "feed", [entry("e", None)], NOW - timedelta(days=seen))
        if at is not None:
            tx.execute(text("UPDATE entry SET published_at = :at"), {"at": to_text(at)})
        thin(tx, days=days, fresh_days=fresh_days)
        assert tx.execute(text("SELECT summary FROM entry")).scalar_one() == ("said" * kept)


def test_the_entries_of_a_run_that_goes_on_keep_their_words(database: Database) -> None:
    with database.write() as tx:
        archive.note_feed(tx, "feed", at=OLD, title="Feed")
        archive.remember(tx, "feed", [entry("e", OLD)], OLD)
        a_run(tx, "r", OLD, RunState.PARKED)
        archive.use(tx, "r", ["http://blog.test/e"])
        assert thin(tx) == Thinned()
        journal.finish_run(tx, "r", outcome=RunOutcome.ABSTAINED, reason=None, at=NOW)
        assert thin(tx) == Thinned(entries=1)


def test_a_page_goes_with_its_entity_tag(database: Database) -> None:
    with database.write() as tx:
        for url, at in (("http://a.test/old", OLD), ("http://a.test/young", YOUNG)):
            archive.keep_page(
                tx, url, final_url=url, title="P", text="t", etag='"1"', last_modified=None,
                fetched_at=at,
            )  # fmt: skip
        assert thin(tx) == Thinned(pages=1)
        assert archive.page(tx, "http://a.test/old") is None
        assert archive.page(tx, "http://a.test/young") is not None


def test_what_was_decided_without_a_run_goes_and_what_a_run_decided_stays(
    database: Database,
) -> None:
    # Some at one instant, as two transactions in a microsecond would be.
    times = [OLD, OLD, OLD, OLD + timedelta(days=1), NOW - timedelta(days=DAYS), YOUNG]
    with database.write() as tx:
        a_run(tx, "r", YOUNG)
        for number, at in enumerate(times):
            journal.decide(tx, run=None, kind="skip", sentence=str(number), inputs={}, at=at)
        journal.decide(tx, run="r", kind="pace", sentence="standard", inputs={}, at=OLD)
        assert thin(tx) == Thinned(decisions=4)
        kept = tx.execute(text("SELECT sentence FROM decision ORDER BY id")).scalars().all()
    assert kept == ["4", "5", "standard"]


# Snapshots


Series = list[tuple[datetime, int]]


def at_end_of(series: Series, day: datetime) -> int | None:
    """The count at a midnight, as a step function."""
    return next((count for at, count in reversed(series) if at < day), None)


def stored(tx: Connection, metric: str = "view") -> Series:
    rows = tx.execute(
        text("SELECT at, count FROM snapshot WHERE metric = :m ORDER BY at"), {"m": metric}
    )
    return [(datetime.fromisoformat(at), count) for at, count in rows]


def store_series(tx: Connection, series: Series, metric: str = "view") -> None:
    for at, count in series:
        tx.execute(
            text("INSERT INTO snapshot VALUES ('r', 'devto', :metric, :at, :count)"),
            {"metric": metric, "at": to_text(at), "count": count},
        )


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with whole_book(tmp_path_factory.mktemp("scratch") / "books.db") as database:
        with database.write() as tx:
            a_run(tx, "r", OLD, RunState.PARKED)
        yield database


moments = st.integers(0, 8 * 24 * 4 - 1).map(lambda quarter: timedelta(minutes=15 * quarter))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(moments, st.integers(0, 6), min_size=1, max_size=60))
def test_a_thinned_series_says_the_same_at_every_midnight_and_of_its_ends(
    scratch: Database, counts: dict[timedelta, int]
) -> None:
    # The cut falls into the fifth of eight days.
    cut = NOW - timedelta(days=DAYS)
    first = cut.replace(hour=0) - timedelta(days=5)
    series = sorted((first + moment, count) for moment, count in counts.items())
    with scratch.write() as tx:
        tx.execute(text("DELETE FROM snapshot"))
        store_series(tx, series)
        store_series(tx, series, "like")
        thin(tx)
        kept = stored(tx)
        assert stored(tx, "like") == kept
        assert thin(tx) == Thinned()
    assert set(kept) <= set(series)
    assert (kept[0], kept[-1]) == (series[0], series[-1])
    highest = max(count for _, count in series)
    assert next(one for one in series if one[1] == highest) in kept
    for number in range(10):
        day = first + timedelta(days=number)
        assert at_end_of(kept, day) == at_end_of(series, day)
    whole = cut.replace(hour=0)
    assert [one for one in kept if one[0] >= whole] == [one for one in series if one[0] >= whole]
    by_day: dict[Any, int] = {}
    for at, _ in kept:
        by_day[at.date()] = by_day.get(at.date(), 0) + 1
    assert all(count <= 3 for day, count in by_day.items() if day < whole.date())


# Small steps


def test_each_transaction_is_short_however_much_there_is(database: Database) -> None:
    with database.write() as tx:
        for number in range(50):
            a_run(tx, f"r{number:03}", OLD)
    time = VirtualTime()
    time.pass_by(NOW - START)
    books = Books(database, time.clock)
    steps: list[int] = []
    act = retention.thin

    def counted(*args: Any) -> Any:
        thinned, after = act(*args)
        steps.append(thinned.sources)
        return thinned, after

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "thin", counted)
        total = time.run(retention.run(books, time.clock, DAYS, fresh_days=FRESH))
    assert total.sources == sum(steps) == 50
    assert max(steps) <= 5
