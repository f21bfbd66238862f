"""
The hash chain over the transfers: whoever changes a row changes every hash after it.

SHA-256 over the hash before and every column of the row, as one JSON array. A column added by a
later schema joins the array only where it has a value, so that the hashes of old rows stay true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

# The first link.
GENESIS = "0" * 64

# What the chain covers, in this order: every column but the hash itself.
SEALED = (
    "seq", "id", "at", "action", "debit", "credit", "amount_micro", "code", "hold_id", "run",
    "attempt", "ref", "memo",
)  # fmt: skip
SEALED_LATER = ("corrects",)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def seal(previous: str, values: Sequence[Any], later: Sequence[Any] = ()) -> str:
    """
    The hash of one row.

    Args:
        values: of SEALED, in that order, `at` as the text that is stored.
        later: of SEALED_LATER; trailing columns without a value leave no trace.
    """
    fields = [previous, *values, *later]
    while len(fields) > 1 + len(SEALED) and fields[-1] is None:
        fields.pop()
    return hashlib.sha256(_encode(fields).encode()).hexdigest()


def row_hash(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of one row given by column name, `at` as the text that is stored."""
    return seal(previous, [row[name] for name in SEALED], [row.get(name) for name in SEALED_LATER])
