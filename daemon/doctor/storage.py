"""The state folder and what is around it: whose it is, how much room there is, who is at work."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.doctor.findings import Finding, Findings, fail, ok, skipped, warn
from daemon.doctor.patient import UNREADABLE, Patient
from daemon.lock import lock_file
from ledger.database import sqlite_path

ROOM_FAIL, ROOM_WARN = 50_000_000, 500_000_000
INODES_FAIL, INODES_WARN = 100, 5_000
BACKUP_OLD = timedelta(days=8)
NOWHERE = "nobody can tell where the state is (see settings)"


def folder(patient: Patient) -> Findings:
    """The state folder: there, ours, ours alone, and writable."""
    if patient.location is None:
        return [skipped("state_folder", NOWHERE)]
    path = patient.location.state_dir
    if not path.exists():
        return [_to_be_made("state_folder", path, "`penstock init` makes it")]
    if not path.is_dir():
        return [fail("state_folder", f"{path} is no folder", "name another in PENSTOCK_STATE_DIR")]
    return list(_folder(path)) or [ok("state_folder", f"{path}, of {_name(os.geteuid())} alone")]


def _folder(path: Path) -> Iterator[Finding]:
    kept = path.stat()
    owner, we = _name(kept.st_uid), _name(os.geteuid())
    if kept.st_uid != os.geteuid():
        yield warn(
            "state_folder",
            f"{path} is {owner}'s, and this is {we}: what follows is as {we} sees it",
            f"sudo -u {owner} penstock doctor",
        )
    elif mode := stat.S_IMODE(kept.st_mode) & 0o077:
        whole = stat.S_IMODE(kept.st_mode)
        said = (
            f"{path} has drafts and sessions, and others can {'write' if mode & 0o22 else 'read'}"
        )
        yield warn("state_folder", f"{said} there (mode {whole:04o})", f"chmod 700 '{path}'")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"`chmod 700 '{path}'`; look whether its file system is mounted read-only"
        if kept.st_uid != os.geteuid():
            remedy = f"run penstock as {owner}, or give the folder to the user that runs it"
        yield fail("state_folder", f"{path} cannot be written by {we}", remedy)


def room(patient: Patient) -> Findings:
    """Bytes and names that are free, where the books are."""
    if patient.location is None:
        return [skipped("room", NOWHERE)]
    place = _there(sqlite_path(patient.location.database_url).parent)
    free = os.statvfs(place)
    names = free.f_favail if free.f_files else None
    return [enough(place, free.f_bavail * free.f_frsize, names)]


def enough(place: Path, free: int, names: int | None) -> Finding:
    """Whether that many bytes and names will do; None for a file system that does not count."""
    size = f"{free / 1e9:.1f} GB" if free >= 1e9 else f"{free / 1e6:.0f} MB"
    counted = "" if names is None else f" and {names} names"
    said = f"{size}{counted} free at {place}"
    least = INODES_WARN if names is None else names
    if free < ROOM_FAIL or least < INODES_FAIL:
        return fail("room", said, "free some space there: without it nothing can be booked")
    if free < ROOM_WARN or least < INODES_WARN:
        return warn("room", said, "free some space there before it runs out")
    return ok("room", said)


def outbox(patient: Patient) -> Findings:
    """Where articles go."""
    chosen = patient.settings
    if chosen is None:
        return [skipped("outbox", UNREADABLE)]
    if "outbox" not in chosen.publishing.publishers:
        return [skipped("outbox", "PENSTOCK_PUBLISHERS does not name it")]
    path = chosen.publishing.outbox_dir
    if not path.exists():
        return [_to_be_made("outbox", path, "the first article makes it")]
    if not path.is_dir():
        return [fail("outbox", f"{path} is no folder", "name another in PENSTOCK_OUTBOX_DIR")]
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        remedy = "make it writable for the user that runs penstock"
        return [fail("outbox", f"{path} cannot be written by {_name(os.geteuid())}", remedy)]
    return [ok("outbox", f"{path} can be written")]


def backups(patient: Patient) -> Findings:
    """When the books were last copied to where backups usually are."""
    make = "`penstock backup FOLDER`, daily, and a copy of that on another machine"
    if patient.location is None:
        return [skipped("backups", NOWHERE)]
    path = patient.location.state_dir / "backups"
    if not path.is_dir():
        return [skipped("backups", f"there is no folder {path}", make)]
    made = {p: p.stat().st_mtime for p in path.iterdir() if p.is_file() and p.suffix == ".db"}
    if not made:
        return [warn("backups", f"there is none in {path}", make)]
    newest = max(made, key=lambda p: made[p])
    age = patient.at - datetime.fromtimestamp(made[newest], UTC)
    said = f"the newest, {newest.name}, is {in_words(age)} old"
    return [warn("backups", said, make) if age > BACKUP_OLD else ok("backups", said)]


def lock(patient: Patient) -> Findings:
    """Who holds this database. It is not tried: a daemon that starts just then would be refused."""
    if patient.location is None:
        return [skipped("lock", NOWHERE)]
    path = lock_file(sqlite_path(patient.location.database_url))
    try:
        kept, locks = path.stat(), Path("/proc/locks").read_text(encoding="ascii")
    except FileNotFoundError:
        return [ok("lock", "no Penstock holds this database")]
    except OSError as error:
        return [skipped("lock", f"it cannot be looked at: {error.strerror}")]
    holder = held_by(locks, kept)
    if holder is None:
        return [ok("lock", "no Penstock holds this database just now")]
    return [ok("lock", f"process {holder} holds this database: a daemon, or a command at work")]


def held_by(locks: str, kept: os.stat_result) -> str | None:
    """The process that has a file locked as a whole, by proc(5)'s list; None for nobody."""
    for line in locks.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 708 00:13:1234 0 EOF
        words = line.split()
        exclusive = len(words) >= 8 and words[1] == "FLOCK" and words[3] == "WRITE"
        # Some file systems name another device here than stat(2) does.
        if exclusive and words[5].rpartition(":")[2] == str(kept.st_ino):
            return words[4]
    return None


def in_words(age: timedelta) -> str:
    """A duration, roughly."""
    hours = age.total_seconds() / 3600
    if hours < 1:
        return f"{max(0, round(hours * 60))} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _to_be_made(check: str, path: Path, who: str) -> Finding:
    parent = _there(path)
    if os.access(parent, os.W_OK | os.X_OK) and parent.is_dir():
        return skipped(check, f"{path} is not there yet", who)
    return fail(
        check,
        f"{path} is not there, and {_name(os.geteuid())} cannot make it in {parent}",
        f"make it: `sudo install -d -m 700 -o USER '{path}'`, for the user that runs penstock",
    )


def _there(path: Path) -> Path:
    """The nearest folder above that exists."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
