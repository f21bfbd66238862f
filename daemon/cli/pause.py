"""`penstock pause` and `penstock resume`."""

from __future__ import annotations

from argparse import Namespace

from daemon import control
from daemon.cli.context import Context
from daemon.cli.exits import Exit


def pause(args: Namespace) -> int:
    """Let no new model request and no new publication start, until `resume`."""
    context = Context(args)
    with context.database() as database, database.write() as tx:
        reason = control.pause(tx, reason=args.reason, at=context.clock.now())
    said = (
        "paused; `penstock resume` lifts it"
        if reason is None
        else f"paused: {reason}; `penstock resume` lifts it"
    )
    context.show({"paused": True, "reason": reason}, said)
    return Exit.DONE


def resume(args: Namespace) -> int:
    """Lift the pause."""
    context = Context(args)
    with context.database() as database, database.write() as tx:
        control.resume(tx)
    context.show({"paused": False}, "the pause is lifted")
    return Exit.DONE
