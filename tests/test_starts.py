"""What a start that failed leaves for the next one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from daemon.starts import UNUSABLE_AFTER, Starts, Unusable
from tests.virtual import START

TROUBLE = Unusable(START, "StorageFull", "no room\nat all", told=True)


def test_the_next_start_knows_until_one_goes_well(tmp_path: Path) -> None:
    assert Starts(tmp_path).failed() is None
    Starts(tmp_path).keep(TROUBLE)
    assert Starts(tmp_path).failed() == TROUBLE
    Starts(tmp_path).over()
    assert Starts(tmp_path).failed() is None
    Starts(tmp_path).over()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"since": 1, "kind": "", "said": "", "told": true}', "\0", "{"],
)
def test_what_makes_no_sense_is_as_if_it_were_not_there(tmp_path: Path, text: str) -> None:
    Starts(tmp_path).keep(TROUBLE)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert Starts(tmp_path).failed() is None


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    for starts in (Starts(), Starts(tmp_path / "missing")):
        starts.keep(TROUBLE)
        starts.over()
        assert starts.failed() is None


def test_it_is_kept_where_systemd_says(tmp_path: Path) -> None:
    assert not Starts.from_env({}).kept
    assert not Starts.from_env({"RUNTIME_DIRECTORY": ""}).kept
    Starts.from_env({"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"}).keep(TROUBLE)
    assert Starts(tmp_path).failed() == TROUBLE


def test_it_is_told_when_it_lasts_and_once() -> None:
    fresh = Unusable(START)
    assert not fresh.is_to_be_told(START + UNUSABLE_AFTER - timedelta(seconds=1))
    assert fresh.is_to_be_told(START + UNUSABLE_AFTER)
    assert not TROUBLE.is_to_be_told(START + 2 * UNUSABLE_AFTER)


def test_a_clock_that_was_set_back_makes_no_secret_of_it() -> None:
    assert Unusable(START + timedelta(days=30)).is_to_be_told(START)
