"""`penstock status`: where the publication stands, on one page."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from daemon import __version__, alerts, control, governor, journal, look
from daemon.alerts import Kind
from daemon.cli.context import Context, UsageError, moment
from daemon.cli.exits import Exit, of_error
from daemon.cli.page import LABEL, Line, plain, printable, sections
from daemon.clock import Clock
from daemon.inference import attempts
from daemon.inference.ladder import Tier
from daemon.inference.prices import UnknownPrice
from daemon.journal import PublicationState
from daemon.settings import Settings, SettingsError
from ledger import audit, posting, store
from ledger.money import ZERO, MicroCredits

if TYPE_CHECKING:
    from sqlalchemy import Connection

RUNS_SHOWN = 3
REDRAWN_S = 2.0


def run(args: Namespace) -> int:
    """Show it; whatever is wrong with the settings, the books are shown all the same."""
    if args.watch:
        return watch(args)
    found, zone = look_up(args)
    Context(args).show(found, human(found, zone))
    return Exit.DONE


def look_up(args: Namespace) -> tuple[dict[str, Any], tzinfo]:
    """The document as it is now, and the operator's time zone; one short transaction."""
    context = Context(args)
    settings, problem = None, ""
    try:
        context.settings()
    except SettingsError as error:
        problem = str(error)
    with suppress(SettingsError):
        settings = context.settings(for_run=False)
    with context.reading() as tx:
        found = document(tx, settings, problem, context.clock.now())
    return found, UTC if settings is None else settings.zone


def human(page: dict[str, Any], zone: tzinfo) -> str:
    """The page for a person, wrapped where it goes to a terminal."""
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    return plain(_sections(page, zone), width)


def _sections(page: dict[str, Any], zone: tzinfo) -> list[list[Line]]:
    return sections(page, zone, blocks=printable(sys.stdout.encoding))


# Watching


def watch(args: Namespace) -> int:
    """Show it anew every two seconds, until Ctrl-C."""
    if args.json:
        raise UsageError("--watch draws for a person; without it, --json is one document")
    if not sys.stdout.isatty():
        raise UsageError("--watch redraws a terminal, and stdout is none; leave it out here")
    # 53 ms that the page itself has no use for.
    from rich.console import Console
    from rich.live import Live

    context = Context(args)
    console = Console(highlight=False, markup=False, emoji=False)
    view = View(lambda: look_up(args))
    view.look(context.clock.now())
    with (
        suppress(KeyboardInterrupt),
        Live(get_renderable=view.render, console=console, screen=True, auto_refresh=False) as live,
    ):
        asyncio.run(_redraw(view, live.refresh, context.clock))
    # The other screen is gone by now, and somebody may still want to read.
    console.print(view.render())
    return Exit.DONE


async def _redraw(view: View, refresh: Callable[[], None], clock: Clock) -> None:
    while True:
        refresh()
        await clock.sleep(REDRAWN_S)
        view.try_look(clock.now())


@dataclass(slots=True)
class View:
    """
    The last page that could be had, and what is in the way of a newer one.

    Every look opens the database anew, so that one that was replaced meanwhile is seen.
    """

    ask: Callable[[], tuple[dict[str, Any], tzinfo]]
    shown: Sequence[Sequence[Line]] = ()
    at: datetime | None = None
    zone: tzinfo = UTC
    trouble: str = ""

    def look(self, at: datetime) -> None:
        """A new page, or the error that there is none."""
        page, self.zone = self.ask()
        self.shown, self.at, self.trouble = _sections(page, self.zone), at, ""

    def try_look(self, at: datetime) -> None:
        """A new page, or the last one with the trouble above it."""
        try:
            self.look(at)
        except Exception as error:
            if of_error(error) is None:
                raise
            self.trouble = " ".join(str(error).split())

    def render(self) -> Any:
        """The picture."""
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, min_width=LABEL)
        grid.add_column(overflow="fold")
        at = "" if self.at is None else f"{self.at.astimezone(self.zone):%H:%M:%S}"
        if self.trouble:
            grid.add_row(Text("trouble", "bold red"), Text(f"{self.trouble} (as of {at})", "red"))
            grid.add_row()
        for lines in self.shown:
            for line in lines:
                style = "yellow" if line.alarm else ""
                grid.add_row(Text(line.name, f"bold {style}"), Text(line.text, style))
            grid.add_row()
        grid.add_row(Text("as of", "dim"), Text(f"{at}, every 2 s; Ctrl-C ends it", "dim"))
        return grid


