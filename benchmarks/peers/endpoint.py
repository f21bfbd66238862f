"""
The model and the web sites that every contestant talks to.

    python -m benchmarks.peers.endpoint --pages 6 --characters 5000

One JSON line says where they are. The first answer to a question is written by the test double's
author and kept: whoever asks the same again is told the same, word for word. `GET /counts` tells
what was asked since the last time; `GET /latency?ms=200` sets how long an answer takes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from daemon.crew.prompts import prompt
from daemon.crew.schemas import Draft, Notes, Plan, Review
from daemon.inference.answers import json_schema
from tests.doubles import author
from tests.doubles.model import Asked, ModelDouble
from tests.doubles.web import SiteDouble
from tests.doubles.wire import Answer, Request, serve

KEY = "bench-key"
ENDINGS = (signal.SIGTERM, signal.SIGINT)
TOPICS = (
    "write-ahead log", "connection pool", "backup restore",
    "query planner", "page cache", "busy timeout",
)  # fmt: skip
FROM_ONE_FEED = 3


class Endpoint:
    """A model provider that repeats itself, at a chosen pace, and counts what it is asked."""

    def __init__(self) -> None:
        self.model = ModelDouble(key=KEY)
        self.delay_s = 0.0
        self.questions: list[str] = []
        self.known: dict[tuple[str, str], str] = {}
        self.model.answers = {
            "plan": self._plan,
            "notes": self._notes,
            "research": self._research,
            "draft": lambda asked: _as_asked(self._kept("draft", "", asked), asked),
            "review": lambda asked: _as_asked(self._kept("review", "", asked), asked),
        }

    async def handle(self, request: Request) -> Answer:
        """Answer a chat request, or tell what was asked."""
        match request.path:
            case "/counts":
                return Answer.of(self._counts())
            case "/latency":
                self.delay_s = int(request.query["ms"]) / 1000
                return Answer.of({})
            case _:
                return replace(await self.model.handle(request), delay_s=self.delay_s)

    def _counts(self) -> dict[str, Any]:
        asked, self.model.requests = self.model.requests, []
        found: dict[str, Any] = {"calls": len(asked), "tokens": 0, "stages": {}}
        for one in asked:
            found["tokens"] += tokens(one)
            calls, read = found["stages"].get(one.schema, (0, 0))
            found["stages"][one.schema] = (calls + 1, read + tokens(one))
        return found

    def _plan(self, asked: Asked) -> str:
        answer = self._kept("plan", "", asked)
        self.questions = json.loads(answer)["questions"]
        return _as_asked(answer, asked)

    def _notes(self, asked: Asked) -> str:
        line = re.findall(r"^Question: (.+)$", asked.text, re.M)[-1]
        ordinal = re.fullmatch(r"number (\d) of the plan", line)
        question = self.questions[int(ordinal[1]) - 1] if ordinal else line
        return _as_asked(self._kept("notes", question, asked), asked)

    def _research(self, asked: Asked) -> str:
        """All notes at once."""
        claims = [
            claim
            for (schema, _), answer in self.known.items()
            if schema == "notes"
            for claim in json.loads(answer)["claims"]
        ]
        return _as_asked(json.dumps({"claims": claims, "gaps": []}), asked)

    def _kept(self, schema: str, question: str, asked: Asked) -> str:
        if (schema, question) not in self.known:
            written = author.WRITERS[schema](asked.text)
            self.known[schema, question] = json.dumps(written, ensure_ascii=False)
        return self.known[schema, question]


def tokens(asked: Asked) -> int:
    """
    What a model is given to read, as everyone's is counted: UTF-8 bytes over four.

    Contents of all messages, and the answer's schema and the tools where they are sent.
    """
    beside = [asked.fields[name] for name in ("response_format", "tools") if name in asked.fields]
    schemas = "".join(json.dumps(value, separators=(",", ":")) for value in beside)
    contents = "".join(str(message.get("content") or "") for message in asked.messages)
    return -(-len((contents + schemas).encode()) // 4)


def _as_asked(answer: str, asked: Asked) -> str:
    """An agent that is taught to say when it is done is answered in its own way."""
    if "Final Answer:" in asked.text:
        return f"Thought: I now can give a great answer\nFinal Answer: {answer}"
    return answer


def words() -> dict[str, Any]:
    """Our own roles' standing instructions, and the schemas they answer in."""
    roles = {role: prompt(role) for role in ("researcher", "writer", "editor")}
    schemas = {"plan": Plan, "notes": Notes, "draft": Draft, "review": Review}
    return {
        "instructions": roles | {"publicist": "You announce what a small publication published."},
        "schemas": {name: json_schema(schema) for name, schema in schemas.items()}
        | {"research": json_schema(Notes), "announcement": {"properties": {"posts": {}}}},
    }


