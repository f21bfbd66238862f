"""
What a run's text is held against: what the journal has of the run, and what went out before it.

Whoever has the books can ask again, in whatever process, and gets what the newsroom got.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from daemon import journal, packaging
from daemon.crew.brief import Brief
from daemon.crew.prompts import prompt
from daemon.desk import house, layout
from daemon.desk.evidence import Claim, alike
from daemon.desk.house import Context, Finding, Manuscript
from daemon.desk.markdown import read
from daemon.sources import archive, published
from daemon.sources.published import Earlier

# Earlier articles that the writer may link to.
LINKS_MAX = 3
_ROLES = ("researcher", "writer", "editor", "publicist")


def of_run(tx: Connection, run: str, brief: Brief, secrets: Sequence[str]) -> Context:
    """All that the journal has against a text as it stands."""
    row = journal.run(tx, run)
    assert row is not None
    if row.kind == journal.DIGEST:
        context = Context({}, (), _as_written([e.url for e in archive.used(tx, run)]), cites=False)
    else:
        evidence = packaging.evidence(tx, run)
        links = [*(source.url for source in evidence.values()), *_known_links(tx, run)]
        context = Context(
            evidence, claims(tx, run), _as_written(links),
            words_min=brief.words_min, words_max=brief.words_max,
        )  # fmt: skip
    return replace(
        context,
        earlier_titles=journal.earlier_titles(tx, run),
        prompts=[prompt(role) for role in _ROLES],
        secrets=secrets,
    )


def findings(tx: Connection, run: str, manuscript: Manuscript, context: Context) -> list[Finding]:
    """What the desk finds in a manuscript, and in the text as it will go out."""
    body = packaging.body(tx, run, manuscript)
    found = house.inspect(manuscript, context)
    return list(dict.fromkeys([*found, *house.inspect_body(body, manuscript, context, run=run)]))


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
