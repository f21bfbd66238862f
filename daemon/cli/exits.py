"""Exit codes, decided in one place. Their meaning is a promise to operators' scripts."""

from __future__ import annotations

from enum import IntEnum

from daemon.journal import RunOutcome


class Exit(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    SETTINGS = 2
    NOT_NOW = 3
    NOTHING_FIT = 4
    PAUSED = 5
    BOOKS_WRONG = 6
    LOCKED = 7
    UNCONFIRMED = 8


_BY_OUTCOME = {
    RunOutcome.PUBLISHED: Exit.DONE,
    RunOutcome.AWAITING_APPROVAL: Exit.DONE,
    RunOutcome.DRY_RUN: Exit.DONE,
    RunOutcome.SKIPPED: Exit.NOT_NOW,
    RunOutcome.ABSTAINED: Exit.NOTHING_FIT,
    RunOutcome.UNCONFIRMED: Exit.UNCONFIRMED,
    RunOutcome.FAILED: Exit.FAILED,
}


def of_outcome(outcome: RunOutcome, *, paused: bool = False) -> Exit:
    """The code of a run's outcome."""
    return Exit.PAUSED if paused else _BY_OUTCOME[outcome]


def of_error(error: Exception) -> Exit | None:
    """The code of an error we know, or None for one we do not."""
    from daemon.cli.context import UsageError
    from daemon.lock import LockHeld
    from daemon.plugins import PluginError
    from daemon.settings import SettingsError
    from ledger.errors import (
        BadBackup,
        BadTransfer,
        BooksWrong,
        NotAllowed,
        SchemaTooNew,
        SchemaTooOld,
        StorageCorrupt,
        StorageError,
        StorageForeign,
    )
    from ledger.money import AmountError

    families: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Exit], ...] = (
        ((SettingsError, UsageError, AmountError, BadTransfer, PluginError), Exit.SETTINGS),
        # Of the verbs an operator types, `adjust` alone can ask for more than there is.
        ((SchemaTooNew, SchemaTooOld, StorageForeign, BadBackup, NotAllowed), Exit.SETTINGS),
        ((StorageCorrupt, BooksWrong), Exit.BOOKS_WRONG),
        (LockHeld, Exit.LOCKED),
        ((StorageError, OSError), Exit.FAILED),
    )
    return next((code for family, code in families if isinstance(error, family)), None)
