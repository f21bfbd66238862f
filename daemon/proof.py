"""
What a run's text is held against: what the journal has of the run, and what went out before it.

Whoever has the books can ask again, in whatever process, and gets what the newsroom got.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from daemon import journal, packaging
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.desk import house, layout
from daemon.desk.evidence import Claim, Evidence, alike
from daemon.desk.house import Context, Finding, Manuscript
from daemon.desk.markdown import read
from daemon.sources import archive, published
from daemon.sources.published import Earlier

# Earlier articles that the writer may link to.
LINKS_MAX = 3
_ROLES = ("researcher", "writer", "editor", "publicist")


def of_run(tx: Connection, run: str, brief: Brief, secrets: Sequence[str]) -> Context:
    """All that the journal has against a finished text."""
    row = journal.run(tx, run)
    assert row is not None
    if row.kind == journal.DIGEST:
        links = [entry.url for entry in archive.used(tx, run)]
        return of_digest(tx, run, brief, secrets, links=links)
    return of_article(
        tx, run, brief, secrets,
        evidence=evidence(tx, run), claims=claims(tx, run), links=_known_links(tx, run),
    )  # fmt: skip


def of_article(
    tx: Connection,
    run: str,
    brief: Brief,
    secrets: Sequence[str],
    *,
    evidence: Mapping[str, Evidence],
    claims: Sequence[Claim],
    links: Iterable[str],
) -> Context:
    """
    What an article is held against.

    Args:
        links: addresses beside those of its sources.
    """
    return Context(
        evidence=evidence,
        claims=claims,
        links=_as_written([*(source.url for source in evidence.values()), *links]),
        earlier_titles=journal.earlier_titles(tx, run),
        prompts=_prompts(),
        secrets=secrets,
        words_min=brief.words_min,
        words_max=brief.words_max,
    )


def of_digest(
    tx: Connection, run: str, brief: Brief, secrets: Sequence[str], *, links: Sequence[str]
) -> Context:
    """What a digest of these entries is held against."""
    return Context(
        evidence={},
        claims=(),
        links=_as_written(links),
        earlier_titles=journal.earlier_titles(tx, run),
        prompts=_prompts(),
        secrets=secrets,
        cites=False,
    )


def findings(tx: Connection, run: str, manuscript: Manuscript, context: Context) -> list[Finding]:
    """What the desk finds in a manuscript, and in the text as it will go out."""
    body = packaging.body(tx, run, manuscript)
    found = house.inspect(manuscript, context)
    return list(dict.fromkeys([*found, *house.inspect_body(body, manuscript, context, run=run)]))


def evidence(tx: Connection, run: str) -> dict[str, Evidence]:
    """What a run read, S1 first."""
    return {s.id: Evidence(s.id, s.url, s.title, s.text) for s in journal.sources(tx, run)}


def claims(tx: Connection, run: str) -> list[Claim]:
    """Verified claims; of those that rest on the same words, the first."""
    by_quote: dict[tuple[str, str], Claim] = {}
    for row in journal.claims(tx, run):
        if row.verified:
            claim = Claim(row.statement, row.quote, row.source)
            by_quote.setdefault((row.source, alike(row.quote)), claim)
    return list(by_quote.values())


def earlier(tx: Connection, run: str, about: str) -> list[Earlier]:
    """Articles of ours that one about this may link to."""
    return published.related(tx, about, LINKS_MAX, but=run)


def _known_links(tx: Connection, run: str) -> list[str]:
    """Addresses of our own that the writer was given, and those that have passed the desk."""
    found: list[str] = []
    plan = journal.step(tx, run, "plan")
    if plan is not None and plan.output:
        about = f"{plan.output['working_title']} {plan.output['angle']}"
        found += [article.url for article in earlier(tx, run, about) if article.url]
    desk = journal.step(tx, run, "desk")
    if desk is not None and desk.output:
        found += read(packaging.manuscript(tx, run).markdown).links
    return found


def _as_written(links: Sequence[str]) -> frozenset[str]:
    # As they stand in the text, too: Markdown needs some characters encoded.
    return frozenset([*links, *map(layout.target, links)])


def _prompts() -> list[str]:
    return [prompt(role) for role in _ROLES]
