"""
The command line as an operator has it: a process, an environment, a folder, and a small world.

Nothing here imports the product. `Desk` is one operator's machine; `small_world` is a site with a
feed and a model provider on loopback.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.model import ModelDouble
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import serve

PENSTOCK = str(Path(sys.executable).parent / "penstock")
KEY = "sk-operators-own-key-0123456789abcdef"
PRICES = {"alpha": (3_000_000, 300_000, 15_000_000), "beta": (1_000_000, 100_000, 5_000_000)}
PRICE_LINE = "llm/alpha=3,0.3,15;llm/beta=1,0.1,5"
EXAMPLE_FEEDS = Path(__file__).parents[1] / "examples" / "feeds"
TIMEOUT_S = 60.0
NOBODY = 65534

AMOUNT = re.compile(r"-?\d+\.\d{6}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command came to; `out` and `err` are as they were written."""

    args: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout; anything beside it is an error."""
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """Everything a person could have read."""
        return self.out + self.err


@dataclass
class Desk:
    """
    One operator's machine: a home folder and the settings.

    Every command runs in a clean environment, and none may ever show a traceback.
    """

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.settings.setdefault("PENSTOCK_STATE_DIR", str(self.home / "state"))
        self.settings.setdefault("PENSTOCK_TIMEZONE", noon_zone())

    @property
    def state(self) -> Path:
        """The state folder."""
        return Path(self.settings["PENSTOCK_STATE_DIR"])

    @property
    def database(self) -> Path:
        """The file under the books."""
        return self.state / "penstock.db"

    @property
    def outbox(self) -> Path:
        """Where articles go."""
        return self.state / "outbox"

    @property
    def articles(self) -> list[Path]:
        """The Markdown of everything in the outbox."""
        return sorted(self.outbox.glob("*.md"))

    def env(self, settings: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The whole environment of a command; None takes a setting away."""
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        merged = {**base, **self.settings, **(settings or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def run(self, *args: str | bytes, settings: Mapping[str, str | None] | None = None) -> Result:
        """Run one command to its end."""
        done = subprocess.run(
            [PENSTOCK, *args], env=self.env(settings), cwd=self.home, timeout=TIMEOUT_S,
            capture_output=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return checked(args, done.returncode, done.stdout, done.stderr)

    def once(self, *args: str, settings: Mapping[str, str | None] | None = None) -> Result:
        """`penstock once --json`."""
        return self.run("once", "--json", *args, settings=settings)

    def read(self, *args: str) -> Any:
        """A command's JSON document; the command must succeed."""
        result = self.run(*args, "--json")
        assert result.code == 0, result
        return result.json

    def read_all(self, *commands: str) -> list[Any]:
        """Several documents, two commands at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda command: self.read(*command.split()), commands))

    @contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command in the background; killed on leaving where it still runs."""
        with subprocess.Popen(
            [PENSTOCK, *args], env=self.env(), cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def killed(self, when: Callable[[], bool], *args: str) -> bool:
        """Start a command and SIGKILL it as soon as `when`; False where it ended before that."""
        with self.started(*args) as process:
            await_true(lambda: process.poll() is not None or when())
            process.kill()
            _, err = process.communicate()
        assert b"Traceback" not in err, err
        return process.returncode == -signal.SIGKILL

    def initialised(self, deposit: str | None = "100") -> Desk:
        """With a database and, unless None, that deposit; copied, so that it costs no process."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(_template(deposit), self.database)
        return self

    def changed(self, **settings: str) -> Desk:
        """The same machine with other settings."""
        return Desk(self.home, self.settings | settings)

    def sql(self, *statements: str) -> None:
        """Change the database behind the product's back."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds in the database."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


def checked(args: Sequence[str | bytes], code: int, out: bytes, err: bytes) -> Result:
    """What holds for every call, whatever it came to."""
    words = [os.fsdecode(arg) for arg in args]
    result = Result(words, code, out.decode(), err.decode())
    assert "Traceback" not in result.said, result.said
    assert "unexpected:" not in result.said, result.said
    assert code in range(9), result
    assert result.said.strip(), result
    if "--json" in words:
        _ = result.json  # One document and nothing else, whatever the exit code.
    return result


def await_true(condition: Callable[[], bool]) -> None:
    """Look often; what never comes true is an error."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def in_a_shell(desk: Desk, words: str, status: str = "$?") -> subprocess.CompletedProcess[str]:
    """`penstock` with these words, and what the shell then says it came to."""
    return subprocess.run(
        ["bash", "-c", f"{shlex.quote(PENSTOCK)} {words}; echo {status}"], env=desk.env(),
        cwd=desk.home, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


@cache
def _template(deposit: str | None) -> Path:
    """A database as `init` and `ledger deposit` make it, once per test session."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-template."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    desk = Desk(folder)
    assert desk.run("init").code == 0
    if deposit is not None:
        assert desk.run("ledger", "deposit", deposit, "--ref", "first").code == 0
    # Closed cleanly, so that all of it stands in the one file.
    assert not desk.database.with_name("penstock.db-wal").exists()
    return desk.database


def noon_zone() -> str:
    """A time zone in which it is about noon, so that no test runs across midnight."""
    # POSIX counts the other way round: Etc/GMT+3 is three hours behind UTC.
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


def digest_desk(home: Path, **settings: str) -> Desk:
    """A machine that makes digests of the bundled feeds; nothing is on it yet."""
    feeds = ",".join(str(EXAMPLE_FEEDS / f"{n}.xml") for n in ("millrace", "sluice", "backwater"))
    base = {"PENSTOCK_FEEDS": feeds, "PENSTOCK_FRESH_DAYS": "36500"}
    return Desk(home, base | settings)


# Disks and networks that go wrong


def unshared(*words: str) -> list[str]:
    """What starts a program in a namespace of its own; where that cannot be, it is said."""
    prefix = ["unshare", *words]
    is_root = os.geteuid() == 0 and shutil.which("unshare") is not None
    if not is_root or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("NOT RUN: a disk or network of its own needs root and unshare")
    return prefix


def mounting(*commands: Sequence[str]) -> list[str]:
    """What starts a program among mounts of its own."""
    script = " && ".join(map(shlex.join, commands))
    return unshared("-m", "sh", "-c", f'{script} && exec "$@"', "sh")


def read_only(folder: Path) -> list[str]:
    """What starts a program for which a folder is on a read-only disk."""
    place = str(folder)
    return mounting(["mount", "--bind", place, place], ["mount", "-o", "remount,ro,bind", place])


# Users who may not


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user may enter, as none of pytest's is; who cannot be another says so."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="penstock-test.") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def python_for_all() -> None:
    """Go on where every user can run Python."""
    for folder in Path(os.__file__).parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"NOT RUN: Python lies in {folder}, which nobody else can enter")


def as_another(look: Callable[[], str], closed: Path, mode: int = 0) -> str:
    """
    What a user says who may not enter a folder, or may do with it what a mode allows; what is
    needed must be imported already.
    """
    mine, theirs = os.pipe()
    closed.chmod(mode)
    child = os.fork()
    if child == 0:
        said = "the child failed"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            said = look()
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(theirs, said.encode())
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    closed.chmod(0o700)
    with os.fdopen(mine) as told:
        return told.read()


# A small world


@dataclass(frozen=True, slots=True)
class World:
    """A site and a model provider that run, and the settings that lead to them."""

    site: SiteDouble
    model: ModelDouble
    site_url: str
    model_url: str

    @property
    def settings(self) -> dict[str, str]:
        """What a paid run with the better model needs, with room in every limit."""
        return {
            "PENSTOCK_NICHE": "SQLite on small servers, write-ahead logging",
            "PENSTOCK_FEEDS": f"{self.site_url}/feed.xml",
            "PENSTOCK_FETCH_ALLOW": self.site_url.removeprefix("http://"),
            "PENSTOCK_PROVIDER_LLM_URL": f"{self.model_url}/v1",
            "PENSTOCK_PROVIDER_LLM_KEY": KEY,
            "PENSTOCK_PRICES": PRICE_LINE,
            "PENSTOCK_WORDS": "400-900",
            "PENSTOCK_RUN_BUDGET": "5",
            "PENSTOCK_DAILY_CAP": "20",
            "PENSTOCK_MONTHLY_CAP": "50",
            **ladder("llm/alpha"),
        }

    def desk(self, home: Path, **settings: str) -> Desk:
        """A funded machine in this world."""
        return Desk(home, self.settings | settings).initialised()


def ladder(rungs: str) -> dict[str, str]:
    """One ladder for all three roles."""
    return {f"PENSTOCK_MODELS_{role}": rungs for role in ("RESEARCH", "WRITE", "EDIT")}


@contextmanager
def small_world() -> Iterator[World]:
    """A site of four pages with a feed, and a provider of two models."""
    site, model = SiteDouble(), ModelDouble(dict(PRICES), key=KEY)
    with serve(site) as at, serve(model) as provider:
        site.pages.update(pages(at.url))
        yield World(site, model, at.url, provider.url)


def pages(base: str) -> dict[str, Page | bytes | str]:
    """The site: a feed with the newest first, and what it links to."""
    now = datetime.now(UTC)
    items = "".join(
        f"<item><title>{title}</title><link>{base}/{name}.html</link>"
        f"<guid>{base}/{name}</guid><description>{body[0].partition('. ')[0]}.</description>"
        f"<pubDate>{format_datetime(now - timedelta(days=days))}</pubDate></item>"
        for days, (name, title, body) in enumerate(ARTICLES, start=1)
    )
    feed = (
        '<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel>'
        f"<title>Small Server Notes</title><link>{base}/</link>{items}</channel></rss>"
    )
    found: dict[str, Page | bytes | str] = {"/feed.xml": feed}
    for name, title, body in ARTICLES:
        paragraphs = "".join(f"<p>{paragraph}</p>" for paragraph in body)
        found[f"/{name}.html"] = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"</head><body><main><article><h1>{title}</h1>{paragraphs}</article></main></body>"
            "</html>"
        )
    return found


# The books against the provider's bill


def micro(amount: str) -> int:
    """Micro-credits of an amount as JSON has it."""
    assert AMOUNT.fullmatch(amount), amount
    return int(amount.replace(".", ""))


@dataclass(frozen=True, slots=True)
class Books:
    """The books as the command line tells them."""

    entries: list[dict[str, Any]]
    attempts: list[dict[str, Any]]

    @property
    def sums(self) -> dict[str, int]:
        """Micro-credits per account, debits positive: what the posted entries add up to."""
        found: dict[str, int] = {}
        for entry in self.entries:
            if entry["state"] == "posted":
                for account, sign in ((entry["debit"], 1), (entry["credit"], -1)):
                    found[account] = found.get(account, 0) + sign * micro(entry["amount"])
        return {account: total for account, total in found.items() if total}

    @property
    def booked(self) -> int:
        """Micro-credits booked as inference."""
        return sum(total for name, total in self.sums.items() if name.startswith("inference:"))

    @property
    def pending(self) -> dict[str, int]:
        """Micro-credits per open hold."""
        return {e["id"]: micro(e["amount"]) for e in self.entries if e["state"] == "pending"}

    @property
    def held(self) -> int:
        """Micro-credits in open holds."""
        return sum(self.pending.values())

    def outcomes(self, outcome: str) -> list[dict[str, Any]]:
        """The attempts that came to this."""
        return [attempt for attempt in self.attempts if attempt["outcome"] == outcome]


def books(desk: Desk) -> Books:
    """Every entry and every attempt."""
    return Books(*desk.read_all("ledger entries", "ledger attempts"))


def checked_books(desk: Desk) -> Books:
    """The books, after `ledger check` and the balances have agreed with them."""
    check, balance = desk.read_all("ledger check", "ledger balance")
    found = books(desk)
    assert (check["ok"], check["problems"]) == (True, [])
    sign = {"asset": 1, "expense": 1, "equity": -1, "income": -1}
    shown = {a["name"]: sign[a["kind"]] * micro(a["balance"]) for a in balance["accounts"]}
    assert found.sums == {name: total for name, total in shown.items() if total}
    assert found.held == micro(balance["held"])
    assert found.sums.get("treasury", 0) == micro(balance["posted"])
    assert micro(balance["available"]) == micro(balance["posted"]) - found.held
    return found


def assert_billed_exactly(found: Books, model: ModelDouble) -> None:
    """Nothing is open, and what was booked is what the provider charged."""
    assert found.held == 0
    assert found.booked == model.billed_micro
    assert len(found.attempts) == len(model.requests)


def assert_covered(found: Books, model: ModelDouble) -> None:
    """What the provider charged is booked or at least held."""
    assert model.billed_micro <= found.booked + found.held


# What the site says: plain sentences with numbers, one subject, four sides of it.

ARTICLES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "write-ahead-log",
        "How the write-ahead log works in SQLite",
        (
            "SQLite can keep new pages in a write-ahead log instead of changing the database file "
            "in place. A commit appends the changed pages to the log, and the original file stays "
            "as it was until later. Readers look at the log first and fall back to the database "
            "file for pages that were never changed. This lets readers and one writer work at the "
            "same time without blocking each other.",
            "The log is a separate file that stands beside the database and has the same name "
            "with a suffix. Every frame in the log carries a header of 24 bytes and one page of "
            "data. A checksum in each header tells a reader where the valid part of the log ends. "
            "After a power cut, frames behind the last valid commit are ignored when the database "
            "is opened again. A second small file of 32 kilobytes holds an index in shared memory "
            "so that readers find pages in the log quickly.",
            "Only one connection can write at any moment, and the others wait for their turn. A "
            "busy timeout of 5000 milliseconds is a common choice for small servers with several "
            "processes. A transaction that begins with a read and writes later can fail at once "
            "when another writer was faster. Beginning with an immediate transaction avoids this, "
            "because the write lock is taken before anything is read.",
            "The write-ahead log needs shared memory, so every process must run on the same host. "
            "Network file systems do not offer the locks that the log depends on. A database with "
            "a write-ahead log should therefore live on a local disk of the small server. The "
            "setting is persistent, so a database stays in this mode after it was closed. Changing "
            "the mode back to a rollback journal needs a moment in which nobody else has the file "
            "open. Large transactions beyond 100 megabytes were slow in early versions and are "
            "usually fine today, although a rollback journal may still be faster for them. "
            "Reading gets slower as the log grows, since every reader has to search it before "
            "the database file is consulted.",
        ),
    ),
    (
        "checkpoints",
        "Checkpoints and the size of the write-ahead log",
        (
            "A checkpoint copies pages from the write-ahead log back into the database file. By "
            "default SQLite starts a checkpoint when the log has grown to 1000 pages. With pages "
            "of 4096 bytes, this means that a log usually stays near 4 megabytes. The checkpoint "
            "runs inside the commit that passed the limit, so that commit takes longer than its "
            "neighbours.",
            "A passive checkpoint does as much work as it can without waiting for anybody. It has "
            "to stop at the first page that an open reader may still need. One reader that stays "
            "open for hours can therefore keep the log growing for hours. Operators who see a log "
            "of several gigabytes should look for a connection that never ends its transaction.",
            "A restart checkpoint waits for readers and then lets the next writer begin at the "
            "start of the log. A truncate checkpoint does the same and also cuts the file to zero "
            "bytes. Running a truncate checkpoint every night keeps the disk of a small server "
            "tidy. It needs a quiet moment, because it waits until no reader uses the old frames.",
            "The limit of 1000 pages is a compromise between read speed and write speed. A larger "
            "limit makes commits cheaper on average and readers a little slower. A limit of 4000 "
            "pages has worked well for a job queue with 200 commits a second. A limit of 100 pages "
            "suits a database that is mostly read and seldom written. Some teams switch automatic "
            "checkpoints off and run them from a thread of their own. That thread must never die, "
            "because without it the log grows until the disk is full. The last connection that "
            "closes a database runs a checkpoint and removes the log file. A process that is "
            "killed leaves the log behind, and the next process that opens the database reads it. "
            "Deleting the log by hand after a crash destroys every commit that was not yet copied. "
            "Monitoring the size of the log once a minute is cheap and tells early about readers "
            "that linger.",
        ),
    ),
    (
        "backups",
        "Backups of a SQLite database that is in use",
        (
            "Copying a database file while it is being written can give a copy that is damaged. "
            "The write-ahead log holds commits that the main file does not have yet. A copy of the "
            "main file alone loses those commits and may mix old pages with new ones. Small "
            "servers need a way to back up a SQLite database that stays in use.",
            "The online backup interface copies a database page by page while others keep working. "
            "When another process writes during the copy, the backup begins again from the first "
            "page. Copying 500 pages at a time and pausing for 10 milliseconds keeps the service "
            "responsive. A database of 2 gigabytes was copied in 40 seconds on an ordinary disk in "
            "this way.",
            "The vacuum command can write a compact copy into a new file in one transaction. The "
            "copy has no free pages, so it is often 20 percent smaller than the original. It needs "
            "as much processor time as a full rebuild of every index. The copy is a snapshot, and "
            "commits made during the command are not part of it.",
            "Continuous replication ships the write-ahead log to other storage every second. It "
            "takes over the checkpoints, so that no frame is removed before it was shipped. After "
            "a lost disk, at most the last second of commits is missing. Restoring means fetching "
            "the last snapshot and applying the shipped frames in their order. Whatever method is "
            "used, a backup that was never restored is only a hope. A nightly job should open the "
            "copy, run the integrity check and count the rows of 3 important tables. The integrity "
            "check reads the whole file and takes about 6 seconds for each gigabyte. The quick "
            "check skips the comparison of indexes with their tables and takes half of that time. "
            "Keeping 7 daily copies and 4 weekly copies has been enough for most small services. A "
            "copy on the same disk protects against mistakes and not against a broken disk.",
        ),
    ),
    (
        "measuring-commits",
        "Measuring SQLite commits on small servers",
        (
            "The cost of a commit in SQLite depends mostly on how often the disk is flushed. With "
            "a rollback journal, a durable commit flushes the disk at least 2 times. With a "
            "write-ahead log and full synchronisation, a commit flushes the disk once. On a small "
            "server with a solid state disk, such a commit took 0.2 milliseconds in our "
            "measurements.",
            "With normal synchronisation, the write-ahead log is flushed only before a checkpoint. "
            "A power cut can then lose the last commits, although the database stays consistent. "
            "The same server reached 30000 commits a second in this mode. Services that promise "
            "money or messages should keep full synchronisation in spite of the cost.",
            "Grouping work helps more than any setting when many small changes arrive. Putting 100 "
            "inserts into one transaction made them 50 times faster than single commits. A queue "
            "that collects changes for 5 milliseconds was barely noticed by users. The longest "
            "commit matters more than the average one when people wait for a page.",
            "A measurement should run for at least 10 minutes, so that several checkpoints fall "
            "into it. Virtual disks of small servers often allow short bursts and become slow "
            "later. Running the same test at night and at noon showed differences of 30 percent "
            "on shared hosts. Memory helps reads, because pages that were read before stay in the "
            "cache. A cache of 64 megabytes held every index of a database with 3 million rows. "
            "Memory mapped reads made scans 10 percent faster and changed nothing for single rows. "
            "The number of readers did not change the speed of the writer while the log stayed "
            "short. With a log of 1 gigabyte, each read took twice as long as before. Measuring "
            "with the real schema is important, since every index adds pages to each commit. A "
            "table with 5 indexes wrote 4 times as many pages as the same table without them.",
        ),
    ),
)
