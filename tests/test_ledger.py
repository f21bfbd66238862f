"""The books, told as ledger pages: each line a verb, its answer, and the balance after it."""

from __future__ import annotations

import hashlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger import store
from ledger.database import Database, sqlite_path
from ledger.errors import (
    AlreadyResolved,
    BadTransfer,
    CapReached,
    InsufficientFunds,
    InvalidAmount,
    LedgerError,
    RefReused,
    UnknownAccount,
    UnknownHold,
)
from ledger.money import MICRO_MAX, ZERO, MicroCredits
from ledger.rules import AccountKind, Code, kind_of
from tests.ledger_helpers import (
    MODEL,
    NO_LIMITS,
    NOON,
    after,
    balance,
    checked,
    cr,
    new_book,
    open_book,
    race,
    race_in_process,
    take_barrier,
)

Verb = Callable[[Connection], object]
Line = tuple[Verb, object, str]
OTHER = "inference:anthropic"
RAISES = (LedgerError, ValueError)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Database]:
    with new_book(tmp_path / "books.db") as book:
        yield book


def deposit(amount: str, ref: str, *, source: str | None = None) -> Verb:
    return lambda tx: store.deposit(tx, amount=cr(amount), ref=ref, at=NOON, source=source)


def refund(amount: str, ref: str, *, source: str = "kofi") -> Verb:
    return lambda tx: store.refund(tx, amount=cr(amount), ref=ref, at=NOON, source=source)


def earn(
    id: str,
    amount: str,
    *,
    platform: str = "devto",
    cap: str = "10",
    at: datetime = NOON,
    run: str | None = "r",
    since: datetime | None = None,
) -> Verb:
    since = since or at - timedelta(hours=24)
    return lambda tx: str(
        store.earn(
            tx, id=id, platform=platform, amount=cr(amount), cap=cr(cap), since=since, at=at,
            run=run,
        )
    )  # fmt: skip


def hold(
    id: str,
    amount: str,
    *,
    account: str = MODEL,
    run: str | None = None,
    attempt: str | None = None,
    at: datetime = NOON,
    limits: store.Limits = NO_LIMITS,
) -> Verb:
    return lambda tx: store.hold(
        tx,
        id=id,
        account=account,
        amount=cr(amount),
        at=at,
        limits=limits,
        run=run,
        attempt=attempt,
    )


def settle(
    id: str, actual: str, *, at: datetime = NOON, code: Code = Code.INFERENCE, memo: str = ""
) -> Verb:
    return lambda tx: str(
        store.settle(tx, id, actual=cr(actual), at=at, code=code, memo=memo or None)
    )


def take_back(amount: str, entry: str) -> Verb:
    return lambda tx: store.adjust(
        tx, amount=-cr(amount), ref=entry, memo="m", at=NOON, corrects=entry
    )


def void(id: str) -> Verb:
    return lambda tx: store.void(tx, id, at=NOON)


def reserve(amount: str) -> store.Limits:
    return store.Limits(reserve=cr(amount))


def cap(amount: str, *, run: str | None = None, since: datetime | None = None) -> store.Limits:
    return store.Limits(caps=(store.Cap("the cap", cr(amount), run=run, since=since),))


def first_cap_of(*amounts: str) -> store.Limits:
    return store.Limits(
        caps=[store.Cap(f"cap {n}", cr(amount), run="r") for n, amount in enumerate(amounts)]
    )


