"""Bluesky, over a socket: nothing twice, nothing lost, few logins, and no secret in any error."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import app
from daemon.settings import load
from publishers.bluesky import Bluesky, records, session, xrpc
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.port import Announcing, Engaging, Intent, Post, Receipt, Withdrawing
from tests.doubles.bluesky import DID, BlueskyDouble, Trouble, cid_of, error, rate_limited
from tests.doubles.wire import Answer, Fault, InProcess, serve
from tests.stage import Killed

# Made once, as the daemon does: httpx takes 25 ms to make its own.
TLS = ssl.create_default_context()
START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
PASSWORD = "abcd-efgh-ijkl-mnop"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
LINK = "https://dev.to/penstock/an-article-1abc"


@dataclass
class ManualClock:
    """A clock on which a sleep takes no time but passes it."""

    at: datetime = START
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(timedelta(seconds=seconds))

    def pass_by(self, span: timedelta) -> None:
        self.at += span


@dataclass
class Stage:
    """A service, a clock, a folder, and who publishes there; made anew, it has restarted."""

    double: BlueskyDouble
    clock: ManualClock
    url: str
    folder: Path
    password: str = PASSWORD
    notes: list[str] = field(default_factory=list)
    transport: httpx.AsyncBaseTransport | None = None
    identifier: str = "author.test"
    timeout_s: float = 20.0

    @property
    def file(self) -> Path:
        return self.folder / "bluesky-session.json"

    def bluesky(self) -> Bluesky:
        return Bluesky(
            handle=self.identifier, app_password=self.password, session_file=self.file,
            clock=self.clock, service=self.url, timeout_s=self.timeout_s,
            transport=self.transport, tls=TLS,
        )  # fmt: skip

    async def note(self, text: str) -> None:
        self.notes.append(text)

    def publish(self, intent: Intent) -> Receipt:
        noted = self.notes[-1] if self.notes else intent.noted
        return asyncio.run(self.bluesky().publish(replace(intent, noted=noted), self.note))

    def find(self, intent: Intent) -> Receipt | None:
        return asyncio.run(self.bluesky().find(intent))

    def kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads(self.file.read_bytes())
        return kept


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stage_in(tmp_path) as made:
        yield made


class stage_in:  # noqa: N801 - a context manager that reads as one
    def __init__(self, folder: Path, **options: Any) -> None:
        clock = ManualClock()
        self._double = BlueskyDouble(now=clock.now, **options)
        self._served = serve(self._double)
        self._clock, self._folder = clock, folder

    def __enter__(self) -> Stage:
        url = self._served.__enter__().url
        return Stage(self._double, self._clock, url, self._folder)

    def __exit__(self, *problem: Any) -> None:
        self._served.__exit__(*problem)


def post(*texts: str, **changed: Any) -> Post:
    whole = Post(
        run="01RUN", title="An Article", description="What it says.", tags=("memory",),
        markdown="Body.", at=START, language="en", card=PNG, link=LINK,
        announcement=texts or ("A scheduler that shares memory.",),
    )  # fmt: skip
    return replace(whole, **changed)


def intent_of(*texts: str, **changed: Any) -> Intent:
    return records.intend(post(*texts, **changed))


THREAD = ("First.", "Second, with ünïcödé 🏳️‍🌈.", "Third.")


# What is sent


def test_it_is_what_its_ports_say(stage: Stage) -> None:
    bluesky = stage.bluesky()
    assert (bluesky.name, bluesky.public, bluesky.announces) == ("bluesky", True, True)
    assert isinstance(bluesky, Engaging)
    assert isinstance(bluesky, Withdrawing)
    assert isinstance(bluesky, Announcing)


def test_an_intent_is_the_same_for_the_same_post() -> None:
    assert intent_of(*THREAD) == intent_of(*THREAD)
    assert intent_of(*THREAD).key != intent_of(*THREAD, run="01OTHER").key


def test_keys_sort_by_time_and_have_the_form_of_a_tid() -> None:
    # TID.fromTime of @atproto/common-web says so.
    assert records.tid(datetime(2024, 1, 1, tzinfo=UTC), 0) == "3khuwc44c2222"
    assert records.tid(START + timedelta(microseconds=7), 1023) == "3n2xnxk5c2bzz"
    days = [records.tid(START + timedelta(days=n), 1023) for n in range(2000)]
    assert days == sorted(days)
    assert all(regex.fullmatch("[234567a-j][234567a-z]{12}", day) for day in days)


@given(st.text(max_size=4000))
@settings(max_examples=300, deadline=None)
def test_any_text_is_made_to_fit(text: str) -> None:
    fitting = records.fit(text)
    assert len(regex.findall(r"\X", fitting)) <= 300
    assert len(fitting.encode()) <= 3000
    assert records.fit(fitting) == fitting


def test_a_long_text_is_cut_after_a_word() -> None:
    fitting = records.fit("scheduler " * 60)
    assert fitting.endswith("scheduler…")
    assert 280 < len(fitting) <= 300
    assert records.fit("z" * 400) == "z" * 299 + "…"
    assert records.fit("🏳️‍🌈" * 301).count("🏳️‍🌈") <= 299
    assert len(records.fit("e" + "\u0301" * 2000).encode()) <= 3000


def test_half_a_surrogate_pair_does_not_stop_a_post(stage: Stage) -> None:
    stage.publish(intent_of("half \ud83d of it", title="\udc00"))
    assert [v["text"] for v in stage.double.posts().values()] == ["half ? of it"]


@given(st.text(max_size=60), st.sampled_from(["https://example.org/ä", "http://x.test/?q=1"]))
def test_an_address_in_a_text_is_linked_by_its_place_in_the_bytes(text: str, address: str) -> None:
    whole = f"{text} {address}."
    payload = json.loads(intent_of(whole).payload)["posts"][0]["record"]
    linked = [
        payload["text"].encode()[f["index"]["byteStart"] : f["index"]["byteEnd"]].decode()
        for f in payload.get("facets", [])
    ]
    assert address in linked


def test_an_address_that_was_cut_is_not_linked() -> None:
    record = json.loads(intent_of("https://example.org/" + "a" * 400).payload)["posts"][0]["record"]
    assert "facets" not in record


def test_a_post_without_words_says_the_title(stage: Stage) -> None:
    stage.publish(records.intend(replace(post(), announcement=())))
    assert [v["text"] for v in stage.double.posts().values()] == ["An Article"]


def test_the_first_post_has_a_card_and_its_picture_was_uploaded(stage: Stage) -> None:
    stage.publish(intent_of(*THREAD))
    first, *others = stage.double.posts().values()
    card = first["embed"]["external"]
    assert (card["uri"], card["title"], card["description"]) == (
        LINK,
        "An Article",
        "What it says.",
    )
    assert stage.double.blobs[card["thumb"]["ref"]["$link"]] == PNG
    assert card["thumb"]["size"] == len(PNG)
    assert not any("embed" in other for other in others)


@pytest.mark.parametrize("picture", [None, b"", b"GIF89a", PNG + bytes(1_000_000)])
def test_a_picture_that_no_card_can_hold_is_left_out(stage: Stage, picture: bytes | None) -> None:
    stage.publish(intent_of(card=picture))
    (only,) = stage.double.posts().values()
    assert "thumb" not in only["embed"]["external"]
    assert stage.double.times("uploadBlob") == 0


def test_without_an_address_the_post_stands_alone(stage: Stage) -> None:
    stage.publish(intent_of(link=None))
    (only,) = stage.double.posts().values()
    assert "embed" not in only
    assert only["langs"] == ["en"]
    assert only["createdAt"] == "2026-11-23T08:00:00.000Z"


def test_a_thread_refers_to_itself(stage: Stage) -> None:
    receipt = stage.publish(intent_of(*THREAD))
    keys, values = zip(*sorted(stage.double.posts().items()), strict=True)
    refs = [{"uri": f"at://{DID}/app.bsky.feed.post/{k}", "cid": cid_of(v)}
            for k, v in zip(keys, values, strict=True)]  # fmt: skip
    assert values[1]["reply"] == {"root": refs[0], "parent": refs[0]}
    assert values[2]["reply"] == {"root": refs[0], "parent": refs[1]}
    assert receipt.url == f"https://bsky.app/profile/author.test/post/{keys[0]}"
    assert receipt.remote_id == f"{refs[0]['uri']} {keys[1]} {keys[2]}"


def test_requests_come_in_an_order_that_a_crash_cannot_hurt(stage: Stage) -> None:
    stage.publish(intent_of("One.", "Two."))
    assert [name for name, _ in stage.double.asked] == [
        "createSession", "getRecord", "getRecord", "putRecord", "uploadBlob", "putRecord",
        "putRecord",
    ]  # fmt: skip
    looked, _ = [r.query["collection"] for name, r in stage.double.asked if name == "getRecord"]
    assert looked == "app.bsky.feed.post", "it looks before it puts"
    puts = [r.json for name, r in stage.double.asked if name == "putRecord"]
    assert all("swapRecord" in put and put["swapRecord"] is None for put in puts)
    assert stage.notes == [DID]


def test_publishing_again_changes_nothing(stage: Stage) -> None:
    intent = intent_of(*THREAD)
    receipts = {stage.publish(intent) for _ in range(3)}
    assert len(receipts) == 1
    assert set(stage.double.writes.values()) == {1}
    assert stage.find(intent) == receipts.pop()


def test_another_account_does_not_go_on_with_it(stage: Stage) -> None:
    stage.notes.append("did:plc:somebodyelse")
    with pytest.raises(Barred, match=r"begun as did:plc:somebodyelse.*BLUESKY_HANDLE"):
        stage.publish(intent_of())
    assert not stage.double.posts()
    assert stage.notes == ["did:plc:somebodyelse"]


def test_what_is_live_as_another_account_is_the_receipt(stage: Stage) -> None:
    intent = intent_of()
    receipt = stage.publish(intent)
    # The handle passes to an account that does not have the post.
    elsewhere = BlueskyDouble(now=stage.clock.now, did="did:plc:somebodyelse", shared=stage.double)
    stage.clock.pass_by(timedelta(minutes=2))
    stage.file.unlink()
    with serve(elsewhere) as at:
        stage.url = at.url
        told = stage.publish(intent)
    assert told.remote_id == receipt.remote_id
    assert told.url == f"https://bsky.app/profile/{DID}/post/{intent.key}"
    assert not elsewhere.posts()


def test_nothing_is_noted_of_a_first_post_that_was_refused(stage: Stage) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    for refusal in (
        rate_limited(START, retry_after="7"), error(403, "", "no"), error(400, "InvalidRequest"),
    ):  # fmt: skip
        stage.double.misbehave("putRecord", refusal)
        with pytest.raises((Transient, Rejected)):
            stage.publish(intent_of())
        assert stage.notes[-2:] == [DID, ""]
    stage.publish(intent_of())
    assert stage.notes[-1] == DID


# A journal that was restored from a backup, and knows nothing of it


def again(*texts: str, **changed: Any) -> Intent:
    """The intent of the same run, made anew in another life: later, and in other words."""
    later = START + timedelta(days=2)
    return intent_of(*texts or ("Other words.",), at=later, begun=START, **changed)


def test_keys_follow_from_the_run_and_times_from_the_post() -> None:
    first, second = intent_of(*THREAD, begun=START), again(*THREAD)
    assert first == intent_of(*THREAD)
    posts = [records.plan(intent).posts for intent in (first, second)]
    assert [rkey for rkey, _ in posts[0]] == [rkey for rkey, _ in posts[1]]
    assert posts[1][0][1]["createdAt"] == "2026-11-25T08:00:00.000Z"
    assert [records.next_tid(rkey) for rkey, _ in posts[0][:2]] == [r for r, _ in posts[0][1:]]
    other = intent_of(*THREAD, begun=START + timedelta(seconds=1))
    assert other.key > first.key


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("then", [1, 2, 3])
def test_a_run_that_is_intended_again_finds_its_thread_whatever_it_would_say_now(
    stage: Stage, first: int, then: int
) -> None:
    receipt = stage.publish(intent_of(*THREAD[:first], begun=START))
    before = stage.double.posts()
    stage.notes.clear()
    intent = again(*(f"Other {number}." for number in range(then)))
    assert stage.find(intent) == receipt
    assert stage.publish(intent) == receipt
    assert stage.double.posts() == before
    assert set(stage.double.writes.values()) == {1}
    assert len(stage.double.logins) == 1


def test_a_run_that_is_intended_again_after_any_kill_is_posted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 100):
        (folder := tmp_path / str(at)).mkdir()
        with stage_in(folder) as stage:
            died = False
            with monkeypatch.context() as patched:
                try:
                    until_published(
                        mortal(stage, Reaper(at), patched), intent_of(*THREAD, begun=START)
                    )
                except Killed:
                    died = True
            sent = len(stage.double.posts())
            stage.notes.clear()
            stage.clock.pass_by(timedelta(days=2))
            intent = again("Other words.", "And more.")
            receipt = until_published(stage, intent)
            assert stage.find(intent) == receipt
            assert set(stage.double.writes.values()) == {1}
            assert len(stage.double.posts()) == (sent or 2)
            assert len(receipt.remote_id.split(" ")) == (sent or 2)
        if not died:
            break
    assert at > 20


@pytest.mark.parametrize("shown", [True, False])
def test_a_place_that_is_taken_between_the_look_and_the_post_is_looked_at(
    stage: Stage, shown: bool
) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    first = records.thread(records.plan(intent_of(begun=START)), DID)[0]
    intent = again("Other words.", "And more.")
    # The look comes too early.
    stage.double.misbehave("getRecord", error(400, "RecordNotFound"))
    if not shown:
        stage.double.misbehave("getRecord", error(502, "UpstreamFailure"))
    stage.double.records[f"app.bsky.feed.post/{first.rkey}"] = first.record
    if shown:
        receipt = stage.publish(intent)
        assert receipt.remote_id == first.uri
    else:
        with pytest.raises(OutcomeUnknown, match="InvalidSwap"):
            stage.publish(intent)
        assert stage.notes == [DID]
    found = stage.find(intent)
    assert found is not None
    assert found.remote_id == first.uri
    assert stage.publish(intent) == found
    assert stage.double.records[f"app.bsky.feed.post/{first.rkey}"] == first.record


# Kills


@dataclass
class Reaper:
    """Kills at the n-th boundary; 0 only counts them."""

    at: int = 0
    passed: int = 0

    def step(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            raise Killed


@dataclass
class Fatal(httpx.AsyncBaseTransport):
    """A boundary before and after every request."""

    reaper: Reaper
    inner: httpx.AsyncBaseTransport = field(
        default_factory=lambda: httpx.AsyncHTTPTransport(verify=TLS)
    )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.reaper.step()
        response = await self.inner.handle_async_request(request)
        content = await response.aread()
        await response.aclose()
        self.reaper.step()
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    async def aclose(self) -> None:
        await self.inner.aclose()


def mortal(stage: Stage, reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same stage, mortal at every request, note and replacement of a file."""
    os_replace = os.replace

    def dangerous(old: Any, new: Any) -> None:
        reaper.step()
        os_replace(old, new)
        reaper.step()

    monkeypatch.setattr(os, "replace", dangerous)

    class Mortal(Stage):
        async def note(self, text: str) -> None:
            reaper.step()
            stage.notes.append(text)
            reaper.step()

    return Mortal(
        stage.double, stage.clock, stage.url, stage.folder, notes=stage.notes,
        transport=Fatal(reaper),
    )  # fmt: skip