# The document


def document(
    tx: Connection, settings: Settings | None, problem: str, at: datetime
) -> dict[str, Any]:
    """
    The page as tests/test_contract.py holds it.

    `pace` and `next` need the settings and are null without.
    """
    balance = store.balance(tx)
    pause = control.paused(tx)
    last = [_run(tx, row) for row in journal.runs(tx, limit=RUNS_SHOWN)]
    holds = _holds(tx, settings, at)
    unconfirmed = journal.unconfirmed(tx)
    view = _view(tx, settings, at)
    standing = alerts.standing(tx, at)
    return {
        "version": __version__,
        "at": moment(at),
        "paused": pause is not None,
        "pause_reason": pause,
        "balance": {
            "posted": balance.posted,
            "held": balance.held,
            "available": balance.available,
        },
        "trend": _trend(tx, at),
        "holds": holds,
        "pace": None if view is None else _pace(view.pace),
        "spent": {
            "day": store.spent(tx, since=at - look.DAY),
            "month": store.spent(tx, since=at - look.MONTH),
        },
        "earned": _earned(tx, at),
        "next": {
            "publish": _next(settings, "publish", at),
            # What the schedule says, for whoever rings the bell: cron, or a timer of systemd.
            "collect": _next(settings, "collect", at),
            "feed": _next(settings, "feed", at),
        },
        "last_run": last[-1] if last else None,
        "last_runs": last,
        "unconfirmed": unconfirmed,
        "drafts_waiting": journal.waiting_drafts(tx),
        "waiting": [
            *_drafts(tx),
            *_given_up(tx, standing),
            *_by_hand(view, settings, paused=pause is not None, unconfirmed=unconfirmed),
        ],
        "alerts": [
            *(f"settings: {line}" for line in problem.splitlines()),
            *(f"THE BOOKS DO NOT BALANCE: {finding}" for finding in audit.glance(tx)),
            *_alerts(holds, unconfirmed),
            # Of the books, what was found just now is said above.
            *(row.message for row in standing if row.kind != Kind.BOOKS),
            *_shortfalls(settings, at),
        ],
    }


def _trend(tx: Connection, at: datetime) -> list[dict[str, Any]]:
    """The posted balance at the full hours nearest so many days ago, and now."""
    full = at.replace(minute=0, second=0, microsecond=0)
    days = range(look.MONTH.days, 0, -1)
    moments = [full - timedelta(days=day) for day in days]
    amounts = [*store.posted_at(tx, moments), store.balance(tx).posted]
    return [
        {"at": moment(when), "balance": amount}
        for when, amount in zip([*moments, at], amounts, strict=True)
    ]


def _view(tx: Connection, settings: Settings | None, at: datetime) -> look.View | None:
    if settings is None:
        return None
    try:
        return look.look(tx, settings, at)
    except UnknownPrice:
        # Said among the alerts, as what is wrong with the settings.
        return None


def _pace(pace: governor.Pace) -> dict[str, Any]:
    return {
        "tier": pace.tier,
        "reason": pace.reason,
        "runway_days": None if pace.runway_days is None else round(pace.runway_days, 1),
        "cadence": f"{pace.cadence:.3f}",
    }


# What waits for a person, each with what to type


def _waits(about: str, command: str, until: datetime | None = None) -> dict[str, Any]:
    return {"about": about, "command": command, "until": moment(until)}


def _drafts(tx: Connection) -> list[dict[str, Any]]:
    if not journal.waiting_drafts(tx):
        return []
    # It brings the desk along, which nobody else here needs.
    from daemon import drafts

    return [
        _waits(
            f"“{row.title}” waits for approval",
            f"penstock drafts show {row.id}",
            drafts.expires_at(tx, row.id),
        )
        for row in drafts.waiting(tx)
    ]


