"""`penstock`, and `python -m daemon`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command and exit with its code."""
    from daemon import cli

    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
