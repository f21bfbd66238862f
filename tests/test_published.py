"""The archive of published articles: kept, out, withdrawn, found again; whatever is asked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from daemon import journal, migrations
from daemon.sources import published
from daemon.sources.published import (
    KEYWORDS_MAX,
    NoFullTextSearch,
    comparable,
    keep,
    related,
    similar,
    went_out,
    withdrawn,
)
from ledger.backup import backup
from ledger.database import Database
from tests.corpora import naughty_strings
from tests.ledger_helpers import whole_book

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
# Strings known to break programs; see README there. Not part of the repository.
# What means something in an FTS5 query, and what has broken quoting elsewhere.
HOSTILE = (
    '"', '""', "'", "*", "sqlite*", "^sqlite", "-", "+", "(", ")", "(sqlite", "AND", "OR", "NOT",
    "sqlite AND", "NEAR", "NEAR(", "NEAR(sqlite log, 2)", "title:sqlite", "{title text}: sqlite",
    "- title : sqlite", "run:r1", "rowid:1", "rank:1", "article_index", "\x00", "sqlite\x00log",
    'sqlite" OR "a', "sqlite; DROP TABLE article", "sqlite -- ", "/* sqlite", "\ud800", "%s %(w0)s",
    ":w0", ":any", "\u202esqlite", "a" * 100_000, "\"*\"", '"sqlite"*',
    "s\u200dqlite", "٣", "½", "²",
)  # fmt: skip

Articles = dict[str, tuple[str, str]]
ARTICLES: Articles = {
    "wal": (
        "How the write-ahead log works in SQLite",
        "Readers go on while one writer appends pages to the log. A checkpoint copies them back.",
    ),
    "backup": (
        "Backups that were never restored",
        "A backup counts once it was restored on another machine. Copy the SQLite database safely.",
    ),
    "roses": ("Roses in winter", "Cut them late, cover them with leaves, and wait for spring."),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'penstock.db'}")
    migrations.upgrade(opened)
    yield opened
    opened.close()


def store(tx: Connection, run: str, title: str, prose: str, **values: Any) -> None:
    """Kept, but not out yet."""
    if journal.run(tx, run) is None:
        journal.open_run(
            tx, id=run, slot=None, tier="standard", kind=journal.ARTICLE, topic=None,
            budget_micro=0, at=NOON,
        )  # fmt: skip
    given: dict[str, Any] = {
        "title": title, "description": "", "prose": prose, "tags": ["sqlite"],
        "words": len(prose.split()), "reading_minutes": 1, "readability": 61.5, "sources": 3,
        "claims": 9, "claims_verified": 8,
    }  # fmt: skip
    keep(tx, run, **given | values)


def publish(tx: Connection, articles: Articles = ARTICLES) -> None:
    for days, (run, (title, prose)) in enumerate(articles.items()):
        store(tx, run, title, prose)
        went_out(tx, run, f"https://x.example/{run}", NOON + timedelta(days=days))


def found(tx: Connection, asked: str) -> list[str]:
    return [earlier.run for earlier in similar(tx, asked, 10)]


def test_an_article_is_kept_as_it_was_given(database: Database) -> None:
    with database.write() as tx:
        store(tx, "r1", "Title", "Prose.", warnings=["long"], card=b"\x89PNG\x00", description="D")
    with database.read() as tx:
        row = published.article(tx, "r1")
    assert row is not None
    assert (row.title, row.description, row.text) == ("Title", "D", "Prose.")
    assert (row.tags, row.warnings, row.card) == (["sqlite"], ["long"], b"\x89PNG\x00")
    assert (row.readability, row.claims, row.claims_verified) == (61.5, 9, 8)
    assert (row.url, row.published_at) == (None, None)


def test_an_article_needs_its_run(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as tx:
        keep(
            tx, "nobody", title="", description="", prose="", tags=(), words=0, reading_minutes=0,
            readability=None, sources=0, claims=0, claims_verified=0,
        )  # fmt: skip


def test_only_what_is_out_is_found(database: Database) -> None:
    with database.write() as tx:
        store(tx, "r1", "SQLite", "All about it.")
        assert found(tx, "sqlite") == []
        went_out(tx, "r1", None, NOON)
        assert found(tx, "sqlite") == ["r1"]
        assert related(tx, "sqlite", 5) == []
        went_out(tx, "r1", "https://x.example/1", NOON + timedelta(days=1))
        (earlier,) = related(tx, "sqlite", 5)
        (row,) = published.published(tx)
        assert (earlier.url, row.published_at) == ("https://x.example/1", NOON)
        withdrawn(tx, "r1")
        assert found(tx, "sqlite") == []
        assert published.published(tx) == []
        assert published.article(tx, "r1") is not None


def test_of_a_run_without_an_article_nothing_is_noted(database: Database) -> None:
    with database.write() as tx:
        went_out(tx, "r1", "https://x.example/1", NOON)
        withdrawn(tx, "r1")
        assert published.published(tx) == []


def test_keeping_again_replaces_the_words_and_leaves_it_out(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        store(tx, "roses", "Tulips in spring", "Plant them late.")
        assert found(tx, "leaves") == []
        assert found(tx, "tulip") == ["roses"]
        assert indexed(tx) == 3


def test_the_score_is_the_share_of_the_keywords_found(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        (first, second) = similar(tx, "SQLite checkpoints copy roses_ tulips", 10)[:2]
        assert (first.run, first.score) == ("wal", 3 / 5)
        assert second.score < first.score
        assert similar(tx, ARTICLES["backup"][1], 1)[0].score == 1.0


def test_a_score_does_not_depend_on_how_much_else_there_is(database: Database) -> None:
    asked = "SQLite checkpoints copy the moon"
    with database.write() as tx:
        publish(tx)
        before = similar(tx, asked, 1)
        publish(tx, {f"r{n}": (f"Server {n}", "Words on SQLite and the moon") for n in range(50)})
        after = [earlier for earlier in similar(tx, asked, 100) if earlier.run == "wal"]
    assert before == after


def test_between_equals_the_title_decides(database: Database) -> None:
    with database.write() as tx:
        publish(tx, {"a": ("Roses", "On sqlite."), "b": ("SQLite", "On roses."), "c": ("Tea", "")})
        assert found(tx, "sqlite") == ["b", "a"]


def test_a_limit_bounds_the_answer(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        assert len(similar(tx, "sqlite", 1)) == 1
        assert similar(tx, "sqlite", 0) == []


def test_related_are_those_worth_a_link(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        asked = "SQLite backups and how a log is copied"
        assert [earlier.run for earlier in related(tx, asked, 5)] == ["backup", "wal"]
        assert [earlier.run for earlier in related(tx, asked, 5, but="backup")] == ["wal"]
        assert related(tx, "sqlite on the moon under martian dust storms", 5) == []


def test_what_is_published_is_listed_newest_first(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        assert [row.run for row in published.published(tx)] == ["roses", "backup", "wal"]
        row = published.published(tx)[0]
        assert (row.title, row.tags, row.url) == (
            "Roses in winter", ["sqlite"], "https://x.example/roses",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("databases", "database"),
        ("logging", "logs"),
        ("café", "CAFE"),
        ("cafe", "cafe\u0301"),
        ("naïve Zürich", "naive zurich"),
        ("Die Straße", "STRASSE"),
        ("Пишем в журнал баз данных", "ЖУРНАЛ"),
        ("Ο διακομιστής ΓΡΆΦΕΙ", "γραφει"),
        ("قاعدة البيانات", "البيانات"),
        ("서버 기록 방식", "기록"),
        ("开源数据库性能对比", "数据库"),
        ("データベースの書き込み", "データベース"),
        ("SQLiteの書き込み", "sqlite"),
        ("SQLiteの書き込み", "書き込み"),
        ("ＳＱＬｉｔｅ", "sqlite"),
    ],
)
def test_case_accents_and_scripts(database: Database, words: str, asked: str) -> None:
    with database.write() as tx:
        publish(tx, {"roses": ARTICLES["roses"], "it": ("Something", f"Before. {words}. Behind.")})
        (earlier,) = similar(tx, asked, 5)
    assert (earlier.run, earlier.score) == ("it", 1.0)


def test_two_characters_that_do_not_stand_together_are_not_found(database: Database) -> None:
    with database.write() as tx:
        publish(tx, {"it": ("数学", "据说库房")})
        assert found(tx, "数据库") == []


@pytest.mark.parametrize(
    ("plain", "apart"),
    [
        ("a write-ahead log", "a write-ahead log"),
        ("数据库", " 数据 据库 "),
        ("用", " 用 "),
        ("SQLite的log", "SQLite 的 log"),
        ("Ｃafé gegen 데이터", "Cafe gegen 데이터"),
        ("ガラス", " ガラ ラス "),
    ],
)
def test_words_stand_between_spaces_and_without_accents(plain: str, apart: str) -> None:
    assert comparable(plain) == apart


# By other hands


def indexed(tx: Connection) -> int:
    return int(tx.execute(text("SELECT count(*) FROM article_index")).scalar_one())


COLUMNS = (
    "run, title, description, text, tags, url, published_at, words, reading_minutes, sources,"
    " claims, claims_verified, warnings"
)


REPLACED = COLUMNS.replace("text,", "'About teapots',")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM article WHERE run = 'wal'",
        f"INSERT OR REPLACE INTO article ({COLUMNS}) SELECT {REPLACED} FROM article"
        " WHERE run = 'wal'",
    ],
)
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_what_other_hands_change_is_never_found_under_other_words(
    database: Database, statement: str, recursive: str
) -> None:
    with database.write() as tx:
        publish(tx)
    connection = sqlite3.connect(database.path)
    connection.execute(f"PRAGMA recursive_triggers = {recursive}")
    connection.execute(statement)
    connection.commit()
    connection.close()
    with database.write() as tx:
        assert found(tx, "checkpoint") == []
        assert found(tx, "teapot") == []
        publish(tx, {"new": ("A new one", "About samovars.")})
        assert found(tx, "checkpoint") == []
        assert found(tx, "samovar") == ["new"]
        assert found(tx, "backup") == ["backup"]


def test_a_vacuum_changes_nothing(database: Database) -> None:
    with database.write() as tx:
        publish(tx)
        tx.execute(text("DELETE FROM article WHERE run = 'wal'"))
    before = sqlite3.connect(database.path)
    before.execute("VACUUM")
    before.close()
    with database.read() as tx:
        assert found(tx, "backup") == ["backup"]
        assert found(tx, "roses") == ["roses"]


def test_a_backup_and_a_dump_find_the_same(database: Database, tmp_path: Path) -> None:
    with database.write() as tx:
        publish(tx)
    made = backup(database, tmp_path / "copy.db", at=NOON, verify=migrations.require_current)
    restored = Database(f"sqlite:///{made.path}")
    with database.read() as ours, restored.read() as theirs:
        for asked in ("sqlite", "roses", "backup"):
            assert similar(ours, asked, 9) == similar(theirs, asked, 9) != []
    with restored.write() as tx:
        store(tx, "roses", "Tulips", "In spring.")
        assert found(tx, "tulips") == ["roses"]
        tx.execute(text("INSERT INTO article_index (article_index) VALUES ('integrity-check')"))
    restored.close()


def test_a_fresh_schema_has_the_index_too(tmp_path: Path) -> None:
    with whole_book(tmp_path / "fresh.db") as fresh, fresh.write() as tx:
        publish(tx)
        assert found(tx, "roses") == ["roses"]


def test_a_sqlite_without_full_text_search_is_told_as_such(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'penstock.db'}")

    @event.listens_for(database._engine, "before_cursor_execute", retval=True)
    def without(_c: Any, _cursor: Any, statement: str, values: Any, _x: Any, _m: bool) -> Any:
        return statement.replace("name = 'fts5'", "name = 'none'"), values

    with pytest.raises(NoFullTextSearch, match=r"no FTS5.*use a Python whose SQLite"):
        migrations.upgrade(database)
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one() == 0
        with pytest.raises(NoFullTextSearch):
            similar(tx, "sqlite", 1)
    database.close()


# Whatever is asked


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Three articles, for questions that change nothing."""
    opened = Database(f"sqlite:///{tmp_path_factory.mktemp('archive') / 'penstock.db'}")
    migrations.upgrade(opened)
    with opened.write() as tx:
        publish(tx)
    yield opened
    opened.close()


