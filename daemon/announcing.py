"""
The words under which an article is announced elsewhere.

A model is asked, once more where the desk refuses what it wrote, and then no more: the article says
of itself what it is about. Nothing here fails a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon import journal, packaging, proof
from daemon.books import Books
from daemon.crew import publicist
from daemon.crew.brief import Brief
from daemon.crew.schemas import Announcement
from daemon.desk import house
from daemon.desk.house import Context, Manuscript
from daemon.inference import attempts
from daemon.inference.asking import NoAnswer, Question
from daemon.inference.ladder import Role
from daemon.inference.port import Outcome
from daemon.journal import StepState
from daemon.steps import Output, Steps
from ledger.errors import NotAllowed

STEPS = ("announcement", "announcement-again")
# Requests that are paid for, or may be: with as many behind it nobody is asked again. What may come
# on top is the one repair that any answer gets which cannot be read.
REQUESTS_MAX = 2


@dataclass(frozen=True, slots=True)
class Announcer:
    """Makes announcements out of articles that have passed the desk."""

    books: Books
    brief: Brief
    secrets: Sequence[str]

    async def words(self, steps: Steps, manuscript: Manuscript) -> tuple[str, ...]:
        """
        The posts, several for a thread; kept, so that asking again is free.

        A digest has none: it goes nowhere that announces.

        Raises:
            Paused: before anything is asked.
        """
        with self.books.read() as tx:
            row = journal.run(tx, steps.run)
            assert row is not None
            kept = packaging.announced(tx, steps.run)
            if kept or row.kind == journal.DIGEST:
                return kept
            context = proof.of_run(tx, steps.run, self.brief, self.secrets)
        posts = await self._asked(steps, manuscript, context) or _by_code(manuscript, context)

        async def act() -> Output:
            return {"posts": list(posts)}

        return tuple((await steps.work(packaging.PUBLICIST, act))["posts"])

    async def _asked(
        self, steps: Steps, manuscript: Manuscript, context: Context
    ) -> tuple[str, ...]:
        """A model's posts as far as the desk takes them; none, with a remark, where it does not."""
        question = publicist.announcement(self.brief, manuscript, context.claims)
        why = ""
        for name in STEPS:
            answer = await self._answer(steps, name, question)
            if isinstance(answer, str):
                why = "; ".join(filter(None, (why, answer)))
                break
            posts = house.mended_posts(answer.posts)
            found = [str(f) for f in house.inspect_announcement(posts, context) if f.refuses]
            if not found:
                return posts
            why = f"the desk refused the announcement: {'; '.join(found)}"
            question = publicist.again(question, posts, found)
        await steps.remark("announce", f"the article announces itself: {why}")
        return ()

    async def _answer(
        self, steps: Steps, name: str, question: Question[Announcement]
    ) -> Announcement | str:
        """What the first rung says that says something usable, or why none does."""
        failures: list[str] = []
        for rung in steps.rungs[Role.EDIT]:
            if not self._may_ask(steps.run, name):
                failures.append(f"{REQUESTS_MAX} requests are enough")
                break
            try:
                return await steps.ask(name, Role.EDIT, question, rungs=[rung])
            except (NoAnswer, NotAllowed) as error:
                failures.append(str(error))
        return "; ".join(failures) or "no model is left on the ladder"

    def _may_ask(self, run: str, name: str) -> bool:
        with self.books.read() as tx:
            step = journal.step(tx, run, name)
            made = [row for row in attempts.of_run(tx, run) if row.step in STEPS]
        paid = [row for row in made if row.outcome in (Outcome.OK, Outcome.UNKNOWN)]
        # One that is done is read from the journal.
        return len(paid) < REQUESTS_MAX or (step is not None and step.state == StepState.DONE)


def _by_code(manuscript: Manuscript, context: Context) -> tuple[str, ...]:
    """The article's own words, which the desk has passed as such; as posts where it passes them."""
    tried = [house.mended_posts([text]) for text in publicist.by_code(manuscript)]
    passed = (posts for posts in tried if not house.inspect_announcement(posts, context))
    return next(passed, tried[-1] or (manuscript.title,))
