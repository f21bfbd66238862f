"""Bluesky's own servers, run here: a PDS, its directory and the AppView. Slow to start, so once."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from publishers.bluesky import Bluesky, records
from publishers.errors import Barred, OutcomeUnknown, Transient
from publishers.port import Engagement, Intent, Post, Receipt
from tests.peers import pds
from tests.peers.pds import until
from tests.stage import Killed
from tests.test_bluesky import TLS, Fatal, Reaper

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
POSTS = "app.bsky.feed.post"


@pytest.fixture(scope="module")
def network() -> Iterator[pds.Network]:
    with pds.network(NAMES, appview=True) as running:
        yield running


@pytest.fixture
def appview(network: pds.Network) -> pds.Network:
    return network.with_appview()


@dataclass
class OffsetClock:
    """The machine's time, and what a test adds to it; a sleep takes no time, but passes it."""

    ahead: timedelta = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead.total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@dataclass
class Author(pds.Account):
    """One account of the network, publishing from a folder."""

    folder: Path
    clock: OffsetClock = field(default_factory=OffsetClock)
    password: str = ""
    transport: httpx.AsyncBaseTransport | None = None
    timeout_s: float = 20.0
    notes: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "session.json"

    def bluesky(self) -> Bluesky:
        return Bluesky(
            handle=f"{self.name}.test", app_password=self.password or f"{self.name}-password",
            session_file=self.file, clock=self.clock, service=self.network.pds,
            timeout_s=self.timeout_s, transport=self.transport, tls=TLS,
        )  # fmt: skip

    def intent(self, *texts: str, **changed: Any) -> Intent:
        whole = Post(
            run=f"run-{self.clock.now().isoformat()}", title="An Article", markdown="",
            description="What it says.", tags=(), at=self.clock.now(), language="en",
            card=picture(), link="https://dev.to/penstock/an-article", announcement=texts,
        )  # fmt: skip
        return records.intend(replace(whole, **changed))

    def publish(self, intent: Intent) -> Receipt:
        noted = self.notes[-1] if self.notes else None

        async def note(text: str) -> None:
            self.notes.append(text)

        return asyncio.run(self.bluesky().publish(replace(intent, noted=noted), note))

    def find(self, intent: Intent) -> Receipt | None:
        return asyncio.run(self.bluesky().find(intent))

    def counted(self, receipt: Receipt) -> Engagement | None:
        told = asyncio.run(self.bluesky().engagement([receipt]))
        return told[0] if told else None

    def revision(self) -> str:
        return str(self.network.call("com.atproto.sync.getLatestCommit", did=self.did)["rev"])


@pytest.fixture
def alice(network: pds.Network, tmp_path: Path) -> Author:
    return Author(network, "alice", tmp_path)


def picture() -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (1200, 630), (16, 42, 67)).save(made, "PNG")
    return made.getvalue()


def test_a_post_is_stored_as_it_was_intended_down_to_its_hash(alice: Author) -> None:
    intent = alice.intent("Ein Satz mit Ümläuten 🏳️‍🌈 und https://example.org/ä.")
    receipt = alice.publish(intent)
    stored = alice.records()[intent.key]
    (planned,) = records.thread(records.plan(intent), alice.did)
    assert (stored["cid"], stored["value"]) == (planned.cid, planned.record)
    link = planned.record["embed"]["external"]["thumb"]["ref"]["$link"]
    blob = alice.network.call("com.atproto.sync.getBlob", did=alice.did, cid=link)
    assert blob == picture()
    assert receipt.url == f"https://bsky.app/profile/alice.test/post/{intent.key}"
    assert alice.find(intent) == receipt


def test_publishing_again_is_no_commit(alice: Author) -> None:
    intent = alice.intent("One.", "Two.", "Three.")
    receipt = alice.publish(intent)
    before = alice.revision()
    assert alice.publish(intent) == receipt
    alice.notes.clear()  # as if nothing had been noted, so that every request is made again
    assert alice.publish(intent) == receipt
    assert alice.revision() == before


