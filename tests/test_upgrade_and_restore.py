"""
A publication that goes on with the database of the version before, or with last night's backup.

The service is the real one, on virtual time; the platforms keep what was really published, whatever
the database knows of it. The operator does what docs/operating.md and docs/restore.md say, by the
program's own commands.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from daemon import cli, journal, migrations
from daemon.app import opened_parts
from daemon.journal import RunOutcome
from daemon.reconcile import Findings, key_mark
from ledger import audit, posting, store
from ledger.backup import backup
from ledger.database import Database
from ledger.rules import Code
from publishers.bluesky import records
from publishers.devto import DevTo
from publishers.outbox import Outbox
from publishers.port import Intent, Post
from publishers.testing import forgotten
from tests.doubles.bluesky import DID
from tests.doubles.devto import Article
from tests.doubles.model import Charge
from tests.stage import Kill, Killed, MortalDatabase, Silent
from tests.test_service import DAY_S, PAID, Daemon
from tests.virtual import START

EVERYWHERE = {"PENSTOCK_PUBLISHERS": "outbox,devto,bluesky"}
# A day has a publishing slot and four visits, so that a week is a few seconds.
CALM = {"PENSTOCK_COLLECT_CRON": "30 */6 * * *", "PENSTOCK_FEED_CRON": "15 */6 * * *"}
POLL_S = 3600.0
# What there is to write about, one a day; an article's title names its own.
SUBJECTS = (
    "vacuum command", "checkpoint", "collation", "savepoint", "trigger", "foreign key",
    "page cache", "busy timeout", "rollback journal", "partial index",
)  # fmt: skip
_CLOSING = re.compile(r"by software, Penstock, in run (\w+)\.")


@dataclass(frozen=True)
class There:
    """
    What is out, by run, and how often: read from the platforms and the folder.

    Args:
        drafts: at Dev.to, where only their author sees them.
    """

    devto: Counter[str]
    drafts: Counter[str]
    outbox: Counter[str]
    bluesky: Counter[str]


class Publication(Daemon):
    """
    A daemon with all three destinations, a fresh subject every morning, and an operator.

    Args:
        epoch: when its virtual time begins.
    """

    def __init__(self, folder: Path, epoch: datetime = START, /, **changes: str) -> None:
        super().__init__(folder, **EVERYWHERE | CALM | PAID | changes)
        wall = self.time.clock._wall
        self.time.clock._wall = lambda: wall() + (epoch - START)
        self.blog.pages.clear()
        self._items: list[str] = []

    @property
    def database(self) -> Path:
        return self.outbox.with_name("penstock.db")

    # The world

    def news(self, subject: str) -> None:
        """Four posts about a subject, out since this morning."""
        at = self.time.clock.now()
        for number, aspect in enumerate(("explained", "measured", "on a budget", "in trouble")):
            title = f"The {subject} {aspect}"
            path = f"/{title.lower().replace(' ', '-')}.html"
            self.blog.pages[path] = (
                f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>"
                f"{''.join(_prose(subject, number))}</article></body></html>"
            )
            self._items.append(
                f"<item><title>{title}</title><link>http://blog.test{path}</link>"
                f"<guid>http://blog.test{path}</guid><description>The {subject} of SQLite in"
                f" running databases, {aspect}.</description>"
                f"<pubDate>{at - timedelta(minutes=number + 1):%d %b %Y %H:%M:%S} GMT</pubDate>"
                "</item>"
            )
        self.blog.pages["/feed.xml"] = (
            '<?xml version="1.0"?><rss version="2.0"><channel><title>Database Notes</title>'
            f"<link>http://blog.test/</link><description>d</description>{''.join(self._items)}"
            "</channel></rss>"
        )

    def lives(self, *subjects: str, kill: Kill | None = None) -> None:
        """A day for each subject; "" is a day without news."""
        for subject in subjects:
            if subject:
                self.news(subject)
            self.live(DAY_S, kill=kill, poll_s=POLL_S)

    def there(self) -> There:
        articles = self.devto.articles.values()
        runs = {f"https://dev.to/penstock/{a.slug}": _closing(a) for a in articles}
        # Before announcements had words and links, a post was the title.
        runs |= {str(a.fields["title"]): _closing(a) for a in articles}
        first = [post for post in self.bluesky.posts().values() if "reply" not in post]
        return There(
            devto=Counter(_closing(a) for a in articles if a.published),
            drafts=Counter(_closing(a) for a in articles if not a.published),
            outbox=Counter(
                json.loads(path.read_text())["run"] for path in self.outbox.glob("*.json")
            ),
            bluesky=Counter(
                runs[post["embed"]["external"]["uri"] if "embed" in post else post["text"]]
                for post in first
            ),
        )

    def subjects(self) -> Counter[str]:
        """What the articles at Dev.to are about."""
        titles = [str(article.fields["title"]) for article in self.devto.public]
        return Counter(subject for subject in SUBJECTS for title in titles if subject in title)

    @property
    def writes(self) -> tuple[int, ...]:
        """How often each platform was asked to change something."""
        sent = self.devto.sent
        return len(sent("POST")), len(sent("PUT")), self.bluesky.writes.total()

    @property
    def billed(self) -> int:
        """What the provider has charged to the key, in micro-credits."""
        return self.model.used_before + self.model.billed_micro

    # The operator

    def penstock(self, *words: str) -> Any:
        """A command beside the service, at the virtual hour; what it prints."""
        with pytest.MonkeyPatch.context() as patched, redirect_stdout(StringIO()) as said:
            patched.setenv("PENSTOCK_STATE_DIR", str(self.database.parent))
            patched.setattr("daemon.cli.context.SystemClock", lambda: self.time.clock)
            assert cli.main([*words, "--json"]) == 0, said.getvalue()
        return json.loads(said.getvalue())

    def drafts(self) -> list[Any]:
        return list(self.penstock("drafts", "list"))

    def reconcile(self) -> Findings:
        """`penstock reconcile`, which needs this world's platforms."""

        async def live(database: MortalDatabase) -> Findings:
            async with opened_parts(self.settings, database, Silent(), self.world()) as parts:
                return await parts.reconciler.run()

        return self._life(live, None)

    def lets_a_person_look(self) -> None:
        """`PENSTOCK_APPROVAL=manual`."""
        publishing = replace(self.settings.publishing, approval="manual")
        self.settings = replace(self.settings, publishing=publishing)

    # The books

    def booked(self) -> int:
        """What the models cost by the books, corrections taken into account, in micro-credits."""
        with self.reading() as tx:
            return store.account_balance(tx, "inference:llm").micro

    def uncertain(self) -> dict[str, int]:
        """What was charged in full since nobody could tell, by hold, in micro-credits."""
        with self.reading() as tx:
            entries = store.entries(tx)
            return {e.id: e.amount.micro for e in entries if e.code == Code.UNCERTAIN}

    def assert_sound(self) -> None:
        """The books balance, nothing is held, no post is in doubt, and nothing is there twice."""
        with self.reading() as tx:
            report = audit.check(tx)
            held, doubtful = posting.open_holds(tx), journal.unconfirmed(tx)
        assert report.ok, report.problems
        assert not held
        assert not doubtful
        there = self.there()
        for place in (there.devto, there.outbox, there.bluesky):
            assert set(place.values()) <= {1}, there
        assert not there.drafts