def assert_only_words(tx: Connection, asked: str) -> None:
    """The question is its words and nothing else: without all signs the answer is the same."""
    answer = similar(tx, asked, 10)
    assert all(0 < earlier.score <= 1 for earlier in answer)
    assert sorted(answer, key=lambda one: -one.score) == answer
    assert {earlier.run for earlier in related(tx, asked, 10)} <= {one.run for one in answer}
    terms = [term.strip('"') for term in published._terms(asked)]
    assert len(terms) <= KEYWORDS_MAX
    assert similar(tx, " , ".join(terms), 10) == answer
    for term in terms:
        assert not re.search(r"[\"\x00*^:(){}]", term)


@pytest.mark.parametrize("asked", HOSTILE, ids=lambda asked: ascii(asked)[:20])
def test_a_question_cannot_be_a_query(archive: Database, asked: str) -> None:
    with archive.read() as tx:
        assert_only_words(tx, asked)


def test_operators_are_words(archive: Database) -> None:
    with archive.read() as tx:
        # As a query this would exclude everything about SQLite, or ask for a column.
        assert found(tx, "roses NOT winter") == ["roses"]
        assert found(tx, "sqlite*") == found(tx, "sqlite") == ["wal", "backup"]
        assert found(tx, "sqli*") == []
        assert found(tx, "text:roses") == ["roses"]
        assert found(tx, '"roses sqlite"') == found(tx, "roses sqlite")


