"""The chat adapter against servers that answer, refuse, lie, break off and never end."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.inference import chat
from daemon.inference.chat import ANSWER_BYTES_MAX, UNBILLED, ChatModel, read_reply
from daemon.inference.ladder import Rung
from daemon.inference.port import AnswerFormat, Endpoint, ModelReply, ModelRequest, Outcome
from daemon.inference.prices import Usage
from daemon.secret import Secret
from ledger.money import MicroCredits
from tests.doubles.wire import Answer, Fault, Request, serve

KEY = "sk-operators-own/key-0123456789"
GENERATION = {"x-generation-id": "gen-1774988593-Ur8hqOkvR8eq7ABsUuOt"}
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}
ASKED = ModelRequest(
    rung=Rung("llm", "vendor/model:free"),
    system="You write.",
    prompt="Write “über” ✓",
    schema_name="draft",
    schema=SCHEMA,
    output_tokens_max=700,
    timeout_s=5.0,
)
COUNTS = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def document(text: Any = "Hello.", usage: Any = COUNTS, **changes: Any) -> dict[str, Any]:
    """An answer as OpenAI gives it; a change to None takes a field away."""
    message = {"role": "assistant", "content": text, "refusal": None}
    whole = {
        "id": "chatcmpl-7",
        "model": "vendor/model-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    } | changes
    return {name: value for name, value in whole.items() if value is not None}


@dataclass
class Provider:
    """Answers what it is told, in turn, the last for ever, and keeps what it was asked."""

    answers: Sequence[Answer]
    asked: list[Request] = field(default_factory=list)

    async def handle(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


async def ask(
    url: str,
    *requests: ModelRequest,
    key: str = KEY,
    transport: httpx.AsyncBaseTransport | None = None,
) -> list[ModelReply]:
    model = ChatModel(Endpoint("llm", url, Secret(key)), transport)
    try:
        return [await model.send(request) for request in requests]
    finally:
        await model.close()


def sent(answer: Answer, *, key: str = KEY, **changes: Any) -> tuple[ModelReply, Provider]:
    """One request over a real socket: what came of it, and what the provider saw."""
    provider = Provider([answer])
    with serve(provider) as at:
        request = replace(ASKED, **changes)
        (reply,) = asyncio.run(ask(f"{at.url}/v1", request, key=key))
    return reply, provider


def answered(value: object, status: int = 200, **headers: str) -> ModelReply:
    reply, provider = sent(Answer.of(value, status, **headers))
    assert len(provider.asked) == 1, "one request is one request"
    return reply


# Answered


def test_an_answer_with_usage_is_ok_and_says_everything_the_books_need() -> None:
    assert answered(document()) == ModelReply(
        Outcome.OK,
        200,
        text="Hello.",
        model_returned="vendor/model-2026",
        usage=Usage(10, 0, 5),
        remote_id="chatcmpl-7",
    )


def test_a_reported_cost_is_kept_beside_the_usage() -> None:
    reply = answered(document(usage=COUNTS | {"cost": 0.00123}))
    assert (reply.outcome, reply.usage) == (Outcome.OK, Usage(10, 0, 5))
    assert reply.reported_cost == MicroCredits(1230)


def test_a_reported_cost_alone_is_enough() -> None:
    reply = answered(document(usage={"cost": 0.00123}))
    assert (reply.outcome, reply.usage) == (Outcome.OK, None)
    assert reply.reported_cost == MicroCredits(1230)


def test_a_cost_of_zero_beside_counted_tokens_is_a_free_model() -> None:
    reply = answered(document(usage=COUNTS | {"cost": 0}))
    assert (reply.outcome, reply.reported_cost) == (Outcome.OK, MicroCredits(0))


def test_an_answer_that_ended_at_its_limit_is_paid_and_cut() -> None:
    choice = {"message": {"role": "assistant", "content": "Hel"}, "finish_reason": "length"}
    reply = answered(document(choices=[choice]))
    assert (reply.outcome, reply.cut, reply.text) == (Outcome.OK, True, "Hel")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}], "Hello."),
        ([{"type": "thinking", "thinking": [{"text": "hm"}]}, {"text": "Hello."}], "Hello."),
        (["Hello.", None, {"text": None}, {"text": 7}], ""),
        ("a\ud83d", "a?"),
        ("a\0b", "a\ufffdb"),
        ("\U0001f600", "\U0001f600"),
        ({"text": "Hello."}, None),
        (7, None),
        (None, None),
    ],
)
def test_content_of_any_form_becomes_text_that_can_be_stored(
    content: Any, text: str | None
) -> None:
    body = json.dumps(document(content)).encode()
    reply = read_reply(200, {}, body)
    assert (reply.outcome, reply.text) == (Outcome.OK, text)


def test_an_answer_that_came_byte_by_byte_is_whole() -> None:
    reply, _ = sent(Answer(body=b'{"usage":{"cost":1}}', fault=Fault.TRICKLE))
    assert (reply.outcome, reply.reported_cost) == (Outcome.OK, MicroCredits(1_000_000))


# Not known


@pytest.mark.parametrize(
    ("usage", "content"),
    [
        (None, "Hello."),
        (None, ""),
        ({}, "Hello."),
        ("many", "Hello."),
        ({"prompt_tokens": 10}, "Hello."),
        (COUNTS | {"completion_tokens": -5}, "Hello."),
        (NOTHING, "Hello."),
        (NOTHING | {"cost": 0}, "Hello."),
        ({"cost": 0}, "Hello."),
        # Words came, so some were counted, and this is not how many.
        ({"prompt_tokens": 10, "completion_tokens": 0}, "Hello."),
    ],
)
def test_without_usage_beside_an_answer_the_outcome_is_unknown(usage: Any, content: str) -> None:
    reply = answered(document(content, usage))
    assert (reply.outcome, reply.usage, reply.reported_cost) == (Outcome.UNKNOWN, None, None)
    assert reply.error == "the answer does not say what was used"
    # What was bought is kept, and the name by which its cost can be looked up.
    assert reply.text == (content or None)
    assert (reply.http_status, reply.remote_id) == (200, "chatcmpl-7")


def test_zero_usage_beside_a_cost_is_that_cost() -> None:
    reply = answered(document(usage=NOTHING | {"cost": 0.5}))
    assert (reply.outcome, reply.usage) == (Outcome.OK, None)
    assert reply.reported_cost == MicroCredits(500_000)


@pytest.mark.parametrize("content", ["", None])
def test_zero_usage_beside_nothing_is_nothing(content: str | None) -> None:
    reply = answered(document(content, NOTHING))
    assert (reply.outcome, reply.usage) == (Outcome.OK, Usage(0, 0, 0))


@pytest.mark.parametrize(
    "said",
    [
        {"message": {"role": "assistant", "content": "", "reasoning_content": "Hm."}},
        {"message": {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}},
        {"message": {"role": "assistant", "content": None, "refusal": "I would rather not."}},
        {"text": "Hello."},
        {"message": "Hello."},
    ],
)
def test_whatever_a_message_says_it_is_not_empty(said: dict[str, Any]) -> None:
    assert answered(document(choices=[said], usage=NOTHING)).outcome is Outcome.UNKNOWN


ERROR = {"message": "The provider failed.", "code": 502}


@pytest.mark.parametrize("usage", [None, NOTHING, NOTHING | {"cost": 0}])
def test_an_error_in_a_200_without_usage_is_unknown(usage: Any) -> None:
    reply = answered(document(choices=None, error=ERROR, usage=usage))
    assert (reply.outcome, reply.error) == (Outcome.UNKNOWN, "HTTP 200: The provider failed.")
    assert (reply.usage, reply.reported_cost, reply.remote_id) == (None, None, "chatcmpl-7")


@pytest.mark.parametrize("choices", [None, [], [{"message": {"content": "Hel"}}]])
def test_an_error_in_a_200_with_usage_costs_what_it_used(choices: Any) -> None:
    reply = answered(document(choices=choices, error=ERROR))
    assert (reply.outcome, reply.usage) == (Outcome.OK, Usage(10, 0, 5))
    assert reply.error == "HTTP 200: The provider failed."


def test_an_error_after_the_prompt_was_read_costs_the_prompt() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 0}
    reply = answered(document(choices=None, error=ERROR, usage=usage))
    assert (reply.outcome, reply.usage) == (Outcome.OK, Usage(10, 0, 0))


def test_an_error_in_a_200_with_a_cost_costs_that() -> None:
    reply = answered(document(choices=None, error=ERROR, usage={"cost": 0.25}))
    assert (reply.outcome, reply.reported_cost) == (Outcome.OK, MicroCredits(250_000))


@pytest.mark.parametrize("empty", [{"message": "", "type": "", "code": None}, {}, "", [], False])
def test_an_error_with_nothing_in_it_is_none(empty: Any) -> None:
    reply = answered(document(error=empty))
    assert (reply.outcome, reply.error) == (Outcome.OK, "")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"Hello."', b"<html>Busy</html>", b'{"choices": [{"mess',
        b'data: {"choices": []}\n\ndata: [DONE]\n\n', b"\xff\xfe\x00", b"[" * 100_000,
        b'{"error":' * 100_000, b'{"usage": {"cost": 1e99999999999999999999}}', b"9" * 5000,
    ],
    ids=lambda body: repr(body)[:30],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_unknown_and_its_head_names_it(body: bytes) -> None:
    reply, provider = sent(Answer(headers=GENERATION, body=body))
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, 200)
    assert (reply.text, reply.remote_id) == (None, GENERATION["x-generation-id"])
    assert len(provider.asked) == 1


def test_raw_control_characters_and_broken_utf_8_do_not_lose_a_paid_answer() -> None:
    body = json.dumps(document("a-b-c")).encode()
    body = body.replace(b"a-b-c", b"a\tb\nc\x01\xff")
    reply, _ = sent(Answer(body=body))
    assert (reply.outcome, reply.usage) == (Outcome.OK, Usage(10, 0, 5))
    assert reply.text == "a\tb\nc\x01\ufffd"


# Refused


@pytest.mark.parametrize("status", sorted(UNBILLED))
def test_a_documented_refusal_is_refused_with_its_reason(status: int) -> None:
    error = {"message": "Use 'max_completion_tokens'.", "param": "max_tokens", "code": None}
    reply = answered({"error": error}, status)
    assert (reply.outcome, reply.http_status) == (Outcome.REFUSED, status)
    assert reply.error == f"HTTP {status}: Use 'max_completion_tokens'."
    assert json.loads(reply.error_body) == {"error": error}
    assert (reply.usage, reply.reported_cost, reply.text) == (None, None, None)


@pytest.mark.parametrize(
    "status", [201, 202, 204, 206, 300, 304, 405, 408, 409, 418, 425, 500, 502, 503, 504, 524, 529]
)
def test_any_other_status_is_unknown(status: int) -> None:
    reply = answered({"error": {"message": "busy"}}, status)
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, status)
    assert reply.usage is None


def test_a_failed_answer_keeps_its_name() -> None:
    reply, _ = sent(Answer(502, GENERATION, b"<h1>Bad gateway</h1>"))
    assert (reply.outcome, reply.error) == (Outcome.UNKNOWN, "HTTP 502: <h1>Bad gateway</h1>")
    assert reply.remote_id == GENERATION["x-generation-id"]
    assert answered({"id": "gen-1", "error": ERROR}, 502).remote_id == "gen-1"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "no such model"}', "no such model"),
        (b'{"error": {"message": {"deep": 1}}}', '{"error": {"message": {"deep": 1}}}'),
        (b'{"error": {"code": 7}}', '{"error": {"code": 7}}'),
        (b'{"error": ["a", "b"]}', '{"error": ["a", "b"]}'),
        (b'{"detail": "Not Found"}', '{"detail": "Not Found"}'),
        (b"no", "no"),
        (b"", ""),
        (b"x" * 10_000, "x" * 300),
        (b'{"error": {"message": "a\\u0000\\ud800"}}', "a\ufffd?"),
        (b'{"error": ' + b'{"a":' * 940 + b"1" + b"}" * 941, '{"error": ' + '{"a":' * 58),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refusal_in_any_form_is_quoted_and_kept_short(body: bytes, said: str) -> None:
    assert read_reply(400, {}, body).error == f"HTTP 400: {said}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-5", -5.0),
        ("1000000000", 1e9),
        ("1e400", math.inf),
        ("", None),
        ("nan", None),
        ("soon", None),
        ("6m0s", None),
        ("Fri, 01 Jan 2027 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_nothing(header: str, seconds: float | None) -> None:
    assert answered({"error": ERROR}, 429, retry_after=header).retry_after_s == seconds


# Breaking off


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.DROP])
def test_a_connection_that_ends_without_an_answer_is_unknown(fault: Fault) -> None:
    reply, provider = sent(Answer(fault=fault))
    assert (reply.outcome, reply.http_status, reply.remote_id) == (Outcome.UNKNOWN, None, None)
    assert reply.error
    assert len(provider.asked) == 1


def test_a_body_that_breaks_off_is_unknown_and_its_head_is_kept() -> None:
    whole = Answer.of(document())
    reply, provider = sent(replace(whole, headers=GENERATION, fault=Fault.CUT))
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, 200)
    assert (reply.text, reply.usage) == (None, None)
    assert reply.remote_id == GENERATION["x-generation-id"]
    assert "RemoteProtocolError" in reply.error
    assert len(provider.asked) == 1


def test_what_tls_finds_wrong_in_mid_answer_is_unknown_and_its_head_is_kept() -> None:
    class Forged(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"id":'
            raise ssl.SSLError("bad record mac")

    forged = httpx.MockTransport(
        lambda request: httpx.Response(200, headers=GENERATION, stream=Forged())
    )
    (reply,) = asyncio.run(ask("https://llm.test/v1", ASKED, transport=forged))
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, 200)
    assert reply.remote_id == GENERATION["x-generation-id"]
    assert "bad record mac" in reply.error


def test_a_body_that_stops_coming_is_unknown_and_its_head_is_kept() -> None:
    whole = Answer.of(document())
    stalled = replace(whole, headers=GENERATION, fault=Fault.STALL)
    reply, provider = sent(stalled, timeout_s=0.3)
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, 200)
    assert reply.remote_id == GENERATION["x-generation-id"]
    assert reply.error == "no answer in 0.3 s"
    assert len(provider.asked) == 1


def test_a_refusal_whose_reason_is_lost_is_still_a_refusal() -> None:
    lost = replace(Answer.of({"error": ERROR}, 429, retry_after="3"), fault=Fault.CUT)
    reply, _ = sent(lost)
    assert (reply.outcome, reply.http_status) == (Outcome.REFUSED, 429)
    assert reply.retry_after_s == 3.0


def test_no_answer_in_time_is_unknown() -> None:
    reply, provider = sent(replace(Answer.of(document()), delay_s=5.0), timeout_s=0.2)
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, None)
    assert reply.error == "no answer in 0.2 s"
    assert len(provider.asked) == 1


def test_an_answer_that_trickles_past_its_time_is_unknown() -> None:
    reply, _ = sent(replace(Answer.of(document()), fault=Fault.TRICKLE), timeout_s=0.3)
    assert (reply.outcome, reply.error) == (Outcome.UNKNOWN, "no answer in 0.3 s")


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ANSWER_BYTES_MAX >= 1_000_000
    monkeypatch.setattr(chat, "ANSWER_BYTES_MAX", 200_000)
    reply, provider = sent(Answer(headers=GENERATION, body=b"  ", endless=True))
    assert (reply.outcome, reply.error) == (Outcome.UNKNOWN, "the answer has no end")
    assert reply.remote_id == GENERATION["x-generation-id"]
    assert len(provider.asked) == 1


def test_a_body_that_is_not_compressed_as_it_says_is_unknown() -> None:
    reply, _ = sent(Answer(headers={"content-encoding": "gzip", **GENERATION}, body=b"no gzip"))
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, 200)
    assert reply.remote_id == GENERATION["x-generation-id"]


# Never sent


def test_a_refused_connection_is_unsent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Bound but not listening: nobody else gets the port, and nobody answers on it.
        (reply,) = asyncio.run(ask(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", ASKED))
    assert (reply.outcome, reply.http_status) == (Outcome.UNSENT, None)
    assert "ConnectError" in reply.error


@contextmanager
def full_house() -> Iterator[int]:
    """A port on which connections are neither taken nor refused."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
            yield listening.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


