"""One suite of laws for every destination: ours, and the example of somebody else's."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from publishers.bluesky import Bluesky
from publishers.devto import DevTo
from publishers.errors import Barred, OutcomeUnknown, PublisherError, Rejected, Transient
from publishers.outbox import Outbox
from publishers.port import Engagement, Intent, Note, Post, Receipt
from publishers.testing import (
    Destination,
    JumpingClock,
    PublisherContract,
    Stage,
    Visible,
    forgotten,
    turn,
)
from tests.doubles.bluesky import DID, BlueskyDouble, Trouble, error
from tests.doubles.devto import KEY, DevToDouble
from tests.doubles.wire import Answer, Double, Fault, InProcess

EXAMPLE = Path(__file__).parents[1] / "examples" / "penstock-mastodon"


@dataclass
class Way(httpx.AsyncBaseTransport):
    """The way to a double, which can be cut."""

    host: str
    double: Double
    is_cut: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        routes = {} if self.is_cut else {self.host: self.double}
        return await InProcess(routes).handle_async_request(request)


# The outbox


@dataclass
class Folder(Destination):
    folder: Path

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def aside(self) -> Path:
        return self.folder / "aside"

    def publisher(self, clock: JumpingClock) -> Outbox:
        return Outbox(self.outbox, site_url="https://own.example")

    def posts(self) -> Sequence[Visible]:
        there = self.aside if self.aside.exists() else self.outbox
        texts = {path.name: path.read_text("utf-8") for path in sorted(there.glob("*.md"))}
        return [Visible(name, text) for name, text in texts.items()]

    def state(self) -> object:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def down(self) -> None:
        if self.outbox.exists():
            self.outbox.rename(self.aside)
        # A disk that is not to be read: neither there nor not there.
        self.outbox.symlink_to(self.outbox)

    def recover(self) -> None:
        self.outbox.unlink()
        if self.aside.exists():
            self.aside.rename(self.outbox)


class TestOutbox(PublisherContract):
    def destination(self, folder: Path) -> Folder:
        return Folder(folder)


# Dev.to


@dataclass
class Site(Destination):
    double: DevToDouble | None = None
    way: Way | None = None

    @property
    def there(self) -> DevToDouble:
        assert self.double is not None
        return self.double

    def publisher(self, clock: JumpingClock) -> DevTo:
        self.double = self.double or DevToDouble(clock.monotonic)
        self.way = self.way or Way("dev.to", self.double)
        return DevTo(KEY, clock=clock, transport=self.way)

    def posts(self) -> Sequence[Visible]:
        return [
            Visible(str(a.id), f"{a.fields['title']}\n{a.fields['body_markdown']}")
            for a in self.there.public
        ]

    def state(self) -> object:
        return [(n, dict(a.fields)) for n, a in self.there.articles.items()]

    def secrets(self) -> Sequence[str]:
        return [KEY]

    def react(self, remote_id: str) -> Mapping[str, int]:
        self.there.read_by_people(
            int(remote_id), page_views_count=40, public_reactions_count=3, comments_count=2
        )
        return {"view": 40, "reaction": 3, "comment": 2}

    def lose_answer(self) -> None:
        self.there.misbehave("drop_after", method="POST")
        self.there.misbehave("reset_after", method="PUT")

    def refuse(self) -> None:
        said = {"error": "Title is too long", "status": 422}
        self.there.misbehave("status", method="POST", code=422, body=said)

    def down(self) -> None:
        assert self.way is not None
        self.way.is_cut = True

    def bar(self) -> None:
        self.there.key = "another"

    def recover(self) -> None:
        assert self.way is not None
        self.way.is_cut, self.there.key = False, KEY


class TestDevTo(PublisherContract):
    def destination(self, folder: Path) -> Site:
        return Site()


# Bluesky


@dataclass
class Service(Destination):
    folder: Path
    double: BlueskyDouble | None = None
    way: Way | None = None
    password: str = "abcd-efgh-ijkl-mnop"
    tokens: set[str] = field(default_factory=set)

    @property
    def there(self) -> BlueskyDouble:
        assert self.double is not None
        return self.double

    def publisher(self, clock: JumpingClock) -> Bluesky:
        self.double = self.double or BlueskyDouble(now=clock.now)
        self.way = self.way or Way("bsky.example", self.double)
        return Bluesky(
            handle="author.test", app_password=self.password, clock=clock, transport=self.way,
            session_file=self.folder / "session.json", service="https://bsky.example",
        )  # fmt: skip

    def posts(self) -> Sequence[Visible]:
        """Threads, each as one post, with the address of its card."""
        threads: dict[str, list[str]] = {}
        texts: dict[str, str] = {}
        for rkey, record in self.there.posts().items():
            root = record.get("reply", {}).get("root", {}).get("uri", rkey).rpartition("/")[2]
            threads.setdefault(root, []).append(rkey)
            card = record.get("embed", {}).get("external", {}).get("uri", "")
            texts[root] = f"{texts.get(root, '')}{record['text']}\n{card}\n"
        return [
            Visible(
                " ".join([f"at://{DID}/app.bsky.feed.post/{rkeys[0]}", *rkeys[1:]]), texts[root]
            )
            for root, rkeys in threads.items()
        ]

    def state(self) -> object:
        return dict(self.there.records), set(self.there.blobs)

    def secrets(self) -> Sequence[str]:
        used = {request.headers.get("authorization", "") for _, request in self.there.asked}
        return [self.password, *(token.removeprefix("Bearer ") for token in used if token)]

    def react(self, remote_id: str) -> Mapping[str, int]:
        counted = {"likeCount": 3, "repostCount": 2, "replyCount": 1, "quoteCount": 4}
        self.there.counts[remote_id.rpartition("/")[2]] = counted
        return {"like": 3, "repost": 2, "reply": 1, "quote": 4}

    def lose_answer(self) -> None:
        # The first is the profile's; the next is sent three times before it is given up.
        lost = Trouble(Answer(fault=Fault.DROP), effect=True)
        self.there.misbehave("putRecord", None, lost, lost, lost)

    def refuse(self) -> None:
        self.there.misbehave("putRecord", None, error(400, "InvalidRequest", "Invalid record"))

    def down(self) -> None:
        assert self.way is not None
        self.way.is_cut = True

    def bar(self) -> None:
        self.there.password = "another"
        self.there.forget_sessions()

    def recover(self) -> None:
        assert self.way is not None
        self.way.is_cut, self.there.password = False, self.password


class TestBluesky(PublisherContract):
    def destination(self, folder: Path) -> Service:
        return Service(folder)


# A board in memory, and publishers that break one law each


@dataclass
class Board(Destination):
    """What a destination is at the least. `kind` is how it is published there."""

    kind: type[Careful]
    shown: dict[str, str] = field(default_factory=dict)
    reads: int = 0
    trouble: str = ""

    def publisher(self, clock: JumpingClock) -> Careful:
        return self.kind(self)

    def posts(self) -> Sequence[Visible]:
        return [Visible(number, text) for number, text in self.shown.items()]

    def secrets(self) -> Sequence[str]:
        return ["the-key"]

    def lose_answer(self) -> None:
        self.trouble = "lost"

    def refuse(self) -> None:
        self.trouble = "refused"

    def down(self) -> None:
        self.trouble = "down"

    def bar(self) -> None:
        self.trouble = "barred"

    def recover(self) -> None:
        self.trouble = ""

    async def pin(self, text: str) -> str:
        await turn()
        match self.trouble:
            case "down":
                raise Transient("nobody there")
            case "barred":
                raise Barred("the key is refused")
            case "refused":
                raise Rejected("not this one")
        number = str(len(self.shown) + 1)
        self.shown[number] = text
        await turn()
        if self.trouble == "lost":
            self.trouble = ""
            raise ConnectionResetError
        return number

    async def numbers(self, run: str) -> list[str]:
        await turn()
        if self.trouble == "down":
            raise Transient("nobody there")
        return [number for number, text in self.shown.items() if text.endswith(f"in run {run}.*")]


class Careful:
    """It keeps every law."""

    name = "board"
    public = False

    def __init__(self, board: Board) -> None:
        self.board = board

    def intend(self, post: Post) -> Intent:
        text = post.markdown.strip().encode("utf-8", "replace").decode()
        return Intent(post.run, json.dumps(text).encode())

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        if found := await self.find(intent):
            return found
        await note("sending")
        try:
            return Receipt(None, await self.board.pin(json.loads(intent.payload)))
        except ConnectionResetError as error:
            raise OutcomeUnknown("reset", intent.key) from error

    async def find(self, intent: Intent) -> Receipt | None:
        numbers = await self.board.numbers(intent.key)
        return Receipt(None, numbers[0]) if numbers else None

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        await turn()
        if self.board.trouble == "down":
            raise Transient("nobody there")
        self.board.shown.pop(receipt.remote_id, None)

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        if self.board.trouble == "down":
            raise Transient("nobody there")
        ids = [r.remote_id for r in receipts if r.remote_id.isdecimal()]
        return [
            Engagement(i, {"view": 1} if i in self.board.shown else {}, i not in self.board.shown)
            for i in ids
        ]


class TestBoard(PublisherContract):
    def destination(self, folder: Path) -> Board:
        return Board(Careful)


class Blind(Careful):
    """It sends without looking whether it has sent."""

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        return Receipt(None, await self.board.pin(json.loads(intent.payload)))


class Late(Careful):
    """It notes when all is done, and looks for nothing but what it noted."""

    async def find(self, intent: Intent) -> Receipt | None:
        return Receipt(None, intent.noted) if intent.noted else None

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        receipt = await super().publish(intent, forgotten)
        await note(receipt.remote_id)
        return receipt


class Fickle(Careful):
    """Its intents say which of them they are."""

    def intend(self, post: Post) -> Intent:
        self.board.reads += 1
        return Intent(f"{post.run} {self.board.reads}", super().intend(post).payload)


class Hasty(Careful):
    """It sends what it was asked to intend."""

    def intend(self, post: Post) -> Intent:
        self.board.shown["0"] = post.markdown
        return super().intend(post)


class Raw(Careful):
    """Its payload is no text."""

    def intend(self, post: Post) -> Intent:
        return Intent(post.run, b"\x00" + super().intend(post).payload)


class Busy(Careful):
    """It changes what it looks at."""

    async def find(self, intent: Intent) -> Receipt | None:
        self.board.shown = {number: f" {text}" for number, text in self.board.shown.items()}
        return await super().find(intent)


class Sure(Careful):
    """It says that there is nothing where it cannot look."""

    async def find(self, intent: Intent) -> Receipt | None:
        with suppress(Transient):
            return await super().find(intent)
        return None


class Loud(Careful):
    """It says the key."""

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        try:
            return await super().publish(intent, note)
        except Barred as error:
            raise Barred(f"{error}: the-key") from error


class Final(Careful):
    """It takes a refused key for a refused post."""

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        try:
            return await super().publish(intent, note)
        except Barred as error:
            raise Rejected(str(error)) from error


class Leaky(Careful):
    """It raises what is none of a publisher's errors."""

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        try:
            return await super().publish(intent, note)
        except OutcomeUnknown as error:
            raise KeyError("oh") from error


