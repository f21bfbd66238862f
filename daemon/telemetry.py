"""
A run as OpenTelemetry spans, by the semantic conventions for generative AI.

Nothing is measured while a run works: the journal has every step and request with its times, so
spans are made from it afterwards. Ids are derived from the run's own, so that a run that is sent
twice, or goes on later, is the same trace. No prompt, answer, title or error text is ever sent.

    collect   journal to spans; values only, and nothing of OpenTelemetry
    send      spans to the collector of the OTEL_* variables; never fails, and never takes long

The conventions (github.com/open-telemetry/semantic-conventions-genai) are in development and were
read in 2026-11: a run is `invoke_workflow`, a step that asks a model `invoke_agent`, a request
`chat`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import Connection

from daemon import __version__, journal
from daemon.inference import attempts
from daemon.inference.ladder import Role
from daemon.inference.port import Endpoint, Outcome
from daemon.journal import RunOutcome, StepState
from daemon.report import request_kind, run_state, stage, step_kind

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan

SEND_MAX_S = 4.0
PROTOCOL = "http/protobuf"
_PREFIX = "OTEL_"
_DEFAULTS = {"OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

AGENTS = {Role.RESEARCH: "researcher", Role.WRITE: "writer", Role.EDIT: "editor"}
# The conventions' own names, where the host tells; else the operator's name stands.
PROVIDERS = {
    "api.anthropic.com": "anthropic",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
_USAGE = {
    "input": "gen_ai.usage.input_tokens",
    "cached": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_creation.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
}

Value = str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class Span:
    """
    One span, before any library sees it.

    Args:
        id, parent: of a run, step or attempt as `runs trace` has them; the root has no parent.
        is_request: it waits for somebody else (kind CLIENT), else it is our own work (INTERNAL).
        error: a word that can be counted; None where nothing failed.
    """

    id: str
    parent: str | None
    name: str
    start: datetime
    end: datetime
    attributes: Mapping[str, Value]
    is_request: bool = False
    error: str | None = None


def is_wanted(env: Mapping[str, str]) -> bool:
    """Whether the operator named a collector, and did not switch this off again."""
    named = env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(named) and not off and env.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "none"


# From the journal to spans


def collect(tx: Connection, run: str, endpoints: Mapping[str, Endpoint]) -> list[Span]:
    """
    A run, its steps and their requests, parents first; nothing where there is no such run.

    What has not ended ends with the last that is known of it.
    """
    row = journal.run(tx, run)
    if row is None:
        return []
    by_step: dict[str, list[Any]] = {}
    for attempt in attempts.of_run(tx, run):
        by_step.setdefault(attempt.step, []).append(attempt)
    below: list[Span] = []
    for step in journal.steps(tx, run):
        requests = [_request(attempt, endpoints) for attempt in by_step.get(step.name, ())]
        below += [_step(step, by_step.get(step.name, []), requests), *requests]
    return [_run(row, below), *below]


def _run(row: Any, below: Sequence[Span]) -> Span:
    counted = run_state(row.state, row.outcome)
    end = row.finished_at or max((span.end for span in below), default=row.started_at)
    return Span(
        id=row.id,
        parent=None,
        name=f"invoke_workflow {row.kind}",
        start=row.started_at,
        end=max(end, row.started_at),
        attributes={
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": row.kind,
            "penstock.run": row.id,
            "penstock.tier": row.tier,
            "penstock.state": row.state,
            "penstock.outcome": counted,
        },
        error=counted if counted in (RunOutcome.FAILED, RunOutcome.UNCONFIRMED) else None,
    )


def _step(row: Any, made: Sequence[Any], requests: Sequence[Span]) -> Span:
    # Of a step that was begun again, the end is of the time before.
    ended = row.finished_at if row.state != StepState.RUNNING else None
    end = ended or max((span.end for span in requests), default=row.started_at)
    attributes: dict[str, Value] = {
        "penstock.run": row.run,
        "penstock.step": row.name,
        "penstock.stage": stage(row.name),
        "penstock.state": row.state,
    }
    name = stage(row.name)
    if made:
        agent = AGENTS.get(made[-1].role, made[-1].role)
        name = f"invoke_agent {agent}"
        # Its tokens are on its requests; here they would be counted twice.
        attributes |= {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": agent,
            "gen_ai.provider.name": requests[-1].attributes["gen_ai.provider.name"],
            "gen_ai.request.model": made[-1].model,
        }
    error = None
    if row.state == StepState.FAILED:
        error = "not_published" if stage(row.name) == "publish" else step_kind(row.error)
    return Span(
        id=f"{row.run}/{row.name}",
        parent=row.run,
        name=name,
        start=row.started_at,
        end=max(end, row.started_at),
        attributes=attributes,
        error=error,
    )


def _request(row: Any, endpoints: Mapping[str, Endpoint]) -> Span:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": row.model,
        **_provider(row.provider, endpoints),
        "penstock.run": row.run,
        "penstock.step": row.step,
        "penstock.attempt": row.id,
        "penstock.provider": row.provider,
        "penstock.role": row.role,
    }
    known = {
        "gen_ai.response.model": row.model_returned,
        "gen_ai.response.id": row.remote_id,
        "http.response.status_code": row.http_status,
        "penstock.outcome": row.outcome,
        "penstock.cost_micro": row.cost_micro,
        **{name: (row.usage or {}).get(key) for key, name in _USAGE.items()},
    }
    attributes |= {name: value for name, value in known.items() if value is not None}
    if row.cut:
        attributes["gen_ai.response.finish_reasons"] = ["length"]
    error = None
    if row.outcome not in (None, Outcome.OK):
        answered = row.http_status not in (None, 200)
        error = (
            str(row.http_status)
            if answered
            else request_kind(row.outcome, row.http_status, row.error)
        )
    return Span(
        id=row.id,
        parent=f"{row.run}/{row.step}",
        name=f"chat {row.model}",
        start=row.at,
        end=row.at + timedelta(milliseconds=row.duration_ms or 0),
        attributes=attributes,
        is_request=True,
        error=error,
    )


def _provider(name: str, endpoints: Mapping[str, Endpoint]) -> dict[str, Value]:
    """Who is asked, and where; of the URL the host and port only."""
    if name not in endpoints or not endpoints[name].url:
        return {"gen_ai.provider.name": name}
    url = urlsplit(endpoints[name].url)
    host = url.hostname or ""
    return {
        "gen_ai.provider.name": PROVIDERS.get(host, name),
        "server.address": host,
        "server.port": url.port or (443 if url.scheme == "https" else 80),
    }


def trace_id(run: str) -> int:
    """128 bits that stand for a run."""
    return _bits(f"penstock trace {run}", 16)


def span_id(id: str) -> int:
    """64 bits that stand for a run, step or attempt."""
    return _bits(f"penstock span {id}", 8)


def _bits(text: str, count: int) -> int:
    # Zero would mean that there is none.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:count], "big") or 1


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


# To the collector


def send(spans: Sequence[Span], env: Mapping[str, str]) -> str | None:
    """
    Send one run's spans; blocks for at most four seconds.

    Args:
        spans: as `collect` returns them.
        env: where the OTEL_* variables are; the library reads the process's own environment, so
            what an env file has of them is put there.
    Returns:
        What went wrong, with its remedy; None where nothing did.
    """
    if not spans:
        return None
    protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL
    )
    if protocol.strip() != PROTOCOL:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and {PROTOCOL} is all that is spoken"
    # The library's own ten seconds are more than a run may be kept waiting for.
    for name, value in (_DEFAULTS | dict(env)).items():
        if name.startswith(_PREFIX) and not os.environ.get(name):
            os.environ[name] = value
    problems: list[str] = []
    # The library's own timeouts do not bound resolving a name, nor a collector that answers byte
    # by byte. A thread that is left behind ends with the process.
    sender = threading.Thread(
        target=_send, args=(spans, problems), name="penstock-telemetry", daemon=True
    )
    sender.start()
    sender.join(SEND_MAX_S)
    if sender.is_alive():
        return f"the collector did not take the spans within {SEND_MAX_S:g} s"
    return problems[0] if problems else None


def _send(spans: Sequence[Span], problems: list[str]) -> None:
    """Whatever goes wrong here is a sentence in `problems`."""
    try:
        _export(spans, problems)
    except ImportError:
        problems.append(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed:"
            " pip install 'penstock[otel]'"
        )
    except Exception as error:  # noqa: BLE001 - telling of a run must never change what it came to
        # Its message may quote a header or a URL, and with it a key.
        problems.append(f"the spans could not be sent: {type(error).__name__}")


def _export(spans: Sequence[Span], problems: list[str]) -> None:
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    # It speaks through `logging`, in lines without the run's id and with whole URLs.
    quiet = logging.getLogger("opentelemetry")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    statuses: list[int] = []

    def note(response: requests.Response, *_args: Any, **_kwargs: Any) -> None:
        statuses.append(response.status_code)

    ended = list(_ended(spans))
    with requests.Session() as session:
        session.hooks["response"].append(note)
        exporter = OTLPSpanExporter(session=session)
        if ended and exporter.export(ended) is not SpanExportResult.SUCCESS:
            said = f"answered HTTP {statuses[-1]}" if statuses else "did not answer"
            problems.append(f"the collector {said}; see OTEL_EXPORTER_OTLP_ENDPOINT")


def _ended(spans: Sequence[Span]) -> Iterator[ReadableSpan]:
    """The same spans as the library has them, under our ids and with our times."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Ids(IdGenerator):
        """Says the id of the span that is made next."""

        upcoming = ""

        def generate_trace_id(self) -> int:
            return trace_id(spans[0].id)

        def generate_span_id(self) -> int:
            return span_id(self.upcoming)

    ids = Ids()
    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "penstock"}))
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    tracer = provider.get_tracer("penstock", __version__)
    contexts: dict[str | None, Context] = {}
    for span in spans:
        ids.upcoming = span.id
        made = tracer.start_span(
            span.name,
            context=contexts.get(span.parent),
            kind=trace.SpanKind.CLIENT if span.is_request else trace.SpanKind.INTERNAL,
            attributes=span.attributes,
            start_time=_nanoseconds(span.start),
        )
        contexts[span.id] = trace.set_span_in_context(made)
        if span.error is not None:
            made.set_attribute("error.type", span.error)
            made.set_status(trace.StatusCode.ERROR)
        made.end(_nanoseconds(span.end))
        # The operator's sampler may have left it out.
        if isinstance(made, ReadableSpan):
            yield made
