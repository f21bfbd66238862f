"""
The house rules: what an article must keep before it may appear.

Each rule is a small function from a manuscript and its context to findings that a model can act
on. What has one right fix is fixed first, by `mended`. A finding that `refuses` keeps the article
from appearing; the others are only sent back to the writer. `inspect` looks at the manuscript,
`inspect_body` at the bytes that go out, `inspect_announcement` at the posts beside them.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.desk.announcement import inspect_announcement, mended_posts
from daemon.desk.layout import disclosed
from daemon.desk.manuscript import Context, Finding, Manuscript, Rule
from daemon.desk.markdown import CITATION, parser
from daemon.desk.mending import mended, one_line
from daemon.desk.rules.form import (
    body_fits,
    headings_are_sound,
    length_is_wanted,
    long_enough,
    not_a_repeat,
    nothing_is_worn_out,
    reads_easily,
    tags_fit,
    title_fits,
)
from daemon.desk.rules.grounds import (
    addresses_in_code_are_sourced,
    block_quotes_are_quotes,
    citations_resolve,
    citations_stand_in_text,
    domains_are_sourced,
    nothing_is_copied,
    numbers_are_quoted,
    numbers_in_code_are_sourced,
    numbers_of_head_are_quoted,
    packages_are_sourced,
    quotations_are_quotes,
    something_is_cited,
)
from daemon.desk.rules.markup import (
    code_is_plain,
    head_is_plain,
    links_are_known,
    no_contacts,
    no_front_matter,
    no_html,
    no_images,
    no_liquid,
    no_mentions,
    nothing_is_hidden,
)
from daemon.desk.rules.secrecy import no_instructions, no_secret

# What no text may have, whoever put it there.
_AS_IT_IS_SHOWN: tuple[Rule, ...] = (
    code_is_plain,
    no_html,
    no_images,
    no_front_matter,
    no_liquid,
    no_mentions,
    nothing_is_hidden,
    no_secret,
    no_instructions,
)
RULES: tuple[Rule, ...] = (
    citations_resolve,
    something_is_cited,
    citations_stand_in_text,
    numbers_are_quoted,
    numbers_of_head_are_quoted,
    numbers_in_code_are_sourced,
    quotations_are_quotes,
    block_quotes_are_quotes,
    nothing_is_copied,
    not_a_repeat,
    links_are_known,
    addresses_in_code_are_sourced,
    domains_are_sourced,
    packages_are_sourced,
    head_is_plain,
    no_contacts,
    *_AS_IT_IS_SHOWN,
    title_fits,
    body_fits,
    tags_fit,
    long_enough,
    length_is_wanted,
    headings_are_sound,
    nothing_is_worn_out,
    reads_easily,
)
# What layout adds (titles of sources, links, the closing line) is held to these once more.
BODY_RULES: tuple[Rule, ...] = (
    links_are_known,
    *_AS_IT_IS_SHOWN,
    body_fits,
)


def get_ready() -> None:
    """Load what the rules need, for whoever has the time before they are asked."""
    parser()


def inspect(manuscript: Manuscript, context: Context) -> list[Finding]:
    """Every finding of every rule."""
    return [finding for rule in RULES for finding in rule(manuscript, context)]


def inspect_body(body: str, manuscript: Manuscript, context: Context, *, run: str) -> list[Finding]:
    """
    Every finding on a body as it goes out, after `layout.article` or `layout.digest`.

    Args:
        run: the id its closing line must name.
    """
    out = replace(manuscript, markdown=body)
    found = [finding for rule in BODY_RULES for finding in rule(out, context)]
    if not disclosed(body, run=run):
        found.append(
            Finding("disclosure", f"it does not end by saying that software wrote it in run {run}")
        )
    if CITATION.search(body):
        found.append(Finding("citations", "a citation was left without its link"))
    return found


# The front door's own names; all else is imported from where it stands.
__all__ = [
    "BODY_RULES", "RULES", "Context", "Finding", "Manuscript", "get_ready", "inspect",
    "inspect_announcement", "inspect_body", "mended", "mended_posts", "one_line",
]  # fmt: skip
