"""
Journaled steps: each is done once, however often the run is begun again.

A finished step answers from the journal. A step that asks a model stores its output in the
transaction that settles the cost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection

from daemon import control, journal
from daemon.books import Books
from daemon.clock import Clock
from daemon.control import Paused
from daemon.inference.asking import Asker, NoAnswer, Question
from daemon.inference.ladder import Role, Rung, Tier
from daemon.inference.meter import Purpose
from daemon.journal import StepState
from daemon.progress import Progress
from ledger.errors import NotAllowed
from ledger.money import MicroCredits

T = TypeVar("T", bound=BaseModel)
Output = dict[str, Any]


class Steps:
    """The steps of one run."""

    def __init__(
        self,
        run: str,
        *,
        books: Books,
        clock: Clock,
        asker: Asker,
        tier: Tier,
        rungs: Mapping[Role, Sequence[Rung]],
        shares: Mapping[Role, MicroCredits],
        progress: Progress,
        gate: control.Gate,
    ) -> None:
        self.run = run
        self.tier = tier
        self._books = books
        self._clock = clock
        self._asker = asker
        self.rungs = rungs
        self._shares = shares
        self._progress = progress
        self._gate = gate

    async def work(
        self,
        name: str,
        act: Callable[[], Awaitable[Output]],
        also: Callable[[Connection, Output], None] = lambda tx, output: None,
    ) -> Output:
        """
        Do a step that no model is asked for.

        Args:
            also: what else to store in the transaction that ends the step.
        """
        row = await self._begin(name)
        if row is not None:
            return dict(row)
        output = await act()
        async with self._books.write() as tx:
            journal.finish_step(tx, self.run, name, output, self._clock.now())
            also(tx, output)
        self._progress.step(self.run, name, StepState.DONE)
        return output

    async def ask(
        self,
        name: str,
        role: Role,
        question: Question[T],
        also: Callable[[Connection, T], None] = lambda tx, answer: None,
        rungs: Sequence[Rung] | None = None,
    ) -> T:
        """
        Do a step that is one question to a role's ladder.

        Args:
            also: what else to store in the transaction that ends the step.
            rungs: others than the role's own, or in another order.
        Raises:
            NoAnswer, NotAllowed: see `Asker.ask`; the step is marked failed.
            Paused: before anything is asked.
        """
        row = await self._begin(name, asks=True)
        if row is not None:
            return question.schema.model_validate(row)

        def store(tx: Connection, answer: T) -> None:
            output = answer.model_dump(mode="json")
            journal.finish_step(tx, self.run, name, output, self._clock.now())
            also(tx, answer)

        try:
            answer = await self._asker.ask(
                question,
                Purpose(self.run, name, role, self._shares.get(role)),
                self.rungs[role] if rungs is None else rungs,
                store,
            )
        except (NoAnswer, NotAllowed) as error:
            async with self._books.write() as tx:
                journal.fail_step(tx, self.run, name, str(error), self._clock.now())
            self._progress.step(self.run, name, StepState.FAILED, str(error))
            raise
        finally:
            for note in self._asker.notes(self.run, name):
                await self.remark("ladder", f"{name}: {note}")
        self._progress.step(self.run, name, StepState.DONE)
        return answer

    def decide(self, tx: Connection, kind: str, sentence: str, inputs: Mapping[str, Any]) -> None:
        """Record a decision of this run in an open transaction."""
        journal.decide(
            tx, run=self.run, kind=kind, sentence=sentence, inputs=inputs, at=self._clock.now()
        )
        self._progress.note(self.run, sentence)

    async def remark(self, kind: str, sentence: str) -> None:
        """Record a decision in a transaction of its own."""
        async with self._books.write() as tx:
            self.decide(tx, kind, sentence, {})

    async def _begin(self, name: str, *, asks: bool = False) -> Any | None:
        """The stored output of a finished step, or None after marking it begun."""
        with self._books.read() as tx:
            row = journal.step(tx, self.run, name)
            pause = self._gate.shut(tx)
        if row is not None and row.state == StepState.DONE:
            self._progress.step(self.run, name, "kept")
            return row.output
        if asks and pause is not None:
            raise Paused(pause)
        async with self._books.write() as tx:
            journal.begin_step(tx, self.run, name, self._clock.now())
        self._progress.step(self.run, name, StepState.RUNNING)
        return None
