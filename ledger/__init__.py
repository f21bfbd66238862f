"""
The books: double entry, append-only, in integers of a millionth of a credit.

    money     MicroCredits, the leaf everybody may borrow
    rules     accounts, actions and codes, and what a transfer does to the sums
    models    the two tables and the triggers that keep them append-only
    types     column types that mean the same on every database
    store     the verbs: deposit, hold, settle, void; balances and entries
    audit     recompute everything and say what does not agree
    database  connections, transactions, pragmas: the one module that knows SQLite
    errors    what the books refuse

Imports nothing else of ours.
"""

from ledger.database import Database
from ledger.money import ZERO, AmountError, MicroCredits

__all__ = ["ZERO", "AmountError", "Database", "MicroCredits"]