NOTHING = "0.000000"
# verb, answer (or the error), then posted, held and available.
PAGES: dict[str, list[Line]] = {
    "a deposit is there to spend": [
        (deposit("10", "a"), True, "10 0 10"),
        (deposit("0.000001", "b"), True, "10.000001 0 10.000001"),
    ],
    "a hold takes from what is available, not from what is posted": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (hold("i", "6"), True, "10 10 0"),
    ],
    "settled for less than was held, the rest returns": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "1.5"), NOTHING, "8.5 0 8.5"),
    ],
    "settled for exactly what was held, nothing returns": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "4"), NOTHING, "6 0 6"),
    ],
    "settled for nothing, everything returns and the hold has ended": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "0"), NOTHING, "10 0 10"),
        (void("h"), AlreadyResolved, "10 0 10"),
    ],
    "a voided hold costs nothing": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (void("h"), None, "10 0 10"),
    ],
    "an overrun is booked on top of the hold": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "5.25"), "1.250000", "4.75 0 4.75"),
    ],
    "an overrun is booked even where the balance does not cover it": [
        (deposit("4", "a"), True, "4 0 4"),
        (hold("h", "3"), True, "4 3 1"),
        (hold("i", "1"), True, "4 4 0"),
        (settle("h", "6"), "3.000000", "-2 1 -3"),
        (settle("i", "1"), NOTHING, "-3 0 -3"),
        (hold("j", "0.000001"), InsufficientFunds, "-3 0 -3"),
        (deposit("3.000001", "b"), True, "0.000001 0 0.000001"),
        (hold("j", "0.000001"), True, "0.000001 0.000001 0"),
    ],
    "an overrun of a hold of zero is booked whole": [
        (deposit("1", "a"), True, "1 0 1"),
        (hold("h", "0"), True, "1 0 1"),
        (settle("h", "0.4"), "0.400000", "0.6 0 0.6"),
    ],
    "more than is available is refused, to the last millionth": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "10.000001"), InsufficientFunds, "10 0 10"),
        (hold("h", "10"), True, "10 10 0"),
        (hold("i", "0.000001"), InsufficientFunds, "10 10 0"),
    ],
    "a refused hold may come back under its own id once there are funds": [
        (hold("h", "1"), InsufficientFunds, "0 0 0"),
        (deposit("1", "a"), True, "1 0 1"),
        (hold("h", "1"), True, "1 1 0"),
    ],
    "every verb offered twice books once": [
        (deposit("10", "a"), True, "10 0 10"),
        (deposit("10", "a"), False, "10 0 10"),
        (deposit("2", "a", source="kofi"), True, "12 0 12"),
        (deposit("2", "a", source="kofi"), False, "12 0 12"),
        (hold("h", "4"), True, "12 4 8"),
        (hold("h", "4"), False, "12 4 8"),
        (settle("h", "1"), NOTHING, "11 0 11"),
        (settle("h", "1"), NOTHING, "11 0 11"),
        (hold("h", "4"), False, "11 0 11"),
        (hold("i", "5"), True, "11 5 6"),
        (void("i"), None, "11 0 11"),
        (void("i"), None, "11 0 11"),
        (hold("i", "5"), False, "11 0 11"),
    ],
    "an overrun offered twice is booked once and answered alike": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "5"), "1.000000", "5 0 5"),
        (settle("h", "5"), "1.000000", "5 0 5"),
    ],
    "a hold that was made is answered as made, also when the funds have gone since": [
        (deposit("4", "a"), True, "4 0 4"),
        (hold("h", "4"), True, "4 4 0"),
        (hold("h", "4"), False, "4 4 0"),
        (hold("h", "4", limits=reserve("3")), False, "4 4 0"),
    ],
    "a deposit's ref stands for one amount": [
        (deposit("10", "a"), True, "10 0 10"),
        (deposit("11", "a"), RefReused, "10 0 10"),
        (deposit("9.999999", "a"), RefReused, "10 0 10"),
    ],
    "revenue that went back is taken off, once": [
        (deposit("10", "a", source="kofi"), True, "10 0 10"),
        (refund("4", "b"), True, "6 0 6"),
        (refund("4", "b"), False, "6 0 6"),
        (refund("5", "b"), RefReused, "6 0 6"),
        (refund("4", "b", source="stripe"), True, "2 0 2"),
    ],
    "a source's ref stands for what came or for what went back, never for both": [
        (deposit("10", "a", source="kofi"), True, "10 0 10"),
        (refund("10", "a"), RefReused, "10 0 10"),
        (refund("3", "b"), True, "7 0 7"),
        (deposit("3", "b", source="kofi"), RefReused, "7 0 7"),
        (deposit("3", "b"), True, "10 0 10"),
    ],
    "a refund is booked though the money is held or gone, and then nothing more is held": [
        (deposit("10", "a", source="kofi"), True, "10 0 10"),
        (hold("h", "8"), True, "10 8 2"),
        (refund("10", "b"), True, "0 8 -8"),
        (hold("i", "0.000001"), InsufficientFunds, "0 8 -8"),
        (settle("h", "8"), NOTHING, "-8 0 -8"),
        (deposit("9", "c", source="kofi"), True, "1 0 1"),
        (hold("i", "1"), True, "1 1 0"),
    ],
    "a refund is an amount of a source that can be": [
        (refund("0", "a"), InvalidAmount, "0 0 0"),
        (refund("-1", "a"), InvalidAmount, "0 0 0"),
        (refund("1", "a", source="a:b"), UnknownAccount, "0 0 0"),
        (refund("1", "a", source=""), UnknownAccount, "0 0 0"),
    ],
    "readers are income, once for each id": [
        (earn("e", "4"), "4.000000", "4 0 4"),
        (earn("e", "4"), "4.000000", "4 0 4"),
        (earn("e", "4", at=after(9)), "4.000000", "4 0 4"),
        (earn("e", "3"), RefReused, "4 0 4"),
        (earn("e", "4", run="s"), RefReused, "4 0 4"),
        (earn("e", "4", platform="bluesky"), RefReused, "4 0 4"),
        (earn("f", "4", platform="bluesky"), "4.000000", "8 0 8"),
    ],
    "income stops at the cap over all platforms, to the last millionth": [
        (earn("e", "4"), "4.000000", "4 0 4"),
        (earn("f", "9", platform="bluesky"), "6.000000", "10 0 10"),
        (earn("f", "9", platform="bluesky"), "6.000000", "10 0 10"),
        (earn("g", "0.000001"), NOTHING, "10 0 10"),
        (earn("g", "0.000001", cap="10.000001"), "0.000001", "10.000001 0 10.000001"),
        (earn("h", "1", cap="0"), NOTHING, "10.000001 0 10.000001"),
    ],
    "what was offered in vain may be offered again": [
        (earn("e", "10"), "10.000000", "10 0 10"),
        (earn("f", "3"), NOTHING, "10 0 10"),
        (earn("f", "3", at=after(24 * 60 - 1)), NOTHING, "10 0 10"),
        (earn("f", "3", at=after(24 * 60)), "3.000000", "13 0 13"),
    ],
    "income dated in the future counts as now, and a correction makes no room": [
        (earn("e", "10", at=after(600)), "10.000000", "10 0 10"),
        (earn("f", "1"), NOTHING, "10 0 10"),
        (take_back("10", "e"), True, "0 0 0"),
        (earn("f", "1"), NOTHING, "0 0 0"),
    ],
    "deposits and revenue are no income of readers": [
        (deposit("10", "a", source="kofi"), True, "10 0 10"),
        (earn("e", "10"), "10.000000", "20 0 20"),
    ],
    "income is an amount of a platform that can be": [
        (earn("e", "0"), InvalidAmount, "0 0 0"),
        (earn("e", "-1"), InvalidAmount, "0 0 0"),
        (earn("e", "1", platform="a:b"), UnknownAccount, "0 0 0"),
        (earn("e", "1", platform=""), UnknownAccount, "0 0 0"),
    ],
    "the same ref from another source is another deposit": [
        (deposit("10", "a"), True, "10 0 10"),
        (deposit("10", "a", source="kofi"), True, "20 0 20"),
        (deposit("10", "a", source="stripe"), True, "30 0 30"),
        (deposit("10", "kofi:a"), True, "40 0 40"),
    ],
    "a hold's id stands for one hold": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4", run="r", attempt="1"), True, "10 4 6"),
        (hold("h", "5", run="r", attempt="1"), RefReused, "10 4 6"),
        (hold("h", "0", run="r", attempt="1"), RefReused, "10 4 6"),
        (hold("h", "4", run="s", attempt="1"), RefReused, "10 4 6"),
        (hold("h", "4", run="r", attempt="2"), RefReused, "10 4 6"),
        (hold("h", "4", run="r", attempt="1", account=OTHER), RefReused, "10 4 6"),
        (hold("deposit:a", "4"), RefReused, "10 4 6"),
    ],
    "no account can be called just anything": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "1", account="inference"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account="inference:"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account="inference:a b"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account="inference:a:b"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account="Inference:a"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account="petty cash"), UnknownAccount, "10 0 10"),
        (hold("h", "1", account=""), UnknownAccount, "10 0 10"),
        (deposit("1", "b", source="a:b"), UnknownAccount, "10 0 10"),
        (deposit("1", "b", source=""), UnknownAccount, "10 0 10"),
    ],
    "the treasury cannot owe itself": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "1", account="treasury"), BadTransfer, "10 0 10"),
    ],
    "only a hold can be settled or voided": [
        (deposit("10", "a"), True, "10 0 10"),
        (settle("h", "1"), UnknownHold, "10 0 10"),
        (void("h"), UnknownHold, "10 0 10"),
        (settle("deposit:a", "1"), UnknownHold, "10 0 10"),
        (void("deposit:a"), UnknownHold, "10 0 10"),
    ],
    "a settled hold cannot be settled for another amount": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "3"), NOTHING, "7 0 7"),
        (settle("h", "2"), AlreadyResolved, "7 0 7"),
        (settle("h", "0"), AlreadyResolved, "7 0 7"),
        (settle("h", "4"), AlreadyResolved, "7 0 7"),
        (settle("h", "5"), AlreadyResolved, "7 0 7"),
    ],
    "a hold settled in full takes no overrun afterwards": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "4"), NOTHING, "6 0 6"),
        (settle("h", "5"), AlreadyResolved, "6 0 6"),
    ],
    "a hold settled with an overrun keeps that overrun": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "5"), "1.000000", "5 0 5"),
        (settle("h", "6"), AlreadyResolved, "5 0 5"),
        (settle("h", "4"), AlreadyResolved, "5 0 5"),
    ],
    "a settled hold cannot be voided": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "3"), NOTHING, "7 0 7"),
        (void("h"), AlreadyResolved, "7 0 7"),
    ],
    "a voided hold cannot be settled": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (void("h"), None, "10 0 10"),
        (settle("h", "3"), AlreadyResolved, "10 0 10"),
        (settle("h", "0"), AlreadyResolved, "10 0 10"),
        (settle("h", "5"), AlreadyResolved, "10 0 10"),
    ],
    "a hold whose outcome stays unknown is settled in full as uncertain": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "4"), True, "10 4 6"),
        (settle("h", "4", code=Code.UNCERTAIN), NOTHING, "6 0 6"),
        (void("h"), AlreadyResolved, "6 0 6"),
    ],
    "a hold of zero passes on an empty ledger": [
        (hold("h", "0"), True, "0 0 0"),
        (hold("h", "0"), False, "0 0 0"),
        (settle("h", "0"), NOTHING, "0 0 0"),
        (hold("i", "0", limits=reserve("5")), True, "0 0 0"),
        (void("i"), None, "0 0 0"),
    ],
    "a hold of zero passes where every limit is reached and the balance is below zero": [
        (deposit("1", "a"), True, "1 0 1"),
        (hold("h", "1", run="r"), True, "1 1 0"),
        (settle("h", "2"), "1.000000", "-1 0 -1"),
        (hold("i", "0", run="r", limits=first_cap_of("1")), True, "-1 0 -1"),
        (hold("j", "0", limits=reserve("5")), True, "-1 0 -1"),
    ],
    "an amount that cannot be is refused": [
        (deposit("10", "a"), True, "10 0 10"),
        (deposit("0", "b"), InvalidAmount, "10 0 10"),
        (deposit("-1", "b"), InvalidAmount, "10 0 10"),
        (hold("h", "-0.000001"), InvalidAmount, "10 0 10"),
        (hold("h", "1"), True, "10 1 9"),
        (settle("h", "-0.000001"), InvalidAmount, "10 1 9"),
    ],
    "a reserve stays in the treasury": [
        (deposit("10", "a"), True, "10 0 10"),
        (hold("h", "8.000001", limits=reserve("2")), InsufficientFunds, "10 0 10"),
        (hold("h", "8", limits=reserve("2")), True, "10 8 2"),
        (hold("i", "0.000001", limits=reserve("2")), InsufficientFunds, "10 8 2"),
        (hold("i", "0.000001", limits=reserve("1")), True, "10 8.000001 1.999999"),
        (settle("h", "1"), NOTHING, "9 0.000001 8.999999"),
    ],
    "a cap on a run counts what the run settled and what it still holds": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", run="r", limits=cap("10", run="r")), True, "100 4 96"),
        (hold("i", "6.000001", run="r", limits=cap("10", run="r")), CapReached, "100 4 96"),
        (settle("h", "3"), NOTHING, "97 0 97"),
        (hold("i", "7.000001", run="r", limits=cap("10", run="r")), CapReached, "97 0 97"),
        (hold("i", "7", run="r", limits=cap("10", run="r")), True, "97 7 90"),
        (hold("j", "0.000001", run="r", limits=cap("10", run="r")), CapReached, "97 7 90"),
        (hold("k", "10", run="s", limits=cap("10", run="s")), True, "97 17 80"),
        (void("i"), None, "97 10 87"),
        (hold("j", "7", run="r", limits=cap("10", run="r")), True, "97 17 80"),
    ],
    "an overrun counts against its run": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", run="r"), True, "100 4 96"),
        (settle("h", "9"), "5.000000", "91 0 91"),
        (hold("i", "1.000001", run="r", limits=cap("10", run="r")), CapReached, "91 0 91"),
        (hold("i", "1", run="r", limits=cap("10", run="r")), True, "91 1 90"),
    ],
    "a rolling cap leaves out what was spent before its window": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", at=after(-60)), True, "100 4 96"),
        (settle("h", "4", at=after(-60)), NOTHING, "96 0 96"),
        (hold("i", "6", limits=cap("6", since=after(-30))), True, "96 6 90"),
        (hold("j", "0.000001", limits=cap("6", since=after(-30))), CapReached, "96 6 90"),
        (hold("j", "0.000001", limits=cap("10", since=after(-61))), CapReached, "96 6 90"),
    ],
    "an open hold counts in the window it was made in": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", at=after(-60)), True, "100 4 96"),
        (hold("i", "6.000001", limits=cap("10", since=after(-61))), CapReached, "100 4 96"),
        (hold("i", "10", limits=cap("10", since=after(-59))), True, "100 14 86"),
    ],
    "a settlement counts at its own time, not at its hold's": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", at=after(-60)), True, "100 4 96"),
        (settle("h", "3", at=after(-5)), NOTHING, "97 0 97"),
        (hold("i", "7.000001", limits=cap("10", since=after(-30))), CapReached, "97 0 97"),
        (hold("i", "7", limits=cap("10", since=after(-30))), True, "97 7 90"),
    ],
    "what is dated in the future counts as now, so a clock set back frees no cap": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "4", at=after(90 * 24 * 60)), True, "100 4 96"),
        (hold("i", "6.000001", limits=cap("10", since=after(-30))), CapReached, "100 4 96"),
        (settle("h", "3", at=after(90 * 24 * 60)), NOTHING, "97 0 97"),
        (hold("i", "7.000001", limits=cap("10", since=after(-30))), CapReached, "97 0 97"),
        (hold("i", "7", limits=cap("10", since=after(-30))), True, "97 7 90"),
    ],
    "a cap counts every provider and no income": [
        (deposit("100", "a"), True, "100 0 100"),
        (deposit("50", "b", source="kofi"), True, "150 0 150"),
        (hold("h", "4", account=OTHER), True, "150 4 146"),
        (hold("i", "6.000001", limits=cap("10", since=after(-1))), CapReached, "150 4 146"),
        (hold("i", "6", limits=cap("10", since=after(-1))), True, "150 10 140"),
    ],
    "the tightest of several caps decides": [
        (deposit("100", "a"), True, "100 0 100"),
        (hold("h", "5", run="r", limits=first_cap_of("9", "4", "7")), CapReached, "100 0 100"),
        (hold("h", "4", run="r", limits=first_cap_of("9", "4", "7")), True, "100 4 96"),
    ],
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_page_reads(book: Database, page: list[Line]) -> None:
    before = "0 0 0"
    for number, (verb, answer, expected) in enumerate(page, start=1):
        if isinstance(answer, type):
            assert expected == before, "the page itself is wrong: a refusal moves nothing"
            with pytest.raises(answer), book.write() as tx:
                verb(tx)
        else:
            with book.write() as tx:
                assert verb(tx) == answer, f"line {number}"
        assert balance(book) == tuple(f"{Decimal(n):.6f}" for n in expected.split()), (
            f"line {number}"
        )
        before = expected
    report = checked(book)
    assert report.problems == []