class Loose(Careful):
    """It finds what begins alike."""

    async def find(self, intent: Intent) -> Receipt | None:
        for number, text in self.board.shown.items():
            if intent.key in text or intent.key.startswith("run-1"):
                return Receipt(None, number)
        return None


class Vague(Careful):
    """It counts what nobody sets a rate for, and not in whole numbers."""

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        counted = await super().engagement(receipts)
        wrong: Any = {"smiles": 1.5}
        return [replace(one, counts=wrong) for one in counted]


class Generous(Careful):
    """It counts what it never made."""

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        return [Engagement(receipt.remote_id, {"view": 1}) for receipt in receipts]


class Stern(Careful):
    """It takes nothing back twice."""

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        if receipt.remote_id not in self.board.shown:
            raise Rejected("there is no such post")
        await super().withdraw(receipt, reason)


class Fragile(Careful):
    """It takes plain text only."""

    def intend(self, post: Post) -> Intent:
        return Intent(post.run, json.dumps(post.markdown.encode("ascii").decode()).encode())


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Blind, "publishing_again_makes_no_second_post"),
        (Blind, "killed_anywhere_it_goes_on_afterwards"),
        (Late, "a_lost_answer_is_no_second_post"),
        (Late, "killed_anywhere_it_goes_on_afterwards"),
        (Late, "what_the_journal_forgot_is_found_all_the_same"),
        (Fickle, "an_intent_is_the_same_for_the_same_post"),
        (Hasty, "intending_sends_nothing"),
        (Raw, "an_intent_can_be_stored_as_text"),
        (Busy, "finding_reads_only"),
        (Sure, "nobody_there_is_not_mistaken_for_nothing_there"),
        (Loud, "who_is_barred_keeps_the_post_for_later"),
        (Final, "who_is_barred_keeps_the_post_for_later"),
        (Leaky, "a_lost_answer_is_no_second_post"),
        (Loose, "a_post_is_not_found_for_another_run"),
        (Vague, "what_readers_did_is_counted"),
        (Generous, "what_is_not_its_own_is_left_out_of_the_counts"),
        (Generous, "a_post_that_was_withdrawn_is_gone"),
        (Stern, "a_post_can_be_taken_back_more_than_once"),
    ],
)  # fmt: skip
def test_the_suite_notices_a_broken_law(kind: type[Careful], law: str) -> None:
    test = getattr(TestBoard(), f"test_{law}")
    many = "stages" in inspect.signature(test).parameters
    # Whatever pytest calls a failure: an assertion, or an error that was not expected.
    with pytest.raises((AssertionError, PublisherError, pytest.fail.Exception)):
        test((lambda: Stage(Board(kind))) if many else Stage(Board(kind)))


def test_the_suite_notices_a_text_that_breaks_it() -> None:
    with pytest.raises(UnicodeEncodeError):
        TestBoard().test_hostile_text_neither_breaks_it_nor_makes_two(
            Stage(Board(Fragile)), "emoji"
        )


# Somebody else's, from its folder and with its own tests


def example(name: str) -> ModuleType:
    """A module of the example, which is not installed."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example("penstock_mastodon")
TestMastodon = example("test_penstock_mastodon").TestMastodon
