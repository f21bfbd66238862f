"""
How a run comes to its text: scout, read, research, write, edit, desk.

Code directs; models answer single questions. Every loop has a hard bound, and every way out that
is not an article is an exception that says why.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from daemon import journal
from daemon.books import Books
from daemon.clock import Clock
from daemon.crew import digest as digests
from daemon.crew import editor, researcher, scout, writer
from daemon.crew.board import claim_line
from daemon.crew.brief import Brief
from daemon.crew.digest import DigestItem
from daemon.crew.prompts import prompt
from daemon.crew.schemas import Draft, Notes, Plan, Review, Verdict
from daemon.desk import house, layout
from daemon.desk.evidence import Claim, Evidence, alike, verify
from daemon.desk.house import Context, Finding, Manuscript
from daemon.estimate import QUESTIONS
from daemon.inference.asking import NoAnswer, Question
from daemon.inference.ladder import Ladder, Role, Tier
from daemon.journal import ClaimRecord
from daemon.sources import archive
from daemon.sources.feeds import FeedReader
from daemon.sources.fetcher import FetchError
from daemon.sources.pages import TEXT_MIN, PageReader
from daemon.sources.policy import FeedPolicy
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


class Abstain(Exception):
    """There is nothing fit to publish; the message says why."""


class StepDown(Exception):
    """No model is left before drafting, and the ladder ends in a digest."""


class Failed(Exception):
    """The run cannot go on."""


@dataclass(frozen=True, slots=True)
class Newsroom:
    """Makes articles and digests out of runs."""

    books: Books
    clock: Clock
    brief: Brief
    feed_policy: FeedPolicy
    feeds: FeedReader
    pages: PageReader
    ladders: Mapping[Role, Ladder]
    secrets: Sequence[str]

    async def article(self, steps: Steps, topic: str | None) -> Manuscript:
        """
        Make an article.

        Raises:
            Abstain, StepDown, Failed, Paused
        """
        locations = await self._poll(steps)
        await self._scout(steps, locations, topic)
        evidence = await self._read(steps)
        plan = await self._planned(steps, evidence, topic)
        await self._research(steps, evidence, plan.questions[: QUESTIONS[steps.tier]])
        self._enough_claims(steps.run)
        return await self._write_and_edit(steps, evidence, plan)

    async def digest(self, steps: Steps) -> Manuscript:
        """
        Make a digest from feed metadata.

        Raises:
            Abstain: too few new entries, or the desk refuses it.
        """
        locations = await self._poll(steps)
        await self._gather(steps, locations)
        with self.books.read() as tx:
            items = [
                item for row in archive.used(tx, steps.run) if digests.usable(item := _item(row))
            ]
        if len(items) < digests.ITEMS_MIN:
            raise Abstain(f"{len(items)} new entries are too few for a digest")
        made = house.mended(digests.compose(items, self.brief, self.clock.now()))
        context = self._context(steps.run, {}, links=[item.url for item in items], cites=False)
        refusals = [finding for finding in house.inspect(made, context) if finding.refuses]
        if refusals:
            raise Abstain(f"the desk refused the digest: {'; '.join(map(str, refusals))}")
        return await self._desk(steps, made)

    async def _poll(self, steps: Steps) -> Sequence[str]:
        async def act() -> Output:
            poll = await self.feeds.poll(self.feed_policy.feeds)
            return {"locations": list(poll.locations), "problems": list(poll.problems)}

        found = await steps.work("feeds", act, self._remark(steps, "left out a feed: "))
        if not found["locations"]:
            raise Abstain("no feed could be read: " + "; ".join(found["problems"]))
        return list(found["locations"])

    async def _scout(self, steps: Steps, locations: Sequence[str], topic: str | None) -> None:
        async def act() -> Output:
            chosen = scout.choose(self._candidates(locations), niche=self.brief.niche, topic=topic)
            return asdict(chosen)

        await self._take(steps, "scout", act)

    async def _gather(self, steps: Steps, locations: Sequence[str]) -> None:
        async def act() -> Output:
            return asdict(scout.gather(self._candidates(locations), niche=self.brief.niche))

        await self._take(steps, "gather", act)

    async def _take(self, steps: Steps, name: str, act: Any) -> None:
        """Choose entries and mark them used, in one transaction."""

        def use(tx: Connection, chosen: Output) -> None:
            archive.use(tx, steps.run, list(chosen["urls"]))
            inputs = {"chosen": chosen["urls"], "scores": chosen["scores"]}
            steps.decide(tx, name, chosen["reason"], inputs)

        chosen = await steps.work(name, act, use)
        if not chosen["urls"]:
            raise Abstain(
                f"no feed has an entry of the last {self.feed_policy.fresh_days} days"
                " that was not used before"
            )

    def _candidates(self, locations: Sequence[str]) -> list[scout.Candidate]:
        since = self.clock.now() - timedelta(days=self.feed_policy.fresh_days)
        with self.books.read() as tx:
            return [
                scout.Candidate(
                    row.url, row.feed, row.title, row.summary, row.published_at or row.seen_at
                )
                for row in archive.unused(tx, locations, newer_than=since)
            ]

    async def _read(self, steps: Steps) -> Mapping[str, Evidence]:
        """Fetch what the chosen entries link to and keep it as the run's evidence."""
        with self.books.read() as tx:
            entries = {row.url: row for row in archive.used(tx, steps.run)}
            chosen = journal.step(tx, steps.run, "scout")
        assert chosen is not None
        order = [entries[url] for url in chosen.output["urls"] if url in entries]

        found: list[Evidence] = []

        async def act() -> Output:
            read = await asyncio.gather(*(self._read_one(entry) for entry in order))
            pages = [page for page, _ in read if page is not None]
            found.extend(Evidence(f"S{n}", *page) for n, page in enumerate(pages, start=1))
            return {"problems": [problem for _, problem in read if problem]}

        def keep(tx: Connection, output: Output) -> None:
            for source in found:
                journal.add_source(tx, steps.run, **asdict(source), fetched_at=self.clock.now())
            self._remark(steps)(tx, output)

        output = await steps.work("read", act, keep)
        with self.books.read() as tx:
            rows = journal.sources(tx, steps.run)
        if not rows:
            raise Abstain(
                "none of the chosen pages could be read: " + "; ".join(output["problems"])
            )
        return {row.id: Evidence(row.id, row.url, row.title, row.text) for row in rows}

    def _remark(self, steps: Steps, prefix: str = "") -> Callable[[Connection, Output], None]:
        """Keep the problems a step met as decisions of the run, once."""

        def remark(tx: Connection, output: Output) -> None:
            for problem in output["problems"]:
                steps.decide(tx, "left out", f"{prefix}{problem}", {})

        return remark

    async def _read_one(self, entry: Any) -> tuple[tuple[str, str, str] | None, str | None]:
        """Address, title and text of a page, or what its feed carries, or neither; and why."""
        try:
            page = await self.pages.read(entry.url)
        except FetchError as error:
            problem = f"could not read {entry.url}: {error}"
            if len(entry.text) < TEXT_MIN:
                return None, problem
            kept = (entry.url, entry.title, entry.text)
            return kept, f"{problem}; used what its feed carries"
        return (page.url, page.title, page.text), None

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

        def checked(notes: Notes) -> list[Any]:
            return [verify(Claim(c.statement, c.quote, c.source), texts) for c in notes.claims]

        def pin(tx: Connection, notes: Notes) -> None:
            journal.add_claims(
                tx,
                steps.run,
                name,
                [
                    ClaimRecord(**asdict(v.claim), verified=v.verified, remark=v.remark)
                    for v in checked(notes)
                ],
            )

        notes = await steps.ask(name, Role.RESEARCH, question, pin)
        return [(v.claim, v.remark) for v in checked(notes) if not v.verified]

    def _claims(self, run: str) -> list[Claim]:
        """Verified claims; of those that rest on the same words, the first."""
        with self.books.read() as tx:
            rows = journal.claims(tx, run)
        by_quote: dict[tuple[str, str], Claim] = {}
        for row in rows:
            if row.verified:
                claim = Claim(row.statement, row.quote, row.source)
                by_quote.setdefault((row.source, alike(row.quote)), claim)
        return list(by_quote.values())

    def _enough_claims(self, run: str) -> list[Claim]:
        claims = self._claims(run)
        if len(claims) < CLAIMS_MIN:
            raise Abstain(
                f"research found {len(claims)} claims that the sources bear out;"
                f" {CLAIMS_MIN} are needed for an article"
            )
        return claims

    async def _write_and_edit(
        self, steps: Steps, evidence: Mapping[str, Evidence], plan: Plan
    ) -> Manuscript:
        """Draft, desk, review, and again within bounds, until it may appear."""
        earlier: Draft | None = None
        passable: Manuscript | None = None
        problems: list[str] = []
        for number in range(1, DRAFTS_MAX + 1):
            claims = self._enough_claims(steps.run)
            try:
                draft = await self._draft(steps, number, plan, claims, earlier, problems)
                manuscript = house.mended(_manuscript(draft))
                findings = self._inspect(steps.run, manuscript, evidence, claims)
                review = await self._review(steps, number, claims, manuscript, findings)
            except Failed as error:
                if passable is None:
                    raise
                await steps.remark("edit", f"the last good draft appears: {error}")
                break
            await self._drop_unsupported(steps, claims, review)
            if review.verdict is Verdict.APPROVE and steps.tier is Tier.SURPLUS:
                review = await self._second_review(
                    steps, number, claims, manuscript, findings, first=review
                )
                await self._drop_unsupported(steps, claims, review)
            if self._is_sound(steps.run, manuscript, evidence) and not review.unsupported:
                if review.verdict is Verdict.APPROVE:
                    return await self._desk(steps, manuscript)
                passable = manuscript if review.score >= SCORE_MIN else passable
            if review.verdict is Verdict.RESEARCH and number < DRAFTS_MAX:
                await self._research(
                    steps, evidence, review.questions[:RESEARCH_AGAIN_MAX], again=number
                )
            earlier = draft
            problems = [str(finding) for finding in findings] + _as_lines(review)
        # Claims may have gone since it was passed.
        if passable is not None and self._is_sound(steps.run, passable, evidence):
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
        earlier: Draft | None,
        problems: Sequence[str],
    ) -> Draft:
        question = (
            writer.draft(self.brief, plan, claims)
            if earlier is None
            else writer.revision(self.brief, plan, claims, earlier, problems)
        )
        try:
            return await steps.ask(f"draft-{number}", Role.WRITE, question)
        except (NoAnswer, NotAllowed) as error:
            if earlier is None:
                raise self._way_down(Role.WRITE, error) from error
            raise Failed(f"the writer gave up on the revision: {error}") from error

    async def _review(
        self,
        steps: Steps,
        number: int,
        claims: Sequence[Claim],
        manuscript: Manuscript,
        findings: Sequence[Finding],
    ) -> Review:
        shown = Draft(**asdict(manuscript))
        question = editor.review(self.brief, claims, shown, [str(finding) for finding in findings])
        try:
            return await steps.ask(f"review-{number}", Role.EDIT, question)
        except (NoAnswer, NotAllowed) as error:
            raise Failed(f"no editor could be had: {error}") from error

    async def _second_review(
        self,
        steps: Steps,
        number: int,
        claims: Sequence[Claim],
        manuscript: Manuscript,
        findings: Sequence[Finding],
        *,
        first: Review,
    ) -> Review:
        """
        What the second editor says, who must agree; the first one's word where none can be had.

        Another model looks with other eyes, so the ladder is tried from its second rung on.
        """
        question = editor.review(
            self.brief, claims, Draft(**asdict(manuscript)), [str(finding) for finding in findings]
        )
        rungs = [*steps.rungs[Role.EDIT][1:], *steps.rungs[Role.EDIT][:1]]
        try:
            return await steps.ask(f"review-{number}-second", Role.EDIT, question, rungs=rungs)
        except (NoAnswer, NotAllowed) as error:
            await steps.remark("edit", f"the second editor could not be had: {error}")
            return first

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

    def _is_sound(self, run: str, manuscript: Manuscript, evidence: Mapping[str, Evidence]) -> bool:
        """Whether the desk refuses nothing, on the claims that are left after the editor's."""
        findings = self._inspect(run, manuscript, evidence, self._claims(run))
        return not any(finding.refuses for finding in findings)

    def _inspect(
        self,
        run: str,
        manuscript: Manuscript,
        evidence: Mapping[str, Evidence],
        claims: Sequence[Claim],
    ) -> list[Finding]:
        links = [source.url for source in evidence.values()]
        context = self._context(run, evidence, links=links, cites=True)
        return house.inspect(manuscript, replace(context, claims=claims))

    def _context(
        self, run: str, evidence: Mapping[str, Evidence], *, links: Sequence[str], cites: bool
    ) -> Context:
        with self.books.read() as tx:
            titles = journal.earlier_titles(tx, run)
        return Context(
            evidence=evidence,
            claims=(),
            # As they stand in the text, too: Markdown needs some characters encoded.
            links=frozenset([*links, *map(layout.target, links)]),
            earlier_titles=titles,
            prompts=[prompt(role) for role in ("researcher", "writer", "editor")],
            secrets=self.secrets,
            words_min=self.brief.words_min if cites else house.WORDS_FLOOR,
            words_max=self.brief.words_max if cites else 100_000,
            cites=cites,
        )

    async def _desk(self, steps: Steps, manuscript: Manuscript) -> Manuscript:
        """Store what may appear."""

        async def act() -> Output:
            return {"manuscript": asdict(manuscript)}

        def name(tx: Connection, output: Output) -> None:
            journal.change_run(tx, steps.run, title=output["manuscript"]["title"])

        stored = (await steps.work("desk", act, name))["manuscript"]
        return Manuscript(**stored | {"tags": tuple(stored["tags"])})

    def _way_down(self, role: Role, error: BaseException) -> Exception:
        """Before drafting a ladder may end in a digest; otherwise the run ends here."""
        if self.ladders[role].ends_in_digest:
            return StepDown(f"no model is left for {role}: {error}")
        if isinstance(error, NotAllowed):
            return error
        return Failed(f"no model is left for {role}: {error}")


def _item(row: Any) -> DigestItem:
    return DigestItem(
        url=row.url, title=row.title, feed=row.feed_title or row.feed, author=row.author,
        summary=row.summary, at=row.published_at or row.seen_at,
    )  # fmt: skip


def _manuscript(draft: Draft) -> Manuscript:
    return Manuscript(draft.title, draft.description, tuple(draft.tags), draft.markdown)


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
