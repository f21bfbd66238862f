"""
Histories from the command line.

    python -m tests.simulation --seed 7 --days 365            one, which a failure names
    python -m tests.simulation --seeds 1-40 --days 365 --jobs 2   many, and what they add up to
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.history import Tally, Told, lived, lived_by
from tests.simulation.minimise import smallest
from tests.simulation.plan import drawn

DAYS_OF_YEAR = 365
# By the daemon, which would take each history a second and a half.
IMPORTED_WHEN_NEEDED = (
    "PIL.ImageFont", "alembic.command", "atproto_client.client.async_raw", "atproto_core.did_doc",
    "feedparser", "markdown_it", "trafilatura",
)  # fmt: skip


def main() -> int:
    """0 where all promises were kept, else 1."""
    args = _asked()
    began = time.monotonic()
    if args.seed is not None:
        plan = drawn(args.seed, args.days)
        if args.faults is not None:
            plan = plan.only([int(n) for n in args.faults.split(",") if n != "none"])
        tolds = iter([lived(plan, keep_log=args.log is not None)])
    else:
        first, _, last = args.seeds.partition("-")
        tolds = _side_by_side(range(int(first), int(last or first) + 1), args.days, args.jobs)
    whole, failed = Tally(), 0
    for told in tolds:
        whole = _sum(whole, told.tally)
        if args.log is not None:
            args.log.write_text("".join(f"{line}\n" for line in told.log))
        print(f"{told.plan.command}: {told.tally}, log {told.checksum:08x}", flush=True)
        failed += bool(told.violations)
        for violation in told.violations:
            print(f"VIOLATION {violation}", flush=True)
        if told.violations and args.faults is None and args.minimise:
            small = smallest(told, seconds_max=args.minimise)
            print(f"REPLAY {small.command}", flush=True)
    took_s = time.monotonic() - began
    years = whole.days / DAYS_OF_YEAR
    rates = f"{years / took_s:.4f} years, {whole.faults / took_s:.1f} faults a second"
    print(f"{years:.1f} years in {took_s:.0f} s ({rates}): {whole}; {failed} histories failed")
    return 1 if failed else 0


def _asked() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m tests.simulation")
    which = asked.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int)
    which.add_argument("--seeds", help="from-to")
    asked.add_argument("--days", type=int, default=DAYS_OF_YEAR)
    asked.add_argument("--jobs", type=int, default=1, help="histories side by side")
    asked.add_argument("--faults", help="only these, by number; `none` for none")
    asked.add_argument(
        "--minimise", type=float, default=600, metavar="SECONDS",
        help="how long a failing plan is made smaller; 0 for not at all",
    )  # fmt: skip
    asked.add_argument("--log", type=Path, help="where what happened is written")
    return asked.parse_args()


def _side_by_side(seeds: Iterable[int], days: int, jobs: int) -> Iterator[Told]:
    # A history limits the size of files for its whole process, so each has one of its own.
    processes = get_context("forkserver")
    processes.set_forkserver_preload([lived.__module__, *IMPORTED_WHEN_NEEDED])
    with ProcessPoolExecutor(jobs, processes, max_tasks_per_child=1) as pool:
        yield from pool.map(lived_by, seeds, repeat(days))


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(
        **{each.name: getattr(one, each.name) + getattr(other, each.name) for each in fields(Tally)}
    )


if __name__ == "__main__":
    sys.exit(main())
