"""
What the books can refuse, grouped by what the caller does next.

    LedgerError
     ├─ NotAllowed            the caller may come back with another amount, or later
     │   ├─ InsufficientFunds
     │   └─ CapReached
     ├─ BadTransfer           the request is wrong and stays wrong
     │   ├─ InvalidAmount
     │   ├─ UnknownAccount
     │   ├─ UnknownHold
     │   ├─ UnknownEntry
     │   ├─ AlreadyResolved
     │   └─ RefReused
     ├─ BooksWrong            what is booked contradicts itself: stop, a person must look
     └─ StorageError          the file under the books; `remedy` says what to do
         ├─ StorageBusy
         ├─ StorageFull
         ├─ StorageReadOnly
         ├─ StorageCorrupt
         │   └─ UnsoundBackup
         ├─ StorageForeign
         ├─ BadBackup
         ├─ SchemaTooNew
         └─ SchemaTooOld
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

from ledger.money import MicroCredits


class LedgerError(Exception):
    """Base of everything the books refuse."""


class NotAllowed(LedgerError):
    """A hold would pass a limit; nothing was booked."""

    def __init__(self, limit: str, needed: MicroCredits, available: MicroCredits) -> None:
        super().__init__(f"{limit}: {needed} needed, {available} available")
        self.limit = limit
        self.needed = needed
        self.available = available


class InsufficientFunds(NotAllowed):
    """The treasury, less what must stay in it, does not cover the hold."""


class CapReached(NotAllowed):
    """A cap on spend does not leave room for the hold."""


class BadTransfer(LedgerError):
    """The request itself is wrong; nothing was booked."""


class InvalidAmount(BadTransfer):
    """Zero, negative, or too large where a positive amount is needed."""


class UnknownAccount(BadTransfer):
    """No account of that name can exist."""


class UnknownHold(BadTransfer):
    """No hold has that id."""


class UnknownEntry(BadTransfer):
    """No posted entry has that id."""


class AlreadyResolved(BadTransfer):
    """The hold was settled or voided before, in another way."""


class RefReused(BadTransfer):
    """The id was used before for another transfer."""


class BooksWrong(LedgerError):
    """The books do not balance; `problems` says how."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the books do not balance: " + "; ".join(problems))
        self.problems = list(problems)


class StorageError(LedgerError):
    """The file under the books failed. Facts in the message, the next step in `remedy`."""

    remedy = "look at the file and the disk it is on"

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.remedy}"


class StorageBusy(StorageError):
    """Another process held the write lock for longer than we wait."""

    remedy = "try again; if it stays, look for a process that holds the database open"


class StorageFull(StorageError):
    """The disk, or the quota, has no room left."""

    remedy = "free some space and run the command again: nothing was half-booked"


class StorageReadOnly(StorageError):
    """The file or its folder cannot be written."""

    remedy = "make the state directory writable for the user that runs penstock"


class StorageCorrupt(StorageError):
    """The file is no sound SQLite database."""

    remedy = "stop, keep a copy of the file, and restore the last checked backup"


class UnsoundBackup(StorageCorrupt):
    """A copy of the database was opened, and its books are wrong; `problems` says how."""

    remedy = (
        "the copy was removed, and an earlier backup is as it was; run `penstock ledger check`, and"
        " if the books are wrong, too, stop and see docs/restore.md"
    )

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the backup does not balance: " + "; ".join(problems))
        self.problems = list(problems)


class StorageForeign(StorageError):
    """The file is another program's database."""

    remedy = "name another file in PENSTOCK_DATABASE_URL, or another PENSTOCK_STATE_DIR"


class BadBackup(StorageError):
    """What was named is no place for a backup."""

    remedy = "nothing was changed; name a new file, an earlier backup, or a folder you can write to"


class SchemaTooNew(StorageError):
    """A later version of Penstock wrote this database."""

    remedy = "install that version or a later one"


class SchemaTooOld(StorageError):
    """An earlier version of Penstock wrote this database, or none has yet."""

    remedy = "run `penstock init` (or `once`) as the owner of the state directory"


_OF_SYSTEM: Mapping[int, type[StorageError]] = {
    errno.EROFS: StorageReadOnly,
    errno.EACCES: StorageReadOnly,
    errno.EPERM: StorageReadOnly,
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
}


def storage_error(error: OSError) -> type[StorageError] | None:
    """Which of ours an error of the system's is; None where it says nothing about the storage."""
    return _OF_SYSTEM.get(error.errno or 0)
