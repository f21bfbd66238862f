"""What is exported is recomputed by the real beancount and hledger, to the last millionth."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from beancount import loader
from beancount.core import data
from beancount.core.account import is_valid
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from ledger import export, posting, store
from ledger.database import Database
from ledger.export import FORMATS, Format
from ledger.rules import TREASURY, AccountKind, Code
from tests.ledger_helpers import MODEL, NO_LIMITS, NOON, cr, new_book, tamper

BEAN_CHECK = str(Path(sys.executable).parent / "bean-check")
# Names that a careless mapping would make one.
MEMBERS = ("a-b", "a.b", "A-b", "a_b", "A.B", "x-a-b", "-a", "a-", "4o", "L" * 64, "l" * 64)
NASTY = (
    "", '"', "\\", '\\"', "\n", "\r\n", "\0", "\x1b[2J", "\t", ";", "; ", ",", ":", "date:x",
    ", date:2020-01-01", "date2:2020-02-02", "[2020-01-01]", "[2020-99-99]", "%", "%2C", "%n", " ",
    "  ", "a  b", "{", "}", "|", "#tag", "^link", "'", "=1+1", "@SUM(A1)", "-2", " +3", "\t=1",
    "＝1", "\u202e", "\u2028", "\x85", "\xa0", "\ufeff", "אב", "👨‍👩‍👧", "é", "e\u0301", "\ufffe",
    "\U0010ffff", "line\n" * 70, '\n2026-03-01 open Assets:Thief CREDIT\n', "\ninclude secrets\n",
    '\noption "title" "mine"\n', '"\n  Assets:Treasury  1.000000 CREDIT', "\nend comment\n",
    "\n    assets:treasury  1.000000 CREDIT\n", "\ncomment\n", "\nalias assets=liabilities\n",
)  # fmt: skip
foreign_texts = (
    st.sampled_from(NASTY)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.lists(st.sampled_from(NASTY), max_size=4).map("".join)
)
Postings = dict[str, int]


@dataclass(frozen=True)
class Case:
    """A book, and what the store says of every account: micro-credits, debits positive."""

    name: str
    book: Database
    balances: Postings
    entries: Sequence[store.Entry]

    def write(self, format: Format, folder: Path) -> Path:
        with self.book.read() as tx:
            return exported(tx, format, folder)

    def count(self, state: str) -> int:
        return sum(entry.state == state for entry in self.entries)


def exported(tx: Connection, format: Format, folder: Path) -> Path:
    path = folder / f"books.{'journal' if format == 'hledger' else format}"
    # newline: what is yielded is what must stand in the file.
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(export.lines(tx, format))
    return path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Another's tool, in a locale in which hledger reads UTF-8 and with nobody's own settings."""
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    return subprocess.run(
        words, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


Hledger = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def hledger() -> Hledger:
    """The real hledger on one file."""
    program = shutil.which("hledger")
    if program is None:
        pytest.skip("NOT RUN: no hledger on this machine, so nothing shows that it reads an export")
    return lambda path, *words: run(program, *words, "--file", str(path))


# The books


def day(number: int, second: int = 0) -> datetime:
    return NOON + timedelta(days=number, seconds=second)


def fill(tx: Connection) -> None:
    """Every code and state, over nine days in which the clock never goes back."""
    store.deposit(tx, amount=cr("1000000000"), ref="bank-1", at=day(0))
    store.deposit(tx, amount=cr("999999999.999999"), ref="bank-2", at=day(0, 1), memo="all of it")
    for number, member in enumerate(MEMBERS):
        amount = cr(f"3.0000{number:02d}")
        store.deposit(tx, amount=amount, ref="r", at=day(2), source=member)
        pay(tx, f"run/{member}", f"inference:{member}", "0.5", f"0.1234{number:02d}", at=day(2))
    for number, words in enumerate(NASTY):
        ref = f"{number}{words}"
        store.deposit(tx, amount=cr("0.000001"), ref=ref, at=day(3), memo=words)
    posting.post(
        tx, id="engagement:devto:1", at=day(3), debit=TREASURY, credit="engagement:devto",
        amount=cr("0.000001"), code=Code.ENGAGEMENT, ref="views, of one post",
    )  # fmt: skip
    pay(tx, "free", "inference:local", "0", "0", at=day(4))
    pay(tx, "dear", MODEL, "1", "7.25", at=day(4))
    pay(tx, "lost", MODEL, "0.4", "0.4", at=day(4), code=Code.UNCERTAIN, memo="never answered")
    hold(tx, "refused", MODEL, "0.3", at=day(4))
    store.void(tx, "refused", at=day(4, 1), memo="not billed")
    store.adjust(tx, amount=cr("-2.5"), ref="fee", memo="a fee", at=day(5))
    store.adjust(tx, amount=cr("0.5"), ref="half", memo="x", at=day(5), corrects="dear:settle")
    for change in ("0.1", "-0.2"):
        store.correct(
            tx, id=f"bill {change}", account=MODEL, amount=cr(change), at=day(6), memo="as billed"
        )
    hold(tx, "open", MODEL, "0.75", at=day(7))
    hold(tx, "open too", "inference:never.paid", "0.25", at=day(8))


def hold(tx: Connection, id: str, account: str, amount: str, *, at: datetime) -> None:
    store.hold(
        tx, id=id, account=account, amount=cr(amount), at=at, limits=NO_LIMITS, run="run-1",
        attempt=id,
    )  # fmt: skip


def pay(
    tx: Connection, id: str, account: str, amount: str, actual: str, *, at: datetime, **how: Any
) -> None:
    hold(tx, id, account, amount, at=at)
    store.settle(tx, id, actual=cr(actual), at=at, **how)


def fill_and_overdraw(tx: Connection) -> None:
    """Then bills above everything there is, while the clock is a month behind."""
    fill(tx)
    for number in range(3):
        pay(tx, f"bill {number}", MODEL, "0", "999999999.123456", at=day(-30 - number))
    assert store.balance(tx).posted < cr("0")


BOOKS: dict[str, Callable[[Connection], None]] = {
    "empty": lambda tx: None,
    "only a hold": lambda tx: hold(tx, "free", MODEL, "0", at=NOON),
    "in order": fill,
    "overdrawn": fill_and_overdraw,
}


@pytest.fixture(scope="module", params=BOOKS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    with new_book(tmp_path_factory.mktemp("export") / "penstock.db") as book:
        with book.write() as tx:
            BOOKS[request.param](tx)
            balances, entries = debit_balances(tx), list(store.entries(tx))
        yield Case(request.param, book, balances, entries)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with new_book(tmp_path_factory.mktemp("filled") / "penstock.db") as book:
        with book.write() as tx:
            fill(tx)
        yield book


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with new_book(tmp_path_factory.mktemp("blank") / "penstock.db") as book:
        yield book


def debit_balances(tx: Connection) -> Postings:
    debit_side = (AccountKind.ASSET, AccountKind.EXPENSE)
    return {
        account.name: account.balance.micro * (1 if account.kind in debit_side else -1)
        for account in store.account_balances(tx)
    }


def micro(amount: str | Decimal) -> int:
    scaled = Decimal(amount) * 1_000_000
    assert scaled == int(scaled)
    return int(scaled)


# Balances


def test_the_books_that_are_exported_have_every_code_and_state(filled: Database) -> None:
    with filled.read() as tx:
        entries = list(store.entries(tx))
    assert {entry.code for entry in entries} == set(Code)
    assert {entry.state for entry in entries} == {"posted", "pending", "settled", "voided"}


def test_beancount_comes_to_every_balance(case: Case, tmp_path: Path) -> None:
    path = case.write("beancount", tmp_path)
    checked = run(BEAN_CHECK, str(path))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

    book = beancount(path)
    assert book.balances() == case.balances
    assert len(book.all(data.Transaction)) == case.count("posted")
    assert len(book.all(data.Custom)) == case.count("pending")
    asserted = book.all(data.Balance)
    assert {b.account for b in asserted} == {o.account for o in book.all(data.Open)}
    assert all(b.tolerance == 0 for b in asserted)


def test_hledger_comes_to_every_balance(case: Case, tmp_path: Path, hledger: Hledger) -> None:
    path = case.write("hledger", tmp_path)
    # Where a clock was set back, dates go back: entries stand in the order they were booked.
    more = ["ordereddates"] if case.name != "overdrawn" else []
    checked = hledger(path, "check", "--strict", *more)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

    assert hledger_balances(hledger, path) == case.balances
    assert len(hledger_transactions(hledger, path)) == case.count("posted") + bool(case.entries)


@pytest.mark.parametrize("format", ["json", "csv"])
def test_posted_entries_add_up_to_the_balances_and_pending_ones_to_what_is_held(
    case: Case, format: Format, tmp_path: Path
) -> None:
    rows = read_rows(case.write(format, tmp_path))
    sums: Counter[str] = Counter()
    for row in rows:
        if row["state"] == "posted":
            sums[row["debit"]] += micro(row["amount"])
            sums[row["credit"]] -= micro(row["amount"])
    assert {name: sums[name] for name in case.balances} == case.balances
    assert set(sums) <= set(case.balances)

    pending = sum(micro(row["amount"]) for row in rows if row["state"] == "pending")
    with case.book.read() as tx:
        assert pending == store.balance(tx).held.micro


@pytest.mark.parametrize("format", ["json", "csv"])
def test_every_entry_is_there_with_every_field(case: Case, format: Format, tmp_path: Path) -> None:
    nothing = None if format == "json" else ""
    expected = [
        {name: nothing if value is None else value for name, value in document.items()}
        for document in map(export.entry_document, case.entries)
    ]
    assert read_rows(case.write(format, tmp_path)) == expected


def test_an_entry_has_the_fields_of_the_contract_in_its_order() -> None:
    contract = "id, at, state, debit, credit, amount, code, run, attempt, ref, memo"
    assert ", ".join(export.COLUMNS).startswith(contract)


def test_an_open_hold_stands_beside_the_transactions(
    filled: Database, tmp_path: Path, hledger: Hledger
) -> None:
    with filled.read() as tx:
        bean, journal = exported(tx, "beancount", tmp_path), exported(tx, "hledger", tmp_path)
    holds = beancount(bean).all(data.Custom)
    assert [(h.type, h.meta["id"], str(h.values[1].value)) for h in holds] == [
        ("hold", "open", "0.750000 CREDIT"),
        ("hold", "open too", "0.250000 CREDIT"),
    ]
    commented = re.findall(r"^;     ; id:(.*)$", journal.read_text(encoding="utf-8"), re.MULTILINE)
    assert commented == ["open", "open too"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_booked_while_an_export_is_read_is_not_in_it(
    format: Format, tmp_path: Path
) -> None:
    with new_book(tmp_path / "penstock.db", grant="5") as book:
        with book.read() as tx:
            before = "".join(export.lines(tx, format))
        with book.read() as tx:
            pieces = export.lines(tx, format)
            begun = "".join(islice(pieces, 2))
            with book.write() as other:
                store.deposit(other, amount=cr("7"), ref="meanwhile", at=day(9), source="patreon")
            assert begun + "".join(pieces) == before


# What is not so


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (2, ("Balance failed for", "balance assertion")),
        (1, ("Transaction does not balance", "could not balance|unbalanced")),
    ],
)
def test_an_export_with_one_amount_changed_is_refused(
    sides: int, said: tuple[str, str], filled: Database, tmp_path: Path, hledger: Hledger
) -> None:
    with filled.read() as tx:
        bean, journal = exported(tx, "beancount", tmp_path), exported(tx, "hledger", tmp_path)
    for path in (bean, journal):
        entries = path.read_text(encoding="utf-8")
        path.write_text(entries.replace("0.123400 CREDIT", "0.123401 CREDIT", sides), "utf-8")
    checked = run(BEAN_CHECK, str(bean)), hledger(journal, "check")
    for result, words in zip(checked, said, strict=True):
        assert result.returncode != 0
        assert re.search(words, result.stderr, re.IGNORECASE)


def test_books_that_were_edited_behind_their_back_are_refused(
    tmp_path: Path, hledger: Hledger
) -> None:
    with new_book(tmp_path / "penstock.db", grant="5") as book:
        tamper(book.path, "UPDATE transfer SET amount_micro = amount_micro + 1")
        with book.read() as tx:
            bean, journal = exported(tx, "beancount", tmp_path), exported(tx, "hledger", tmp_path)
    assert run(BEAN_CHECK, str(bean)).returncode == 1
    assert hledger(journal, "check").returncode == 1


def test_every_balance_is_asserted_to_the_last_millionth(filled: Database, tmp_path: Path) -> None:
    with filled.read() as tx:
        path, accounts = exported(tx, "beancount", tmp_path), len(debit_balances(tx))
    entries = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"[0-9](?= ~ 0 CREDIT)", off_by_one, entries), "utf-8")
    assert run(BEAN_CHECK, str(path)).stderr.count("Balance failed for") == accounts


