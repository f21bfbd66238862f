"""Drafts that wait: until when, what a person makes of them, and in what order they go out."""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Connection

from daemon import alerts, drafts, journal, packaging
from daemon.alerts import Kind
from daemon.desk.house import Manuscript
from daemon.drafts import Draft, Edit, FormError, Moved
from daemon.journal import RunOutcome, RunState
from daemon.sources import published
from ledger.database import Database
from tests.cli_helpers import PENSTOCK, Desk, Result, checked, digest_desk, small_world
from tests.stage import Stage
from tests.virtual import START

WEEK = timedelta(days=7)
PUBLIC = {"PENSTOCK_SITE_URL": "https://example.org"}
MANUAL = PUBLIC | {"PENSTOCK_APPROVAL": "manual"}
DONE, SETTINGS, NOTHING_FIT = 0, 2, 4


class Waiting(Stage):
    """A stage on which every article waits for a person."""

    def __init__(self, folder: Path, /, **changes: str) -> None:
        super().__init__(folder, **MANUAL, **changes)
        self.deposit("5")

    def draft(self) -> str:
        """Make a draft, though others may wait; returns its run."""
        with self.writing() as tx:
            others = [row.id for row in drafts.waiting(tx)]
            for run in others:
                journal.change_run(tx, run, state=RunState.FINISHED)
        report = self.once()
        assert report.outcome is RunOutcome.AWAITING_APPROVAL, report.reason
        with self.writing() as tx:
            for run in others:
                journal.change_run(tx, run, state=RunState.AWAITING_APPROVAL)
        return str(report.run)

    def approve(self, run: str) -> None:
        with self.writing() as tx:
            now = self.time.clock.now()
            journal.change_run(tx, run, state=RunState.PARKED, approved_at=now, reason="approved")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        database = Database(self.settings.location.database_url)
        try:
            with database.write() as tx:
                yield tx
        finally:
            database.close()

    def kept(self, run: str) -> Draft:
        with self.reading() as tx:
            return drafts.kept(tx, run)

    def inspected(self, run: str, typed: Draft) -> Edit:
        with self.reading() as tx:
            return drafts.inspect(tx, run, typed, self.settings.brief, ["hunter2hunter2"])

    def keep(self, run: str, edit: Edit, instead_of: Draft) -> None:
        with self.writing() as tx:
            drafts.keep(
                tx, run, edit, instead_of=instead_of, brief=self.settings.brief,
                picture=b"\x89PNG of the new title", at=self.time.clock.now(),
            )  # fmt: skip

    def edit(self, run: str, change: Callable[[Manuscript], Manuscript]) -> Edit:
        before = self.kept(run)
        edit = self.inspected(run, replace(before, manuscript=change(before.manuscript)))
        assert not edit.refused, edit.findings
        self.keep(run, edit, before)
        return edit

    def row(self, run: str) -> Any:
        with self.reading() as tx:
            return journal.run(tx, run)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def make(**changes: str) -> Waiting:
        made.append(Waiting(tmp_path / str(len(made)), **changes))
        return made[-1]

    yield make
    for each in made:
        each.judge()


MakeStage = Callable[..., Waiting]


# Until when


