"""An OpenAI-compatible chat endpoint that keeps its own bill and misbehaves on request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from tests.doubles import author
from tests.doubles.wire import Answer, Fault, Request

Prices = tuple[int, int, int]  # micro-credits per million tokens: input, cached input, output
DEFAULT_PRICES: Prices = (3_000_000, 300_000, 15_000_000)
CACHE_STEP_BYTES = 1024

Kind = Literal[
    "status",  # code=…, retry_after=None, body=None (a JSON value, or text); not billed
    "status_after",  # the same, and billed
    "reset_before",  # connection reset before the model ran; not billed
    "reset_after",  # billed, then reset
    "drop_after",  # billed, then closed without answering
    "cut_after",  # billed, half a body
    "stall",  # billed, half a body, then silence
    "truncated_json",  # content cut, finish_reason "stop"
    "length",  # content cut, finish_reason "length"
    "no_usage",  # usage missing
    "zero_usage",  # usage all zero
    "error_in_200",  # status 200 with an error, usage=False; billed
    "other_model",  # model=… answers and is billed
    "not_json",  # the content is prose
    "no_json_schema",  # 400 where json_schema is asked for; not billed
    "no_json_object",  # 400 where json_object is asked for; not billed
    "max_completion_tokens",  # 400 where max_tokens is used; not billed
    "slow",  # seconds=…
    "invented_quote",  # notes whose quotes are in no source
    "reported_cost",  # usage.cost, in credits
]
UsageApi = Literal["openrouter", "new-api"]
QUOTA_PER_CREDIT = 500_000  # of New-API, as it ships
MICRO_PER_QUOTA = 1_000_000 // QUOTA_PER_CREDIT

_FAULTS = {
    "reset_after": Fault.RESET,
    "drop_after": Fault.DROP,
    "cut_after": Fault.CUT,
    "stall": Fault.STALL,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One chat request as it was read; schema is "" where none is named."""

    schema: str
    model: str
    messages: tuple[Mapping[str, Any], ...]
    raw: bytes
    fields: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All message contents, a line break between messages."""
        return "\n".join(_contents(message.get("content")) for message in self.messages)

    @property
    def tokens_max(self) -> int | None:
        """The output limit, by either of its names."""
        limit = self.fields.get("max_completion_tokens", self.fields.get("max_tokens"))
        return limit if isinstance(limit, int) else None

    @property
    def format(self) -> str:
        """The type of response_format, "text" where there is none."""
        return str((self.fields.get("response_format") or {}).get("type", "text"))


@dataclass(frozen=True, slots=True)
class Charge:
    """
    One line of the bill; cached tokens are part of input.

    `micro` is what is billed: the price of the tokens, `listed`, or what New API rounds it to.
    `kind` is how the answer was spoiled, "" where it was not.
    """

    model: str
    input: int
    cached: int
    output: int
    micro: int
    schema: str
    kind: str = ""
    listed: int = 0


@dataclass(slots=True)
class Trouble:
    """One arranged misbehaviour; `after` matching requests pass first, None times is for ever."""

    kind: Kind
    schema: str | None
    model: str | None
    times: int | None
    after: int
    details: dict[str, Any] = field(default_factory=dict)

    def concerns(self, asked: Asked) -> bool:
        """Whether this request is one of those it was arranged for."""
        if self.schema not in (None, asked.schema) or self.model not in (None, asked.model):
            return False
        match self.kind:
            case "no_json_schema":
                return asked.format == "json_schema"
            case "no_json_object":
                return asked.format == "json_object"
            case "max_completion_tokens":
                return "max_completion_tokens" not in asked.fields
            case "invented_quote":
                return asked.schema == "notes"
            case _:
                return True


class ModelDouble:
    """
    A model provider with one key, a price list and a bill.

    Args:
        prices: Per model; an unlisted model costs DEFAULT_PRICES.
        key: The only bearer token it accepts.
        caching: Bill a prefix shared with an earlier request of the model as cached.
        usage_api: How it can be asked about its bill; None where it cannot.
    """

    def __init__(
        self,
        prices: dict[str, Prices] | None = None,
        *,
        key: str = "test-key",
        caching: bool = False,
        usage_api: UsageApi | None = None,
    ) -> None:
        self.prices = prices if prices is not None else {}
        self.key = key
        self.caching = caching
        self.usage_api = usage_api
        self.used_before = 0  # micro-credits on the key's counter that are not on this bill
        self.uncounted: Callable[[], int] = lambda: 0  # of the bill, and not yet on the counter
        self.forgets_answers = False  # answers cannot be looked up one by one
        self.chokes_on: str | None = None  # the answer that cannot be looked up today
        self.usage_status = 200
        self.usage_requests: list[str] = []
        self.bill: list[Charge] = []
        self.requests: list[Asked] = []
        self.reviews: list[dict[str, Any]] = []  # handed out in order before approvals
        self.answers: dict[str, Callable[[Asked], dict[str, Any] | str]] = {}
        self.troubles: list[Trouble] = []
        self._prompts: dict[str, list[bytes]] = {}

    @property
    def billed_micro(self) -> int:
        """Everything charged so far, in micro-credits."""
        return sum(charge.micro for charge in self.bill)

    def misbehave(
        self,
        kind: Kind,
        *,
        schema: str | None = None,
        model: str | None = None,
        times: int | None = 1,
        after: int = 0,
        **details: Any,
    ) -> None:
        """
        Arrange trouble for the requests that match; the first entry that is due wins.

        Args:
            schema: Only where this schema is asked for.
            model: Only for this model. (The kind other_model takes `model` as what answers.)
            times: How many requests it spoils; None is for ever.
            after: How many matching requests pass first.
            details: What the kind needs; see Kind.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"unknown misbehaviour {kind!r}")
        needed = {"status": "code", "status_after": "code", "slow": "seconds"}.get(kind)
        if needed is not None and needed not in details:
            raise ValueError(f"{kind} needs {needed}=…")
        if kind == "other_model":
            if model is None:
                raise ValueError("other_model needs model=…")
            details, model = {**details, "answers": model}, None
        self.troubles.append(Trouble(kind, schema, model, times, after, details))

    async def handle(self, request: Request) -> Answer:
        """Answer a chat request, or list the models, or tell the bill."""
        match request.method, request.path:
            case "GET", "/bill":
                return Answer.of({"micro": self.billed_micro, "calls": len(self.bill)})
            case "POST", "/misbehave":
                return self._arrange(request)
            case "GET", path if self._tells_usage(path):
                return self._usage_answer(request)
            case ("GET", "/v1/models") | ("POST", "/v1/chat/completions"):
                if request.headers.get("authorization") != f"Bearer {self.key}":
                    return _refusal(401, "Incorrect API key provided.", code="invalid_api_key")
                return self._chat(request) if request.method == "POST" else self._list()
            case _:
                return _refusal(404, f"Unknown request URL: {request.method} {request.path}.")

    def charge(self, micro: int) -> None:
        """Bill something nobody here has asked for."""
        self.bill.append(Charge("elsewhere", 0, 0, 0, micro, ""))

    def _tells_usage(self, path: str) -> bool:
        match self.usage_api:
            case "openrouter":
                return path in ("/v1/key", "/v1/generation")
            case "new-api":
                return path in ("/api/usage/token/", "/api/status")
            case None:
                return False

    def _usage_answer(self, request: Request) -> Answer:
        self.usage_requests.append(request.target)
        if self.usage_status != 200:
            return _refusal(self.usage_status, "Not now.")
        if request.path == "/api/status":
            return Answer.of({"success": True, "data": {"quota_per_unit": QUOTA_PER_CREDIT}})
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return _refusal(401, "Incorrect API key provided.", code="invalid_api_key")
        used = self.used_before + self.billed_micro - self.uncounted()
        if request.path == "/v1/key":
            return Answer.of({"data": {"label": "sk-…", "usage": used / 1e6, "limit": None}})
        if request.path == "/api/usage/token/":
            quota = used // MICRO_PER_QUOTA
            return Answer.of({"code": True, "data": {"object": "token_usage", "total_used": quota}})
        return self._generation(request.query.get("id", ""))

    def _generation(self, name: str) -> Answer:
        number = name.removeprefix("chatcmpl-")
        if name == self.chokes_on:
            return _refusal(503, "Not now.")
        if self.forgets_answers or not number.isdigit() or int(number) > len(self.bill):
            return _refusal(404, f"Generation {name} not found")
        charge = self.bill[int(number) - 1]
        return Answer.of({"data": {"id": name, "total_cost": charge.micro / 1e6}})

    def _arrange(self, request: Request) -> Answer:
        try:
            self.misbehave(**request.json)
        except (TypeError, ValueError) as problem:
            return _refusal(400, str(problem))
        return Answer.of({"troubles": len(self.troubles)})

    def _list(self) -> Answer:
        models = [{"id": name, "object": "model"} for name in self.prices]
        return Answer.of({"object": "list", "data": models})

    def _chat(self, request: Request) -> Answer:
        try:
            asked = _read(request.body)
        except (ValueError, TypeError, AttributeError) as problem:
            return _refusal(400, f"We could not parse the body of your request: {problem}")
        self.requests.append(asked)
        if (unsupported := _unsupported(asked)) is not None:
            return unsupported
        trouble = self._trouble(asked)
        refused = _refused(trouble) if trouble else None
        return refused or self._complete(asked, trouble)

    def _trouble(self, asked: Asked) -> Trouble | None:
        """The first entry that is due; every matching entry counts the request."""
        chosen: Trouble | None = None
        for trouble in [one for one in self.troubles if one.concerns(asked)]:
            if trouble.after > 0:
                trouble.after -= 1
            elif chosen is None:
                chosen = trouble
        if chosen is not None and chosen.times is not None:
            chosen.times -= 1
            if chosen.times <= 0:
                self.troubles.remove(chosen)
        return chosen

    def _complete(self, asked: Asked, trouble: Trouble | None) -> Answer:
        kind = trouble.kind if trouble else None
        details = trouble.details if trouble else {}
        content, finish = _limited(_spoiled(kind, self._write(asked, kind)), asked.tokens_max)
        charge = self._charge(asked, details.get("answers", asked.model), content, kind or "")
        if kind == "status_after":
            return _status(**details)
        reply = _reply(len(self.bill), charge, content, "length" if kind == "length" else finish)
        if kind == "error_in_200":
            failed = _error("The provider failed after generation started.", "server_error")
            used = {"usage": reply["usage"]} if details.get("usage") else {}
            reply = {"id": reply["id"]} | used | failed
        elif kind == "no_usage":
            del reply["usage"]
        elif kind == "zero_usage":
            reply["usage"] = _usage(replace(charge, input=0, cached=0, output=0))
        elif kind == "reported_cost":
            reply["usage"]["cost"] = charge.micro / 1_000_000
        fault = _FAULTS.get(kind or "", Fault.NONE)
        return replace(Answer.of(reply), fault=fault, delay_s=float(details.get("seconds", 0)))

    def _write(self, asked: Asked, kind: Kind | None) -> str:
        if kind == "not_json":
            return "I looked at this carefully, and I would rather explain it in my own words."
        if kind == "invented_quote":
            return _dump(author.invented_notes(asked.text))
        if asked.schema in self.answers:
            given = self.answers[asked.schema](asked)
            return given if isinstance(given, str) else _dump(given)
        if asked.schema == "review" and self.reviews:
            return _dump(self.reviews.pop(0))
        writer = author.WRITERS.get(asked.schema)
        return _dump(writer(asked.text)) if writer else "Understood."

    def _charge(self, asked: Asked, model: str, content: str, kind: str) -> Charge:
        prompt = "".join(_contents(m.get("content")) for m in asked.messages).encode()
        tokens_in, tokens_out = -(-len(prompt) // 4), -(-len(content.encode()) // 4)
        cached = self._cached_bytes(model, prompt) // 4
        input_price, cached_price, output_price = self.prices.get(model, DEFAULT_PRICES)
        cost = (tokens_in - cached) * input_price + cached * cached_price
        cost += tokens_out * output_price
        micro = listed = -(-cost // 1_000_000)
        if self.usage_api == "new-api":
            # relay/compatible_handler.go: rounded half up, and nothing is free.
            unit = MICRO_PER_QUOTA * 1_000_000
            micro = max(1, (cost + unit // 2) // unit) * MICRO_PER_QUOTA
        charge = Charge(model, tokens_in, cached, tokens_out, micro, asked.schema, kind, listed)
        self.bill.append(charge)
        return charge

    def _cached_bytes(self, model: str, prompt: bytes) -> int:
        if not self.caching:
            return 0
        earlier = self._prompts.setdefault(model, [])
        longest = max((_shared_steps(prompt, other) for other in earlier), default=0)
        earlier.append(prompt)
        return longest * CACHE_STEP_BYTES


# Reading the request


def _read(body: bytes) -> Asked:
    fields = json.loads(body)
    messages = tuple(fields.get("messages") or ())
    asked = Asked("", str(fields.get("model", "")), messages, body, fields)
    return replace(asked, schema=_schema(asked))


def _schema(asked: Asked) -> str:
    """The schema asked for: named in response_format, or else in the prompt."""
    named = (asked.fields.get("response_format") or {}).get("json_schema") or {}
    if named.get("name"):
        return str(named["name"])
    line = re.search(r"^[ \t*#]*Schema[ *]*:[ \t*`\"]*(\w+)", asked.text, re.M | re.I)
    if line:
        return line[1].lower()
    titles = (title.lower() for title in re.findall(r'"title"\s*:\s*"(\w+)"', asked.text))
    return next((title for title in titles if title in author.WRITERS), "")


def _contents(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def _shared_steps(one: bytes, other: bytes) -> int:
    """How many whole cache steps two prompts have in common from the start."""
    steps = 0
    while (end := (steps + 1) * CACHE_STEP_BYTES) <= min(len(one), len(other)):
        if one[end - CACHE_STEP_BYTES : end] != other[end - CACHE_STEP_BYTES : end]:
            break
        steps += 1
    return steps


# Refusing, before anything is billed


def _unsupported(asked: Asked) -> Answer | None:
    if asked.tokens_max is None:
        return _refusal(400, "An output-token limit is required.", param="max_tokens")
    if asked.fields.get("stream"):
        return _refusal(400, "Streaming is not supported here.", param="stream")
    if asked.fields.get("n", 1) != 1:
        return _refusal(400, "Only one choice is supported.", param="n")
    return None


def _refused(trouble: Trouble) -> Answer | None:
    match trouble.kind:
        case "reset_before":
            return Answer(fault=Fault.RESET)
        case "status":
            return _status(**trouble.details)
        case "no_json_schema" | "no_json_object":
            wanted = trouble.kind.removeprefix("no_")
            message = f"Invalid parameter: 'response_format' of type '{wanted}' is not supported."
            return _refusal(400, message, param="response_format")
        case "max_completion_tokens":
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            return _refusal(400, message, param="max_tokens", code="unsupported_parameter")
        case _:
            return None


def _status(code: int, retry_after: str | None = None, body: object = None) -> Answer:
    kind = {402: "insufficient_quota", 429: "rate_limit_error"}.get(code, "server_error")
    answer = Answer.of(body or _error(f"Arranged failure {code}.", kind), code)
    if isinstance(body, str):
        answer = Answer(code, {"content-type": "text/html"}, body.encode())
    if retry_after is not None:
        answer = replace(answer, headers={**answer.headers, "retry-after": str(retry_after)})
    return answer


def _refusal(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> Answer:
    return Answer.of(_error(message, "invalid_request_error", param, code), status)


def _error(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# Replying


def _spoiled(kind: Kind | None, content: str) -> str:
    return content[: len(content) // 2] if kind in ("truncated_json", "length") else content


def _limited(content: str, tokens_max: int | None) -> tuple[str, str]:
    """The content within the output limit, and the finish_reason that tells."""
    whole = content.encode()
    if tokens_max is None or len(whole) <= tokens_max * 4:
        return content, "stop"
    return whole[: tokens_max * 4].decode(errors="ignore"), "length"


def _reply(number: int, charge: Charge, content: str, finish: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": f"chatcmpl-{number:06d}",
        "object": "chat.completion",
        "created": 1_767_225_600 + number,
        "model": charge.model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": _usage(charge),
    }


def _usage(charge: Charge) -> dict[str, Any]:
    return {
        "prompt_tokens": charge.input,
        "completion_tokens": charge.output,
        "total_tokens": charge.input + charge.output,
        "prompt_tokens_details": {"cached_tokens": charge.cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
