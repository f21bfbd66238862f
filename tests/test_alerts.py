"""What a person must know: raised once, told once, cleared, and told again when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from daemon import alerts, migrations
from daemon.alerts import Kind, Webhook
from daemon.books import Books
from ledger.database import Database
from tests.doubles.webhook import Webhook as WebhookDouble
from tests.doubles.wire import Answer, InProcess, Request
from tests.virtual import START, VirtualTime


class Office:
    """A database, and somebody who is told."""

    def __init__(self, path: Path) -> None:
        self.database = Database(f"sqlite:///{path}", busy_timeout_ms=0)
        migrations.upgrade(self.database)
        self.time = VirtualTime()
        self.url = "https://alerts.test/hook?secret=1234"
        self.listen(WebhookDouble())

    def listen(self, double: WebhookDouble) -> None:
        self.double = double
        self.transport: httpx.AsyncBaseTransport = InProcess({"alerts.test": double})

    def sound(self, kind: Kind, about: str, message: str = "look", days: float = 0) -> None:
        with self.database.write() as tx:
            alerts.sound(tx, kind, about, message, at=START + timedelta(days=days))

    def clear(self, kind: Kind, about: str) -> None:
        with self.database.write() as tx:
            alerts.clear(tx, kind, about, at=START)

    def standing(self, days: float = 0) -> list[str]:
        with self.database.read() as tx:
            return [row.message for row in alerts.standing(tx, START + timedelta(days=days))]

    def tell(self) -> str | None:
        async def act() -> str | None:
            webhook = Webhook(self.url, timeout_s=5, transport=self.transport)
            try:
                return await webhook.tell(Books(self.database, self.time.clock), self.time.clock)
            finally:
                await webhook.close()

        return self.time.run(act())

    def told(self) -> list[tuple[str, bool]]:
        return [(told["message"], told["cleared"]) for told in self.double.told]


class Quoting(httpx.AsyncBaseTransport):
    """Is not reached, in words that have the address in them, as some of httpx's have."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"nobody at {request.url}")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "penstock.db")
    with closing(made.database), closing(made.time):
        yield made


def test_a_condition_is_told_once_and_has_its_all_clear(office: Office) -> None:
    for message in ("key refused", "key refused still"):
        office.sound(Kind.BARRED, "devto", message)
        assert office.tell() is None
    assert office.told() == [("key refused", False)]
    assert office.standing() == ["key refused still"]
    office.clear(Kind.BARRED, "devto")
    assert office.standing() == []
    for _ in range(2):
        assert office.tell() is None
    assert office.told()[1:] == [("all clear: key refused still", True)]


def test_what_passed_before_anybody_was_told_is_not_told(office: Office) -> None:
    office.sound(Kind.BARRED, "devto")
    office.clear(Kind.BARRED, "devto")
    assert office.tell() is None
    assert office.told() == []


def test_what_comes_back_is_told_again(office: Office) -> None:
    for _ in range(2):
        office.sound(Kind.BARRED, "devto")
        office.tell()
        office.clear(Kind.BARRED, "devto")
        office.tell()
    assert [cleared for _, cleared in office.told()] == [False, True, False, True]


def test_clearing_names_what_it_clears(office: Office) -> None:
    office.sound(Kind.BARRED, "devto", "one")
    office.sound(Kind.BARRED, "bluesky", "two")
    office.clear(Kind.BARRED, "devto")
    office.clear(Kind.APPROVAL, "bluesky")
    assert office.standing() == ["two"]


def test_who_is_asked_no_more_bars_nobody(office: Office) -> None:
    for about in ("devto", "devto:readers", "bluesky", "revenue:stripe"):
        office.sound(Kind.BARRED, about, about)
    office.sound(Kind.APPROVAL, "r1", "a draft")
    office.tell()
    with office.database.write() as tx:
        alerts.let_in(tx, ["bluesky", "outbox"], at=START)
    assert office.standing() == ["bluesky", "a draft"]
    office.double.told.clear()
    office.tell()
    assert office.told() == [
        (f"all clear: {name}", True) for name in ("devto", "devto:readers", "revenue:stripe")
    ]


def test_an_event_is_news_for_a_week(office: Office) -> None:
    office.sound(Kind.REFUSED, "r1:devto", "no")
    assert office.standing(days=6.9) == ["no"]
    assert office.standing(days=7) == []
    with office.database.write() as tx:
        alerts.prune(tx, START + timedelta(days=7))
    office.sound(Kind.REFUSED, "r1:devto", "no again", days=8)
    assert office.standing(days=8) == ["no again"]


def test_a_condition_does_not_grow_old(office: Office) -> None:
    office.sound(Kind.BARRED, "devto", "still")
    with office.database.write() as tx:
        alerts.prune(tx, START + timedelta(days=400))
    assert office.standing(days=400) == ["still"]


def test_whoever_does_not_answer_is_told_later_and_the_address_stays_secret(
    office: Office,
) -> None:
    office.sound(Kind.BARRED, "devto")
    office.double.status = 500
    assert office.tell() == "PENSTOCK_ALERT_URL answered 500"
    answering, office.transport = office.transport, Quoting()
    trouble = office.tell()
    assert trouble is not None
    assert "1234" not in trouble
    assert "PENSTOCK_ALERT_URL" in trouble
    office.transport, office.double.status = answering, 204
    assert office.tell() is None
    assert len(office.told()) == 1


def test_what_is_told_is_as_the_contract_has_it(office: Office) -> None:
    office.sound(Kind.GONE, "r1:bluesky", "“T” is gone")
    office.tell()
    assert office.double.told == [
        {
            "kind": "gone", "message": "“T” is gone", "run": None,
            "at": "2026-11-23T08:00:00.000000Z", "cleared": False,
        }
    ]  # fmt: skip


class Particular(WebhookDouble):
    """Refuses some words; while it listens, something may happen."""

    def __init__(self, refused: str = "", meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.refused, self.meanwhile = refused, meanwhile

    async def handle(self, request: Request) -> Answer:
        if self.refused and self.refused in request.json["message"]:
            return Answer(400)
        self.told.append(request.json)
        self.meanwhile()
        return Answer(204)


class Busy(WebhookDouble):
    """Takes nothing for now, and counts."""

    asked = 0

    async def handle(self, request: Request) -> Answer:
        self.asked += 1
        return Answer(429)


def test_one_alert_that_is_refused_keeps_no_other_back(office: Office) -> None:
    office.listen(Particular(refused="strange"))
    office.sound(Kind.REFUSED, "r1:devto", "a strange title")
    office.sound(Kind.BOOKS, "", "the books do not balance", days=0.1)
    assert "400" in str(office.tell())
    assert office.told() == [("the books do not balance", False)]


def test_what_passes_while_it_is_told_has_its_all_clear(office: Office) -> None:
    office.listen(Particular(meanwhile=lambda: office.clear(Kind.BARRED, "devto")))
    office.sound(Kind.BARRED, "devto", "the key is refused")
    for _ in range(3):
        office.tell()
    assert [cleared for _, cleared in office.told()] == [False, True]


def test_a_webhook_that_takes_nothing_is_asked_once_at_each_turn(office: Office) -> None:
    office.listen(busy := Busy())
    for number in range(9):
        office.sound(Kind.BARRED, f"place {number}")
    assert "429" in str(office.tell())
    assert busy.asked == 1
