"""Revenue: what Stripe says it received, what becomes of it in the books, and the next source."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlmodel import SQLModel

from daemon.books import Books
from daemon.clock import SystemClock
from daemon.revenue import Collected, Received, RevenueSource, SourceBarred, SourceError, collect
from daemon.revenue.booking import BATCH, LOOK_BACK
from daemon.revenue.stripe import PAGES_MAX, VERSION, Stripe
from daemon.secret import Secret
from ledger import audit, export, store
from ledger.database import Database
from ledger.errors import InsufficientFunds
from ledger.export import Format
from ledger.money import MicroCredits
from tests.doubles.stripe import StripeDouble, listed, refused
from tests.doubles.wire import Answer, Fault, InProcess, serve
from tests.ledger_helpers import MODEL, NO_LIMITS, cr, new_book, open_book
from tests.test_export import BEAN_CHECK, run

KEY = "rk_live_51MiN3gLkdIwHu7ixQraBm0ToTheMoon"
START = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
LONG_AGO = START - timedelta(days=400)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
DOC = (Path(__file__).parents[1] / "docs" / "revenue.md").read_text(encoding="utf-8")


# What Stripe says


@pytest.fixture
def account() -> StripeDouble:
    return StripeDouble(KEY)


def connected(account: StripeDouble, key: str = KEY, timeout_s: float = 5.0) -> Stripe:
    transport = InProcess({"stripe.test": account})
    return Stripe(Secret(key), url="https://stripe.test", timeout_s=timeout_s, transport=transport)


def ask(
    account: StripeDouble, since: datetime = LONG_AGO, *, key: str = KEY, timeout_s: float = 5.0
) -> Sequence[Received]:
    async def live() -> Sequence[Received]:
        stripe = connected(account, key, timeout_s)
        try:
            return await stripe.received(since)
        finally:
            await stripe.close()

    return asyncio.run(live())


def amounts(received: Sequence[Received]) -> list[str]:
    return [str(one.amount) for one in received]


def test_a_payment_is_what_is_left_of_it_after_the_fee(account: StripeDouble) -> None:
    name = account.move(START, 1000, fee=59)
    (one,) = ask(account)
    assert one == Received(name, cr("9.41"), START, "charge ch_0001 of 2026-11-02 09:30 UTC")


def test_nothing_of_who_paid_is_taken_along(account: StripeDouble) -> None:
    account.move(START, 1000)
    (one,) = ask(account)
    assert "example.org" not in one.memo


@pytest.mark.parametrize(
    ("kind", "cents", "fee", "amount"),
    [
        ("payment", 1, 0, "0.010000"),
        ("charge", 10, 59, "-0.490000"),
        ("refund", -1000, 0, "-10.000000"),
        ("payment_refund", -1000, 0, "-10.000000"),
        ("refund_failure", 1000, 0, "10.000000"),
        ("adjustment", -1000, 1500, "-25.000000"),
        ("adjustment", 1000, -1500, "25.000000"),
        ("stripe_fee", -200, 0, "-2.000000"),
        ("tax_fee", -20, 0, "-0.200000"),
        ("reserved_funds", -500, 0, "-5.000000"),
        ("reserve_release", 500, 0, "5.000000"),
        ("transfer", -700, 0, "-7.000000"),
        ("a_type_of_next_year", 5, 0, "0.050000"),
        # The owner's own money is on its way; what it costs is gone.
        ("payout", -10_000, 0, None),
        ("payout", -10_000, 100, "-1.000000"),
        ("payout_failure", 10_000, 0, None),
        ("payout_cancel", 10_000, 0, None),
        ("payout_minimum_balance_hold", -100, 0, None),
        ("payout_minimum_balance_release", 100, 0, None),
        ("topup", 5_000, 0, None),
        ("topup_reversal", -5_000, 0, None),
        ("inbound_transfer", 5_000, 0, None),
        ("charge", 0, 0, None),
    ],
)
def test_what_each_type_comes_to(
    account: StripeDouble, kind: str, cents: int, fee: int, amount: str | None
) -> None:
    account.move(START, cents, kind, fee=fee)
    assert amounts(ask(account)) == ([] if amount is None else [amount])


@pytest.mark.parametrize(
    ("balance", "counts"),
    [("payments", 1), ("refund_and_dispute_prefunding", 1), (None, 1), ("issuing", 0),
     ("risk_reserved", 0)],
)  # fmt: skip
def test_what_moves_in_a_balance_that_is_filled_from_another_is_not_counted_twice(
    account: StripeDouble, balance: str | None, counts: int
) -> None:
    account.move(START, -1000, "refund", balance_type=balance)
    assert len(ask(account)) == counts


def test_what_is_pending_is_left_out_until_it_is_available(account: StripeDouble) -> None:
    name = account.move(START, 1000, status="pending")
    account.move(START, 300)
    assert amounts(ask(account)) == ["3.000000"]
    account.settle(name)
    assert sorted(amounts(ask(account))) == ["10.000000", "3.000000"]


def test_every_page_is_read_and_the_oldest_comes_first(account: StripeDouble) -> None:
    account.page_max = 3
    names = [account.move(START + n // 4 * MINUTE, 100 + n) for n in range(10)]
    assert [one.ref for one in ask(account)] == names
    first, *rest = account.asked
    assert len(rest) == 3
    assert first.query == {"limit": "100", "created[gte]": str(int(LONG_AGO.timestamp()))}
    assert rest[0].query == first.query | {"starting_after": names[7]}
    assert {one.headers["stripe-version"] for one in account.asked} == {VERSION}


def test_only_what_was_made_since_is_asked_for(account: StripeDouble) -> None:
    account.move(START - DAY, 100)
    account.move(START, 200)
    assert amounts(ask(account, START)) == ["2.000000"]


def test_it_speaks_over_a_socket_as_it_does_in_process(account: StripeDouble) -> None:
    account.page_max = 2
    names = [account.move(START, 100) for _ in range(5)]

    async def live(url: str) -> Sequence[Received]:
        stripe = Stripe(Secret(KEY), url=f"{url}/", timeout_s=5.0)
        try:
            return await stripe.received(LONG_AGO)
        finally:
            await stripe.close()

    with serve(account) as at:
        assert [one.ref for one in asyncio.run(live(at.url))] == names


def test_other_currencies_are_not_booked_and_that_is_said_once(
    account: StripeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    account.move(START, 1000)
    for currency, cents in (("eur", 500), ("idr", 2 * 10**12), ("eur", 700)):
        account.move(START, cents, currency=currency)
    account.move(START, -5, "payout", currency="eur")
    account.move(START, 5, currency="eur", status="pending")
    dollars = account.move(START, 100, currency="USD")

    async def live() -> None:
        stripe = connected(account)
        for _ in range(3):
            assert [one.ref for one in await stripe.received(LONG_AGO)] == ["txn_0001", dollars]
        account.move(START, 100, currency="jpy")
        await stripe.received(LONG_AGO)
        await stripe.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(live())
    said = "stripe.received: not booked, since only US dollars are: "
    assert caplog.messages == [f"{said}2 in eur, 1 in idr", f"{said}1 in jpy"]


# What it should not say


def spoiled(**fields: Any) -> Answer:
    """A page of one transaction with some fields of another kind; `...` takes one away."""
    account = StripeDouble(KEY)
    account.move(START, 1000)
    (one,) = account.transactions
    return listed([{name: value for name, value in (one | fields).items() if value is not ...}])


ONE = {"id": "txn_1", "type": "charge", "status": "available", "currency": "usd", "created": 1,
       "net": 5, "amount": 5}  # fmt: skip
MALFORMED = {
    "a web page": Answer(200, {"content-type": "text/html"}, b"<html>Welcome!</html>"),
    "nothing": Answer(200),
    "a list": Answer.of([]),
    "null": Answer.of(None),
    "no data": Answer.of({"has_more": False}),
    "data that is no list": listed({"txn_1": ONE}),
    "no has_more": Answer.of({"data": []}),
    "has_more as text": listed([ONE], "false"),
    "has_more as a number": listed([ONE], 0),
    "more of nothing": listed([], has_more=True),
    "something that is no transaction": listed([ONE, "txn_2"]),
    "the same twice, differently": listed([ONE, ONE | {"net": 6}]),
    "brackets without an end": Answer(200, {}, b'{"data": ' + b"[" * 100_000),
    "a number of 5000 digits": Answer(200, {}, b'{"data": [{"net": ' + b"9" * 5000 + b"}]}"),
    "not a number": Answer(200, {}, b'{"data": [{"id": "txn_1", "net": NaN}], "has_more": false}'),
    "cut": Answer(200, {}, b'{"data": [{"id": "txn_1", "n'),
    "compressed": Answer(200, {"content-encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
    "no text at all": Answer(200, {}, b"\xff\xfe\x00\x01"),
    "without an end": Answer(200, {}, b" ", endless=True),
    **{f"{name} missing": spoiled(**{name: ...}) for name in ONE},
    **{f"{name} null": spoiled(**{name: None}) for name in ONE},
    **{f"{name} a boolean": spoiled(**{name: True}) for name in ONE},
    **{f"{name} a list": spoiled(**{name: [1]}) for name in ONE},
    **{f"{name} as text": spoiled(**{name: "1000"}) for name in ("net", "amount", "created")},
    **{f"{name} a float": spoiled(**{name: 1000.0}) for name in ("net", "amount", "created")},
    **{f"{name} giant": spoiled(**{name: 10**30}) for name in ("net", "amount", "created")},
    "created before 1970": spoiled(created=-1),
    "an id with a line end": spoiled(id="txn_1\n"),
    "an empty id": spoiled(id=""),
    "an id without an end": spoiled(id="t" * 256),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_list_of_transactions_books_nothing_and_says_so(
    account: StripeDouble, answer: Answer
) -> None:
    account.move(START, 1000)
    account.instead(answer)
    with pytest.raises(SourceError, match="Stripe could not be read: ") as caught:
        ask(account)
    assert not isinstance(caught.value, SourceBarred)
    assert len(str(caught.value)) < 200


def test_a_page_that_repeats_itself_for_ever_is_left(account: StripeDouble) -> None:
    account.instead(*[listed([ONE], has_more=True)] * 5)
    with pytest.raises(SourceError, match="does not go on"):
        ask(account)
    assert len(account.asked) == 2


def test_the_same_transaction_on_two_pages_is_one(account: StripeDouble) -> None:
    account.instead(listed([ONE], has_more=True), listed([ONE, ONE | {"id": "txn_2"}]))
    assert [one.ref for one in ask(account)] == ["txn_2", "txn_1"]


def test_pages_without_an_end_are_left(
    account: StripeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PAGES_MAX >= 1_000
    monkeypatch.setattr("daemon.revenue.stripe.PAGES_MAX", 4)
    account.instead(*[listed([ONE | {"id": f"txn_{n}"}], has_more=True) for n in range(9)])
    with pytest.raises(SourceError, match="lists more than 400 transactions"):
        ask(account)
    assert len(account.asked) == 4


def test_a_page_in_the_middle_that_cannot_be_read_leaves_nothing(account: StripeDouble) -> None:
    account.instead(listed([ONE], has_more=True), Answer(500))
    with pytest.raises(SourceError, match="HTTP 500"):
        ask(account)


def test_a_sum_beyond_what_is_booked_is_handed_on_for_the_books_to_refuse(
    account: StripeDouble,
) -> None:
    account.move(START, 10**15)
    assert amounts(ask(account)) == ["10000000000000.000000"]


# Refusals


@pytest.mark.parametrize(
    ("answer", "barred", "said"),
    [
        (refused(429, "Too many requests", retry_after="7"), False, "429: Too many requests"),
        (refused(429, "Too many requests"), False, "429"),
        (refused(429, "", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), False, "429"),
        (refused(429, "", retry_after="9" * 30), False, "429"),
        (refused(429, "", retry_after="-1"), False, "429"),
        (refused(409, "lock_timeout"), False, "409: lock_timeout"),
        (Answer(500), False, "HTTP 500$"),
        (Answer(503, {"retry-after": "60"}, b"<html>maintenance</html>"), False, "HTTP 503$"),
        (refused(401, "Invalid API Key"), True, "make a new restricted key"),
        (Answer(403, {}, b"<html>"), True, "give it Read on Balance"),
        (refused(400, "Invalid Stripe API version"), True, "upgrade Penstock"),
        (Answer(404, {}, b"<html>"), True, "look at STRIPE_URL"),
        (Answer(301, {"location": "https://thief.test/"}), True, "HTTP 301"),
        (Answer(204), True, "HTTP 204"),
        (Answer.of({"error": "text"}, 401), True, "401; "),
        (Answer.of({"error": {"message": ["x"]}}, 401), True, "401; "),
        (refused(401, "long\n\x1b[2J " * 500), True, "long"),
    ],
    ids=str,
)
def test_a_refusal_says_whether_a_person_must_act_and_how(
    account: StripeDouble, answer: Answer, barred: bool, said: str
) -> None:
    account.instead(answer)
    with pytest.raises(SourceError, match=said) as caught:
        ask(account)
    assert isinstance(caught.value, SourceBarred) is barred
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.DROP, Fault.CUT, Fault.STALL, Fault.TRICKLE])
@pytest.mark.parametrize("over", ["a socket", "in process"])
def test_trouble_on_the_way_passes(account: StripeDouble, fault: Fault, over: str) -> None:
    account.move(START, 1000)
    well = listed(account.transactions)
    account.instead(Answer(200, well.headers, well.body, fault))

    async def live(url: str) -> None:
        stripe = Stripe(Secret(KEY), url=url, timeout_s=0.3)
        with pytest.raises(SourceError) as caught:
            await stripe.received(LONG_AGO)
        await stripe.close()
        assert not isinstance(caught.value, SourceBarred)

    if over == "a socket":
        with serve(account) as at:
            asyncio.run(live(at.url))
    else:
        with pytest.raises(SourceError):
            ask(account, timeout_s=0.3)
    assert amounts(ask(account)) == ["10.000000"]


def test_a_host_that_is_not_there_passes() -> None:
    async def live() -> None:
        stripe = Stripe(
            Secret(KEY), url="https://nobody.test", timeout_s=5.0, transport=InProcess({})
        )
        with pytest.raises(SourceError, match="cannot be reached: ConnectError"):
            await stripe.received(LONG_AGO)
        await stripe.close()

    asyncio.run(live())


# The key


@pytest.mark.parametrize("key", ["rk_test_51MiN3gLkd", "sk_test_4eC39HqLyj"])
def test_a_key_of_test_mode_is_refused_before_anything_is_sent(
    account: StripeDouble, key: str
) -> None:
    account.key = key
    account.move(START, 1000)
    with pytest.raises(SourceBarred, match="test mode"):
        ask(account, key=key)
    assert account.asked == []


@pytest.mark.parametrize("key", ["rk_live_é", "rk_live_1\r\nx-evil: 1", "rk live", "\0", ""])
def test_a_key_with_other_characters_is_refused_before_anything_is_sent(
    account: StripeDouble, key: str
) -> None:
    with pytest.raises(SourceBarred) as caught:
        ask(account, key=key)
    assert account.asked == []
    assert not key or key not in str(caught.value)


def test_the_key_is_in_no_error_log_or_repr(
    account: StripeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    other = "rk_live_another_0123456789"
    account.may_read = False
    said = [repr(connected(account)), str(vars(connected(account)))]
    with caplog.at_level(logging.DEBUG):
        for key, account.may_read in ((other, True), (KEY, False)):
            with pytest.raises(SourceBarred) as caught:
                ask(account, key=key)
            said += [
                str(caught.value),
                repr(caught.value),
                "".join(traceback.format_exception(caught.value)),
            ]
    assert account.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    for words in [*said, caplog.text]:
        assert KEY not in words
        assert other not in words


def test_the_key_does_not_follow_a_redirect(account: StripeDouble) -> None:
    account.instead(Answer(307, {"location": "https://stripe.test/elsewhere"}))
    with pytest.raises(SourceBarred):
        ask(account)
    assert len(account.asked) == 1


# Into the books


@dataclass
class Wall(SystemClock):
    """A clock that stands until it is moved."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at


