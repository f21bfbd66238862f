"""
What waits for a person: until when, as a text to edit, and what becomes of that text.

The form is made to be typed into: a front part of `name: value` lines between two lines of three
dashes, and the body below as it is. What is typed is read strictly and never half.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlmodel import SQLModel

from daemon import alerts, journal, packaging, proof
from daemon.alerts import Kind
from daemon.crew.brief import Brief
from daemon.desk import house
from daemon.desk.house import Finding, Manuscript
from daemon.journal import RunOutcome, RunState
from daemon.sources.text import word_count

STANDS = timedelta(days=7)
EXPIRED = "nobody approved it within seven days"
_run = SQLModel.metadata.tables["run"]
_WAITING = (
    select(_run)
    .where(_run.c.state == RunState.AWAITING_APPROVAL)
    .order_by(_run.c.started_at, _run.c.id)
)


class FormError(Exception):
    """The text cannot be read; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


class Moved(Exception):
    """The draft is not what it was when it was taken out to be edited."""


class Frozen(Exception):
    """What goes out is stored already, byte by byte, so that no edit would reach it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """
    A draft as a person edits it.

    Args:
        posts: the words it is announced with; none where it is not announced.
    """

    manuscript: Manuscript
    posts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """
    What an edit came to when the desk had looked at it.

    Args:
        draft: as it would appear.
        changes: in words, against what is kept; empty where nothing changed.
        mended: what the desk changed of what was typed, in words.
        findings: every one, those that refuse first.
    """

    draft: Draft
    changes: Sequence[str]
    mended: Sequence[str]
    findings: Sequence[Finding]

    @property
    def refused(self) -> bool:
        """Whether it may not appear."""
        return any(finding.refuses for finding in self.findings)


# Waiting


def waiting(tx: Connection) -> Sequence[Row[Any]]:
    """Runs whose draft waits for a person, oldest first."""
    return tx.execute(_WAITING).all()


def expires_at(tx: Connection, run: str) -> datetime | None:
    """When a draft is let go: seven days after it was finished, or last edited."""
    steps = [journal.step(tx, run, name) for name in ("desk", packaging.PUBLICIST)]
    finished = [step.finished_at for step in steps if step is not None and step.finished_at]
    return max(finished) + STANDS if finished else None


def expire_drafts(tx: Connection, at: datetime) -> list[str]:
    """Let go of the drafts that nobody approved in time; returns their runs."""
    expired = []
    for row in waiting(tx):
        until = expires_at(tx, row.id)
        if until is None or until > at:
            continue
        let_go(tx, row.id, EXPIRED, at, inputs={"expired_at": until.isoformat()})
        message = f"the draft “{row.title}” was let go: {EXPIRED}"
        alerts.sound(tx, Kind.EXPIRED, row.id, message, at=at, run=row.id)
        expired.append(row.id)
    return expired


def approve(tx: Connection, run: str, at: datetime) -> None:
    """Let a draft go out with the next free day."""
    journal.change_run(tx, run, state=RunState.PARKED, approved_at=at, reason="approved")
    alerts.clear(tx, Kind.APPROVAL, run, at=at)
    sentence = "a person approved it"
    journal.decide(tx, run=run, kind="approval", sentence=sentence, inputs={}, at=at)


def let_go(
    tx: Connection, run: str, reason: str, at: datetime, inputs: Mapping[str, Any] | None = None
) -> None:
    """
    End a run whose draft does not go out.

    It may have intents, from before it had to wait for a person; those end with it.
    """
    journal.finish_run(tx, run, outcome=RunOutcome.ABSTAINED, reason=reason, at=at)
    journal.want_back(tx, run, reason)
    journal.decide(tx, run=run, kind="approval", sentence=reason, inputs=dict(inputs or {}), at=at)
    alerts.clear(tx, Kind.APPROVAL, run, at=at)


def kept(tx: Connection, run: str) -> Draft:
    """A draft as it is kept."""
    return Draft(packaging.manuscript(tx, run), packaging.announced(tx, run))


# Editing


def inspect(tx: Connection, run: str, typed: Draft, brief: Brief, secrets: Sequence[str]) -> Edit:
    """Hold what was typed against everything the newsroom's text was held against."""
    before, context = kept(tx, run), proof.of_run(tx, run, brief, secrets)
    # A person's posts are not cut: what is too long is said.
    plain = (house.one_line(post) for post in typed.posts)
    draft = Draft(house.mended(typed.manuscript), tuple(post for post in plain if post))
    found = proof.findings(tx, run, draft.manuscript, context)
    if draft.posts and not context.cites:
        found.append(Finding("announcement", "a digest is not announced; remove its posts"))
    elif draft.posts or before.posts:
        found += [
            replace(finding, rule=f"announcement, {finding.rule}")
            for finding in house.inspect_announcement(draft.posts, context)
        ]
    return Edit(
        draft=draft,
        changes=list(_changes(before, draft)),
        mended=list(_mended(typed, draft)),
        findings=sorted(found, key=lambda finding: not finding.refuses),
    )


def refuse_frozen(tx: Connection, run: str) -> None:
    """
    Let nobody edit what would go out as it was.

    Raises:
        Frozen: the run has an intent, from before it had to wait for a person.
    """
    names = [row.platform for row in journal.publications(tx, run=run) if row.payload]
    if names:
        raise Frozen(
            f"what goes to {', '.join(names)} was stored before {run} had to wait, and an edit"
            f" would not reach it; approve it as it is, or `penstock drafts reject {run}`"
        )