def _given_up(tx: Connection, standing: Sequence[Any]) -> list[dict[str, Any]]:
    """What a destination refused, or what lapsed, and nobody has looked at yet."""
    found = []
    for row in standing:
        if row.kind not in (Kind.REFUSED, Kind.LAPSED) or row.run is None:
            continue
        post = journal.publication(tx, row.run, row.key.rpartition(":")[2])
        if post is not None and post.state == PublicationState.FAILED and post.withdrawal is None:
            found.append(_waits(row.message, f"penstock posts retry {row.run}"))
    return found


def _by_hand(
    view: look.View | None, settings: Settings | None, *, paused: bool, unconfirmed: int
) -> list[dict[str, Any]]:
    found = []
    if unconfirmed:
        found.append(_waits(_unconfirmed(unconfirmed), "penstock reconcile"))
    if paused:
        found.append(_waits("nothing starts while it is paused", "penstock resume"))
    if view is not None and settings is not None and view.pace.tier is Tier.DORMANT:
        spendable = view.books.available - settings.policy.reserve
        cheapest = min(view.history.cost_by_tier.values(), default=ZERO)
        if settings.paid and spendable < cheapest:
            found.append(
                _waits(
                    f"a paid run takes {cheapest}, and {spendable} is left above the reserve",
                    "penstock ledger deposit AMOUNT --ref RECEIPT",
                )
            )
    return found


def _unconfirmed(count: int) -> str:
    return f"{count} publication(s) may be live without our knowing"


def _earned(tx: Connection, at: datetime) -> dict[str, MicroCredits]:
    """Notional income is not money; they are told apart."""
    by_family = {
        family: (
            store.earned(tx, since=at - look.DAY, family=family),
            store.earned(tx, since=at - look.MONTH, family=family),
        )
        for family in ("engagement", "revenue")
    }
    return {
        "day": by_family["engagement"][0] + by_family["revenue"][0],
        "month": by_family["engagement"][1] + by_family["revenue"][1],
        "notional": by_family["engagement"][1],
        "money": by_family["revenue"][1],
    }


def _next(settings: Settings | None, what: str, at: datetime) -> str | None:
    if settings is None:
        return None
    return moment(getattr(settings.schedule, what).next_slot(at))


def _run(tx: Connection, row: Any) -> dict[str, Any]:
    return {
        "run": row.id,
        "state": row.state,
        "outcome": journal.outcome(row),
        "title": row.title,
        "reason": row.reason,
        "cost": MicroCredits(attempts.spent_by_run(tx, row.id)),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
    }


def _holds(tx: Connection, settings: Settings | None, at: datetime) -> dict[str, Any]:
    """
    The open holds, and those of them whose request nobody waits for any more.

    `charged_at` is when the oldest of these is charged in full, unless more is learnt before; null
    where that is the next `reconcile`, or the next start.
    """
    unknown = {attempt.hold: attempt for attempt in attempts.unknown_open(tx)}
    open_holds = posting.open_holds(tx)
    waiting = [hold for hold in open_holds if hold.id in unknown]
    charged_at = None
    if waiting and settings is not None and settings.hold_expiry:
        due = min(hold.at for hold in waiting) + settings.hold_expiry
        charged_at = moment(due) if due > at else None
    return {
        "open": len(open_holds),
        "unknown": len(waiting),
        "unknown_held": sum((hold.amount for hold in waiting), start=ZERO),
        "charged_at": charged_at,
    }


def _shortfalls(settings: Settings | None, at: datetime) -> list[str]:
    if settings is None:
        return []
    try:
        return look.shortfalls(settings, at)
    except UnknownPrice:
        # Said already, as what is wrong with the settings.
        return []


def _alerts(holds: dict[str, Any], unconfirmed: int) -> list[str]:
    said = []
    if holds["unknown"]:
        when = "the next `penstock reconcile`, unless that learns more"
        if holds["charged_at"]:
            when = f"{holds['charged_at']}, unless `penstock reconcile` learns more before"
        said.append(
            f"{holds['unknown']} request(s) may have been billed: {holds['unknown_held']} stays"
            f" held for them and is charged in full at {when}"
        )
    if unconfirmed:
        said.append(f"{_unconfirmed(unconfirmed)}: `penstock reconcile`")
    return said