def test_a_connection_that_is_never_taken_is_unsent() -> None:
    with full_house() as port:
        request = replace(ASKED, timeout_s=0.6)
        (reply,) = asyncio.run(ask(f"http://127.0.0.1:{port}/v1", request))
    assert (reply.outcome, reply.error) == (Outcome.UNSENT, "ConnectTimeout")


def test_a_server_that_does_not_speak_tls_is_unsent() -> None:
    provider = Provider([Answer.of(document())])
    with serve(provider) as at:
        (reply,) = asyncio.run(ask(f"https://127.0.0.1:{at.port}/v1", ASKED))
    assert (reply.outcome, provider.asked) == (Outcome.UNSENT, [])


def test_a_request_that_no_connection_carries_is_unsent() -> None:
    reply, provider = sent(Answer.of(document()), key="two\nlines")
    assert (reply.outcome, reply.http_status, provider.asked) == (Outcome.UNSENT, None, [])


# On the wire


def test_the_bytes_that_were_counted_are_the_bytes_that_are_sent() -> None:
    for answer_format in AnswerFormat:
        request = replace(ASKED, answer_format=answer_format)
        _, provider = sent(Answer.of(document()), answer_format=answer_format)
        (asked,) = provider.asked
        assert asked.body == ChatModel(Endpoint("llm", "http://x.test", Secret())).body(request)
        assert int(asked.headers["content-length"]) == len(asked.body)
        assert "transfer-encoding" not in asked.headers


