"""A plan is data: the same seed is the same plan, and what fails can be made smaller."""

from __future__ import annotations

import pytest

from tests.simulation.minimise import kinds, minimised
from tests.simulation.plan import DAY_S, Plan, drawn


def test_a_seed_is_a_plan() -> None:
    assert drawn(7, 30) == drawn(7, 30)
    assert drawn(7, 30) != drawn(8, 30)


def test_more_days_change_nothing_of_the_first() -> None:
    assert drawn(7, 300).until(30) == drawn(7, 30)


def test_faults_come_at_least_once_an_hour() -> None:
    plans = [drawn(seed, 60) for seed in range(20)]
    assert sum(len(plan.faults) for plan in plans) >= 20 * 60 * 24


def test_every_kind_of_fault_is_drawn_within_a_year() -> None:
    first, second = ({fault.kind for fault in drawn(seed, 365).faults} for seed in (1, 2))
    assert first == second
    assert len(first) == 24


def test_leaving_faults_out_moves_no_other() -> None:
    plan = drawn(7, 30)
    third = plan.faults[2]
    assert plan.only([third.id]).faults == (third,)


@pytest.mark.parametrize("guilty", [{3}, {3, 40}, {1, 2, 97}, set()])
def test_the_guilty_faults_are_what_is_left(guilty: set[int]) -> None:
    plan = drawn(7, 30)

    def fails(tried: Plan) -> bool:
        return guilty <= {fault.id for fault in tried.faults}

    small = minimised(plan, fails)
    assert {fault.id for fault in small.faults} == guilty
    last_s = max((plan.faults[number - 1].at_s for number in guilty), default=0)
    assert small.days == max(1, -(-(last_s + 1) // DAY_S))


def test_one_command_replays_a_small_plan() -> None:
    plan = drawn(7, 30).until(4).only([3, 17])
    assert plan.command == "python -m tests.simulation --seed 7 --days 4 --faults 3,17"
    assert drawn(7, 4).only([3, 17]) == plan
    assert drawn(7, 30).command == "python -m tests.simulation --seed 7 --days 30"


def test_two_histories_that_fail_alike_are_told_from_others() -> None:
    held = "hold:r1ng804ga4m2.3 of 2026-11-23T09:00:02.000000Z is still held"
    other = "hold:r1nhqbc0sp1b.1 of 2027-01-02T11:00:02.000000Z is still held"
    assert kinds([held]) == kinds([other])
    assert kinds([held]) != kinds(["Dev.to has 2 articles “Of logs”"])
