"""What every command starts from: the environment, the place of the state, the time, the output."""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.cli import say, tell
from daemon.clock import SystemClock

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from daemon.settings import Location, Settings
    from ledger.database import Database

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class UsageError(Exception):
    """The words of the call are off."""


class Context:
    """One call of a command."""

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.clock = SystemClock()
        self._env: Mapping[str, str] | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """The environment, filled up from the env file."""
        from daemon import settings

        if self._env is None:
            named = Path(self.args.env_file) if self.args.env_file else None
            self._env = settings.environment(os.environ, named)
        return self._env

    @property
    def location(self) -> Location:
        """Where the state is, also where other lines of the settings file are broken."""
        from daemon import settings

        try:
            env = self.env
        except settings.BrokenLines as error:
            if error.rest is None:
                raise
            for problem in error.problems:
                say(f"penstock: {problem}")
            env = settings.filled_up(os.environ, error.rest)
        location = settings.locate(env)
        drop_to_owner(location.state_dir)
        return location

    def settings(self, *, for_run: bool = True, for_platforms: bool = False) -> Settings:
        """Every setting, or SettingsError; what else must be there is in `settings.load`."""
        from daemon import settings

        return settings.load(
            self.env, at=self.clock.now(), for_run=for_run, for_platforms=for_platforms
        )

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database beside a daemon that may be running: no process lock, never migrated."""
        from daemon import migrations
        from ledger.database import Database
        from ledger.errors import SchemaTooOld

        database = Database(self.location.database_url)
        try:
            there = database.path.is_file()
        except PermissionError as error:
            raise UsageError(
                f"{database.path}: this user may not look there; call penstock with sudo, or as"
                " the owner of the state directory"
            ) from error
        if not there:
            raise SchemaTooOld(f"there is no database at {database.path}")
        try:
            with database.read() as tx:
                migrations.require_current(tx)
            yield database
        finally:
            database.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that only reads."""
        with self.database() as database, database.read() as tx:
            yield tx

    def since(self) -> datetime | None:
        """The moment `--since` names: ISO 8601, or so long ago (`90m`, `24h`, `7d`, `2w`)."""
        text: str | None = self.args.since
        if text is None:
            return None
        try:
            if ago := _AGO.fullmatch(text):
                return self.clock.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(
                f"--since {text}: a time such as 2026-11-21T09:00Z or 24h, 7d, 2w is needed"
            ) from None

    def none(self, text: str) -> str:
        """What a list says that has nothing: in the time that was asked about, or at all."""
        return text if self.args.since is None else f"none since {self.args.since}"

    def show(self, document: Any, human: str) -> None:
        """Print a result: the document with `--json`, else the text."""
        if self.args.json:
            tell(json.dumps(document, ensure_ascii=False, indent=2, default=_plain))
        else:
            tell(human)


def drop_to_owner(folder: Path) -> None:
    """As root, become the owner of the state: no file is left that the service cannot write."""
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner = folder.stat()
    if owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> str:
    """Aligned columns; numbers to the right."""
    if not rows:
        return empty
    # The last column may be an address or a reason, which nobody can use cut short.
    cells = [[*(_cell(value) for value in row[:-1]), _cell(row[-1], 10_000)] for row in rows]
    widths = [
        max(len(headers[column]), *(len(row[column]) for row in cells))
        for column in range(len(headers))
    ]
    right = [
        all(re.fullmatch(r"-?[\d.]*|–", row[column]) for row in cells)
        for column in range(len(headers))
    ]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(headers), line(["─" * width for width in widths]), *map(line, cells)])


def moment(at: datetime | None) -> str | None:
    """A time as JSON has it."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def publication_document(row: Any) -> dict[str, Any]:
    """An article at one destination, as JSON has it."""
    return {
        "run": row.run,
        "platform": row.platform,
        "state": row.state,
        "url": row.url,
        "remote_id": row.remote_id,
        "published_at": moment(row.published_at),
        "error": row.error,
    }


def _cell(value: Any, width_max: int = 60) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    text = " ".join(str(value).split())
    return text if len(text) <= width_max else text[: width_max - 1] + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)
