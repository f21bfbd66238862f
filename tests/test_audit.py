"""The audit finds what was done behind the books' back, and a failing file has a name."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from ledger import audit, store
from ledger.audit import PROBLEMS_MAX
from ledger.database import Database, translated
from ledger.errors import (
    LedgerError,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageReadOnly,
)
from tests.cli_helpers import NOBODY
from tests.ledger_helpers import (
    MODEL,
    NO_LIMITS,
    after,
    balance,
    checked,
    cr,
    new_book,
    open_book,
    tamper,
)


def hold(tx: Connection, id: str, amount: str, minute: float) -> None:
    store.hold(
        tx,
        id=id,
        account=MODEL,
        amount=cr(amount),
        at=after(minute),
        limits=NO_LIMITS,
        run="r",
        attempt=f"{id}/1",
    )


def fill(tx: Connection) -> None:
    """Eight transfers of every kind; 3 to 4 and 5 to 6 are a hold and its end."""
    store.deposit(tx, amount=cr("100"), ref="a", at=after(0), memo="thanks")
    store.deposit(tx, amount=cr("20"), ref="b", at=after(1), source="kofi")
    hold(tx, "settled", "4", 2)
    store.settle(tx, "settled", actual=cr("1"), at=after(3))
    hold(tx, "voided", "4", 4)
    store.void(tx, "voided", at=after(5))
    hold(tx, "open", "8", 6)
    store.deposit(tx, amount=cr("5"), ref="c", at=after(7))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "books.db"
    with new_book(path) as book, book.write() as tx:
        fill(tx)
    return path


def problems(path: Path) -> str:
    """Everything a check says of a file, however it says it; empty when all is well."""
    book = open_book(path)
    try:
        return "\n".join(checked(book).problems)
    finally:
        book.close()


def test_a_good_book_of_hundreds_of_transfers_is_ok(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db", grant="1000") as book:
        with book.write() as tx:
            for n in range(150):
                hold(tx, f"h{n}", "2", n)
                if n % 3 == 0:
                    store.void(tx, f"h{n}", at=after(n))
                elif n % 3 == 1:
                    store.settle(tx, f"h{n}", actual=cr("2.5"), at=after(n))
        report = checked(book)
    assert report.problems == []
    assert report.ok
    assert (report.transfers, report.accounts) == (1 + 150 + 50 + 100, 3)


def test_an_empty_book_is_ok(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db") as book:
        report = checked(book)
    assert (report.ok, report.transfers, report.accounts) == (True, 0, 0)


EDITS = {
    "amount": (1, "amount_micro = amount_micro + 1"),
    "amount of a hold": (7, "amount_micro = 1"),
    "amount of a settlement": (4, "amount_micro = 1"),
    "time": (2, "at = '2026-03-02T12:00:00.000000Z'"),
    "time, by a microsecond": (2, "at = '2026-03-01T12:01:00.000001Z'"),
    "time, to no time": (2, "at = 'yesterday'"),
    "time, to one without a zone": (2, "at = '2026-03-01T12:01:00.000000'"),
    "time, spelled so that it sorts elsewhere": (2, "at = '20260301T120100Z'"),
    "action": (3, "action = 'post'"),
    "debit": (3, "debit = 'grants'"),
    "credit": (1, "credit = 'revenue:kofi'"),
    "code": (4, "code = 'uncertain'"),
    "run": (3, "run = 's'"),
    "run, taken off": (3, "run = NULL"),
    "attempt": (3, "attempt = 'settled/2'"),
    "ref": (1, "ref = 'z'"),
    "memo": (1, "memo = 'thank you'"),
    "memo, added": (8, "memo = ''"),
    "id": (1, "id = 'deposit:z'"),
    "which hold it ends": (6, "hold_id = 'open'"),
    "hash": (5, "hash = replace(hash, substr(hash, 1, 1), 'x')"),
}


@pytest.mark.parametrize(("seq", "edit"), EDITS.values(), ids=EDITS)
def test_an_edited_row_is_found_and_named(path: Path, seq: int, edit: str) -> None:
    tamper(path, f"UPDATE transfer SET {edit} WHERE seq = {seq}")
    found = problems(path)
    assert found_of(found, seq)
    # The row after an edited hash differs too; all others are as they were.
    for other in set(range(1, 9)) - {seq, seq + 1}:
        assert "was changed" not in found_of(found, other)


def found_of(found: str, seq: int) -> str:
    return "\n".join(line for line in found.splitlines() if f"transfer {seq} (" in line)


def test_an_edit_that_keeps_the_sums_is_found_by_the_chain(path: Path) -> None:
    tamper(
        path,
        "UPDATE transfer SET amount_micro = amount_micro + 1000000 WHERE seq = 1",
        "UPDATE transfer SET amount_micro = amount_micro - 1000000 WHERE seq = 8",
    )
    found = problems(path)
    assert "transfer 1 (deposit:a) was changed after it was booked" in found
    assert "transfer 8 (deposit:c) was changed after it was booked" in found
    assert "add up" not in found


@pytest.mark.parametrize("seq", range(1, 9))
def test_a_deleted_row_is_found(path: Path, seq: int) -> None:
    tamper(path, f"DELETE FROM transfer WHERE seq = {seq}")
    found = problems(path)
    if seq < 8:
        assert f"transfers {seq} to {seq} are missing" in found
    else:
        assert "the account treasury says" in found


def test_a_deleted_stretch_is_told_from_first_to_last(path: Path) -> None:
    tamper(path, "DELETE FROM transfer WHERE seq BETWEEN 3 AND 6")
    assert "transfers 3 to 6 are missing" in problems(path)


def test_a_deleted_row_whose_neighbours_closed_the_gap_is_found(path: Path) -> None:
    tamper(
        path,
        "DELETE FROM transfer WHERE seq = 2",
        *(f"UPDATE transfer SET seq = {n - 1} WHERE seq = {n}" for n in range(3, 9)),
    )
    assert "transfer 2 (settled) was changed" in problems(path)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 4), (3, 7), (7, 8)])
def test_a_swapped_order_is_found(path: Path, one: int, other: int) -> None:
    tamper(
        path,
        f"UPDATE transfer SET seq = -1 WHERE seq = {one}",
        f"UPDATE transfer SET seq = {one} WHERE seq = {other}",
        f"UPDATE transfer SET seq = {other} WHERE seq = -1",
    )
    found = problems(path)
    assert "was changed" in found_of(found, one)
    assert "was changed" in found_of(found, other)


ACCOUNTS = {
    "debits posted": "debits_posted_micro = debits_posted_micro + 1",
    "credits posted": "credits_posted_micro = credits_posted_micro + 1",
    "debits pending": "debits_pending_micro = debits_pending_micro + 1",
    "credits pending": "credits_pending_micro = credits_pending_micro + 1",
    "both sides alike": "debits_posted_micro = debits_posted_micro + 5,"
    " credits_posted_micro = credits_posted_micro + 5",
    "kind": "kind = 'income'",
}


@pytest.mark.parametrize("account", ["treasury", "grants", "revenue:kofi", MODEL])
@pytest.mark.parametrize("edit", ACCOUNTS.values(), ids=ACCOUNTS)
def test_an_edited_account_is_found_and_named(path: Path, account: str, edit: str) -> None:
    if account == "revenue:kofi" and edit == ACCOUNTS["kind"]:
        edit = "kind = 'asset'"
    tamper(path, f"UPDATE account SET {edit} WHERE name = '{account}'")
    assert account in problems(path)


def test_money_moved_between_two_accounts_by_hand_is_found(path: Path) -> None:
    tamper(
        path,
        "UPDATE account SET credits_posted_micro = credits_posted_micro - 7 WHERE name = 'grants'",
        "UPDATE account SET credits_posted_micro = credits_posted_micro + 7"
        " WHERE name = 'revenue:kofi'",
    )
    found = problems(path)
    assert "the account grants says" in found
    assert "the account revenue:kofi says" in found


def test_a_deleted_account_is_found(path: Path) -> None:
    tamper(path, "DELETE FROM account WHERE name = 'grants'")
    found = problems(path)
    assert "points at a account that is not there" in found
    assert "the account grants says" in found


@pytest.mark.parametrize("sums", ["1, 0, 0, 0", "0, 0, 0, 0"])
def test_an_account_that_cannot_be_is_found(path: Path, sums: str) -> None:
    tamper(path, f"INSERT INTO account VALUES ('petty cash', 'asset', {sums})")
    assert "petty cash" in problems(path)


def test_a_check_names_a_readable_number_of_problems(tmp_path: Path) -> None:
    with new_book(tmp_path / "books.db") as book:
        with book.write() as tx:
            for n in range(100):
                store.deposit(tx, amount=cr("1"), ref=str(n), at=after(n))
        tamper(tmp_path / "books.db", "UPDATE transfer SET memo = 'x'")
        report = checked(book)
    assert not report.ok
    assert len(report.problems) == PROBLEMS_MAX
    assert report.transfers == 100


SEALED = (
    "seq", "id", "at", "action", "debit", "credit", "amount_micro", "code", "hold_id", "run",
    "attempt", "ref", "memo",
)  # fmt: skip


def forge(path: Path, *statements: str, **columns: Any) -> None:
    """Append a row as a careful thief would: its hash is sound, and sums can be made to match."""
    with closing(sqlite3.connect(path)) as file, file:
        file.row_factory = sqlite3.Row
        last = file.execute("SELECT * FROM transfer ORDER BY seq DESC LIMIT 1").fetchone()
        row = dict(last) | columns | {"seq": last["seq"] + 1}
        sealed = [last["hash"], *(row[name] for name in SEALED)]
        canonical = json.dumps(sealed, ensure_ascii=False, separators=(",", ":"))
        row["hash"] = hashlib.sha256(canonical.encode()).hexdigest()
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        file.execute(f"INSERT INTO transfer ({names}) VALUES ({marks})", row)
        for statement in statements:
            assert file.execute(statement).rowcount == 1


def moved(account: str, **micro: int) -> str:
    sums = ", ".join(f"{name}_micro = {name}_micro + {by}" for name, by in micro.items())
    return f"UPDATE account SET {sums} WHERE name = '{account}'"


def in_its_hour(account: str, **micro: int) -> str:
    sums = ", ".join(f"{name}_micro = {name}_micro + {by}" for name, by in micro.items())
    return f"UPDATE account_hour SET {sums} WHERE account = '{account}'"


def test_a_forged_row_that_matches_its_sums_looks_booked(path: Path) -> None:
    # The forger of the tests below is sound: what they find is the one thing each of them does.
    forge(
        path,
        moved("treasury", debits_posted=1),
        moved("grants", credits_posted=1),
        in_its_hour("grants", credits=1),
        id="deposit:forged",
        amount_micro=1,
    )
    assert problems(path) == ""


def test_a_forged_row_with_a_sound_hash_still_does_not_add_up(path: Path) -> None:
    forge(path, id="deposit:forged", amount_micro=1)
    found = problems(path)
    assert "the account treasury says" in found
    assert "the account grants says" in found


def test_a_settlement_of_more_than_was_held_is_found(path: Path) -> None:
    forge(
        path,
        moved(MODEL, debits_posted=9_000_000, debits_pending=-8_000_000),
        moved("treasury", credits_posted=9_000_000, credits_pending=-8_000_000),
        in_its_hour(MODEL, debits=9_000_000),
        "DELETE FROM open_hold WHERE id = 'open'",
        id="open:settle",
        action="settle",
        hold_id="open",
        debit=MODEL,
        credit="treasury",
        amount_micro=9_000_000,
    )
    assert problems(path) == "transfer 9 (open:settle) settles more than was held"


def test_spending_that_no_hold_covered_is_found(path: Path) -> None:
    forge(
        path,
        moved(MODEL, debits_posted=125_000_000),
        moved("treasury", credits_posted=125_000_000),
        in_its_hour(MODEL, debits=125_000_000),
        id="spree",
        debit=MODEL,
        credit="treasury",
        code="inference",
        amount_micro=125_000_000,
    )
    assert (
        problems(path) == "the treasury is overdrawn by more than overruns and corrections explain"
    )


def test_an_overrun_explains_an_overdrawn_treasury(path: Path) -> None:
    book = open_book(path)
    try:
        with book.write() as tx:
            store.settle(tx, "open", actual=cr("500"), at=after(9))
        assert balance(book) == ("-376.000000", "0.000000", "-376.000000")
        assert checked(book).problems == []
    finally:
        book.close()


def without_constraints(path: Path) -> None:
    """The same rows in a table that forgot what must be unique."""
    tamper(path, "CREATE TABLE bare AS SELECT * FROM transfer")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DROP TABLE transfer")
        file.execute("ALTER TABLE bare RENAME TO transfer")


def test_a_hold_that_ended_twice_is_found(path: Path) -> None:
    without_constraints(path)
    forge(
        path,
        id="settled:void",
        action="void",
        hold_id="settled",
        debit=MODEL,
        credit="treasury",
        amount_micro=0,
    )
    assert "(settled:void) ends settled, which is no open hold by then" in problems(path)


def test_the_end_of_a_hold_nobody_made_is_found(path: Path) -> None:
    without_constraints(path)
    forge(path, id="x:void", action="void", hold_id="x", amount_micro=0)
    assert "transfer 9 (x:void) ends x, which is no open hold by then" in problems(path)


@pytest.mark.parametrize(
    ("column", "value"), [("action", "gift"), ("debit", "petty cash"), ("credit", "petty cash")]
)
def test_a_row_the_rules_do_not_know_is_found(path: Path, column: str, value: str) -> None:
    without_constraints(path)
    forge(path, id="odd", **{column: value})
    assert found_of(problems(path), 9).count("petty cash" if value != "gift" else "gift") == 1


def refused_or_reported(path: Path) -> bool:
    """Whether damage is told in one of the two ways an operator can act on."""
    try:
        return problems(path) != ""
    except StorageCorrupt:
        return True


@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5, 0.3, 0.1])
def test_a_truncated_file_is_no_sound_book(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert refused_or_reported(path)


def test_a_file_that_lost_its_last_page_is_no_sound_book(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])
    assert refused_or_reported(path)


def test_an_index_that_lost_sight_of_a_row_is_found(path: Path) -> None:
    # Left unseen, the id could be booked a second time: what looks for it looks here.
    with closing(sqlite3.connect(path)) as file:
        (root,) = file.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_transfer_1'"
        ).fetchone()
        (page,) = file.execute("PRAGMA page_size").fetchone()
    content = path.read_bytes()
    start = (root - 1) * page
    index = content[start : start + page]
    assert index.count(b"open") == 1
    path.write_bytes(content[:start] + index.replace(b"open", b"opex") + content[start + page :])
    assert refused_or_reported(path)


@pytest.mark.parametrize("keep", [50, 99, 100, 512, 4096])
def test_a_file_that_kept_only_its_beginning_is_no_sound_book(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    assert refused_or_reported(path)


def test_a_page_overwritten_anywhere_is_found(path: Path) -> None:
    content = path.read_bytes()
    page = int.from_bytes(content[16:18], "big")
    assert len(content) // page > 4
    for start in range(page, len(content), page):
        path.write_bytes(content[:start] + b"\xa5" * page + content[start + page :])
        assert refused_or_reported(path), f"page {start // page + 1}"


@pytest.mark.parametrize(
    "content",
    [b"Dear diary,", b"Dear diary,\n" * 400, b"SQLite format 3\0" + b"\xff" * 4080, b"\0" * 4096],
    ids=["a letter", "a diary", "a header and garbage", "zeros"],
)
def test_what_is_no_database_is_called_corrupt_and_left_as_it_was(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "books.db"
    path.write_bytes(content)
    book = open_book(path)
    try:
        for begin in (book.read, book.write):
            with pytest.raises(StorageCorrupt, match="restore the last checked backup"), begin():
                pass
    finally:
        book.close()
    assert path.read_bytes() == content


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so root steps down for a while; others stay who they are."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode"),
    [(0o777, 0o444), (0o555, 0o444), (0o555, 0o666)],
    ids=["the file", "the file and its folder", "the folder"],
)
def test_where_nothing_can_be_written_the_error_says_read_only(
    folder_mode: int, file_mode: int
) -> None:
    # Not in tmp_path, whose parents are closed to whom root steps down to.
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "books.db"
        with new_book(path) as book, book.write() as tx:
            fill(tx)
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        book = open_book(path)
        try:
            with unprivileged():
                with pytest.raises(StorageReadOnly, match="writable for the user"):
                    book_a_deposit(book, "late")
                book.close()
        finally:
            folder.chmod(0o777)
            path.chmod(0o666)
            book.close()
        assert problems(path) == ""
        book = open_book(path)
        book_a_deposit(book, "late")
        book.close()


def book_a_deposit(book: Database, ref: str, memo: str | None = None) -> None:
    with book.write() as tx:
        store.deposit(tx, amount=cr("1"), ref=ref, at=after(0), memo=memo)


def test_a_file_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    book = open_book(tmp_path / "nowhere" / "books.db")
    with pytest.raises(StorageReadOnly, match="nowhere"):
        book_a_deposit(book, "a")
    book.close()


def test_a_second_writer_is_told_at_once_that_the_books_are_busy(path: Path) -> None:
    first, second = open_book(path), open_book(path, busy_timeout_ms=0)
    try:
        with first.write() as tx:
            store.deposit(tx, amount=cr("1"), ref="first", at=after(8))
            with pytest.raises(StorageBusy, match="try again"):
                book_a_deposit(second, "second")
            # A reader is in nobody's way, and sees only what was committed.
            assert balance(second)[0] == "124.000000"
        book_a_deposit(second, "second")
        assert balance(second)[0] == "126.000000"
        assert checked(second).ok
    finally:
        first.close()
        second.close()


def test_a_second_writer_that_waits_gets_its_turn(path: Path) -> None:
    book = open_book(path)
    try:
        with book.write() as tx:
            waiting = threading.Thread(target=book_a_deposit, args=(book, "second"))
            waiting.start()
            store.deposit(tx, amount=cr("1"), ref="first", at=after(8))
        waiting.join()
        assert balance(book)[0] == "126.000000"
        assert checked(book).ok
    finally:
        book.close()


@contextmanager
def no_more_pages(book: Database) -> Iterator[None]:
    """A disk without room, as far as SQLite can tell; the book keeps its one connection."""
    with book.write() as tx:
        pages = tx.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    yield
    with book.write() as tx:
        tx.exec_driver_sql("PRAGMA max_page_count = 1073741823")


@contextmanager
def no_larger_files(book: Database) -> Iterator[None]:
    """The operating system refuses to let a file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = Path(f"{book.path}-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TROUBLE: dict[str, tuple[Callable[[Database], Any], type[LedgerError]]] = {
    "a full disk": (no_more_pages, StorageFull),
    "a file that cannot grow": (no_larger_files, StorageError),
}