def _closing(article: Article) -> str:
    found = _CLOSING.search(article.fields["body_markdown"])
    assert found is not None, "an article that does not say whose it is"
    return found[1]


def _prose(subject: str, number: int) -> Iterator[str]:
    for part in range(6):
        yield (
            f"<p>The {subject} keeps {number * 10 + part} records in its first pass over the file."
            f" An operator who changes the {subject} should measure the effect on a copy first."
            f" In release {number + 1}.{part} the {subject} was made safe for readers that stay"
            f" open. Nobody should expect the {subject} to repair damage from before it ran.</p>"
        )


# The database of the version before


@dataclass(frozen=True)
class Inherited:
    """
    The runs of `0003.sql` that were not over when its version was stopped, by what became of them.

    Args:
        answered: public at Dev.to and announced, and no answer came for either; the outbox did not
            say either, and does not have it.
        unreceived: public at Dev.to, and the process died before it wrote that down; the outbox
            does not have it.
        unsent: approved, its article stored for Dev.to, and sent nowhere.
        waiting: a draft that waits for a person.
        interrupted: killed in the middle of its research.
        rejected: by a person, after Dev.to had put it off.
    """

    answered: str = "r1nfrb58yr8y"
    unreceived: str = "r1nfvjw0gbqk"
    unsent: str = "r1nfvpcg0eak"
    waiting: str = "r1nfvsx0gvmx"
    interrupted: str = "r1nfvd0gexmr"
    rejected: str = "r1nftt8h0y5p"