@pytest.mark.parametrize(
    "beyond",
    [
        lambda tx, amount: store.deposit(tx, amount=amount, ref="b", at=NOON),
        lambda tx, amount: store.hold(
            tx, id="i", account=MODEL, amount=amount, at=NOON, limits=NO_LIMITS
        ),
        lambda tx, amount: store.settle(tx, "h", actual=amount, at=NOON),
    ],
    ids=["deposit", "hold", "settle"],
)
def test_more_than_a_billion_credits_is_no_amount(
    book: Database, beyond: Callable[[Connection, MicroCredits], object]
) -> None:
    with book.write() as tx:
        deposit("1000000000", "a")(tx)
        hold("h", "1")(tx)
    with pytest.raises(InvalidAmount), book.write() as tx:
        beyond(tx, MicroCredits(MICRO_MAX + 1))


def test_a_refusal_in_a_transaction_that_goes_on_leaves_nothing_behind(book: Database) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
        hold("h", "4", run="r")(tx)
        for refused in (
            hold("i", "7"),
            hold("i", "6", limits=reserve("0.000001")),
            hold("i", "6", run="r", limits=cap("9.999999", run="r")),
            hold("i", "6", limits=cap("9.999999", since=after(-1))),
            hold("i", "1", account="petty cash"),
            deposit("11", "a"),
            settle("nobody", "1"),
        ):
            with pytest.raises(LedgerError):
                refused(tx)
        rows = len(list(store.entries(tx)))
    assert rows == 2
    assert balance(book) == ("10.000000", "4.000000", "6.000000")
    assert checked(book).ok