def test_naughty_strings_are_asked_and_kept(archive: Database, database: Database) -> None:
    naughty = naughty_strings()
    with archive.read() as tx:
        for asked in naughty:
            assert_only_words(tx, asked)
    with database.write() as tx:
        for number, title in enumerate(naughty):
            publish(tx, {f"r{number}": (title, title)})
        for number, title in enumerate(naughty):
            if published._terms(title):
                scores = {e.run: e.score for e in similar(tx, title, len(naughty))}
                assert scores.get(f"r{number}", 1.0) == 1.0
        tx.execute(text("INSERT INTO article_index (article_index) VALUES ('integrity-check')"))


SYNTAX = st.lists(
    st.sampled_from([*HOSTILE[:30], "sqlite", "roses", " ", "log", "\n"]) | st.text(max_size=8),
    max_size=12,
).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=SYNTAX | st.text(max_size=300))
def test_any_text_can_be_asked(archive: Database, asked: str) -> None:
    with archive.read() as tx:
        assert_only_words(tx, asked)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["sqlite", "roses", "log", "winter", "backup", "restored", "moon"]))
)
def test_more_of_the_same_words_change_nothing(archive: Database, asked: list[str]) -> None:
    with archive.read() as tx:
        once = similar(tx, " ".join(dict.fromkeys(asked)), 10)
        assert similar(tx, " ".join(asked), 10) == once