RUN = Inherited()
PAST = Path(__file__).with_name("databases") / "0003.sql"
# Half an hour after the last entry of it, so that its holds are as old as they would be.
UPGRADED_AT = datetime(2026, 11, 18, 20, tzinfo=UTC)
MODELS = "llm/alpha > llm/beta"
# What the provider billed for the requests whose outcome that version did not learn: the one whose
# answer has a name, one that was cut off, and nothing for the other five.
BILLED = {"chatcmpl-000053": 11_000, "chatcmpl-000096": 12_500}
HOLDS = 7


class Heir(Publication):
    """
    A new version in the place of 0003, which was killed, paused and never started again.

    `0003.sql` published to a folder alone. So that there is something to repeat, some of its
    intents are moved to Dev.to and Bluesky, in the bytes that 0003 would have stored: neither
    `DevTo.intend` nor, for a post without words of its own, `records.intend` has changed them.
    """

    def __init__(self, folder: Path, **changes: str) -> None:
        super().__init__(
            folder, UPGRADED_AT, PENSTOCK_APPROVAL="manual", PENSTOCK_PRICES=
            "llm/alpha=3,0.3,15;llm/beta=1,0.1,5", PENSTOCK_MODELS_RESEARCH=MODELS,
            PENSTOCK_MODELS_WRITE=MODELS, PENSTOCK_MODELS_EDIT=MODELS, PENSTOCK_WORDS="400-900",
            PENSTOCK_RUN_BUDGET="5", PENSTOCK_MAX_POSTS_PER_DAY="2", **changes,
        )  # fmt: skip
        self.model.prices = {
            "alpha": (3_000_000, 300_000, 15_000_000), "beta": (1_000_000, 100_000, 5_000_000),
        }  # fmt: skip
        folder.mkdir(exist_ok=True)
        with closing(sqlite3.connect(self.database)) as past:
            past.row_factory = sqlite3.Row
            past.executescript(PAST.read_text(encoding="utf-8"))
            self._fill_outbox(past)
            self._move_to_platforms(past)
            self._recall_bill(past)
            past.commit()
            self.held = {
                row["attempt"]: int(row["amount_micro"])
                for row in past.execute("SELECT attempt, amount_micro FROM open_hold")
            }
        assert len(self.held) == HOLDS

    def _fill_outbox(self, past: sqlite3.Connection) -> None:
        folder = Outbox(self.outbox)
        for row in past.execute("SELECT * FROM publication WHERE state = 'published'").fetchall():
            self.time.run(folder.publish(Intent(row["key"], row["payload"].encode()), forgotten))

    def _move_to_platforms(self, past: sqlite3.Connection) -> None:
        forem = DevTo("no key", clock=self.time.clock)

        def stored(run: str, platform: str, intent: Intent, state: str, noted: str | None) -> None:
            past.execute(
                "INSERT INTO publication (run, platform, state, key, payload, title, error,"
                " intended_at, noted) SELECT id, ?, ?, ?, ?, title, 'no answer',"
                " '2026-11-18T16:20:01.121448Z', ? FROM run WHERE id = ?",
                (platform, state, intent.key, intent.payload.decode(), noted, run),
            )

        for run, state in ((RUN.answered, "unconfirmed"), (RUN.unreceived, "intended")):
            post = _post(past, run)
            article = self.devto.write(post.title, post.markdown, published=True)
            stored(run, "devto", forem.intend(post), state, f"draft {article.id}")
        stored(RUN.unsent, "devto", forem.intend(_post(past, RUN.unsent)), "intended", None)
        rejected = forem.intend(_post(past, RUN.rejected))
        past.execute(
            "UPDATE publication SET platform = 'devto', key = ?, payload = ? WHERE run = ?",
            (rejected.key, rejected.payload.decode(), RUN.rejected),
        )
        announced = records.intend(_post(past, RUN.answered))
        (told,) = records.plan(announced).posts
        self.bluesky.records[f"app.bsky.feed.post/{told[0]}"] = told[1]
        stored(RUN.answered, "bluesky", announced, "unconfirmed", DID)

    def _recall_bill(self, past: sqlite3.Connection) -> None:
        """The provider remembers what it answered to the version before, and charged for it."""
        costs = {
            str(row["remote_id"]): int(row["cost_micro"])
            for row in past.execute("SELECT remote_id, cost_micro FROM attempt WHERE remote_id > ''"
                                    " AND cost_micro IS NOT NULL")
        } | BILLED  # fmt: skip
        for number in range(1, 98):
            self.model.bill.append(
                Charge("alpha", 0, 0, 0, costs.get(f"chatcmpl-{number:06}", 0), "")
            )
        (booked,) = past.execute(
            "SELECT debits_posted_micro - credits_posted_micro FROM account"
            " WHERE name = 'inference:llm'"
        ).fetchone()
        # That far the books were right.
        self.model.used_before = booked + sum(BILLED.values()) - self.model.billed_micro
        # Its address was another machine's; the key is the same.
        past.execute(
            "UPDATE usage_counter SET key_mark = ?", (key_mark(self.settings.endpoints["llm"]),)
        )

    def outcome(self, run: str) -> tuple[str, str]:
        """What became of a run, and why."""
        with self.reading() as tx:
            row = journal.run(tx, run)
        assert row is not None
        return row.outcome, row.reason