def test_the_limits_see_what_the_same_transaction_has_booked(book: Database) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
        assert hold("h", "6", run="r", limits=cap("9", run="r"))(tx) is True
        with pytest.raises(CapReached):
            hold("i", "3.000001", run="r", limits=cap("9", run="r"))(tx)
        with pytest.raises(InsufficientFunds):
            hold("i", "4.000001")(tx)


def test_a_refusal_carries_what_was_needed_and_what_there_was(book: Database) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
        with pytest.raises(InsufficientFunds) as funds:
            hold("h", "9", limits=reserve("2"))(tx)
        with pytest.raises(CapReached) as capped:
            hold("h", "9", run="r", limits=cap("1.5", run="r"))(tx)
    assert (funds.value.needed, funds.value.available) == (cr("9"), cr("8"))
    assert (capped.value.limit, capped.value.available) == ("the cap", cr("1.5"))
    assert "9.000000 needed, 1.500000 available" in str(capped.value)


@pytest.mark.parametrize(
    ("booked", "again", "said"),
    [
        (deposit("10", "a"), deposit("11", "a"), "a was booked before with another amount"),
        (hold("h", "4"), hold("h", "5"), "h was booked before with another amount"),
        (hold("h", "4"), hold("h", "4", run="r", account=OTHER),
         "h was booked before with another debit, run"),
    ],
)  # fmt: skip
def test_a_name_that_stands_for_something_else_is_told_with_what_differs(
    book: Database, booked: Verb, again: Verb, said: str
) -> None:
    with book.write() as tx:
        deposit("10", "funds")(tx)
        booked(tx)
        with pytest.raises(RefReused) as caught:
            again(tx)
    assert str(caught.value) == said