def off_by_one(last: re.Match[str]) -> str:
    return str(int(last[0]) ^ 1)


# What strangers write


@contextmanager
def strangers_wrote(book: Database, texts: Sequence[str]) -> Iterator[Connection]:
    """A transaction in which they have, and which leaves nothing behind."""
    with suppress(_Undo), book.write() as tx:
        for number, words in enumerate(texts):
            amount = cr(f"0.{number:06d}")
            store.deposit(tx, amount=cr("1"), ref=words, at=day(number), memo=words)
            pay(tx, f"paid {words}", MODEL, "0.5", "0.5", at=day(number), memo=words)
            hold(tx, f"open {words}", MODEL, str(amount), at=day(number))
        yield tx
        raise _Undo


class _Undo(Exception):
    pass


def facts(tx: Connection, state: str) -> list[dict[str, str]]:
    """What each entry of that state has beside what a transaction says in its own words."""
    own_words = ("state", "debit", "credit", "amount", "code")
    documents = [export.entry_document(e) for e in store.entries(tx) if e.state == state]
    return [
        {name: value for name, value in d.items() if name not in own_words and value is not None}
        for d in documents
    ]


fuzzed = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
wild = st.lists(foreign_texts, unique=True, min_size=1, max_size=5)


@fuzzed
@given(wild)
def test_a_strangers_text_reaches_beancount_whole_and_does_nothing(
    blank: Database, tmp_path: Path, texts: list[str]
) -> None:
    with strangers_wrote(blank, texts) as tx:
        path = exported(tx, "beancount", tmp_path)
        book = beancount(path)
        assert book.facts(data.Transaction) == facts(tx, "posted")
        assert book.facts(data.Custom) == facts(tx, "pending")
        assert book.balances() == debit_balances(tx)
        accounts = len(debit_balances(tx))
        kinds = Counter(type(directive).__name__ for directive in book.directives)
        assert kinds == {
            "Commodity": 1, "Open": accounts, "Balance": accounts, "Custom": len(texts),
            "Transaction": 2 * len(texts),
        }  # fmt: skip
        begun = {line[:2] for line in re.split("[\r\n]", path.read_bytes().decode())}
        assert begun == {"; ", "op", "20", "  ", ""}


