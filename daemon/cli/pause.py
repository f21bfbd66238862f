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
        control.pause(tx, reason=args.reason, at=context.clock.now())
    context.show({"paused": True, "reason": args.reason}, "paused; `penstock resume` lifts it")
    return Exit.DONE


def resume(args: Namespace) -> int:
    """Lift the pause."""
    context = Context(args)
    with context.database() as database, database.write() as tx:
        control.resume(tx)
    context.show({"paused": False}, "the pause is lifted")
    return Exit.DONE
