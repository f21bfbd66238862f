"""`penstock ledger …`: the books."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from daemon.cli import write_utf8
from daemon.cli.context import Context, UsageError, moment, table
from daemon.cli.exits import Exit
from daemon.inference import attempts
from ledger import audit, export, store
from ledger.money import MicroCredits
from ledger.rules import is_member

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ledger.database import Database


def balance(args: Namespace) -> int:
    """What there is, per account."""
    context = Context(args)
    with context.reading() as tx:
        treasury, accounts = store.balance(tx), store.account_balances(tx)
    document = {
        "posted": treasury.posted,
        "held": treasury.held,
        "available": treasury.available,
        "accounts": [
            {"name": account.name, "kind": account.kind, "balance": account.balance}
            for account in accounts
        ],
    }
    rows = [(account.name, account.kind.value, account.balance) for account in accounts]
    human = (
        f"available  {treasury.available}  (posted {treasury.posted}, held {treasury.held})\n\n"
        + table(("account", "kind", "balance"), rows, "no account was used yet")
    )
    context.show(document, human)
    return Exit.DONE


def entries(args: Namespace) -> int:
    """Every entry, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        found = list(store.entries(tx, since=context.since(), limit=args.limit))
    document = [export.entry_document(entry) for entry in found]
    rows = [
        (e.at, e.id, e.state, e.code, e.debit, e.credit, e.amount, e.attempt or e.ref or e.memo)
        for e in found
    ]
    headers = ("at", "entry", "state", "code", "debit", "credit", "amount", "for")
    context.show(document, table(headers, rows, context.none("the books are empty")))
    return Exit.DONE


def list_attempts(args: Namespace) -> int:
    """Every request to a provider, oldest first."""
    context = Context(args)
    with context.reading() as tx:
        found = attempts.recent(tx, since=context.since(), limit=args.limit)
    rows = [
        (
            a.at, a.id, a.step, f"{a.provider}/{a.model}", a.outcome or "under way",
            a.http_status, _cost(a), a.duration_ms,
        )
        for a in found
    ]  # fmt: skip
    headers = ("at", "attempt", "step", "model", "outcome", "http", "cost", "ms")
    context.show(
        [attempt_document(a) for a in found],
        table(headers, rows, context.none("nothing was asked yet")),
    )
    return Exit.DONE


def attempt_document(attempt: Any) -> dict[str, Any]:
    """One attempt as tests/test_contract.py holds it."""
    return {
        "id": attempt.id,
        "at": moment(attempt.at),
        "run": attempt.run,
        "step": attempt.step,
        "parent": f"{attempt.run}/{attempt.step}",
        "role": attempt.role,
        "provider": attempt.provider,
        "model": attempt.model,
        "model_returned": attempt.model_returned,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "usage": attempt.usage,
        "price": {
            "input": MicroCredits(attempt.price_input),
            "cached": MicroCredits(attempt.price_cached),
            "output": MicroCredits(attempt.price_output),
            "cache_write": MicroCredits(
                attempt.price_input
                if attempt.price_cache_write is None
                else attempt.price_cache_write
            ),
            "source": attempt.price_source,
        },
        "hold": attempt.hold,
        "cost": _cost(attempt),
        "own_cost": None
        if attempt.own_cost_micro is None
        else MicroCredits(attempt.own_cost_micro),
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
    }


def check(args: Namespace) -> int:
    """Recompute the books from their rows."""
    context = Context(args)
    with context.reading() as tx:
        report = audit.check(tx)
        for problem in attempts.disagreements(tx):
            report.note(problem)
    document = {
        "ok": report.ok,
        "transfers": report.transfers,
        "accounts": report.accounts,
        "problems": report.problems,
    }
    counted = f"{report.transfers} transfers over {report.accounts} accounts"
    human = (
        f"the books balance: {counted}"
        if report.ok
        else "\n".join([f"THE BOOKS DO NOT BALANCE: {counted}", *report.problems])
    )
    context.show(document, human)
    return Exit.DONE if report.ok else Exit.BOOKS_WRONG


@contextmanager
def _sound(context: Context) -> Iterator[Database]:
    """
    The database, where its books balance.

    Raises:
        BooksWrong: nothing is booked on sums that may be anything.
    """
    with context.database() as database:
        with database.read() as tx:
            audit.require(tx)
        yield database


def deposit(args: Namespace) -> int:
    """Book money that came in, once per ref."""
    context = Context(args)
    amount = MicroCredits.parse(args.amount)
    if args.source is not None and not is_member(args.source):
        raise UsageError("--source: up to 64 letters, digits, dots, dashes and underscores, please")
    with _sound(context) as database, database.write() as tx:
        created = store.deposit(
            tx, amount=amount, ref=args.ref, source=args.source, at=context.clock.now()
        )
        left = store.balance(tx)
    document = {"created": created, "amount": amount, "ref": args.ref, "available": left.available}
    said = f"booked {amount}" if created else f"{args.ref} was booked before; nothing changed"
    context.show(document, f"{said}; {left.available} available")
    return Exit.DONE


def adjust(args: Namespace) -> int:
    """Book what a person knows better, once per ref."""
    context = Context(args)
    amount = MicroCredits.parse(args.amount)
    with _sound(context) as database, database.write() as tx:
        created = store.adjust(
            tx, amount=amount, ref=args.ref, memo=args.memo, corrects=args.corrects,
            at=context.clock.now(),
        )  # fmt: skip
        if created and args.corrects is not None:
            _correct_attempt(tx, args.corrects, amount)
        left = store.balance(tx)
    document = {
        "created": created, "amount": amount, "ref": args.ref, "corrects": args.corrects,
        "available": left.available,
    }  # fmt: skip
    said = f"booked {amount}" if created else f"{args.ref} was booked before; nothing changed"
    context.show(document, f"{said}; {left.available} available")
    return Exit.DONE


def _correct_attempt(tx: Connection, corrected: str, amount: MicroCredits) -> None:
    """What a request cost is shown beside it, too: a correction of its entry changes that."""
    entry = store.entry(tx, corrected)
    attempt = None if entry is None or entry.attempt is None else attempts.find(tx, entry.attempt)
    if attempt is not None and attempt.cost_micro is not None:
        attempts.complete(tx, attempt.id, cost_micro=attempt.cost_micro - amount.micro)


def write_export(args: Namespace) -> int:
    """Every entry, in a format that another program recomputes."""
    context = Context(args)
    write_utf8()
    with context.reading() as tx:
        for line in export.lines(tx, args.form):
            sys.stdout.write(line)
    return Exit.DONE


def _cost(attempt: Any) -> MicroCredits | None:
    return None if attempt.cost_micro is None else MicroCredits(attempt.cost_micro)
