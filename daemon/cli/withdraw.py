"""`penstock posts withdraw`: take an article back from wherever it went."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from daemon import journal
from daemon import settings as settings_module
from daemon.app import World, loop_database, opened_parts
from daemon.cli.context import Context, UsageError, publication_document
from daemon.cli.exits import Exit
from daemon.cli.progress import watching
from daemon.cli.runs import found_run
from daemon.journal import PublicationState
from ledger.database import Database

# Out, or perhaps out, or on its way.
STANDING = (PublicationState.PUBLISHED, PublicationState.UNCONFIRMED, PublicationState.INTENDED)


def run(args: Namespace) -> int:
    """Store the wish, then carry it out; what a destination puts off is tried again later."""
    context = Context(args)
    settings_module.umask_private()
    settings = context.settings(for_run=False, for_platforms=True)
    with context.database() as database, database.read() as tx:
        found_run(tx, args.run)
        rows = journal.publications(tx, run=args.run)
    withdrawn = any(row.state == PublicationState.WITHDRAWN for row in rows)
    if not withdrawn and not any(row.state in STANDING for row in rows):
        raise UsageError(
            f"nothing of {args.run} is out: "
            + (", ".join(f"{row.platform} {row.state}" for row in rows) or "it was not published")
        )
    elsewhere = {row.platform for row in rows if row.state in STANDING}
    if lacking := sorted(elsewhere.difference(settings.publishing.publishers)):
        raise UsageError(
            f"{args.run} is at {', '.join(lacking)}, which PENSTOCK_PUBLISHERS does not name; add"
            " it, with its keys"
        )

    async def main(database: Database) -> Sequence[Any]:
        with watching() as progress:
            async with opened_parts(settings, database, progress, World()) as parts:
                return await parts.press.withdraw(args.run, args.reason)

    # Beside a daemon that may be running: no process lock.
    with loop_database(context.location) as database:
        rows = asyncio.run(main(database))
    lines = [f"{row.platform:<8} {row.state} {row.error or ''}".rstrip() for row in rows]
    context.show([publication_document(row) for row in rows], "\n".join(lines))
    if any(row.state == PublicationState.UNCONFIRMED for row in rows):
        return Exit.UNCONFIRMED
    return Exit.FAILED if any(row.state in STANDING for row in rows) else Exit.DONE