def until_published(stage: Stage, intent: Intent) -> Receipt:
    """As the daemon does: again when told to, until it is out."""
    for _ in range(6):
        try:
            return stage.publish(intent)
        except (Transient, OutcomeUnknown) as problem:
            wait_s = getattr(problem, "retry_after_s", None) or 60
            stage.clock.pass_by(timedelta(seconds=wait_s))
    raise AssertionError("it never went out")


def killed_at(
    folder: Path, deaths: tuple[int, ...], intent: Intent, monkeypatch: pytest.MonkeyPatch
) -> tuple[Receipt, int, dict[str, Any]]:
    """Publish through these deaths; the boundaries of an undisturbed life are counted."""
    folder.mkdir()
    with stage_in(folder) as stage:
        for at in deaths:
            reaper = Reaper(at)
            with monkeypatch.context() as patched:
                try:
                    until_published(mortal(stage, reaper, patched), intent)
                except Killed:
                    continue
        reaper = Reaper()
        with monkeypatch.context() as patched:
            receipt = until_published(mortal(stage, reaper, patched), intent)
        assert set(stage.double.writes.values()) == {1}, deaths
        assert len(stage.double.logins) <= 1 + len(deaths)
        return receipt, reaper.passed, stage.double.posts()


def test_a_kill_at_any_boundary_neither_repeats_nor_loses_a_post(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent = intent_of(*THREAD)
    receipt, boundaries, posts = killed_at(tmp_path / "none", (), intent, monkeypatch)
    assert boundaries > 20
    deaths: list[tuple[int, ...]] = [(at,) for at in range(1, boundaries + 1)]
    chance = random.Random(7)
    deaths += [tuple(chance.choices(range(1, boundaries + 1), k=2)) for _ in range(60)]
    for number, chosen in enumerate(deaths):
        told = killed_at(tmp_path / str(number), chosen, intent, monkeypatch)
        assert (told[0], told[2]) == (receipt, posts), chosen
    print(f"{len(deaths)} lives, {boundaries} boundaries")


# Trouble


HTML = Answer(200, {"content-type": "text/html"}, b"<html>Just a moment...</html>")
JSON = {"content-type": "application/json"}
GARBAGE = {
    "html": HTML,
    "html called json": Answer(200, JSON, HTML.body),
    "nothing": Answer(200, JSON, b""),
    "a list": Answer.of([1, 2]),
    "null": Answer.of(None),
    "an empty object": Answer.of({}),
    "the wrong types": Answer.of(
        {"uri": 1, "cid": [], "blob": 3, "posts": {"a": 1}, "value": "x", "did": 5, "handle": None}
    ),
    "strangers": Answer.of(
        {"uri": "at://x/y/z", "cid": "bafy", "blob": {"ref": None}, "posts": [1, None, {"uri": []}],
         "value": {"n": {"$link": 7}}}
    ),
    "deep": Answer(200, JSON, b"[" * 100_000),
    "cut": Answer(200, JSON, b'{"uri": "at://'),
    "not UTF-8": Answer(200, JSON, b'{"uri": "\xff\xfe"}'),
    "compressed": Answer(200, {**JSON, "content-encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
    "a redirect": Answer(307, {"location": "http://127.0.0.1:9/"}, b""),
    "an error that is a list": Answer.of([{"error": 1}], 400),
    "an error of other types": Answer.of({"error": {"a": 1}, "message": [2]}, 400),
    "an error page": Answer(403, {"content-type": "text/html"}, b"<html>denied</html>"),
    "teapot": Answer(418, {}, b""),
    "500": Answer(500, {}, b"oops"),
    "an error with no end": Answer(502, JSON, b" ", endless=True),
    "no end": Answer(200, JSON, b" ", endless=True),
    "reset": Answer(fault=Fault.RESET),
    "drop": Answer(fault=Fault.DROP),
    "stall": Answer(200, JSON, b"{}", fault=Fault.STALL),
    "early end": Answer(200, JSON, b"{}", fault=Fault.CUT),
}  # fmt: skip


@pytest.fixture
def impatient(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.timeout_s = 1.0
    monkeypatch.setattr(xrpc, "UPLOAD_TIMEOUT_S", 1.0)
    monkeypatch.setattr(xrpc, "ANSWER_BYTES_MAX", 1_000_000)


def test_a_request_is_given_as_long_as_the_operator_says(tmp_path: Path) -> None:
    class Silence(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

    env = {
        "PENSTOCK_STATE_DIR": str(tmp_path), "PENSTOCK_PUBLISHERS": "outbox,bluesky",
        "BLUESKY_HANDLE": "author.test", "BLUESKY_APP_PASSWORD": PASSWORD,
        "PENSTOCK_HTTP_TIMEOUT": "0.2",
    }  # fmt: skip
    world = app.World(platforms=Silence())
    chosen = load(env, at=START, for_run=False)
    bluesky = app.PUBLISHERS["bluesky"](app.Wiring(chosen, world, None))
    with pytest.raises(Transient, match="no whole answer within"):
        asyncio.run(bluesky.find(intent_of()))


@pytest.mark.parametrize(
    ("timeout_s", "connect_s", "upload_s"), [(5, 2.5, 90), (20, 10, 90), (200, 15, 200)]
)
def test_a_connection_gets_a_part_of_that_time_and_an_upload_no_less_than_it_needs(
    tmp_path: Path, timeout_s: float, connect_s: float, upload_s: float
) -> None:
    class Refusing(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.extensions["timeout"])
            raise httpx.ConnectTimeout("nobody there")

    asked: list[dict[str, float]] = []
    stage = Stage(
        BlueskyDouble(), ManualClock(), "https://pds.test", tmp_path, transport=Refusing(),
        timeout_s=timeout_s,
    )  # fmt: skip
    with pytest.raises(Transient):
        stage.find(intent_of())
    assert {(one["connect"], one["read"]) for one in asked} == {(connect_s, upload_s)}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "method", ["createSession", "refreshSession", "getRecord", "putRecord", "uploadBlob"]
)
def test_no_answer_makes_a_post_twice_or_another_error_than_ours(
    stage: Stage, method: str, garbage: str, effect: bool
) -> None:
    intent = intent_of("One.", "Two.")
    if method == "refreshSession":
        stage.publish(intent_of(run="01EARLIER"))
        stage.clock.pass_by(timedelta(hours=3))
        stage.notes.clear()
    stage.double.misbehave(method, *[Trouble(GARBAGE[garbage], effect)] * 4)
    outcome: Receipt | PublisherError
    try:
        outcome = stage.publish(intent)
    except PublisherError as problem:
        outcome = problem
    stage.double.recover()
    stage.clock.pass_by(timedelta(days=1, seconds=1))
    if not isinstance(outcome, Rejected):
        receipt = until_published(stage, intent)
        assert stage.find(intent) == receipt
        assert not isinstance(outcome, Receipt) or outcome == receipt
    assert set(stage.double.writes.values()) <= {1}


UNCLEAR = [
    Answer(fault=Fault.RESET), Answer(fault=Fault.DROP), Answer(200, JSON, b"{}", fault=Fault.CUT),
    error(500, "InternalServerError"), error(502, "UpstreamFailure"), error(503, ""),
    error(504, "UpstreamTimeout"), HTML,
]  # fmt: skip


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("answer", UNCLEAR)
def test_what_is_unclear_is_asked_again_in_the_same_bytes(
    stage: Stage, answer: Answer, effect: bool
) -> None:
    intent = intent_of(card=None)
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.double.asked.clear()
    stage.double.misbehave("putRecord", *[Trouble(answer, effect)] * 2)
    receipt = stage.publish(intent)
    bodies = [r.body for name, r in stage.double.asked if name == "putRecord"]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert stage.find(intent) == receipt
    assert set(stage.double.writes.values()) == {1}


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("answer", UNCLEAR)
def test_what_stays_unclear_is_told_and_then_found_or_posted(
    stage: Stage, answer: Answer, effect: bool
) -> None:
    intent = intent_of(card=None)
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.double.misbehave("putRecord", *[Trouble(answer, effect)] * 3)
    with pytest.raises(OutcomeUnknown) as told:
        stage.publish(intent)
    assert told.value.key == intent.key
    assert (stage.find(intent) is not None) == effect
    assert stage.find(intent) == (stage.publish(intent) if effect else None)
    stage.publish(intent)
    assert set(stage.double.writes.values()) == {1}


def test_who_is_not_reached_has_posted_nothing(stage: Stage) -> None:
    # The look comes through, the post does not: with no connection it cannot have been posted.
    class Unreached(Fatal):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("putRecord"):
                raise httpx.ConnectError("nobody there")
            return await super().handle_async_request(request)

    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.transport = Unreached(Reaper())
    with pytest.raises(Transient, match="not reached"):
        stage.publish(intent_of())
    assert stage.notes == [DID, ""]


def test_what_tls_finds_wrong_in_an_answer_leaves_the_outcome_open(stage: Stage) -> None:
    class Forged(Fatal):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if request.url.path.endswith(forged[-1]):
                raise ssl.SSLError("bad record mac")
            return response

    forged = ["createSession"]
    stage.transport = Forged(Reaper())
    with pytest.raises(Transient, match="bad record mac"):
        stage.find(intent_of())
    forged.append("putRecord")
    stage.clock.pass_by(timedelta(hours=1))
    with pytest.raises(OutcomeUnknown, match="bad record mac"):
        stage.publish(intent_of())
    assert len(stage.double.posts()) == 1


@pytest.mark.parametrize("method", ["createSession", "uploadBlob", "putRecord", "getRecord"])
@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (rate_limited(START + timedelta(seconds=300)), 300),
        (rate_limited(START, retry_after="7"), 7),
        (Answer(429, {"retry-after": "Mon, 23 Nov 2026 08:01:00 GMT"}, b""), 60),
        (Answer(429, {"retry-after": "99999999"}, b""), 86_400),
        (Answer(429, {"retry-after": f"Mon, 23 Nov {'9' * 30} 08:01:00 GMT"}, b""), None),
        (Answer(429, {"retry-after": "nan", "ratelimit-reset": "soon"}, b""), None),
        (Answer(429, {"retry-after": "-3"}, b""), 0),
    ],
)
def test_a_rate_limit_says_when_to_come_again(
    stage: Stage, method: str, answer: Answer, seconds: float | None
) -> None:
    if method in ("putRecord", "getRecord"):
        stage.publish(intent_of(run="01EARLIER"))
    stage.double.misbehave(method, answer)
    with pytest.raises(Transient) as told:
        stage.publish(intent_of())
    assert told.value.retry_after_s == seconds
    stage.double.recover()
    stage.clock.pass_by(timedelta(seconds=max(seconds or 0, 60)))
    stage.publish(intent_of())


def test_a_post_that_is_refused_is_let_go(stage: Stage) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.double.misbehave("putRecord", error(400, "InvalidRequest", "text: grapheme too big"))
    stage.notes.clear()
    with pytest.raises(Rejected, match="grapheme too big"):
        stage.publish(intent_of())


@pytest.mark.parametrize("answer", [
    error(413, "PayloadTooLarge", "request entity too large"), error(400, "BlobTooLarge"),
])  # fmt: skip
def test_a_picture_that_is_refused_refuses_the_post(stage: Stage, answer: Answer) -> None:
    stage.double.misbehave("uploadBlob", answer)
    with pytest.raises(Rejected, match=r"picture.*PDS_BLOB_UPLOAD_LIMIT"):
        stage.publish(intent_of())
    assert not stage.double.posts()


@pytest.mark.parametrize("method", ["uploadBlob", "putRecord", "getRecord"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error(403, "Forbidden", "not you"), "not you.*BLUESKY_APP_PASSWORD"),
        (error(401, "AccountTakedown", "taken down"), "moderators"),
        (error(400, "AccountDeactivated", "asleep"), "activate it"),
        (error(400, "RepoTakendown", "gone"), "moderators"),
        (error(400, "RepoDeactivated", "asleep"), "activate it"),
        (error(404, "", "Cannot POST"), "BLUESKY_URL"),
    ],
)
def test_when_it_is_us_who_are_refused_a_person_is_told_and_the_post_waits(
    stage: Stage, method: str, answer: Answer, told: str
) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    intent = intent_of()
    for _ in range(3):
        stage.double.misbehave(method, answer)
        with pytest.raises(Barred, match=told):
            stage.publish(intent)
    receipt = stage.publish(intent)
    assert stage.find(intent) == receipt
    assert set(stage.double.writes.values()) == {1}
    assert len(stage.double.logins) == 1
    for asked in ("find", "engagement", "withdraw"):
        method = {"find": "getRecord", "engagement": "getPosts", "withdraw": "deleteRecord"}[asked]
        stage.double.misbehave(method, answer)
        bluesky = stage.bluesky()
        calls = {
            "find": lambda b=bluesky: b.find(intent),
            "engagement": lambda b=bluesky: b.engagement([receipt]),
            "withdraw": lambda b=bluesky: b.withdraw(receipt, "reason"),
        }
        with pytest.raises(Barred, match=told):
            asyncio.run(calls[asked]())
    assert len(stage.double.posts()) == 2


def test_an_account_that_its_own_server_does_not_show_is_a_persons_affair(stage: Stage) -> None:
    # What a PDS says of an account that was closed, once the AppView has heard of it, while the
    # account's session still holds; not by whom.
    said = error(400, "InvalidRequest", f"Could not find repo: {DID}")
    stage.double.misbehave("getRecord", *[said] * 4)
    for remedy in ("BLUESKY_HANDLE.*activated", "moderators"):
        with pytest.raises(Barred, match=remedy):
            stage.publish(intent_of())
        with pytest.raises(Barred, match=remedy):
            stage.find(intent_of())
    stage.publish(intent_of())


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_look_that_is_refused_says_nothing_against_the_post(stage: Stage, status: int) -> None:
    stage.double.misbehave("getRecord", *[error(status, "InvalidRequest", "what?")] * 2)
    with pytest.raises(Transient):
        stage.publish(intent_of())
    with pytest.raises(Transient):
        stage.find(intent_of())
    stage.publish(intent_of())


def test_a_picture_that_was_changed_refuses_the_post(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    other = records.blob(PNG + b"recompressed")
    stage.double.misbehave("uploadBlob", Answer.of({"blob": other}))
    with pytest.raises(Rejected, match="Could not find blob"):
        stage.publish(intent_of())
    assert "another picture" in caplog.text


def test_a_service_that_hashes_otherwise_is_told_of_and_not_asked_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    intent = intent_of()
    uri = f"at://author.test/app.bsky.feed.post/{intent.key}"
    stage.double.misbehave("putRecord", Trouble(Answer.of({"uri": uri, "cid": "bafyother"}), True))
    receipt = stage.publish(intent)
    assert stage.find(intent) == receipt
    assert "other bytes" in caplog.text


def test_a_thread_whose_later_post_is_refused_is_live_as_far_as_it_went(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    intent = intent_of(*THREAD)
    stage.double.misbehave(
        "putRecord", *[Trouble(HTML, effect=True)] * 1, error(500, "x"), error(500, "x")
    )
    with pytest.raises(OutcomeUnknown):
        stage.publish(intent)
    stage.double.misbehave("putRecord", error(400, "InvalidRequest", "no replies today"))
    receipt = stage.publish(intent)
    assert " " not in receipt.remote_id
    assert receipt.whole
    # Who looks cannot know that the rest was refused, and would have it asked for again.
    assert stage.find(intent) == replace(receipt, whole=False)
    assert "went out with 1 of 3" in caplog.text


def test_a_post_that_was_changed_by_hand_stays_as_it_is(stage: Stage) -> None:
    intent = intent_of()
    receipt = stage.publish(intent)
    path = f"app.bsky.feed.post/{intent.key}"
    stage.double.records[path] = {**stage.double.records[path], "text": "Changed."}
    assert stage.publish(intent) == receipt
    assert stage.double.records[path]["text"] == "Changed."


# Sessions


def test_a_session_is_kept_where_only_we_can_read_it(stage: Stage) -> None:
    old = os.umask(0)
    try:
        stage.publish(intent_of())
    finally:
        os.umask(old)
    assert stat.S_IMODE(stage.file.stat().st_mode) == 0o600
    assert [path.name for path in stage.folder.iterdir()] == [stage.file.name]


def test_a_restart_uses_the_session_that_was_kept(stage: Stage) -> None:
    for number in range(5):
        stage.notes.clear()
        stage.publish(intent_of(run=f"01RUN{number}"))
    assert len(stage.double.logins) == 1
    assert stage.double.times("refreshSession") == 0


def test_a_token_is_renewed_before_it_ends_and_what_is_new_is_kept(stage: Stage) -> None:
    stage.publish(intent_of())
    before = stage.kept()["session"]
    stage.clock.pass_by(timedelta(minutes=116))
    stage.find(intent_of())
    after = stage.kept()["session"]
    assert before[2:4] != after[2:4]
    assert [stage.double.times(m) for m in ("createSession", "refreshSession")] == [1, 1]


@pytest.mark.parametrize("opaque", [False, True])
def test_a_token_that_the_service_ended_is_renewed(tmp_path: Path, opaque: bool) -> None:
    with stage_in(tmp_path, opaque=opaque) as stage:
        stage.publish(intent_of(run="01EARLIER"))
        stage.notes.clear()
        stage.double.end_access()
        stage.publish(intent_of())
        assert [stage.double.times(m) for m in ("createSession", "refreshSession")] == [1, 1]
        assert set(stage.double.writes.values()) == {1}


def test_a_session_that_the_service_ended_is_made_anew(stage: Stage) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.double.forget_sessions()
    stage.clock.pass_by(timedelta(minutes=2))
    stage.publish(intent_of())
    assert len(stage.double.logins) == 2


def test_a_service_that_refuses_its_own_new_tokens_does_not_reject_the_post(stage: Stage) -> None:
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.double.misbehave("putRecord", *[error(400, "ExpiredToken")] * 9)
    with pytest.raises(Transient, match="ExpiredToken"):
        stage.publish(intent_of())
    assert len(stage.double.logins) == 1


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b'{"owner": 1}', b"\xff\x00", b'{"attempts": ["x"], "labelled": []}',
    b'{"owner": null, "attempts": [], "labelled": [], "session": null}',
])  # fmt: skip
def test_a_session_file_that_is_spoiled_costs_a_login(stage: Stage, content: bytes) -> None:
    stage.file.write_bytes(content)
    stage.publish(intent_of())
    assert len(stage.double.logins) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"identifier": "other.test"}, r"other\.test"),
        ({"url": "http://127.0.0.1:9"}, "could not be logged in to"),
    ],
)
def test_the_session_of_another_account_or_service_is_not_used(
    stage: Stage, changed: dict[str, Any], told: str
) -> None:
    stage.publish(intent_of())
    stage.clock.pass_by(timedelta(minutes=2))
    with pytest.raises(Transient, match=told):
        replace(stage, **changed).find(intent_of())


