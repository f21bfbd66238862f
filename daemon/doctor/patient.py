"""
What is looked at: the environment, and the settings as far as they can be read.

Everywhere else a broken line in the env file ends the command, since a limit may have stood in it.
Here nothing is spent, so what can be read is read, and the rest of the checks go on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from pathlib import Path

from daemon import settings as settings_module
from daemon.doctor.findings import Mask
from daemon.settings import OURS, Location, Problem, Settings, SettingsError

UNREADABLE = "the settings cannot be read as a whole (see settings)"
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|ALERT_URL")
_SECRET_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Patient:
    """
    Args:
        env: the environment, filled up from the env file.
        env_file: where that is; None where there is none.
        settings: as far as they make sense; None where they make none at all.
        location: where the state is; None where that cannot be told.
    """

    at: datetime
    env: Mapping[str, str] = field(repr=False)
    env_file: Path | None
    settings: Settings | None
    problems: tuple[Problem, ...]
    location: Location | None
    mask: Mask


def admit(
    environ: Mapping[str, str],
    named: str | None,
    at: datetime,
    become_owner: Callable[[Path], None] = lambda _: None,
) -> Patient:
    """
    Read what there is; whatever is wrong becomes a problem of the patient's.

    Args:
        become_owner: gets the state folder once the env file is read, which systemd reads as root,
            and before any file it names, which the service reads as itself.
    """
    path = Path(named) if named else settings_module.found_env_file()
    env, problems = _environment(environ, path)
    location: Location | None = None
    try:
        location = settings_module.locate(env)
        become_owner(location.state_dir)
    except SettingsError:
        pass
    settings: Settings | None = None
    for needs in ({"for_run": True, "for_platforms": True}, {"for_run": False}):
        try:
            settings = settings_module.load(env, at=at, **needs)
            break
        except SettingsError as error:
            # The first asks for everything, and so names everything.
            problems += [p for p in error.problems if p not in problems]
    return Patient(at, env, path, settings, tuple(problems), location, Mask(_secrets(env)))


def _environment(
    environ: Mapping[str, str], path: Path | None
) -> tuple[Mapping[str, str], list[Problem]]:
    if path is None:
        return dict(environ), []
    try:
        return settings_module.environment(environ, path), []
    except SettingsError as error:
        return own_values(path) | dict(environ), list(error.problems)


def own_values(path: Path) -> dict[str, str]:
    """What can be read of an env file, though it may have lines which cannot."""
    from dotenv.parser import parse_stream

    if not settings_module.is_file(path):
        # A pipe would be waited for.
        return {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {b.key: b.value for b in parse_stream(StringIO(text)) if b.key and b.value}


def secret_files(env: Mapping[str, str]) -> Iterator[Path]:
    """The files that secrets are read from, there or not."""
    for name, value in env.items():
        if name.startswith(OURS) and name.endswith("_FILE") and value:
            yield Path(value)
    folder = Path(env.get("CREDENTIALS_DIRECTORY") or os.devnull)
    try:
        if folder.is_dir():
            yield from (p for p in sorted(folder.iterdir()) if p.name.upper().startswith(OURS))
    except OSError:
        # Which the settings say of it.
        return


def has_secret(env: Mapping[str, str]) -> bool:
    """Whether a secret stands among these settings themselves."""
    return any(
        value and name.startswith(OURS) and _SECRET.search(name) and not name.endswith("_FILE")
        for name, value in env.items()
    )


def _secrets(env: Mapping[str, str]) -> Iterator[str]:
    """Every secret there may be, whether or not the settings make sense."""
    for name, value in env.items():
        if name.startswith(OURS) and _SECRET.search(name) and not name.endswith("_FILE"):
            yield value.strip()
    for path in secret_files(env):
        try:
            if path.is_file() and path.stat().st_size <= _SECRET_BYTES_MAX:
                yield path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
