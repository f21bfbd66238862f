"""A run as spans, at a real OTLP receiver over a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from daemon import journal, telemetry
from daemon.inference.port import Endpoint
from daemon.journal import RunOutcome
from daemon.secret import Secret
from daemon.telemetry import Span
from tests.cli_helpers import KEY, Result, digest_desk, micro, small_world
from tests.doubles.wire import Answer, Fault, Request, serve
from tests.stage import Kill, Killed, Stage

DOWN = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
INTERNAL, CLIENT = 1, 3
ERROR = 2


@dataclass
class Collector:
    """Takes what an OTLP exporter posts; `answer` is what it is told."""

    answer: Answer = field(
        default_factory=lambda: Answer(
            200,
            {"content-type": "application/x-protobuf"},
            ExportTraceServiceResponse().SerializeToString(),
        )
    )
    requests: list[Request] = field(default_factory=list)

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answer

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, Any]:
        document = ExportTraceServiceRequest.FromString(self.requests[-1].body)
        return attributes(document.resource_spans[0].resource)


def attributes(carrier: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in carrier.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        found[pair.key] = (
            [part.string_value for part in value.values] if kind == "array_value" else value
        )
    return found


@contextmanager
def collecting(answer: Answer | None = None) -> Iterator[tuple[Collector, dict[str, str]]]:
    """A collector that runs, and the variables that lead to it."""
    collector = Collector() if answer is None else Collector(answer)
    with serve(collector) as at:
        yield collector, {"OTEL_EXPORTER_OTLP_ENDPOINT": at.url}


def nanoseconds(moment: str) -> int:
    past = datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)
    return past // timedelta(microseconds=1) * 1000


# One paid run, looked at from all sides


@dataclass(frozen=True, slots=True)
class Seen:
    """A run, as the collector has it and as the trace does."""

    collector: Collector
    result: Result
    trace: dict[str, Any]
    model_port: int
    answers: list[str]

    @property
    def spans(self) -> dict[str, Any]:
        """Spans by the id of the run, step or attempt that they stand for."""
        found = {}
        for span in self.collector.spans:
            told = attributes(span)
            step = told.get("penstock.step")
            run = told["penstock.run"]
            found[told.get("penstock.attempt") or (f"{run}/{step}" if step else run)] = span
        return found

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.trace["steps"])

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return [attempt for step in self.steps for attempt in step["attempts"]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with small_world() as world, collecting() as (collector, env):
        world.model.misbehave("status", code=429, retry_after=0, schema="plan")
        world.model.misbehave("length", schema="draft")
        world.model.misbehave("other_model", model="alpha-2", schema="review")
        desk = world.desk(
            tmp_path_factory.mktemp("otel"), **env,
            OTEL_EXPORTER_OTLP_HEADERS="x-team=writers", OTEL_RESOURCE_ATTRIBUTES="room=attic",
        )  # fmt: skip
        result = desk.once()
        assert result.code == 0, result
        trace = desk.read("runs", "trace", result.json["run"])
        answers = [text for (text,) in desk.rows("SELECT answer FROM attempt WHERE answer <> ''")]
        port = int(world.model_url.rpartition(":")[2])
        yield Seen(collector, result, trace, port, answers)


def test_the_spans_are_the_tree_that_runs_trace_draws(seen: Seen) -> None:
    assert len(seen.collector.requests) == 1
    spans = seen.spans
    expected: dict[str, str | None] = {seen.trace["id"]: None}
    expected |= {node["id"]: node["parent"] for node in [*seen.steps, *seen.attempts]}
    assert set(spans) == set(expected)
    assert len({span.span_id for span in spans.values()}) == len(expected) >= 12
    assert len({span.trace_id for span in spans.values()}) == 1
    for node, parent in expected.items():
        assert spans[node].parent_span_id == (spans[parent].span_id if parent else b""), node


def test_spans_have_the_times_of_the_journal(seen: Seen) -> None:
    for node in [seen.trace, *seen.steps]:
        span = seen.spans[node["id"]]
        assert span.start_time_unix_nano == nanoseconds(node["started_at"])
        assert span.end_time_unix_nano == nanoseconds(node["finished_at"])
    for attempt in seen.attempts:
        span = seen.spans[attempt["id"]]
        assert span.start_time_unix_nano == nanoseconds(attempt["at"])
        took = span.end_time_unix_nano - span.start_time_unix_nano
        assert took == attempt["duration_ms"] * 1_000_000


def test_a_request_is_told_by_the_conventions_for_generative_ai(seen: Seen) -> None:
    answered = [attempt for attempt in seen.attempts if attempt["outcome"] == "ok"]
    for attempt in answered:
        span = seen.spans[attempt["id"]]
        told = attributes(span)
        assert (span.name, span.kind, span.status.code) == ("chat alpha", CLIENT, 0)
        usage = attempt["usage"]
        expected = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "llm",
            "gen_ai.request.model": "alpha",
            "gen_ai.response.model": attempt["model_returned"],
            "gen_ai.usage.input_tokens": usage["input"],
            "gen_ai.usage.cache_read.input_tokens": usage["cached"],
            "gen_ai.usage.cache_creation.input_tokens": usage["cache_write"],
            "gen_ai.usage.output_tokens": usage["output"],
            "gen_ai.usage.reasoning.output_tokens": usage["reasoning"],
            "server.address": "127.0.0.1",
            "server.port": seen.model_port,
            "http.response.status_code": 200,
            "penstock.cost_micro": micro(attempt["cost"]),
        }
        assert told.items() >= expected.items()
        assert told["gen_ai.response.id"]
        assert "error.type" not in told
    models = {attempt["model_returned"] for attempt in answered}
    assert models == {"alpha", "alpha-2"}
    cut = [
        attributes(seen.spans[attempt["id"]])["gen_ai.response.finish_reasons"]
        for attempt in answered
        if "gen_ai.response.finish_reasons" in attributes(seen.spans[attempt["id"]])
    ]
    assert cut == [["length"]]


def test_a_refused_request_is_an_error_with_its_status(seen: Seen) -> None:
    (refused,) = [attempt for attempt in seen.attempts if attempt["outcome"] == "refused"]
    span = seen.spans[refused["id"]]
    told = attributes(span)
    assert (told["error.type"], span.status.code, span.status.message) == ("429", ERROR, "")
    assert "gen_ai.usage.input_tokens" not in told


def test_a_step_that_asks_is_an_agent_and_the_run_a_workflow(seen: Seen) -> None:
    root = seen.spans[seen.trace["id"]]
    assert (root.name, root.kind) == ("invoke_workflow article", INTERNAL)
    assert attributes(root)["gen_ai.workflow.name"] == "article"
    assert attributes(root)["penstock.outcome"] == "published"
    agents = {}
    for step in seen.steps:
        span = seen.spans[step["id"]]
        told = attributes(span)
        assert span.kind == INTERNAL
        assert told["penstock.step"] == step["name"]
        if step["attempts"]:
            agents[told["penstock.stage"]] = told["gen_ai.agent.name"]
            assert span.name == f"invoke_agent {told['gen_ai.agent.name']}"
            assert told["gen_ai.operation.name"] == "invoke_agent"
            # They are on its requests, and would be counted twice.
            assert not any(name.startswith("gen_ai.usage.") for name in told)
        else:
            assert span.name == told["penstock.stage"]
            assert not any(name.startswith("gen_ai.") for name in told)
    expected = {
        "plan": "researcher", "notes": "researcher", "draft": "writer", "review": "editor",
    }  # fmt: skip
    assert agents.items() >= expected.items()


def test_the_operators_variables_are_obeyed(seen: Seen) -> None:
    request = seen.collector.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/traces")
    assert request.headers["x-team"] == "writers"
    told = seen.collector.resource
    assert (told["service.name"], told["room"]) == ("penstock", "attic")


def test_no_prompt_answer_title_or_key_leaves(seen: Seen) -> None:
    sent = seen.collector.requests[0].body
    texts = [KEY, seen.trace["title"], "SQLite", "<source"]
    assert seen.answers
    texts += [answer[20:60] for answer in seen.answers if len(answer) > 60]
    for words in texts:
        assert words.encode() not in sent, words


def test_the_command_says_nothing_of_it_where_it_went_well(seen: Seen) -> None:
    assert "telemetry" not in seen.result.said
    assert "opentelemetry" not in seen.result.said


# Collectors that misbehave


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets for the library goes with it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    monkeypatch.setattr(os, "environ", kept)


def a_span() -> Span:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    return Span("r1", None, "invoke_workflow article", at, at, {})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, {}, b"key=s3cret"), "answered HTTP 401"),
        (Answer(503, {"retry-after": "3600"}), "answered HTTP 503"),
        (Answer(200, {}, b"x" * 4000, Fault.TRICKLE), "did not take the spans within 1 s"),
        (Answer(200, delay_s=60), "did not answer"),
        (Answer(200, fault=Fault.RESET), "did not answer"),
    ],
)
def test_a_collector_that_misbehaves_is_given_up_on_and_named(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, words: str
) -> None:
    assert telemetry.SEND_MAX_S <= 5
    monkeypatch.setattr(telemetry, "SEND_MAX_S", 1.0)
    began = time.monotonic()
    with collecting(answer) as (_, env):
        problem = telemetry.send([a_span()], env | {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.6"})
    assert time.monotonic() - began < 30
    assert problem is not None
    assert words in problem
    assert "s3cret" not in problem


def test_a_collector_that_is_down_never_changes_what_a_run_came_to(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised(None)
    result = desk.once(settings=DOWN)
    assert result.code == 0
    assert result.json["outcome"] == "published"
    (line,) = [line for line in result.err.splitlines() if "telemetry" in line]
    assert line.startswith(f"{result.json['run']} telemetry: the collector did not answer")
    assert "opentelemetry." not in result.err


def test_the_env_file_may_name_the_collector(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path).initialised(None)
    with collecting() as (collector, env):
        lines = [f"{name}={value}" for name, value in env.items()]
        (desk.home / ".env").write_text("\n".join([*lines, "OTEL_SERVICE_NAME=the-blog"]))
        result = desk.once()
    assert collector.resource["service.name"] == "the-blog"
    roots = [span for span in collector.spans if not span.parent_span_id]
    assert [attributes(root)["penstock.run"] for root in roots] == [result.json["run"]]
    assert roots[0].name == "invoke_workflow digest"


def test_another_protocol_is_named_and_not_guessed_at() -> None:
    problem = telemetry.send([a_span()], DOWN | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert problem is not None
    assert "http/protobuf" in problem


def test_a_missing_library_is_one_sentence_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    problem = telemetry.send([a_span()], DOWN)
    assert problem is not None
    assert "pip install 'penstock[otel]'" in problem


# What it costs when it is not wanted


def test_without_a_collector_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path)
    code = (
        "import sys, json; from daemon import cli; code = cli.main(['once', '--json']);"
        "print(json.dumps([n for n in sys.modules if n.split('.')[0] in"
        " ('opentelemetry', 'requests', 'google')]), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=desk.env({"OTEL_SERVICE_NAME": "x"}), cwd=desk.home,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert json.loads(done.stdout)["outcome"] == "published"


def test_a_collector_is_wanted_where_one_is_named_and_not_switched_off() -> None:
    base = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    assert telemetry.is_wanted(base)
    assert telemetry.is_wanted({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"})
    for off in (
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        base | {"OTEL_SDK_DISABLED": "TRUE"},
        base | {"OTEL_TRACES_EXPORTER": "none"},
    ):
        assert not telemetry.is_wanted(off), off


# Spans of other lives


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    one = Stage(tmp_path / "stage")
    one.deposit("5")
    return one


@pytest.fixture
def exported() -> Iterator[Callable[[list[Span]], list[Any]]]:
    """Send to a collector of one's own from inside this process."""
    with collecting() as (collector, env):

        def export(spans: list[Span]) -> list[Any]:
            collector.requests.clear()
            assert telemetry.send(spans, env) is None
            return collector.spans

        yield export


