"""Python, SQLite, time zones, and whether this machine knows what time it is."""

from __future__ import annotations

import platform
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

from daemon import __version__
from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, warn
from daemon.doctor.patient import Patient
from daemon.options import TZDATA_REMEDY

# STRICT tables; RETURNING is older.
SQLITE_MIN = (3, 37, 0)
CLOCK_WARN, CLOCK_FAIL = timedelta(seconds=60), timedelta(minutes=5)
_SET_THE_CLOCK = "let the machine set its clock: `timedatectl set-ntp true`"


def python(patient: Patient) -> Findings:
    """The interpreter."""
    said = f"Penstock {__version__} on Python {platform.python_version()}"
    if sys.flags.optimize:
        return [
            fail("python", f"{said} with -O", "start it without -O: its own checks are left out")
        ]
    return [ok("python", said)]


def sqlite(patient: Patient) -> Findings:
    """The library under the books."""
    version = sqlite3.sqlite_version
    remedy = "use a Python with a newer SQLite, as those of every larger distribution have"
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        return [fail("sqlite", f"SQLite {version} has no STRICT tables", remedy)]
    with closing(sqlite3.connect(":memory:")) as memory:
        try:
            memory.execute("CREATE TABLE kept (n INTEGER) STRICT")
            memory.execute("INSERT INTO kept VALUES (1) RETURNING n").fetchall()
            memory.execute("CREATE VIRTUAL TABLE found USING fts5 (words)")
        except sqlite3.Error as error:
            return [fail("sqlite", f"SQLite {version} lacks something: {error}", remedy)]
    return [ok("sqlite", f"SQLite {version} with STRICT tables, RETURNING and FTS5")]


def time_zones(patient: Patient) -> Findings:
    """The rules by which wall time becomes an instant."""
    known = len(available_timezones())
    try:
        ZoneInfo("Europe/Berlin")
    except (KeyError, OSError):
        return [fail("time_zones", "there are no time zone data", TZDATA_REMEDY)]
    zone = patient.settings.zone.key if patient.settings else "UTC"
    there = f"{patient.at.astimezone(ZoneInfo(zone)):%H:%M}"
    return [ok("time_zones", f"{known} zones; in {zone} it is {there}")]


def clock(offsets: Sequence[timedelta]) -> Findings:
    """
    This machine's clock against what answers say.

    Args:
        offsets: by how much the clocks of those who answered are ahead of ours.
    """
    if not offsets:
        return [skipped("clock", "nobody answered, so there was nothing to compare it with")]
    # A page from a cache may have an old date; two who are wrong alike are unlikely.
    off = min(offsets, key=abs)
    seconds = round(abs(off.total_seconds()))
    said = f"this clock is {seconds} s {'slow' if off > timedelta(0) else 'fast'}"
    if not seconds:
        said = "this clock is right"
    compared = f"by the answers of {len(offsets)} request{'s' if len(offsets) > 1 else ''}"
    return [_clock(abs(off), f"{said}, {compared}")]


def _clock(off: timedelta, said: str) -> Finding:
    if off > CLOCK_FAIL:
        return fail("clock", said, f"{_SET_THE_CLOCK}; slots and certificates depend on it")
    if off > CLOCK_WARN:
        return warn("clock", said, _SET_THE_CLOCK)
    return ok("clock", said)