def in_process(folder: Path) -> Stage:
    clock = ManualClock()
    double = BlueskyDouble(now=clock.now)
    stage = Stage(double, clock, "https://pds.test", folder)
    stage.transport = InProcess({"pds.test": double})
    return stage


def live_a_month(stage: Stage, trouble: Callable[[int], None]) -> int:
    """A post a day and counts every hour, with restarts; how often it was not now."""
    bluesky, receipts, lost = stage.bluesky(), [], 0
    with asyncio.Runner() as runner:
        for hour in range(30 * 24):
            trouble(hour)
            if hour % 7 == 0:
                bluesky = stage.bluesky()
            try:
                if hour % 24 == 10:
                    intent = intent_of(run=f"run{hour}", at=stage.clock.now())
                    receipts.append(runner.run(bluesky.publish(intent, stage.note)))
                runner.run(bluesky.engagement(receipts))
            except Transient:
                lost += 1
            stage.clock.pass_by(timedelta(hours=1))
    return lost


def logins_a_day(stage: Stage) -> list[int]:
    days = [0] * 31
    for at in stage.double.logins:
        days[(at - START).days] += 1
    return days


def test_a_month_takes_one_login(tmp_path: Path) -> None:
    stage = in_process(tmp_path)
    assert live_a_month(stage, lambda _: None) == 0
    assert len(stage.double.logins) == 1
    asks, renewals = len(stage.double.asked), stage.double.times("refreshSession")
    print(f"{asks} requests, {renewals} renewals, 1 login")