def test_a_refusal_never_offers_less_than_nothing(book: Database) -> None:
    with pytest.raises(InsufficientFunds) as refusal, book.write() as tx:
        hold("h", "1", limits=reserve("5"))(tx)
    assert refusal.value.available == ZERO


def test_what_a_failed_transaction_booked_is_gone(book: Database) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
        hold("h", "4")(tx)
    with pytest.raises(KeyboardInterrupt), book.write() as tx:
        deposit("1", "b")(tx)
        settle("h", "6")(tx)
        hold("i", "2")(tx)
        raise KeyboardInterrupt
    assert balance(book) == ("10.000000", "4.000000", "6.000000")
    with book.write() as tx:
        assert deposit("1", "b")(tx) is True
    assert checked(book).ok


def test_a_refused_repeat_of_a_settlement_leaves_nothing_behind_when_the_caller_goes_on(
    book: Database,
) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
        hold("h", "4")(tx)
        settle("h", "4")(tx)
        with pytest.raises(AlreadyResolved):
            settle("h", "5")(tx)
    assert balance(book) == ("6.000000", "0.000000", "6.000000")


def filled(tx: Connection) -> None:
    deposit("10", "a")(tx)
    deposit("2", "tip", source="kofi")(tx)
    hold("less", "4", run="r", attempt="r/1", at=after(1))(tx)
    settle("less", "1", at=after(2), memo="as billed")(tx)
    hold("void", "3", run="r", at=after(3))(tx)
    void("void")(tx)
    hold("over", "2", run="s", attempt="s/1", at=after(4), account=OTHER)(tx)
    settle("over", "2.5", at=after(5))(tx)
    hold("open", "5", run="s", at=after(6))(tx)


