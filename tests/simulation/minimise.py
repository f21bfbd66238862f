"""A failing plan made smaller: fewer days, then fewer faults, as long as it fails in that way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from tests.simulation.history import Told, lived
from tests.simulation.plan import Plan

Fails = Callable[[Plan], bool]


def kinds(violations: Sequence[str]) -> frozenset[str]:
    """What violations are about, without the names and numbers of one history."""
    return frozenset(re.sub(r"[^a-zA-Z ]+\S*|\br1\w+", "", line)[:60] for line in violations)


def smallest(told: Told, *, seconds_max: float) -> Plan:
    """The smallest plan that was found to fail as this history did, in so much time."""
    wanted, until = kinds(told.violations), time.monotonic() + seconds_max

    def fails(plan: Plan) -> bool:
        return time.monotonic() < until and not wanted.isdisjoint(kinds(lived(plan).violations))

    return minimised(told.plan, fails)


def minimised(plan: Plan, fails: Fails, *, tries_max: int = 150) -> Plan:
    """
    The smallest plan that was found to fail still.

    Args:
        plan: fails.
        fails: lives a plan and says whether it fails as this one did.
        tries_max: histories to live at most.
    """
    search = _Search(fails, tries_max)
    plan = search.fewer_days(plan)
    return search.fewer_faults(plan)


class _Search:
    def __init__(self, fails: Fails, tries: int) -> None:
        self._fails = fails
        self._left = tries

    def _still(self, plan: Plan) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        return self._fails(plan)

    def fewer_days(self, plan: Plan) -> Plan:
        low, high = 0, plan.days
        while high - low > 1:
            middle = (low + high) // 2
            if self._still(shorter := plan.until(middle)):
                plan, high = shorter, middle
            else:
                low = middle
        return plan

    def fewer_faults(self, plan: Plan) -> Plan:
        """Leave out ever smaller pieces (delta debugging, Zeller 1999)."""
        parts = 2
        while len(plan.faults) > 1 and self._left > 0:
            ids = [fault.id for fault in plan.faults]
            size = -(-len(ids) // parts)
            pieces = [ids[first : first + size] for first in range(0, len(ids), size)]
            for piece in pieces:
                rest = plan.only([number for number in ids if number not in piece])
                if self._still(rest):
                    plan, parts = rest, max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    break
                parts = min(parts * 2, len(ids))
        if plan.faults and self._still(alone := plan.only([])):
            plan = alone
        return plan