def _post(past: sqlite3.Connection, run: str) -> Post:
    """A run's article as it was about to be sent."""
    article = past.execute("SELECT * FROM article WHERE run = ?", (run,)).fetchone()
    sent = past.execute(
        "SELECT payload FROM publication WHERE platform = 'outbox' AND run = ?", (run,)
    ).fetchone()
    closing_line = f"*Published autonomously by software, Penstock, in run {run}.*"
    return Post(
        run=run,
        title=article["title"],
        description=article["description"],
        tags=tuple(json.loads(article["tags"])),
        # What was approved and sent nowhere has its prose only.
        markdown=json.loads(sent[0])["markdown"]
        if sent
        else f"{article['text']}\n\n{closing_line}",
        at=UPGRADED_AT - timedelta(hours=2),
        language="en",
    )


def test_an_upgrade_repeats_and_loses_nothing_and_ends_every_hold(tmp_path: Path) -> None:
    heir = Heir(tmp_path, PENSTOCK_HOLD_EXPIRY="72")
    heir.model.usage_api = "openrouter"
    before = heir.there()
    # A pause of the version before is one of this version: it looks, and sends nothing.
    heir.lives("vacuum command")
    assert heir.writes == (0, 0, 0)
    assert heir.there() == before
    heir.penstock("resume")
    for subject in ("checkpoint", "collation", "savepoint", "trigger"):
        heir.lives(subject)
        for draft in heir.drafts():
            heir.penstock("drafts", "approve", draft["run"])
    heir.lives("foreign key")

    inherited = {RUN.answered, RUN.unreceived, RUN.unsent, RUN.waiting, RUN.interrupted}
    there = heir.there()
    heir.assert_sound()
    for place in (there.devto, there.outbox, there.bluesky):
        assert inherited <= set(place)
    assert before.outbox.keys() < there.outbox.keys()
    for run in inherited:
        assert heir.outcome(run) == (
            RunOutcome.PUBLISHED, "published to outbox, devto, bluesky"
        )  # fmt: skip
    # What was there already was not sent again, and what came after the upgrade is there, too.
    created = [json.loads(r.body)["article"]["title"] for r in heir.devto.sent("POST")]
    assert len(created) == len(set(created)) == len(there.devto) - 2
    assert len(there.devto) > len(inherited)
    # Nothing was left to guessing: the bill is met to the millionth.
    assert heir.uncertain().keys() & {f"hold:{attempt}:settle" for attempt in heir.held} == set()
    assert heir.booked() == heir.billed


def test_an_upgrade_without_a_person_or_a_bill_ends_everything_with_a_reason(
    tmp_path: Path,
) -> None:
    heir = Heir(tmp_path)
    # No command but a start of the service migrates it.
    heir.live(60)
    heir.penstock("resume")
    heir.lives("vacuum command", "checkpoint")
    assert {f"hold:{attempt}:settle" for attempt in heir.held} <= heir.uncertain().keys()
    assert heir.booked() == heir.billed + sum(heir.held.values()) - sum(BILLED.values())
    heir.lives(*SUBJECTS[2:10])
    there = heir.there()
    heir.assert_sound()
    for run in (RUN.answered, RUN.unreceived, RUN.unsent):
        assert heir.outcome(run)[0] == RunOutcome.PUBLISHED
        assert there.devto[run] == there.outbox[run] == there.bluesky[run] == 1
    for run in (RUN.waiting, RUN.interrupted):
        assert heir.outcome(run)[0] == RunOutcome.ABSTAINED
        assert "seven days" in heir.outcome(run)[1]
        assert run not in {*there.devto, *there.outbox, *there.bluesky}
    assert heir.booked() >= heir.billed