def test_entries_read_as_operators_expect_them(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        page = [
            (e.state, e.code, e.debit, e.credit, str(e.amount), e.run, e.ref)
            for e in store.entries(tx)
        ]
    treasury = "treasury"
    assert page == [
        ("posted", "deposit", treasury, "grants", "10.000000", None, "a"),
        ("posted", "revenue", treasury, "revenue:kofi", "2.000000", None, "tip"),
        ("settled", "inference", MODEL, treasury, "4.000000", "r", None),
        ("posted", "inference", MODEL, treasury, "1.000000", "r", "less"),
        ("voided", "inference", MODEL, treasury, "3.000000", "r", None),
        ("settled", "inference", OTHER, treasury, "2.000000", "s", None),
        ("posted", "inference", OTHER, treasury, "2.000000", "s", "over"),
        ("posted", "overrun", OTHER, treasury, "0.500000", "s", "over"),
        ("pending", "inference", MODEL, treasury, "5.000000", "s", None),
    ]


def test_an_entry_keeps_its_time_attempt_and_memo(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        by_id = {entry.id: entry for entry in store.entries(tx)}
        settled = next(entry for entry in by_id.values() if entry.ref == "less")
    assert by_id["less"].at == after(1)
    assert settled.at == after(2)
    assert by_id["less"].attempt == settled.attempt == "r/1"
    assert settled.memo == "as billed"


def test_entries_can_be_cut_to_the_newest_and_stay_oldest_first(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        everything = list(store.entries(tx))
        assert list(store.entries(tx, limit=3)) == everything[-3:]
        assert list(store.entries(tx, limit=100)) == everything
        assert list(store.entries(tx, limit=0)) == []


def test_entries_since_a_moment_include_that_moment(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        late = [entry.at for entry in store.entries(tx, since=after(4))]
        last = [entry.id for entry in store.entries(tx, since=after(1), limit=1)]
    assert late == [after(4), after(5), after(5), after(6)]
    assert last == ["open"]


def test_balances_are_positive_on_each_account_s_own_side(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        page = [(a.name, a.kind, str(a.balance)) for a in store.account_balances(tx)]
    assert page == [
        ("grants", AccountKind.EQUITY, "10.000000"),
        (OTHER, AccountKind.EXPENSE, "2.500000"),
        (MODEL, AccountKind.EXPENSE, "1.000000"),
        ("revenue:kofi", AccountKind.INCOME, "2.000000"),
        ("treasury", AccountKind.ASSET, "8.500000"),
    ]


def test_spent_and_earned_tell_a_run_and_a_window_apart(book: Database) -> None:
    with book.write() as tx:
        filled(tx)
        assert store.spent(tx, run="r") == cr("1")
        assert store.spent(tx, run="s") == cr("7.5")
        assert store.spent(tx, run="nobody") == ZERO
        assert store.spent(tx, since=after(-1)) == cr("8.5")
        assert store.spent(tx, since=after(5)) == cr("5")
        assert store.earned(tx, since=after(-1), family="revenue") == cr("2")
        assert store.earned(tx, since=after(0), family="revenue") == ZERO
        assert store.earned(tx, since=after(-1), family="engagement") == ZERO


def test_what_went_back_lowers_the_revenue_of_its_time_and_the_books_balance(
    book: Database,
) -> None:
    with book.write() as tx:
        filled(tx)
        store.refund(tx, amount=cr("5"), ref="tip back", at=after(3), source="kofi", memo="no")
        entry = store.entry(tx, "revenue:kofi:tip back")
        assert store.account_balance(tx, "revenue:kofi") == cr("-3")
        assert store.earned(tx, since=after(-1), family="revenue") == cr("-3")
        assert store.earned(tx, since=after(1), family="revenue") == cr("-5")
        assert store.earned(tx, since=after(3), family="revenue") == ZERO
        assert store.earned_by_run(tx) == {}
    assert entry is not None
    assert (entry.state, entry.code, entry.debit, entry.credit, str(entry.amount), entry.memo) == (
        "posted", "revenue", "revenue:kofi", "treasury", "5.000000", "no",
    )  # fmt: skip
    assert checked(book).ok


def test_a_refund_booked_by_mistake_can_be_corrected_in_full_and_no_further(
    book: Database,
) -> None:
    with book.write() as tx:
        store.refund(tx, amount=cr("5"), ref="x", at=NOON, source="kofi")
        wrong = "revenue:kofi:x"
        assert store.adjust(tx, amount=cr("5"), ref="all", memo="m", at=NOON, corrects=wrong)
        assert store.account_balance(tx, "revenue:kofi") == ZERO
        with pytest.raises(InvalidAmount):
            store.adjust(tx, amount=MicroCredits(1), ref="one", memo="m", at=NOON, corrects=wrong)
    assert checked(book).ok


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("treasury", AccountKind.ASSET),
        ("grants", AccountKind.EQUITY),
        ("adjustments", AccountKind.EQUITY),
        ("engagement:devto", AccountKind.INCOME),
        ("revenue:ko-fi.com", AccountKind.INCOME),
        ("inference:" + "a" * 64, AccountKind.EXPENSE),
    ],
)
def test_an_account_s_kind_is_told_from_its_name(name: str, kind: AccountKind) -> None:
    assert kind_of(name) is kind


@pytest.mark.parametrize(
    "name",
    ["", "Treasury", "treasury:x", "engagement", "inference:" + "a" * 65, "inference:a\n", "x:y"],
)
def test_no_other_account_exists(name: str) -> None:
    with pytest.raises(UnknownAccount):
        kind_of(name)


def test_a_time_without_a_zone_is_refused(book: Database) -> None:
    with pytest.raises(RAISES), book.write() as tx:
        store.deposit(tx, amount=cr("1"), ref="a", at=NOON.replace(tzinfo=None))
    assert checked(book).transfers == 0


def test_a_time_in_another_zone_is_kept_as_the_same_moment_in_utc(book: Database) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-11)))
    with book.write() as tx:
        store.deposit(tx, amount=cr("1"), ref="a", at=elsewhere)
        stored = tx.exec_driver_sql("SELECT at FROM transfer").scalar_one()
        assert [entry.at for entry in store.entries(tx)] == [NOON]
    assert stored == "2026-03-01T12:00:00.000000Z"
    assert checked(book).ok


