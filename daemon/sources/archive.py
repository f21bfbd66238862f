"""
What was read: feeds, their entries and the pages behind them.

An entry is remembered from the first time it is seen and used once. A page is kept as the text
that was extracted from it; a run's own evidence is a copy in the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Index, Row, Select, Text, bindparam, exists, func, select
from sqlmodel import Field, SQLModel

from daemon.sources.parse import Item
from ledger.types import Timestamp


class Feed(SQLModel, table=True):
    """
    A feed and what to send with the next conditional request.

    `checked_at` is when it last brought something to read; `error` is not written any more.
    """

    __tablename__ = "feed"
    __table_args__ = ({"sqlite_strict": True},)

    location: str = Field(primary_key=True, sa_type=Text)
    title: str | None = Field(sa_type=Text)
    etag: str | None = Field(sa_type=Text)
    last_modified: str | None = Field(sa_type=Text)
    checked_at: datetime = Field(sa_type=Timestamp)
    error: str | None = Field(sa_type=Text)


class Entry(SQLModel, table=True):
    """One feed entry. `text` is what the feed itself carries of it, as plain text."""

    __tablename__ = "entry"
    __table_args__ = (
        Index("entry_by_use", "used_by", "seen_at"),
        Index("entry_by_url", "url", "used_by"),
        {"sqlite_strict": True},
    )

    feed: str = Field(primary_key=True, sa_type=Text, foreign_key="feed.location")
    guid: str = Field(primary_key=True, sa_type=Text)
    url: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    author: str | None = Field(sa_type=Text)
    summary: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    published_at: datetime | None = Field(sa_type=Timestamp)
    seen_at: datetime = Field(sa_type=Timestamp)
    used_by: str | None = Field(sa_type=Text)


class Page(SQLModel, table=True):
    """The latest text of a page, under the URL it was asked for."""

    __tablename__ = "page"
    __table_args__ = ({"sqlite_strict": True},)

    url: str = Field(primary_key=True, sa_type=Text)
    final_url: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    etag: str | None = Field(sa_type=Text)
    last_modified: str | None = Field(sa_type=Text)
    fetched_at: datetime = Field(sa_type=Timestamp)


# How far ahead of us a feed's clock may be.
AHEAD_MAX = timedelta(days=1)
# Values in one statement; databases take some tens of thousands at most.
IN_ONE_QUESTION = 500
# How many are looked at, more than anybody's month; a choice among the newest is a choice.
UNUSED_MAX = 2_000

_feed, _entry, _page = (SQLModel.metadata.tables[name] for name in ("feed", "entry", "page"))

_FEED = select(_feed).where(_feed.c.location == bindparam("location"))


def feed(tx: Connection, location: str) -> Row[Any] | None:
    """What is known of a feed."""
    return tx.execute(_FEED, {"location": location}).one_or_none()


def note_feed(tx: Connection, location: str, *, at: datetime, **values: Any) -> None:
    """Record what a feed brought; what is not given stays as it was."""
    values["checked_at"] = at
    if feed(tx, location) is None:
        tx.execute(_feed.insert().values(location=location, **values))
    else:
        tx.execute(_feed.update().where(_feed.c.location == location).values(**values))


def remember(tx: Connection, location: str, items: Sequence[Item], at: datetime) -> int:
    """Store entries not seen before; returns how many there were."""
    fresh = {item.guid: item for item in items}
    for guid in _known(tx, location, list(fresh)):
        del fresh[guid]
    if fresh:
        rows = [
            {
                "feed": location, "guid": item.guid, "url": item.url, "title": item.title,
                "author": item.author, "summary": item.summary, "text": item.text,
                # An entry from the future would be news for ever.
                "published_at": item.published_at if _plausible(item, at) else None,
                "seen_at": at,
            }
            for item in fresh.values()
        ]  # fmt: skip
        tx.execute(_entry.insert(), rows)
    return len(fresh)


def _known(tx: Connection, location: str, guids: Sequence[str]) -> Iterator[str]:
    """Which of these a feed had before; asked by key, so that its past costs nothing."""
    for start in range(0, len(guids), IN_ONE_QUESTION):
        some = guids[start : start + IN_ONE_QUESTION]
        yield from tx.execute(
            select(_entry.c.guid).where(_entry.c.feed == location, _entry.c.guid.in_(some))
        ).scalars()


def _plausible(item: Item, at: datetime) -> bool:
    return item.published_at is not None and item.published_at <= at + AHEAD_MAX


def unused(tx: Connection, locations: Sequence[str], *, newer_than: datetime) -> list[Row[Any]]:
    """
    Entries of these feeds that are news and that no run has used, newest first.

    An undated entry counts from when it was first seen. The same address in two feeds is one
    entry. What the feed carries of an entry (`text`) is not read: it can be most of the archive.
    """
    columns = [column for column in _entry.c if column is not _entry.c.text]
    moment = func.coalesce(_entry.c.published_at, _entry.c.seen_at)
    another = _entry.alias()
    used_elsewhere = exists().where(another.c.url == _entry.c.url, another.c.used_by.is_not(None))
    newest: Select[Any] = (
        select(*columns, _feed.c.title.label("feed_title"))
        .join(_feed, _feed.c.location == _entry.c.feed)
        .where(
            _entry.c.used_by.is_(None),
            _entry.c.feed.in_(locations),
            moment >= newer_than,
            # Nothing is dated later than a day after it was seen; this much an index can tell.
            _entry.c.seen_at >= _earlier(newer_than),
            ~used_elsewhere,
        )
        # By the key in the end, so that the same entries are chosen wherever they stand.
        .order_by(moment.desc(), _entry.c.feed, _entry.c.guid)
    )
    by_url: dict[str, Row[Any]] = {}
    for row in tx.execute(newest.limit(UNUSED_MAX)):
        by_url.setdefault(row.url, row)
    return list(by_url.values())


def _earlier(moment: datetime) -> datetime:
    """A day before; the first day there is has none."""
    try:
        return moment - AHEAD_MAX
    except OverflowError:
        return moment


def use(tx: Connection, run: str, urls: Sequence[str]) -> None:
    """Mark entries as used by a run."""
    tx.execute(
        _entry.update()
        .where(_entry.c.url.in_(urls), _entry.c.used_by.is_(None))
        .values(used_by=run)
    )


def release(tx: Connection, run: str) -> None:
    """Give a run's entries back: it failed for reasons that are not theirs."""
    tx.execute(_entry.update().where(_entry.c.used_by == run).values(used_by=None))