def test_a_kill_at_any_request_neither_repeats_nor_loses_a_post(
    network: pds.Network, tmp_path: Path
) -> None:
    author = Author(network, "erin", tmp_path)
    reaper = Reaper()
    author.transport = Fatal(reaper)
    author.publish(author.intent("One.", "Two.", "Three."))
    boundaries = reaper.passed + 1
    kills = 0
    for at in range(1, boundaries):
        before = set(author.records())
        author.notes.clear()
        author.clock.ahead += timedelta(days=1)
        author.file.unlink(missing_ok=True)
        intent = author.intent("One.", "Two.", "Three.")
        author.transport = Fatal(Reaper(at))
        try:
            author.publish(intent)
        except Killed:
            kills += 1
        author.transport = None
        author.clock.ahead += timedelta(minutes=2)
        receipt = author.publish(intent)
        new = {k: v for k, v in author.records().items() if k not in before}
        planned = records.thread(records.plan(intent), author.did)
        assert {k: v["cid"] for k, v in new.items()} == {p.rkey: p.cid for p in planned}
        assert author.find(intent) == receipt
    assert kills >= boundaries - 5  # the label is set once only, so later lives are shorter
    print(f"{kills} kills")


@dataclass
class Hanging(httpx.AsyncBaseTransport):
    """The service hangs as soon as it is asked to put something."""

    hang: Callable[[], None]
    inner: httpx.AsyncBaseTransport = field(
        default_factory=lambda: httpx.AsyncHTTPTransport(verify=TLS)
    )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("putRecord"):
            self.hang()
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


def test_a_service_that_hangs_leaves_the_outcome_open_until_it_is_looked_at(
    alice: Author,
) -> None:
    alice.publish(alice.intent("Earlier."))
    alice.notes.clear()
    before = set(alice.records())
    intent = alice.intent("One.", card=None)
    with ExitStack() as held:

        def hang() -> None:
            held.enter_context(alice.network.stopped())

        alice.transport, alice.timeout_s = Hanging(hang), 2.0
        with pytest.raises(OutcomeUnknown):
            alice.publish(intent)
    alice.transport, alice.timeout_s = None, 20.0
    # What it was sent thrice waits in its sockets, and is carried out once.
    receipt = until(lambda: alice.find(intent))
    assert alice.publish(intent) == receipt
    assert set(alice.records()) - before == {intent.key}


def test_a_post_that_was_changed_by_hand_is_not_written_over(alice: Author) -> None:
    intent = alice.intent("One.", card=None)
    receipt = alice.publish(intent)
    changed = alice.records()[intent.key]["value"] | {"text": "Changed."}
    body = {"repo": alice.did, "collection": POSTS, "rkey": intent.key, "record": changed}
    alice.network.call("com.atproto.repo.putRecord", body, alice.token())
    assert alice.publish(intent) == receipt
    alice.notes.clear()
    assert alice.publish(intent) == receipt
    assert alice.records()[intent.key]["value"]["text"] == "Changed."


def test_an_intent_made_twice_for_one_run_meets_what_the_first_one_made(alice: Author) -> None:
    begun = alice.clock.now()
    first = alice.intent("One.", "Two.", "Three.", run="run-x", begun=begun)
    receipt = alice.publish(first)
    before = alice.revision()
    alice.notes.clear()  # the journal is restored from a backup
    alice.clock.ahead += timedelta(minutes=10)
    again = alice.intent("Other words.", "And more.", run="run-x", begun=begun)
    assert again.key == first.key
    assert again.payload != first.payload
    assert alice.find(again) == receipt
    assert alice.publish(again) == receipt
    assert alice.revision() == before


@pytest.mark.parametrize("text", [
    "word " * 200, "🇩🇪" * 400, "👩‍👩‍👧‍👦" * 400, "क्षि" * 400, "한" * 400, "각" * 400, "ก็" * 400,
    "e" + "\u0301" * 3000, "é" * 400, "\r\n" * 400 + "x", "🏽" * 400, "ب\u200d" * 400, "界" * 1001,
    "\U000e0001" * 400, "a\u200b" * 400, "#" * 400,
])  # fmt: skip
def test_the_service_counts_graphemes_and_bytes_as_we_do(alice: Author, text: str) -> None:
    intent = alice.intent(text, link=None)
    alice.publish(intent)
    assert alice.records()[intent.key]["value"]["text"] == records.fit(text)


