"""`penstock simulate`: the real governor and the real books on virtual days."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from daemon import cli, settings
from daemon.cadence import thinned
from daemon.governor import PAID_TIERS
from daemon.inference.ladder import Tier
from daemon.options import OPTIONS
from daemon.settings import Settings
from daemon.simulation import walk
from daemon.simulation.audience import AUDIENCES, DAYS_READ, PER_1000_VIEWS, engagement
from daemon.simulation.periods import Summary, periods
from daemon.simulation.picture import svg
from daemon.simulation.walk import Course, Plan
from ledger.money import ZERO
from tests.cli_helpers import AMOUNT, MOMENT, Desk, digest_desk
from tests.ledger_helpers import cr

START = datetime(2026, 11, 22, tzinfo=UTC)
RATES = next(o.parse(o.default) for o in OPTIONS if o.name == "PENSTOCK_RATES")
LADDER = "llm/good > llm/cheap > digest"
PAID = {
    **{f"PENSTOCK_MODELS_{role}": LADDER for role in ("RESEARCH", "WRITE", "EDIT")},
    "PENSTOCK_PRICES": "llm/good=3,0.3,15;llm/cheap=0.3,0.03,1.1",
}
BEST = (*PAID_TIERS, Tier.DORMANT)


def loaded(**changes: str) -> Settings:
    return settings.load(
        {"PENSTOCK_STATE_DIR": "/nowhere", **PAID, **changes}, at=START, for_run=False
    )


def planned(balance: str = "3", **changes: object) -> Plan:
    plan = Plan(START, 45, 1, cr(balance), AUDIENCES["steady"])
    return replace(plan, **changes)  # type: ignore[arg-type]


def simulated(plan: Plan, **changes: str) -> Course:
    return walk.simulate(loaded(**changes), plan)


@cache
def courses() -> tuple[Course, ...]:
    """Forty-five days each: plenty, getting scarce, nearly nothing, and seldom."""
    daily = {"PENSTOCK_PUBLISH_CRON": "0 9 * * *"}
    return (
        simulated(planned("3")),
        simulated(planned("1.2", seed=2), **daily),
        simulated(planned("0.2", seed=3, audience=AUDIENCES["quiet"]), **daily),
        simulated(planned("5", seed=4), PENSTOCK_TIMEZONE="Europe/Berlin", **daily),
    )


def picture_of(course: Course) -> str:
    zone = loaded().zone
    return svg(course, Summary.of(course, zone), zone, cr("0.1"))


# Laws


def test_every_day_s_balance_is_the_start_and_what_was_earned_less_what_was_spent() -> None:
    for course in courses():
        balance = course.plan.balance
        for point in course.points:
            balance += point.earned - point.spent
            assert point.balance == balance


def test_nothing_goes_below_the_reserve() -> None:
    for course in courses():
        for point in course.points:
            assert point.balance - point.held >= cr("0.1")


def test_no_day_earns_or_spends_more_than_its_cap() -> None:
    course = simulated(
        planned("5", audience=AUDIENCES["lucky"]), PENSTOCK_EARN_DAILY_CAP="0.2",
        PENSTOCK_DAILY_CAP="0.3", PENSTOCK_MONTHLY_CAP="2",
        PENSTOCK_PUBLISH_CRON="0 */6 * * *", PENSTOCK_MAX_POSTS_PER_DAY="4",
    )  # fmt: skip
    assert max(point.earned for point in course.points) == cr("0.2")
    assert any(point.forfeited for point in course.points)
    assert max(point.spent for point in course.points) <= cr("0.3")
    for first in range(16):
        month = course.points[first : first + 30]
        assert sum((point.spent for point in month), start=ZERO) <= cr("2")


def test_no_day_has_more_posts_than_are_allowed() -> None:
    free = {"PENSTOCK_PRICES": "llm/*=0,0,0", "PENSTOCK_PUBLISH_CRON": "0 * * * *"}
    course = simulated(planned(days=5), PENSTOCK_MAX_POSTS_PER_DAY="2", **free)
    assert {point.articles + point.digests for point in course.points} == {2}


def test_more_money_never_means_a_lower_tier_at_the_start() -> None:
    balances = ("0", "0.05", "0.12", "0.2", "0.5", "1", "2", "5", "20", "100")
    tiers = [simulated(planned(balance, days=1)).first.tier for balance in balances]
    ranks = [BEST.index(tier) for tier in tiers]
    assert ranks == sorted(ranks, reverse=True)
    assert tiers[0] is Tier.DORMANT
    assert tiers[-1] is Tier.SURPLUS


def test_models_that_cost_nothing_run_for_ever_on_nothing() -> None:
    course = simulated(planned("0", audience=AUDIENCES["none"]), PENSTOCK_PRICES="llm/*=0,0,0")
    assert {point.tier for point in course.points} == {Tier.SURPLUS}
    assert sum(point.articles for point in course.points) > 15
    assert not any(point.balance or point.spent for point in course.points)


def test_without_money_it_is_dormant_all_along_and_makes_digests() -> None:
    course = simulated(planned("0"))
    assert {point.tier for point in course.points} == {Tier.DORMANT}
    assert sum(point.digests for point in course.points) == 19
    assert not any(point.articles or point.spent or point.earned for point in course.points)


def test_higher_rates_end_higher() -> None:
    ends = []
    for factor in (0, 1, 4):
        rates = ", ".join(f"{unit}={rate * factor}" for unit, rate in RATES.items())
        one_rung = dict.fromkeys(PAID, "llm/cheap > digest") | {"PENSTOCK_PRICES": "llm/*=1,1,3"}
        course = simulated(
            planned(), PENSTOCK_RATES=rates, PENSTOCK_EARN_DAILY_CAP="50", **one_rung
        )
        ends.append(course.points[-1].balance)
    assert ends == sorted(set(ends))


def test_a_scarce_balance_steps_down_and_thins_the_cadence() -> None:
    course = simulated(
        planned("1", audience=AUDIENCES["none"], days=240),
        PENSTOCK_PUBLISH_CRON="0 9 * * *", PENSTOCK_RUNWAY_DAYS="60",
    )  # fmt: skip
    ranks = [BEST.index(point.tier) for point in course.points]
    assert ranks == sorted(ranks)
    assert Tier.THROTTLED in {point.tier for point in course.points}
    slow = [point for point in course.points if 0 < point.cadence < 1]
    wanted = sum(point.cadence for point in slow)
    assert slow
    assert abs(sum(point.runs for point in slow) - wanted) <= 2


def test_the_same_seed_gives_the_same_course_and_another_one_another() -> None:
    plan = planned(days=40)
    assert simulated(plan) == simulated(plan)
    assert picture_of(simulated(plan)) == picture_of(simulated(plan))
    assert simulated(plan).points != simulated(replace(plan, seed=2)).points


def test_a_change_of_one_setting_is_not_another_throw_of_the_dice() -> None:
    """A larger reserve changes nothing while there is plenty."""
    plan = planned("50", days=30)
    assert (
        simulated(plan).points[-1].spent == simulated(plan, PENSTOCK_RESERVE="0.2").points[-1].spent
    )


def test_a_request_of_unknown_outcome_is_held_and_then_charged_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walk, "UNKNOWN_SHARE", 0.5)
    course = simulated(planned("3"))
    assert any(point.held for point in course.points)
    # Thirty-six hours at most: what the last day holds is the last day's.
    assert any(before.held and not after.held for before, after in pairwise(course.points))


def test_every_day_is_a_calendar_day_of_the_time_zone() -> None:
    zone = "Europe/Berlin"
    start = datetime(2027, 3, 26, 23, tzinfo=UTC)  # The clocks go forward on the 28th.
    course = simulated(
        planned(start=start, days=4), PENSTOCK_TIMEZONE=zone, PENSTOCK_PUBLISH_CRON="0 9 * * *"
    )
    spans = [after.at - before.at for before, after in pairwise(course.points)]
    assert spans == [timedelta(hours=23), timedelta(hours=24), timedelta(hours=24)]
    assert [point.runs for point in course.points] == [1, 1, 1, 1]


# The parts


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 1 / 3, 0.1, 0.013])
def test_thinning_uses_the_share_of_slots_that_is_wanted_evenly(share: float) -> None:
    owed, used = 1.0, []
    for slot in range(1000):
        due, owed = thinned(owed, 3 * share, 3)
        used += [slot] * due
    assert used[0] == 0
    assert abs(len(used) - 1000 * share) <= 1
    gaps = {after - before for before, after in pairwise(used)}
    assert max(gaps) - min(gaps) <= 1


def test_what_is_owed_does_not_pile_up_while_nothing_can_run() -> None:
    assert thinned(50.0, 0.1, 1)[1] < 1.0


def test_readers_come_as_the_distribution_says() -> None:
    views = []
    for post in range(400):
        days = engagement(AUDIENCES["steady"], ("devto", "bluesky"), Random(post))
        assert len(days) == DAYS_READ
        assert {unit for day in days for unit in day} <= set(PER_1000_VIEWS)
        views.append(sum(day.get("devto.view", 0) for day in days))
    views.sort()
    assert 100 < views[200] < 145
    assert 180 < sum(views) / 400 < 260
    assert views[-1] > 5 * views[200]


def test_readers_come_most_of_all_at_the_start() -> None:
    days = engagement(AUDIENCES["lucky"], ("devto",), Random(1))
    views = [day.get("devto.view", 0) for day in days]
    assert sum(views[:7]) > 3 * sum(views[7:])


def test_nobody_reads_where_the_audience_is_none() -> None:
    assert not any(engagement(AUDIENCES["none"], ("devto",), Random(1)))


def test_units_that_can_be_read_are_those_that_can_be_paid_for() -> None:
    assert set(PER_1000_VIEWS) == set(RATES)


def test_periods_add_up_to_the_days() -> None:
    for course in courses():
        for unit in ("day", "week", "month"):
            found = periods(course, loaded().zone, unit)
            assert sum(sum(days for _, days in p.days_in) for p in found) == course.plan.days
            assert found[-1].balance == course.points[-1].balance
            for name in ("spent", "earned"):
                assert sum((getattr(p, name) for p in found), start=ZERO) == sum(
                    (getattr(p, name) for p in course.points), start=ZERO
                )


# The picture


@pytest.mark.parametrize("days", [1, 2, 30, 130])
def test_the_picture_is_well_formed_and_says_what_it_shows(days: int) -> None:
    course = simulated(planned("1", days=days))
    root = ET.fromstring(picture_of(course))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for label in ("Balance, credits", "Cadence, runs a day", "balance", "reserve", "earned"):
        assert label in texts
    for tier in Tier:
        assert any(text.startswith(tier) for text in texts)
    assert f"{days} simulated day" in texts[0]
    assert all("nan" not in text and "inf" not in text for text in texts)


def test_the_picture_stays_on_its_page() -> None:
    for course in courses():
        for element in ET.fromstring(picture_of(course)).iter():
            for name, limit in (("x", 960), ("x1", 960), ("x2", 960), ("y", 700), ("y1", 700)):
                assert 0 <= float(element.get(name, 0)) <= limit


# The command


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "home", dict(PAID))


def test_it_prints_a_table_and_writes_a_picture(desk: Desk) -> None:
    result = desk.run("simulate", "--days", "40", "--balance", "3")
    assert result.code == 0, result
    head, rule, *rows = result.out.splitlines()
    assert head.split()[:4] == ["until", "balance", "spent", "earned"]
    assert set(rule) == {"─", " "}
    assert rows[7].startswith("After 40 days: ")
    assert "penstock-simulation.svg" in result.out
    ET.fromstring((desk.home / "penstock-simulation.svg").read_text())


def test_json_is_one_document_the_same_for_a_seed(desk: Desk) -> None:
    words = ("simulate", "--days", "30", "--balance", "3", "--seed", "7", "--json")
    first, second = desk.run(*words), desk.run(*words)
    assert first.out == second.out
    found = first.json
    assert (found["days"], found["seed"], found["audience"]) == (30, 7, "steady")
    assert len(found["points"]) == 30
    for point in found["points"]:
        assert MOMENT.fullmatch(point["at"])
        for name in ("balance", "spent", "earned"):
            assert AMOUNT.fullmatch(point[name])
        assert point["tier"] in list(Tier)
        assert isinstance(point["runs"], int)
        float(point["cadence"])
    assert found["summary"]["balance"] == found["points"][-1]["balance"]
    assert not (desk.home / "penstock-simulation.svg").exists()


def test_it_begins_with_what_the_books_have_and_leaves_them_as_they_are(desk: Desk) -> None:
    desk.initialised("4.25")
    before = desk.database.read_bytes()
    found = desk.read("simulate", "--days", "10")
    assert found["start"]["balance"] == "4.250000"
    assert desk.database.read_bytes() == before
    assert [path.name for path in desk.state.iterdir()] == ["penstock.db"]


def test_ladders_without_a_model_are_simulated_and_said(tmp_path: Path) -> None:
    result = digest_desk(tmp_path / "home").run("simulate", "--days", "10", "--balance", "1")
    assert result.code == 0
    assert "PENSTOCK_MODELS_RESEARCH" in result.out
    assert "Dormant all along" in result.out


def test_no_leftovers_stay_in_the_temporary_folder(desk: Desk, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    result = desk.run(
        "simulate", "--days", "3", "--balance", "1", settings={"TMPDIR": str(temporary)}
    )
    assert result.code == 0
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--days", "0"), "--days"),
        (("--days", "-3"), "--days"),
        (("--days", "100000"), "at most 3660"),
        (("--audience", "stedy"), "did you mean steady?"),
        (("--balance", "-1"), "must not be negative"),
        (("--balance", "much"), "is not a decimal number"),
        (("--picture", "nowhere/a.svg"), "nowhere/a.svg"),
        (("--picture", "penstock.env"), "end its name in .svg"),
        (("--seed", "x"), "--seed"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_told_with_exit_code_2(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_process(tmp_path, monkeypatch, PAID)
    rest = () if "--balance" in words else ("--balance", "1")
    assert cli.main(["simulate", *words, *rest, "--json"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "error" in json.loads(out)


def test_without_books_a_balance_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(tmp_path, monkeypatch, PAID)
    assert cli.main(["simulate", "--days", "3"]) == 2
    assert "--balance" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_price_is_told_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(tmp_path, monkeypatch, PAID | {"PENSTOCK_PRICES": ""})
    assert cli.main(["simulate", "--days", "3", "--balance", "1"]) == 2
    assert "PENSTOCK_PRICES" in capsys.readouterr().err


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, str]) -> None:
    """An operator's environment around calls in this process, which cost no imports."""
    monkeypatch.chdir(folder)
    for name, value in {"PENSTOCK_STATE_DIR": str(folder / "state"), **settings}.items():
        monkeypatch.setenv(name, value)
