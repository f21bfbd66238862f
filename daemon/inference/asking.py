"""
One structured question, asked down a ladder until somebody answers it well.

Per rung: the request, retries where nothing was billed, the answer formats the model accepts, and
at most one repair that shows what was wrong. An answer that reached the journal is read from
there and not bought again.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection

from daemon.books import Books
from daemon.clock import Clock
from daemon.inference import attempts, breaker
from daemon.inference.answers import InvalidAnswer, json_schema, parse
from daemon.inference.ladder import Rung
from daemon.inference.meter import Meter, Purpose
from daemon.inference.port import AnswerFormat, ModelOptions, ModelReply, ModelRequest, Outcome
from ledger.errors import NotAllowed

T = TypeVar("T", bound=BaseModel)

FORMATS = tuple(AnswerFormat)
# Requests to one rung for one answer, format changes and retries included.
REQUESTS_MAX = 6
WAIT_MAX_S = 60.0
WAIT_DEFAULT_S = 2.0
RATE_LIMITED = 429
# The provider's account is empty or its quota used up: waiting seconds will not help.
PAYMENT_REQUIRED = 402
# How providers name it where the status is 429: OpenAI, OpenRouter, Anthropic, DeepSeek, gateways.
_USED_UP = re.compile(
    r"insufficient_quota|exceeded your current quota|openrouter_key_limit|openrouter_credits"
    r"|enforced_spend_limit_reached|insufficient (balance|credits)|out of credits"
    r"|free-models-per-day"
)
_THROTTLED = (PAYMENT_REQUIRED, RATE_LIMITED)
# OpenRouter's 402 for money that is only held for requests under way: it passes.
_IN_FLIGHT = "openrouter_in_flight_budget"


class NoAnswer(Exception):
    """No rung of the ladder gave a usable answer; the message has each one's reason."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """
    What is asked.

    Args:
        name: the schema's name on the wire.
        system: stable across calls of a role, so that provider caches hit.
        shorter: the same with less to read, for when the books do not allow this one; None where
            nothing can be left out.
        whole: an answer without its tail is worth nothing, and is not mended.
    """

    name: str
    schema: type[T]
    system: str
    prompt: str
    output_tokens_max: int
    shorter: Callable[[], Question[T]] | None = None
    whole: bool = False


LIMIT_FIELD_NEW = "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a model is asked: the format of its answer, and the name of the output limit."""

    answer_format: AnswerFormat = AnswerFormat.JSON_SCHEMA
    limit_field: str = "max_tokens"


