"""
Stripe, read through its balance transactions: what each payment left in the account after fees.

Only what is available is booked, and only US dollars, since one credit is one of them. A payment
in another currency that Stripe converts arrives in the account's own, so this is about accounts
that settle in another one.

Sources (read in 2026-10): the object, its fields and its types, docs.stripe.com/api/
balance_transactions/object and /list (sorted with the newest first, pages of 1 to 100, the cursor
`starting_after`); what the types mean, docs.stripe.com/reports/balance-transaction-types, and for
`payout_minimum_balance_*` docs.stripe.com/changelog/acacia/2024-12-18/payout-minimum-balance;
`balance_type` `risk_reserved`, docs.stripe.com/changelog/clover/2026-01-28/
monitor-reserve-activity-on-balance-transactions; amounts in the currency's smallest unit,
docs.stripe.com/currencies; a key that may not read gets 403 (stripe/stripe-node issue 2246).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from daemon import tls
from daemon.revenue.port import Received, SourceBarred, SourceError
from daemon.secret import Secret
from ledger.money import MICRO_PER_CREDIT, MicroCredits

# The first that tells reserves apart. Later ones only add to it, until a person has looked.
VERSION = "2026-01-28.clover"
PAGE_SIZE = 100
# A hundred thousand transactions in two months.
PAGES_MAX = 1_000
# A transaction takes some 1,500 bytes.
ANSWER_BYTES_MAX = 2_000_000
SAID_CHARS_MAX = 300

CURRENCY = "usd"
MICRO_PER_CENT = MICRO_PER_CREDIT // 100
# Far more than the books take, but a sum of rupiah may be large, too.
CENTS_MAX = 2**63 - 1
# The last second of the year 9999, the last that can be told.
CREATED_MAX = 253_402_300_799

# Between the account and its owner's bank. Of these only a fee is booked: that money is gone.
OWN_MONEY = frozenset(
    {
        "payout", "payout_cancel", "payout_failure",
        "payout_minimum_balance_hold", "payout_minimum_balance_release",
        "topup", "topup_reversal", "inbound_transfer", "inbound_transfer_reversal",
    }
)  # fmt: skip
# What is moved here was in, or comes back to, the balance that payments arrive in, and is booked
# there. The cards that `issuing` pays for are filled from the owner's bank or from that balance.
OTHER_BALANCES = frozenset({"issuing", "risk_reserved"})

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_KEY = re.compile(r"[!-~]+")
_TEST_KEY = re.compile(r"[a-z]+_test_")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Transaction:
    """A balance transaction, as far as it matters here; amounts in the currency's cents."""

    id: str
    kind: str
    status: str
    currency: str
    balance: str
    created: int
    net: int
    amount: int
    source: str

    @property
    def cents(self) -> int:
        """What it changes: `net`, or of the owner's own money only the fee."""
        return self.net - self.amount if self.kind in OWN_MONEY else self.net

    @property
    def counts(self) -> bool:
        """Whether it changes what the owner has, and can be had."""
        return self.status == "available" and self.balance not in OTHER_BALANCES and self.cents != 0

    @property
    def received(self) -> Received:
        at = datetime.fromtimestamp(self.created, UTC)
        subject = f"{self.kind} {self.source}".strip()
        return Received(
            ref=self.id,
            amount=MicroCredits(self.cents * MICRO_PER_CENT),
            at=at,
            memo=f"{subject} of {at:%Y-%m-%d %H:%M} UTC",
        )


