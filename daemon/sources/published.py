"""
What was published, searchable: what the publication said before, in its own words.

An article is kept under its run when it is finished, counts once it went out, and no longer once
it was withdrawn. Search is SQLite's FTS5; another database will bring its own, and everything
that is SQLite's stands in this module and its migration.

The index holds the same words in a searchable form and is written by `keep`, since
`trusted_schema = OFF` lets no trigger near a virtual table. An article says which row of the index
is its own: one that other hands deleted or replaced is not found, and never found as another.

What is found: words of scripts that put spaces between them (Latin, Cyrillic, Greek, Arabic,
Hebrew, Hangul with its particles), case and accents folded, English inflections by Porter's
stemmer. Chinese and Japanese by pairs of neighbouring characters. Thai, Lao, Khmer and Burmese
only by whole phrases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    DDL,
    REAL,
    Connection,
    Integer,
    LargeBinary,
    Row,
    Select,
    Text,
    event,
    select,
    text,
)
from sqlmodel import Field, SQLModel

from daemon.sources.text import keywords, words
from ledger.errors import StorageError
from ledger.types import Json, Timestamp

# A title and a summary have some thirty; with more the answer hardly changes, the cost does.
KEYWORDS_MAX = 40
# What `similar` and `related` are asked with is read no further than this, in characters.
QUERY_MAX = 4_000
# On 24 posts of a real blog, a title and a summary find half of their words in the next best post
# (median 0.47); parts of a series find 0.7 to 0.8, a post itself 0.94 or more.
RELATED_MIN = 0.5


class Article(SQLModel, table=True):
    """
    A finished article. `text` is its prose without markup; `url` is null until it has a public
    address, `published_at` while it is not out. `card` is a PNG; `search_id` its row of the index.
    """

    __tablename__ = "article"
    __table_args__ = ({"sqlite_strict": True},)

    run: str = Field(primary_key=True, sa_type=Text, foreign_key="run.id")
    title: str = Field(sa_type=Text)
    description: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    tags: Any = Field(sa_type=Json)
    url: str | None = Field(sa_type=Text)
    published_at: datetime | None = Field(sa_type=Timestamp)
    words: int = Field(sa_type=Integer)
    reading_minutes: int = Field(sa_type=Integer)
    readability: float | None = Field(sa_type=REAL)
    sources: int = Field(sa_type=Integer)
    claims: int = Field(sa_type=Integer)
    claims_verified: int = Field(sa_type=Integer)
    warnings: Any = Field(sa_type=Json)
    card: bytes | None = Field(sa_type=LargeBinary)
    search_id: int | None = Field(sa_type=Integer)


_article = SQLModel.metadata.tables["article"]

# The migration spells it out once more; a test compares what comes of both. The index keeps its
# words itself: over those of `article` it could not have another form of them, and the kind that
# keeps none takes deletions only since SQLite 3.43.
_INDEX = (
    "CREATE VIRTUAL TABLE article_index USING fts5("
    "title, description, text, tokenize = 'porter unicode61 remove_diacritics 2')"
)
# SQLAlchemy gives its DDL no types.
_ddl = DDL(_INDEX)  # type: ignore[no-untyped-call]
event.listen(_article, "after_create", _ddl.execute_if(dialect="sqlite"))


class NoFullTextSearch(StorageError):
    """The SQLite that Python uses was built without FTS5."""

    remedy = "use a Python whose SQLite has FTS5, as those of every larger distribution have"


@dataclass(frozen=True, slots=True)
class Earlier:
    """
    An article that is out, and how much of what was asked for it has.

    `score` is the share of the question's keywords that the article has somewhere, 0 to 1. It
    means the same in an archive of ten articles and of ten thousand, which BM25 does not.
    """

    run: str
    title: str
    url: str | None
    score: float


def require_search(tx: Connection) -> None:
    """
    See that this SQLite can search.

    Raises:
        NoFullTextSearch: it cannot.
    """
    found = tx.execute(text("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"))
    if found.first() is None:
        raise NoFullTextSearch("this SQLite has no FTS5, with which earlier articles are found")


def keep(
    tx: Connection,
    run: str,
    *,
    title: str,
    description: str,
    prose: str,
    tags: Sequence[str],
    words: int,
    reading_minutes: int,
    readability: float | None,
    sources: int,
    claims: int,
    claims_verified: int,
    warnings: Sequence[str] = (),
    card: bytes | None = None,
) -> None:
    """
    Store a run's article, in the place of an earlier version; whether it is out stays as it was.

    Args:
        prose: the article without markup.
        words, sources, claims, claims_verified: counts; the last at most the one before it.
        readability: as the desk measures it; None where that cannot be measured.
        warnings: what the desk remarked without refusing.
        card: a PNG.
    Raises:
        NoFullTextSearch
    """
    require_search(tx)
    values = {
        "title": title, "description": description, "text": prose, "tags": list(tags),
        "words": words, "reading_minutes": reading_minutes, "readability": readability,
        "sources": sources, "claims": claims, "claims_verified": claims_verified,
        "warnings": list(warnings), "card": card,
    }  # fmt: skip
    if article(tx, run) is None:
        tx.execute(_article.insert().values(run=run, **values))
    else:
        tx.execute(_article.update().where(_article.c.run == run).values(**values))
    kept = article(tx, run)
    assert kept is not None
    _index(tx, kept)


def went_out(tx: Connection, run: str, url: str | None, at: datetime) -> None:
    """
    Note that an article is out.

    The first time counts, and a later call may bring the public address that the first had not.
    A run whose article was never kept is left alone.
    """
    mine = _article.c.run == run
    tx.execute(
        _article.update().where(mine, _article.c.published_at.is_(None)).values(published_at=at)
    )
    if url is not None:
        tx.execute(_article.update().where(mine).values(url=url))


def withdrawn(tx: Connection, run: str) -> None:
    """Note that an article is nowhere any more: it is kept, and found no longer."""
    tx.execute(_article.update().where(_article.c.run == run).values(url=None, published_at=None))


def article(tx: Connection, run: str) -> Row[Any] | None:
    """A run's article as it was kept."""
    return tx.execute(select(_article).where(_article.c.run == run)).one_or_none()


