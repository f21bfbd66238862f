"""
The adapter for OpenAI-compatible endpoints: one HTTP request per call, never a retry.

What the endpoint does becomes a `ModelReply`. The rule behind the sorting: unless we know that
nothing was billed, the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from daemon import tls
from daemon.inference.port import (
    AnswerFormat,
    Endpoint,
    ModelReply,
    ModelRequest,
    Outcome,
)
from daemon.inference.usage import fields, read_json, read_usage, reported_cost

# Answers that a provider documents as not billed.
UNBILLED = frozenset({400, 401, 402, 403, 404, 422, 429})
# An answer is text of a few thousand tokens; more than this is not one.
ANSWER_BYTES_MAX = 8_000_000
# Who does not take the connection by then was not reached, and could not bill anything.
CONNECT_MAX_S = 15.0
LABEL_CHARS_MAX = 200
ERROR_CHARS_MAX = 300
ERROR_BODY_BYTES_MAX = 4000
# OpenRouter's name for an answer; it comes with the head, so a lost body can still be asked for.
GENERATION_HEADER = "x-generation-id"


class ChatModel:
    """
    Chat completions at one endpoint.

    Args:
        transport: how bytes travel; None for real sockets.
    """

    def __init__(
        self, endpoint: Endpoint, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = f"{endpoint.url}/chat/completions"
        self._key = endpoint.key.reveal()
        self._client = tls.client(
            transport,
            {
                "content-type": "application/json",
                "user-agent": "penstock",
                **endpoint.authorization,
            },
            # A connection that was kept may be closed by the other side just as we send on it, and
            # then nobody can say whether the request was read.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def body(self, request: ModelRequest) -> bytes:
        """The request's bytes."""
        prompt = request.prompt
        body: dict[str, Any] = {
            "model": request.rung.model,
            "messages": [],
            "stream": False,
            request.limit_field: request.output_tokens_max,
        }
        if request.answer_format is AnswerFormat.JSON_SCHEMA:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": request.schema_name,
                    "schema": request.schema,
                    "strict": True,
                },
            }
        else:
            schema = json.dumps(request.schema, ensure_ascii=False)
            prompt += (
                f"\n\nSchema: {request.schema_name}\n"
                "Answer with one JSON document that fits this JSON schema, and nothing else:\n"
                f"{schema}"
            )
            if request.answer_format is AnswerFormat.JSON_OBJECT:
                body["response_format"] = {"type": "json_object"}
        if request.effort is not None:
            body["reasoning_effort"] = request.effort
        body["messages"] = [
            {"role": "system", "content": request.system},
            {"role": "user", "content": prompt},
        ]
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair has no bytes in UTF-8; text from elsewhere may have one.
        return text.encode("utf-8", "replace")

    async def send(self, request: ModelRequest) -> ModelReply:
        """Send it once."""
        reply = await self._send(request)
        return replace(reply, error=self._without_key(reply.error)) if reply.error else reply

    async def _send(self, request: ModelRequest) -> ModelReply:
        # What is known should the connection break now.
        known = ModelReply(Outcome.UNKNOWN)
        limit_s = request.timeout_s
        timeout = httpx.Timeout(limit_s, connect=min(limit_s / 2, CONNECT_MAX_S))
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.stream(
                    "POST", self._url, content=self.body(request), timeout=timeout
                ) as response,
            ):
                known = read_reply(response.status_code, response.headers, b"")
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        return replace(known, error="the answer has no end")
        except TimeoutError:
            return replace(known, error=f"no answer in {limit_s:g} s")
        except _NOTHING_SENT as error:
            return ModelReply(Outcome.UNSENT, error=_describe(error))
        # OSError: what TLS finds wrong with an answer comes as it is.
        except (httpx.HTTPError, OSError) as error:
            return replace(known, error=_describe(error))
        said = bytes(content)
        if response.status_code != 200:
            said = self._without_key(said.decode("utf-8", "replace")).encode()
        return read_reply(response.status_code, response.headers, said)

    def _without_key(self, said: str) -> str:
        """Some providers quote a wrong key back, and what they say of it is stored."""
        # Never done to an answer: a local server's key may be a word, or a digit.
        for form in (self._key, self._key.replace("/", "\\/")):
            said = said.replace(form, "***") if form else said
        return said

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()


