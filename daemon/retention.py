"""
What is kept for a while only, so that the database does not grow by everything that was ever read.

After some days go: pages in the archive, the texts of a finished run's evidence, what feeds said
of entries that are no news any more, the models' answers, the bytes of what is out, all but one
snapshot a day, and what was decided without a run, such as to skip a slot. Nothing that was booked,
claimed or published is touched, nor what was decided in a run, and no row goes by which something
would be taken for new.

It walks by keys, a few at a time, each handful in a transaction of its own: nobody waits for it,
and a kill loses nothing, since what is thinned already is passed over.

The room is not given back to the disk. SQLite writes what comes next into the pages that became
free, so the file stops growing. To shrink it takes a VACUUM, which needs twice the disk and keeps
every writer out while it lasts, and an incremental one is for files that were made for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause, bindparam, text

from daemon import journal
from daemon.books import Books
from daemon.clock import Clock
from ledger.types import to_text


@dataclass(frozen=True, slots=True)
class Thinned:
    """
    What went.

    Args:
        pages: rows of the archive.
        sources, answers, payloads: texts of evidence, of models, and as they were sent.
        entries: what feeds said of them.
        snapshots: rows.
        decisions: rows, of no run.
    """

    pages: int = 0
    sources: int = 0
    answers: int = 0
    payloads: int = 0
    entries: int = 0
    snapshots: int = 0
    decisions: int = 0

    def __add__(self, other: Thinned) -> Thinned:
        names = (field.name for field in fields(self))
        return Thinned(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class Cut:
    """
    What is old, as the database writes times.

    Args:
        at: now.
        before: older than this is thinned.
        stale: older than this an entry is, besides, no news under any reading of it.
    """

    at: datetime
    days: int
    before: str
    stale: str

    @classmethod
    def of(cls, at: datetime, *, days: int, fresh_days: int) -> Cut:
        """The cut at a moment."""
        before = at - timedelta(days=days)
        stale = at - timedelta(days=max(days, fresh_days))
        return cls(at, days, to_text(before), to_text(stale))


async def run(books: Books, clock: Clock, days: int, *, fresh_days: int) -> Thinned:
    """
    Thin everything that is older than `days`.

    Args:
        fresh_days: for how long an entry is news; what is keeps its words.
    Raises:
        StorageError: what went until then is gone; the next call goes on.
    """
    cut, total = Cut.of(clock.now(), days=days, fresh_days=fresh_days), Thinned()
    for walk in WALKS:
        after: str | None = ""
        while after is not None:
            async with books.write() as tx:
                thinned, after = thin(tx, walk, cut, after)
            total += thinned
            await clock.sleep(0)
    return total


@dataclass(frozen=True, slots=True)
class Walk:
    """Rows in the order of a key, so many keys at a time."""

    keys: TextClause
    act: Callable[[Connection, Sequence[str], Cut], Thinned]
    batch: int


def thin(
    tx: Connection, walk: Walk, cut: Cut, after: str, batch: int | None = None
) -> tuple[Thinned, str | None]:
    """One step of a walk, from behind a key; and the key behind which to go on, None at the end."""
    batch = walk.batch if batch is None else batch
    bound = {"after": after, "before": cut.before, "batch": batch}
    keys = tx.execute(walk.keys, bound).scalars().all()
    if not keys:
        return Thinned(), None
    return walk.act(tx, keys, cut), keys[-1] if len(keys) == batch else None


def _chosen(sql: str) -> TextClause:
    return text(sql).bindparams(bindparam("chosen", expanding=True))


# Runs: their evidence, their models' answers, their publications and what readers did with these.

_ENDED = _chosen(
    """
SELECT id FROM run
WHERE id IN :chosen AND state IN ('finished', 'failed') AND finished_at < :before
"""
)
_WITH_TEXTS = _chosen(
    "SELECT run, COUNT(*) FROM source WHERE run IN :chosen AND text <> '' GROUP BY run ORDER BY run"
)
# Quotes were checked against it while the run lasted, and nobody can edit what has ended. What may
# still be sent of it needs the address, the title and the time: all that `packaging.body` reads.
_EMPTY_SOURCES = _chosen("UPDATE source SET text = '' WHERE run IN :chosen AND text <> ''")
# Read only by a step that was interrupted before it had stored what came of the answer.
_FORGET_ANSWERS = _chosen(
    "UPDATE attempt SET answer = NULL WHERE run IN :chosen AND answer IS NOT NULL"
)
# What is out is looked up and taken back by its receipt. What failed may be retried, and what is
# unconfirmed must be found: these keep their bytes, as does what is on its way out or back.
_EMPTY_PAYLOADS = _chosen(
    """
UPDATE publication SET payload = :mark
WHERE run IN :chosen AND COALESCE(published_at, intended_at) < :before
AND (state = 'withdrawn' OR (state = 'published' AND withdrawal IS NULL))
AND payload <> '' AND SUBSTR(payload, 1, 11) <> '{"thinned":'
"""
)
# Of whole days in UTC the last row is kept: at midnight a series says what it always said. The
# first row and the first of the highest stay, too. Every time of a day sorts below its "T24".
_THIN_SNAPSHOTS = _chosen(
    """
