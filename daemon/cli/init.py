"""`penstock init`: the first command on a new machine."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from daemon import options, settings
from daemon.app import opened_database
from daemon.cli.context import Context, UsageError, drop_to_owner
from daemon.cli.exits import Exit


def run(args: Namespace) -> int:
    """Write a commented `.env` unless there is one, and make the state folder and database."""
    settings.umask_private()
    # As root, become the owner of an existing state folder before anything is written.
    drop_to_owner(settings.locate(os.environ).state_dir)
    path = Path(args.env_file or ".env")
    written = _write_example(path)
    context = Context(args)
    with opened_database(context.location) as database:
        document = {"env_file": str(path), "written": written, "database": str(database.path)}
    context.show(
        document,
        f"{'wrote' if written else 'kept '}    {path}"
        f"{': every setting, with its default and meaning' if written else ' (it was there)'}\n"
        f"ready    {document['database']}: the books balance\n"
        "\nNext, in that file: PENSTOCK_FEEDS and PENSTOCK_NICHE, a provider's URL and key, and the"
        "\nthree ladders. Then `penstock ledger deposit 5 --ref first`, `penstock once --dry-run`.",
    )
    return Exit.DONE


def _write_example(path: Path) -> bool:
    """Write the commented settings; False when the file is there."""
    try:
        # Keys will stand in it, so it is its owner's alone from the first byte.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; call it in a folder that is there and"
            " yours, or name a file with --env-file"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(options.example())
    except OSError as error:
        # The next call would keep the half of it.
        path.unlink(missing_ok=True)
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; make room there, or name a file elsewhere"
            " with --env-file"
        ) from error
    return True
