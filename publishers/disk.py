"""Files that survive a power cut, on whatever is mounted where the operator wants them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What file systems say that have no such thing: network shares, FUSE, FAT.
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def flush_folder(folder: Path) -> None:
    """Make names durable, or gone for good, as far as the file system lets us."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Say who may read a file of ours; where its mount decides that, the mount's word stands."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        # It is ours and new, so that nothing but its file system can deny it.
        if error.errno not in (*_UNKNOWN, errno.EPERM, errno.EACCES):
            raise
