"""
Everything in the books as plain text, recomputed by other programs to the same balances.

JSON and CSV have every entry as `ledger entries` has it. Beancount and hledger have every posted
entry as a transaction, the open holds beside them, which move nothing, and at the end what the
books say each account's balance is. So whoever checks such a file has recomputed the books.

Entries come in booking order, read row by row. Dates are those of the entries, in UTC; where a
clock was set back they go back too, as sorting a long history would need room for all of it. Both
programs sort by date themselves.

Ids, refs and memos hold text of strangers. In each format it is escaped so that it stays data and
can be read back exactly:

    json       as JSON has it
    csv        what a spreadsheet would take for a formula gets an apostrophe in front, and so does
               what begins with one: drop one leading apostrophe to have every value back. Nothing
               and an empty text read the same. Programs are better served by JSON.
    beancount  strings, with its own escapes
    hledger    tags, one a line, with the percent encoding of addresses for what does not show and
               for what would end a tag
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import date, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, func, select

from ledger import store
from ledger.money import MicroCredits
from ledger.posting import transfers
from ledger.rules import AccountKind, kind_of
from ledger.types import to_text

Format = Literal["json", "csv", "beancount", "hledger"]

CURRENCY = "CREDIT"
COLUMNS = tuple(field.name for field in fields(store.Entry))


def lines(tx: Connection, format: Format) -> Iterator[str]:
    """
    The books in one format, as pieces of whole lines, each with its line ends.

    The pieces are read as they are asked for: the transaction must stay open meanwhile, and what
    it sees is what is exported.
    """
    return FORMATS[format](tx)


def entry_document(entry: store.Entry) -> dict[str, str | None]:
    """An entry as JSON has it: decimal credits with six places, ISO 8601 times in UTC."""
    return {name: _plain(getattr(entry, name)) for name in COLUMNS}


def beancount_account(name: str) -> str:
    """
    An account's name as beancount allows it; no two accounts share one.

    Raises:
        UnknownAccount: no account can be called so.
    """
    root, _ = _KINDS[kind_of(name)]
    head, *member = name.split(":")
    return ":".join([root, head.capitalize(), *map(_component, member)])


def _plain(value: Any) -> str | None:
    if isinstance(value, datetime):
        return to_text(value)
    return None if value is None else str(value)


def _json(tx: Connection) -> Iterator[str]:
    yield "["
    before = "\n"
    for entry in store.entries(tx):
        yield before + json.dumps(entry_document(entry), ensure_ascii=False)
        before = ",\n"
    yield "\n]\n"


class _Echo:
    """What `csv` writes to; it hands the row back."""

    def write(self, row: str) -> str:
        return row


# Spreadsheets pass over blanks, and take the wide forms for the plain ones.
_FORMULA = re.compile(r"[\x00-\x20]*[-=+@'＝＋－＠]")


def _csv(tx: Connection) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(COLUMNS)
    for entry in store.entries(tx):
        yield writer.writerow(map(_cell, entry_document(entry).values()))


def _cell(value: str | None) -> str:
    return f"'{value}" if value and _FORMULA.match(value) else value or ""


# What beancount calls a kind (hledger the same, in lower case), and hledger's letter for it.
_KINDS = {
    AccountKind.ASSET: ("Assets", "A"),
    AccountKind.EQUITY: ("Equity", "E"),
    AccountKind.INCOME: ("Income", "R"),
    AccountKind.EXPENSE: ("Expenses", "X"),
}
# What a transaction says in its own words; all else an entry has is put beside it, by name.
_IN_ITS_OWN_WORDS = {"state", "debit", "credit", "amount", "code"}
_PLAIN_MEMBER = re.compile(r"[a-z0-9][a-z0-9-]*")


def _beancount(tx: Connection) -> Iterator[str]:
    yield (
        "; Penstock's books. A custom directive `hold` is money claimed and not yet spent.\n"
        f'option "title" "Penstock"\noption "operating_currency" "{CURRENCY}"\n\n'
    )
    first_use = _first_use(tx)
    if first_use:
        yield f"{min(first_use.values())} commodity {CURRENCY}\n"
    for name, first in first_use.items():
        yield f"{first} open {beancount_account(name)} {CURRENCY}\n  name: {_quoted(name)}\n"
    for entry in store.entries(tx):
        debit, credit = beancount_account(entry.debit), beancount_account(entry.credit)
        facts = "".join(f"  {name}: {_quoted(text)}\n" for name, text in _facts(entry))
        if entry.state == "posted":
            yield (
                f"\n{entry.at.date()} * {_quoted(entry.code)}\n{facts}"
                f"  {_amount(debit, entry.amount)}\n  {_amount(credit, -entry.amount)}\n"
            )
        elif entry.state == "pending":
            yield f'\n{entry.at.date()} custom "hold" {_amount(debit, entry.amount)}\n{facts}'
    yield "\n"
    day = _day_after(tx)
    for account, balance in _balances(tx):
        # Without `~ 0` a balance may be off by one in its last place.
        yield f"{day} balance {_amount(beancount_account(account), f'{balance} ~ 0')}\n"


def _component(member: str) -> str:
    """
    A member's name as a part of a beancount account: a capital or digit, then letters, digits, `-`.

    What is more than lower case, digits and inner dashes has the rest as `X` and two hexadecimal
    digits. No plain name has a capital but its first letter, so none reads like an escaped one.
    """
    if _PLAIN_MEMBER.fullmatch(member):
        return member[0].upper() + member[1:]
    return "X-" + re.sub(r"^-|[^a-z0-9-]", lambda found: f"X{ord(found[0]):02X}", member)


def _quoted(text: str) -> str:
    """A beancount string, on one line."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f'"{text}"'