def test_what_a_person_rejected_before_the_upgrade_stays_unpublished(tmp_path: Path) -> None:
    heir = Heir(tmp_path)
    heir.live(60)
    heir.penstock("resume")
    heir.lives("vacuum command")
    assert RUN.rejected not in heir.there().devto
    assert heir.outcome(RUN.rejected)[0] == RunOutcome.ABSTAINED


# Last night's backup


class Night(Kill):
    """
    Makes the backup beside the service: at one of its commits, or of its requests to a platform.

    Args:
        due: told the number of it, from 1, says whether it is this one; of several the last counts.
        fatal: whether the process dies there.
    """

    def __init__(
        self, daemon: Restored, due: Callable[[int], bool], *, fatal: bool = False
    ) -> None:
        super().__init__(due, after=False)
        self._daemon = daemon
        self._fatal = fatal

    def strikes(self) -> bool:
        if super().strikes():
            self._daemon.back_up()
        self.dead = self.dead and self._fatal
        return self.dead


class Restored(Publication):
    """One whose disk will be lost."""

    def __init__(self, folder: Path, /, **changes: str) -> None:
        super().__init__(folder / "state", **changes)
        self.vault = folder / "backups"
        self.vault.mkdir(parents=True)
        self.model.usage_api = "openrouter"
        self.deposit("20")
        # It reads the provider's counter once before the first request, as it must.
        self.reconcile()

    def back_up(self) -> None:
        """What `penstock backup` does, and the `cp -a` of the outbox beside it."""
        with closing(Database(self.settings.location.database_url)) as database:
            backup(
                database, self.vault / "penstock.db", at=self.time.clock.now(),
                verify=migrations.require_current,
            )  # fmt: skip
        if self.outbox.exists():
            shutil.copytree(self.outbox, self.vault / "outbox", dirs_exist_ok=True)

    def lose_disk(self, *, but_outbox: bool) -> None:
        """Put last night's backup on a new disk."""
        state = self.database.parent
        for path in state.iterdir():
            if path != self.outbox:
                path.unlink()
        if not but_outbox:
            shutil.rmtree(self.outbox, ignore_errors=True)
            if (self.vault / "outbox").exists():
                shutil.copytree(self.vault / "outbox", self.outbox)
        shutil.copyfile(self.vault / "penstock.db", self.database)

    def come_back(self) -> None:
        """Steps 2 and 3 of docs/restore.md, as far as they are the same for everybody."""
        self.penstock("pause", "--reason", "restored")
        assert self.penstock("ledger", "check")["ok"]

    def judge_drafts(self) -> list[str]:
        """Step 5: approve, or reject what is out already; returns the subjects rejected."""
        rejected = []
        for draft in self.drafts():
            (subject,) = (subject for subject in SUBJECTS if subject in draft["title"])
            run = draft["run"]
            if run not in self.there().devto and self.subjects()[subject]:
                self.penstock("drafts", "reject", run, "--reason", "is out")
                rejected.append(subject)
            else:
                self.penstock("drafts", "approve", run)
        return rejected

    def under_way(self) -> int:
        """How many requests to models are held for."""
        with self.reading() as tx:
            return len(posting.open_holds(tx))

    def planned(self) -> set[str]:
        """The states of all publications."""
        return {state for run in self.runs() for state in self.states(run.id).values()}

    def deposited(self) -> int:
        """What was paid in, in micro-credits."""
        with self.reading() as tx:
            return sum(e.amount.micro for e in store.entries(tx) if e.code == Code.DEPOSIT)

    def treasury(self) -> int:
        """What is left, in micro-credits."""
        with self.reading() as tx:
            return store.balance(tx).posted.micro

    def earned(self) -> int:
        """What readers brought, in micro-credits."""
        with self.reading() as tx:
            return sum(e.amount.micro for e in store.entries(tx) if e.code == Code.ENGAGEMENT)

    def is_read(self, subject: str, reactions: int) -> None:
        (article,) = (a for a in self.devto.public if subject in a.fields["title"])
        self.devto.read_by_people(article.id, public_reactions_count=reactions)


