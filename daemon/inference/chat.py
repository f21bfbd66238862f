"""
The adapter for OpenAI-compatible endpoints: one HTTP request per call, never a retry.

What the endpoint does becomes a `ModelReply`. The rule behind the sorting: unless we know that
nothing was billed, the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

import httpx

from daemon.inference.port import (
    AnswerFormat,
    Endpoint,
    ModelReply,
    ModelRequest,
    Outcome,
)
from daemon.inference.prices import Usage
from ledger.money import MICRO_MAX, MicroCredits

# Answers that a provider documents as not billed.
UNBILLED = frozenset({400, 401, 402, 403, 404, 422, 429})
# An answer is text of a few thousand tokens; more than this is not one.
ANSWER_BYTES_MAX = 8_000_000


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
        headers = {"content-type": "application/json", "user-agent": "penstock"}
        if endpoint.key:
            headers["authorization"] = f"Bearer {self._key}"
        # No proxies or netrc from the environment: the operator named this URL and no other.
        self._client = httpx.AsyncClient(
            transport=transport, headers=headers, trust_env=False, follow_redirects=False
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
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    async def send(self, request: ModelRequest) -> ModelReply:
        """Send it once."""
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._send(request)
        except TimeoutError:
            return ModelReply(Outcome.UNKNOWN, error=f"no answer in {request.timeout_s:g} s")

    async def _send(self, request: ModelRequest) -> ModelReply:
        try:
            async with self._client.stream(
                "POST", self._url, content=self.body(request), timeout=request.timeout_s
            ) as response:
                content = b""
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        return ModelReply(
                            Outcome.UNKNOWN, response.status_code, error="the answer has no end"
                        )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # No connection was made, so nothing can have been billed.
            return ModelReply(Outcome.UNSENT, error=_describe(error))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ModelReply(Outcome.UNKNOWN, error=_describe(error))
        if self._key:
            # Some providers quote a wrong key back, and what they say is stored.
            content = content.replace(self._key.encode(), b"***")
        return read_reply(response.status_code, response.headers, content)

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()


def read_reply(status: int, headers: Mapping[str, str], content: bytes) -> ModelReply:
    """Sort one complete HTTP answer."""
    retry_after_s = _retry_after(headers.get("retry-after"))
    try:
        document = json.loads(content, parse_float=Decimal)
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else {}
    error = document.get("error")
    if status != 200 or (error and not document.get("choices")):
        billed = status == 200 or status not in UNBILLED
        details = error if isinstance(error, dict) else {}
        message = details.get("message") or error or content[:200].decode("utf-8", "replace")
        return ModelReply(
            Outcome.UNKNOWN if billed else Outcome.REFUSED,
            status,
            retry_after_s=retry_after_s,
            error=f"HTTP {status}: {str(message)[:300]}",
            error_body=details,
        )
    text, cut = _answer(document)
    usage = _usage(document.get("usage"))
    if usage is not None and not (usage.input or usage.output) and text:
        # Zero beside an answer that is not empty is missing, not free.
        usage = None
    cost = _reported_cost(document.get("usage"))
    known = usage is not None or cost is not None
    return ModelReply(
        Outcome.OK if known else Outcome.UNKNOWN,
        status,
        text=text,
        cut=cut,
        model_returned=document.get("model") if isinstance(document.get("model"), str) else None,
        usage=usage,
        reported_cost=cost,
        error="" if known else "the answer does not say what was used",
    )


def _answer(document: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The text of the first choice, and whether it ended at its limit."""
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not isinstance(choice, dict):
        return None, False
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = "".join(str(_dict(part).get("text") or "") for part in content)
    return (content if isinstance(content, str) else None), choice.get("finish_reason") == "length"


def _usage(found: Any) -> Usage | None:
    """
    Tokens, disjoint where we need them so.

    OpenAI counts cached tokens inside the prompt and reasoning inside the completion; DeepSeek
    names the cached part in a field of its own.
    """
    if not isinstance(found, dict):
        return None
    prompt, completion = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    inside = _dict(found.get("prompt_tokens_details"))
    cached = _count(inside.get("cached_tokens"))
    if cached is None:
        cached = _count(found.get("prompt_cache_hit_tokens")) or 0
    reasoning = _count(_dict(found.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    return Usage(
        input=prompt,
        cached=min(cached, prompt),
        output=completion,
        cache_write=_count(inside.get("cache_write_tokens")) or 0,
        reasoning=reasoning,
    )


def _reported_cost(found: Any) -> MicroCredits | None:
    """What the provider says it charged (OpenRouter's `usage.cost`), rounded up."""
    cost = _dict(found).get("cost")
    if isinstance(cost, bool) or not isinstance(cost, (int, Decimal)):
        return None
    if not Decimal(cost).is_finite() or cost < 0 or cost * 1_000_000 > MICRO_MAX:
        return None
    return MicroCredits(int((Decimal(cost) * 1_000_000).to_integral_value(ROUND_CEILING)))


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**10:
        return None
    return value


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _retry_after(value: str | None) -> float | None:
    """Seconds; a date or nonsense is None, and the caller has a bound of its own."""
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
