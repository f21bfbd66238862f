"""Penstock's contract, and what is Mastodon's own. Run `pytest` in this folder."""

from __future__ import annotations

import html
import itertools
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from penstock_mastodon import CHARS_MAX, Mastodon, publisher

from publishers.errors import Barred, OutcomeUnknown
from publishers.plugin import Surroundings
from publishers.testing import (
    Destination,
    JumpingClock,
    PublisherContract,
    Stage,
    Visible,
    story,
    turn,
)

URL = "https://mastodon.example"
TOKEN = "ZA-Yj3aBD8U8Cm7lKUp-lm9O9BmDgdhHzDeqsY8tlL0"  # noqa: S105 - opens the double only


class Double(httpx.AsyncBaseTransport):
    """A server with one account, as Mastodon's source says that it behaves."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.token = TOKEN
        self.statuses: dict[str, dict[str, Any]] = {}
        self.remembered: dict[str, tuple[datetime, str]] = {}
        self.numbers = itertools.count(115_000_000_000_000_001)
        self.is_down = self.loses = self.refuses = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("all is quiet", request=request)
        await turn()
        status, body = self.answer(request)
        await turn()
        if self.loses and request.method == "POST":
            self.loses = False
            raise httpx.ReadError("reset by peer", request=request)
        return httpx.Response(status, json=body, request=request)

    def answer(self, request: httpx.Request) -> tuple[int, Any]:
        if request.headers["authorization"] != f"Bearer {self.token}":
            return 401, {"error": f"The access token {request.headers['authorization']} is invalid"}
        match request.method, request.url.path.removeprefix("/api/v1/").split("/"):
            case "POST", ["statuses"]:
                return self.create(json.loads(request.content), request.headers["idempotency-key"])
            case "GET", ["accounts", "verify_credentials"]:
                return 200, {"id": "14715"}
            case "GET", ["accounts", "14715", "statuses"]:
                return 200, self.listed(request.url.params)
            case "GET", ["statuses", number] if number in self.statuses:
                return 200, self.statuses[number]
            case "DELETE", ["statuses", number] if number in self.statuses:
                return 200, self.statuses.pop(number)
        return 404, {"error": "Record not found"}

    def create(self, asked: Mapping[str, str], key: str) -> tuple[int, Any]:
        made_at, number = self.remembered.get(key, (self.now(), ""))
        if number and self.now() - made_at < timedelta(hours=1):
            gone = 404, {"error": "Record not found"}
            return (200, self.statuses[number]) if number in self.statuses else gone
        text = asked["status"]
        words = ["x" * 23 if word.startswith("https://") else word for word in text.split(" ")]
        if self.refuses or not text or len(" ".join(words)) > CHARS_MAX + 40:
            self.refuses = False
            return 422, {"error": "Validation failed: Text character limit of 500 exceeded"}
        number = str(next(self.numbers))
        paragraphs = html.escape(text, quote=False).split("\n\n")
        self.statuses[number] = {
            "id": number,
            "created_at": f"{self.now():%Y-%m-%dT%H:%M:%S.000Z}",
            "url": f"{URL}/@penstock/{number}",
            "content": "".join(f"<p>{p}</p>" for p in paragraphs).replace("\n", "<br />"),
            "favourites_count": 0,
            "reblogs_count": 0,
            "replies_count": 0,
        }
        self.remembered[key] = self.now(), number
        return 200, self.statuses[number]

    def listed(self, asked: Mapping[str, str]) -> list[Any]:
        newest = sorted(self.statuses, key=int, reverse=True)
        older = [n for n in newest if int(n) < int(asked.get("max_id", 10**30))]
        return [self.statuses[number] for number in older[: min(40, int(asked["limit"]))]]


class Server(Destination):
    """The double, arranged by the suite."""

    def __init__(self) -> None:
        self.double: Double | None = None

    @property
    def there(self) -> Double:
        assert self.double is not None
        return self.double

    def publisher(self, clock: JumpingClock) -> Mastodon:
        self.double = self.double or Double(clock.now)
        return Mastodon(URL, TOKEN, clock, 20.0, transport=self.double)

    def posts(self) -> Sequence[Visible]:
        shown = self.there.statuses.items()
        return [Visible(number, html.unescape(status["content"])) for number, status in shown]

    def secrets(self) -> Sequence[str]:
        return [TOKEN]

    def react(self, remote_id: str) -> Mapping[str, int]:
        counted = {"favourites_count": 3, "reblogs_count": 2, "replies_count": 1}
        self.there.statuses[remote_id].update(counted)
        return {"like": 3, "repost": 2, "reply": 1}

    def lose_answer(self) -> None:
        self.there.loses = True

    def refuse(self) -> None:
        self.there.refuses = True

    def down(self) -> None:
        self.there.is_down = True

    def bar(self) -> None:
        self.there.token = "another"  # noqa: S105 - likewise

    def recover(self) -> None:
        self.there.is_down, self.there.token = False, TOKEN


class TestMastodon(PublisherContract):
    """Every law, and below what only Mastodon has."""

    def destination(self, folder: Path) -> Server:
        return Server()

    @story
    async def test_an_hour_later_the_same_key_makes_no_second_status(self, stage: Stage) -> None:
        server = stage.destination
        assert isinstance(server, Server)
        server.lose_answer()
        post = self.post("run-1")
        there, listed = server.there, server.there.listed
        there.listed = lambda asked: []  # type: ignore[method-assign] # a list that lags behind
        with pytest.raises(OutcomeUnknown):
            await stage.publish(post)
        there.listed = listed  # type: ignore[method-assign]
        stage.clock.pass_by(3700)
        await stage.publish(post)
        assert len(there.statuses) == 1

    @story
    async def test_a_busy_account_is_looked_through_page_by_page(self, stage: Stage) -> None:
        first = await stage.until_published(self.post("run-1"))
        for number in range(2, 90):
            await stage.until_published(self.post(f"run-{number}"))
        assert await stage.find(self.post("run-1")) == first

    @story
    async def test_a_refused_token_names_its_setting(self, stage: Stage) -> None:
        stage.destination.bar()
        with pytest.raises(Barred, match="PENSTOCK_PUBLISHER_MASTODON_TOKEN"):
            await stage.publish(self.post("run-1"))

    def test_a_status_fits_with_its_link_and_its_last_line(self, stage: Stage) -> None:
        intent = stage.publisher.intend(self.post("run-1", announcement=("word " * 300,)))
        text = json.loads(intent.payload)["status"]["status"]
        link = self.post("run-1").link or ""
        assert CHARS_MAX - 5 < len(text.replace(link, "x" * 23)) <= CHARS_MAX
        assert text.endswith("run run-1")

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"url": URL}, "PENSTOCK_PUBLISHER_MASTODON_TOKEN"),
            ({"token": TOKEN}, "PENSTOCK_PUBLISHER_MASTODON_URL"),
            ({"token": TOKEN, "url": "http://a.example"}, "PENSTOCK_PUBLISHER_MASTODON_URL"),
            ({"token": TOKEN, "url": URL, "tokn": "x"}, "PENSTOCK_PUBLISHER_MASTODON_TOKN"),
        ],
    )
    def test_a_setting_that_is_wrong_is_named(
        self, tmp_path: Path, settings: dict[str, str], named: str
    ) -> None:
        tls = ssl.create_default_context()
        around = Surroundings(JumpingClock(), 20.0, tmp_path, "Sluices", tls, settings)
        with pytest.raises(ValueError, match=named):
            publisher(around)