class Stripe:
    """
    One Stripe account.

    Args:
        key: a restricted key that may read balances.
        url: the API's root; `/v1` is added.
        timeout_s: for one whole answer, from the first connection to the last byte.
        transport: how bytes travel; None for real sockets.
    """

    name = "stripe"

    def __init__(
        self,
        key: Secret,
        *,
        url: str,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/v1/balance_transactions"
        self._key = key
        self._timeout_s = timeout_s
        self._told: set[str] = set()
        self._client = tls.client(
            transport,
            {
                "accept": "application/json",
                "accept-encoding": "identity",
                "stripe-version": VERSION,
                "user-agent": "penstock",
            },
            timeout=timeout_s,
        )

    async def close(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def received(self, since: datetime) -> Sequence[Received]:
        """
        Everything available that was made since then, oldest first.

        Raises:
            SourceError: it could not be read, or not to the end.
            SourceBarred: the key is refused, is one of test mode, or may not read this.
        """
        if not _KEY.fullmatch(self._key.reveal()):
            raise SourceBarred("STRIPE_API_KEY is no key of Stripe's: it has other characters")
        if _TEST_KEY.match(self._key.reveal()):
            raise SourceBarred(
                "STRIPE_API_KEY is a key of Stripe's test mode, where no money is moved:"
                " put a live one there, or leave it empty"
            )
        made = [one for one in await self._made(since) if one.counts]
        self._tell_of_others([one for one in made if one.currency != CURRENCY])
        dollars = [one.received for one in made if one.currency == CURRENCY]
        # They come with the newest first, and a second may have several.
        dollars.reverse()
        return sorted(dollars, key=lambda one: one.at)

    async def _made(self, since: datetime) -> Sequence[_Transaction]:
        """Every transaction that was made since then, newest first, each once."""
        known: dict[str, _Transaction] = {}
        query = {"limit": str(PAGE_SIZE), "created[gte]": str(int(since.timestamp()))}
        for _ in range(PAGES_MAX):
            page, more = _listed(await self._read(query))
            before = len(known)
            for one in page:
                if known.setdefault(one.id, one) != one:
                    raise _odd(f"it lists {one.id} twice, and not the same")
            if not more:
                return list(known.values())
            if len(known) == before:
                raise _odd("it says that there is more, and does not go on")
            query["starting_after"] = page[-1].id
        raise _odd(f"it lists more than {PAGES_MAX * PAGE_SIZE} transactions")

    def _tell_of_others(self, others: Sequence[_Transaction]) -> None:
        """Say once of each that it is not booked."""
        new = [one for one in others if one.id not in self._told]
        if not new:
            return
        self._told.update(one.id for one in new)
        counts = sorted(Counter(one.currency for one in new).items())
        logger.warning(
            "stripe.received: not booked, since only US dollars are: %s",
            ", ".join(f"{count} in {currency}" for currency, count in counts),
        )

    async def _read(self, query: Mapping[str, str]) -> Any:
        """
        One answer's document.

        Raises:
            SourceError, SourceBarred
        """
        authorized = {"authorization": f"Bearer {self._key.reveal()}"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("GET", self._url, params=query, headers=authorized) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _odd(f"more than {ANSWER_BYTES_MAX // 1_000_000} MB came")
        except (TimeoutError, httpx.TimeoutException):
            raise SourceError(f"no whole answer from Stripe in {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Not as its cause: httpx's errors carry the request, and with it the key.
            said = self._line(f"{type(error).__name__}: {error}")
            raise SourceError(f"Stripe cannot be reached: {said}") from None
        document = _json(body)
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response, _said(document))
        return document

    def _refusal(self, response: httpx.Response, said: str) -> SourceError:
        status = response.status_code
        problem = f"Stripe answers HTTP {status}" + (f": {self._line(said)}" if said else "")
        match status:
            case 401:
                return SourceBarred(
                    f"{problem}; the key is refused: make a new restricted key at"
                    " https://dashboard.stripe.com/apikeys for STRIPE_API_KEY"
                )
            case 403:
                return SourceBarred(
                    f"{problem}; the key may not read this: give it Read on Balance at"
                    " https://dashboard.stripe.com/apikeys, and look whether it is limited to"
                    " other addresses"
                )
            case _ if status in (408, 409, 424, 425, 429) or status >= 500:
                return SourceError(problem)
            case _:
                return SourceBarred(f"{problem}; look at STRIPE_URL, and upgrade Penstock")

    def _line(self, text: str) -> str:
        """Somebody else's words on one line, without our key."""
        shown = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(shown.replace(self._key.reveal(), "***").split())[:SAID_CHARS_MAX]


def _listed(document: Any) -> tuple[list[_Transaction], bool]:
    """A page, and whether there is another; raises SourceError where it is not quite that."""
    page = document.get("data") if isinstance(document, dict) else None
    more = document.get("has_more") if isinstance(document, dict) else None
    if not isinstance(page, list) or not isinstance(more, bool):
        raise _odd("it does not list transactions as Stripe does; look at STRIPE_URL")
    # What cannot be read may be the very one that was paid, so that none of the rest counts either.
    return [_transaction(item) for item in page], more


def _transaction(item: Any) -> _Transaction:
    if not isinstance(item, dict):
        raise _odd("it lists something that is no transaction")
    name = _word(item, "id", "one")
    source, balance = item.get("source"), item.get("balance_type")
    return _Transaction(
        id=name,
        kind=_word(item, "type", name),
        status=_word(item, "status", name),
        currency=_word(item, "currency", name).lower(),
        balance=balance if isinstance(balance, str) else "",
        created=_whole(item, "created", name, 0, CREATED_MAX),
        net=_whole(item, "net", name, -CENTS_MAX, CENTS_MAX),
        amount=_whole(item, "amount", name, -CENTS_MAX, CENTS_MAX),
        source=source if isinstance(source, str) and _WORD.fullmatch(source) else "",
    )


def _word(item: Mapping[str, Any], field: str, name: str) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise _odd(f"it lists {name} without a proper {field}")
    return value


def _whole(item: Mapping[str, Any], field: str, name: str, least: int, most: int) -> int:
    value = item.get(field)
    # A bool is an int to Python, and a float is no count of anything.
    if type(value) is not int or not least <= value <= most:
        raise _odd(f"it lists {name} without a proper {field}")
    return value


def _odd(what: str) -> SourceError:
    return SourceError(f"Stripe could not be read: {what}")


def _json(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _said(document: Any) -> str:
    """What an error says about itself; a web page says nothing."""
    error = document.get("error") if isinstance(document, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    return said if isinstance(said, str) else ""