def test_a_month_in_which_sessions_are_lost_takes_one_login_a_day_at_most(tmp_path: Path) -> None:
    stage = in_process(tmp_path)

    def trouble(hour: int) -> None:
        if hour % 48 == 25:
            stage.double.forget_sessions()
        if hour % 24 == 15:
            stage.double.misbehave("refreshSession", Trouble(Answer(fault=Fault.DROP), True))

    assert live_a_month(stage, trouble) <= 30
    assert max(logins_a_day(stage)) == 1
    assert len(stage.double.logins) == 16


def test_a_service_that_loses_every_session_is_not_hammered(tmp_path: Path) -> None:
    stage = in_process(tmp_path)
    live_a_month(stage, lambda _: stage.double.forget_sessions())
    assert max(logins_a_day(stage)) <= 16


def test_a_wrong_password_is_offered_once_a_day_and_a_new_one_at_once(stage: Stage) -> None:
    stage.password = "wrong-wron-gwro-ngwr"
    for _ in range(50):
        with pytest.raises(Barred, match="make a new app password at https"):
            stage.publish(intent_of())
        stage.clock.pass_by(timedelta(minutes=20))
    assert len(stage.double.logins) == 1
    stage.password = PASSWORD
    stage.publish(intent_of())
    assert len(stage.double.logins) == 2


