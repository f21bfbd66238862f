"""
The job as a LangGraph graph, its questions side by side: python graph.py JOB.json CLIENT.

CLIENT is `openai` for ChatOpenAI of langchain-openai, or `httpx` for nodes that post by themselves:
the least that LangGraph can be had for.
"""

from __future__ import annotations

import asyncio
import json
import operator
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

import job as jobs
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

JOB = jobs.read()
Ask = Callable[[str, str, str], Awaitable[Any]]


def with_openai() -> Ask:
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model=JOB.model, base_url=JOB.url, api_key=JOB.key, max_tokens=jobs.TOKENS_MAX,
        max_retries=0,
    )  # fmt: skip

    async def ask(role: str, schema: str, prompt: str) -> Any:
        model = chat.bind(response_format=JOB.response_format(schema))
        reply = await model.ainvoke([SystemMessage(JOB.instructions[role]), HumanMessage(prompt)])
        return json.loads(str(reply.content))

    return ask


def with_httpx() -> Ask:
    import httpx

    headers = {"authorization": f"Bearer {JOB.key}"}
    client = httpx.AsyncClient(headers=headers, timeout=60, trust_env=False)

    async def ask(role: str, schema: str, prompt: str) -> Any:
        reply = await client.post(
            f"{JOB.url}/chat/completions", json=JOB.body(role, schema, prompt)
        )
        reply.raise_for_status()
        return json.loads(reply.json()["choices"][0]["message"]["content"])

    return ask


ask = {"openai": with_openai, "httpx": with_httpx}[sys.argv[2]]()


class State(TypedDict, total=False):
    """What the nodes share."""

    plan: dict[str, Any]
    notes: Annotated[list[dict[str, Any]], operator.add]
    draft: dict[str, Any]
    review: dict[str, Any]


async def plan(state: State) -> State:
    return {"plan": await ask("researcher", "plan", JOB.plan())}


def spread(state: State) -> list[Send]:
    return [Send("note", question) for question in state["plan"]["questions"][: JOB.questions_max]]


async def note(question: str) -> State:
    return {"notes": [await ask("researcher", "notes", JOB.notes(question))]}


async def draft(state: State) -> State:
    return {"draft": await ask("writer", "draft", JOB.draft(state["plan"], state["notes"]))}


async def review(state: State) -> State:
    return {"review": await ask("editor", "review", JOB.review(state["notes"], state["draft"]))}


async def publish(state: State) -> State:
    JOB.publish(state["draft"], state["review"])
    return {}


def crew() -> Any:
    graph = StateGraph(State)
    for node in (plan, note, draft, review, publish):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["note"])
    graph.add_edge("note", "draft")
    graph.add_edge("draft", "review")
    graph.add_edge("review", "publish")
    graph.add_edge("publish", END)
    return graph.compile()


asyncio.run(crew().ainvoke({}))
