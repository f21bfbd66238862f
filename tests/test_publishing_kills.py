"""
The command killed with SIGKILL at every step of publishing: exactly one post at every destination.

The processes are real, and so are the sockets, the files and the signal. What dies is the command:
at a request to a platform, before it takes effect or after, unanswered; or at a call that makes
something durable or gives it its name, in the database, in the outbox and in the session's file
(`faults.c`). Then it is run again, unharmed, until nothing is left to do, and a judge looks at the
platforms and at the folder, not at what the program says of itself.

The lives of one case share a clock that jumps where the command does nothing but sleep, so that two
minutes between two looks at Dev.to cost none of ours.

`python -m tests.test_publishing_kills library` is the nursery: it has imported everything and
opened nothing, so that a life costs a fork and not a start of Python.
"""

from __future__ import annotations

import copy
import ctypes
import fnmatch
import gc
import json
import mmap
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import feedparser
import httpx
import pytest

from ledger import audit
from ledger.database import Database
from tests.cli_helpers import small_world
from tests.doubles import devto
from tests.doubles.bluesky import BlueskyDouble
from tests.doubles.devto import DevToDouble
from tests.doubles.wire import Answer, Double, Fault, Request, serve

T = TypeVar("T")
C = TypeVar("C", bound="Case")

LONG = os.environ.get("PENSTOCK_LONG") == "1"
# Far longer than a life takes, on a machine that is busy with something else, too.
PATIENCE_S = 60.0
# What is left to do is done in this many rounds of `once` and `reconcile`, an hour between them.
ROUNDS_MAX = 6
# Of the cases in which a life is ended again and again, at moments drawn by chance.
SEEDS = 600 if LONG else 180
EVERYWHERE = "outbox,devto,bluesky"
# Fewer would mean that most of the program was not there to be killed.
FLOORS = {
    f"once to {EVERYWHERE}, at a file": 80,
    f"once to {EVERYWHERE}, at a request": 18,
    "once to outbox, at a file": 50,
    "once to devto, at a file": 16,
    "once to devto, at a request": 6,
    "once to bluesky, at a file": 34,
    "once to bluesky, at a request": 10,
    "once with a thread, at a request": 14,
    "withdraw, at a file": 50,
    "withdraw, at a request": 4,
    "collect, at a file": 12,
    "collect, at a request": 6,
    "again and again": SEEDS,
}
AT_A_TIME = 3
ACCOUNT = BlueskyDouble()
POSTS = "app.bsky.feed.post/"
# An announcement of several posts.
TOLD = (
    "What an operator should measure before changing the write-ahead log.",
    "Why a reader that stays open lets the log grow.",
    "And when a checkpoint waits.",
)


class Moment(IntEnum):
    """When the process dies, as `faults.c` numbers it."""

    BEFORE = 1
    HALFWAY = 2
    AFTER = 3


@dataclass(frozen=True)
class Death:
    """
    The n-th call or request at which a life ends.

    Args:
        at: `file` for a call that makes something durable or visible, `write` for one that changes
            a file in any way, `request` for what a platform is asked.
    """

    at: str
    number: int
    moment: Moment


# The nursery


def nurse(library: str, *modules: str) -> None:
    """
    Fork commands and bury them, as told line by line.

    Args:
        modules: what lives import besides what is rehearsed.
    """
    from daemon.cli import main

    for module in modules:
        import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    faults = ctypes.CDLL(library)
    faults.faults_doom.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    for line in sys.stdin:
        word, told = json.loads(line)
        if word == "rehearse":
            # Imports what a life imports, and compiles what it asks the database.
            faults.faults_hurry(str(Path(told["home"]) / "clock").encode())
            answer = main([*told["args"], "--env-file", str(Path(told["home"]) / "env")])
            assert threading.active_count() == 1, "a fork would lose a thread"
            # What is there now is left alone by the collector, or each life would copy its pages.
            gc.freeze()
        elif word == "fork":
            answer = os.fork()
            if not answer:
                live(faults, told, main)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(told, 0)[1])
        print(answer, file=answers, flush=True)


