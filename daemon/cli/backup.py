"""`penstock backup PATH`: an online copy that has been opened and checked."""

from __future__ import annotations

from argparse import Namespace

from daemon import migrations
from daemon.cli.context import Context
from daemon.cli.exits import Exit
from ledger.backup import backup


def run(args: Namespace) -> int:
    """Copy the database, beside whoever writes to it."""
    context = Context(args)
    with context.database() as database:
        made = backup(
            database, args.path, at=context.clock.now(), verify=migrations.require_current
        )
    document = {"path": str(made.path), "transfers": made.transfers, "bytes": made.bytes}
    human = f"{made.path}: {made.transfers} transfers, {made.bytes} bytes, opened and checked"
    context.show(document, human)
    return Exit.DONE
