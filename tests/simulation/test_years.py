"""Whole years, each of another publication in another hostile world."""

from __future__ import annotations

import os

from tests.simulation.test_histories import simulate

# Others by the environment: what is lived once is not lived better a second time.
SEEDS = os.environ.get("PENSTOCK_SIMULATE", "1-5")


def test_years_keep_every_promise() -> None:
    jobs = str(os.cpu_count() or 1)
    done = simulate("--seeds", SEEDS, "--days", "365", "--jobs", jobs, "--minimise", "300")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 histories failed" in done.stdout
