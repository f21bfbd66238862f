"""`penstock status`: where the publication stands, on one page."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon import __version__, alerts, control, estimate, journal, look
from daemon.cli.context import Context, moment
from daemon.cli.exits import Exit
from daemon.inference import attempts
from daemon.inference.prices import UnknownPrice
from daemon.settings import Settings, SettingsError
from ledger import audit, store
from ledger.money import ZERO, MicroCredits

if TYPE_CHECKING:
    from sqlalchemy import Connection


def run(args: Namespace) -> int:
    """Show it; whatever is wrong with the settings, the books are shown all the same."""
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
    context.show(found, human(found))
    return Exit.DONE


def document(
    tx: Connection, settings: Settings | None, problem: str, at: datetime
) -> dict[str, Any]:
    """The page as CONTRACT.md has it; `pace` and `next` need the settings and are null without."""
    balance = store.balance(tx)
    pause = control.paused(tx)
    last = journal.runs(tx, limit=1)
    holds = _holds(tx, settings, at)
    unconfirmed = journal.unconfirmed(tx)
    return {
        "version": __version__,
        "paused": pause is not None,
        "pause_reason": pause,
        "balance": {
            "posted": balance.posted,
            "held": balance.held,
            "available": balance.available,
        },
        "holds": holds,
        "pace": None if settings is None else _pace(tx, settings, at),
        "spent": {
            "day": store.spent(tx, since=at - look.DAY),
            "month": store.spent(tx, since=at - look.MONTH),
        },
        "earned": _earned(tx, at),
        "next": {
            "publish": _next(settings, "publish", at),
            # What the schedule says, for whoever rings the bell: cron, or a timer of systemd.
            "collect": _next(settings, "collect", at),
        },
        "last_run": _run(tx, last[0]) if last else None,
        "unconfirmed": unconfirmed,
        "drafts_waiting": journal.waiting_drafts(tx),
        "alerts": [
            *(f"settings: {line}" for line in problem.splitlines()),
            *(f"THE BOOKS DO NOT BALANCE: {finding}" for finding in audit.glance(tx)),
            *_alerts(holds, unconfirmed),
            *(row.message for row in alerts.standing(tx, at)),
            *_shortfalls(settings, at),
        ],
    }


def human(page: dict[str, Any]) -> str:
    """The page for a person."""
    balance, spent, earned = page["balance"], page["spent"], page["earned"]
    rows = [
        (
            "balance",
            f"{balance['available']} available"
            f" ({balance['posted']} posted, {balance['held']} held)",
        ),
        ("spent", f"{spent['day']} in 24 h, {spent['month']} in 30 d"),
        ("earned", f"{earned['notional']} notional from readers, {earned['money']} in money"),
    ]
    if page["pace"] is not None:
        pace = page["pace"]
        runway = "no end in sight" if pace["runway_days"] is None else f"{pace['runway_days']} days"
        if pace["tier"] == "dormant":
            runway = "nothing is spent"
        rows += [
            ("pace", f"{pace['tier']}, {pace['cadence']} runs a day, runway: {runway}"),
            ("why", pace["reason"]),
            ("next", f"publish {page['next']['publish']}"),
        ]
    if page["last_run"] is not None:
        last = page["last_run"]
        rows.append(
            (
                "last run",
                f"{last['run']} {last['outcome'] or last['state']}:"
                f" {last['title'] or last['reason'] or '`penstock once` goes on with it'}",
            )
        )
    if page["paused"]:
        rows.append(("paused", page["pause_reason"]))
    if page["drafts_waiting"]:
        rows.append(("waiting", f"{page['drafts_waiting']} draft(s): `penstock drafts list`"))
    rows += [("look at", alert) for alert in page["alerts"]]
    return "\n".join(f"{name:<9} {text}" for name, text in rows)


def _pace(tx: Connection, settings: Settings, at: datetime) -> dict[str, Any] | None:
    try:
        pace = look.look(tx, settings, at).pace
    except UnknownPrice:
        # Said among the alerts, as what is wrong with the settings.
        return None
    return {
        "tier": pace.tier,
        "reason": pace.reason,
        "runway_days": None if pace.runway_days is None else round(pace.runway_days, 1),
        "cadence": f"{pace.cadence:.3f}",
    }


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
        "outcome": row.outcome,
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
    open_holds = store.open_holds(tx)
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
        return estimate.shortfalls(
            settings.ladders, settings.prices, settings.policy, at,
            announces=settings.publishing.announces,
        )  # fmt: skip
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
        said.append(
            f"{unconfirmed} publication(s) may be live without our knowing: `penstock reconcile`"
        )
    return said