def used(tx: Connection, run: str) -> Sequence[Row[Any]]:
    """The entries a run uses, newest first."""
    rows = tx.execute(
        select(_entry, _feed.c.title.label("feed_title"))
        .join(_feed, _feed.c.location == _entry.c.feed)
        .where(_entry.c.used_by == run)
    ).all()
    by_url = {row.url: row for row in rows}
    return sorted(by_url.values(), key=lambda row: row.published_at or row.seen_at, reverse=True)


def page(tx: Connection, url: str) -> Row[Any] | None:
    """The latest stored text of a page."""
    return tx.execute(select(_page).where(_page.c.url == url)).one_or_none()


def keep_page(tx: Connection, url: str, **values: Any) -> None:
    """Store a page's text, replacing an earlier one."""
    if page(tx, url) is None:
        tx.execute(_page.insert().values(url=url, **values))
    else:
        tx.execute(_page.update().where(_page.c.url == url).values(**values))


def pages(tx: Connection, *, newer_than: datetime, limit: int) -> Sequence[Row[Any]]:
    """The pages read last, newest first."""
    return tx.execute(
        select(_page)
        .where(_page.c.fetched_at >= newer_than)
        .order_by(_page.c.fetched_at.desc(), _page.c.url)
        .limit(limit)
    ).all()
