"""
Settings that cannot work, or that would quietly make a publication sleep: said at the start.

What is wrong is an error with exit code 2, and nothing is touched. What is legal and means that
nothing will ever be paid for is a line on stderr and an alert. Each names the setting and what
would be right.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli_helpers import (
    EXAMPLE_FEEDS,
    KEY,
    PENSTOCK,
    PRICE_LINE,
    Desk,
    Result,
    World,
    ladder,
    micro,
    small_world,
)
from tests.doubles.model import ModelDouble
from tests.doubles.wire import serve

DONE, SETTINGS = 0, 2
AMOUNT = re.compile(r"\d+\.\d{6}")
BUDGET, DAILY, MONTHLY = "PENSTOCK_RUN_BUDGET", "PENSTOCK_DAILY_CAP", "PENSTOCK_MONTHLY_CAP"
LIMITS = (BUDGET, DAILY, MONTHLY)
PAID = {
    "PENSTOCK_NICHE": "SQLite",
    "PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / "millrace.xml"),
    "PENSTOCK_FRESH_DAYS": "36500",
    "PENSTOCK_PROVIDER_LLM_KEY": KEY,
    "PENSTOCK_PRICES": PRICE_LINE,
    **ladder("llm/alpha > llm/beta > digest"),
}


@dataclass(frozen=True, slots=True)
class Said:
    """What one set of settings makes `once` and `status` say."""

    once: Result
    status: Mapping[str, Any]
    status_code: int
    desk: Desk

    @property
    def warnings(self) -> list[str]:
        """The lines on stderr that are for the operator, without the name before them."""
        lines = self.once.err.splitlines()
        return [line.removeprefix("penstock: ") for line in lines if line.startswith("penstock: ")]

    @property
    def alerts(self) -> list[str]:
        return list(self.status.get("alerts", ()))


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[ModelDouble, str]]:
    """A provider whose account is used up, so that what gets as far as asking it ends soon."""
    model = ModelDouble(key=KEY)
    model.misbehave("status", code=402, times=None)
    with serve(model) as at:
        yield model, f"{at.url}/v1"


@pytest.fixture(scope="module")
def ask(
    provider: tuple[ModelDouble, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mapping[str, str]], Said]:
    """Runs `once` and `status` under some settings; a question asked before is answered again."""
    home = tmp_path_factory.mktemp("desks")
    model, url = provider
    known: dict[str, Said] = {}

    def answer(changes: Mapping[str, str]) -> Said:
        name = repr(sorted(changes.items()))
        if name not in known:
            before = len(model.requests)
            settings = {**PAID, "PENSTOCK_PROVIDER_LLM_URL": url, **changes}
            desk = Desk(home / str(len(known)), settings).initialised()
            known[name] = said(desk)
            # Nothing is paid for by whoever may not, or sleeps.
            assert len(model.requests) == before or known[name].once.json["tier"] != "dormant"
        return known[name]

    return answer


def said(desk: Desk) -> Said:
    once = desk.once()
    # By hand: what `status` does with settings that are wrong is in question here.
    done = subprocess.run(
        [PENSTOCK, "status", "--json"], env=desk.env(), cwd=desk.home, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    return Said(once, json.loads(done.stdout), done.returncode, desk)


Ask = Callable[[Mapping[str, str]], Said]


# What is wrong


ERRORS: dict[str, tuple[dict[str, str], str, str]] = {
    "a ladder that names an unknown provider": (
        {"PENSTOCK_MODELS_WRITE": "nowhere/alpha > digest"},
        "PENSTOCK_MODELS_WRITE", r"'nowhere' .*PENSTOCK_PROVIDERS",
    ),
    "an unknown provider on a lower rung": (
        {"PENSTOCK_MODELS_EDIT": "llm/alpha > nowhere/beta"},
        "PENSTOCK_MODELS_EDIT", r"'nowhere' .*PENSTOCK_PROVIDERS",
    ),
    "a provider without a URL": (
        {"PENSTOCK_PROVIDERS": "llm,bare", "PENSTOCK_MODELS_WRITE": "bare/alpha"},
        "PENSTOCK_PROVIDER_BARE_URL", r"needed",
    ),
    "an unpriced model": (
        {"PENSTOCK_MODELS_WRITE": "llm/gamma"},
        "PENSTOCK_PRICES", r"llm/gamma=INPUT,CACHED,OUTPUT",
    ),
    "an unpriced model on a lower rung": (
        {"PENSTOCK_MODELS_RESEARCH": "llm/alpha > llm/gamma > digest"},
        "PENSTOCK_PRICES", r"llm/gamma=INPUT,CACHED,OUTPUT",
    ),
    "a publishing schedule that never fires": (
        {"PENSTOCK_PUBLISH_CRON": "0 9 30 2 *"}, "PENSTOCK_PUBLISH_CRON", r"never fires.*0 9 30 2",
    ),
    "a feed schedule that never fires": (
        {"PENSTOCK_FEED_CRON": "0 0 31 11 *"}, "PENSTOCK_FEED_CRON", r"never fires",
    ),
    "a budget below zero": ({BUDGET: "-0.01"}, BUDGET, r"not be negative"),
    "a budget that is no number": ({BUDGET: "plenty"}, BUDGET, r"decimal"),
    "a cap that is no number": ({MONTHLY: "nan"}, MONTHLY, r"decimal"),
    "a misspelt limit": ({"PENSTOCK_DAYLY_CAP": "1"}, "PENSTOCK_DAYLY_CAP", r"PENSTOCK_DAILY_CAP"),
    "no niche for a paid run": ({"PENSTOCK_NICHE": ""}, "PENSTOCK_NICHE", r"about"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_said_at_start_with_its_setting_and_nothing_is_begun(
    ask: Ask, name: str
) -> None:
    changes, setting, right = ERRORS[name]
    told = ask(changes)
    assert told.once.code == SETTINGS
    (line,) = (line for line in told.warnings if line.startswith(f"{setting}: "))
    assert re.search(right, line), line
    document = told.once.json
    assert line in document["problems"]
    assert (document["run"], document["outcome"], document["cost"]) == (None, "failed", "0.000000")
    assert told.desk.rows("SELECT id FROM run") == []
    assert not told.desk.outbox.exists()
    assert KEY not in told.once.said


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_an_alert_in_status_which_still_shows_the_books(
    ask: Ask, name: str
) -> None:
    changes, setting, right = ERRORS[name]
    told = ask(changes)
    assert told.status_code == DONE, told.status
    assert any(setting in alert and re.search(right, alert) for alert in told.alerts), told.alerts
    assert micro(told.status["balance"]["posted"]) == 100_000_000


def test_a_schedule_that_never_fires_is_told_with_what_would_fire(ask: Ask) -> None:
    (line,) = ask(ERRORS["a publishing schedule that never fires"][0]).warnings
    remedy = line.replace("0 9 30 2 *", "")
    assert re.search(r"such as|for instance|choose|leave|use", remedy), line


# What is legal, and means digests only


def about(lines: list[str], setting: str) -> list[str]:
    """The lines that are about this limit, not those that only mention it."""
    return [line for line in lines if line.startswith(setting)]


def not_fitting(lines: list[str]) -> list[str]:
    return [line for line in lines if "does not fit" in line]


@pytest.mark.parametrize("value", ["0", "0.01"])
@pytest.mark.parametrize("setting", LIMITS)
def test_a_limit_below_the_cheapest_run_is_said_with_what_that_takes_and_the_remedy(
    ask: Ask, setting: str, value: str
) -> None:
    told = ask({setting: value})
    # It is legal: the publication lives on digests, which cost nothing.
    assert told.once.code == DONE, told.once
    assert (told.once.json["kind"], told.once.json["tier"]) == ("digest", "dormant")
    assert told.once.json["cost"] == "0.000000"
    for lines in (told.warnings, told.alerts):
        (line,) = about(lines, setting)
        limit, *others = (micro(amount) for amount in AMOUNT.findall(line))
        assert limit == round(float(value) * 1e6)
        assert max(others) > limit, line
        assert "raise" in line
        assert not any(about(lines, other) for other in LIMITS if other != setting)
    assert told.status_code == DONE
    # Before anything is done: the first thing that is said.
    assert told.once.err.startswith("penstock: ")


def test_every_limit_of_zero_is_said_each_for_itself(ask: Ask) -> None:
    told = ask(dict.fromkeys(LIMITS, "0"))
    assert told.once.code == DONE
    for lines in (told.warnings, told.alerts):
        assert all(len(about(lines, setting)) == 1 for setting in LIMITS)


def test_each_rung_that_does_not_fit_the_run_budget_is_named(ask: Ask) -> None:
    told = ask({BUDGET: "0.1"})
    for lines in (told.warnings, told.alerts):
        fitting = not_fitting(lines)
        assert fitting
        assert all(re.search(rf"llm/alpha does not fit {BUDGET} 0\.1", line) for line in fitting)
        assert all("raise" in line for line in fitting)
        assert any("PENSTOCK_MODELS_WRITE" in line and "0.117000" in line for line in fitting)
        # The other model fits, so that runs are paid for.
        assert not about(lines, BUDGET)
    assert told.once.json["tier"] != "dormant"


def test_limits_that_leave_room_for_every_rung_are_not_spoken_of(ask: Ask) -> None:
    told = ask({BUDGET: "0.25", DAILY: "1", MONTHLY: "15"})
    assert told.once.code == DONE
    assert told.warnings == []
    assert not any(setting in alert for alert in told.alerts for setting in LIMITS)


@pytest.mark.parametrize("free", [ladder("digest"), {"PENSTOCK_PRICES": "llm/*=0,0,0"}])
def test_limits_of_zero_are_right_where_nothing_is_to_be_paid(
    ask: Ask, free: dict[str, str]
) -> None:
    told = ask(dict.fromkeys(LIMITS, "0") | free)
    assert told.once.code == DONE
    assert told.warnings == []
    assert told.alerts == []


@pytest.mark.parametrize("setting", LIMITS)
def test_a_limit_raised_as_the_remedy_says_is_not_spoken_of_again(ask: Ask, setting: str) -> None:
    lines = [line for line in ask({setting: "0"}).warnings if setting in line]
    needed = max(micro(amount) for line in lines for amount in AMOUNT.findall(line))
    told = ask({setting: f"{needed / 1e6:.6f}"})
    assert told.warnings == []
    assert not any(setting in alert for alert in told.alerts)
    assert told.once.json["tier"] != "dormant"


def test_one_role_without_a_model_is_said_since_the_others_are_named_in_vain(ask: Ask) -> None:
    told = ask({"PENSTOCK_MODELS_RESEARCH": "digest"})
    assert told.once.json["kind"] == "digest"
    assert any("PENSTOCK_MODELS_RESEARCH" in line for line in told.warnings)
    assert any("PENSTOCK_MODELS_RESEARCH" in line for line in told.alerts)
    assert "budget" not in told.status["pace"]["reason"]


# With somebody who answers


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[World]]:
    with small_world() as one, small_world() as other:
        yield [one, other]


def test_a_limit_raised_as_the_remedy_says_pays_for_an_article(
    worlds: list[World], tmp_path: Path
) -> None:
    def follow(setting: str, world: World) -> tuple[str, Result]:
        rungs = ladder("llm/beta > digest")
        desk = world.desk(tmp_path / setting, **rungs, **{setting: "0"})
        alerts = [alert for alert in desk.read("status")["alerts"] if setting in alert]
        needed = max(AMOUNT.findall(" ".join(alerts)), key=micro)
        return needed, desk.changed(**{setting: needed}).once()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(follow, (BUDGET, DAILY), worlds))
    for needed, once in found:
        assert once.code == DONE, once
        assert (once.json["kind"], once.json["outcome"]) == ("article", "published"), once
        assert 0 < micro(once.json["cost"]) <= micro(needed)


def test_limits_of_zero_let_a_model_that_costs_nothing_write(
    worlds: list[World], tmp_path: Path
) -> None:
    world = worlds[0]
    free = {"PENSTOCK_PRICES": "llm/*=0,0,0", "PENSTOCK_RESERVE": "0"}
    desk = world.desk(tmp_path, **free, **dict.fromkeys(LIMITS, "0"))
    before = len(world.model.requests)
    once = desk.once()
    assert once.code == DONE, once
    assert (once.json["kind"], once.json["cost"]) == ("article", "0.000000"), once
    assert len(world.model.requests) > before
    assert not any(line.startswith("penstock: ") for line in once.err.splitlines())
