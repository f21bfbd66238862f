"""
The meter every paid request passes: hold, send, settle.

One HTTP request is one hold and one row. The hold is the worst case and is checked against the
balance, the reserve, the run's budget and the rolling caps in its own transaction. What cannot be
known stays held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from daemon import alerts
from daemon.books import Books
from daemon.clock import Clock
from daemon.control import Gate
from daemon.governor import Policy
from daemon.inference import attempts
from daemon.inference.ladder import Role, Rung
from daemon.inference.port import Model, ModelReply, ModelRequest, Outcome
from daemon.inference.prices import OWN, Price, PriceBook, UnknownPrice
from ledger import store
from ledger.errors import NotAllowed
from ledger.money import ZERO, MicroCredits

OnSettled = Callable[[Connection, ModelReply], None]


@dataclass(frozen=True, slots=True)
class Purpose:
    """
    What a request is for: the run, its step, and the role that asks.

    Args:
        share: what the run may have spent by the end of this role's stage, open holds included;
            None for all of its budget.
    """

    run: str
    step: str
    role: Role
    share: MicroCredits | None = None


class Meter:
    """
    Sends requests and books them.

    Args:
        models: by provider name.
        policy: reserve, run budget and caps; `run_budget` counts the run's open holds.
        gate: what every request passes, in the transaction of its hold.
    """

    def __init__(
        self,
        *,
        books: Books,
        models: Mapping[str, Model],
        prices: PriceBook,
        policy: Policy,
        clock: Clock,
        gate: Gate,
    ) -> None:
        self._books = books
        self._models = models
        self._prices = prices
        self._policy = policy
        self._clock = clock
        self._gate = gate
        self._in_flight: dict[str, dict[str, MicroCredits]] = {}
        self._settled = asyncio.Event()
        self._turn = asyncio.Lock()
        # Models that billed above their hold: their price is wrong until a person has looked.
        self.rested: set[Rung] = set()

    async def call(
        self, purpose: Purpose, request: ModelRequest, on_settled: OnSettled
    ) -> ModelReply:
        """
        Send one request, once.

        Args:
            on_settled: stores what was bought, in the transaction that settles it.
        Raises:
            NotAllowed: the hold would pass a limit, and no sibling is left to settle and make room.
            Paused: the operator paused Penstock, or the process is to end.
        """
        price = self._prices.price(request.rung, self._clock.now())
        body = self._models[request.rung.provider].body(request)
        worst = price.worst_case(input_max=len(body), output_max=request.output_tokens_max)
        siblings = self._in_flight.setdefault(purpose.run, {})
        attempt = await self._hold(purpose, request, price, worst, siblings)
        started = self._clock.monotonic()
        try:
            reply = await self._models[request.rung.provider].send(request)
            await self._settle(purpose, attempt, request.rung, price, reply, started, on_settled)
        finally:
            del siblings[attempt]
            self._settled.set()
            self._settled = asyncio.Event()
        return reply

    async def _hold(
        self,
        purpose: Purpose,
        request: ModelRequest,
        price: Price,
        worst: MicroCredits,
        siblings: dict[str, MicroCredits],
    ) -> str:
        """Hold the worst case and record the attempt; waits for siblings where that helps."""
        while True:
            settled = self._settled
            # One at a time: whoever waits for another writer is among nobody's siblings yet.
            async with self._turn:
                held = sum(siblings.values(), start=ZERO)
                # A kill leaves every request in flight held, and the run must afford to go on: side
                # by side they may hold two thirds of its budget.
                if not siblings or (held + worst) * 3 <= self._policy.run_budget * 2:
                    try:
                        attempt = await self._try_hold(purpose, request, price, worst)
                    except NotAllowed:
                        if not siblings:
                            raise
                    else:
                        siblings[attempt] = worst
                        return attempt
            await settled.wait()

    async def _try_hold(
        self, purpose: Purpose, request: ModelRequest, price: Price, worst: MicroCredits
    ) -> str:
        now = self._clock.now()
        async with self._books.write() as tx:
            self._gate.pass_through(tx)
            attempt = attempts.next_id(tx, purpose.run)
            hold = f"hold:{attempt}"
            store.hold(
                tx,
                id=hold,
                account=f"inference:{request.rung.provider}",
                amount=worst,
                at=now,
                limits=limits(self._policy, purpose, now),
                run=purpose.run,
                attempt=attempt,
            )
            attempts.begin(
                tx,
                id=attempt,
                at=now,
                run=purpose.run,
                step=purpose.step,
                role=purpose.role,
                provider=request.rung.provider,
                model=request.rung.model,
                price_input=price.input,
                price_cached=price.cached,
                price_output=price.output,
                price_cache_write=price.cache_write,
                price_source=price.source,
                hold=hold,
            )
        return attempt

    async def _settle(
        self,
        purpose: Purpose,
        attempt: str,
        rung: Rung,
        price: Price,
        reply: ModelReply,
        started: float,
        on_settled: OnSettled,
    ) -> None:
        hold, now = f"hold:{attempt}", self._clock.now()
        record = {
            "outcome": reply.outcome,
            "http_status": reply.http_status,
            "model_returned": reply.model_returned,
            "usage": asdict(reply.usage) if reply.usage else None,
            "duration_ms": round((self._clock.monotonic() - started) * 1000),
            "answer": reply.text,
            "cut": int(reply.cut),
            "error": reply.error or None,
            "remote_id": reply.remote_id,
        }
        async with self._books.write() as tx:
            if reply.outcome is Outcome.OK:
                billed = self._price_of(rung, reply, price)
                own = billed.cost(reply.usage) if reply.usage else None
                actual = reply.reported_cost if reply.reported_cost is not None else own
                assert actual is not None, "an answer without usage or cost is no OK"
                overrun = store.settle(tx, hold, actual=actual, at=now)
                if overrun:
                    self.rested.add(rung)
                    said = (
                        f"{rung} billed {actual} for a request that its price allows"
                        f" {actual - overrun} at most; it rests until a restart or a reload"
                    )
                    alerts.sound(tx, alerts.Kind.OVERRUN, str(rung), said, at=now, run=purpose.run)
                record |= {
                    "cost_micro": actual.micro,
                    "own_cost_micro": own.micro if own is not None else None,
                    "price_input": billed.input,
                    "price_cached": billed.cached,
                    "price_output": billed.output,
                    "price_cache_write": billed.cache_write,
                    "price_source": billed.source,
                }
                on_settled(tx, reply)
            elif reply.outcome in (Outcome.REFUSED, Outcome.UNSENT):
                store.void(tx, hold, at=now, memo=reply.error)
                record["cost_micro"] = 0
            attempts.complete(tx, attempt, **record)

    def _price_of(self, asked: Rung, reply: ModelReply, price: Price) -> Price:
        """The price of the model that answered, where it has one, else of the one asked for."""
        if reply.model_returned in (None, asked.model):
            return price
        returned = Rung(asked.provider, str(reply.model_returned))
        if price.source == OWN:
            # A model is asked for by one name and answers by another: no list overrides the
            # operator, and no `provider/*` what may be their line for the name asked for.
            return self._prices.own.get(str(returned), price)
        try:
            return self._prices.price(returned, self._clock.now())
        except UnknownPrice:
            return price


def limits(policy: Policy, purpose: Purpose, now: datetime) -> store.Limits:
    """What a hold for this purpose may not pass."""
    share = store.Cap("the run's budget (PENSTOCK_RUN_BUDGET)", policy.run_budget, run=purpose.run)
    if purpose.share is not None and purpose.share < policy.run_budget:
        share = store.Cap(
            f"the share of {purpose.role} in the run's budget (PENSTOCK_RUN_BUDGET)",
            purpose.share,
            run=purpose.run,
        )
    return store.Limits(
        reserve=policy.reserve,
        caps=(
            share,
            store.Cap(
                "the cap on 24 hours (PENSTOCK_DAILY_CAP)",
                policy.daily_cap,
                since=now - timedelta(days=1),
            ),
            store.Cap(
                "the cap on 30 days (PENSTOCK_MONTHLY_CAP)",
                policy.monthly_cap,
                since=now - timedelta(days=30),
            ),
        ),
    )
