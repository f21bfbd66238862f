"""What a person should know of that nobody runs into: conditions, told from the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from sqlalchemy import Connection, bindparam, select
from sqlmodel import SQLModel

from daemon import control, journal
from daemon.alerts import Kind
from daemon.inference import attempts
from daemon.inference.prices import UnknownPrice
from daemon.journal import PublicationState
from daemon.settings import Schedule, Settings
from ledger import store

KINDS = (
    Kind.BOOKS, Kind.UNCONFIRMED, Kind.FUNDS, Kind.SILENT, Kind.PRICE, Kind.DISK, Kind.SETTINGS,
)  # fmt: skip
# Late listings and the hourly look have had their time.
UNCONFIRMED_AFTER = timedelta(hours=3)
INTERVALS_MAX = 3
# A slot's own run takes its time.
RUN_TAKES = timedelta(hours=2)
DISK_BYTES_MIN = 200 * 1024 * 1024
PAYMENT_REQUIRED = 402

_publication = SQLModel.metadata.tables["publication"]
_UNCONFIRMED = select(
    _publication.c.run, _publication.c.platform, _publication.c.title, _publication.c.error
).where(
    _publication.c.state == PublicationState.UNCONFIRMED,
    _publication.c.intended_at <= bindparam("until"),
)


def conditions(
    tx: Connection,
    settings: Settings,
    at: datetime,
    *,
    since: datetime,
    disk_free: int,
    problems: Sequence[str],
    refused: str,
) -> dict[tuple[Kind, str], str]:
    """
    What is the case now, by kind and what it is about.

    Args:
        since: when the service was first started here.
        disk_free: bytes, where the database is.
        problems: of the books.
        refused: why a reload did not take up the settings as they are now; empty where it did.
    """
    found: dict[tuple[Kind, str], str] = {}
    if problems:
        found[Kind.BOOKS, ""] = f"the books do not balance: {'; '.join(problems)}"
    if disk_free < DISK_BYTES_MIN:
        found[Kind.DISK, ""] = (
            f"{disk_free // 2**20} MB are left on the disk of the database; free some space"
        )
    if refused:
        found[Kind.SETTINGS, ""] = f"a reload left the old settings in use: {refused}"
    found |= _unconfirmed(tx, at) | _out_of_funds(tx, settings, at) | _without_price(settings, at)
    return found | _silent(tx, settings, at, since)


def _unconfirmed(tx: Connection, at: datetime) -> dict[tuple[Kind, str], str]:
    return {
        (Kind.UNCONFIRMED, f"{row.run}:{row.platform}"): (
            f"“{row.title}” may be at {row.platform} without our knowing: {row.error}"
        )
        for row in tx.execute(_UNCONFIRMED, {"until": at - UNCONFIRMED_AFTER})
    }


def _out_of_funds(tx: Connection, settings: Settings, at: datetime) -> dict[tuple[Kind, str], str]:
    """
    Providers that are asked whose newest answer was that there is no money, until money comes in:
    one that stands below another on its ladder may not be asked for weeks.
    """
    asked = {rung.provider for ladder in settings.ladders.values() for rung in ladder.paid}
    found = {}
    for name in sorted(asked):
        newest = attempts.newest_answer(tx, name, at)
        if newest is None or newest[1] != PAYMENT_REQUIRED:
            continue
        if not store.deposited_since(tx, newest[0]):
            found[Kind.FUNDS, name] = (
                f"the provider {name} wants money: top up, then `ledger deposit` it"
            )
    return found


def _without_price(settings: Settings, at: datetime) -> dict[tuple[Kind, str], str]:
    """Models that had a price when the service began and have none now."""
    found = {}
    for ladder in settings.ladders.values():
        for rung in ladder.paid:
            try:
                settings.prices.price(rung, at)
            except UnknownPrice as error:
                found[Kind.PRICE, str(rung)] = str(error)
    return found


def _silent(
    tx: Connection, settings: Settings, at: datetime, since: datetime
) -> dict[tuple[Kind, str], str]:
    """Nothing came out in three intervals of the schedule, though nobody paused it."""
    per_day = _per_day(settings.schedule, at.date())
    if control.paused(tx) is not None or not per_day:
        return {}
    last = journal.last_published(tx)
    # What a clock that was ahead has dated in the future says nothing.
    begun = max((one for one in (since, last) if one is not None and one <= at), default=at)
    if at - begun < INTERVALS_MAX * timedelta(days=1) / per_day + RUN_TAKES:
        return {}
    when = "never" if last is None else f"on {last:%Y-%m-%d}"
    return {
        (Kind.SILENT, ""): (
            f"nothing was published in {INTERVALS_MAX} intervals of the schedule (last {when});"
            " `penstock runs list` and `penstock drafts list` say why"
        )
    }


@lru_cache(maxsize=4)
def _per_day(schedule: Schedule, day: date) -> float:
    """Walking a schedule takes a while, and it changes little in a day."""
    return schedule.runs_per_day(datetime.combine(day, time.min, UTC))