# The sites


def opened_sites(stack: ExitStack, pages: int, characters: int) -> tuple[list[str], list[str]]:
    """
    Pages of so much plain prose, and feeds of three pages each; every one on a host of its own.

    Returns:
        The feeds' addresses, and everybody's `host:port`.
    """
    now, items, hosts = datetime.now(UTC), list[str](), list[str]()
    for number in range(pages):
        topic = TOPICS[number % len(TOPICS)] + ("" if number < len(TOPICS) else f" {number}")
        title = f"The {topic} explained"
        paragraphs = "".join(f"<p>{text}</p>" for text in prose(topic, characters))
        page = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"</head><body><main><article><h1>{title}</h1>{paragraphs}</article></main></body>"
            "</html>"
        )
        url = _opened(stack, hosts, f"/{topic.replace(' ', '-')}.html", page)
        at = format_datetime(now - timedelta(days=1 + number))
        items.append(
            f"<item><title>{title}</title><link>{url}</link><guid>{url}</guid>"
            f"<description>How the {topic} of SQLite works in running databases.</description>"
            f"<pubDate>{at}</pubDate></item>"
        )
    feeds = []
    for first in range(0, pages, FROM_ONE_FEED):
        feed = (
            '<?xml version="1.0"?><rss version="2.0"><channel><title>Database Notes</title>'
            "<link>https://notes.example/</link><description>d</description>"
            f"{''.join(items[first : first + FROM_ONE_FEED])}</channel></rss>"
        )
        feeds.append(_opened(stack, hosts, "/feed.xml", feed))
    return feeds, hosts


def _opened(stack: ExitStack, hosts: list[str], path: str, body: str) -> str:
    # Elsewhere on loopback: requests to one host are kept apart, as a polite reader's are.
    host = f"127.0.1.{len(hosts) + 1}"
    at = stack.enter_context(serve(SiteDouble(pages={path: body}), host=host))
    hosts.append(f"{host}:{at.port}")
    return f"{at.url}{path}"


_SHAPES = (
    "The {topic} keeps {a} records in its {nth} pass over the file",
    "An operator who changes the {topic} should measure {thing} on a copy for {a} minutes",
    "In release {b}.{a} the {topic} was made safe for readers that keep {thing} open",
    "Nobody should expect the {topic} to repair {thing} that was damaged {a} days before",
    "With {a} writers beside it the {topic} spends most of its time on {thing}",
    "People who run the {topic} report that {thing} needs {a} megabytes more than planned",
    "A {topic} that falls short of {a} commits a second is usually waiting for {thing}",
    "What the {topic} does to {thing} is shown in the {nth} column of the report",
)
_THINGS = (
    "the checkpoint", "a long transaction", "the shared memory file", "an index of 3 columns",
    "the free list", "a reader on another host", "the rollback journal", "a table without rows",
    "the second disk", "the nightly vacuum",
)  # fmt: skip
_NTH = ("first", "second", "third", "fourth", "last")


def prose(topic: str, characters: int) -> list[str]:
    """Paragraphs about a topic, made from a seed: no sentence stands in them twice."""
    dice, seen, paragraphs, size = random.Random(topic), set(), [], 0
    while size < characters:
        sentences: list[str] = []
        while len(sentences) < 5:
            shape = dice.choice(_SHAPES)
            text = shape.format(
                topic=topic, a=dice.randint(2, 990), b=dice.randint(2, 9),
                thing=dice.choice(_THINGS), nth=dice.choice(_NTH),
            )  # fmt: skip
            if text not in seen:
                seen.add(text)
                sentences.append(f"{text}.")
        paragraphs.append(" ".join(sentences))
        size += len(paragraphs[-1]) + 1
    return paragraphs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.endpoint")
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--characters", type=int, required=True, help="of each page")
    args = parser.parse_args()
    # Blocked before the servers' threads start, so that only sigwait sees them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    with ExitStack() as stack:
        model = stack.enter_context(serve(Endpoint()))
        feeds, hosts = opened_sites(stack, args.pages, args.characters)
        said = {"model": model.url, "hosts": hosts, "feeds": feeds, "key": KEY} | words()
        print(json.dumps(said), flush=True)
        signal.sigwait(ENDINGS)


if __name__ == "__main__":
    main()