class Asker:
    """Asks questions; remembers per model which answer format and limit field it takes."""

    def __init__(
        self,
        *,
        books: Books,
        meter: Meter,
        options: Mapping[Rung, ModelOptions],
        call_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._books = books
        self._meter = meter
        self._options = options
        self._call_timeout_s = call_timeout_s
        self._clock = clock
        self._manners: dict[Rung, _Manner] = {}
        # By the clock that is never set.
        self._used_up_until: dict[str, float] = {}
        self._notes: dict[tuple[str, str], list[str]] = {}

    async def ask(
        self,
        question: Question[T],
        purpose: Purpose,
        rungs: Sequence[Rung],
        store: Callable[[Connection, T], None],
    ) -> T:
        """
        Get a valid answer from the first rung that gives one.

        Args:
            store: keeps the valid answer, in the transaction that settles its cost.
        Raises:
            NoAnswer: every rung failed.
            NotAllowed: the books allow no rung's request, and none has answered.
        """
        with self._books.read() as tx:
            bought = attempts.answered(tx, purpose.run, purpose.step)
        failures: list[str] = []
        refusal: NotAllowed | None = None
        for rung in rungs:
            replayed = deque(
                row for row in bought if (row.provider, row.model) == (rung.provider, rung.model)
            )
            if not replayed and (reason := self._rests(rung)):
                failures.append(f"{rung} rests: {reason}")
                continue
            try:
                answer = await self._ask_shortening(question, purpose, rung, replayed, store)
            except NotAllowed as error:
                refusal = error
                failures.append(f"{rung}: {error}")
            except (InvalidAnswer, _RungFailed) as error:
                failures.append(f"{rung}: {error}")
            else:
                if failures:
                    self._note(purpose, f"{rung} answered after {'; '.join(failures)}")
                return answer
        if refusal is not None and len(failures) == 1:
            raise refusal
        raise NoAnswer("; ".join(failures) or "no model is left on the ladder")

    def notes(self, run: str, step: str) -> list[str]:
        """What a step's ladder went through since this was last asked, in words."""
        return self._notes.pop((run, step), [])

    def _note(self, purpose: Purpose, line: str) -> None:
        self._notes.setdefault((purpose.run, purpose.step), []).append(line)

    def _rests(self, rung: Rung) -> str | None:
        """Why a rung is not asked now, or None."""
        if rung in self._meter.rested:
            return "it billed more than its price says"
        if self._used_up_until.get(rung.provider, -math.inf) > self._clock.monotonic():
            return "its provider's account is used up"
        now = self._clock.now()
        with self._books.read() as tx:
            tries = attempts.tries(tx, rung.provider, since=now - breaker.LOOK_BACK)
        until = breaker.rests_until(tries, rung.model, now)
        return None if until is None else f"it kept failing, until {until:%H:%M} UTC"

    async def _ask_shortening(
        self,
        question: Question[T],
        purpose: Purpose,
        rung: Rung,
        replayed: deque[Any],
        store: Callable[[Connection, T], None],
    ) -> T:
        """Ask one rung; where the books do not allow it, with less and less to read."""
        while True:
            try:
                return await self._ask_rung(question, purpose, rung, replayed, store)
            except NotAllowed as error:
                if question.shorter is None:
                    raise
                self._note(purpose, f"less is read by {rung}: {error}")
                question = question.shorter()

    async def _ask_rung(
        self,
        question: Question[T],
        purpose: Purpose,
        rung: Rung,
        replayed: deque[Any],
        store: Callable[[Connection, T], None],
    ) -> T:
        """The answer, or its repair."""
        prompt, answers = question.prompt, []

        def keep(tx: Connection, reply: ModelReply) -> None:
            try:
                answer = parse(reply.text, question.schema, cut=reply.cut, whole=question.whole)
            except InvalidAnswer:
                return
            answers.append(answer)
            store(tx, answer)

        for is_repair in (False, True):
            if replayed:
                row = replayed.popleft()
                text, cut = row.answer, bool(row.cut)
            else:
                reply = await self._request(question, prompt, purpose, rung, keep)
                text, cut = reply.text, reply.cut
            if answers:
                return answers[0]
            try:
                answer = parse(text, question.schema, cut=cut, whole=question.whole)
            except InvalidAnswer as error:
                if is_repair:
                    raise
                prompt = _with_repair(question.prompt, text, error)
                continue
            # Read from the journal: bought before, and now it is what the step came to.
            async with self._books.write() as tx:
                store(tx, answer)
            return answer
        raise AssertionError("the repair either returned or raised")

    async def _request(
        self,
        question: Question[T],
        prompt: str,
        purpose: Purpose,
        rung: Rung,
        keep: Callable[[Connection, ModelReply], None],
    ) -> ModelReply:
        """One answered request; repeats only what is known to be unbilled."""
        waits = 0
        manner = self._manners.get(rung, _Manner())
        for _ in range(REQUESTS_MAX):
            request = self._build(question, prompt, rung, manner)
            reply = await self._meter.call(purpose, request, keep)
            if reply.outcome is Outcome.OK:
                # Only what has worked is remembered: a refusal may have had another reason.
                self._manners[rung] = manner
                return reply
            if reply.outcome is Outcome.UNKNOWN:
                raise _RungFailed(reply.error)
            if _is_used_up(reply):
                rested_s = breaker.REST.total_seconds()
                self._used_up_until[rung.provider] = self._clock.monotonic() + rested_s
                raise _RungFailed(reply.error)
            if reply.outcome is Outcome.UNSENT or reply.http_status in _THROTTLED:
                waits += 1
                if waits > 2:
                    raise _RungFailed(reply.error)
                await self._clock.sleep(_wait(reply, waits))
                continue
            changed = _other_manner(manner, reply)
            if changed is None:
                raise _RungFailed(reply.error)
            manner = changed
        raise _RungFailed("it accepts none of the ways we ask")

    def _build(
        self, question: Question[T], prompt: str, rung: Rung, manner: _Manner
    ) -> ModelRequest:
        options = self._options.get(rung, ModelOptions())
        return ModelRequest(
            rung=rung,
            system=question.system,
            prompt=prompt,
            schema_name=question.name,
            schema=json_schema(question.schema),
            output_tokens_max=options.output_tokens_max or question.output_tokens_max,
            timeout_s=options.timeout_s or self._call_timeout_s,
            answer_format=manner.answer_format,
            limit_field=manner.limit_field,
            effort=options.effort,
        )


def _is_used_up(reply: ModelReply) -> bool:
    """Whether there is nothing left to pay with, so that waiting seconds does not help."""
    if reply.http_status == PAYMENT_REQUIRED:
        return _IN_FLIGHT not in _said(reply)
    return reply.http_status == RATE_LIMITED and _USED_UP.search(_said(reply)) is not None


def _other_manner(manner: _Manner, reply: ModelReply) -> _Manner | None:
    """Another way to put a question that was refused; None where there is none."""
    if reply.http_status not in (400, 422):
        return None
    said = _said(reply)
    if LIMIT_FIELD_NEW in said and manner.limit_field != LIMIT_FIELD_NEW:
        return replace(manner, limit_field=LIMIT_FIELD_NEW)
    # Endpoints name the format they do not take in many ways, or not at all; asking in the
    # next one costs nothing, since a refusal is not billed.
    later = FORMATS[FORMATS.index(manner.answer_format) + 1 :]
    return replace(manner, answer_format=later[0]) if later else None


def _said(reply: ModelReply) -> str:
    return f"{reply.error} {reply.error_body}".lower()


class _RungFailed(Exception):
    """This rung gives no answer to this question now."""


def _wait(reply: ModelReply, waits: int) -> float:
    """Seconds before the next try: what the endpoint asks, within our own bounds."""
    asked = reply.retry_after_s
    if asked is None or not asked >= 0:
        asked = WAIT_DEFAULT_S**waits
    return min(asked, WAIT_MAX_S)


def _with_repair(prompt: str, answer: str | None, error: InvalidAnswer) -> str:
    shown = (answer or "").strip()[:2000]
    return (
        f"{prompt}\n\nYour last answer could not be used: {error}\n"
        f"It began:\n{shown}\n\nAnswer again, completely, as one JSON document."
    )
