"""
The rules of the books, as values: which accounts there are and what a transfer does to them.

No database and no clock here. `store` carries out what these rules say, `audit` recomputes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ledger.errors import UnknownAccount
from ledger.money import MicroCredits

TREASURY = "treasury"
GRANTS = "grants"
ADJUSTMENTS = "adjustments"


class AccountKind(StrEnum):
    """Decides an account's normal side: assets and expenses debit, the others credit."""

    ASSET = "asset"
    EQUITY = "equity"
    INCOME = "income"
    EXPENSE = "expense"


class Action(StrEnum):
    """What a row of the journal does."""

    POST = "post"
    HOLD = "hold"
    SETTLE = "settle"
    VOID = "void"


class Code(StrEnum):
    """Why value moved; the word operators read."""

    DEPOSIT = "deposit"
    ENGAGEMENT = "engagement"
    REVENUE = "revenue"
    INFERENCE = "inference"
    UNCERTAIN = "uncertain"
    OVERRUN = "overrun"
    CORRECTION = "correction"
    ADJUSTMENT = "adjustment"


_SINGLE = MappingProxyType(
    {
        TREASURY: AccountKind.ASSET,
        GRANTS: AccountKind.EQUITY,
        ADJUSTMENTS: AccountKind.EQUITY,
    }
)
_FAMILIES = MappingProxyType(
    {
        "engagement": AccountKind.INCOME,
        "revenue": AccountKind.INCOME,
        "inference": AccountKind.EXPENSE,
    }
)

# No colon, so that an id made of a family, a member and a ref reads one way only.
_MEMBER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_member(name: str) -> bool:
    """Whether a name can stand behind the colon of an account, as in `revenue:NAME`."""
    return _MEMBER.fullmatch(name) is not None


def kind_of(account: str) -> AccountKind:
    """
    The kind of an account, told from its name.

    Raises:
        UnknownAccount: the chart of accounts has no such name.
    """
    if account in _SINGLE:
        return _SINGLE[account]
    family, _, member = account.partition(":")
    if family in _FAMILIES and is_member(member):
        return _FAMILIES[family]
    raise UnknownAccount(f"no account can be called {account!r}")


@dataclass(frozen=True, slots=True)
class Totals:
    """The four running sums of one account, in micro-credits."""

    debits_posted: int = 0
    credits_posted: int = 0
    debits_pending: int = 0
    credits_pending: int = 0

    def balance(self, kind: AccountKind) -> MicroCredits:
        """Posted balance, positive on the kind's normal side."""
        difference = self.debits_posted - self.credits_posted
        debit_side = kind in (AccountKind.ASSET, AccountKind.EXPENSE)
        return MicroCredits(difference if debit_side else -difference)


def movement(action: Action, amount: int, held: int = 0) -> tuple[int, int]:
    """
    What one row adds to the posted and to the pending sum of both its accounts, in micro-credits:
    to the debit sums of the one and to the credit sums of the other.

    Args:
        amount: what the row itself moves; 0 for a void.
        held: the hold that a settle or void resolves.
    """
    return (0, amount) if action is Action.HOLD else (amount, -held)


@dataclass(frozen=True, slots=True)
class Balance:
    """What the treasury has, what open holds claim of it, and what is left for new holds."""

    posted: MicroCredits
    held: MicroCredits

    @property
    def available(self) -> MicroCredits:
        """Posted less held. The operator's reserve is not taken off."""
        return self.posted - self.held