def live(faults: Any, told: Mapping[str, Any], main: Callable[[Sequence[str]], int]) -> NoReturn:
    """One life of the command, in the place of `python -m daemon`."""
    code = 70
    try:
        home = Path(told["home"])
        os.chdir(home)
        os.environ.clear()
        os.environ.update(PATH=os.defpath, HOME=str(home), LANG="C.UTF-8")
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faults.faults_hurry(str(home / "clock").encode())
        faults.faults_doom(str(home / "state").encode(), *told["doom"])
        faults.faults_tell(os.open(home / "calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        code = main([*told["args"], "--env-file", str(home / "env")])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Nursery:
    """
    The killer's end of it, for any thread.

    Args:
        module: what calls `nurse` when it is run.
    """

    def __init__(self, library: Path, module: str) -> None:
        self._lock = threading.Lock()
        env = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(library)],
            cwd=Path(__file__).parents[1], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def rehearse(self, home: Path, args: Sequence[str]) -> int:
        """Do it in the nursery itself, which everybody forked later has then done before."""
        return self._ask("rehearse", {"home": str(home), "args": args})

    def fork(self, home: Path, args: Sequence[str], doom: tuple[int, int, int]) -> int:
        return self._ask("fork", {"home": str(home), "args": args, "doom": doom})

    def bury(self, pid: int) -> int:
        """Wait until it has ended; its exit code, or minus the signal."""
        alive = os.pidfd_open(pid)
        ended, _, _ = select.select([alive], [], [], PATIENCE_S)
        os.close(alive)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        status = self._ask("bury", pid)
        assert ended, f"it was still there after {PATIENCE_S:g} s"
        return status

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE_S)

    def _ask(self, word: str, told: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps([word, told]) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


# A case


class SharedClock:
    """The machine's time and what was skipped, which stands in a file of eight bytes."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 8)

    @property
    def ahead_s(self) -> float:
        (ns,) = struct.unpack("q", self._ahead[:8])
        return float(ns / 1e9)

    def skip(self, seconds: float) -> None:
        self._ahead[:8] = struct.pack("q", int((self.ahead_s + seconds) * 1e9))

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


@dataclass
class Sentence:
    """Carries out a death at a request, for both platforms together."""

    death: Death | None = None
    pid: int | None = None
    asked: list[str] = field(default_factory=list)

    def strikes(self, moment: Moment, request: Request) -> bool:
        """Whether the life ended here; the caller then answers nothing."""
        if moment is Moment.BEFORE:
            self.asked.append(f"{request.method} {request.path.rpartition('/')[2]}")
        if self.death != Death("request", len(self.asked), moment):
            return False
        while self.pid is None:  # it asked before its killer was told its name
            time.sleep(0.001)
        os.kill(self.pid, signal.SIGKILL)
        return True


@dataclass
class Fatal:
    """A platform at which a life may end."""

    inner: Double
    sentence: Sentence

    async def handle(self, request: Request) -> Answer:
        if self.sentence.strikes(Moment.BEFORE, request):
            return Answer(fault=Fault.DROP)
        answer = await self.inner.handle(request)
        if self.sentence.strikes(Moment.AFTER, request):
            return Answer(fault=Fault.DROP)
        return answer


@dataclass
class Ended:
    """How a life ended: an exit code, or minus a signal."""

    args: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Ready:
    """
    What a case begins with.

    Args:
        home: a folder with the `state` in it, the `env` file's settings in `settings`, and a clock.
    """

    home: Path
    run: str
    settings: Mapping[str, str]
    devto: DevToDouble
    bluesky: BlueskyDouble
    publishers: str = EVERYWHERE
    posts: int = 1

    def at(self, publishers: str) -> Ready:
        return replace(self, publishers=publishers)


class Case:
    """A state of one's own, platforms of one's own, and lives in between."""

    def __init__(self, ready: Ready, home: Path, nursery: Nursery, servers: ExitStack) -> None:
        shutil.copytree(ready.home, home)
        self.home, self.run, self.publishers = home, ready.run, ready.publishers
        self.posts = ready.posts  # of the announcement
        self._nursery = nursery
        self.clock = SharedClock(home / "clock")
        self.devto, self.bluesky = copy.deepcopy((ready.devto, ready.bluesky))
        self.devto.now, self.bluesky.now = self.clock.monotonic, self.clock.now
        self._sentence = Sentence()
        urls = [
            servers.enter_context(serve(Fatal(double, self._sentence))).url
            for double in (self.devto, self.bluesky)
        ]
        self.devto_url = urls[0]
        session = home / "state" / "bluesky-session.json"
        if session.exists():
            # It is for the service that made it, which was elsewhere.
            session.write_text(session.read_text().replace(ready.settings["BLUESKY_URL"], urls[1]))
        self.settings = dict(ready.settings) | {
            "PENSTOCK_STATE_DIR": str(home / "state"),
            "PENSTOCK_PUBLISHERS": ready.publishers,
            "DEVTO_URL": urls[0],
            "BLUESKY_URL": urls[1],
        }
        lines = (f'{name}="{value}"\n' for name, value in self.settings.items())
        (home / "env").write_text("".join(lines))

    @property
    def outbox(self) -> Path:
        return self.home / "state" / "outbox"

    def live(self, *args: str, death: Death | None = None) -> Ended:
        """One life of the command."""
        self._sentence.death, self._sentence.pid = death, None
        self._sentence.asked.clear()
        doom = (0, int(Moment.AFTER), 0)
        if death is not None and death.at != "request":
            doom = (death.number, int(death.moment), int(death.at == "write"))
        self._sentence.pid = self._nursery.fork(self.home, args, doom)
        code = self._nursery.bury(self._sentence.pid)
        ended = Ended(args, code, *((self.home / n).read_text() for n in ("out", "err")))
        assert ended.killed or code in range(9), ended
        assert "Traceback" not in ended.err, ended.err
        assert "unexpected" not in ended.err, ended.err
        return ended

    def reconcile(self) -> None:
        """Run it until it says that nothing is left to do."""
        for _ in range(ROUNDS_MAX):
            reconciled = self.live("reconcile", "--json")
            # It names what was open, so that the next one says whether it still is.
            if (reconciled.code, reconciled.json["publications"]) == (0, []):
                return
            self.clock.skip(3600)
        raise AssertionError(f"something is left to do: {reconciled}")

    @property
    def calls(self) -> list[str]:
        """What the last life did to its files, such as `rename feed.xml`."""
        return (self.home / "calls").read_text().splitlines()

    @property
    def asked(self) -> list[str]:
        """What the last life asked of platforms, such as `POST articles`."""
        return list(self._sentence.asked)

    def go_on(self) -> None:
        """Run it again until nothing is left to do."""
        for _ in range(ROUNDS_MAX):
            once = self.live("once", "--json")
            # It is out now, or was before, and a second one is not due today.
            if once.json["outcome"] in ("published", "skipped"):
                break
            self.clock.skip(3600)
        else:
            raise AssertionError(f"something is left to do: {once}")
        self.reconcile()

    # The judge

    def listed(self) -> list[dict[str, Any]]:
        """The author's articles, as Dev.to lists them to anybody with the key."""
        self.devto.throttled = False
        headers = {"api-key": devto.KEY, "accept": devto.V1, "user-agent": "a judge"}
        url = f"{self.devto_url}/api/articles/me/all?per_page=100"
        found = httpx.get(url, headers=headers).json()
        assert isinstance(found, list)
        return found

    def judge_published(self) -> None:
        """Exactly one wherever it was to go, nothing elsewhere, and never more."""
        chosen = self.publishers.split(",")
        self.judge_outbox(int("outbox" in chosen))
        self.judge_devto(int("devto" in chosen))
        self.judge_bluesky(int("bluesky" in chosen))
        self.judge_books()

    def judge_withdrawn(self) -> None:
        """Nothing is public anywhere."""
        self.judge_outbox(0)
        self.judge_bluesky(0)
        assert [article for article in self.listed() if article["published"]] == []
        self.judge_books()

    def judge_books(self) -> None:
        """As `ledger check` does, which costs a process."""
        database = Database(f"sqlite:///{self.home}/state/penstock.db")
        try:
            with database.read() as tx:
                assert audit.check(tx).problems == []
        finally:
            database.close()

    def judge_devto(self, count: int) -> None:
        public = [article for article in self.listed() if article["published"]]
        assert len(public) == count, public
        assert self.devto.public_most == count
        for article in public:
            assert self.run in article["body_markdown"].rstrip().rpartition("\n")[2]
            assert "-temp-slug-" not in article["url"]

    def judge_bluesky(self, count: int) -> None:
        posts = self.bluesky.posts()
        assert len(posts) == count * self.posts, posts
        # The service writes a record that is put twice once; another key would be another post.
        made = {path: n for path, n in self.bluesky.writes.items() if path.startswith(POSTS)}
        assert len(made) <= self.posts, made
        assert set(made.values()) <= {1}, made
        if count and "devto" in self.publishers:
            post = posts[min(posts)]
            (article,) = self.devto.public
            shown = post["embed"]["external"]
            assert shown["uri"] == f"https://dev.to/penstock/{article.slug}"
            assert shown["title"] == article.fields["title"]
            assert shown["thumb"]["ref"]["$link"] in self.bluesky.blobs

    def judge_outbox(self, count: int) -> None:
        files = Counter(path.suffix for path in self.outbox.glob("[!.]*"))
        if not count and not files:
            return
        whole = Counter({".md": count, ".html": count, ".json": count, ".png": count})
        assert files == +(whole + Counter({".html": 1, ".xml": 1}))
        feed = feedparser.parse((self.outbox / "feed.xml").read_bytes())
        assert not feed.bozo, feed
        names = [path.name for path in self.outbox.glob("2*.html")]
        assert [entry.link.rpartition("/")[2] for entry in feed.entries] == names
        index = (self.outbox / "index.html").read_text()
        assert re.findall(r'href="(2[^"]*)"', index) == names
        for text in self.outbox.glob("*.md"):
            assert self.run in text.read_text()


# What the cases begin with


class Killers(Generic[C]):
    """Threads that kill, and a count of what died."""

    def __init__(
        self, folder: Path, nursery: Nursery, case_type: type[C], kills: Counter[str]
    ) -> None:
        self._folder, self._nursery, self._case_type = folder, nursery, case_type
        self.kills = kills
        self._number = 0
        self._lock = threading.Lock()

    @contextmanager
    def case(self, ready: Ready) -> Iterator[C]:
        with self._lock:
            self._number += 1
            home = self._folder / f"{self._number}"
        with ExitStack() as servers:
            yield self._case_type(ready, home, self._nursery, servers)
        shutil.rmtree(home)

    def rehearse(self, ready: Ready, *commands: str, codes: Collection[int] = (0,)) -> None:
        with self.case(ready) as case:
            for command in commands:
                assert self._nursery.rehearse(case.home, command.split()) in codes, command

    def count(self, kind: str, killed: bool = True) -> None:
        with self._lock:
            self.kills[kind] += killed

    def each(self, act: Callable[[T], None], of: Sequence[T]) -> None:
        """Do it for each, several at a time; the first failure is told with what it was about."""

        def told(one: T) -> None:
            try:
                act(one)
            except BaseException as error:
                error.add_note(f"the case: {one}")
                raise

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                for _ in pool.map(told, of):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def close(self) -> None:
        self._nursery.close()


@pytest.fixture(scope="module")
def killers(
    library: Path, finished: Ready, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Killers[Case]]:
    folder, nursery = tmp_path_factory.mktemp("cases").resolve(), Nursery(library, __name__)
    with closing(Killers(folder, nursery, Case, Counter())) as made:
        made.rehearse(finished, "once --json", "once --json", "reconcile --json", codes=(0, 3))
        yield made


def written(home: Path, posts: Sequence[str] = ()) -> Ready:
    """One article, written and approved, and nowhere yet."""
    settings = {
        "PENSTOCK_PUBLISHERS": EVERYWHERE,
        "PENSTOCK_APPROVAL": "manual",
        "PENSTOCK_PROVIDER_LLM_USAGE": "none",
        "DEVTO_API_KEY": devto.KEY,
        "BLUESKY_HANDLE": ACCOUNT.name,
        "BLUESKY_APP_PASSWORD": ACCOUNT.password,
    }
    with small_world() as world:
        if posts:
            world.model.answers["announcement"] = lambda asked: {"posts": list(posts)}
        desk = world.desk(home, **settings)
        made = desk.once()
        assert made.json["outcome"] == "awaiting_approval", made
        run = made.json["run"]
        assert desk.run("drafts", "approve", run).code == 0
    SharedClock(home / "clock")
    count = len(posts) or 1
    return Ready(home, run, desk.settings, DevToDouble(), BlueskyDouble(), posts=count)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return written(tmp_path_factory.mktemp("finished").resolve())


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """With an announcement of several posts."""
    return written(tmp_path_factory.mktemp("threaded").resolve(), TOLD)


@pytest.fixture(scope="module")
def everywhere(
    killers: Killers[Case], finished: Ready, tmp_path_factory: pytest.TempPathFactory
) -> Ready:
    """The same when it is out."""
    with killers.case(finished) as case:
        assert case.live("once", "--json").code == 0
        case.judge_published()
        # Else the next write would come too soon for the site, in some cases and not in others.
        case.clock.skip(60)
        case.devto.now, case.bluesky.now = time.monotonic, ACCOUNT.now
        case.devto.throttled = True
        home = tmp_path_factory.mktemp("everywhere").resolve()
        shutil.copytree(case.home, home, dirs_exist_ok=True)
        return replace(
            finished, home=home, settings=case.settings, devto=case.devto, bluesky=case.bluesky
        )


@dataclass(frozen=True)
class Boundaries:
    """Where a life of a command may end, as living one has shown."""

    calls: list[str]
    asked: list[str]

    @classmethod
    def of(cls, killers: Killers[Case], ready: Ready, *args: str) -> Boundaries:
        with killers.case(ready) as case:
            ended = case.live(*args)
            assert ended.code == 0, ended
            return cls(case.calls, case.asked)

    @property
    def deaths(self) -> list[Death]:
        """Before and after each."""
        return [
            Death(at, number, moment)
            for at, those in (("file", self.calls), ("request", self.asked))
            for number in range(1, len(those) + 1)
            for moment in (Moment.BEFORE, Moment.AFTER)
        ]


# Publishing

COMMIT = "fdatasync penstock.db-wal"
STEPS = {
    "outbox": {
        *(f"rename {name}" for name in ("feed.xml", "index.html")),
        *(f"rename 2*{ending}" for ending in (".md", ".png", ".html", ".json")),
        "mkdir outbox", "fsync outbox",
    },
    "devto": {"POST articles", "PUT *", COMMIT},
    "bluesky": {
        "POST com.atproto.server.createSession", "POST com.atproto.repo.putRecord",
        "rename bluesky-session.json", COMMIT,
    },
}  # fmt: skip


@pytest.mark.parametrize("publishers", [EVERYWHERE, "outbox", "devto", "bluesky"])
def test_killed_at_every_boundary_there_is_one_of_each(
    killers: Killers[Case], finished: Ready, publishers: str
) -> None:
    ready = finished.at(publishers)
    boundaries = Boundaries.of(killers, ready, "once", "--json")
    passed = [*boundaries.calls, *boundaries.asked]
    for step in set().union(*(STEPS[name] for name in publishers.split(","))):
        assert fnmatch.filter(passed, step), f"{step} is not among {passed}"

    def kill(death: Death) -> None:
        with killers.case(ready) as case:
            ended = case.live("once", "--json", death=death)
            assert ended.killed, ended
            killers.count(f"once to {publishers}, at a {death.at}")
            case.go_on()
            case.judge_published()

    killers.each(kill, boundaries.deaths)


def test_killed_at_any_request_a_thread_is_whole_in_the_end(
    killers: Killers[Case], threaded: Ready
) -> None:
    ready = threaded.at("bluesky")

    def kill(death: Death) -> None:
        with killers.case(ready) as case:
            assert case.live("once", "--json", death=death).killed
            killers.count(f"once with a thread, at a {death.at}")
            case.go_on()
            case.judge_published()

    asked = Boundaries.of(killers, ready, "once", "--json").asked
    assert asked.count("POST com.atproto.repo.putRecord") == len(TOLD) + 1
    killers.each(kill, Boundaries([], asked).deaths)


# Taking it back


def test_killed_while_it_takes_back_nothing_stays(
    killers: Killers[Case], everywhere: Ready
) -> None:
    words = ("posts", "withdraw", everywhere.run, "--reason", "x", "--json")
    lost: list[Death] = []

    def kill(death: Death) -> None:
        with killers.case(everywhere) as case:
            ended = case.live(*words, death=death)
            assert ended.killed, ended
            killers.count(f"withdraw, at a {death.at}")
            case.reconcile()
            if case.devto.public:
                # The wish itself was lost, and so nothing may have been touched.
                case.judge_published()
                lost.append(death)
                assert case.live(*words).code == 0
            case.judge_withdrawn()

    boundaries = Boundaries.of(killers, everywhere, *words)
    killers.each(kill, boundaries.deaths)
    # Only before the first commit.
    first = boundaries.calls.index(COMMIT) + 1
    assert set(lost) <= {d for d in boundaries.deaths if d.at == "file" and d.number <= first}


# Collecting


def read_by_people(case: Case) -> None:
    (article,) = case.devto.public
    case.devto.read_by_people(
        article.id, page_views_count=120, public_reactions_count=3, comments_count=1
    )
    (rkey,) = case.bluesky.posts()
    case.bluesky.counts[rkey] = {"likeCount": 4, "repostCount": 1}


# By the rate card's defaults: 120 views, 3 reactions, a comment; 4 likes and a repost.
EARNED = {"engagement:devto": "0.049000", "engagement:bluesky": "0.013000"}


def earned(case: Case) -> dict[str, str]:
    balance = case.live("ledger", "balance", "--json").json
    return {a["name"]: a["balance"] for a in balance["accounts"] if a["name"] in EARNED}


def test_killed_while_it_collects_income_is_booked_once(
    killers: Killers[Case], everywhere: Ready
) -> None:
    with killers.case(everywhere) as case:
        read_by_people(case)
        assert case.live("collect", "--json").code == 0
        boundaries = Boundaries(case.calls, case.asked)
        assert earned(case) == EARNED

    def kill(death: Death) -> None:
        with killers.case(everywhere) as case:
            read_by_people(case)
            ended = case.live("collect", "--json", death=death)
            assert ended.killed, ended
            killers.count(f"collect, at a {death.at}")
            for _ in range(2):
                case.clock.skip(3600)
                collected = case.live("collect", "--json")
                assert collected.code == 0, collected
            assert collected.json["earned"] == "0.000000"
            assert earned(case) == EARNED
            case.judge_published()

    killers.each(kill, boundaries.deaths)


# Killed again and again


def lived(case: Case, rng: random.Random, boundaries: Boundaries, *args: str) -> bool:
    """A life that may end anywhere; whether it did."""
    at = rng.choice(("file", "write", "write", "request"))
    # Some three calls that change a file go with each that makes it durable.
    count = {"file": 1, "write": 4}.get(at, 0) * len(boundaries.calls) or len(boundaries.asked)
    death = Death(at, rng.randrange(1, count + 2), rng.choice(list(Moment)))
    return case.live(*args, death=death).killed


def test_killed_again_and_again_there_is_one_of_each(
    killers: Killers[Case], finished: Ready
) -> None:
    boundaries = Boundaries.of(killers, finished, "once", "--json")

    def kill(seed: int) -> None:
        rng = random.Random(seed)
        with killers.case(finished.at(rng.choice((EVERYWHERE, EVERYWHERE, *STEPS)))) as case:
            for command in ("once", *rng.choices(("once", "reconcile"), k=rng.randrange(1, 4))):
                if lived(case, rng, boundaries, command, "--json"):
                    killers.count("again and again")
                case.clock.skip(rng.choice((0, 0, 61, 400)))
            case.go_on()
            case.judge_published()
            if rng.random() < 0.3:
                words = ("posts", "withdraw", case.run, "--reason", "x", "--json")
                for _ in range(rng.randrange(1, 4)):
                    if lived(case, rng, boundaries, *words):
                        killers.count("again and again, withdraw")
                case.live(*words)
                case.clock.skip(3600)
                case.reconcile()
                case.judge_withdrawn()

    killers.each(kill, range(SEEDS))


def test_how_many_were_killed(
    killers: Killers[Case], record_property: Callable[[str, object], None]
) -> None:
    """Runs last, and says it; a part that ran by itself has killed fewer."""
    for kind, count in sorted(killers.kills.items()):
        record_property(kind, count)
        print(f"{count:5} kills: {kind}")
    print(f"{killers.kills.total():5} kills")
    for kind, count in killers.kills.items():
        assert count >= FLOORS.get(kind, 1), kind


if __name__ == "__main__":
    # What the parser's process would cost to start, no case here needs: nothing is read.
    sys.executable = shutil.which("true") or sys.executable
    nurse(sys.argv[1])
