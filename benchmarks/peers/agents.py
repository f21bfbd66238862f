"""
The job as a CrewAI crew: python agents.py JOB.json SHAPE.

    default  a task for the plan, for each question, the draft and the review, one after another;
             each is given what all before it said, as CrewAI does where it is not told otherwise
    told     the same tasks, each told whose output it needs, the questions side by side
    four     four agents with a task each, as its documentation begins: one task does all research,
             and the publicist is an agent, too
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ.update(
    OTEL_SDK_DISABLED="true", CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false"
)

import job as jobs
from crewai import LLM, Agent, Crew, Process, Task

JOB = jobs.read()
SHAPE = sys.argv[2]
MODEL = LLM(
    model=f"openai/{JOB.model}", base_url=JOB.url, api_key=JOB.key, max_tokens=jobs.TOKENS_MAX
)
GOALS = {
    "researcher": "Find out what the sources at hand really say",
    "writer": "Write the article from verified claims",
    "editor": "Decide whether the draft may appear",
    "publicist": "Announce the article in one post",
}


def agent(role: str) -> Any:
    return Agent(
        role=role.capitalize(), goal=GOALS[role], backstory=JOB.instructions[role], llm=MODEL,
        verbose=False,
    )  # fmt: skip


def task(agent: Any, schema: str, description: str, **options: Any) -> Any:
    # Names of fields only: a JSON schema in words would be longer.
    fields = ", ".join(JOB.schemas[schema]["properties"])
    return Task(
        agent=agent, description=description, **options,
        expected_output=f"One JSON document with the fields {fields}.\nSchema: {schema}",
    )  # fmt: skip


def default_tasks() -> list[Any]:
    one = agent("researcher")
    plan = task(one, "plan", JOB.plan())
    # An agent does one task at a time, so that side by side each has a researcher of its own.
    notes = [
        task(
            one if SHAPE == "default" else agent("researcher"),
            "notes", JOB.notes(f"number {number} of the plan"), **_told(plan),
        )
        for number in range(1, JOB.questions_max + 1)
    ]  # fmt: skip
    ask = f"{JOB.assignment()}\n\n"
    draft = task(agent("writer"), "draft", ask + jobs.DRAFT, **_told(plan, *notes, waits=True))
    told = _told(*notes, draft, waits=True)
    return [plan, *notes, draft, task(agent("editor"), "review", ask + jobs.REVIEW, **told)]


def _told(*needed: Any, waits: bool = False) -> dict[str, Any]:
    if SHAPE == "default":
        return {}
    return {"context": list(needed)} | ({} if waits else {"async_execution": True})


def four_tasks() -> list[Any]:
    ask = f"{JOB.assignment()}\n\n"
    return [
        task(agent("researcher"), "research", f"{JOB.blocks}\n\n{JOB.about()}\n\n{jobs.NOTES}"),
        task(agent("writer"), "draft", ask + jobs.DRAFT),
        task(agent("editor"), "review", ask + jobs.REVIEW),
        task(agent("publicist"), "announcement", f"{ask}Announce the article in one post."),
    ]


def main() -> None:
    tasks = four_tasks() if SHAPE == "four" else default_tasks()
    agents = list({id(one.agent): one.agent for one in tasks}.values())
    crew = Crew(agents=agents, tasks=tasks, process=Process.sequential, memory=False, verbose=False)
    said = {
        name: output.raw
        for one, output in zip(tasks, crew.kickoff().tasks_output, strict=True)
        for name in ("draft", "review")
        if one.expected_output.endswith(f"Schema: {name}")
    }
    JOB.publish(json.loads(said["draft"]), json.loads(said["review"]))


main()