def test_the_chain_is_made_as_documented(book: Database) -> None:
    # Spelled out, so that a change that would break every book in the field fails here.
    first = (
        '["' + "0" * 64 + '",1,"deposit:a","2026-03-01T12:00:00.000000Z","post","treasury",'
        '"grants",10000000,"deposit",null,null,null,"a","für März"]'
    )
    first_hash = hashlib.sha256(first.encode()).hexdigest()
    second = (
        f'["{first_hash}",2,"h","2026-03-01T12:00:00.000000Z","hold","inference:openrouter",'
        '"treasury",4000000,"inference",null,"r","r/1",null,null]'
    )
    with book.write() as tx:
        store.deposit(tx, amount=cr("10"), ref="a", at=NOON, memo="für März")
        hold("h", "4", run="r", attempt="r/1")(tx)
        hashes = tx.exec_driver_sql("SELECT hash FROM transfer ORDER BY seq").scalars().all()
    assert hashes == [first_hash, hashlib.sha256(second.encode()).hexdigest()]


REST = (
    "at, action, debit, credit, 1, code, hold_id, run, attempt, ref, memo, hash, corrects"
    " FROM transfer"
)
REWRITES = {
    "update": "UPDATE transfer SET amount_micro = 1 WHERE seq = 1",
    "update or replace": "UPDATE OR REPLACE transfer SET seq = 1 WHERE seq = 2",
    "delete": "DELETE FROM transfer WHERE seq = 2",
    "replace by seq": f"INSERT OR REPLACE INTO transfer SELECT seq, 'new', {REST} WHERE seq = 1",
    "replace by id": f"REPLACE INTO transfer SELECT 99, id, {REST} WHERE seq = 1",
    "replace by hold": f"REPLACE INTO transfer SELECT 99, 'new', {REST} WHERE action = 'settle'",
    "delete account": "DELETE FROM account WHERE name = 'grants'",
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
@pytest.mark.parametrize("through", ["penstock", "sqlite3"])
def test_what_is_booked_cannot_be_rewritten(tmp_path: Path, rewrite: str, through: str) -> None:
    path = tmp_path / "books.db"
    with new_book(path) as book:
        with book.write() as tx:
            filled(tx)
            before = tx.exec_driver_sql("SELECT * FROM transfer").all()
        if through == "penstock":
            with pytest.raises(DBAPIError, match=r"append-only|kept for ever"), book.write() as tx:
                tx.exec_driver_sql(rewrite)
        else:
            stranger = sqlite3.connect(path)
            with pytest.raises(sqlite3.IntegrityError, match=r"append-only|kept for ever"):
                stranger.execute(rewrite)
            stranger.close()
        with book.read() as tx:
            assert tx.exec_driver_sql("SELECT * FROM transfer").all() == before
        assert checked(book).ok


@pytest.mark.parametrize("value", ["1.5", "'x'", "-1", "NULL"])
def test_the_table_itself_refuses_what_is_no_amount(book: Database, value: str) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
    with pytest.raises(DBAPIError), book.write() as tx:
        tx.exec_driver_sql(
            f"INSERT INTO transfer SELECT 2, 'b', at, action, debit, credit, {value}, code,"
            " hold_id, run, attempt, ref, memo, hash, corrects FROM transfer"
        )
    assert checked(book).ok


def test_every_connection_gets_the_pragmas_that_money_needs(book: Database) -> None:
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "application_id": 0x50454E53,
    }
    with book.write() as writer, book.read() as reader:
        for connection in (writer, reader):
            have = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted
            }
            assert have == wanted


