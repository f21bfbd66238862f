"""`penstock init`: the first command on a new machine."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from daemon import options, settings
from daemon.app import opened_database
from daemon.cli.context import Context
from daemon.cli.exits import Exit


def run(args: Namespace) -> int:
    """Write a commented `.env` unless there is one, and make the state folder and database."""
    settings.umask_private()
    path = Path(args.env_file or ".env")
    try:
        # Keys will stand in it, so it is its owner's alone from the first byte.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"kept     {path} (it was there)")
    else:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(options.example())
        print(f"wrote    {path}: every setting, with its default and meaning")
    context = Context(args)
    with opened_database(context.location) as database:
        print(f"ready    {database.path}: the books balance")
    print(
        "\nNext, in that file: PENSTOCK_FEEDS and PENSTOCK_NICHE, a provider's URL and key, and the"
        "\nthree ladders. Then `penstock ledger deposit 5 --ref first`, `penstock once --dry-run`."
    )
    return Exit.DONE
