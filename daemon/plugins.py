"""
Destinations that others wrote, found among what is installed.

A distribution names a callable under the entry points `penstock.publishers`; it is imported only
when the operator lists its name. What is said of a plug-in never shows its settings, since nobody
knows which of them are secret.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, cast

from publishers.plugin import Surroundings
from publishers.port import Publisher

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Factory: TypeAlias = Callable[[Surroundings], Publisher]

GROUP = "penstock.publishers"
# No distribution can take the place of these.
BUILT_IN = ("outbox", "devto", "bluesky")
METHODS = ("intend", "publish", "find")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class PluginError(Exception):
    """A plug-in cannot be used; the message says why and, where we know it, what helps."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"the publisher {name} {message}")
        self.name = name


class SettingsRefused(PluginError):
    """A plug-in does not like its settings; the message names them."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, f"cannot be set up: {message}")


def names() -> tuple[str, ...]:
    """The destinations that other distributions offer; reads what is installed, imports nothing."""
    found = {entry.name for entry in _entries() if _NAME.fullmatch(entry.name)}
    return tuple(sorted(found.difference(BUILT_IN)))


def prefix(name: str) -> str:
    """What the names of a plug-in's settings begin with."""
    return f"PENSTOCK_PUBLISHER_{name.upper()}_"


def load(name: str) -> Factory:
    """
    Import what makes a destination.

    Raises:
        PluginError: it is not installed, two distributions offer it, or it cannot be imported.
    """
    entry = _entry(name)
    try:
        factory = entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            name, f"cannot be imported from {_whence(entry)}: {_named(error)}"
        ) from error
    if not callable(factory):
        raise PluginError(name, f"is no callable in {_whence(entry)}: {type(factory).__name__}")
    return cast("Factory", factory)


def made(name: str, surroundings: Surroundings) -> Publisher:
    """
    Make a destination, and look whether it is one.

    Raises:
        SettingsRefused: the plug-in raised ValueError.
        PluginError: as `load`, or it failed otherwise, or what it made is no publisher.
    """
    factory = load(name)
    try:
        publisher = factory(surroundings)
        problems = _problems(name, publisher)
    except ValueError as error:
        told = _masked(str(error), surroundings) or "it does not say why"
        where = prefix(name)
        raise SettingsRefused(name, told if where in told else f"{where}*: {told}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code raises anything
        # Without its cause, which a traceback would show with the settings in it.
        raise PluginError(
            name, f"could not be made: {_masked(_named(error), surroundings)}"
        ) from None
    if problems:
        raise PluginError(name, f"is none: {'; '.join(problems)}")
    return publisher


def _entries() -> list[EntryPoint]:
    # Some 20 ms, which an operator without plug-ins need not pay.
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _entry(name: str) -> EntryPoint:
    if name in BUILT_IN:
        raise PluginError(name, "is built in, and no plug-in takes its place")
    if not _NAME.fullmatch(name):
        raise PluginError(name, "has no name for a publisher: a-z, then a-z, 0-9 and _")
    offered = [entry for entry in _entries() if entry.name == name]
    if not offered:
        known = ", ".join((*BUILT_IN, *names()))
        raise PluginError(
            name, f"is not installed in {sys.prefix}, where there are {known}: install it there"
        )
    if len({entry.value for entry in offered}) > 1:
        whence = " and ".join(sorted(_whence(entry) for entry in offered))
        raise PluginError(name, f"is offered by {whence}: uninstall all but one")
    return offered[0]


def _whence(entry: EntryPoint) -> str:
    where = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
    return f"{entry.value} ({where})"


def _problems(name: str, publisher: object) -> list[str]:
    """What keeps an object from being the publisher of this name."""
    missing = [m for m in METHODS if not callable(getattr(publisher, m, None))]
    problems = [f"it has no method {method}" for method in missing]
    own = getattr(publisher, "name", None)
    if own != name:
        problems.append(f"it calls itself {own!r}" if isinstance(own, str) else "it has no name")
    if not isinstance(getattr(publisher, "public", None), bool):
        problems.append("its `public` is no bool")
    if not callable(getattr(publisher, "close", lambda: None)):
        problems.append("its `close` cannot be called")
    return problems


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _masked(text: str, surroundings: Surroundings) -> str:
    """A message on one line, without the values of any setting."""
    # Here, since nothing else in this module needs what it brings along.
    from daemon.logs import Redactor

    return " ".join(Redactor(surroundings.settings.values())(text).split())
