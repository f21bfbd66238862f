"""Years, a fifth of one for each publication in a hostile world of its own."""

from __future__ import annotations

import os

from tests.simulation.test_histories import LONG, simulate

# Five years; with PENSTOCK_LONG=1 twenty-five.
SEEDS = os.environ.get("PENSTOCK_SIMULATE", "1-25")
DAYS = "365" if LONG else "73"


def test_years_keep_every_promise() -> None:
    jobs = str(os.cpu_count() or 1)
    done = simulate("--seeds", SEEDS, "--days", DAYS, "--jobs", jobs, "--minimise", "300")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 histories failed" in done.stdout
