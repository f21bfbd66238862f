"""
One structured question, asked down a ladder until somebody answers it well.

Per rung: the request, retries where nothing was billed, the answer formats the model accepts, and
at most one repair that shows what was wrong. An answer that reached the journal is read from
there and not bought again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """

    name: str
    schema: type[T]
    system: str
    prompt: str
    output_tokens_max: int
    shorter: Callable[[], Question[T]] | None = None


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
        self._formats: dict[Rung, AnswerFormat] = {}
        self._limit_fields: dict[Rung, str] = {}
        self._exhausted: set[str] = set()
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
        if rung.provider in self._exhausted:
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
                answer = parse(reply.text, question.schema, cut=reply.cut)
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
                answer = parse(text, question.schema, cut=cut)
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
        for _ in range(REQUESTS_MAX):
            reply = await self._meter.call(purpose, self._build(question, prompt, rung), keep)
            if reply.outcome is Outcome.OK:
                return reply
            if reply.outcome is Outcome.UNKNOWN or not self._may_repeat(rung, reply):
                raise _RungFailed(reply.error)
            if reply.outcome is Outcome.UNSENT or reply.http_status == RATE_LIMITED:
                waits += 1
                if waits > 2:
                    raise _RungFailed(reply.error)
                await self._clock.sleep(_wait(reply, waits))
        raise _RungFailed("it accepts none of the ways we ask")

    def _build(self, question: Question[T], prompt: str, rung: Rung) -> ModelRequest:
        options = self._options.get(rung, ModelOptions())
        return ModelRequest(
            rung=rung,
            system=question.system,
            prompt=prompt,
            schema_name=question.name,
            schema=json_schema(question.schema),
            output_tokens_max=options.output_tokens_max or question.output_tokens_max,
            timeout_s=options.timeout_s or self._call_timeout_s,
            answer_format=self._formats.get(rung, AnswerFormat.JSON_SCHEMA),
            limit_field=self._limit_fields.get(rung, "max_tokens"),
            effort=options.effort,
        )

    def _may_repeat(self, rung: Rung, reply: ModelReply) -> bool:
        """Learn from a refusal; True when the same rung is worth another request."""
        said = f"{reply.error} {reply.error_body}".lower()
        if reply.outcome is Outcome.UNSENT:
            return True
        if reply.http_status == PAYMENT_REQUIRED or (
            reply.http_status == RATE_LIMITED and ("quota" in said or "credit" in said)
        ):
            self._exhausted.add(rung.provider)
            return False
        if reply.http_status == RATE_LIMITED:
            return True
        if reply.http_status not in (400, 422):
            return False
        if "max_completion_tokens" in said and rung not in self._limit_fields:
            self._limit_fields[rung] = "max_completion_tokens"
            return True
        # Endpoints name the format they do not take in many ways, or not at all; asking in the
        # next one costs nothing, since a refusal is not billed.
        now = FORMATS.index(self._formats.get(rung, AnswerFormat.JSON_SCHEMA))
        if now + 1 < len(FORMATS):
            self._formats[rung] = FORMATS[now + 1]
            return True
        return False


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
