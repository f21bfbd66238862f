"""`penstock drafts …`: what waits for a person."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import control, drafts, journal, packaging
from daemon.cli import say, write_utf8
from daemon.cli.context import Context, UsageError, moment, table
from daemon.cli.exits import Exit
from daemon.cli.runs import details, found_run, measures_lines, run_document
from daemon.drafts import Draft, Edit
from daemon.journal import RunState
from daemon.press import DIGEST_DESTINATION
from daemon.settings import SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ledger.database import Database

# More than any article has; what is longer was not meant.
TYPED_BYTES_MAX = 1_000_000


def list_drafts(args: Namespace) -> int:
    """Drafts that wait, oldest first."""
    context = Context(args)
    since = context.since()
    with context.reading() as tx:
        rows = [r for r in drafts.waiting(tx) if since is None or r.started_at >= since]
        rows = rows[-args.limit :] if args.limit else rows
        found = [run_document(tx, row) | _waits(tx, row.id) for row in rows]
        until = [drafts.expires_at(tx, row.id) for row in rows]
    shown = [
        (row.started_at, row.id, expires, row.title, row.reason)
        for row, expires in zip(rows, until, strict=True)
    ]
    headers = ("since", "run", "expires", "title", "why")
    context.show(found, table(headers, shown, "no draft waits"))
    return Exit.DONE


def show(args: Namespace) -> int:
    """One draft whole: its text, its announcement, its measures and where it would go."""
    context = Context(args)
    with context.reading() as tx:
        row = _waiting(tx, args.run)
        document = run_document(tx, row) | details(tx, row) | _waits(tx, row.id)
    document["destinations"] = _destinations(context, row.kind)
    context.show(document, _human(document))
    return Exit.DONE


def edit(args: Namespace) -> int:
    """Change it; what was typed passes the desk again, and is kept where the desk refuses it."""
    context = Context(args)
    settings = context.settings(for_run=False)
    shelf = Shelf(context.location.state_dir / "drafts" / f"{args.run}.md", args.run)
    with context.database() as database:
        with _fresh(context, database) as tx:
            row = _waiting(tx, args.run)
            before = drafts.kept(tx, row.id)
        if args.print:
            if args.json:
                raise UsageError("--print writes a text to edit; `drafts show` has a document")
            write_utf8()
            print(shelf.text(before), end="")
            return Exit.DONE
        # From here on what was typed lies on the shelf, whatever happens.
        if args.file:
            shelf.put(_read(args.file))
        _refuse_frozen(database, row.id, shelf)
        if not args.file:
            _open_editor(context, shelf, before)
        typed = shelf.read()
        with database.read() as tx:
            found = drafts.inspect(tx, row.id, typed, settings.brief, settings.secrets())
        if found.refused:
            context.show(_document(row.id, found, shelf.path), _refusal(found, shelf))
            return Exit.NOTHING_FIT
        if found.changes:
            title = found.draft.manuscript.title
            picture = packaging.drawn(title, settings.brief.publication, row.id)
            try:
                with database.write() as tx:
                    drafts.keep(
                        tx, row.id, found, instead_of=before, brief=settings.brief,
                        picture=picture, at=context.clock.now(),
                    )  # fmt: skip
            except (drafts.Moved, drafts.Frozen) as error:
                raise UsageError(f"{error}; nothing was changed. {shelf.where}") from None
    shelf.clear()
    context.show(_document(row.id, found), _told(row.id, found))
    return Exit.DONE


def approve(args: Namespace) -> int:
    """Let it go out with the next free day; the posts-a-day clamp still holds."""
    context = Context(args)
    now = context.clock.now()
    with context.database() as database, _fresh(context, database) as tx:
        row = _waiting(tx, args.run)
        drafts.approve(tx, row.id, now)
        pause = control.paused(tx)
    goes_out = "`penstock run` publishes it, or `penstock once`"
    if pause is not None:
        goes_out = f"it goes out after `penstock resume`, since nothing does now (paused: {pause})"
    context.show({"run": row.id, "approved": True}, f"approved {row.id}; {goes_out}")
    return Exit.DONE


def reject(args: Namespace) -> int:
    """Drop it; the money is spent, and the reason is kept."""
    context = Context(args)
    now = context.clock.now()
    with context.database() as database, _fresh(context, database) as tx:
        row = _waiting(tx, args.run)
        reason = f"a person rejected it: {args.reason}"
        drafts.let_go(tx, row.id, reason, now)
    context.show({"run": row.id, "approved": False}, f"rejected {row.id}")
    return Exit.DONE


@contextmanager
def _fresh(context: Context, database: Database) -> Iterator[Connection]:
    """A transaction in which no draft waits that should have been let go."""
    with database.write() as tx:
        # By itself: what follows may be refused, and this is so all the same.
        drafts.expire_drafts(tx, context.clock.now())
    with database.write() as tx:
        yield tx


def _waiting(tx: Connection, run: str) -> Any:
    row = found_run(tx, run)
    if row.state != RunState.AWAITING_APPROVAL:
        raise UsageError(
            f"{run} has expired: {row.reason}"
            if row.reason == drafts.EXPIRED
            else f"{run} does not wait for approval; it is {row.outcome or row.state}"
        )
    return row


def _waits(tx: Connection, run: str) -> dict[str, Any]:
    """What a draft has that other runs have not."""
    return {
        "expires_at": moment(drafts.expires_at(tx, run)),
        "announcement": list(packaging.announced(tx, run)),
    }


def _destinations(context: Context, kind: str) -> list[str] | None:
    """Where it would go by the settings of now; None where those cannot be read."""
    try:
        chosen = context.settings(for_run=False).publishing.publishers
    except SettingsError:
        return None
    return [n for n in chosen if kind == journal.ARTICLE or n == DIGEST_DESTINATION]


def _human(document: dict[str, Any]) -> str:
    article, measured = document["article"], document["measures"]
    where = document["destinations"]
    lines = [
        f"# {article['title']}", "", article["markdown"], "",
        f"description  {article['description']}",
        f"tags         {', '.join(article['tags'])}",
        *(f"announced    {post}" for post in document["announcement"]),
        f"goes to      {'unknown: the settings are wrong' if where is None else ', '.join(where)}",
        f"waits        {document['reason']}",
        f"expires      {document['expires_at'] or '–'}",
    ]  # fmt: skip
    if measured:
        text, claims, *warnings = measures_lines(measured)
        lines.append(f"measured     {text}, {claims}")
        lines += [f"warning      {warning}" for warning in warnings]
    return "\n".join(lines)


# Editing


class Shelf:
    """Where a text lies while it is edited, and afterwards where it was refused."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._run = run

    @property
    def where(self) -> str:
        """What became of the text, and how to go on."""
        return (
            f"Your text is kept in {self.path}; `penstock drafts edit {self._run}` goes on with it"
        )

    def text(self, before: Draft) -> str:
        """What was left here by an edit that was refused, else the draft as it is kept."""
        if not self.is_taken():
            return drafts.written(before)
        return self.path.read_text(encoding="utf-8", errors="replace")

    def is_taken(self) -> bool:
        """Whether an edit was left here; says so to whoever watches."""
        if taken := self.path.is_file():
            say(f"this goes on from an edit that was refused; delete {self.path} to begin anew")
        return taken

    def put(self, text: bytes) -> None:
        """Keep it, for its owner alone; what lies here moves aside once."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if self.path.is_file() and self.path.read_bytes() != text:
            self.path.replace(self._aside)
        new.replace(self.path)

    def read(self) -> Draft:
        """
        What is kept here, read.

        Raises:
            UsageError: it cannot be read; it stays.
        """
        try:
            return drafts.parsed(self.path.read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            line = self.path.read_bytes()[: error.start].count(b"\n") + 1
            problem = f"line {line}: this is not UTF-8"
        except drafts.FormError as error:
            problem = str(error)
        raise UsageError(f"{problem}. {self.where}")

    def clear(self) -> None:
        """It is where it belongs."""
        self.path.unlink(missing_ok=True)
        self._aside.unlink(missing_ok=True)

    @property
    def _aside(self) -> Path:
        return self.path.with_suffix(".old")


def _read(name: str) -> bytes:
    """A file, or stdin for `-`."""
    try:
        if name == "-" and sys.stdin is None:
            raise UsageError("--file -: stdin is closed")
        if name == "-":
            text = sys.stdin.buffer.read(TYPED_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(TYPED_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"--file {name}: {error.strerror}") from None
    if len(text) > TYPED_BYTES_MAX:
        raise UsageError(f"--file {name}: more than {TYPED_BYTES_MAX} bytes are no article")
    return text


def _refuse_frozen(database: Database, run: str, shelf: Shelf) -> None:
    """Before anybody types in vain; what was typed already stays where it is."""
    try:
        with database.read() as tx:
            drafts.refuse_frozen(tx, run)
    except drafts.Frozen as error:
        kept = f". Your text is kept in {shelf.path}" if shelf.path.is_file() else ""
        raise UsageError(f"{error}; nothing was changed{kept}") from None


def _open_editor(context: Context, shelf: Shelf, before: Draft) -> None:
    """Let a person at it; the editor works on the shelf itself."""
    run = context.args.run
    beside = f"`penstock drafts edit {run} --print` writes the text and `--file PATH` reads it"
    # A stream that the shell closed is None.
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise UsageError(f"an editor needs a terminal; without one {beside}")
    chosen = context.env.get("VISUAL") or context.env.get("EDITOR") or "vi"
    if not shelf.is_taken():
        shelf.put(drafts.written(before).encode())
    try:
        command = [*shlex.split(chosen), str(shelf.path)]
        code = subprocess.run(command, check=False).returncode  # noqa: S603 - the operator's own
    except (OSError, ValueError) as error:
        _forget_unchanged(shelf, before)
        raise UsageError(
            f"the editor {chosen!r} cannot be started ({error}); set VISUAL, or else {beside}"
        ) from None
    if code:
        left = "" if _forget_unchanged(shelf, before) else f". {shelf.where}"
        raise UsageError(f"{chosen!r} ended with code {code}; nothing was changed{left}")


def _forget_unchanged(shelf: Shelf, before: Draft) -> bool:
    """Leave nothing behind where nothing was typed."""
    same = not shelf.path.is_file() or shelf.path.read_bytes() == drafts.written(before).encode()
    if same:
        shelf.clear()
    return same


def _document(run: str, found: Edit, kept: Path | None = None) -> dict[str, Any]:
    return {
        "run": run,
        "edited": kept is None and bool(found.changes),
        "changes": list(found.changes),
        "mended": list(found.mended),
        "findings": [str(finding) for finding in found.findings if finding.refuses],
        "warnings": [str(finding) for finding in found.findings if not finding.refuses],
        "kept": None if kept is None else str(kept),
    }


def _refusal(found: Edit, shelf: Shelf) -> str:
    lines = [f"  {finding}" for finding in found.findings if finding.refuses]
    return "\n".join(["the desk refuses it, and nothing was changed:", *lines, shelf.where])


def _told(run: str, found: Edit) -> str:
    if not found.changes:
        return f"nothing changed in {run}"
    return "\n".join(
        [
            f"edited {run}: {'; '.join(found.changes)}",
            *(f"  the desk mended {what}" for what in found.mended),
            *(f"  warning: {f}" for f in found.findings if not f.refuses),
        ]
    )