REACTION_MICRO = 5_000


# A run asks for notes on five questions at once.
HELD = 5


def four_days(folder: Path) -> tuple[Restored, str]:
    """
    The first days of a publication; the third night's backup finds it at work.

    Returns:
        And the run that it was at work on, which the backup has as unfinished.
    """
    daemon = Restored(folder)
    daemon.lives("vacuum command", "checkpoint")
    daemon.is_read("vacuum command", 8)
    daemon.lives("collation", kill=Night(daemon, lambda _: daemon.under_way() == HELD))
    run = str(daemon.runs()[-1].id)
    daemon.penstock("ledger", "deposit", "3", "--ref", "second")
    daemon.is_read("checkpoint", 6)
    daemon.lives("savepoint")
    daemon.assert_sound()
    assert daemon.subjects() == Counter(SUBJECTS[:4])
    assert daemon.booked() == daemon.billed
    with closing(sqlite3.connect(daemon.vault / "penstock.db")) as kept:
        assert kept.execute("SELECT state FROM run WHERE id = ?", (run,)).fetchone() == ("running",)
        assert kept.execute("SELECT count(*) FROM run").fetchone() == (3,)
        assert kept.execute("SELECT count(*) FROM open_hold").fetchone() == (HELD,)
    return daemon, run


def test_what_a_backup_does_not_know_of_is_not_repeated_by_who_follows_the_guide(
    tmp_path: Path,
) -> None:
    daemon, interrupted = four_days(tmp_path)
    before, writes, earned = daemon.there(), daemon.writes, daemon.earned()
    titles = {article.fields["title"] for article in daemon.devto.public}
    daemon.lose_disk(but_outbox=True)
    daemon.come_back()
    assert daemon.earned() < earned
    # What was spent since is booked, the five requests of that night with it.
    daemon.reconcile()
    assert daemon.booked() == daemon.billed
    assert not daemon.uncertain()
    # So is what was paid in since; what the backup has is not booked twice.
    for amount, ref in (("20", "first"), ("3", "second")):
        daemon.penstock("ledger", "deposit", amount, "--ref", ref)
    assert daemon.deposited() == 23_000_000
    assert daemon.writes == writes
    daemon.lets_a_person_look()
    daemon.penstock("resume")
    rejected = []
    for subject in ("", "", "", "trigger", "foreign key"):
        daemon.lives(subject)
        rejected += daemon.judge_drafts()
    daemon.lives("")

    # The subject of the day that is lost was written about again, and went no further.
    assert rejected == ["savepoint"]
    daemon.assert_sound()
    there = daemon.there()
    assert before.devto <= there.devto
    assert before.outbox <= there.outbox
    assert before.bluesky <= there.bluesky
    assert titles <= {article.fields["title"] for article in daemon.devto.public}
    assert set(daemon.subjects().values()) == {1}
    assert len(there.devto) > len(before.devto)
    with daemon.reading() as tx:
        row = journal.run(tx, interrupted)
    assert row is not None
    assert row.outcome == RunOutcome.PUBLISHED
    assert daemon.states(interrupted) == dict.fromkeys(("bluesky", "devto", "outbox"), "published")
    assert daemon.booked() == daemon.billed
    # What readers did since the backup was counted once more, and is in the books once.
    assert daemon.earned() == earned == (8 + 6) * REACTION_MICRO


def test_without_a_counter_or_the_outbox_the_guide_still_leads_to_sound_books(
    tmp_path: Path,
) -> None:
    daemon, interrupted = four_days(tmp_path)
    before = daemon.there()
    daemon.model.usage_api = None
    daemon.lose_disk(but_outbox=False)
    assert interrupted not in daemon.there().outbox
    daemon.come_back()
    daemon.reconcile()
    # Nobody can tell what became of that night's five requests, so they cost what was held.
    assert len(daemon.uncertain()) == HELD
    daemon.penstock("ledger", "deposit", "3", "--ref", "second")
    difference = (daemon.booked() - daemon.billed) / 1_000_000
    daemon.penstock("ledger", "adjust", f"{difference:.6f}", "--ref", "restore-1", "--memo", "bill")
    daemon.lets_a_person_look()
    daemon.penstock("resume")
    for subject in ("", "", "", "trigger", "foreign key"):
        daemon.lives(subject)
        daemon.judge_drafts()
    daemon.lives("")

    daemon.assert_sound()
    there = daemon.there()
    assert before.devto <= there.devto
    assert before.bluesky <= there.bluesky
    assert set(daemon.subjects().values()) == {1}
    # What the copy of the outbox lacked is there again, if the backup knows of it.
    (forgotten_run,) = before.outbox.keys() - there.outbox.keys()
    assert forgotten_run in there.devto
    assert interrupted in there.outbox
    assert daemon.treasury() == 23_000_000 + (8 + 6) * REACTION_MICRO - daemon.billed


