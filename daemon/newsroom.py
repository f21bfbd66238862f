"""
How a run comes to its text: scout, read, research, write, edit, desk.

Code directs; models answer single questions. Every loop has a hard bound, and every way out that
is not an article is an exception that says why.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection

from daemon import journal, packaging, proof
from daemon.announcing import Announcer
from daemon.books import Books
from daemon.clock import Clock
from daemon.crew import digest as digests
from daemon.crew import editor, researcher, writer
from daemon.crew.board import claim_line
from daemon.crew.brief import Brief
from daemon.crew.digest import DigestItem
from daemon.crew.schemas import Draft, Notes, Plan, Review, Verdict
from daemon.desk import house, layout
from daemon.desk.evidence import Claim, Evidence, verify
from daemon.desk.evidence import Verdict as EvidenceVerdict
from daemon.desk.house import Finding, Manuscript
from daemon.estimate import QUESTIONS
from daemon.inference import attempts
from daemon.inference.asking import NoAnswer, Question
from daemon.inference.ladder import Ladder, Role, Rung, Tier
from daemon.journal import StepState
from daemon.reading import Abstain, Failed, Reading
from daemon.sources import archive
from daemon.sources.published import Earlier
from daemon.sources.text import sentences
from daemon.steps import Output, Steps
from ledger.errors import NotAllowed

# With less than this an article would be a guess; nothing has been paid for a draft yet.
CLAIMS_MIN = 3
DRAFTS_MAX = 3
RESEARCH_AGAIN_MAX = 2
# An editor who never approves does not stop a text that keeps every rule and scores this much,
# when no further draft can be had.
SCORE_MIN = 6


class StepDown(Exception):
    """No model is left before drafting, and the ladder ends in a digest."""


@dataclass(frozen=True, slots=True)
class Newsroom:
    """Makes articles and digests out of runs."""

    books: Books
    clock: Clock
    brief: Brief
    reading: Reading
    ladders: Mapping[Role, Ladder]
    secrets: Sequence[str]

    async def article(self, steps: Steps, topic: str | None) -> Manuscript:
        """
        Make an article.

        Raises:
            Abstain, StepDown, Failed, Paused
        """
        if (passed := self._passed(steps.run)) is not None:
            return passed
        locations = await self.reading.poll(steps)
        await self.reading.choose(steps, locations, topic)
        evidence = await self.reading.read(steps, topic)
        plan, _ = await asyncio.gather(
            self._planned(steps, evidence, topic),
            # The desk's parser takes a while to load, and the model takes longer to answer.
            asyncio.to_thread(house.get_ready),
        )
        evidence = await self.reading.widen(steps, plan)
        await self._research(steps, evidence, plan.questions[: QUESTIONS[steps.tier]])
        self._enough_claims(steps.run)
        with self.books.read() as tx:
            about = f"{plan.working_title} {plan.angle}"
            earlier = proof.earlier(tx, steps.run, about)
        return await self._write_and_edit(steps, evidence, plan, earlier)

    async def digest(self, steps: Steps, topic: str | None) -> Manuscript:
        """
        Make a digest from feed metadata.

        Raises:
            Abstain: too few new entries, or the desk refuses it.
        """
        if (passed := self._passed(steps.run)) is not None:
            return passed
        locations = await self.reading.poll(steps)
        relevant = await self.reading.gather(steps, locations, topic)
        # What it does not speak of, its title does not name.
        subject = (topic or next(iter(self.brief.niche), "")) if relevant else ""
        with self.books.read() as tx:
            items = [
                item for row in archive.used(tx, steps.run) if digests.usable(item := _item(row))
            ]
        if len(items) < digests.ITEMS_MIN:
            raise Abstain(f"{len(items)} new entries are too few for a digest")
        made = house.mended(digests.compose(items, self.brief, self.clock.now(), subject))
        refusals = [finding for finding in self._inspect(steps.run, made) if finding.refuses]
        if refusals:
            raise Abstain(f"the desk refused the digest: {'; '.join(map(str, refusals))}")
        return await self._desk(steps, made)

    async def announcement(self, steps: Steps, manuscript: Manuscript) -> tuple[str, ...]:
        """
        The posts that announce an article where a destination does that; asking again is free.

        Raises:
            Paused
        """
        announcer = Announcer(self.books, self.brief, self.secrets)
        return await announcer.words(steps, manuscript)

    async def _planned(
        self, steps: Steps, evidence: Mapping[str, Evidence], topic: str | None
    ) -> Plan:
        question = researcher.plan(self.brief, list(evidence.values()), topic)
        try:
            return await steps.ask("plan", Role.RESEARCH, question)
        except (NoAnswer, NotAllowed) as error:
            raise self._way_down(Role.RESEARCH, error) from error

    async def _research(
        self,
        steps: Steps,
        evidence: Mapping[str, Evidence],
        questions: Sequence[str],
        again: int = 0,
    ) -> None:
        """Work on every question side by side; one failing question does not sink the run."""
        first = 5 * again + 1
        results = await asyncio.gather(
            *(
                self._note(steps, evidence, f"notes-{number}", question)
                for number, question in enumerate(questions, start=first)
            ),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, (NoAnswer, NotAllowed)):
                raise failure
        if failures and len(failures) == len(results) and not again:
            raise self._way_down(Role.RESEARCH, failures[0]) from failures[0]
        for failure in failures:
            await steps.remark("research", f"a question stays unanswered: {failure}")

    async def _note(
        self, steps: Steps, evidence: Mapping[str, Evidence], name: str, question: str
    ) -> None:
        """Notes on one question; one more call where quotes do not stand in their source."""
        asked = researcher.notes(self.brief, list(evidence.values()), question)
        rejected = await self._pin(steps, evidence, name, asked)
        if rejected:
            candidates = _nearest(rejected, evidence)
            again = researcher.notes_again(
                asked, [f"{claim_line(claim)} — {why}" for claim, why in rejected], candidates
            )
            try:
                await self._pin(steps, evidence, f"{name}-again", again)
            except (NoAnswer, NotAllowed) as error:
                await steps.remark("research", f"{name} was not repaired: {error}")

    async def _pin(
        self,
        steps: Steps,
        evidence: Mapping[str, Evidence],
        name: str,
        question: Question[Notes],
    ) -> list[tuple[Claim, str]]:
        """Ask, check every claim, pin them to the board; returns those that failed, and why."""
        texts = {source.id: source.text for source in evidence.values()}
        titles = {source.id: source.title for source in evidence.values()}

        # Asked for twice: where claims are pinned, and below, also for those of an earlier life.
        @cache
        def checked(claims: tuple[Claim, ...]) -> list[EvidenceVerdict]:
            return [verify(claim, texts, titles) for claim in claims]

        def pin(tx: Connection, notes: Notes) -> None:
            journal.add_claims(tx, steps.run, name, checked(_noted(notes)))

        notes = await steps.ask(name, Role.RESEARCH, question, pin)
        return [(v.claim, v.remark or "") for v in checked(_noted(notes)) if not v.verified]

    def _claims(self, run: str) -> list[Claim]:
        with self.books.read() as tx:
            return proof.claims(tx, run)

    def _enough_claims(self, run: str) -> list[Claim]:
        claims = self._claims(run)
        if len(claims) < CLAIMS_MIN:
            raise Abstain(
                f"research found {len(claims)} claims that the sources bear out;"
                f" {CLAIMS_MIN} are needed for an article"
            )
        return claims

    async def _write_and_edit(
        self,
        steps: Steps,
        evidence: Mapping[str, Evidence],
        plan: Plan,
        earlier: Sequence[Earlier],
    ) -> Manuscript:
        """Draft, desk, review, and again within bounds, until it may appear."""
        last: Draft | None = None
        passable: Manuscript | None = None
        problems: list[str] = []
        for number in range(1, DRAFTS_MAX + 1):
            claims = self._enough_claims(steps.run)
            try:
                draft = await self._draft(steps, number, plan, claims, earlier, last, problems)
                manuscript = house.mended(_manuscript(draft))
                findings = self._inspect(steps.run, manuscript)
                review, _ = await asyncio.gather(
                    self._review(steps, f"review-{number}", claims, manuscript, findings, problems),
                    # Time that passes anyway; most drafts keep their title.
                    asyncio.to_thread(self._card, steps.run, manuscript),
                )
            except Failed as error:
                if passable is None:
                    raise
                await steps.remark("edit", f"the last good draft appears: {error}")
                break
            await self._drop_unsupported(steps, claims, review)
            if review.verdict is Verdict.APPROVE and steps.tier is Tier.SURPLUS:
                review = await self._agreed(
                    steps, number, claims, manuscript, findings, problems, first=review
                )
                await self._drop_unsupported(steps, claims, review)
            if self._claims(steps.run) != claims:
                findings = self._inspect(steps.run, manuscript)
            if not any(finding.refuses for finding in findings) and not review.unsupported:
                if review.verdict is Verdict.APPROVE:
                    return await self._desk(steps, manuscript)
                passable = manuscript if review.score >= SCORE_MIN else passable
            if review.verdict is Verdict.RESEARCH and number < DRAFTS_MAX:
                await self._research(
                    steps, evidence, review.questions[:RESEARCH_AGAIN_MAX], again=number
                )
            last = draft
            problems = [str(finding) for finding in findings] + _as_lines(review)
        # Claims may have gone since it was passed.
        if passable is not None and not any(f.refuses for f in self._inspect(steps.run, passable)):
            return await self._desk(steps, passable)
        refusals = [str(finding) for finding in findings if finding.refuses]
        raise Abstain(
            f"the desk refused the draft: {'; '.join(refusals)}"
            if refusals
            else f"the editor approved none of {DRAFTS_MAX} drafts (last score {review.score:g})"
        )

    async def _draft(
        self,
        steps: Steps,
        number: int,
        plan: Plan,
        claims: Sequence[Claim],
        earlier: Sequence[Earlier],
        last: Draft | None,
        problems: Sequence[str],
    ) -> Draft:
        links = [(article.title, str(article.url)) for article in earlier]
        question = (
            writer.draft(self.brief, plan, claims, links)
            if last is None
            else writer.revision(self.brief, plan, claims, links, last, problems)
        )
        try:
            return await steps.ask(f"draft-{number}", Role.WRITE, question)
        except (NoAnswer, NotAllowed) as error:
            if last is None:
                raise self._way_down(Role.WRITE, error) from error
            raise Failed(f"the writer gave up on the revision: {error}") from error

    async def _review(
        self,
        steps: Steps,
        name: str,
        claims: Sequence[Claim],
        manuscript: Manuscript,
        findings: Sequence[Finding],
        problems: Sequence[str],
        rungs: Sequence[Rung] | None = None,
    ) -> Review:
        shown = Draft(**asdict(manuscript))
        lines = [str(finding) for finding in findings]
        question = editor.review(self.brief, claims, shown, lines, problems)
        try:
            return await steps.ask(name, Role.EDIT, question, rungs=rungs)
        except (NoAnswer, NotAllowed) as error:
            raise Failed(f"no editor could be had: {error}") from error

    async def _agreed(
        self,
        steps: Steps,
        number: int,
        claims: Sequence[Claim],
        manuscript: Manuscript,
        findings: Sequence[Finding],
        problems: Sequence[str],
        *,
        first: Review,
    ) -> Review:
        """
        What two editors on different models agree on, a third settling where they do not.

        Where no second can be had the first one's word stands; where no third, the second's,
        who is the stricter.
        """
        said = first
        names = [f"review-{number}", f"review-{number}-second", f"review-{number}-third"]
        for at, name in enumerate(names[1:], start=1):
            others = self._other_editors(steps, names[:at])
            if not others:
                await steps.remark("edit", f"{name}: no other editing model is on the ladder")
                break
            try:
                said = await self._review(
                    steps, name, claims, manuscript, findings, problems, others
                )
            except Failed as error:
                await steps.remark("edit", f"{name}: {error}")
                break
            if said.verdict is Verdict.APPROVE and not said.unsupported:
                break
        return said

    def _other_editors(self, steps: Steps, names: Sequence[str]) -> list[Rung]:
        """The editing models that gave none of these reviews."""
        with self.books.read() as tx:
            gave = {
                (row.provider, row.model)
                for name in names
                for row in attempts.answered(tx, steps.run, name)
            }
        rungs = steps.rungs[Role.EDIT]
        return [rung for rung in rungs if (rung.provider, rung.model) not in gave]

    async def _drop_unsupported(
        self, steps: Steps, claims: Sequence[Claim], review: Review
    ) -> None:
        """Claims whose quotes do not bear them out go, though the quotes are real."""
        named = {" ".join(statement.casefold().split()) for statement in review.unsupported}
        dropped = [c.statement for c in claims if " ".join(c.statement.casefold().split()) in named]
        if dropped:
            async with self.books.write() as tx:
                journal.drop_claims(
                    tx, steps.run, dropped, "the editor: its quote does not bear it out"
                )

    def _inspect(self, run: str, manuscript: Manuscript) -> list[Finding]:
        """What the desk finds in a text, by what the journal has now."""
        with self.books.read() as tx:
            context = proof.of_run(tx, run, self.brief, self.secrets)
            return proof.findings(tx, run, manuscript, context)

    def _passed(self, run: str) -> Manuscript | None:
        """What has passed the desk, and may have been edited by a person since."""
        with self.books.read() as tx:
            desk = journal.step(tx, run, "desk")
            done = desk is not None and desk.state == StepState.DONE
            return packaging.manuscript(tx, run) if done else None

    async def _desk(self, steps: Steps, manuscript: Manuscript) -> Manuscript:
        """Store what may appear."""

        async def act() -> Output:
            return {"manuscript": asdict(manuscript)}

        picture = await asyncio.to_thread(self._card, steps.run, manuscript)

        def keep(tx: Connection, output: Output) -> None:
            journal.change_run(tx, steps.run, title=output["manuscript"]["title"])
            packaging.keep(tx, steps.run, manuscript, self.brief, picture)

        await steps.work("desk", act, keep)
        with self.books.read() as tx:
            return packaging.manuscript(tx, steps.run)

    def _card(self, run: str, manuscript: Manuscript) -> bytes:
        return packaging.drawn(manuscript.title, self.brief.publication, run)

    def _way_down(self, role: Role, error: BaseException) -> Exception:
        """Before drafting a ladder may end in a digest; otherwise the run ends here."""
        if self.ladders[role].ends_in_digest:
            return StepDown(f"no model is left for {role}: {error}")
        if isinstance(error, NotAllowed):
            return error
        return Failed(f"no model is left for {role}: {error}")


def _item(row: Any) -> DigestItem:
    return DigestItem(
        url=row.url, title=row.title, feed=layout.name(row.feed_title or "", [row.feed, row.url]),
        author=row.author, summary=row.summary, at=row.published_at or row.seen_at,
    )  # fmt: skip


def _manuscript(draft: Draft) -> Manuscript:
    return Manuscript(draft.title, draft.description, tuple(draft.tags), draft.markdown)


def _noted(notes: Notes) -> tuple[Claim, ...]:
    return tuple(Claim(c.statement, c.quote, c.source) for c in notes.claims)


def _as_lines(review: Review) -> list[str]:
    lines = [
        " ".join(filter(None, (f"{p.where}:" if p.where else "", p.problem, p.fix)))
        for p in review.problems
    ]
    return lines + [
        f"Leave this out, its source does not bear it out: {s}" for s in review.unsupported
    ]


def _nearest(rejected: Sequence[tuple[Claim, str]], evidence: Mapping[str, Evidence]) -> list[str]:
    """For each failed quote, sentences of its source that resemble it."""
    found: list[str] = []
    for claim, _ in rejected:
        if claim.source in evidence:
            known = sentences(evidence[claim.source].text)
            near = difflib.get_close_matches(claim.quote, known, n=2, cutoff=0.3)
            found += [f"[{claim.source}] {sentence}" for sentence in near]
    return list(dict.fromkeys(found))
