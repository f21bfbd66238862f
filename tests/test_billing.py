"""What a provider says of its own bill, and whatever else it may say in that place."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
import pytest

from daemon.inference.billing import Billing, Counter, Unreadable
from daemon.inference.port import Endpoint, UsageApi
from daemon.secret import Secret
from ledger.money import MicroCredits
from tests.doubles.wire import Answer, Fault, InProcess, Request

KEY = "sk-billing-0123456789"


class Provider:
    """Answers each path as it is told to; anything else is not there."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def handle(self, request: Request) -> Answer:
        self.asked.append(request.target)
        assert request.method == "GET"
        given = self.answers.get(request.path.strip("/").replace("/", "_").replace("-", "_"))
        if given is None:
            return Answer.of({"error": "not found"}, 404)
        if isinstance(given, Answer):
            return given
        return Answer.of({"data": given})


def ask(
    provider: Provider,
    api: UsageApi = UsageApi.AUTO,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Counter | None:
    async def live() -> Counter | None:
        billing = side(provider, api, transport)
        try:
            return await billing.counter()
        finally:
            await billing.close()

    return asyncio.run(live())


def look_up(provider: Provider, name: str, api: UsageApi = UsageApi.AUTO) -> MicroCredits | None:
    async def live() -> MicroCredits | None:
        billing = side(provider, api)
        try:
            return await billing.cost_of(name)
        finally:
            await billing.close()

    return asyncio.run(live())


def side(
    provider: Provider, api: UsageApi, transport: httpx.AsyncBaseTransport | None = None
) -> Billing:
    endpoint = Endpoint("llm", "https://llm.test/v1", Secret(KEY), api)
    return Billing(endpoint, 5.0, transport or InProcess({"llm.test": provider}))


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        (0, 0),
        (0.0, 0),
        (1, 1_000_000),
        (12.345678, 12_345_678),
        (12.3456781, 12_345_679),
        (1e-7, 1),
        (0.1 + 0.2, 300_001),
    ],
)
def test_openrouters_counter_is_read_to_the_millionth_and_rounded_up(
    usage: float, micro: int
) -> None:
    counter = ask(Provider(v1_key={"label": "sk", "usage": usage, "limit": None}))
    assert counter == Counter(MicroCredits(micro), UsageApi.OPENROUTER)


def test_what_a_key_of_the_operators_own_paid_upstream_is_on_the_counter_too() -> None:
    counter = ask(Provider(v1_key={"usage": 1.5, "byok_usage": 2.25}))
    assert counter is not None
    assert counter.used.micro == 3_750_000


@pytest.mark.parametrize(
    ("status", "units", "micro"),
    [
        ({"quota_per_unit": 500_000}, 500_000, 1_000_000),
        ({"quota_per_unit": 500_000.0}, 1, 2),
        ({"quota_per_unit": 1_000_000}, 7, 7),
        ({"quota_per_unit": 3}, 1, 333_334),
    ],
)
def test_new_apis_counter_is_in_units_of_its_own(status: Any, units: int, micro: int) -> None:
    provider = Provider(api_usage_token={"total_used": units}, api_status=status)
    counter = ask(provider)
    assert counter == Counter(MicroCredits(micro), UsageApi.NEW_API)
    assert "/api/usage/token/" in provider.asked