def keep(
    tx: Connection, run: str, edit: Edit, *, instead_of: Draft, brief: Brief, picture: bytes,
    at: datetime,
) -> None:  # fmt: skip
    """
    Put an edited draft in the place of the one it was made from.

    Args:
        picture: the card of the new title.
    Raises:
        Moved: it was approved, rejected, let go or edited since.
        Frozen: see `refuse_frozen`.
    """
    assert not edit.refused
    row = journal.run(tx, run)
    if row is None or row.state != RunState.AWAITING_APPROVAL:
        state = "gone" if row is None else row.outcome or row.reason or row.state
        raise Moved(f"{run} does not wait for approval any more; it is {state}")
    if kept(tx, run) != instead_of:
        raise Moved(f"somebody else has edited {run} meanwhile")
    refuse_frozen(tx, run)
    draft = edit.draft
    stored = {
        "title": draft.manuscript.title, "description": draft.manuscript.description,
        "tags": list(draft.manuscript.tags), "markdown": draft.manuscript.markdown,
    }  # fmt: skip
    journal.finish_step(tx, run, "desk", {"manuscript": stored}, at)
    if draft.posts:
        journal.begin_step(tx, run, packaging.PUBLICIST, at)
        journal.finish_step(tx, run, packaging.PUBLICIST, {"posts": list(draft.posts)}, at)
    journal.change_run(tx, run, title=draft.manuscript.title)
    packaging.keep(tx, run, draft.manuscript, brief, picture)
    sentence = f"a person edited it: {'; '.join(edit.changes)}"
    journal.decide(tx, run=run, kind="edit", sentence=sentence, inputs={}, at=at)


def _changes(before: Draft, after: Draft) -> Iterator[str]:
    old, new = before.manuscript, after.manuscript
    if old.title != new.title:
        yield f"title from “{old.title}”"
    if old.description != new.description:
        yield "description"
    if old.tags != new.tags:
        yield f"tags from {', '.join(old.tags) or 'none'}"
    if old.markdown != new.markdown:
        yield f"text, {word_count(old.markdown)} → {word_count(new.markdown)} words"
    if before.posts != after.posts:
        yield "announcement"


def _mended(typed: Draft, draft: Draft) -> Iterator[str]:
    """Spaces aside."""
    old, new = typed.manuscript, draft.manuscript
    for name in ("title", "description", "markdown"):
        if getattr(old, name).split() != getattr(new, name).split():
            said = "text" if name == "markdown" else name
            yield f"the {said}" + ("" if name == "markdown" else f", now “{getattr(new, name)}”")
    if old.tags != new.tags:
        yield f"the tags, now {', '.join(new.tags) or 'none'}"
    if [post.split() for post in typed.posts] != [post.split() for post in draft.posts]:
        yield "the announcement"


# The form

_FENCE = "---"
_FIELD = re.compile(r"(title|description|tags|post)[ \t]*:[ \t]*(.*)", re.IGNORECASE)
_HELP = """\
# Lines like this one are not read. A value may go on in a line that begins with a space.
# Numbers, quotations and links must stand in what the run has read: the desk looks again.
"""


def written(draft: Draft) -> str:
    """A draft as a text to edit."""
    shown = draft.manuscript
    posts = "".join(f"post: {post}\n" for post in draft.posts)
    about = "# Each `post:` is one post of its announcement.\n" if posts else ""
    return (
        f"{_FENCE}\n{_HELP}{about}title: {shown.title}\ndescription: {shown.description}\n"
        f"tags: {', '.join(shown.tags)}\n{posts}{_FENCE}\n\n{shown.markdown}\n"
    )


def parsed(text: str) -> Draft:
    """
    Read an edited text.

    Raises:
        FormError: with the line and what would be right.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise FormError(1, "there is no text")
    if lines[first].rstrip() != _FENCE:
        raise FormError(first + 1, f"{_FENCE!r} is needed before `title:`")
    ends = (n for n in range(first + 1, len(lines)) if lines[n].rstrip() == _FENCE)
    end = next(ends, None)
    if end is None:
        raise FormError(len(lines), f"{_FENCE!r} is needed between the front part and the body")
    fields = _fields(lines[first + 1 : end], first + 2)
    if not fields["title"] or not fields["title"][0]:
        raise FormError(end + 1, "`title:` is needed above")
    tags = ",".join(fields["tags"]).split(",")
    body = re.sub(r"\A(?:[ \t]*\n)+", "", "\n".join(lines[end + 1 :])).rstrip()
    if not body:
        raise FormError(end + 1, "there is no body below")
    return Draft(
        Manuscript(
            fields["title"][0],
            "".join(fields["description"]),
            tuple(tag for tag in map(str.strip, tags) if tag),
            body,
        ),
        tuple(post for post in fields["post"] if post),
    )


def _fields(lines: Sequence[str], first: int) -> dict[str, list[str]]:
    """The values of the front part, by name, in the order they stand."""
    found: dict[str, list[str]] = {"title": [], "description": [], "tags": [], "post": []}
    last: list[str] | None = None
    for number, line in enumerate(lines, start=first):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in " \t" and last is not None:
            last[-1] = f"{last[-1]} {line.strip()}".strip()
            continue
        field = _FIELD.fullmatch(line.strip())
        if field is None:
            raise FormError(
                number,
                f"`{line.strip()[:40]}` is none of `title:`, `description:`, `tags:` and `post:`;"
                " begin a line that goes on with a space",
            )
        name = field[1].lower()
        if name != "post" and found[name]:
            raise FormError(number, f"`{name}:` stands here a second time")
        last = found[name]
        last.append(field[2].strip())
    return found
