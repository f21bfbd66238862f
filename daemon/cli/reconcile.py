"""`penstock reconcile`: find out what became of everything that is not known."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from daemon.cli.context import Context, publication_document
from daemon.cli.exits import Exit
from daemon.cli.progress import worked
from daemon.reconcile import Findings
from ledger.money import MicroCredits


def run(args: Namespace) -> int:
    """Ask whoever may know, and book what they say."""
    context = Context(args)
    found, available = worked(context, lambda parts: parts.reconciler.run())
    context.show(document(found, available), human(found, available))
    if found.unconfirmed:
        return Exit.UNCONFIRMED
    return Exit.FAILED if found.failed else Exit.DONE


def document(found: Findings, available: MicroCredits) -> dict[str, Any]:
    """What was learnt; `corrected` is positive where a bill is higher than the books were."""
    return {
        "unconfirmed": found.unconfirmed,
        "available": available,
        "holds": [
            {
                "id": hold.id, "attempt": hold.attempt, "held": hold.held, "state": hold.state,
                "cost": hold.cost, "why": hold.why,
            }
            for hold in found.holds
        ],
        "providers": [
            {
                "name": provider.name, "api": provider.api, "used": provider.used,
                "corrected": provider.corrected, "note": provider.note or None,
                "error": provider.error or None,
            }
            for provider in found.providers
        ],
        "publications": [publication_document(row) for row in found.publications],
    }  # fmt: skip


def human(found: Findings, available: MicroCredits) -> str:
    """What was learnt, for a person."""
    lines = []
    for hold in found.holds:
        cost = "" if hold.cost is None else f" at {hold.cost}"
        lines.append(f"{hold.id}: {hold.state}{cost}, {hold.held} was held ({hold.why})")
    for provider in found.providers:
        said = provider.error or provider.note
        if not said and provider.corrected:
            said = f"its bill differed by {provider.corrected}; booked as a correction"
        lines.append(f"{provider.name}: {said or 'its counter and the books agree'}")
    for row in found.publications:
        where = row.url or row.error or ""
        lines.append(f"{row.run} at {row.platform}: {row.state} {where}".rstrip())
    if not found.holds and not found.publications:
        lines.insert(0, "nothing was unconfirmed")
    return "\n".join([*lines, f"{available} available"])