def test_a_draft_is_let_go_after_seven_days_and_not_before(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    with one.reading() as tx:
        until = drafts.expires_at(tx, run)
        desk = journal.step(tx, run, "desk")
    assert desk is not None
    assert until == desk.finished_at + WEEK
    with one.writing() as tx:
        assert drafts.expire_drafts(tx, until - timedelta(microseconds=1)) == []
        assert drafts.expire_drafts(tx, until) == [run]
        assert drafts.expire_drafts(tx, until) == []
    row = one.row(run)
    assert (row.state, row.outcome) == (RunState.FINISHED, RunOutcome.ABSTAINED)
    assert row.reason == "nobody approved it within seven days"
    assert row.finished_at == until
    with one.reading() as tx:
        assert journal.decisions(tx, run)[-1].sentence == drafts.EXPIRED


def test_that_a_draft_was_let_go_is_told_and_that_it_waits_no_more(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    later = START + timedelta(days=8)
    with one.writing() as tx:
        alerts.sound(tx, Kind.APPROVAL, run, "it waits", at=START, run=run)
        drafts.expire_drafts(tx, later)
        (alert,) = alerts.standing(tx, later)
    assert (alert.kind, alert.run) == (Kind.EXPIRED, run)
    assert str(one.row(run).title) in alert.message


def test_what_does_not_wait_does_not_expire(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    one.approve(run)
    with one.writing() as tx:
        assert drafts.expire_drafts(tx, START + timedelta(days=80)) == []
    assert one.row(run).state == RunState.PARKED


def test_an_edit_gives_a_draft_seven_more_days(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    one.time.pass_by(timedelta(days=6))
    one.edit(run, lambda m: replace(m, description="What operators should measure first."))
    with one.writing() as tx:
        assert drafts.expire_drafts(tx, START + timedelta(days=8)) == []
        assert drafts.expire_drafts(tx, START + timedelta(days=14)) == [run]


def test_approved_drafts_go_out_on_the_next_free_days_oldest_first(stage: MakeStage) -> None:
    one = stage()
    runs = []
    for _ in range(3):
        runs.append(one.draft())
        one.time.pass_by(timedelta(minutes=1))
        with one.writing() as tx:
            # The pages are the same; the next draft may use them again.
            tx.exec_driver_sql("UPDATE entry SET used_by = NULL")
    asked = len(one.model.requests)
    # In whatever order they are approved.
    for run in reversed(runs):
        one.approve(run)
    out = []
    for _ in range(3):
        report = one.once()
        assert report.outcome is RunOutcome.PUBLISHED, report.reason
        out.append(report.run)
        full = one.once()
        assert full.outcome is RunOutcome.SKIPPED
        assert "PENSTOCK_MAX_POSTS_PER_DAY" in full.reason
        one.time.pass_by(timedelta(days=1))
    assert out == runs
    assert len(one.model.requests) == asked
    with one.reading() as tx:
        days = {p.published_at.date() for p in journal.publications(tx)}
    assert len(days) == 3


# Editing


def test_an_edited_draft_is_what_goes_out_and_no_model_is_asked_again(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    asked = len(one.model.requests)
    edit = one.edit(
        run,
        lambda m: replace(
            m, title="A Title by a Person",
            markdown=f"A person wrote this opening, and means it.\n\n{m.markdown}",
        ),
    )  # fmt: skip
    assert "title from" in edit.changes[0]
    one.approve(run)
    report = one.once()
    assert report.outcome is RunOutcome.PUBLISHED, report.reason
    assert report.title == "A Title by a Person"
    assert len(one.model.requests) == asked
    (article,) = [p for p in one.articles() if p.name != "index.md"]
    text = article.read_text()
    assert "A person wrote this opening" in text
    assert "A Title by a Person" in text


def test_an_edit_changes_everything_that_was_made_of_the_draft(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    with one.reading() as tx:
        before = published.article(tx, run)
    one.edit(
        run,
        lambda m: replace(
            m, title="Another Title", markdown=f"{m.markdown}\n\nNine more words stand here at the"
            " very end now.",
        ),
    )  # fmt: skip
    with one.reading() as tx:
        after = published.article(tx, run)
        decision = journal.decisions(tx, run)[-1]
    assert before is not None
    assert after is not None
    assert one.row(run).title == after.title == "Another Title"
    assert after.words > before.words
    assert after.card != before.card
    assert decision.kind == "edit"
    assert "title" in decision.sentence
    assert " words" in decision.sentence


REFUSED: dict[str, tuple[Callable[[Manuscript], Manuscript], str]] = {
    "a number nobody wrote": (
        lambda m: replace(m, markdown=f"It served 98765 clients.\n\n{m.markdown}"), "98765",
    ),
    "a link to a page not read": (
        lambda m: replace(m, markdown=f"See [this](https://evil.example/x).\n\n{m.markdown}"),
        "evil.example",
    ),
    "a secret": (lambda m: replace(m, description="It is hunter2hunter2"), "secret"),
    "a mention": (lambda m: replace(m, markdown=f"Ask \\@ada of it.\n\n{m.markdown}"), "@"),
    "a citation of nothing": (
        lambda m: replace(m, markdown=f"So it is [S77].\n\n{m.markdown}"), "S77",
    ),
    "no citation": (lambda m: replace(m, markdown="No source here. " * 200), "cited"),
    "raw HTML": (lambda m: replace(m, markdown=f"<b>x</b>\n\n{m.markdown}"), "HTML"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_persons_text_is_held_to_the_same_rules(stage: MakeStage, kind: str) -> None:
    one = stage()
    run = one.draft()
    before = one.kept(run)
    change, said = REFUSED[kind]
    edit = one.inspected(run, replace(before, manuscript=change(before.manuscript)))
    assert edit.refused
    assert edit.findings[0].refuses
    assert said in " ".join(map(str, edit.findings))


def test_what_the_newsroom_wrote_still_passes(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    edit = one.inspected(run, one.kept(run))
    assert (edit.refused, list(edit.changes), list(edit.mended)) == (False, [], [])


def test_a_link_to_an_earlier_article_of_ours_is_allowed_as_it_was_to_the_writer(
    stage: MakeStage,
) -> None:
    one = stage()
    first = one.draft()
    one.approve(first)
    assert one.once().outcome is RunOutcome.PUBLISHED
    with one.writing() as tx:
        tx.exec_driver_sql("UPDATE entry SET used_by = NULL")
        article = published.article(tx, first)
    assert article is not None
    assert str(article.url).startswith("https://example.org/")
    one.time.pass_by(timedelta(days=1))
    run = one.draft()
    before = one.kept(run)
    linked = f"We wrote [of this]({article.url}) before.\n\n{before.manuscript.markdown}"
    typed = replace(before, manuscript=replace(before.manuscript, markdown=linked))
    assert not one.inspected(run, typed).refused
    other = linked.replace("example.org", "example.com")
    typed = replace(before, manuscript=replace(before.manuscript, markdown=other))
    assert one.inspected(run, typed).refused


def test_what_the_desk_mends_is_said(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    before = one.kept(run)
    typed = replace(
        before.manuscript, tags=("Data Bases", "SQL!"), description="So it is. " * 60,
        title=f"  {before.manuscript.title}\u200b ",
    )  # fmt: skip
    edit = one.inspected(run, replace(before, manuscript=typed))
    assert not edit.refused
    said = " ".join(edit.mended)
    assert "databases, sql" in said
    assert "description" in said
    assert "the text" not in said


def test_the_announcement_is_edited_with_the_draft(stage: MakeStage) -> None:
    one = stage()
    run = one.draft()
    before = one.kept(run)
    assert before.posts == ()
    edit = one.inspected(run, replace(before, posts=(" What to  measure first. ",)))
    assert edit.draft.posts == ("What to measure first.",)
    assert list(edit.changes) == ["announcement"]
    one.keep(run, edit, before)
    with one.reading() as tx:
        assert packaging.announced(tx, run) == ("What to measure first.",)
    kept = one.kept(run)
    for posts, said in {
        (): "no post",
        ("x" * 301,): "301",
        ("It has 98765 parts.",): "98765",
        ("See https://evil.example",): "evil.example",
        ("The same.", "The same."): "earlier post",
    }.items():
        refused = one.inspected(run, replace(kept, posts=posts))
        assert refused.refused, posts
        assert said in " ".join(map(str, refused.findings))
        assert "announcement" in str(refused.findings[0])


def _approved(tx: Connection, run: str) -> None:
    journal.change_run(tx, run, state=RunState.PARKED, reason="approved")


def _rejected(tx: Connection, run: str) -> None:
    journal.finish_run(tx, run, outcome=RunOutcome.ABSTAINED, reason="no", at=START)


def _edited(tx: Connection, run: str) -> None:
    journal.begin_step(tx, run, packaging.PUBLICIST, START)
    journal.finish_step(tx, run, packaging.PUBLICIST, {"posts": ["Other words."]}, START)


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [(_approved, "approved"), (_rejected, "abstained"), (_edited, "somebody else")],
)
def test_what_happened_meanwhile_is_not_undone(
    stage: MakeStage, meanwhile: Callable[[Connection, str], None], said: str
) -> None:
    one = stage()
    run = one.draft()
    before = one.kept(run)
    typed = replace(before.manuscript, description="What operators should measure first.")
    edit = one.inspected(run, replace(before, manuscript=typed))
    with one.writing() as tx:
        meanwhile(tx, run)
    with pytest.raises(Moved, match=said):
        one.keep(run, edit, before)
    assert one.kept(run).manuscript == before.manuscript


# The form

_LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), max_size=40)
_TAG = st.text("abcdefghij0123456789", min_size=1, max_size=20)
_BODY = st.text(
    st.sampled_from("ab \n-#:*`[]\t>é水"), min_size=1, max_size=200
).filter(lambda text: bool(text.strip()))  # fmt: skip


@given(_LINE.filter(bool), _LINE, st.lists(_TAG, max_size=4), _BODY, st.lists(_LINE.filter(bool)))
def test_what_is_written_is_read_as_it_was(
    title: str, description: str, tags: list[str], body: str, posts: list[str]
) -> None:
    body = body.strip("\n").rstrip()
    while body.split("\n")[0].strip() == "":
        body = body.partition("\n")[2]
    draft = Draft(Manuscript(title, description, tuple(tags), body), tuple(posts))
    assert drafts.parsed(drafts.written(draft)) == draft
    assert drafts.parsed(drafts.written(draft).replace("\n", "\r\n")) == draft
    assert drafts.parsed("\ufeff\n" + drafts.written(draft)) == draft


FORM = """---
# A remark.
title: One
description: It goes
  on here
Tags : a, b,, c

post: first
post:
  second
---

    code first

---

# not a remark
"""


def test_a_form_may_be_written_as_people_write() -> None:
    assert drafts.parsed(FORM) == Draft(
        Manuscript(
            "One", "It goes on here", ("a", "b", "c"), "    code first\n\n---\n\n# not a remark"
        ),
        ("first", "second"),
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "no text"),
        ("\n \n", 1, "no text"),
        ("title: x\n---\n\nbody", 1, "'---' is needed before"),
        ("\n\nThe body only.", 3, "'---' is needed before"),
        ("---\ntitle: x\n\nbody\n", 5, "'---' is needed between"),
        ("---\ntitle x\n---\nbody", 2, "title x"),
        ("---\ntitle: x\n# fine\nauthor: me\n---\nbody", 4, "author: me"),
        ("---\ntitle: x\nTITLE: y\n---\nbody", 3, "second time"),
        ("---\ndescription: x\n---\nbody", 3, "`title:` is needed"),
        ("---\ntitle:\n---\nbody", 3, "`title:` is needed"),
        ("---\n goes on\ntitle: x\n---\nbody", 2, "goes on"),
        ("---\ntitle: x\n---\n\n  \n", 3, "no body"),
    ],
)
def test_what_is_wrong_with_a_form_is_said_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(FormError, match=said) as caught:
        drafts.parsed(text)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line}: ")


FIELDS = st.sampled_from(
    ["description: It goes\n on here", "tags: a, b,, c ,", "POST : first\n\tand on",
     "post: second ", "post:", "# a remark", ""]
)  # fmt: skip
ODD = st.sampled_from(["title:", " goes on", "author: me", "-", "\r", "---", "Title: two"])
BODY = st.text(st.sampled_from("-\n#: titlepos\tx\r"), max_size=40)
FORMS = st.tuples(
    st.sampled_from(["", "\n \n", "\ufeff", "x\n"]),
    st.lists(FIELDS, max_size=5, unique=True),
    st.lists(ODD, max_size=1),
    BODY,
).map(
    lambda parts: "\n".join([f"{parts[0]}---", *parts[2], "title: One", *parts[1], "---", parts[3]])
)


@example(FORM)
@given(FORMS | BODY)
def test_a_form_is_read_or_refused_and_what_is_read_is_written_the_same(text: str) -> None:
    try:
        draft: Draft | FormError = drafts.parsed(text)
    except FormError as error:
        draft = error
    if isinstance(draft, FormError):
        assert 1 <= draft.line <= text.count("\n") + 1
    else:
        assert draft.manuscript.title
        assert draft.manuscript.markdown
        assert drafts.parsed(drafts.written(draft)) == draft


# At the command line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A machine with an article that waits, made once."""
    with small_world() as world:
        desk = world.desk(tmp_path_factory.mktemp("made"), **PUBLIC)
        assert desk.once().json["outcome"] == "awaiting_approval"
    # Nothing more is read or asked from here on.
    return desk


@pytest.fixture
def desk(made: Desk, tmp_path: Path) -> Desk:
    """A copy of it."""
    shutil.copytree(made.state, tmp_path / "state")
    return Desk(tmp_path, made.settings | {"PENSTOCK_STATE_DIR": str(tmp_path / "state")})


def run_of(desk: Desk) -> str:
    ((run,),) = desk.rows("SELECT id FROM run")
    return str(run)


def alerts_of(desk: Desk) -> list[str]:
    return [kind for (kind,) in desk.rows("SELECT kind FROM alert")]


def text_of(desk: Desk) -> str:
    result = desk.run("drafts", "edit", run_of(desk), "--print")
    assert result.code == DONE
    return result.out


def edit(desk: Desk, text: str | bytes, *args: str) -> Result:
    """`drafts edit --file -`."""
    words = ["drafts", "edit", run_of(desk), "--file", "-", *args]
    done = subprocess.run(
        [PENSTOCK, *words], env=desk.env(), cwd=desk.home, timeout=60, capture_output=True,
        input=text.encode() if isinstance(text, str) else text, check=False,
    )  # fmt: skip
    return checked(words, done.returncode, done.stdout, done.stderr)


def kept_in(desk: Desk) -> Path:
    return desk.state / "drafts" / f"{run_of(desk)}.md"


def test_a_draft_says_when_it_expires_how_it_is_announced_and_where_it_goes(desk: Desk) -> None:
    (listed,) = desk.read("drafts", "list")
    shown = desk.read("drafts", "show", listed["run"])
    assert listed["expires_at"] == shown["expires_at"] > listed["started_at"]
    assert listed["announcement"] == shown["announcement"] == []
    assert shown["destinations"] == ["outbox"]
    human = desk.run("drafts", "show", listed["run"]).out
    for word in ("outbox", "expires", "words", shown["article"]["title"]):
        assert word in human
    assert "expires" in desk.run("drafts", "list").out
    # It needs no settings that are right.
    broken = desk.changed(PENSTOCK_PUBLISHERS="nowhere")
    assert broken.read("drafts", "show", listed["run"])["destinations"] is None


def test_a_person_changes_a_draft_and_it_goes_out_so(desk: Desk) -> None:
    run = run_of(desk)
    changed = text_of(desk).replace("\n---\n\n", "\n---\n\nA person wrote this line first.\n\n", 1)
    told = edit(desk, changed, "--json")
    assert told.code == DONE, told
    assert told.json["edited"]
    assert "words" in told.json["changes"][0]
    assert not kept_in(desk).exists()
    shown = desk.read("runs", "show", run)
    assert shown["article"]["markdown"].startswith("A person wrote this line first.")
    assert any(d["kind"] == "edit" for d in shown["decisions"])
    assert alerts_of(desk) == ["approval"]
    assert "`penstock run`" in desk.run("drafts", "approve", run).out
    assert alerts_of(desk) == []
    assert desk.once().json["outcome"] == "published"
    (article,) = [p for p in desk.articles if p.stem != "index"]
    assert "A person wrote this line first." in article.read_text()


def test_a_rejected_draft_asks_for_nobody_any_more(desk: Desk) -> None:
    assert desk.run("drafts", "reject", run_of(desk), "--reason", "too dry").code == DONE
    assert alerts_of(desk) == []


def test_nothing_typed_changes_nothing(desk: Desk) -> None:
    before = desk.read("drafts", "show", run_of(desk))
    same = edit(desk, text_of(desk), "--json")
    assert (same.code, same.json["edited"]) == (DONE, False)
    assert desk.read("drafts", "show", run_of(desk)) == before


def test_what_the_desk_refuses_is_kept_and_gone_on_with(desk: Desk) -> None:
    good = text_of(desk)
    bad = good.replace("\n---\n\n", "\n---\n\nIt served 98765 clients.\n\n", 1)
    refused = edit(desk, bad)
    assert refused.code == NOTHING_FIT
    assert "98765" in refused.said
    assert str(kept_in(desk)) in refused.said
    assert stat.S_IMODE(kept_in(desk).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept_in(desk).parent.stat().st_mode) == 0o700
    assert "98765" not in str(desk.read("drafts", "show", run_of(desk))["article"])
    assert edit(desk, bad, "--json").json["findings"]
    # The next edit starts from it.
    assert text_of(desk) == bad
    assert edit(desk, bad.replace("98765", "many"), "--json").json["edited"]
    assert list(kept_in(desk).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("no front part", "line 1"), (b"---\ntitle: \xff\n---\nx", "line 2"), ("", "line 1")],
)
def test_what_cannot_be_read_is_kept_too(desk: Desk, text: str | bytes, said: str) -> None:
    result = edit(desk, text)
    assert result.code == SETTINGS
    assert said in result.err
    assert kept_in(desk).read_bytes() == (text.encode() if isinstance(text, str) else text)


def test_a_file_that_is_not_there_is_named(desk: Desk) -> None:
    result = desk.run("drafts", "edit", run_of(desk), "--file", "/nowhere.md")
    assert result.code == SETTINGS
    assert "/nowhere.md" in result.err


def test_a_text_to_edit_is_no_document(desk: Desk) -> None:
    result = desk.run("drafts", "edit", run_of(desk), "--print", "--json")
    assert result.code == SETTINGS
    assert "--print" in result.json["error"]


def test_a_draft_that_has_expired_is_neither_edited_nor_approved(desk: Desk) -> None:
    run = run_of(desk)
    desk.sql(
        "UPDATE step SET finished_at = strftime('%Y-%m-%dT%H:%M:%S', finished_at, '-8 days')"
        " || substr(finished_at, 20) WHERE name = 'desk'"
    )
    approved = desk.run("drafts", "approve", run)
    assert approved.code == SETTINGS
    assert "expired" in approved.err
    assert desk.run("drafts", "edit", run, "--print").code == SETTINGS
    assert desk.read("drafts", "list") == []
    row = desk.read("runs", "show", run)
    assert (row["outcome"], row["reason"]) == ("abstained", drafts.EXPIRED)


def test_a_draft_of_a_digest_is_edited_too(tmp_path: Path) -> None:
    desk = digest_desk(tmp_path, **PUBLIC).initialised(None)
    assert desk.once().json["outcome"] == "awaiting_approval"
    text = text_of(desk)
    told = edit(desk, text.replace("title: ", "title: By hand: ", 1), "--json")
    assert told.code == DONE, told
    refused = edit(desk, text.replace("tags: ", "post: Read this.\ntags: ", 1))
    assert refused.code == NOTHING_FIT
    assert "not announced" in refused.said


def test_without_a_terminal_the_way_by_a_file_is_named(desk: Desk) -> None:
    result = desk.run("drafts", "edit", run_of(desk))
    assert result.code == SETTINGS
    assert "--file" in result.err
    assert not kept_in(desk).exists()


def in_terminal(desk: Desk, editor: str, *args: str) -> tuple[int, str]:
    """`drafts edit` as somebody at a terminal runs it; the exit code and what was shown."""
    run = run_of(desk)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PENSTOCK, "drafts", "edit", run, *args], env=desk.env() | {"EDITOR": editor},
        cwd=desk.home, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        shown += chunk
        if not chunk:
            break
    os.close(ours)
    return process.wait(60), shown.decode()


def script(desk: Desk, code: str) -> str:
    """An editor: Python that gets the text as `t` and the path as `p`."""
    path = desk.home / "editor.py"
    path.write_text(
        "import pathlib, sys\np = pathlib.Path(sys.argv[-1])\nt = p.read_text()\n" + code
    )
    return f"'{sys.executable}' {path}"


def test_an_editor_opens_at_a_terminal(desk: Desk) -> None:
    editor = script(desk, r"p.write_text(t.replace('\n---\n\n', '\n---\n\nSo I say.\n\n', 1))")
    code, shown = in_terminal(desk, editor)
    assert code == DONE, shown
    assert "edited" in shown
    article = desk.read("drafts", "show", run_of(desk))["article"]
    assert article["markdown"].startswith("So I say.")
    assert not kept_in(desk).exists()


def test_an_editor_that_fails_or_is_missing_changes_nothing(desk: Desk) -> None:
    before = desk.read("drafts", "show", run_of(desk))
    code, shown = in_terminal(desk, "/nowhere/editor")
    assert code == SETTINGS
    assert "--file" in shown
    code, shown = in_terminal(desk, script(desk, "sys.exit(3)"))
    assert (code, "code 3" in shown) == (SETTINGS, True)
    assert not kept_in(desk).exists()
    code, shown = in_terminal(desk, script(desk, "p.write_text('half'); sys.exit(3)"))
    assert code == SETTINGS
    assert kept_in(desk).read_text() == "half"
    assert desk.read("drafts", "show", run_of(desk)) == before


def test_what_is_stored_for_a_destination_already_cannot_be_edited(desk: Desk) -> None:
    """Its bytes are from before it had to wait, so an edit would be lost without a word."""
    run, text = run_of(desk), text_of(desk)
    before = desk.read("drafts", "show", run)
    desk.sql(
        "INSERT INTO publication (run, platform, state, key, payload, title, intended_at)"
        " SELECT id, 'outbox', 'intended', id, '{}', title, started_at FROM run"
    )
    typed = text.replace("\n---\n\n", "\n---\n\nSo I say.\n\n", 1)
    refused = edit(desk, typed)
    assert refused.code == SETTINGS
    for word in ("outbox", f"drafts reject {run}", str(kept_in(desk))):
        assert word in refused.err
    assert kept_in(desk).read_text() == typed
    assert desk.read("drafts", "show", run)["article"] == before["article"]
    # Nor is an editor opened in vain.
    kept_in(desk).unlink()
    code, shown = in_terminal(desk, script(desk, "p.write_text('in vain')"))
    assert (code, "an edit would not reach it" in " ".join(shown.split())) == (SETTINGS, True)
    assert not kept_in(desk).exists()
    # What is not frozen yet takes the edit.
    desk.sql("UPDATE publication SET payload = ''")
    assert edit(desk, typed, "--json").json["edited"]


def test_who_approves_while_paused_is_told_that_nothing_goes_out(desk: Desk) -> None:
    run = run_of(desk)
    desk.run("pause", "--reason", "a holiday")
    approved = desk.run("drafts", "approve", run)
    assert approved.code == DONE
    assert "penstock resume" in approved.out
    assert "a holiday" in approved.out


def test_a_draft_approved_while_it_was_edited_keeps_what_was_typed(desk: Desk) -> None:
    run, shelf = run_of(desk), kept_in(desk)
    editor = script(
        desk,
        "import subprocess\n"
        r"p.write_text(t.replace('\n---\n\n', '\n---\n\nSo I say.\n\n', 1))"
        f"\nsubprocess.run([{PENSTOCK!r}, 'drafts', 'approve', {run!r}], check=True)",
    )
    code, shown = in_terminal(desk, editor)
    assert code == SETTINGS, shown
    assert "does not wait for approval any more; it is approved" in shown
    assert "So I say." in shelf.read_text()
    assert "So I say." not in str(desk.read("runs", "show", run)["article"])
