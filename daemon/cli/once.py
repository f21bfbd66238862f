"""`penstock once`, and `penstock runs resume`: a run in the foreground."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from daemon import journal, look, telemetry
from daemon import settings as settings_module
from daemon.app import World, opened_for_work, opened_parts
from daemon.cli import exits, failed_once, say
from daemon.cli.context import Context, publication_document
from daemon.cli.progress import watching
from daemon.cycle import Cycle, Report, reported
from daemon.inference import attempts
from daemon.journal import RunOutcome, RunState
from daemon.settings import Settings
from daemon.sources.confined import Confined
from ledger.database import Database
from ledger.errors import StorageError
from ledger.money import MicroCredits


def run(args: Namespace) -> int:
    """Go on with an interrupted run, else open one now."""
    return _foreground(
        Context(args), lambda cycle: cycle.once(topic=args.topic, dry_run=args.dry_run)
    )


def resume(args: Namespace) -> int:
    """Go on with one run; a finished one is shown."""
    return _foreground(Context(args), lambda cycle: cycle.resume(args.run))


def _foreground(context: Context, act: Callable[[Cycle], Awaitable[Report]]) -> int:
    settings_module.umask_private()
    settings = context.settings()
    for line in look.shortfalls(settings, context.clock.now()):
        say(f"penstock: {line}")
    # It drops root, so it comes before the parser, which would stay root.
    location = context.location
    # It loads its libraries while we open the books.
    world = World(parser=Confined.started())
    in_hand: str | None = None
    ended: Report | None = None

    async def main(database: Database) -> None:
        nonlocal in_hand, ended
        with watching() as progress:
            async with opened_parts(settings, database, progress, world) as parts:
                cycle = parts.cycle
                try:
                    ended = await act(cycle)
                finally:
                    in_hand = cycle.run
                    context.args.failure = partial(_interrupted, database, cycle.run)

    try:
        try:
            with opened_for_work(location) as database:
                asyncio.run(main(database))
        except KeyboardInterrupt:
            # Where it came too late to stop anything, what the run came to stands.
            ended = ended or _over(context, in_hand)
            if ended is None:
                raise
        assert ended is not None
        context.show(document(ended), human(ended))
    finally:
        # Also of a run that an error ended, and with no lock and no transaction held meanwhile.
        if in_hand is not None:
            trace(context, settings, in_hand)
    return exits.of_outcome(ended.outcome, paused=ended.paused)


def trace(context: Context, settings: Settings, run: str) -> None:
    """Send the run to the operator's collector, if there is one; nothing here can fail a run."""
    if not telemetry.is_wanted(context.env):
        return
    try:
        with context.reading() as tx:
            spans = telemetry.collect(tx, run, settings.endpoints)
        problem = telemetry.send(spans, context.env)
    except Exception as error:  # noqa: BLE001 - the run is over, and its outcome stands
        problem = f"the trace could not be made: {type(error).__name__}"
    if problem is not None:
        with suppress(OSError):
            say(f"{run} telemetry: {problem}")


def _over(context: Context, run: str | None) -> Report | None:
    """What a run came to that is over, else None."""
    if run is None:
        return None
    with context.reading() as tx:
        row = journal.run(tx, run)
        if row is None or row.state not in (RunState.FINISHED, RunState.FAILED):
            return None
        return reported(tx, run, RunOutcome(row.outcome), row.reason)


def _interrupted(database: Database, run: str | None, message: str) -> dict[str, Any]:
    """What `once` prints when an error ends it: the run is there, and so is what it cost."""
    known: dict[str, Any] = {"run": run}
    if run is not None:
        with suppress(StorageError), database.read() as tx:
            row = journal.run(tx, run)
            known["cost"] = str(MicroCredits(attempts.spent_by_run(tx, run)))
            if row is not None:
                known |= {"tier": row.tier, "title": row.title}
    return failed_once(message) | known


def document(report: Report) -> dict[str, Any]:
    """The report as tests/test_contract.py holds it; after a dry run, with what would go out."""
    shown = {} if report.manuscript is None else {"article": asdict(report.manuscript)}
    return shown | {
        "run": report.run,
        "outcome": report.outcome,
        "reason": report.reason,
        "tier": report.tier,
        "kind": report.kind,
        "title": report.title,
        "cost": report.cost,
        "publications": [publication_document(row) for row in report.publications],
    }


def human(report: Report) -> str:
    """The report for a person."""
    lines = [f"{report.outcome.replace('_', ' ')}: {report.title or report.reason}"]
    if report.title and report.outcome is not RunOutcome.PUBLISHED:
        lines.append(f"  reason  {report.reason}")
    if report.run:
        lines.append(
            f"  run     {report.run}, {report.kind}, {report.tier}, cost {report.cost} credits"
        )
    for publication in report.publications:
        where = publication.url or publication.error or ""
        lines.append(f"  {publication.platform:<7} {publication.state} {where}".rstrip())
    if report.manuscript is not None:
        shown = report.manuscript
        lines += ["", f"# {shown.title}", "", shown.markdown, "", f"tags: {', '.join(shown.tags)}"]
    return "\n".join(lines)
