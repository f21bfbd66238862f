"""`penstock drafts …`: what waits for a person."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from daemon import journal
from daemon.cli.context import Context, UsageError, table
from daemon.cli.exits import Exit
from daemon.cli.runs import details, found_run, run_document
from daemon.journal import RunOutcome, RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection


def list_drafts(args: Namespace) -> int:
    """Drafts that wait, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        rows = journal.runs(tx, since=context.since())
        found = [run_document(tx, r) for r in rows if r.state == RunState.AWAITING_APPROVAL]
    found = found[-args.limit :] if args.limit else found
    shown = [(r["started_at"], r["run"], r["title"], r["reason"]) for r in found]
    context.show(found, table(("since", "run", "title", "why"), shown, "no draft waits"))
    return Exit.DONE


def show(args: Namespace) -> int:
    """One draft whole."""
    context = Context(args)
    with context.reading() as tx:
        row = _waiting(tx, args.run)
        document = run_document(tx, row) | details(tx, row)
    article = document["article"]
    context.show(document, f"# {article['title']}\n\n{article['markdown']}")
    return Exit.DONE


def approve(args: Namespace) -> int:
    """Let it go out with the next `once`; the posts-a-day clamp still holds."""
    context = Context(args)
    now = context.clock.now()
    with context.database() as database, database.write() as tx:
        row = _waiting(tx, args.run)
        journal.change_run(tx, row.id, state=RunState.PARKED, approved_at=now, reason="approved")
        journal.decide(
            tx, run=row.id, kind="approval", sentence="a person approved it", inputs={}, at=now
        )
    context.show(
        {"run": row.id, "approved": True}, f"approved {row.id}; `penstock once` publishes it"
    )
    return Exit.DONE


def reject(args: Namespace) -> int:
    """Drop it; the money is spent, and the reason is kept."""
    context = Context(args)
    now = context.clock.now()
    with context.database() as database, database.write() as tx:
        row = _waiting(tx, args.run)
        reason = f"a person rejected it: {args.reason}"
        journal.finish_run(tx, row.id, outcome=RunOutcome.ABSTAINED, reason=reason, at=now)
        journal.decide(tx, run=row.id, kind="approval", sentence=reason, inputs={}, at=now)
    context.show({"run": row.id, "approved": False}, f"rejected {row.id}")
    return Exit.DONE


def _waiting(tx: Connection, run: str) -> Any:
    row = found_run(tx, run)
    if row.state != RunState.AWAITING_APPROVAL:
        raise UsageError(f"{run} does not wait for approval; it is {row.outcome or row.state}")
    return row