@dataclass
class Till:
    """A source in memory, which remembers since when it was asked."""

    name: str = "till"
    all: list[Received] = field(default_factory=list)
    asked: list[datetime] = field(default_factory=list)
    trouble: SourceError | None = None

    async def received(self, since: datetime) -> Sequence[Received]:
        self.asked.append(since)
        if self.trouble is not None:
            raise self.trouble
        # More than it is asked for: the booking does not rely on it.
        return sorted(self.all, key=lambda one: one.at)

    async def close(self) -> None:
        return None

    def take(self, amount: str, at: datetime, ref: str = "") -> None:
        self.all.append(Received(ref or f"p{len(self.all)}", cr(amount), at, "m"))


@dataclass
class Shop:
    """A fresh book, a clock, and a collection at the clock's time."""

    database: Database
    clock: Wall = field(default_factory=Wall)

    @property
    def books(self) -> Books:
        return Books(self.database, self.clock)

    def collect(self, source: RevenueSource, after: timedelta = timedelta()) -> Collected:
        self.clock.at += after
        return asyncio.run(collect(source, self.books, self.clock))

    def balance(self, account: str = "treasury") -> str:
        with self.database.read() as tx:
            assert audit.check(tx).problems == []
            return str(store.account_balance(tx, account))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with opened(tmp_path / "books.db") as shop:
        yield shop


