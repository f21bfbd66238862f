"""
The circuit breaker: who keeps failing is rested, a while longer each time. Pure.

What happened is read from the attempts, so a rest outlives the process. When it is over the next
request goes through as a probe: an answer ends the matter, another failure lengthens the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

FAILURES_MAX = 3
REST = timedelta(minutes=10)
REST_MAX = timedelta(hours=6)
# Older failures say nothing about today.
LOOK_BACK = REST_MAX

# The account or the address is at fault, and with it every model behind it.
_PROVIDER_STATUSES = frozenset({401, 402, 403})
_MODEL_STATUSES = frozenset({404, 429})


@dataclass(frozen=True, slots=True)
class Try:
    """One finished request: when it ended, to which model, and what came of it."""

    ended_at: datetime
    model: str
    outcome: str
    http_status: int | None

    @property
    def provider_failed(self) -> bool:
        """Whether no model of this provider would have answered."""
        return self.outcome == "unsent" or self.http_status in _PROVIDER_STATUSES

    @property
    def failed(self) -> bool:
        """Whether it counts against its model. A request we put badly (400, 422) does not."""
        return (
            self.provider_failed
            or self.outcome == "unknown"
            or (self.outcome == "refused" and self.http_status in _MODEL_STATUSES)
        )


def rests_until(tries: Sequence[Try], model: str, now: datetime) -> datetime | None:
    """
    Until when a model rests, or None.

    Args:
        tries: of its provider, oldest first.
    """
    # What a clock that was ahead dated would keep it resting until that day is there.
    tries = [one for one in tries if one.ended_at <= now]
    own = (t for t in reversed(tries) if t.model == model)
    model_rest = _rest(own, lambda t: t.failed)
    provider_rest = _rest(reversed(tries), lambda t: t.provider_failed)
    until = max(filter(None, (model_rest, provider_rest)), default=None)
    return until if until is not None and until > now else None


def _rest(newest_first: Iterable[Try], counts: Callable[[Try], bool]) -> datetime | None:
    """The end of the rest that the newest failures in a row have earned."""
    failures: list[Try] = []
    for one in newest_first:
        if one.outcome == "ok":
            break
        if counts(one):
            failures.append(one)
    if len(failures) < FAILURES_MAX:
        return None
    doublings = min(len(failures) - FAILURES_MAX, 10)
    rest: timedelta = REST * (1 << doublings)
    return failures[0].ended_at + min(rest, REST_MAX)