DELETE FROM snapshot
WHERE run IN :chosen AND at < :day
AND EXISTS (SELECT 1 FROM snapshot AS later
    WHERE later.run = snapshot.run AND later.platform = snapshot.platform
    AND later.metric = snapshot.metric
    AND later.at > snapshot.at AND later.at < SUBSTR(snapshot.at, 1, 10) || 'T24')
AND EXISTS (SELECT 1 FROM snapshot AS earlier
    WHERE earlier.run = snapshot.run AND earlier.platform = snapshot.platform
    AND earlier.metric = snapshot.metric AND earlier.at < snapshot.at)
AND EXISTS (SELECT 1 FROM snapshot AS higher
    WHERE higher.run = snapshot.run AND higher.platform = snapshot.platform
    AND higher.metric = snapshot.metric
    AND (higher.count > snapshot.count
         OR (higher.count = snapshot.count AND higher.at < snapshot.at)))
"""
)


def _thin_runs(tx: Connection, runs: Sequence[str], cut: Cut) -> Thinned:
    day = cut.before[:10]
    snapshots = tx.execute(_THIN_SNAPSHOTS, {"chosen": runs, "day": day}).rowcount
    ended = tx.execute(_ENDED, {"chosen": runs, "before": cut.before}).scalars().all()
    with_texts = tx.execute(_WITH_TEXTS, {"chosen": ended}).all()
    mark = json.dumps({"thinned": to_text(cut.at)})
    thinned = Thinned(
        sources=tx.execute(_EMPTY_SOURCES, {"chosen": ended}).rowcount,
        answers=tx.execute(_FORGET_ANSWERS, {"chosen": ended}).rowcount,
        payloads=tx.execute(
            _EMPTY_PAYLOADS, {"chosen": ended, "before": cut.before, "mark": mark}
        ).rowcount,
        snapshots=snapshots,
    )
    for run, count in with_texts:
        journal.decide(
            tx, run=run, kind="thinned", at=cut.at, inputs={"days": cut.days, "sources": count},
            sentence=f"after {cut.days} days the texts of the {count} page(s) it had read were"
            " thinned out; their addresses and the claims with their quotes are kept",
        )  # fmt: skip
    return thinned


# Entries: a row says that an entry was seen, and used, and so it is never new again. Were the row
# gone, a feed that carries it still would bring it back, undated or under a later date.

_STRIP_ENTRIES = _chosen(
    """
UPDATE entry SET summary = '', text = ''
WHERE url IN :chosen AND (summary <> '' OR text <> '')
AND seen_at < :stale AND (published_at IS NULL OR published_at < :stale)
AND NOT EXISTS (SELECT 1 FROM run WHERE run.id = entry.used_by
                AND run.state NOT IN ('finished', 'failed'))
"""
)


def _strip_entries(tx: Connection, urls: Sequence[str], cut: Cut) -> Thinned:
    bound = {"chosen": urls, "stale": cut.stale}
    return Thinned(entries=tx.execute(_STRIP_ENTRIES, bound).rowcount)


# Pages: whole rows, since an entity tag without its text would have "not modified" mean nothing.

_FORGET_PAGES = _chosen("DELETE FROM page WHERE url IN :chosen AND fetched_at < :before")


def _forget_pages(tx: Connection, urls: Sequence[str], cut: Cut) -> Thinned:
    bound = {"chosen": urls, "before": cut.before}
    return Thinned(pages=tx.execute(_FORGET_PAGES, bound).rowcount)


# Decisions of no run: to skip a slot, that the clock went back. They are known by their times.

_FORGET_DECISIONS = _chosen("DELETE FROM decision WHERE run IS NULL AND at IN :chosen")


def _forget_decisions(tx: Connection, times: Sequence[str], cut: Cut) -> Thinned:
    return Thinned(decisions=tx.execute(_FORGET_DECISIONS, {"chosen": times}).rowcount)


# Measured on three years never thinned before: a tenth of a second a step at most, 8 ms where
# nothing is left to do. A run has some ten pages of evidence and a hundred kilobytes of payload.
WALKS = (
    Walk(
        text(
            "SELECT id FROM run WHERE id > :after AND started_at < :before ORDER BY id LIMIT :batch"
        ),
        _thin_runs,
        batch=5,
    ),
    Walk(
        text("SELECT DISTINCT url FROM entry WHERE url > :after ORDER BY url LIMIT :batch"),
        _strip_entries,
        batch=200,
    ),
    Walk(
        text("SELECT url FROM page WHERE url > :after ORDER BY url LIMIT :batch"),
        _forget_pages,
        batch=200,
    ),
    Walk(
        text(
            "SELECT at FROM decision WHERE run IS NULL AND at > :after AND at < :before"
            " ORDER BY at LIMIT :batch"
        ),
        _forget_decisions,
        batch=200,
    ),
)
