"""
What a source of revenue is: somewhere real money arrives, and can be asked what came and went.

Errors, by what the caller does next:

    SourceError          nothing was booked; ask again later
      SourceBarred       asking again helps nothing until a person has acted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ledger.money import MicroCredits


class SourceError(Exception):
    """It could not be read this time. Says what came instead and what to do; never a key."""


class SourceBarred(SourceError):
    """A person must act first: the key is wrong, or may not read what is asked for."""


@dataclass(frozen=True, slots=True)
class Received:
    """
    Money that came in, or went back.

    Args:
        ref: the source's own name for it, which it never gives to anything else.
        amount: what is left of it after fees, one credit a US dollar; negative where money went
            back, as a refund, a dispute or a fee does.
        at: when it was made at the source.
        memo: in words, for whoever reads the books.
    """

    ref: str
    amount: MicroCredits
    at: datetime
    memo: str


class RevenueSource(Protocol):
    """Somewhere money arrives. Only ever read."""

    @property
    def name(self) -> str:
        """The NAME of the account `revenue:NAME`: letters, digits, `_`, `.` and `-`."""

    async def received(self, since: datetime) -> Sequence[Received]:
        """
        Everything that is available and was made since then, oldest first.

        Available: the source itself would pay it out. What it still waits for is left out and
        shows up in a later answer, with the time at which it was made. What is gone from the
        answers stays booked. All of it or an error, never a part.

        Raises:
            SourceError: it could not be read.
            SourceBarred: nor will it be until a person has acted.
        """

    async def close(self) -> None:
        """Close connections."""
