"""The doubles behave as they promise, so that a failing test is about the product."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles import author
from tests.doubles.model import Kind, ModelDouble
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Answer, Double, Fault, InProcess, Request, serve

KEY = {"authorization": "Bearer test-key"}
SOURCES = """Question: How does the scheduler share memory between workers?

<source id="S1" title="Scheduling &amp; Memory">
The scheduler gives every worker 512 MB of memory before it accepts a task. Is that enough?
When a worker asks for more memory, the scheduler moves the task to a larger
machine and records the reason.
</source>
<source id="S2" title="Release 4.2">
Workers that share memory start 30 percent faster than workers that do not. I like it.
</source>
"""
CLAIMS = """Working title: A Closer Look at Shared Memory
Length: 300-500 words

[S1] According to Scheduling, the scheduler gives 512 MB | "The scheduler gives 512 MB."
[S2] The source reports that workers start 30 percent faster | "Workers start 30 percent faster."
"""


def chat(prompt: str, schema: str = "review", **fields: Any) -> dict[str, Any]:
    named = {"name": schema, "schema": {}, "strict": True}
    return {
        "model": "m",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 4000,
        "response_format": {"type": "json_schema", "json_schema": named},
    } | fields


def ask(double: ModelDouble, body: dict[str, Any], timeout: float = 5.0) -> httpx.Response:
    """One request over a real socket."""
    with serve(double) as at:
        url = f"{at.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=KEY, timeout=timeout)


def content(reply: httpx.Response) -> Any:
    return json.loads(reply.json()["choices"][0]["message"]["content"])


# The wire


class Fixed:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.threads: set[int] = set()

    async def handle(self, request: Request) -> Answer:
        self.threads.add(threading.get_ident())
        return self.answer


FAULTS = [
    (Fault.RESET, httpx.ReadError),
    (Fault.DROP, httpx.RemoteProtocolError),
    (Fault.CUT, httpx.RemoteProtocolError),
    (Fault.STALL, httpx.ReadTimeout),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_fault_looks_the_same_over_a_socket_and_in_process(
    fault: Fault, error: type[Exception]
) -> None:
    double = Fixed(Answer(body=b"abcdef", fault=fault))
    with serve(double) as at, pytest.raises(error):
        httpx.get(at.url, timeout=0.1)

    async def in_process() -> None:
        async with httpx.AsyncClient(transport=InProcess({"x.test": double}), timeout=0.1) as web:
            await web.get("http://x.test/")

    with pytest.raises(error):
        asyncio.run(in_process())


def test_a_reset_is_a_reset_and_not_an_orderly_close() -> None:
    with serve(Fixed(Answer(fault=Fault.RESET))) as at, pytest.raises(httpx.ReadError) as reset:
        httpx.get(at.url)
    assert "104" in str(reset.value)


def test_a_cut_answer_promises_more_than_it_sends() -> None:
    double = Fixed(Answer(body=b"abcdef", fault=Fault.CUT))
    with serve(double) as at, httpx.stream("GET", at.url) as reply:
        assert reply.headers["content-length"] == "6"
        with pytest.raises(httpx.RemoteProtocolError, match="received 3 bytes"):
            reply.read()


def test_a_trickle_arrives_whole_but_slowly() -> None:
    double = Fixed(Answer(body=b"abc", fault=Fault.TRICKLE))
    with serve(double) as at, httpx.stream("GET", at.url) as reply:
        assert list(reply.iter_raw()) == [b"a", b"b", b"c"]


def test_one_connection_serves_many_requests_and_many_connections_one_thread() -> None:
    class Meeting(Fixed):
        """Answers nobody before twenty are there."""

        inside = asyncio.Barrier(20)

        async def handle(self, request: Request) -> Answer:
            if request.path == "/together":
                await self.inside.wait()
            return await super().handle(request)

    double = Meeting(Answer(body=b"hello"))

    async def many(url: str) -> list[str]:
        async with httpx.AsyncClient() as web:
            await web.get(url)
            replies = await asyncio.gather(*(web.get(f"{url}/together") for _ in range(20)))
            return [reply.text for reply in replies]

    with serve(double) as at:
        assert asyncio.run(many(at.url)) == ["hello"] * 20
    assert len(double.threads) == 1


def test_a_server_leaves_no_thread_behind_even_with_a_client_still_waiting() -> None:
    before = threading.active_count()
    for _ in range(10):
        with serve(Fixed(Answer(body=b"ab", fault=Fault.STALL))) as at:
            client = httpx.Client()
            request = client.build_request("GET", at.url)
            waiting = client.send(request, stream=True)
        with pytest.raises(httpx.RemoteProtocolError):
            waiting.read()
        client.close()
    assert threading.active_count() == before


def test_a_server_leaves_no_connection_open_even_one_it_is_just_taking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: forgotten.append(unraisable))
    for n in range(20):
        with serve(Fixed(Answer())) as at:
            clients = [socket.create_connection((at.host, at.port)) for _ in range(1 + n % 4)]
        for client in clients:
            client.close()
        gc.collect()
    assert not forgotten


def test_a_taken_port_is_refused() -> None:
    double = Fixed(Answer())
    with serve(double) as at, pytest.raises(OSError, match="in use"), serve(double, port=at.port):
        pass


def test_a_failing_double_answers_500_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        async def handle(self, request: Request) -> Answer:
            raise KeyError(request.path)

    with serve(Broken()) as at:
        reply = httpx.get(f"{at.url}/a%20b")
    assert (reply.status_code, "KeyError" in reply.text) == (500, True)
    assert "a b" in capsys.readouterr().err


def in_process(routes: dict[str, Double], url: str, timeout: float = 1.0) -> httpx.Response:
    async def fetch() -> httpx.Response:
        async with httpx.AsyncClient(transport=InProcess(routes), timeout=timeout) as web:
            return await web.get(url)

    return asyncio.run(fetch())


def test_in_process_a_host_names_a_double() -> None:
    site = SiteDouble(pages={"/a.txt": "hello"})
    assert in_process({"site.test": site}, "http://site.test/a.txt?x=1").text == "hello"
    with pytest.raises(httpx.ConnectError):
        in_process({"site.test": site}, "http://other.test/")


def test_in_process_the_read_timeout_holds() -> None:
    slow = Fixed(Answer(delay_s=0.2))
    with pytest.raises(httpx.ReadTimeout):
        in_process({"slow.test": slow}, "http://slow.test/", timeout=0.05)


# The model


@pytest.mark.parametrize(
    ("change", "param"),
    [({"max_tokens": None}, "max_tokens"), ({"stream": True}, "stream"), ({"n": 2}, "n")],
)
def test_a_request_it_cannot_serve_is_refused_and_not_billed(
    change: dict[str, Any], param: str
) -> None:
    double = ModelDouble()
    reply = ask(double, chat("hi", **change))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert (double.bill, len(double.requests)) == ([], 1)


def test_it_needs_its_key_and_knows_its_paths() -> None:
    with serve(ModelDouble({"m": (1, 1, 1)})) as at:
        assert httpx.post(f"{at.url}/v1/chat/completions", json=chat("hi")).status_code == 401
        assert httpx.get(f"{at.url}/v1/nothing", headers=KEY).status_code == 404
        models = httpx.get(f"{at.url}/v1/models", headers=KEY).json()
        assert [model["id"] for model in models["data"]] == ["m"]


def test_the_bill_rounds_up_once_per_call_and_matches_usage() -> None:
    double = ModelDouble({"m": (1_000_000, 100_000, 2_500_000)})
    double.answers["review"] = lambda _: "x" * 9  # 3 tokens
    usage = ask(double, chat("€" * 3)).json()["usage"]  # 9 bytes, 3 tokens
    (charge,) = double.bill
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
    assert (charge.micro, charge.schema, double.billed_micro) == (11, "review", 11)  # 3 + 7.5


def test_a_shared_prefix_is_cached_in_steps_of_1024_bytes() -> None:
    double = ModelDouble({"m": (1_000_000, 0, 0)}, caching=True)
    ask(double, chat("a" * 3000))
    usage = ask(double, chat("a" * 2900 + "b" * 100)).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 512}
    assert [charge.micro for charge in double.bill] == [750, 750 - 512]


MISBEHAVIOUR: list[tuple[Kind, dict[str, Any], type[Exception], int]] = [
    ("reset_before", {}, httpx.ReadError, 0),
    ("reset_after", {}, httpx.ReadError, 1),
    ("drop_after", {}, httpx.RemoteProtocolError, 1),
    ("cut_after", {}, httpx.RemoteProtocolError, 1),
    ("stall", {}, httpx.ReadTimeout, 1),
    ("slow", {"seconds": 0.3}, httpx.ReadTimeout, 1),
]


@pytest.mark.parametrize(("kind", "details", "error", "billed"), MISBEHAVIOUR)
def test_a_call_that_ends_badly_is_billed_once_the_model_ran(
    kind: Kind, details: dict[str, Any], error: type[Exception], billed: int
) -> None:
    double = ModelDouble()
    double.misbehave(kind, **details)
    with pytest.raises(error):
        ask(double, chat("hi"), timeout=0.15 if error is httpx.ReadTimeout else 5.0)
    assert len(double.bill) == billed
    assert ask(double, chat("hi")).status_code == 200, "used up after one request"


def test_a_status_carries_what_it_was_given() -> None:
    double = ModelDouble()
    double.misbehave("status", code=429, retry_after="7")
    double.misbehave("status", code=503, body="<h1>busy</h1>")
    first, second = ask(double, chat("hi")), ask(double, chat("hi"))
    assert (first.status_code, first.headers["retry-after"]) == (429, "7")
    assert (second.status_code, second.text) == (503, "<h1>busy</h1>")
    assert double.bill == []


REPLIES: list[tuple[Kind, dict[str, Any], str]] = [
    ("truncated_json", {}, "finish == 'stop' and not parses and usage['completion_tokens'] > 0"),
    ("length", {}, "finish == 'length' and not parses"),
    ("not_json", {}, "finish == 'stop' and not parses"),
    ("no_usage", {}, "usage is None and parses"),
    ("zero_usage", {}, "usage['total_tokens'] == 0 and parses"),
    ("error_in_200", {}, "error and usage is None"),
    ("other_model", {"model": "x"}, "model == 'x' and bill.model == 'x'"),
    ("reported_cost", {}, "usage['cost'] == bill.micro / 1e6"),
]


@pytest.mark.parametrize(("kind", "details", "law"), REPLIES)
def test_a_misleading_reply_is_billed_all_the_same(
    kind: Kind, details: dict[str, Any], law: str
) -> None:
    double = ModelDouble()
    double.misbehave(kind, **details)
    reply = ask(double, chat("hi")).json()
    choice = reply.get("choices", [{}])[0]
    text = choice.get("message", {}).get("content", "")
    facts = {
        "finish": choice.get("finish_reason"),
        "parses": text.startswith("{") and text.endswith("}"),
        "usage": reply.get("usage"),
        "error": reply.get("error"),
        "model": reply.get("model"),
        "bill": double.bill[0],
    }
    assert eval(law, facts), facts


def test_a_format_is_refused_only_where_it_was_asked_for() -> None:
    double = ModelDouble()
    double.misbehave("no_json_schema", times=None)
    double.misbehave("no_json_object", times=None)
    double.misbehave("max_completion_tokens", times=None)
    bare = chat("Schema: review", response_format={"type": "json_object"})
    for body in (chat("hi"), bare):
        error = ask(double, body).json()["error"]
        assert error["param"] == "response_format"
    assert "json_object" in error["message"]
    del bare["response_format"]
    assert "max_completion_tokens" in ask(double, bare).json()["error"]["message"]
    bare["max_completion_tokens"] = bare.pop("max_tokens")
    assert content(ask(double, bare))["verdict"] == "approve"


def test_trouble_waits_its_turn_and_keeps_to_its_schema() -> None:
    double = ModelDouble()
    double.misbehave("status", schema="plan", after=1, times=2, code=500)
    schemas = ["plan", "review", "plan", "plan", "plan"]
    statuses = [ask(double, chat("hi", schema)).status_code for schema in schemas]
    assert statuses == [200, 200, 500, 500, 200]


def test_another_process_can_arrange_trouble_and_read_the_bill() -> None:
    double = ModelDouble()
    with serve(double) as at:
        arranged = {"kind": "status", "code": 402}
        assert httpx.post(f"{at.url}/misbehave", json=arranged).status_code == 200
        assert httpx.post(f"{at.url}/misbehave", json={"kind": "nonsense"}).status_code == 400
        for status in (402, 200):
            url = f"{at.url}/v1/chat/completions"
            assert httpx.post(url, json=chat("hi"), headers=KEY).status_code == status
        bill = httpx.get(f"{at.url}/bill").json()
    assert bill == {"micro": double.billed_micro, "calls": 1}


def test_an_answer_stays_within_the_output_limit() -> None:
    double = ModelDouble()
    reply = ask(double, chat(CLAIMS, "draft", max_tokens=20)).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 20


def test_the_schema_is_found_in_the_prompt_too() -> None:
    double = ModelDouble()
    prompt = 'Answer with {"title": "Announcement", "type": "object"}\nTitle: On Pumps'
    reply = content(ask(double, chat(prompt, response_format=None)))
    (post,) = reply["posts"]
    assert post.startswith("On Pumps")
    assert len(post) < 220


def test_reviews_are_handed_out_before_approvals() -> None:
    double = ModelDouble()
    double.reviews.append({"verdict": "revise"})
    verdicts = [content(ask(double, chat("hi")))["verdict"] for _ in range(2)]
    assert verdicts == ["revise", "approve"]


def test_notes_quote_their_sources_and_keep_every_number() -> None:
    notes: Any = author.notes(SOURCES)
    texts = {s.id: " ".join(s.text.split()) for s in author.sources(SOURCES)}
    assert {claim["source"] for claim in notes["claims"]} == {"S1", "S2"}
    for claim in notes["claims"]:
        assert claim["quote"] in texts[claim["source"]]
        assert claim["statement"] != claim["quote"]
        numbers = [re.findall(r"\d+", claim[name]) for name in ("statement", "quote")]
        assert numbers[0] == numbers[1]
    assert author.notes("Question: why?")["gaps"]
    double = ModelDouble()
    double.misbehave("invented_quote")
    (invented,) = content(ask(double, chat(SOURCES, "notes")))["claims"]
    assert invented["quote"] not in SOURCES


def test_a_draft_says_nothing_that_no_claim_says() -> None:
    draft: Any = author.draft(CLAIMS)
    assert draft["title"] == "A Closer Look at Shared Memory"
    assert len(draft["description"]) <= 150
    assert 1 <= len(draft["tags"]) <= 4
    assert 300 <= len(draft["markdown"].split()) <= 500
    assert 2 <= draft["markdown"].count("\n## ") <= 4
    for paragraph in draft["markdown"].split("\n\n"):
        said = set(re.findall(r"\d+", re.sub(r"\[S\d\]", "", paragraph)))
        cited = re.findall(r"\[(S\d)\]", paragraph)
        borne = " ".join(c.statement for c in author.claims(CLAIMS) if c.source in cited)
        assert said <= set(re.findall(r"\d+", borne)), paragraph


def test_a_plan_asks_three_to_five_questions_about_what_it_was_shown() -> None:
    plan: Any = author.plan(
        "- How to Configure NSX Load Balancer for vRA 7.1\n- Auto-Scaling Deep Dive"
    )
    assert "NSX Load Balancer" in plan["working_title"]
    assert not re.search(r"\d", plan["working_title"])
    assert 3 <= len(plan["questions"]) <= 5


# The web


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "über-uns.html").write_text('<a href="https://old.example/x">x</a>')
    (folder / "plain.txt").write_text("https://old.example")
    return folder


def test_files_are_served_by_their_names_and_nothing_outside_the_root(root: Path) -> None:
    site = SiteDouble(root, rewrite=("https://old.example", "{self}"))
    with serve(site) as at:
        page = httpx.get(f"{at.url}/über-uns.html")
        assert page.text == f'<a href="{at.url}/x">x</a>'
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert httpx.get(f"{at.url}/plain.txt").text == "https://old.example"
        assert httpx.get(f"{at.url}/%2e%2e/secret.txt").status_code == 404
    assert site.hits["/über-uns.html"] == 1


def test_a_current_copy_is_answered_with_304(root: Path) -> None:
    with serve(SiteDouble(root)) as at:
        url = f"{at.url}/plain.txt"
        first = httpx.get(url)
        tagged = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
        dated = {"if-modified-since": first.headers["last-modified"]}
        for headers in (tagged, dated):
            again = httpx.get(url, headers=headers)
            assert (again.status_code, again.content) == (304, b"")
        assert httpx.get(url, headers={**dated, "if-none-match": '"x"'}).status_code == 200
        assert httpx.head(url).headers["content-length"] == "19"


def test_a_page_can_redirect_and_change_while_the_site_is_up() -> None:
    site = SiteDouble(pages={"/old": Page(status=302, headers={"Location": "/new"}), "/new": "a"})
    with serve(site) as at:
        assert httpx.get(f"{at.url}/old", follow_redirects=True).text == "a"
        site.pages["/new"] = b"b"
        assert httpx.get(f"{at.url}/new", headers={"x-who": "me"}).text == "b"
    assert [path for path, _ in site.seen] == ["/old", "/new", "/new"]
    assert site.seen[-1][1]["x-who"] == "me"


def test_an_endless_page_goes_on_until_the_client_leaves() -> None:
    site = SiteDouble(pages={"/": Page(b"more ", endless=True)})

    async def taste(transport: httpx.AsyncBaseTransport | None, url: str) -> int:
        taken = 0
        async with httpx.AsyncClient(transport=transport) as web, web.stream("GET", url) as reply:
            assert "content-length" not in reply.headers
            async for chunk in reply.aiter_raw():
                taken += len(chunk)
                if taken > 200_000:
                    break
        return taken

    with serve(site) as at:
        assert asyncio.run(taste(None, at.url)) > 200_000
    assert asyncio.run(taste(InProcess({"x.test": site}), "http://x.test/")) > 200_000


def test_a_double_runs_in_the_foreground_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "tests.doubles", "model", "--price", "a/b=1,2,3"]
    folder = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx.get(f"{url}/bill").json() == {"micro": 0, "calls": 0}
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 0
