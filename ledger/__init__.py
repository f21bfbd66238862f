"""
The books: double entry, append-only, in integers of a millionth of a credit.

    money       MicroCredits, the leaf everybody may borrow
    rules       accounts, actions and codes, and what a transfer does to the sums
    models      the tables, and the triggers that keep them append-only
    types       column types that mean the same on every database
    chain       the hash over each row and the one before it
    posting     append a row to the journal and to every sum kept of it
    store       the verbs: deposit, refund, earn, hold, settle, void, adjust, correct; balances
    statements  the hot path's statements, compiled once
    audit       recompute everything and say what does not agree
    export      the books as JSON, CSV, beancount and hledger
    backup      a copy while they are written, which counts once it was checked
    database    connections, transactions, pragmas: the one module that knows SQLite
    errors      what the books can refuse

Imports nothing else of ours.
"""
