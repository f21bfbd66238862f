"""
What an article is sent out with besides its text: its measures, its card, its place in the archive.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

from sqlalchemy import Connection

from daemon import journal
from daemon.crew.brief import Brief
from daemon.desk import card, layout
from daemon.desk.evidence import Evidence
from daemon.desk.manuscript import Manuscript
from daemon.desk.package import package
from daemon.sources import published

# The step whose output is the posts that announce an article.
PUBLICIST = "publicist"


@lru_cache(maxsize=4)
def drawn(title: str, publication: str, run: str) -> bytes:
    """
    A run's card; takes 50 to 150 ms, once.

    Whoever has time on another thread calls this ahead, and finds it done later.
    """
    return card.draw(title, publication, run)


def keep(tx: Connection, run: str, manuscript: Manuscript, brief: Brief, picture: bytes) -> None:
    """Measure an article and put it into the archive with its card, as one not yet out."""
    claims = journal.claims(tx, run)
    made = package(
        title=manuscript.title,
        description=manuscript.description,
        markdown=manuscript.markdown,
        tags=manuscript.tags,
        language=brief.language,
        sources=len(journal.sources(tx, run)),
        claims=len(claims),
        claims_verified=sum(claim.verified for claim in claims),
    )
    published.keep(tx, run, **asdict(made), card=picture)


def evidence(tx: Connection, run: str) -> dict[str, Evidence]:
    """What a run read, S1 first."""
    return {s.id: Evidence(s.id, s.url, s.title, s.text) for s in journal.sources(tx, run)}


def manuscript(tx: Connection, run: str) -> Manuscript:
    """A run's text as the desk passed it."""
    desk = journal.step(tx, run, "desk")
    assert desk is not None
    stored = desk.output["manuscript"]
    return Manuscript(**stored | {"tags": tuple(stored["tags"])})


def announced(tx: Connection, run: str) -> tuple[str, ...]:
    """The posts that announce a run's article; none where none were made."""
    made = journal.step(tx, run, PUBLICIST)
    return tuple(made.output["posts"]) if made is not None and made.output else ()


def body(tx: Connection, run: str, manuscript: Manuscript) -> str:
    """A run's text as it goes out: with links for citations, its sources and its closing line."""
    row = journal.run(tx, run)
    assert row is not None
    if row.kind == journal.DIGEST:
        return layout.digest(manuscript.markdown, run=run)
    read_at = journal.sources(tx, run)[0].fetched_at
    return layout.article(manuscript.markdown, evidence(tx, run), run=run, read_at=read_at)


def picture(tx: Connection, run: str, manuscript: Manuscript, brief: Brief) -> bytes:
    """A run's card, as it was kept, or drawn now for what is not in the archive."""
    kept = published.article(tx, run)
    if kept is not None and kept.card is not None:
        return bytes(kept.card)
    return drawn(manuscript.title, brief.publication, run)