def test_a_refusal_dated_by_a_clock_that_was_ahead_does_not_wait_for_that_day(
    stage: Stage,
) -> None:
    stage.clock.pass_by(timedelta(days=365))
    stage.double.login_answer = error(401, "AuthenticationRequired", "Invalid")
    with pytest.raises(Barred):
        stage.publish(intent_of())
    stage.clock.at = START
    stage.double.login_answer = None
    stage.publish(intent_of())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error(401, "AuthFactorTokenRequired", "A code was sent"), "make an app pass"),
        (error(401, "AccountTakedown", "Account has been taken down"), "moderators"),
        (error(403, "AccountTakedown", "Account has been taken down"), "moderators"),
        (error(400, "AccountDeactivated", "Account is deactivated"), "activate it"),
        (error(401, "AuthenticationRequired", "Invalid"), "new app password"),
        (error(400, "InvalidRequest", "Invalid identifier"), "BLUESKY_HANDLE"),
        (error(404, "", "Cannot POST"), "BLUESKY_URL"),
    ],
)
def test_a_login_that_is_refused_says_what_to_do_and_is_not_tried_again_at_once(
    stage: Stage, answer: Answer, told: str
) -> None:
    stage.double.login_answer = answer
    said = json.loads(answer.body)["message"]
    for _ in range(3):
        with pytest.raises(Barred, match=told) as problem:
            stage.publish(intent_of())
        assert said in str(problem.value), "in the service's own words"
        assert "BLUESKY_" in str(problem.value)
        stage.clock.pass_by(timedelta(minutes=10))
    assert len(stage.double.logins) == 1
    assert not stage.notes
    stage.double.login_answer = None
    stage.clock.pass_by(timedelta(days=1))
    stage.publish(intent_of())
    assert len(stage.double.posts()) == 1


