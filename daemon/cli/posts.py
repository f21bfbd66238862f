"""`penstock posts list`: what went out, and where."""

from __future__ import annotations

from argparse import Namespace

from daemon import journal
from daemon.cli.context import Context, moment, table
from daemon.cli.exits import Exit
from ledger.money import ZERO


def list_posts(args: Namespace) -> int:
    """Every publication, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        found = journal.publications(tx, since=context.since(), limit=args.limit)
    document = [
        {
            "run": post.run, "platform": post.platform, "state": post.state, "url": post.url,
            "remote_id": post.remote_id, "title": post.title,
            "published_at": moment(post.published_at),
            # No destination of this version reports engagement, so there is none to show.
            "metrics": {}, "earned": ZERO,
        }
        for post in found
    ]  # fmt: skip
    rows = [(p.published_at, p.platform, p.state, p.title, p.url or p.error) for p in found]
    headers = ("published", "platform", "state", "title", "where")
    context.show(document, table(headers, rows, "nothing was published yet"))
    return Exit.DONE