def _hledger(tx: Connection) -> Iterator[str]:
    yield (
        "; Penstock's books. A transaction commented out is money claimed and not yet spent.\n"
        "; Values of tags are percent-encoded: %2C is a comma, %25 a percent sign.\n"
        f"decimal-mark .\ncommodity 1.000000 {CURRENCY}\n\n"
    )
    for account in store.account_balances(tx):
        yield f"account {_hledger_account(account.name)}  ; type:{_KINDS[account.kind][1]}\n"
    for entry in store.entries(tx):
        if entry.state == "posted":
            yield _hledger_transaction(entry)
        elif entry.state == "pending":
            yield re.sub("^(?=.)", "; ", _hledger_transaction(entry), flags=re.MULTILINE)
    if day := _day_after(tx):
        yield f"\n{day} balances as the books have them\n"
    for name, balance in _balances(tx):
        # `==` says besides that the account holds nothing but credits.
        yield f"    {_amount(_hledger_account(name), f'0.000000 {CURRENCY} == {balance}')}\n"


def _hledger_transaction(entry: store.Entry) -> str:
    # Only comments of a transaction, never of a posting, where hledger would read dates in them.
    facts = "".join(f"    ; {name}:{_tag_value(text)}\n" for name, text in _facts(entry))
    debit, credit = _hledger_account(entry.debit), _hledger_account(entry.credit)
    return (
        f"\n{entry.at.date()} {_tag_value(entry.code)}\n{facts}"
        f"    {_amount(debit, entry.amount)}\n    {_amount(credit, -entry.amount)}\n"
    )


def _hledger_account(name: str) -> str:
    return f"{_KINDS[kind_of(name)][0].lower()}:{name}"


def _tag_value(text: str) -> str:
    """A text on one line without commas, which end a tag; hledger strips it, so no outer blanks."""
    shown = text.replace("%", "%25").replace(",", "%2C")
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else quote(c) for c in shown)
    return re.sub("^ +| +$", lambda blanks: quote(blanks[0]), shown)


def _facts(entry: store.Entry) -> Iterator[tuple[str, str]]:
    for name, text in entry_document(entry).items():
        if name not in _IN_ITS_OWN_WORDS and text is not None:
            yield name, text


def _amount(account: str, amount: MicroCredits | str) -> str:
    return f"{account:<40}  {amount!s:>18} {CURRENCY}"


def _balances(tx: Connection) -> Iterator[tuple[str, MicroCredits]]:
    """What the books say of every account, debits positive as both programs have it."""
    for account in store.account_balances(tx):
        debit_side = account.kind in (AccountKind.ASSET, AccountKind.EXPENSE)
        yield account.name, account.balance if debit_side else -account.balance


def _first_use(tx: Connection) -> dict[str, date]:
    """The day of each account's earliest entry, holds among them, by name."""
    found: dict[str, datetime] = {}
    for side in (transfers.c.debit, transfers.c.credit):
        for name, at in tx.execute(select(side, func.min(transfers.c.at)).group_by(side)):
            found[name] = min(at, found.get(name, at))
    return {name: found[name].date() for name in sorted(found)}


def _day_after(tx: Connection) -> date | None:
    """The day after the latest entry, as beancount looks at balances when a day begins."""
    last: datetime | None = tx.execute(select(func.max(transfers.c.at))).scalar_one()
    return None if last is None else last.date() + timedelta(days=1)


FORMATS: dict[Format, Callable[[Connection], Iterator[str]]] = {
    "json": _json,
    "csv": _csv,
    "beancount": _beancount,
    "hledger": _hledger,
}