def test_a_login_that_fails_otherwise_waits_longer_each_time(stage: Stage) -> None:
    stage.double.login_answer = error(501, "MethodNotImplemented")
    for _ in range(3):
        with pytest.raises(Transient, match=r"501|times within a day"):
            stage.publish(intent_of())
    assert len(stage.double.logins) == 1


@pytest.mark.parametrize("status", ["suspended", "takendown", "deactivated", "deleted", ""])
def test_a_login_into_a_closed_account_is_no_login(stage: Stage, status: str) -> None:
    stage.double.active = {"active": False, "status": status}
    with pytest.raises(Barred, match=f"200 {status}"):
        stage.publish(intent_of())
    stage.double.active = {}
    stage.clock.pass_by(timedelta(days=1))
    stage.publish(intent_of())


def test_a_refusal_that_an_earlier_version_remembered_is_still_one(stage: Stage) -> None:
    stage.double.login_answer = error(401, "AccountTakedown")
    with pytest.raises(Barred):
        stage.publish(intent_of())
    until, _, _, password = stage.kept()["refusal"]
    stage.file.write_text(json.dumps(stage.kept() | {"refusal": [until, "closed", True, password]}))
    with pytest.raises(Barred, match="closed") as told:
        stage.publish(intent_of())
    assert told.value.retry_after_s == 86_400