def test_a_reader_sees_one_moment_while_others_write(book: Database) -> None:
    with book.write() as tx:
        deposit("10", "a")(tx)
    with book.read() as tx:
        before = store.balance(tx)
        with book.write() as other:
            deposit("5", "b")(other)
        assert store.balance(tx) == before
    assert balance(book)[0] == "15.000000"


def test_the_books_survive_being_closed(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db") as book, book.write() as tx:
        filled(tx)
    again = open_book(tmp_path / "books.db")
    try:
        assert balance(again) == ("8.500000", "5.000000", "3.500000")
        assert checked(again).ok
    finally:
        again.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://penstock:hunter2@db/books",
        "sqlite://",
        "sqlite:///:memory:",
        "not a url",
        "",
    ],
)
def test_a_url_that_names_no_sqlite_file_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        sqlite_path(url)
    assert "hunter2" not in str(refusal.value)


def test_a_url_names_its_file() -> None:
    assert sqlite_path("sqlite:////var/lib/penstock/books.db") == Path("/var/lib/penstock/books.db")


def test_sixty_four_threads_with_funds_for_three_get_three(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db", grant="3.5") as book:
        attempts = race(book, [f"caller-{n}" for n in range(64)], "1")
        outcomes = [attempt.outcome for attempt in attempts]
        assert sorted(set(outcomes)) == ["held", "refused"]
        assert outcomes.count("held") == 3
        with book.read() as tx:
            won = {entry.id for entry in store.entries(tx) if entry.state == "pending"}
        assert won == {attempt.id for attempt in attempts if attempt.outcome == "held"}
        assert balance(book) == ("3.500000", "3.000000", "0.500000")
        assert checked(book).problems == []


def test_eight_processes_of_eight_callers_with_funds_for_three_get_three(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    spawn = multiprocessing.get_context("spawn")
    with new_book(path, grant="3.5") as book:
        with ProcessPoolExecutor(
            8, mp_context=spawn, initializer=take_barrier, initargs=(spawn.Barrier(8),)
        ) as pool:
            racing = [
                pool.submit(race_in_process, path, [f"caller-{p}-{n}" for n in range(8)], "1")
                for p in range(8)
            ]
            attempts = [attempt for process in racing for attempt in process.result(timeout=120)]
        assert len(attempts) == 64
        outcomes = [attempt.outcome for attempt in attempts]
        assert sorted(set(outcomes)) == ["held", "refused"]
        assert outcomes.count("held") == 3
        assert balance(book) == ("3.500000", "3.000000", "0.500000")
        assert checked(book).problems == []


def test_one_hold_offered_by_sixty_four_threads_is_made_once(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db", grant="10") as book:
        attempts = race(book, ["the-same"] * 64, "1")
        assert {attempt.outcome for attempt in attempts} == {"held"}
        assert balance(book) == ("10.000000", "1.000000", "9.000000")
        assert checked(book).ok