def published(tx: Connection) -> Sequence[Row[Any]]:
    """What is out, newest first: `run`, `title`, `description`, `tags`, `url`, `published_at`."""
    c = _article.c
    out: Select[Any] = select(c.run, c.title, c.description, c.tags, c.url, c.published_at)
    newest = out.order_by(c.published_at.desc(), c.run.desc())
    return tx.execute(newest.where(c.published_at.is_not(None))).all()


def similar(
    tx: Connection, asked: str, limit: int, *, linkable: bool = False, but: str | None = None
) -> list[Earlier]:
    """
    Articles that have most of a text's words, for asking whether it was all said before.

    Args:
        asked: any words, a stranger's too; a title and a summary, say.
        linkable: only those with a public address.
        but: a run to leave out.
    Returns:
        At most `limit`, the highest score first, BM25 deciding between equals (a word in the title
        counts there four times, in the description twice).
    Raises:
        NoFullTextSearch
    """
    require_search(tx)
    terms = _terms(asked)
    if not terms or limit < 1:
        return []
    # Each word is a query of its own, so that the words an article has can be counted.
    each = " UNION ALL ".join(
        f"SELECT rowid AS id FROM article_index WHERE article_index MATCH :w{n}"  # noqa: S608
        for n in range(len(terms))
    )
    rows = tx.execute(
        text(_SEARCH.replace(":each", each)),
        {f"w{n}": term for n, term in enumerate(terms)}
        | {"any": " OR ".join(terms), "limit": limit, "linkable": int(linkable), "but": but},
    )
    return [Earlier(row.run, row.title, row.url, row.hits / len(terms)) for row in rows]


def related(tx: Connection, text: str, limit: int, *, but: str | None = None) -> list[Earlier]:
    """
    Articles worth a link from a text: with a public address and half of its keywords at least.

    Args:
        text: what the new article is about: its title and description, not all of it.
        but: a run to leave out, such as that of the new article.
    Raises:
        NoFullTextSearch
    """
    found = similar(tx, text, limit, linkable=True, but=but)
    return [earlier for earlier in found if earlier.score >= RELATED_MIN]


def comparable(text: str) -> str:
    """
    A text in which one word is always the same word, and stands between spaces.

    Accents are folded and compatibility forms (such as full width) undone. Chinese and Japanese do
    not say where words end, so each run of their characters becomes its pairs of neighbours: a
    word of two characters is one of them, a longer one is several.
    """
    letters = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return _UNSPACED.sub(_pairs, unicodedata.normalize("NFC", letters))


# Those of Latin, Greek and Cyrillic; the marks of other scripts make other letters.
_ACCENT = re.compile("[\u0300-\u036f]")
# Han, with its extensions, and the two Japanese syllabaries.
_UNSPACED = re.compile("[\u3005\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]+")


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    pairs = map("".join, pairwise(characters))
    return f" {' '.join(pairs) or characters} "


def _index(tx: Connection, kept: Row[Any]) -> None:
    if kept.search_id is not None:
        tx.execute(text("DELETE FROM article_index WHERE rowid = :id"), {"id": kept.search_id})
    made = tx.execute(
        text("INSERT INTO article_index VALUES (:title, :description, :prose)"),
        {
            "title": _searchable(kept.title), "description": _searchable(kept.description),
            "prose": _searchable(kept.text),
        },
    )  # fmt: skip
    tx.execute(_article.update().where(_article.c.run == kept.run).values(search_id=made.lastrowid))


def _searchable(text: str) -> str:
    """The words as a question has them: FTS5 by itself keeps ß and ά."""
    return " ".join(words(comparable(text)))


_SEARCH = """
SELECT article.run, article.title, article.url, hits
FROM (SELECT id, count(*) AS hits FROM (:each) GROUP BY id) AS counted
JOIN (SELECT rowid AS id, bm25(article_index, 4, 2, 1) AS rank
      FROM article_index WHERE article_index MATCH :any) AS ranked ON ranked.id = counted.id
JOIN article ON article.search_id = ranked.id
WHERE article.published_at IS NOT NULL
  AND (NOT :linkable OR article.url IS NOT NULL)
  AND (:but IS NULL OR article.run <> :but)
ORDER BY hits DESC, rank, article.run
LIMIT :limit
"""


def _terms(asked: str) -> list[str]:
    """
    The first keywords of a text, each as an FTS5 string.

    In quotation marks a word is only a word, never an operator, a column or a prefix. It has
    letters and digits and what joins them, so that there is nothing in it to escape.
    """
    unique = dict.fromkeys(word for word in words(comparable(asked[:QUERY_MAX])) if keywords(word))
    return [f'"{word}"' for word in list(unique)[:KEYWORDS_MAX]]