class opened:  # noqa: N801
    """A shop in a new file."""

    def __init__(self, path: Path) -> None:
        self._book = new_book(path)

    def __enter__(self) -> Shop:
        database = self._book.__enter__()
        with database.write() as tx:
            SQLModel.metadata.tables["revenue_source"].create(tx)
        return Shop(database)

    def __exit__(self, *_: object) -> None:
        self._book.__exit__(None, None, None)


def test_what_stripe_received_is_in_the_books_once_however_often_it_is_asked(
    shop: Shop, account: StripeDouble
) -> None:
    assert shop.collect(connected(account)) == Collected()
    account.move(START + MINUTE, 1000, fee=59)
    account.move(START + 2 * MINUTE, -1000, "refund")
    account.move(START + 2 * MINUTE, -941, "payout")
    late = account.move(START + 3 * MINUTE, 500, status="pending")
    assert shop.collect(connected(account), DAY) == Collected(2, cr("-0.59"))
    assert shop.collect(connected(account), DAY) == Collected()
    account.settle(late)
    assert shop.collect(connected(account), 5 * DAY) == Collected(1, cr("5"))
    assert shop.collect(connected(account)) == Collected()
    assert shop.balance() == shop.balance("revenue:stripe") == "4.410000"
    with shop.database.read() as tx:
        page = [(e.id, e.debit, e.credit, str(e.amount), e.code, e.ref) for e in store.entries(tx)]
        dated = {e.at for e in store.entries(tx)}
    assert page == [
        ("revenue:stripe:txn_0001", "treasury", "revenue:stripe", "9.410000", "revenue",
         "txn_0001"),
        ("revenue:stripe:txn_0002", "revenue:stripe", "treasury", "10.000000", "revenue",
         "txn_0002"),
        ("revenue:stripe:txn_0004", "treasury", "revenue:stripe", "5.000000", "revenue",
         "txn_0004"),
    ]  # fmt: skip
    # When it could be spent, which is what counts as income of the last days.
    assert dated == {START + DAY, START + 7 * DAY}