def test_without_a_person_a_subject_of_the_lost_days_is_written_about_again(
    tmp_path: Path,
) -> None:
    """
    As docs/restore.md says: a run that began after the backup is not in it. Its article is at
    Dev.to and in the outbox under an id that the journal never heard of, and no destination is
    asked what it has of such runs. So whoever does not look repeats that day, and no other.
    """
    daemon, interrupted = four_days(tmp_path)
    before = daemon.there()
    daemon.lose_disk(but_outbox=True)
    daemon.lives("", "", "trigger", "")
    daemon.assert_sound()
    assert daemon.there().devto[interrupted] == 1
    assert before.devto <= daemon.there().devto
    assert {s for s, times in daemon.subjects().items() if times > 1} == {"savepoint"}
    assert daemon.subjects()["savepoint"] == 2
    assert daemon.booked() == daemon.billed


@pytest.mark.parametrize("but_outbox", [True, False])
def test_whenever_a_run_was_backed_up_it_is_taken_for_what_it_published(
    tmp_path: Path, but_outbox: bool
) -> None:
    seen: set[tuple[str, ...]] = set()
    for number in range(14 + 4 * but_outbox, 76, 8):
        daemon = Restored(tmp_path / str(number))
        daemon.news("vacuum command")
        daemon.live(2 * 3600, kill=Night(daemon, number.__eq__), poll_s=POLL_S)
        (run,) = daemon.runs()
        before, writes = daemon.there(), daemon.writes
        assert before.devto == before.outbox == before.bluesky == Counter([run.id])
        daemon.lose_disk(but_outbox=but_outbox)
        seen.add(tuple(sorted(daemon.states(run.id).values())))
        daemon.live(1.1 * DAY_S, poll_s=4 * POLL_S)
        assert daemon.there() == before, number
        assert daemon.writes == writes, number
        assert set(daemon.states(run.id).values()) == {"published"}
        daemon.assert_sound()
        assert daemon.booked() == daemon.billed
    # Before anything was intended, between the destinations, and when all was over.
    assert () in seen
    assert len(seen) >= 3, seen


# What a person took back, before or since, stays back


def test_what_a_person_rejects_after_a_restore_stays_unpublished(tmp_path: Path) -> None:
    daemon = Restored(tmp_path)
    daemon.news("vacuum command")
    # The disk is lost just after the backup, when everything is planned and nothing is sent.
    lost = Night(daemon, lambda _: daemon.planned() == {"intended"}, fatal=True)
    with pytest.raises(Killed):
        daemon.live(2 * 3600, kill=lost, poll_s=POLL_S)
    assert not daemon.there().outbox
    daemon.lose_disk(but_outbox=False)
    daemon.lets_a_person_look()
    daemon.live(60)
    (draft,) = daemon.drafts()
    daemon.penstock("drafts", "reject", draft["run"], "--reason", "it is wrong")
    daemon.live(2 * 3600, poll_s=POLL_S)
    assert not daemon.there().devto
    assert not daemon.there().bluesky


def test_what_was_withdrawn_since_the_backup_stays_withdrawn(tmp_path: Path) -> None:
    daemon = Restored(tmp_path)
    daemon.news("vacuum command")
    daemon.live(2 * 3600, kill=Night(daemon, lambda _: daemon.under_way() == HELD), poll_s=POLL_S)
    (run,) = daemon.runs()
    daemon.withdraw(run.id)
    withdrawn = daemon.there()
    assert not withdrawn.devto
    daemon.lose_disk(but_outbox=True)
    assert daemon.states(run.id) == {}
    daemon.live(DAY_S, poll_s=POLL_S)
    assert daemon.there() == withdrawn