@fuzzed
@given(wild)
def test_a_strangers_text_reaches_hledger_whole_and_does_nothing(
    blank: Database, tmp_path: Path, hledger: Hledger, texts: list[str]
) -> None:
    with strangers_wrote(blank, texts) as tx:
        path = exported(tx, "hledger", tmp_path)
        *posted, balances = hledger_transactions(hledger, path)
        assert [tags(transaction) for transaction in posted] == facts(tx, "posted")
        assert tags(balances) == {}
        postings = [posting for transaction in posted for posting in transaction["tpostings"]]
        assert len(postings) == 2 * len(posted)
        assert {p["pdate"] for p in postings} == {None}
        assert [t["tdate"] for t in posted] == [f["at"][:10] for f in facts(tx, "posted")]


@fuzzed
@given(wild)
def test_a_strangers_text_reaches_json_and_csv_whole(
    blank: Database, tmp_path: Path, texts: list[str]
) -> None:
    with strangers_wrote(blank, texts) as tx:
        documents = [export.entry_document(entry) for entry in store.entries(tx)]
        assert read_rows(exported(tx, "json", tmp_path)) == documents
        rows = read_rows(exported(tx, "csv", tmp_path))
        assert rows == [{k: v or "" for k, v in document.items()} for document in documents]


@pytest.mark.parametrize("words", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", " =1", "＝1", "'=1"])
def test_a_spreadsheet_takes_no_cell_for_a_formula(blank: Database, words: str) -> None:
    with strangers_wrote(blank, [words]) as tx:
        rows = csv.DictReader("".join(export.lines(tx, "csv")).splitlines(keepends=True))
        assert next(rows)["memo"] == f"'{words}"


def test_csv_ends_its_lines_and_quotes_as_rfc_4180_says(blank: Database) -> None:
    with strangers_wrote(blank, ['a "b",\nc']) as tx:
        header, row, *_ = export.lines(tx, "csv")
    assert header == "id,at,state,debit,credit,amount,code,run,attempt,ref,memo,corrects\r\n"
    assert row.endswith(',"a ""b"",\nc","a ""b"",\nc",\r\n')


# Names


@example("x--a", "-a")
@example("x41", "A")
@given(*[st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)] * 2)
@settings(deadline=None)
def test_no_two_accounts_are_one_in_beancount(one: str, other: str) -> None:
    names = {name: export.beancount_account(f"revenue:{name}") for name in (one, other)}
    assert len(set(names.values())) == len(names)
    assert all(is_valid(name) for name in names.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("treasury", "Assets:Treasury"),
        ("grants", "Equity:Grants"),
        ("adjustments", "Equity:Adjustments"),
        ("engagement:devto", "Income:Engagement:Devto"),
        ("revenue:git-hub-2", "Income:Revenue:Git-hub-2"),
        ("inference:4o", "Expenses:Inference:4o"),
        ("inference:gpt_4.Mini", "Expenses:Inference:X-gptX5F4X2EX4Dini"),
    ],
)
def test_an_account_keeps_its_name_in_beancount_whatever_else_there_is(
    name: str, expected: str
) -> None:
    assert export.beancount_account(name) == expected


