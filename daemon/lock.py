"""One Penstock per database: a lock the kernel drops when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LockHeld(Exception):
    """Another Penstock holds this database."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"another penstock{f' (process {holder})' if holder else ''} holds {path};"
            " wait for it, or stop it first"
        )


def lock_file(database: Path) -> Path:
    """What is locked for a database, beside the file itself, whatever links lead there."""
    file = database.resolve()
    return file.with_name(f"{file.name}.lock")


@contextmanager
def process_lock(database: Path) -> Iterator[None]:
    """
    Hold the lock beside a database file.

    Raises:
        LockHeld: somebody else has it.
    """
    path = lock_file(database)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(database, os.read(descriptor, 32).decode("ascii", "replace")) from None
        os.ftruncate(descriptor, 0)
        # For the message only; the lock is the kernel's.
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
