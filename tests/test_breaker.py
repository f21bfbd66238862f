"""Who keeps failing is rested, and who answers is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.inference.breaker import FAILURES_MAX, REST, REST_MAX, Try, rests_until

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def tries(*outcomes: str, model: str = "good", every: timedelta = timedelta(0)) -> list[Try]:
    """One after the other up to noon: `ok`, `unknown`, `unsent`, or a refusal's status."""
    found = []
    for back, outcome in enumerate(reversed(outcomes)):
        refused = outcome.isdigit()
        found.append(
            Try(
                NOON - back * every, model, "refused" if refused else outcome,
                int(outcome) if refused else None,
            )
        )  # fmt: skip
    return found[::-1]


@pytest.mark.parametrize("outcome", ["unknown", "unsent", "429", "404", "401", "402", "403"])
def test_three_failures_in_a_row_rest_a_model_for_ten_minutes(outcome: str) -> None:
    assert rests_until(tries(*[outcome] * 2), "good", NOON) is None
    assert rests_until(tries(*[outcome] * 3), "good", NOON) == NOON + REST
    assert rests_until(tries(*[outcome] * 3), "good", NOON + REST) is None


def test_one_answer_ends_the_matter() -> None:
    assert rests_until(tries("unknown", "unknown", "ok", "unknown"), "good", NOON) is None
    assert rests_until(tries(*["unknown"] * 9, "ok"), "good", NOON) is None


@pytest.mark.parametrize("status", ["400", "422"])
def test_a_request_we_put_badly_counts_neither_way(status: str) -> None:
    assert rests_until(tries(*[status] * 9), "good", NOON) is None
    found = tries("unknown", status, "unknown", status, "unknown")
    assert rests_until(found, "good", NOON) == NOON + REST


def test_a_probe_that_fails_doubles_the_rest_up_to_six_hours() -> None:
    rests = []
    for failures in range(FAILURES_MAX, FAILURES_MAX + 9):
        until = rests_until(tries(*["unknown"] * failures), "good", NOON)
        assert until is not None
        rests.append(until - NOON)
    assert rests[:4] == [REST, 2 * REST, 4 * REST, 8 * REST]
    assert rests == sorted(rests)
    assert rests[-1] == REST_MAX


@pytest.mark.parametrize("outcome", ["unknown", "429", "404"])
def test_one_models_failures_do_not_rest_another(outcome: str) -> None:
    found = tries(*[outcome] * 5)
    assert rests_until(found, "cheap", NOON) is None


@pytest.mark.parametrize("outcome", ["unsent", "401", "402", "403"])
def test_a_provider_that_cannot_be_used_rests_with_all_its_models(outcome: str) -> None:
    found = tries(outcome, model="good") + tries(outcome, outcome, model="cheap")
    assert rests_until(found, "another", NOON) == NOON + REST


def test_what_was_dated_by_a_clock_that_was_ahead_rests_nobody() -> None:
    ahead = tries(*["unsent"] * 3)
    assert rests_until(ahead, "good", NOON - timedelta(days=365)) is None
    assert rests_until(ahead, "good", NOON) == NOON + REST


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ok", "unknown", "unsent", "429", "400", "402"]),
            st.sampled_from(["good", "cheap"]),
        ),
        max_size=30,
    )
)
def test_nobody_rests_for_ever_and_whoever_just_answered_rests_at_most_with_its_provider(
    history: list[tuple[str, str]],
) -> None:
    found = [tries(outcome, model=model)[0] for outcome, model in history]
    until = rests_until(found, "good", NOON)
    assert until is None or NOON < until <= NOON + REST_MAX
    assert rests_until(found, "good", NOON + REST_MAX) is None
    if found and found[-1].outcome == "ok" and found[-1].model == "good":
        assert until is None
