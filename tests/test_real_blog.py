"""A run over a blog that nobody here wrote."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from daemon import journal
from daemon.journal import RunOutcome
from tests.corpora import REAL_BLOG
from tests.doubles.web import SiteDouble
from tests.stage import Stage


@pytest.mark.skipif(not REAL_BLOG.is_dir(), reason=f"NOT RUN: there is no real blog at {REAL_BLOG}")
def test_a_real_blog_becomes_an_article_whose_claims_all_stand_in_its_pages(tmp_path: Path) -> None:
    blog = SiteDouble(root=REAL_BLOG, rewrite=("https://sajaldebnath.com", "{self}"))
    stage = Stage(
        tmp_path,
        blog,
        PENSTOCK_FEEDS="http://blog.test/atom.xml",
        PENSTOCK_NICHE="cloud automation, vRealize, auto-scaling",
        PENSTOCK_FRESH_DAYS="36500",
    )
    stage.deposit("5")
    report = stage.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert report.cost.micro == stage.model.billed_micro > 0
    with stage.reading() as tx:
        sources = {source.id: source for source in journal.sources(tx, str(report.run))}
        claims = [c for c in journal.claims(tx, str(report.run)) if c.verified]
    assert len(sources) >= 4
    assert len(claims) >= 3
    # Not by the code under test: every word of the quote, in order, in the page's own markup.
    for claim in claims:
        page = REAL_BLOG / unquote(sources[claim.source].url.rpartition("/")[2])
        shown = re.sub(r"<[^>]*>|\s+", " ", html.unescape(page.read_text(encoding="utf-8")))
        wanted = r"\W+".join(map(re.escape, re.findall(r"\w+", claim.quote)))
        assert re.search(wanted, shown), claim.quote
    article = stage.articles()[0].read_text(encoding="utf-8")
    linked = [source for source in sources.values() if source.url in article]
    assert linked
    assert all(blog.hits[source.url.removeprefix("http://blog.test")] for source in linked)
    stage.judge()
