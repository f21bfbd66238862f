"""
What a model endpoint is to us: one request in, one outcome out.

`chat` is the adapter over HTTP. Every outcome is a value, since each of them moves money in its
own way; nothing here raises for what an endpoint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from daemon.inference.ladder import Rung
from daemon.inference.prices import Usage
from daemon.secret import Secret
from ledger.money import MicroCredits


class UsageApi(StrEnum):
    """How a provider can be asked what a key has used."""

    AUTO = "auto"
    OPENROUTER = "openrouter"
    NEW_API = "new-api"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible provider: its base URL, with the `/v1`, and its key."""

    name: str
    url: str
    key: Secret
    usage_api: UsageApi = UsageApi.AUTO

    @property
    def authorization(self) -> dict[str, str]:
        """The header with the key; none without one."""
        return {"authorization": f"Bearer {self.key.reveal()}"} if self.key else {}


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What the operator set for one model; None leaves the default of the request."""

    output_tokens_max: int | None = None
    timeout_s: float | None = None
    effort: str | None = None


class AnswerFormat(StrEnum):
    """How a structured answer is asked for, strictest first."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"


class Outcome(StrEnum):
    """What one HTTP request came to, sorted by what the books do."""

    OK = "ok"
    REFUSED = "refused"
    UNSENT = "unsent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """
    One request, complete: the adapter adds nothing that costs.

    Args:
        system: the part that stays the same from call to call, so that provider caches hit.
        schema_name, schema: the JSON schema of the answer.
        limit_field: the name under which this model takes the output limit.
    """

    rung: Rung
    system: str
    prompt: str
    schema_name: str
    schema: Mapping[str, Any]
    output_tokens_max: int
    timeout_s: float
    answer_format: AnswerFormat = AnswerFormat.JSON_SCHEMA
    limit_field: str = "max_tokens"
    effort: str | None = None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """
    What came of a request.

    Args:
        text: the answer, None when there is none to read.
        usage: None when missing, or zero beside an answer, which is missing too.
        reported_cost: what the provider says it charged.
        cut: the answer ended at its limit; it is paid and counts as invalid.
        error_body: how a refusal reads, as it came.
        retry_after_s: as the endpoint asked, unbounded and possibly negative.
        remote_id: the provider's own name for the answer, by which its cost can be looked up; at
            most 200 printable ASCII characters, and there for an unknown outcome, too, where read.
    """

    outcome: Outcome
    http_status: int | None = None
    text: str | None = None
    cut: bool = False
    model_returned: str | None = None
    usage: Usage | None = None
    reported_cost: MicroCredits | None = None
    retry_after_s: float | None = None
    error: str = ""
    error_body: str = ""
    remote_id: str | None = None


class Model(Protocol):
    """Something that answers requests."""

    def body(self, request: ModelRequest) -> bytes:
        """The bytes `send` will put on the wire; their number bounds the input tokens."""

    async def send(self, request: ModelRequest) -> ModelReply:
        """Send one HTTP request, once. Never raises for what the endpoint does."""