def collected(stage: Stage, run: str | None) -> list[Span]:
    with stage.reading() as tx:
        return telemetry.collect(tx, str(run), stage.settings.endpoints)


def test_sending_twice_gives_the_same_spans(
    stage: Stage, exported: Callable[[list[Span]], list[Any]]
) -> None:
    run = stage.once().run
    assert exported(collected(stage, run)) == exported(collected(stage, run))


def test_a_run_that_goes_on_is_the_same_trace_with_more_in_it(
    stage: Stage, exported: Callable[[list[Span]], list[Any]]
) -> None:
    with pytest.raises(Killed):
        stage.once(kill=Kill.at(18, after=True))
    with stage.reading() as tx:
        (row,) = journal.runs(tx)
    before = collected(stage, row.id)
    assert all(span.start <= span.end for span in before)
    early = exported(before)
    assert stage.once().outcome is RunOutcome.PUBLISHED
    after = exported(collected(stage, row.id))
    ids = {span.span_id for span in after}
    assert {span.trace_id for span in early} == {span.trace_id for span in after}
    assert {span.span_id for span in early} < ids


def test_a_request_of_unknown_outcome_says_why(stage: Stage) -> None:
    stage.model.misbehave("drop_after", schema="plan")
    report = stage.once()
    spans = collected(stage, report.run)
    errors = {span.name: span.error for span in spans if span.error}
    assert (
        errors
        == {
            "chat good": "connection_lost",
            "invoke_agent researcher": "no_answer",
            "invoke_workflow article": "failed",
        }
        or report.outcome is not RunOutcome.FAILED
    ), (errors, report)
    assert errors["chat good"] == "connection_lost"


def test_there_are_no_spans_of_no_run(stage: Stage) -> None:
    assert collected(stage, "r0") == []
    assert telemetry.send([], DOWN) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1", ("openai", "api.openai.com", 443)),
        ("https://api.mistral.ai/v1", ("mistral_ai", "api.mistral.ai", 443)),
        ("http://user:word@10.0.0.2:8080/v1", ("mine", "10.0.0.2", 8080)),
        ("http://localhost/v1", ("mine", "localhost", 80)),
    ],
)
def test_a_provider_has_the_conventions_name_where_its_host_tells(
    url: str, expected: tuple[str, str, int]
) -> None:
    told = telemetry._provider("mine", {"mine": Endpoint("mine", url, Secret("k"))})
    assert tuple(told.values()) == expected
    assert telemetry._provider("gone", {}) == {"gen_ai.provider.name": "gone"}


def test_ids_have_the_width_of_the_protocol_and_are_never_zero() -> None:
    ids = [f"r{number}" for number in range(1000)]
    assert all(0 < telemetry.trace_id(name) < 1 << 128 for name in ids)
    assert all(0 < telemetry.span_id(name) < 1 << 64 for name in ids)
    assert len({telemetry.span_id(name) for name in ids}) == len(ids)
