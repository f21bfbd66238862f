"""`penstock collect`: what readers did and what came in, now."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from daemon.cli.context import Context
from daemon.cli.exits import Exit
from daemon.cli.progress import worked
from daemon.engagement import Collected, Counted, Takings
from ledger.money import MicroCredits


def run(args: Namespace) -> int:
    """Ask every destination and source, and book what they say. A pause does not stop it."""
    context = Context(args)
    found, available = worked(context, lambda parts: parts.collector.run())
    context.show(document(found, available), human(found, available))
    return Exit.FAILED if found.failed else Exit.DONE


def document(found: Collected, available: MicroCredits) -> dict[str, Any]:
    """What was collected; what was not due is in none of the counts."""
    return {
        "earned": found.earned,
        "forfeited": found.forfeited,
        "available": available,
        "platforms": [
            {
                "platform": one.platform, "posts": one.posts, "unread": one.unread,
                "gone": one.gone, "earned": one.earned, "forfeited": one.forfeited,
                "error": one.error,
            }
            for one in found.platforms
        ],
        "sources": [
            {
                "source": one.source, "entries": one.count, "amount": one.amount,
                "refused": one.refused, "error": one.error,
            }
            for one in found.sources
        ],
    }  # fmt: skip


def human(found: Collected, available: MicroCredits) -> str:
    """What was collected, for a person."""
    lines = [f"{one.platform}: {_counted(one)}" for one in found.platforms]
    lines += [f"{one.source}: {_taken(one)}" for one in found.sources]
    if not lines:
        lines = ["nothing to ask: no destination counts readers, and there is no source of revenue"]
    return "\n".join([*lines, f"{available} available"])


def _counted(one: Counted) -> str:
    if one.error is not None:
        return f"not counted: {one.error}"
    said = [f"{one.posts} {'post' if one.posts == 1 else 'posts'} counted", f"{one.earned} earned"]
    if one.forfeited:
        said.append(f"{one.forfeited} forfeited (PENSTOCK_EARN_DAILY_CAP)")
    if one.unread:
        said.append(f"{one.unread} could not be read now")
    if one.gone:
        said.append(f"{one.gone} gone: `penstock status` says which")
    return ", ".join(said)


def _taken(one: Takings) -> str:
    if one.error is not None:
        return f"not collected: {one.error}"
    said = [f"{one.count} new {'entry' if one.count == 1 else 'entries'}, {one.amount}"]
    return "; ".join([*said, *one.refused])