# No connection was made, or the request was none, so nothing can have been billed.
_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)


def read_reply(status: int, headers: Mapping[str, str], content: bytes) -> ModelReply:
    """Sort one HTTP answer; without content, what its head alone says."""
    document = fields(read_json(content))
    failure = _failure(document.get("error"), content)
    reply = ModelReply(
        Outcome.UNKNOWN,
        status,
        retry_after_s=_retry_after(headers.get("retry-after")),
        remote_id=_label(document.get("id")) or _label(headers.get(GENERATION_HEADER)),
    )
    if status != 200:
        return replace(
            reply,
            outcome=Outcome.REFUSED if status in UNBILLED else Outcome.UNKNOWN,
            error=_problem(status, failure or _excerpt(content)),
            error_body=content[:ERROR_BODY_BYTES_MAX].decode("utf-8", "replace"),
        )
    message, cut = _message(document)
    usage, cost = read_usage(document.get("usage")), reported_cost(document.get("usage"))
    counted = usage is not None and (usage.output or (usage.input and not message))
    if (message or failure) and not counted:
        # Zero beside an answer that is not empty is missing, not free, and so is a cost of zero.
        usage, cost = None, cost or None
    known = usage is not None or cost is not None
    missing = "" if known else "the answer does not say what was used"
    return replace(
        reply,
        outcome=Outcome.OK if known else Outcome.UNKNOWN,
        text=_text(message.get("content")),
        cut=cut,
        model_returned=_label(document.get("model")),
        usage=usage,
        reported_cost=cost,
        error=_problem(status, failure) if failure else missing,
    )


def _message(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """What the first choice says, without what is empty, and whether it ended at its limit."""
    choices = document.get("choices")
    choice = fields(choices[0]) if isinstance(choices, list) and choices else {}
    message = choice.get("message")
    # A choice without a message may say something in a way of its own: it is not empty.
    parts = message if isinstance(message, dict) else choice
    said = {name: value for name, value in parts.items() if value and name != "role"}
    return said, choice.get("finish_reason") == "length"


def _text(content: Any) -> str | None:
    if isinstance(content, list):
        texts = [fields(part).get("text") for part in content]
        content = "".join(text for text in texts if isinstance(text, str))
    return _storable(content) if isinstance(content, str) else None


def _failure(error: Any, content: bytes) -> str:
    """What an error document says; empty where there is none, or one with nothing in it."""
    if isinstance(error, dict):
        # Some gateways send one with every answer, and fill it when something is wrong.
        error = error.get("message") or any(error.values())
    if not error:
        return ""
    return error if isinstance(error, str) else _excerpt(content)


def _problem(status: int, said: str) -> str:
    return _storable(f"HTTP {status}: {said[:ERROR_CHARS_MAX]}")


def _excerpt(content: bytes) -> str:
    return content[:ERROR_CHARS_MAX].decode("utf-8", "replace")


def _label(value: Any) -> str | None:
    """A name the provider gave, where it is one we can keep and ask by."""
    if not isinstance(value, str) or not 0 < len(value) <= LABEL_CHARS_MAX:
        return None
    return value if value.isascii() and value.isprintable() else None


def _storable(text: str) -> str:
    """Text as every database takes it: no half surrogate pairs, no NUL."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _retry_after(value: str | None) -> float | None:
    """Seconds; a date or nonsense is None, and the caller has a bound of its own."""
    try:
        seconds = float(value) if value else None
    except ValueError:
        return None
    return None if seconds is None or math.isnan(seconds) else seconds


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
