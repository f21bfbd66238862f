"""
Starts that failed: since when, and whether a person was told, for the next start to know.

The disk may be what failed, so this is kept in the memory that systemd has for a unit from one
restart to the next (RuntimeDirectory=). Elsewhere nothing is kept: who starts it by hand reads why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ledger.types import from_text, to_text

# A database that cannot be used for so long is told to whoever is not beside the machine.
UNUSABLE_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Since when the database cannot be used, how, what it last said, and whether it was told."""

    since: datetime
    kind: str = ""
    said: str = ""
    told: bool = False

    def is_to_be_told(self, now: datetime) -> bool:
        """Whether it has lasted for long, and nobody knows."""
        # A clock that was set back must not make a secret of it.
        return not self.told and not timedelta(0) <= now - self.since < UNUSABLE_AFTER


class Starts:
    """
    What is kept from one start to the next.

    Args:
        folder: where; None for nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = None if folder is None else folder / "failed-start.json"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Starts:
        """As `$RUNTIME_DIRECTORY` says, which has colons between several."""
        folder = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return cls(Path(folder) if folder else None)

    @property
    def kept(self) -> bool:
        """Whether the next start will know."""
        return self._file is not None

    def failed(self) -> Unusable | None:
        """What the start before has kept, if it failed."""
        if self._file is None:
            return None
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            since, told = from_text(found["since"]), found["told"] is True
            return Unusable(since, str(found["kind"]), str(found["said"]), told)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, trouble: Unusable) -> None:
        """For the next start; where it cannot be kept, that one counts from itself."""
        document = asdict(trouble) | {"since": to_text(trouble.since)}
        if self._file is not None:
            with suppress(OSError):
                self._file.write_text(json.dumps(document), encoding="utf-8")

    def over(self) -> None:
        """A start went well."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