def test_an_account_that_is_closed_between_two_attempts_leaves_the_outcome_open(
    stage: Stage,
) -> None:
    intent = intent_of(card=None)
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    stage.double.misbehave("putRecord", *[Trouble(HTML, effect=True)] * 3)
    with pytest.raises(OutcomeUnknown):
        stage.publish(intent)
    stage.double.end_access()
    stage.double.misbehave("refreshSession", error(401, "AccountTakedown", "taken down"))
    stage.clock.pass_by(timedelta(hours=2))
    with pytest.raises(OutcomeUnknown, match=r"earlier attempt.*moderators"):
        stage.publish(intent)
    stage.double.recover()
    stage.clock.pass_by(timedelta(minutes=2))
    assert stage.publish(intent) == stage.find(intent)
    assert set(stage.double.writes.values()) == {1}


def test_an_account_that_is_closed_before_anything_was_sent_leaves_nothing_open(
    stage: Stage,
) -> None:
    intent = intent_of()
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    for _ in range(4):
        stage.double.misbehave("uploadBlob", error(401, "AccountTakedown", "taken down"))
        with pytest.raises(Barred, match="moderators"):
            stage.publish(intent)
    stage.publish(intent)
    assert len(stage.double.posts()) == 2


def test_a_login_that_is_limited_waits_as_long_as_told(stage: Stage) -> None:
    stage.double.login_answer = rate_limited(START + timedelta(minutes=50))
    for minute in range(49):
        with pytest.raises(Transient) as told:
            stage.publish(intent_of())
        assert told.value.retry_after_s == 3000 - 60 * minute
        stage.clock.pass_by(timedelta(minutes=1))
    assert len(stage.double.logins) == 1
    stage.double.login_answer = None
    stage.clock.pass_by(timedelta(minutes=1))
    stage.publish(intent_of())


def test_logins_that_come_to_nothing_wait_longer_each_time(stage: Stage) -> None:
    stage.double.login_answer = Answer(fault=Fault.DROP)
    for _ in range(24 * 60):
        with pytest.raises(Transient):
            stage.publish(intent_of())
        stage.clock.pass_by(timedelta(minutes=1))
    assert len(stage.double.logins) <= 18


def test_no_login_is_made_whose_session_could_not_be_kept(stage: Stage) -> None:
    stage.folder = stage.folder / "file"
    stage.folder.write_text("no folder")
    with pytest.raises(Transient, match="cannot be kept"):
        stage.publish(intent_of())
    assert not stage.double.logins


def test_no_secret_is_in_an_error_a_log_or_a_representation(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stage.publish(intent_of(run="01EARLIER"))
    stage.notes.clear()
    kept = stage.kept()["session"]
    file = vars(stage.bluesky())["_file"]
    told = [repr(stage.bluesky()), repr(file), repr(file.load())]
    secrets = [PASSWORD, kept[2], kept[3]]
    echo = " ".join(secrets)

    def tried() -> None:
        try:
            stage.publish(intent_of())
        except PublisherError as problem:
            chain: BaseException | None = problem
            while chain is not None:
                told.append(f"{chain} {chain!r} {vars(chain)}")
                chain = chain.__cause__ or chain.__context__

    for status in (400, 401, 403, 429, 500):
        for method in ("putRecord", "refreshSession", "createSession"):
            stage.clock.pass_by(timedelta(hours=3))
            stage.double.misbehave(method, *[error(status, echo, echo)] * 3)
            tried()
            stage.double.recover()
    stage.double.forget_sessions()
    stage.clock.pass_by(timedelta(days=2))
    stage.double.misbehave("createSession", Answer.of({"accessJwt": kept[2], "did": 5}))
    tried()
    assert len(told) > 8
    assert len(stage.kept()["attempts"]) > 0
    for text in [*told, caplog.text]:
        assert not [text for secret in secrets if secret in text]


def test_a_token_never_leaves_in_the_clear_because_the_service_says_so(tmp_path: Path) -> None:
    stage = in_process(tmp_path)
    stage.double.pds = "http://elsewhere.test"
    elsewhere = BlueskyDouble(now=stage.clock.now)
    stage.transport = InProcess({"pds.test": stage.double, "elsewhere.test": elsewhere})
    with pytest.raises(Transient, match="https"):
        stage.publish(intent_of())
    assert not elsewhere.asked


def test_a_redirect_is_not_followed_with_the_password(tmp_path: Path) -> None:
    stage = in_process(tmp_path)
    elsewhere = BlueskyDouble(now=stage.clock.now)
    stage.transport = InProcess({"pds.test": stage.double, "elsewhere.test": elsewhere})
    to = {"location": "https://elsewhere.test/xrpc/com.atproto.server.createSession"}
    stage.double.login_answer = Answer(307, to)
    with pytest.raises(Transient, match="redirect"):
        stage.publish(intent_of())
    assert not elsewhere.asked


def test_requests_go_to_where_the_account_lives(tmp_path: Path) -> None:
    stage = in_process(tmp_path)
    stage.double.pds = "https://home.test"
    stage.transport = InProcess({"pds.test": stage.double, "home.test": stage.double})
    stage.publish(intent_of())
    stage.clock.pass_by(timedelta(days=1))
    stage.find(intent_of())
    hosts = {(name, request.headers["host"]) for name, request in stage.double.asked}
    assert ("createSession", "pds.test") in hosts
    assert {host for name, host in hosts if name != "createSession"} == {"home.test"}


# The profile


def test_the_profile_is_labelled_once_and_keeps_what_is_in_it(stage: Stage) -> None:
    profile = {
        "$type": "app.bsky.actor.profile", "displayName": "Penstock", "unheardOf": {"a": [1, None]},
        "labels": {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "!hide"}]},
        "avatar": records.blob(PNG),
    }  # fmt: skip
    stage.double.blobs[profile["avatar"]["ref"]["$link"]] = PNG  # type: ignore[index]
    stage.double.records["app.bsky.actor.profile/self"] = profile
    stage.publish(intent_of())
    labelled = stage.double.records["app.bsky.actor.profile/self"]
    assert labelled.pop("labels")["values"] == [{"val": "!hide"}, {"val": "bot"}]
    assert labelled == {name: value for name, value in profile.items() if name != "labels"}
    # Who takes the label away by hand means it.
    stage.double.records["app.bsky.actor.profile/self"] = profile
    stage.notes.clear()
    stage.publish(intent_of(run="01LATER"))
    assert stage.double.records["app.bsky.actor.profile/self"] == profile


def test_a_profile_that_is_changed_meanwhile_is_read_again(stage: Stage) -> None:
    stage.double.misbehave("putRecord", error(400, "InvalidSwap", "Record was at bafy"))
    stage.publish(intent_of())
    values = stage.double.records["app.bsky.actor.profile/self"]["labels"]["values"]
    assert values == [{"val": "bot"}]