def test_a_request_says_who_asks_what_of_whom() -> None:
    _, provider = sent(Answer.of(document()))
    (asked,) = provider.asked
    assert (asked.method, asked.target) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "model": "vendor/model:free",
        "messages": [
            {"role": "system", "content": "You write."},
            {"role": "user", "content": "Write “über” ✓"},
        ],
        "stream": False,
        "max_tokens": 700,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "draft", "schema": SCHEMA, "strict": True},
        },
    }


def test_without_a_key_none_is_sent() -> None:
    _, provider = sent(Answer.of(document()), key="")
    assert "authorization" not in provider.asked[0].headers


@pytest.mark.parametrize("limit_field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("answer_format", list(AnswerFormat))
def test_the_output_limit_is_always_sent_under_the_name_the_model_takes(
    answer_format: AnswerFormat, limit_field: str
) -> None:
    changes = {"answer_format": answer_format, "limit_field": limit_field, "effort": "low"}
    _, provider = sent(Answer.of(document()), **changes)
    body = provider.asked[0].json
    other = {"max_tokens", "max_completion_tokens"} - {limit_field}
    assert body[limit_field] == 700
    assert not other & body.keys()
    assert body["reasoning_effort"] == "low"
    assert body["stream"] is False


@pytest.mark.parametrize(
    ("answer_format", "asked_for"),
    [(AnswerFormat.JSON_OBJECT, {"type": "json_object"}), (AnswerFormat.TEXT, None)],
)
def test_where_no_schema_can_be_sent_beside_the_prompt_it_stands_in_it(
    answer_format: AnswerFormat, asked_for: Any
) -> None:
    _, provider = sent(Answer.of(document()), answer_format=answer_format)
    body = provider.asked[0].json
    assert body.get("response_format") == asked_for
    prompt = body["messages"][1]["content"]
    assert prompt.startswith("Write “über” ✓\n\nSchema: draft\n")
    assert prompt.endswith(json.dumps(SCHEMA))


def test_half_a_surrogate_pair_in_a_prompt_does_not_stop_a_request() -> None:
    reply, provider = sent(Answer.of(document()), prompt="a\ud83d")
    assert reply.outcome is Outcome.OK
    assert provider.asked[0].json["messages"][1]["content"] == "a?"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    elsewhere = Provider([Answer.of(document())])
    with serve(elsewhere) as other:
        location = {"location": f"{other.url}/v1/chat/completions"}
        reply, provider = sent(Answer(status, location))
    assert (reply.outcome, reply.http_status) == (Outcome.UNKNOWN, status)
    assert (len(provider.asked), elsewhere.asked) == (1, [])


def test_proxies_and_logins_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    proxy = Provider([Answer.of(document())])
    with serve(proxy) as at:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, at.url)
        reply, provider = sent(Answer.of(document()), key="")
    assert (reply.outcome, len(provider.asked), proxy.asked) == (Outcome.OK, 1, [])
    assert "authorization" not in provider.asked[0].headers


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 408, 409, 429, 500, 502, 503, 504])
def test_nothing_is_ever_sent_twice(status: int) -> None:
    retry = {"retry_after": "0", "x_should_retry": "true"}
    _, provider = sent(Answer.of({"error": ERROR}, status, **retry))
    assert len(provider.asked) == 1