def test_the_profile_is_labelled_and_keeps_what_is_in_it(
    network: pds.Network, tmp_path: Path
) -> None:
    author = Author(network, "frank", tmp_path)
    profile = {"$type": records.PROFILES, "displayName": "Frank", "description": "Writes.",
               "unheardOf": {"n": [1, None, True]}}  # fmt: skip
    body = {"repo": author.did, "collection": records.PROFILES, "rkey": "self", "record": profile}
    network.call("com.atproto.repo.putRecord", body, author.token())
    author.publish(author.intent("One."))
    stored = author.records(records.PROFILES)["self"]["value"]
    labels = stored.pop("labels")
    assert stored == profile
    assert labels == {
        "$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "bot"}],
    }  # fmt: skip


def test_a_profile_is_made_where_there_is_none(alice: Author) -> None:
    alice.publish(alice.intent("One."))
    values = alice.records(records.PROFILES)["self"]["value"]["labels"]["values"]
    assert values == [{"val": "bot"}]


# Sessions


def spoil(author: Author, *places: int) -> None:
    kept = json.loads(author.file.read_bytes())
    for place in places:
        kept["session"][place] = kept["session"][place][:-8] + "AAAAAAAA"
    author.file.write_text(json.dumps(kept))


def test_a_session_is_renewed_when_it_is_time_or_the_service_says_so(alice: Author) -> None:
    alice.publish(alice.intent("One."))
    tokens = [json.loads(alice.file.read_bytes())["session"]]
    alice.clock.ahead += timedelta(minutes=116)
    alice.notes.clear()
    alice.publish(alice.intent("Two."))
    tokens.append(json.loads(alice.file.read_bytes())["session"])
    spoil(alice, 2)
    alice.notes.clear()
    alice.publish(alice.intent("Three."))
    tokens.append(json.loads(alice.file.read_bytes())["session"])
    # Refresh tokens, since two access tokens of one second are the same.
    assert len({kept[3] for kept in tokens}) == 3
    assert len(json.loads(alice.file.read_bytes())["attempts"]) == 1


def test_a_session_whose_renewal_is_refused_is_made_anew(alice: Author) -> None:
    alice.publish(alice.intent("One."))
    spoil(alice, 2, 3)
    alice.clock.ahead += timedelta(minutes=2)
    alice.notes.clear()
    alice.publish(alice.intent("Two."))
    assert len(json.loads(alice.file.read_bytes())["attempts"]) == 2


def test_an_app_password_is_enough_for_everything(alice: Author) -> None:
    made = alice.network.call(
        "com.atproto.server.createAppPassword", {"name": "penstock"}, alice.token()
    )
    alice.password = made["password"]
    receipt = alice.publish(alice.intent("One.", "Two."))
    asyncio.run(alice.bluesky().withdraw(receipt, "reason"))
    assert alice.counted(receipt) is not None or alice.network.appview is None


def test_a_wrong_password_says_what_to_do(alice: Author) -> None:
    alice.password = "wrong-pass-word-here"
    with pytest.raises(Barred, match="make a new app password"):
        alice.publish(alice.intent("One."))


def test_an_account_that_is_taken_down_waits_for_its_moderators(
    network: pds.Network, tmp_path: Path
) -> None:
    author = Author(network, "carol", tmp_path)
    author.publish(author.intent("One."))
    subject = {"$type": "com.atproto.admin.defs#repoRef", "did": author.did}
    body = {"subject": subject, "takedown": {"applied": True, "ref": "1"}}
    basic = httpx.BasicAuth("admin", "admin-pass")._auth_header
    network.call("com.atproto.admin.updateSubjectStatus", body, basic)
    author.notes.clear()
    author.clock.ahead += timedelta(minutes=2)
    with pytest.raises(Barred, match="moderators"):
        author.publish(author.intent("Two."))
    author.clock.ahead += timedelta(minutes=116)
    author.notes.clear()
    with pytest.raises(Barred, match="moderators"):
        author.publish(author.intent("Two."))
    author.file.unlink()
    with pytest.raises(Barred, match="moderators"):
        author.publish(author.intent("Two."))
    body["takedown"] = {"applied": False}
    network.call("com.atproto.admin.updateSubjectStatus", body, basic)
    author.clock.ahead += timedelta(days=1)
    author.notes.clear()
    intent = author.intent("Two.")
    assert author.publish(intent) == author.find(intent)