# Size


@pytest.mark.parametrize("format", FORMATS)
def test_a_long_history_is_never_in_memory_at_once(blank: Database, format: Format) -> None:
    with suppress(_Undo), blank.write() as tx:
        pay(tx, "first", MODEL, "0", "0", at=NOON)
        tx.execute(text(MANY), {"model": MODEL, "at": "2026-03-01T12:00:00.000000Z"})
        tracemalloc.start()
        size = sum(map(len, export.lines(tx, format)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size > 1_000_000
        assert peak < 200_000
        raise _Undo


MANY = """
WITH RECURSIVE number (n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM number WHERE n < 5009)
INSERT INTO transfer (seq, id, at, action, debit, credit, amount_micro, code, memo, hash)
SELECT n, 'attempt-' || n, :at, 'post', :model, 'treasury', n, 'inference', hex(randomblob(50)), ''
FROM number
"""


# Readers


@dataclass(frozen=True)
class Beancount:
    """A file as beancount's own loader has read, booked and validated it."""

    directives: Sequence[Any]

    def all(self, kind: type) -> list[Any]:
        return [directive for directive in self.directives if isinstance(directive, kind)]

    def facts(self, kind: type) -> list[dict[str, str]]:
        return [
            {name: value for name, value in directive.meta.items() if name in export.COLUMNS}
            for directive in self.all(kind)
        ]

    def balances(self) -> Postings:
        """Micro-credits per account by its true name, debits positive."""
        names = {directive.account: directive.meta["name"] for directive in self.all(data.Open)}
        assert len(set(names.values())) == len(names)
        sums = dict.fromkeys(names.values(), 0)
        for transaction in self.all(data.Transaction):
            for p in transaction.postings:
                assert p.units.currency == "CREDIT"
                sums[names[p.account]] += micro(p.units.number)
        return sums


def beancount(path: Path) -> Beancount:
    directives, errors, _ = loader.load_file(str(path))
    assert errors == []
    return Beancount(directives)


def hledger_json(hledger: Hledger, path: Path, *words: str) -> Any:
    result = hledger(path, *words, "--output-format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def hledger_balances(hledger: Hledger, path: Path) -> Postings:
    """Micro-credits per account by our own name, debits positive."""
    rows, _ = hledger_json(hledger, path, "balance", "--flat", "--empty")
    found = {}
    for full, _, _, amounts in rows:
        root, _, name = full.partition(":")
        assert root in ("assets", "equity", "income", "expenses")
        assert {amount["acommodity"] for amount in amounts} <= {"CREDIT"}
        quantities = [amount["aquantity"] for amount in amounts]
        found[name] = sum(
            micro(Decimal(q["decimalMantissa"]).scaleb(-q["decimalPlaces"])) for q in quantities
        )
    return found


def hledger_transactions(hledger: Hledger, path: Path) -> list[Any]:
    """In the order of the file, as hledger sorts by date."""
    found: list[Any] = hledger_json(hledger, path, "print")
    return sorted(found, key=lambda transaction: int(transaction["tindex"]))


def tags(transaction: Any) -> dict[str, str]:
    assert len(dict(transaction["ttags"])) == len(transaction["ttags"])
    return {name: unquote(value) for name, value in transaction["ttags"]}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Entries of a JSON or CSV file, a CSV's marks of what is no formula taken off."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            found: list[dict[str, Any]] = json.load(file)
            return found
        return [{k: v.removeprefix("'") for k, v in row.items()} for row in csv.DictReader(file)]