def test_what_was_made_before_the_first_collection_is_not_credited(
    shop: Shop, account: StripeDouble
) -> None:
    account.move(START - DAY, 1000)
    before = account.move(START - MINUTE, 2000, status="pending")
    assert shop.collect(connected(account)) == Collected()
    account.move(START, 300)
    account.settle(before)
    assert shop.collect(connected(account), DAY) == Collected(1, cr("3"))
    assert shop.balance() == "3.000000"


def test_a_first_collection_that_fails_is_the_first_all_the_same(shop: Shop) -> None:
    till = Till(trouble=SourceBarred("the key is refused"))
    with pytest.raises(SourceBarred):
        shop.collect(till)
    till.take("5", START + MINUTE)
    till.trouble = None
    assert shop.collect(till, DAY) == Collected(1, cr("5"))


def test_a_collection_that_fails_is_made_up_for(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    till.take("5", START + DAY)
    till.trouble = SourceError("HTTP 503")
    for _ in range(100):
        with pytest.raises(SourceError, match="503"):
            shop.collect(till, DAY)
    assert shop.balance() == "0.000000"
    till.trouble = None
    assert shop.collect(till) == Collected(1, cr("5"))


def test_it_asks_for_the_weeks_before_the_last_collection_that_worked(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    shop.collect(till, 100 * DAY)
    shop.collect(till, 300 * DAY)
    till.trouble = SourceError("down")
    with pytest.raises(SourceError):
        shop.collect(till, 10 * DAY)
    till.trouble = None
    shop.collect(till, 10 * DAY)
    shop.collect(till)
    ago = START - LOOK_BACK
    assert till.asked == [
        START, START, ago + 100 * DAY, ago + 400 * DAY, ago + 400 * DAY, ago + 420 * DAY,
    ]  # fmt: skip


def test_a_clock_that_was_ahead_is_found_out_by_the_next_collection(shop: Shop) -> None:
    till = Till()
    shop.collect(till, 900 * DAY)
    shop.collect(till, -900 * DAY)
    till.take("5", START + MINUTE)
    assert shop.collect(till, DAY) == Collected(1, cr("5"))
    shop.collect(till, 900 * DAY)
    shop.collect(till, -800 * DAY)
    assert till.asked[-1] == START + 101 * DAY - LOOK_BACK


@pytest.mark.parametrize(
    ("collected", "trouble"),
    [(True, SourceError("its certificate is not valid yet")), (True, None),
     (False, SourceError("its certificate is not valid yet"))],
)  # fmt: skip
def test_a_moment_of_a_clock_that_is_behind_credits_nothing_of_the_past(
    shop: Shop, collected: bool, trouble: SourceError | None
) -> None:
    till = Till()
    till.take("500", START - 20 * DAY)
    shop.collect(till)
    if collected:
        shop.collect(till, DAY)
    till.trouble = trouble
    for _ in range(2):
        with nullcontext() if trouble is None else pytest.raises(SourceError):
            shop.collect(till, -100 * DAY)
    till.trouble = None
    till.take("5", START + 2 * DAY)
    assert shop.collect(till, 203 * DAY) == Collected(1, cr("5"))


def test_each_source_counts_since_its_own_first_collection(shop: Shop) -> None:
    one, other = Till("one"), Till("other")
    shop.collect(one)
    for till in (one, other):
        till.take("5", START + MINUTE)
    assert shop.collect(other, DAY) == Collected()
    assert shop.collect(one) == Collected(1, cr("5"))
    assert (shop.balance("revenue:one"), shop.balance("revenue:other")) == ("5.000000", "0.000000")


def test_a_restored_backup_collects_what_it_lacks_once(tmp_path: Path) -> None:
    till = Till()
    with opened(tmp_path / "books.db") as shop:
        shop.collect(till)
        till.take("5", START + MINUTE)
        shop.collect(till, DAY)
    shutil.copy(tmp_path / "books.db", tmp_path / "backup.db")
    till.take("7", START + 2 * DAY)
    till.take("-2", START + 2 * DAY)
    restored = Shop(open_book(tmp_path / "backup.db"), Wall(START + 30 * DAY))
    assert restored.collect(till) == Collected(2, cr("5"))
    assert restored.collect(till) == Collected()
    assert restored.balance() == "10.000000"
    restored.database.close()


def test_a_refund_takes_what_holds_claim_and_then_nothing_more_is_held(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    till.take("5", START + MINUTE)
    shop.collect(till, DAY)
    with shop.database.write() as tx:
        store.hold(tx, id="h", account=MODEL, amount=cr("4"), at=START, limits=NO_LIMITS)
    till.take("-5", START + DAY)
    assert shop.collect(till) == Collected(1, cr("-5"))
    with shop.database.read() as tx:
        assert store.balance(tx).available == cr("-4")
    with pytest.raises(InsufficientFunds), shop.database.write() as tx:
        store.hold(tx, id="i", account=MODEL, amount=MicroCredits(1), at=START, limits=NO_LIMITS)
    with shop.database.write() as tx:
        store.settle(tx, "h", actual=cr("4"), at=START)
    assert shop.balance() == "-4.000000"


def test_what_was_deposited_by_hand_under_the_same_ref_is_not_booked_again(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    with shop.database.write() as tx:
        store.deposit(tx, amount=cr("5"), ref="p0", at=START, source="till")
    till.take("5", START + MINUTE)
    assert shop.collect(till, DAY) == Collected()
    assert shop.balance() == "5.000000"


def test_what_the_books_refuse_is_told_and_the_rest_is_booked(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    with shop.database.write() as tx:
        store.deposit(tx, amount=cr("4"), ref="p0", at=START, source="till")
    for amount in ("5", "6", "0"):
        till.take(amount, START + MINUTE)
    till.all.append(Received("p9", MicroCredits(10**16), START + MINUTE, "m"))
    till.all.append(Received("p10", MicroCredits(-(10**16)), START + MINUTE, "m"))
    done = shop.collect(till, DAY)
    assert (done.count, done.amount) == (1, cr("6"))
    assert [words.partition(":")[0] for words in done.refused] == [
        "till p0 of 5.000000 is not booked",
        "till p9 of 10000000000.000000 is not booked",
        "till p10 of -10000000000.000000 is not booked",
    ]
    assert shop.balance() == "10.000000"


def test_one_ref_is_one_booking_whatever_its_sign(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    till.take("5", START + MINUTE, "x")
    till.take("-5", START + 2 * MINUTE, "x")
    done = shop.collect(till, DAY)
    assert (done.count, len(done.refused)) == (1, 1)
    assert shop.balance() == "5.000000"


class Killed(Exception):
    pass


class Short(Books):
    """Books that are cut off after so many transactions."""

    left = 3

    @asynccontextmanager
    async def write(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Killed
        async with super().write() as tx:
            yield tx


def test_a_kill_between_two_batches_leaves_the_rest_to_the_next_collection(shop: Shop) -> None:
    till = Till()
    shop.collect(till)
    for _ in range(3 * BATCH + 1):
        till.take("0.01", START + MINUTE)
    shop.clock.at += DAY
    with pytest.raises(Killed):
        asyncio.run(collect(till, Short(shop.database, shop.clock), shop.clock))
    assert shop.balance() == "10.000000"
    assert shop.collect(till, DAY) == Collected(BATCH + 1, cr("5.01"))
    assert till.asked[-1] == START
    assert shop.balance() == "15.010000"


def test_the_columns_are_strict_and_a_source_is_one_row(shop: Shop) -> None:
    shop.collect(Till())
    shop.collect(Till(), DAY)
    with shop.database.read() as tx:
        rows = tx.execute(text("SELECT name, since, collected_at FROM revenue_source")).all()
    assert [tuple(row) for row in rows] == [
        ("till", "2026-11-02T09:30:00.000000Z", "2026-11-03T09:30:00.000000Z")
    ]


movements = st.lists(
    st.tuples(st.integers(-3, 12), st.integers(-2_000, 2_000), st.integers(0, 9)), max_size=12
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moved=movements, collections=st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_after_any_collections_the_balance_is_what_was_available_at_the_last(
    tmp_path_factory: pytest.TempPathFactory,
    moved: list[tuple[int, int, int]],
    collections: list[int],
) -> None:
    account = StripeDouble(KEY, page_max=2)
    for day, cents, settles in moved:
        account.move(START + day * DAY, cents, available_on=day + settles)
    every = account.transactions
    with opened(tmp_path_factory.mktemp("any") / "books.db") as shop:
        shop.collect(connected(StripeDouble(KEY)))
        today = 0
        for days in collections:
            today += days
            account.transactions = [
                one | {"status": "available" if one["available_on"] <= today else "pending"}
                for one in every
                if one["created"] <= (START + today * DAY).timestamp()
            ]
            shop.collect(connected(account), days * DAY)
            expected = sum(
                one["net"]
                for one in account.transactions
                if one["status"] == "available" and one["created"] >= START.timestamp()
            )
            assert shop.balance() == str(MicroCredits(expected * 10_000))


def test_books_that_refunds_overdrew_are_exported_to_the_same_balances(
    shop: Shop, tmp_path: Path
) -> None:
    till = Till()
    shop.collect(till)
    till.take("5", START + MINUTE)
    till.take("-7.25", START + MINUTE)
    shop.collect(till, DAY)
    commands: dict[Format, list[str]] = {
        "beancount": [BEAN_CHECK],
        "hledger": ["hledger", "check", "-f"],
    }
    with shop.database.read() as tx:
        for kind, command in commands.items():
            if shutil.which(command[0]) is None:
                continue
            path = tmp_path / f"books.{kind}"
            path.write_text("".join(export.lines(tx, kind)), "utf-8")
            checked = run(*command, str(path))
            assert checked.returncode == 0, checked.stderr
        assert store.earned(tx, since=START, family="revenue") == cr("-2.25")


# docs/revenue.md


def example() -> type[Any]:
    """The source that the page shows, as it stands there."""
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    names: dict[str, Any] = {"__name__": "an_example"}
    exec(compile(code, "docs/revenue.md", "exec"), names)
    found: type[Any] = names["CsvFile"]
    return found


def test_the_next_source_in_the_documentation_is_one(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    source: RevenueSource = example()(path)
    with pytest.raises(SourceBarred, match="there is no"):
        shop.collect(source)
    path.write_text("id,paid_at,amount\nold,2026-11-01T00:00:00Z,100\n")
    assert shop.collect(source) == Collected()
    with path.open("a") as file:
        file.write("b,2026-11-03T00:00:00+00:00,12.50\na,2026-11-02T12:00:00+01:00,3\n")
        file.write("a-back,2026-11-03T01:00:00Z,-1.25\n")
    assert shop.collect(source, DAY) == Collected(3, cr("14.25"))
    with path.open("a") as file:
        file.write("c,2026-11-03T02:00:00Z,1")
    assert shop.collect(source, DAY) == Collected()
    with path.open("a") as file:
        file.write("2.00\n")
    assert shop.collect(source) == Collected(1, cr("12"))
    assert shop.balance("revenue:csv") == "26.250000"
    asyncio.run(source.close())


@pytest.mark.parametrize(
    "line",
    ["d,yesterday,1", "d,2026-11-03T00:00:00,1", ",2026-11-03T00:00:00Z,1", "d",
     "d,2026-11-03T00:00:00Z,a lot", "d,2026-11-03T00:00:00Z,1e3", "d,2026-11-03T00:00:00Z,"],
)  # fmt: skip
def test_the_documented_source_refuses_a_line_that_is_no_payment(tmp_path: Path, line: str) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(f"id,paid_at,amount\nx,2026-11-03T00:00:00Z,1\n{line}\n")
    with pytest.raises(SourceError, match="no payment"):
        asyncio.run(example()(path).received(LONG_AGO))


def test_the_page_says_what_the_code_does() -> None:
    assert "STRIPE_API_KEY=rk_live_" in DOC
    assert f"{LOOK_BACK.days} days before the last one" in DOC