def test_an_account_that_is_deactivated_waits_for_its_owner(
    network: pds.Network, tmp_path: Path
) -> None:
    author = Author(network, "dave", tmp_path)
    author.publish(author.intent("One."))
    network.call("com.atproto.server.deactivateAccount", {}, author.token())
    author.notes.clear()
    with pytest.raises(Barred, match="activate"):
        author.publish(author.intent("Two."))
    author.file.unlink()
    with pytest.raises(Barred, match="activate"):
        author.publish(author.intent("Two."))


def test_a_login_that_is_limited_waits_as_long_as_told(tmp_path: Path) -> None:
    with pds.network(["gina"], rate_limits=True) as network:
        author = Author(network, "gina", tmp_path)
        for _ in range(30):
            author.token()
        with pytest.raises(Transient) as told:
            author.publish(author.intent("One."))
    assert told.value.retry_after_s is not None
    assert 200 < told.value.retry_after_s <= 300


# The AppView


def test_counts_are_those_of_other_people(appview: pds.Network, tmp_path: Path) -> None:
    author = Author(appview, "alice", tmp_path)
    intent = author.intent("One.", "Two.")
    receipt = author.publish(intent)
    first, second = records.thread(records.plan(intent), author.did)
    until(lambda: author.counted(receipt))
    bob = pds.Account(appview, "bob")
    token = bob.token()
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def does(collection: str, **fields: Any) -> str:
        record = {"$type": collection, "createdAt": now, **fields}
        body = {"repo": bob.did, "collection": collection, "record": record}
        made = appview.call("com.atproto.repo.createRecord", body, token)
        return str(made["uri"])

    root, other = ({"uri": p.uri, "cid": p.cid} for p in (first, second))
    liked = does("app.bsky.feed.like", subject=root)
    does("app.bsky.feed.like", subject=other)
    does("app.bsky.feed.repost", subject=root)
    does(POSTS, text="Is it so?", reply={"root": root, "parent": root})
    does(POSTS, text="Look.", embed={"$type": "app.bsky.embed.record", "record": root})
    wanted = {"like": 2, "repost": 1, "reply": 1, "quote": 1}

    def counts() -> dict[str, int]:
        told = author.counted(receipt)
        assert told is not None
        return dict(told.counts)

    until(lambda: counts() == wanted)
    rkey = liked.rpartition("/")[2]
    body = {"repo": bob.did, "collection": "app.bsky.feed.like", "rkey": rkey}
    appview.call("com.atproto.repo.deleteRecord", body, token)
    until(lambda: counts() == {**wanted, "like": 1})
    asyncio.run(author.bluesky().withdraw(receipt, "a claim was wrong"))
    asyncio.run(author.bluesky().withdraw(receipt, "a claim was wrong"))
    gone = until(lambda: (told := author.counted(receipt)) and told.gone and told)
    assert gone == Engagement(receipt.remote_id, gone=True)
    assert author.find(intent) is None


def test_a_thread_is_shown_as_one_and_its_card_with_its_picture(
    appview: pds.Network, tmp_path: Path
) -> None:
    author = Author(appview, "alice", tmp_path)
    intent = author.intent("One.", "Two.", "Three.")
    receipt = author.publish(intent)
    token = author.token()
    root = receipt.remote_id.split(" ")[0]

    def shown() -> list[str]:
        answer = appview.call("app.bsky.feed.getPostThread", token=token, uri=root, depth="6")
        texts, node = [], answer["thread"]
        while node is not None:
            texts.append(node["post"]["record"]["text"])
            node = next(iter(node.get("replies", [])), None)
        return texts

    until(lambda: author.counted(receipt))
    until(lambda: shown() == ["One.", "Two.", "Three."])
    views = appview.call("app.bsky.feed.getPosts", token=token, uris=root)
    card = views["posts"][0]["embed"]
    assert card["$type"] == "app.bsky.embed.external#view"
    assert card["external"]["uri"] == "https://dev.to/penstock/an-article"
    assert card["external"]["thumb"].startswith("http")
    told = author.counted(receipt)
    assert told is not None
    assert told.counts["reply"] == 0