@pytest.mark.parametrize(
    "status",
    [None, {}, {"quota_per_unit": 0}, Answer(403, {}, b"{}"), Answer(200, {}, b"<html>")],
    ids=str,
)
def test_what_new_apis_units_are_worth_is_never_supposed(status: Any) -> None:
    provider = Provider(api_usage_token={"total_used": 250_000}, api_status=status)
    with pytest.raises(Unreadable, match="units are worth"):
        ask(provider)


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": None},
        {"usage": "12"},
        {"usage": -1},
        {"usage": True},
        {"usage": 1e300},
        {"used": 3},
        [],
        "nonsense",
        Answer(200, {}, b"<html>a page for everything</html>"),
        Answer(200, {}, b'{"data": {"usage": NaN}}'),
        Answer(200, {}, b'{"data": {"usage": 1e999999999}}'),
        Answer(200, {}, b"[" * 100_000),
        Answer(301, {"location": "https://elsewhere.test/"}, b""),
        Answer(401, {}, b"{}"),
        Answer(403, {}, b"{}"),
    ],
    ids=str,
)
def test_what_is_no_counter_is_none_and_an_error_only_where_one_was_promised(answer: Any) -> None:
    provider = Provider(v1_key=answer)
    assert ask(provider) is None
    with pytest.raises(Unreadable, match="it does not answer as openrouter does"):
        ask(provider, UsageApi.OPENROUTER)
    with pytest.raises(Unreadable, match="new-api"):
        ask(provider, UsageApi.NEW_API)


@pytest.mark.parametrize(
    "answer",
    [Answer(429), Answer(500), Answer(503), Answer(fault=Fault.RESET), Answer(fault=Fault.DROP)],
    ids=str,
)
def test_a_provider_in_trouble_is_not_taken_for_one_without_a_counter(answer: Answer) -> None:
    with pytest.raises(Unreadable) as caught:
        ask(Provider(v1_key=answer))
    assert KEY not in str(caught.value)
    with pytest.raises(Unreadable):
        look_up(Provider(v1_generation=answer), "gen-1")


def test_an_answer_that_tls_finds_wrong_is_a_provider_in_trouble() -> None:
    def forged(request: httpx.Request) -> httpx.Response:
        raise ssl.SSLError("bad record mac")

    with pytest.raises(Unreadable, match="bad record mac"):
        ask(Provider(), transport=httpx.MockTransport(forged))


def test_an_error_of_the_wire_tells_no_key() -> None:
    def illegal(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['authorization']!r}")

    with pytest.raises(Unreadable) as caught:
        ask(Provider(), transport=httpx.MockTransport(illegal))
    assert str(caught.value) == "LocalProtocolError Illegal header value 'Bearer ***'"


def test_a_counter_beyond_all_measure_cannot_be_read() -> None:
    provider = Provider(
        api_usage_token=Answer(200, {}, b'{"data": {"total_used": 1e999000}}'),
        api_status=Answer(200, {}, b'{"data": {"quota_per_unit": 1e-999000}}'),
    )
    with pytest.raises(Unreadable):
        ask(provider)


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    endless = Answer(200, {"content-type": "application/json"}, b" " * 60_000, endless=True)
    with pytest.raises(Unreadable, match="has no end"):
        ask(Provider(v1_key=endless))


def test_a_provider_that_is_told_not_to_be_asked_gets_no_request() -> None:
    provider = Provider(v1_key={"usage": 1})
    assert ask(provider, UsageApi.NONE) is None
    assert look_up(provider, "gen-1", UsageApi.NONE) is None
    assert provider.asked == []


@pytest.mark.parametrize(
    ("data", "micro"),
    [
        ({"total_cost": 0.0123456}, 12_346),
        ({"total_cost": 0}, 0),
        ({"total_cost": 0.01, "is_byok": False, "upstream_inference_cost": 0.2}, 10_000),
        ({"total_cost": 0.01, "is_byok": True, "upstream_inference_cost": 0.2}, 210_000),
        ({"total_cost": 0.01, "is_byok": True}, None),
        ({"total_cost": None}, None),
        ({"total_cost": "0.1"}, None),
        ({"total_cost": -0.1}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_cost_of_an_answer_is_looked_up_by_its_name(data: Any, micro: int | None) -> None:
    provider = Provider(v1_generation=data)
    found = look_up(provider, "gen-1 &x=/")
    assert (None if found is None else found.micro) == micro
    assert provider.asked == ["/v1/generation?id=gen-1+%26x%3D%2F"]
