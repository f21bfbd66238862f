"""What `runs trace` draws, and the lines a run leaves in a log."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon import journal
from daemon.cli.runs import trace_document
from daemon.journal import RunOutcome
from ledger.database import Database
from tests.cli_helpers import Desk, micro, small_world
from tests.stage import Kill, Killed, Stage
from tests.virtual import START


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    one = Stage(tmp_path / "stage")
    one.deposit("5")
    return one


def traced(stage: Stage) -> dict[str, Any]:
    """The only run, as a document."""
    with stage.reading() as tx:
        (row,) = journal.runs(tx)
        return trace_document(tx, row)


def drawn(stage: Stage, tmp_path: Path, *args: str) -> Any:
    """The only run, as the command prints it."""
    folder = str(stage.settings.location.state_dir)
    desk = Desk(tmp_path / "desk", {"PENSTOCK_STATE_DIR": folder})
    result = desk.run("runs", "trace", traced(stage)["run"], *args)
    assert result.code == 0, result
    return result


def test_every_node_has_an_id_its_parents_id_and_all_that_a_picture_needs(
    stage: Stage, tmp_path: Path
) -> None:
    stage.model.misbehave("status", code=429, schema="plan")
    stage.model.misbehave("slow", seconds=3.0, times=None)
    stage.once()
    tree = drawn(stage, tmp_path, "--json").json
    assert (tree["id"], tree["parent"]) == (tree["run"], None)
    assert tree["duration_ms"] > 12_000
    seen = {tree["id"]}
    for step in tree["steps"]:
        assert step["parent"] == tree["run"]
        assert step["id"] == f"{tree['run']}/{step['name']}"
        assert step["duration_ms"] >= sum(a["duration_ms"] for a in step["attempts"][:1])
        assert micro(step["cost"]) == sum(micro(a["cost"]) for a in step["attempts"])
        seen.add(step["id"])
        for attempt in step["attempts"]:
            assert attempt["parent"] == step["id"]
            assert attempt["at"] >= step["started_at"]
            seen.add(attempt["id"])
    assert len(seen) == 1 + len(tree["steps"]) + tree["requests"]
    for name in ("input", "cached", "output", "reasoning"):
        assert tree["tokens"][name] == sum(step["tokens"][name] for step in tree["steps"])
    assert tree["tokens"]["input"] > 0
    assert micro(tree["cost"]) == sum(micro(step["cost"]) for step in tree["steps"])


def test_questions_asked_side_by_side_are_marked_and_nothing_else_is(stage: Stage) -> None:
    stage.model.misbehave("slow", seconds=3.0, times=None)
    stage.once()
    tree = traced(stage)
    alongside = {step["name"] for step in tree["steps"] if step["parallel"]}
    assert len(alongside) >= 3
    assert alongside == {s["name"] for s in tree["steps"] if s["name"].startswith("notes-")}


def test_the_order_is_that_of_the_journal_and_the_tenth_comes_after_the_ninth(
    stage: Stage,
) -> None:
    stage.model.misbehave("status", code=429, schema="draft", times=2)
    stage.once()
    tree = traced(stage)
    assert tree == traced(stage)
    with stage.reading() as tx:
        assert [s["name"] for s in tree["steps"]] == [
            step.name for step in journal.steps(tx, tree["run"])
        ]
    numbers = [int(a["id"].rpartition(".")[2]) for s in tree["steps"] for a in s["attempts"]]
    assert max(numbers) >= 10
    for step in tree["steps"]:
        under = [int(attempt["id"].rpartition(".")[2]) for attempt in step["attempts"]]
        assert under == sorted(under)


def test_a_run_that_was_killed_has_no_end_and_its_open_steps_no_duration(
    stage: Stage, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        stage.once(kill=Kill.at(14, after=True))
    tree = traced(stage)
    assert tree["duration_ms"] is None
    assert "not finished" in drawn(stage, tmp_path).out
    running = [step for step in tree["steps"] if step["state"] == "running"]
    assert running
    assert all(step["duration_ms"] is None for step in running)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    assert all(step["duration_ms"] is not None for step in traced(stage)["steps"])


def test_the_picture_has_model_tokens_cost_and_time_on_every_request(
    stage: Stage, tmp_path: Path
) -> None:
    forged = {"error": {"message": "slow down\n├─ draft-9 done"}}
    stage.model.misbehave("status", code=429, body=forged, schema="draft")
    stage.model.misbehave("slow", seconds=3.0, times=None)
    stage.once()
    tree, lines = traced(stage), drawn(stage, tmp_path).out.splitlines()
    assert not any(line.startswith("├─ draft-9") for line in lines)
    for attempt in (attempt for step in tree["steps"] for attempt in step["attempts"]):
        (line,) = [line for line in lines if f" {attempt['id']} " in line]
        assert "llm/good" in line
        assert str(attempt["cost"]) in line
        if attempt["usage"]:
            assert f"{attempt['usage']['input']} in" in line
            assert f"{attempt['usage']['output']} out" in line
            assert re.search(r"\+\d+\.\d\d s +3\.00 s", line)
    drafts = [line for line in lines if "draft-1" in line or "│  ├─" in line]
    assert drafts[0].startswith("├─ draft-1")
    assert "HTTP 429" in drafts[1]
    assert all(line[0] in "├└│" for line in lines[2:-1])
    assert [line[:1] for line in lines].count("└") == 1
    assert sum(line.startswith("├─ notes-") and "∥" in line for line in lines) >= 3


def test_a_run_without_a_step_is_drawn_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path).initialised(None)
    with closing(Database(f"sqlite:///{desk.database}")) as database, database.write() as tx:
        journal.open_run(
            tx, id="r1", slot=None, tier="standard", kind="article", topic=None, budget_micro=1,
            at=START,
        )  # fmt: skip
    assert "0 requests" in desk.run("runs", "trace", "r1").out


def test_every_line_about_a_run_carries_its_id(tmp_path: Path) -> None:
    with small_world() as world:
        world.model.misbehave("status", code=500, schema="notes")
        world.model.misbehave("invented_quote", schema="notes")
        result = world.desk(tmp_path).once()
    lines = result.err.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith(f"{result.json['run']} ") for line in lines), result.err