@pytest.mark.parametrize(("trouble", "error"), TROUBLE.values(), ids=TROUBLE)
def test_a_disk_in_trouble_half_books_nothing(
    path: Path, trouble: Callable[[Database], Any], error: type[LedgerError]
) -> None:
    book = open_book(path)
    try:
        book_a_deposit(book, "before")
        before = balance(book)
        with trouble(book):
            with pytest.raises(error), book.write() as tx:
                store.deposit(tx, amount=cr("1"), ref="small", at=after(8))
                store.settle(tx, "open", actual=cr("3"), at=after(8))
                store.deposit(tx, amount=cr("1"), ref="large", at=after(8), memo="x" * 500_000)
            assert balance(book) == before
            assert checked(book).problems == []
        with book.write() as tx:
            assert store.deposit(tx, amount=cr("1"), ref="small", at=after(8)) is True
            store.settle(tx, "open", actual=cr("3"), at=after(8))
        assert balance(book) == ("123.000000", "0.000000", "123.000000")
        assert checked(book).problems == []
    finally:
        book.close()


def test_a_full_disk_fills_while_booking_and_keeps_what_was_committed(path: Path) -> None:
    book = open_book(path)
    try:
        booked = 0
        with no_more_pages(book):
            with pytest.raises(StorageFull, match="nothing was half-booked"):
                while booked < 1_000:
                    book_a_deposit(book, f"n{booked}", memo="x" * 500)
                    booked += 1
            assert checked(book).transfers == 8 + booked
            assert checked(book).problems == []
        book_a_deposit(book, f"n{booked}", memo="x" * 500)
        assert checked(book).transfers == 8 + booked + 1
    finally:
        book.close()


def test_a_connection_that_cannot_be_rolled_back_is_used_no_more(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = open_book(path)
    before = balance(book)

    def no_way_back(action: int, what: str | None, *_: object) -> int:
        ends = action == sqlite3.SQLITE_TRANSACTION and what == "ROLLBACK"
        return sqlite3.SQLITE_DENY if ends else sqlite3.SQLITE_OK

    try:
        with pytest.raises(DatabaseError, match="not authorized"), book.write() as tx:
            store.deposit(tx, amount=cr("1"), ref="lost", at=after(8))
            driver: Any = tx.connection.dbapi_connection
            driver.set_authorizer(no_way_back)
            raise ZeroDivisionError
        assert caplog.messages == []
        assert balance(book) == before
        book_a_deposit(book, "later")
        assert checked(book).problems == []
    finally:
        book.close()


def test_an_error_that_is_not_the_storage_s_is_not_called_so(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), translated(path):
        _ = 1 // 0


def test_a_report_is_ok_until_something_is_noted() -> None:
    report = audit.Report()
    assert report.ok
    report.note("a problem")
    assert not report.ok