def test_no_connection_is_used_for_a_second_request() -> None:
    connections: list[asyncio.Task[None]] = []
    body = json.dumps(document()).encode()
    head = f"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: {len(body)}\r\n\r\n"

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = asked.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.create_task(serve_one(reader, writer)))

    async def talk() -> list[ModelReply]:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        replies = await ask(url, ASKED, ASKED, ASKED)
        server.close()
        await asyncio.gather(*connections)
        return replies

    replies = asyncio.run(talk())
    assert [reply.outcome for reply in replies] == [Outcome.OK] * 3
    assert len(connections) == 3


# What is kept of what they say


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("form", [KEY, KEY.replace("/", "\\/")])
def test_a_key_that_is_quoted_back_is_not_kept(status: int, form: str) -> None:
    said = f'{{"error": {{"message": "Bad key {form}!", "metadata": {{"raw": "{form}"}}}}}}'
    reply, _ = sent(Answer(status, body=said.encode()))
    assert reply.error == f"HTTP {status}: Bad key ***!"
    if status != 200:
        # Escaped or not: its end has nothing that could be escaped.
        assert KEY.rpartition("/")[2] not in repr(reply)


def test_a_key_that_is_a_word_does_not_change_an_answer() -> None:
    for key in ("ollama", "1", "o"):
        text = "How ollama counts to 10"
        reply, _ = sent(Answer.of(document(text)), key=key)
        assert (reply.outcome, reply.text, reply.usage) == (Outcome.OK, text, Usage(10, 0, 5))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("gen-1774988593-Ur8h", "gen-1774988593-Ur8h"),
        ("x" * 200, "x" * 200),
        ("x" * 201, None),
        ("", None),
        ("a\nb", None),
        ("a\tb", None),
        ("a\x7f", None),
        ("über", None),
        (7, None),
        (["a"], None),
        (None, None),
    ],
)
def test_only_a_plain_name_is_kept_as_one(name: Any, kept: str | None) -> None:
    body = json.dumps(document(id=name, model=name)).encode()
    reply = read_reply(200, {}, body)
    assert (reply.remote_id, reply.model_returned) == (kept, kept)
    # Where the body has none, the head may.
    head = {"x-generation-id": "gen-head"}
    assert read_reply(200, head, body).remote_id == (kept or "gen-head")
    if isinstance(name, str):
        assert read_reply(200, {"x-generation-id": name}, b"").remote_id == kept


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["length", "stop", "Hello.", Decimal("0.1")]),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "error", "id", "model", "role", "text",
                 "finish_reason", "cost", "prompt_tokens", "completion_tokens"]
            ),
            part,
            max_size=8,
        )
    ),
    max_leaves=25,
)  # fmt: skip


# One that could be an answer, with a part of it or two as it should not be.
NEARLY = st.dictionaries(
    st.sampled_from(["id", "model", "object", "choices", "usage", "text", "error"]),
    JSON,
    max_size=2,
).map(lambda parts: document(**parts))


@example(200, document())
@given(
    st.just(200) | st.sampled_from([204, 400, 429, 500]),
    JSON | JSON.map(lambda part: {"choices": [part]}) | NEARLY,
)
def test_whatever_is_answered_has_an_outcome_that_can_be_booked(status: int, said: Any) -> None:
    body = json.dumps(said, default=float).encode()
    reply = read_reply(status, {}, body)
    assert (reply.outcome is Outcome.REFUSED) == (status in UNBILLED)
    if reply.outcome is Outcome.OK:
        assert reply.usage is not None or reply.reported_cost is not None
    else:
        assert reply.usage is None
        assert reply.reported_cost is None
    for text in (reply.text, reply.error, reply.model_returned, reply.remote_id):
        assert "\0" not in (text or "")
        (text or "").encode()
