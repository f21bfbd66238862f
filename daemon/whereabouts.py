"""Where an article is: which destinations hold it, and the address that readers are sent to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from daemon import journal
from daemon.journal import OPEN, PublicationState
from daemon.sources import published
from publishers.port import Announcing, Publisher

OUTBOX = "outbox"


def announces(publisher: Publisher) -> bool:
    """Whether a destination says that there is an article, rather than holds it."""
    return isinstance(publisher, Announcing) and publisher.announces


def hosts(publishers: Sequence[Publisher]) -> list[str]:
    """
    Destinations that hold articles where the public can read them, the one whose address counts
    first: the platforms in the operator's order, then the outbox.
    """
    names = [p.name for p in publishers if p.public and not announces(p)]
    return sorted(names, key=lambda name: name == OUTBOX)


def address(publishers: Sequence[Publisher], rows: Sequence[Any]) -> tuple[str | None, str]:
    """
    Where readers find an article, and which destination that still waits for, "" for none.

    Args:
        rows: the article's publications.
    """
    by_name = {row.platform: row for row in rows}
    for name in hosts(publishers):
        row = by_name.get(name)
        if row is None:
            continue
        if row.state in OPEN:
            return None, name
        if row.state == PublicationState.PUBLISHED and row.url:
            return row.url, ""
    return None, ""


def note(tx: Connection, publishers: Sequence[Publisher], run: str) -> None:
    """
    Tell the archive whether a run's article is out, and where.

    Who announces an article does not have it, unless the article went nowhere else.
    """
    rows = journal.publications(tx, run=run)
    announcing = {publisher.name for publisher in publishers if announces(publisher)}
    holding = [row for row in rows if row.platform not in announcing] or rows
    out = {row.platform: row for row in holding if row.state == PublicationState.PUBLISHED}
    published.withdrawn(tx, run)
    if out:
        url = next((out[name].url for name in hosts(publishers) if name in out), None)
        published.went_out(tx, run, url, min(row.published_at for row in out.values()))