def test_a_profile_that_cannot_be_labelled_does_not_stop_a_post(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.double.misbehave("putRecord", error(400, "InvalidRequest", "displayName too long"))
    stage.publish(intent_of())
    assert "displayName too long" in caplog.text
    assert len(stage.double.posts()) == 1
    stage.notes.clear()
    stage.publish(intent_of(run="01LATER"))
    assert "app.bsky.actor.profile/self" in stage.double.records


# Counts


def test_counts_are_those_of_readers_over_the_whole_thread(stage: Stage) -> None:
    receipt = stage.publish(intent_of(*THREAD))
    first, second, _ = stage.double.posts()
    stage.double.counts = {
        first: {"likeCount": 5, "repostCount": 2, "replyCount": 3, "quoteCount": 1},
        second: {"likeCount": 1},
    }
    (engagement,) = asyncio.run(stage.bluesky().engagement([receipt]))
    assert engagement.counts == {"like": 6, "repost": 2, "reply": 3, "quote": 1}
    assert (engagement.remote_id, engagement.gone) == (receipt.remote_id, False)


def test_sixty_posts_are_three_requests(stage: Stage) -> None:
    receipts = []
    for number in range(60):
        stage.notes.clear()
        at = START + timedelta(days=number)
        receipts.append(stage.publish(intent_of(run=f"01RUN{number}", at=at, card=None)))
    told = asyncio.run(stage.bluesky().engagement(receipts))
    assert [t.remote_id for t in told] == [r.remote_id for r in receipts]
    assert stage.double.times("getPosts") == 3


def test_what_the_network_does_not_show_is_gone_only_where_its_server_says_so(
    stage: Stage,
) -> None:
    receipts = []
    for number in range(3):
        stage.notes.clear()
        receipts.append(stage.publish(intent_of(run=f"01RUN{number}")))
    shown, late, deleted = stage.double.posts()
    stage.double.unindexed.add(late)
    del stage.double.records[f"app.bsky.feed.post/{deleted}"]
    told = asyncio.run(stage.bluesky().engagement(receipts))
    assert [(t.remote_id.rpartition("/")[2], t.gone) for t in told] == [
        (shown, False), (deleted, True),
    ]  # fmt: skip


def test_what_could_be_counted_is_told_though_the_rest_could_not(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    receipts = []
    for number in range(30):
        stage.notes.clear()
        at = START + timedelta(days=number)
        receipts.append(stage.publish(intent_of(run=f"01RUN{number}", at=at, card=None)))
    stage.double.misbehave("getPosts", None, error(502, "UpstreamFailure"))
    assert len(asyncio.run(stage.bluesky().engagement(receipts))) == 25
    assert "only 25 of 30" in caplog.text
    stage.double.misbehave("getPosts", error(502, "UpstreamFailure"))
    with pytest.raises(Transient, match="502"):
        asyncio.run(stage.bluesky().engagement(receipts))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("method", ["getPosts", "getRecord"])
def test_no_answer_to_a_count_is_another_error_than_ours(
    stage: Stage, method: str, garbage: str
) -> None:
    receipt = stage.publish(intent_of())
    stage.double.unindexed.update(stage.double.posts())
    stage.double.misbehave(method, GARBAGE[garbage])
    try:
        told = asyncio.run(stage.bluesky().engagement([receipt]))
    except (Transient, Rejected):
        return
    assert not any(t.gone for t in told)


def test_counts_of_other_types_are_not_counted(stage: Stage) -> None:
    receipt = stage.publish(intent_of())
    views = [{"uri": receipt.remote_id, "likeCount": "many", "repostCount": -3, "replyCount": True,
              "quoteCount": 2}]  # fmt: skip
    stage.double.misbehave("getPosts", Answer.of({"posts": views}))
    (told,) = asyncio.run(stage.bluesky().engagement([receipt]))
    assert told.counts == {"quote": 2}


def test_nothing_to_count_asks_nothing(stage: Stage) -> None:
    assert asyncio.run(stage.bluesky().engagement([])) == []
    assert asyncio.run(stage.bluesky().engagement([Receipt(None, "an-article.md")])) == []
    assert not stage.double.asked


# Withdrawal


def test_a_thread_is_taken_back_whole_and_taking_it_back_again_changes_nothing(
    stage: Stage,
) -> None:
    intent = intent_of(*THREAD)
    receipt = stage.publish(intent)
    for _ in range(2):
        asyncio.run(stage.bluesky().withdraw(receipt, "a claim was wrong"))
        assert not stage.double.posts()
    assert stage.find(intent) is None
    deleted = [r.json["rkey"] for name, r in stage.double.asked if name == "deleteRecord"]
    assert deleted[0] == intent.key


def test_a_withdrawal_that_is_unclear_is_told(stage: Stage) -> None:
    receipt = stage.publish(intent_of())
    stage.double.misbehave("deleteRecord", *[Trouble(Answer(fault=Fault.DROP), True)] * 3)
    with pytest.raises(OutcomeUnknown):
        asyncio.run(stage.bluesky().withdraw(receipt, "reason"))
    stage.double.misbehave("deleteRecord", rate_limited(START, retry_after="9"))
    with pytest.raises(Transient):
        asyncio.run(stage.bluesky().withdraw(receipt, "reason"))
    asyncio.run(stage.bluesky().withdraw(receipt, "reason"))
    assert not stage.double.posts()


@pytest.mark.parametrize("remote_id", [
    "an-article.md", "at://did:plc:x/app.bsky.feed.like/3khvghbtc2222", "at://did:plc:x/../../x",
])  # fmt: skip
def test_what_is_not_ours_is_not_deleted(stage: Stage, remote_id: str) -> None:
    with pytest.raises(Rejected):
        asyncio.run(stage.bluesky().withdraw(Receipt(None, remote_id), "reason"))
    assert stage.double.times("deleteRecord") == 0


def test_what_went_out_as_another_account_is_deleted_once_the_handle_is_put_back(
    stage: Stage,
) -> None:
    receipt = Receipt(None, "at://did:plc:somebodyelse/app.bsky.feed.post/3khvghbtc2222")
    with pytest.raises(Barred, match="did:plc:somebodyelse into BLUESKY_HANDLE"):
        asyncio.run(stage.bluesky().withdraw(receipt, "reason"))
    assert stage.double.times("deleteRecord") == 0


# The SDK


def test_the_sdk_is_not_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from publishers.bluesky import Bluesky, records; "
        "heavy = [m for m in sys.modules if m.startswith(('atproto', 'libipld', 'pydantic'))]; "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_the_pause_between_logins_is_no_longer_than_two_hours() -> None:
    assert session.LOGIN_PAUSE_MAX_S <= 7_200
