"""`penstock doctor` finds what is wrong, says what helps, and changes nothing anywhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from daemon import doctor
from daemon.app import World
from daemon.cli import doctor as command
from daemon.clock import SystemClock
from daemon.doctor import (
    Finding,
    State,
    books,
    examination,
    machine,
    storage,
)
from daemon.doctor.asking import Times, Watched, getter
from daemon.doctor.books import snapshot
from daemon.doctor.findings import Mask, asked, fail, looked, ok
from daemon.lock import LockHeld, process_lock
from daemon.sources.confined import Unconfined
from daemon.sources.parse import Item
from ledger import store
from ledger.database import Database
from ledger.money import MicroCredits
from publishers import devto as our_devto
from publishers.bluesky.session import Kept, Refusal, SessionFile, Tokens
from tests.cli_helpers import (
    KEY,
    NOBODY,
    PRICE_LINE,
    PRICES,
    Desk,
    ladder,
    open_to_all,
    python_for_all,
    read_only,
)
from tests.doubles import devto, stripe
from tests.doubles.bluesky import DID, BlueskyDouble
from tests.doubles.devto import DevToDouble
from tests.doubles.model import ModelDouble
from tests.doubles.search import SearchDouble, results
from tests.doubles.stripe import StripeDouble
from tests.doubles.web import Page, SiteDouble
from tests.doubles.wire import Answer, Double, Fault, InProcess, Request

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STRIPE_KEY = "rk_live_0123456789"
PASSWORD = BlueskyDouble().password
HANDLE = BlueskyDouble().name


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` of whoever runs the tests, and none of their settings."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("PENSTOCK_", "DEVTO_", "BLUESKY_", "STRIPE_")):
            monkeypatch.delenv(name)


# A world that remembers every request


@dataclass
class Heard:
    """A double behind an ear; `ahead_s` is its clock's lead, None for answers without a date."""

    inner: Double
    ahead_s: float | None = 0.0
    requests: list[Request] = field(default_factory=list)

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        answer = await self.inner.handle(request)
        if self.ahead_s is None:
            return answer
        date = format_datetime(NOW + timedelta(seconds=self.ahead_s), usegmt=True)
        return replace(answer, headers={**answer.headers, "date": date})


@dataclass
class Says:
    """Answers everything alike, or as a function says."""

    answer: Answer | Callable[[Request], Answer]

    async def handle(self, request: Request) -> Answer:
        return self.answer if isinstance(self.answer, Answer) else self.answer(request)


class Forem(DevToDouble):
    """With the place that tells whose a key is."""

    async def handle(self, request: Request) -> Answer:
        if (request.method, request.path) != ("GET", "/api/users/me"):
            return await super().handle(request)
        if refusal := self._at_the_edge(request):
            return refusal
        if request.headers.get("api-key") != self.key:
            return Answer.of({"error": "unauthorized", "status": 401}, 401)
        return Answer.of({"type_of": "user", "id": 7, "username": "sluices"})


class Pds(BlueskyDouble):
    """With the reading half of com.atproto.server and com.atproto.identity."""

    async def _right(self, method: str, request: Request) -> Answer:
        match method:
            case "describeServer":
                return Answer.of({"did": "did:web:bsky.social", "availableUserDomains": []})
            case "resolveHandle" if request.query["handle"] == self.name:
                return Answer.of({"did": self.did})
            case "resolveHandle":
                said = {"error": "InvalidRequest", "message": "Unable to resolve handle"}
                return Answer.of(said, 400)
            case "getSession":
                who = {"handle": self.name, "did": self.did, "active": True} | self.active
                return self._stranger(request) or Answer.of(who)
        return await super()._right(method, request)


class Surroundings:
    """Everything around one machine; each part can be replaced before it is looked at."""

    def __init__(self) -> None:
        self.model: Any = ModelDouble(dict(PRICES), key=KEY, usage_api="openrouter")
        self.site = SiteDouble(pages={"/feed.xml": feed(NOW - timedelta(days=1))})
        self.engine: Any = SearchDouble(results=results(["https://one.example/a"]))
        self.forem: Any = Forem(lambda: 0.0)
        self.pds: Any = Pds(now=lambda: NOW)
        self.account: Any = StripeDouble(STRIPE_KEY)
        self.webhook: Any = Says(Answer())
        self.ahead_s: float | None = 0.0
        self.heard: list[Heard] = []
        self.connected = True

    @property
    def requests(self) -> list[Request]:
        return [request for ear in self.heard for request in ear.requests]

    def world(self) -> World:
        async def resolve(host: str, port: int) -> list[str]:
            if not self.connected:
                raise socket.gaierror(-3, "Temporary failure in name resolution")
            return ["93.184.216.34"]

        return World(
            clock=SystemClock(lambda: NOW),
            models=self._reached({"llm.test": self.model}),
            web=self._reached({"93.184.216.34": self.site}),
            search=self._reached({"search.test": self.engine}),
            platforms=self._reached(
                {"dev.to": self.forem, "bsky.social": self.pds, "api.stripe.com": self.account}
            ),
            alerts=self._reached({"alerts.test": self.webhook}),
            resolve=resolve,
            parser=Unconfined(),
        )

    def _reached(self, routes: Mapping[str, Double]) -> InProcess:
        if not self.connected:
            return InProcess({})
        ears = {host: Heard(double, self.ahead_s) for host, double in routes.items()}
        self.heard += ears.values()
        return InProcess(ears)


WELL = {
    "PENSTOCK_NICHE": "SQLite",
    "PENSTOCK_FEEDS": "https://blog.test/feed.xml",
    "PENSTOCK_PROVIDER_LLM_URL": "https://llm.test/v1",
    "PENSTOCK_PROVIDER_LLM_KEY": KEY,
    "PENSTOCK_PRICES": PRICE_LINE,
    "PENSTOCK_RUN_BUDGET": "5",
    "PENSTOCK_DAILY_CAP": "20",
    "PENSTOCK_MONTHLY_CAP": "50",
    **ladder("llm/alpha > llm/beta"),
}
EVERYTHING = {
    **WELL,
    "PENSTOCK_SEARCH_URL": "https://search.test",
    "PENSTOCK_PUBLISHERS": "outbox,devto,bluesky",
    "DEVTO_API_KEY": devto.KEY,
    "BLUESKY_HANDLE": HANDLE,
    "BLUESKY_APP_PASSWORD": PASSWORD,
    "STRIPE_API_KEY": STRIPE_KEY,
    "PENSTOCK_ALERT_URL": "https://alerts.test/hook-with-a-secret",
}


@dataclass(frozen=True)
class Looked:
    """What came of one look."""

    found: Sequence[Finding]

    def of(self, check: str) -> list[Finding]:
        return [finding for finding in self.found if finding.check == check]

    def one(self, check: str) -> Finding:
        (finding,) = self.of(check)
        return finding

    def states(self, check: str) -> set[State]:
        return {finding.state for finding in self.of(check)}

    @property
    def failed(self) -> list[Finding]:
        return [finding for finding in self.found if finding.state is State.FAIL]

    @property
    def code(self) -> int:
        return command.code(self.found)

    @property
    def text(self) -> str:
        return f"{command.human(self.found)}\n{json.dumps(command.document(self.found))}"


def look(
    home: Path,
    settings: Mapping[str, str] | None = None,
    around: Surroundings | None = None,
    *,
    env_file: str | None = None,
    limit_s: float = 20.0,
) -> Looked:
    """Examine a machine whose state folder is `home`/state."""
    base = {"HOME": str(home), "PENSTOCK_STATE_DIR": str(home / "state")}
    given = base | dict(WELL if settings is None else settings)
    patient = doctor.admit(given, env_file, NOW)
    found = doctor.examine(patient, (around or Surroundings()).world(), limit_s=limit_s)
    looked_at = Looked(sorted(found, key=lambda f: command._ORDER.index(f.check)))
    broken = [finding for finding in found if "the check itself failed" in finding.message]
    assert not broken
    needing = [f for f in found if f.state is State.FAIL]
    assert all(finding.remedy for finding in needing), needing
    return looked_at


def feed(*published: datetime) -> str:
    items = "".join(
        f"<item><title>Entry {number}</title><link>https://blog.test/{number}</link>"
        f"<pubDate>{format_datetime(at)}</pubDate></item>"
        for number, at in enumerate(published)
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'


def machine_of(home: Path, deposit: str | None = "100") -> Desk:
    """A machine with a database, of the time of these tests, whatever the time is here."""
    desk = Desk(home).initialised(None)
    if deposit is not None:
        amount, at = MicroCredits.parse(deposit), NOW - timedelta(days=1)
        write(desk, lambda tx: store.deposit(tx, amount=amount, ref="first", at=at))
    return desk


Tree = dict[str, tuple[int, int, int, int, str]]


def tree(folder: Path) -> Tree:
    """Every file and folder with its mode, owner, size, time of change and content."""
    found: Tree = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        kept = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        name = str(path.relative_to(folder))
        found[name] = kept.st_mode, kept.st_uid, kept.st_size, kept.st_mtime_ns, content
    return found


def write(desk: Desk, act: Callable[[Any], object]) -> None:
    """Book something, as another process would."""
    with closing(Database(f"sqlite:///{desk.database}")) as database, database.write() as tx:
        act(tx)


# Nothing is changed


def test_on_a_well_machine_everything_is_well_and_nothing_is_changed(tmp_path: Path) -> None:
    desk, around = machine_of(tmp_path), Surroundings()
    (desk.state / "backups").mkdir()
    shutil.copyfile(desk.database, desk.state / "backups" / "yesterday.db")
    os.utime(desk.state / "backups" / "yesterday.db", (NOW.timestamp() - 86_400,) * 2)
    desk.outbox.mkdir()
    before = tree(tmp_path)
    found = look(tmp_path, EVERYTHING, around)
    assert tree(tmp_path) == before
    assert found.code == 0, found.failed
    assert not [f for f in found.found if f.state is State.WARN]
    assert found.one("devto").message.endswith("@sluices's")
    assert "which has used 0.000000 (openrouter)" in found.one("provider").message
    assert "1 entry, the newest 24 h old" in found.one("feed").message
    assert found.one("clock").message.startswith("this clock is right, by the answers of")
    # Each has its one place in the report.
    assert sorted({f.check for f in found.found} | {"plugin"}) == sorted(command._ORDER)


def test_only_gets_leave_and_none_that_costs_logs_in_or_rings(tmp_path: Path) -> None:
    around = Surroundings()
    look(tmp_path, EVERYTHING, around)
    asked_for = [(request.method, request.target.partition("?")[0]) for request in around.requests]
    assert {method for method, _ in asked_for} == {"GET"}
    assert sorted({target for _, target in asked_for}) == [
        "/api/users/me",
        "/feed.xml",
        "/robots.txt",
        "/search",
        "/v1/balance_transactions",
        "/v1/key",
        "/v1/models",
        "/xrpc/com.atproto.identity.resolveHandle",
        "/xrpc/com.atproto.server.describeServer",
    ]
    assert around.model.requests == []
    assert around.pds.logins == []


def test_whatever_a_check_would_send_only_a_get_gets_through() -> None:
    async def send(method: str) -> httpx.Response:
        transport = Watched(Times(SystemClock()), InProcess({"llm.test": Says(Answer())}))
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, "https://llm.test/v1/chat/completions")

    assert asyncio.run(send("GET")).status_code == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        with pytest.raises(AssertionError, match="not for a check"):
            asyncio.run(send(method))


def test_before_the_first_command_nothing_is_made(tmp_path: Path) -> None:
    before = tree(tmp_path)
    found = look(tmp_path, {})
    assert tree(tmp_path) == before
    assert found.code == 2
    assert [f.message.partition(":")[0] for f in found.failed] == ["PENSTOCK_FEEDS"]
    assert found.one("database").remedy == "`penstock init` makes it"
    assert found.states("books") == found.states("provider") == {State.SKIPPED}


@pytest.mark.parametrize("left", ["open", "killed"])
def test_a_database_that_is_in_use_or_was_left_is_read_whole_and_left_so(
    tmp_path: Path, left: str
) -> None:
    """The newest entries are in the log alone; a crash leaves that, and its index, behind."""
    desk = machine_of(tmp_path / "one")
    with closing(Database(f"sqlite:///{desk.database}")) as database:
        with database.write() as tx:
            store.deposit(tx, amount=MicroCredits(1), ref="second", at=NOW)
        home = desk.home
        if left == "killed":
            home = tmp_path / "two"
            shutil.copytree(desk.state, home / "state")
        before = tree(home)
        found = look(home)
        assert found.one("books").message.startswith("they balance: 2 transfers")
        after = tree(home)
        if left == "open":
            # SQLite notes on the index of a log that is in use who reads where.
            for state in (before, after):
                state.pop("state/penstock.db-shm")
        assert after == before


def test_a_log_without_its_index_is_told_and_left(tmp_path: Path) -> None:
    desk = machine_of(tmp_path / "one")
    home = tmp_path / "two"
    with closing(Database(f"sqlite:///{desk.database}")) as database:
        with database.write() as tx:
            store.deposit(tx, amount=MicroCredits(1), ref="second", at=NOW)
        shutil.copytree(desk.state, home / "state")
    (home / "state" / "penstock.db-shm").unlink()
    before = tree(home)
    found = look(home)
    assert tree(home) == before
    assert found.of("database")[-1].state is State.WARN
    assert "ledger check" in found.of("database")[-1].remedy
    assert Desk(home).run("ledger", "check").code == 0
    assert look(home).states("books") == {State.OK}


def test_it_can_look_while_the_process_lock_is_held_and_says_by_whom(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    assert look(tmp_path).one("lock").message.startswith("no Penstock")
    with process_lock(desk.database):
        found = look(tmp_path)
        assert f"process {os.getpid()} holds" in found.one("lock").message
        assert found.code == 0
    assert "just now" in look(tmp_path).one("lock").message


def test_a_link_to_a_database_leads_to_its_lock_as_well(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    link = tmp_path / "elsewhere.db"
    link.symlink_to(desk.database)
    with process_lock(desk.database), pytest.raises(LockHeld), process_lock(link):
        pass


def test_who_begins_to_write_meanwhile_makes_no_damage_of_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is read as one that cannot change is read again where it did."""
    desk, looks = machine_of(tmp_path), []
    first, *others = books._ASKED

    def disturbed(tx: Any, patient: doctor.Patient) -> Sequence[Finding]:
        looks.append(tx)
        if len(looks) == 1:
            write(desk, lambda tx: store.deposit(tx, amount=MicroCredits(1), ref="two", at=NOW))
        return first.look(tx, patient)

    monkeypatch.setattr(books, "_ASKED", (replace(first, look=disturbed), *others))
    found = look(tmp_path)
    assert len(looks) == 2
    assert found.one("books").message.startswith("they balance: 2 transfers")


def test_a_snapshot_cannot_be_written(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    with snapshot(desk.database) as tx, pytest.raises(Exception, match="readonly"):
        tx.exec_driver_sql("CREATE TABLE anything (n)")


# Whatever is wrong, the rest is looked at


def test_every_problem_of_the_settings_is_a_finding_and_the_others_go_on(tmp_path: Path) -> None:
    machine_of(tmp_path)
    wrong = {"PENSTOCK_PUBLISH_CRON": "never", "PENSTOCK_NICH": "a typo", "DEVTO_URL": "ftp://x"}
    found = look(tmp_path, WELL | wrong)
    assert found.code == 2
    assert {f.message.partition(":")[0] for f in found.failed} == {*wrong}
    assert found.one("books").state is State.OK
    assert found.states("provider") == {State.SKIPPED}


def test_a_line_that_cannot_be_parsed_does_not_keep_the_others_from_being_read(
    tmp_path: Path,
) -> None:
    machine_of(tmp_path)
    file = tmp_path / "broken.env"
    lines = [*(f'{name}="{value}"' for name, value in WELL.items()), "PENSTOCK_VOICE plain"]
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    found = look(tmp_path, {}, env_file=str(file))
    assert found.code == 2
    assert [f.check for f in found.failed] == ["settings"]
    assert f"{file} line {len(lines)}" in found.failed[0].message
    assert "which has used" in found.one("provider").message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_env_file_that_is_none_is_a_finding(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "settings.env"
    if content is not None:
        file.write_bytes(content)
    found = look(tmp_path, WELL, env_file=str(file))
    assert found.code == 2
    assert str(file) in found.failed[0].message


def test_options_of_a_model_that_is_on_no_ladder_are_told(tmp_path: Path) -> None:
    machine_of(tmp_path)
    options = "llm/alhpa=max_output:900;llm/beta=timeout:9;llm/gamma=effort:low"
    priced = f"{WELL['PENSTOCK_PRICES']};llm/gamma=1,1,1"
    given = WELL | {"PENSTOCK_MODEL_OPTIONS": options, "PENSTOCK_PRICES": priced}
    found = look(tmp_path, given)
    warned = [f.message for f in found.of("settings") if f.state is State.WARN]
    assert warned == ["PENSTOCK_MODEL_OPTIONS: llm/alhpa is on no ladder; did you mean llm/alpha?"]
    assert found.code == 0


@pytest.mark.parametrize("language", ["German", "en_US", "de, please"])
def test_a_language_that_is_no_tag_is_told(tmp_path: Path, language: str) -> None:
    machine_of(tmp_path)
    found = look(tmp_path, WELL | {"PENSTOCK_LANGUAGE": language})
    warned = [f.message for f in found.of("settings") if f.state is State.WARN]
    assert warned == [f"PENSTOCK_LANGUAGE: {language!r} is no BCP 47 tag"]
    assert found.code == 0


def test_as_root_a_key_is_read_as_the_owner_of_the_state_reads_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_to_all() as home:
        desk = machine_of(home)
        for path in (desk.state, *desk.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        key = home / "key"
        key.write_text(STRIPE_KEY)
        key.chmod(0o600)
        given = {"HOME": str(home), "PENSTOCK_STATE_DIR": str(desk.state)}
        for name, value in (given | {"STRIPE_API_KEY_FILE": str(key)}).items():
            monkeypatch.setenv(name, value)
        feed_file = home / "feed.xml"
        feed_file.write_text(feed(NOW))
        monkeypatch.setenv("PENSTOCK_FEEDS", str(feed_file))
        monkeypatch.setenv("STRIPE_URL", "http://127.0.0.1:9")
        look(home)  # what a look imports, the child cannot
        capfd.readouterr()
        child = os.fork()
        if child == 0:
            try:
                command.run(Namespace(env_file=None, json=True))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert f"{key} cannot be read: PermissionError" in capfd.readouterr().out


def test_of_an_env_file_that_is_a_pipe_or_a_folder_doctor_says_what_helps(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, remedy in ((pipe, "into a file"), (tmp_path, "name the file in it")):
        finding = look(tmp_path, WELL, env_file=str(path)).failed[0]
        assert finding.message.startswith(f"{path}: cannot be read")
        assert remedy in finding.remedy


def test_doctor_works_in_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_of(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert look(tmp_path).code == 0


def test_an_env_file_that_may_not_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every command has it, which would use the one in /etc otherwise."""
    (tmp_path / ".env").write_text("")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert doctor.admit({}, None, NOW).env_file == tmp_path / ".env"


def test_a_state_that_cannot_be_placed_is_said_once_and_the_rest_looked_at(tmp_path: Path) -> None:
    found = look(tmp_path, WELL | {"PENSTOCK_DATABASE_URL": "mysql://elsewhere/x"})
    assert found.code == 2
    assert [f.message.partition(":")[0] for f in found.failed] == ["PENSTOCK_DATABASE_URL"]
    assert found.states("books") == found.states("room") == {State.SKIPPED}


def test_without_a_network_each_says_so(tmp_path: Path) -> None:
    machine_of(tmp_path)
    around = Surroundings()
    around.connected = False
    found = look(tmp_path, EVERYTHING, around)
    assert found.code == 1
    away = {"feed", "search", "provider", "devto", "bluesky", "stripe"}
    assert {f.check for f in found.failed} == away
    assert found.one("clock").state is State.SKIPPED
    assert found.one("books").state is State.OK


def test_a_check_that_breaks_is_a_finding_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(patient: object) -> list[Finding]:
        raise ZeroDivisionError(f"the key is {KEY}")

    monkeypatch.setattr(examination, "_HERE", (("python", broken), *examination._HERE[1:]))
    patient = doctor.admit(WELL | {"PENSTOCK_STATE_DIR": str(tmp_path)}, None, NOW)
    found = Looked(doctor.examine(patient, Surroundings().world()))
    assert found.one("python").state is State.FAIL
    assert "ZeroDivisionError: the key is ***" in found.one("python").message
    assert found.one("provider").state is State.OK


def test_what_cannot_be_read_is_said_in_the_words_of_the_system() -> None:
    def refused() -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/etc/shadow")

    (found,) = looked("secrets", refused)
    assert (found.state, found.message) == (State.FAIL, "/etc/shadow: Permission denied")


def test_who_does_not_answer_holds_up_nobody(tmp_path: Path) -> None:
    around = Surroundings()
    around.site.pages["/feed.xml"] = Page(b"x" * 100, fault=Fault.STALL)
    around.forem = Says(Answer(body=b"x", fault=Fault.STALL))
    around.model = Says(Answer(delay_s=30.0))
    found = look(tmp_path, EVERYTHING, around, limit_s=1.0)
    for check in ("feed", "devto", "provider"):
        assert "within 1 s" in found.one(check).message
    assert found.one("stripe").state is State.OK


def test_those_who_are_asked_are_asked_side_by_side(tmp_path: Path) -> None:
    """None of the three answers before all of them have been asked."""
    around, all_asked = Surroundings(), asyncio.Event()
    doubles = {"provider": around.model, "devto": around.forem, "stripe": around.account}
    waiting = set(doubles)

    @dataclass
    class Together:
        name: str

        async def handle(self, request: Request) -> Answer:
            waiting.discard(self.name)
            if not waiting:
                all_asked.set()
            await all_asked.wait()
            answer: Answer = await doubles[self.name].handle(request)
            return answer

    around.model, around.forem, around.account = map(Together, doubles)
    found = look(tmp_path, EVERYTHING, around, limit_s=30.0)
    assert {found.one(check).state for check in doubles} == {State.OK}


def test_a_check_that_waits_and_breaks_is_a_finding() -> None:
    async def broken() -> list[Finding]:
        raise LookupError("nowhere")

    (found,) = asyncio.run(asked("feed", broken, 1.0))
    assert "LookupError: nowhere" in found.message


# The database


def test_no_database_at_all_is_no_fault(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.code == 0
    assert found.one("database").state is State.SKIPPED


@pytest.mark.parametrize(
    ("damage", "code", "check"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), 6, "books"),
        (lambda path: path.write_bytes(b""), 1, "database"),
        (lambda path: os.truncate(path, 3 * 4096), 6, "books"),
        (lambda path: _overwrite(path, 4096, b"\xff" * 200_000), 6, "books"),
        (lambda path: _overwrite(path, 68, b"ELSE"), 1, "database"),
    ],
    ids=["no-sqlite", "empty", "cut", "overwritten", "foreign"],
)
def test_a_damaged_database_is_said_so_and_left(
    tmp_path: Path, damage: Callable[[Path], object], code: int, check: str
) -> None:
    desk = machine_of(tmp_path)
    damage(desk.database)
    before = tree(tmp_path)
    found = look(tmp_path)
    assert tree(tmp_path) == before
    assert found.code == code, found.failed
    assert {f.check for f in found.failed} == {check}


def _overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content[: max(0, path.stat().st_size - at)])


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    desk.sql("UPDATE alembic_version SET version_num = '9999'")
    found = look(tmp_path)
    assert found.code == 2
    assert "install that version" in found.one("schema").remedy
    assert found.states("books") == {State.SKIPPED}


def test_a_database_of_an_earlier_version_waits_for_the_next_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.state.mkdir(mode=0o700)
    dump = Path(__file__).parent / "databases" / "0003.sql"
    with closing(sqlite3.connect(desk.database)) as connection:
        connection.executescript(dump.read_text())
        connection.execute(f"PRAGMA application_id = {0x50454E53}")
    before = tree(tmp_path)
    found = look(tmp_path)
    assert tree(tmp_path) == before
    assert found.code == 0, found.failed
    assert found.one("schema").state is State.WARN


def test_a_database_without_a_log_is_told(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    desk.sql("PRAGMA journal_mode = DELETE")
    finding = look(tmp_path).one("database")
    assert finding.state is State.WARN
    assert "write-ahead log" in finding.message


def test_books_that_do_not_balance_are_the_worst(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    desk.sql(
        "DROP TRIGGER IF EXISTS account_no_update",
        "UPDATE account SET debits_posted_micro = debits_posted_micro + 5 WHERE name = 'treasury'",
    )
    found = look(tmp_path, WELL | {"PENSTOCK_NICH": "a typo"})
    assert found.code == 6
    assert State.FAIL in found.states("books")
    assert found.states("pause") == {State.OK}


def test_rows_of_a_time_that_has_not_come_are_told(tmp_path: Path) -> None:
    desk = machine_of(tmp_path, deposit=None)
    write(
        desk,
        lambda tx: store.deposit(tx, amount=MicroCredits(9), ref="a", at=NOW + timedelta(hours=3)),
    )
    finding = look(tmp_path).one("future_rows")
    assert finding.state is State.WARN
    assert "1 of transfer" in finding.message


def test_an_empty_ledger_is_told_where_a_ladder_names_a_model(tmp_path: Path) -> None:
    machine_of(tmp_path, deposit=None)
    finding = look(tmp_path).one("pace")
    assert finding.state is State.WARN
    assert "ledger deposit" in finding.remedy


def test_what_waits_for_a_person_is_told_with_the_word_for_it(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    columns = _columns(desk, "run"), _columns(desk, "publication"), _columns(desk, "alert")
    at = "2026-11-22T09:00:00.000000Z"
    desk.sql(
        _row("run", columns[0], id="r1", state="awaiting_approval", tier="standard", started_at=at),
        _row(
            "publication", columns[1], run="r1", platform="devto", state="unconfirmed",
            intended_at=at,
        ),
        _row("alert", columns[2], key="barred:devto", kind="barred", raised_at=at,
             message="Dev.to refuses the key; make a new one"),
        f"INSERT INTO control (key, value, at) VALUES ('pause', 'on holiday', '{at}')",
    )  # fmt: skip
    found = look(tmp_path)
    assert found.code == 0
    assert {c: (found.one(c).state, found.one(c).remedy.split(" finds")[0]) for c in (
        "pause", "alerts", "unconfirmed", "drafts",
    )} == {
        "pause": (State.WARN, "`penstock resume` lifts it"),
        "alerts": (State.WARN, "make a new one"),
        "unconfirmed": (State.WARN, "`penstock reconcile`"),
        "drafts": (State.WARN, "`penstock drafts list`"),
    }  # fmt: skip
    assert "on holiday" in found.one("pause").message


@pytest.mark.parametrize(
    ("days", "state"), [(1, State.OK), (6, State.OK), (8, State.WARN)], ids=str
)
def test_a_publication_that_fell_silent_is_told(tmp_path: Path, days: int, state: State) -> None:
    """Mondays, Wednesdays and Fridays: one article in 56 hours, so a week is three intervals."""
    desk = machine_of(tmp_path)
    at = (NOW - timedelta(days=days)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    desk.sql(
        _row("run", _columns(desk, "run"), id="r1", state="finished", tier="standard",
             started_at=at),
        _row("publication", _columns(desk, "publication"), run="r1", platform="outbox",
             state="published", intended_at=at, published_at=at),
    )  # fmt: skip
    finding = look(tmp_path).one("last_article")
    assert finding.state is state, finding
    assert "the schedule has one every 56 h" in finding.message


def _columns(desk: Desk, table: str) -> list[tuple[str, str, bool]]:
    rows = desk.rows(f"PRAGMA table_info({table})")
    return [(row[1], row[2], bool(row[3] or row[5])) for row in rows]


def _row(table: str, columns: list[tuple[str, str, bool]], **given: str) -> str:
    """An INSERT with something in every column that must have something."""
    fillers = {"INTEGER": "0", "REAL": "0", "BLOB": "x''"}
    values = {
        name: f"'{given[name]}'" if name in given else fillers.get(kind, "'{}'")
        for name, kind, needed in columns
        if needed or name in given
    }
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


# The machine


@pytest.mark.parametrize(
    ("offsets", "state"),
    [
        ([], State.SKIPPED),
        ([0], State.OK),
        ([-1], State.OK),
        ([59], State.OK),
        ([-61], State.WARN),
        ([299], State.WARN),
        ([301], State.FAIL),
        ([-3600], State.FAIL),
        # One of them is a page that a cache kept.
        ([-86_400, 2], State.OK),
    ],
)
def test_the_clock_is_compared_with_those_who_answer(offsets: list[float], state: State) -> None:
    (found,) = machine.clock([timedelta(seconds=s) for s in offsets])
    assert found.state is state


def test_a_clock_that_is_wrong_shows_in_answers_that_are_asked_for_anyway(tmp_path: Path) -> None:
    around = Surroundings()
    around.ahead_s = 600.0
    found = look(tmp_path, WELL, around)
    assert found.code == 1
    assert "this clock is 600 s slow" in found.one("clock").message
    assert "timedatectl" in found.one("clock").remedy


def test_the_age_of_what_a_cache_kept_counts() -> None:
    times = Times(SystemClock(lambda: NOW))
    old = format_datetime(NOW - timedelta(hours=2), usegmt=True)
    for headers in ({"date": old, "age": "7200"}, {"date": "yesterday"}, {}, {"age": "1"}):
        times.note(headers)
    assert times.offsets == [timedelta(0)]


@pytest.mark.parametrize(
    ("free", "names", "state"),
    [
        (49_000_000, 10**6, State.FAIL),
        (51_000_000, 10**6, State.WARN),
        (499_000_000, None, State.WARN),
        (501_000_000, None, State.OK),
        (10**12, 0, State.FAIL),
        (10**12, 1000, State.WARN),
        (10**12, 10**6, State.OK),
    ],
)
def test_room_is_bytes_and_names(free: int, names: int | None, state: State) -> None:
    assert storage.enough(Path("/"), free, names).state is state


def test_room_is_looked_for_where_the_books_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    url = f"sqlite:///{elsewhere}/books.db"
    found = look(tmp_path, WELL | {"PENSTOCK_DATABASE_URL": url})
    assert found.one("room").message.endswith(f"free at {elsewhere}")


def test_who_holds_a_file_is_told_by_its_number_and_no_device() -> None:
    kept = os.stat_result((0, 4711, *([0] * 8)))
    locks = (
        "1: POSIX  ADVISORY  WRITE 11 00:27:4711 0 EOF\n"
        "2: FLOCK  ADVISORY  WRITE 12 00:27:47110 0 EOF\n"
        "3: FLOCK  ADVISORY  READ 13 00:27:4711 0 EOF\n"
        "4: FLOCK  ADVISORY  WRITE 14 00:27:4711 0 EOF\n"
    )
    assert storage.held_by(locks, kept) == "14"
    assert storage.held_by(locks[: locks.index("4:")], kept) is None


@pytest.mark.parametrize(
    ("mode", "state"),
    [
        (0o600, State.OK),
        (0o640, State.OK),
        (0o400, State.OK),
        (0o660, State.WARN),
        (0o644, State.FAIL),
        (0o602, State.FAIL),
    ],
    ids=lambda value: oct(value) if isinstance(value, int) else "",
)
def test_who_else_can_read_the_keys_is_told(tmp_path: Path, mode: int, state: State) -> None:
    env_file, key_file = tmp_path / ".env", tmp_path / "key"
    env_file.write_text(f"PENSTOCK_PROVIDER_LLM_KEY={KEY}\n")
    key_file.write_text(devto.KEY)
    for path in (env_file, key_file):
        path.chmod(mode)
    settings = {k: v for k, v in WELL.items() if "KEY" not in k}
    found = look(tmp_path, settings | {"DEVTO_API_KEY_FILE": str(key_file)})
    assert [f.state for f in found.of("secrets")] == [state, state]
    assert found.code == (1 if state is State.FAIL else 0)


def test_a_settings_file_without_a_secret_may_be_read_by_anyone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PENSTOCK_NICHE=SQLite\n#PENSTOCK_PROVIDER_LLM_KEY=\n")
    (tmp_path / ".env").chmod(0o644)
    assert look(tmp_path).states("secrets") == {State.SKIPPED}


def test_a_state_folder_that_others_can_enter_is_told(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    desk.state.chmod(0o755)
    finding = look(tmp_path).one("state_folder")
    assert (finding.state, finding.remedy) == (State.WARN, f"chmod 700 '{desk.state}'")


def test_old_backups_and_none_are_told(tmp_path: Path) -> None:
    desk = machine_of(tmp_path)
    assert look(tmp_path).one("backups").state is State.SKIPPED
    (desk.state / "backups").mkdir()
    assert look(tmp_path).one("backups").state is State.WARN
    copy = desk.state / "backups" / "penstock-20261101T000000Z.db"
    copy.write_bytes(b"")
    os.utime(copy, (NOW.timestamp() - 9 * 86_400,) * 2)
    finding = look(tmp_path).one("backups")
    assert finding.state is State.WARN
    assert f"{copy.name}, is 9 days old" in finding.message


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    machine_of(tmp_path)
    (tmp_path / "file").write_text("")
    found = look(tmp_path, WELL | {"PENSTOCK_OUTBOX_DIR": str(tmp_path / "file")})
    assert found.one("outbox").state is State.FAIL
    found = look(tmp_path, WELL | {"PENSTOCK_STATE_DIR": str(tmp_path / "file" / "state")})
    assert found.one("state_folder").state is State.FAIL
    assert found.code == 1


ALONE = """
import sys; sys.path[:0] = {path!r}
from argparse import Namespace
from daemon.cli.doctor import run
sys.exit(run(Namespace(env_file=None, json=True)))
"""


def alone(desk: Desk, *before: str, **how: Any) -> tuple[int, dict[str, list[str]]]:
    """The command in a process of its own: its code, and the states of each check."""
    script = ALONE.format(path=[str(Path(__file__).parents[1])])
    done = subprocess.run(
        [*before, sys.executable, "-c", script], env=desk.env(), cwd=desk.home,
        capture_output=True, check=False, timeout=60, **how,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    found: dict[str, list[str]] = {}
    for one in json.loads(done.stdout)["checks"]:
        found.setdefault(one["check"], []).append(one["state"])
    return done.returncode, found


def test_as_somebody_else_it_says_so_and_reads_what_may_be_read() -> None:
    python_for_all()
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with open_to_all() as home:
        desk = machine_of(home)
        desk.state.chmod(0o755)
        desk.database.chmod(0o644)
        desk.outbox.mkdir(mode=0o755)
        before = tree(home)
        _, found = alone(desk, **nobody)
        assert tree(home) == before
        assert (found["state_folder"], found["outbox"]) == (["warn", "fail"], ["fail"])
        assert found["books"] == ["ok"]
        desk.database.chmod(0o600)
        assert alone(desk, **nobody)[1]["database"] == ["fail"]


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_on_a_disk_that_is_read_only_the_books_are_read_all_the_same(
    tmp_path: Path, left: str
) -> None:
    desk = machine_of(tmp_path / "home")
    desk.outbox.mkdir()
    if left == "killed":
        with closing(Database(f"sqlite:///{desk.database}")) as database:
            with database.write() as tx:
                store.deposit(tx, amount=MicroCredits(1), ref="second", at=NOW)
            shutil.copytree(desk.state, tmp_path / "kept")
        shutil.rmtree(desk.state)
        shutil.move(tmp_path / "kept", desk.state)
    before = tree(tmp_path / "home")
    _, found = alone(desk, *read_only(tmp_path / "home"))
    assert tree(tmp_path / "home") == before
    assert (found["state_folder"], found["outbox"]) == (["fail"], ["fail"])
    assert (found["database"], found["books"]) == (["ok"], ["ok"])


# Settings


def test_limits_that_make_the_publication_sleep_are_told_with_what_helps(tmp_path: Path) -> None:
    found = look(tmp_path, WELL | {"PENSTOCK_RUN_BUDGET": "0.000001"})
    (finding,) = found.of("limits")
    assert finding.state is State.WARN
    assert finding.message.startswith("PENSTOCK_RUN_BUDGET 0.000001 is less than")
    assert found.code == 0


def test_prices_are_shown_with_whoever_says_so(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert [f.message for f in found.of("prices")] == [
        "llm/alpha: 3 input, 0.3 cached, 15 output a million tokens (PENSTOCK_PRICES)",
        "llm/beta: 1 input, 0.1 cached, 5 output a million tokens (PENSTOCK_PRICES)",
    ]
    found = look(tmp_path, WELL | {"PENSTOCK_PRICES": "llm/alpha=3,0.3,15"})
    assert [f.state for f in found.of("prices")] == [State.OK, State.FAIL]
    assert found.of("prices")[1].remedy.startswith("set PENSTOCK_PRICES=llm/beta=")
    assert found.code == 2


# Sources


def test_feeds_are_told_apart(tmp_path: Path) -> None:
    around = Surroundings()
    local = tmp_path / "local.xml"
    local.write_text(feed(NOW - timedelta(hours=5), NOW - timedelta(days=3)))
    around.site.pages |= {
        "/old.xml": feed(NOW - timedelta(days=400)),
        "/empty.xml": feed(),
        "/page.html": "<html><body>No feed</body></html>",
        "/private/feed.xml": feed(NOW),
        "/robots.txt": "User-agent: *\nDisallow: /private/",
        "/list.opml": '<opml version="2.0"><body>'
        '<outline xmlUrl="https://blog.test/feed.xml"/>'
        '<outline xmlUrl="https://other.test/gone.xml"/></body></opml>',
        "/dead.opml": '<opml><body><outline xmlUrl="https://blog.test/gone.xml"/></body></opml>',
        "/local.opml": '<opml><body><outline xmlUrl="a.xml"/></body></opml>',
    }
    names = ("feed.xml", "old.xml", "empty.xml", "page.html", "gone.xml", "private/feed.xml",
             "list.opml", "dead.opml", "local.opml")  # fmt: skip
    # A host each: one and the same is asked twice a second at most.
    urls = {name: f"https://h{number}.test/{name}" for number, name in enumerate(names)}
    feeds = [*urls.values(), str(local), str(tmp_path / "no")]
    found = look(tmp_path, WELL | {"PENSTOCK_FEEDS": ",".join(feeds)}, around)
    told = {f.message.partition(": ")[0]: (f.state, f.message) for f in found.of("feed")}
    expected = {
        "feed.xml": (State.OK, "1 entry, the newest 24 h old"),
        "old.xml": (State.WARN, "the newest 400 days old"),
        "empty.xml": (State.WARN, "no entries"),
        "page.html": (State.FAIL, "not a feed"),
        "gone.xml": (State.FAIL, "HTTP 404"),
        "private/feed.xml": (State.FAIL, "does not allow it"),
        "list.opml": (State.WARN, "lists 2 feeds, and 1 cannot be read"),
        "dead.opml": (State.FAIL, "lists 1 feeds, and 1 cannot be read"),
        "local.opml": (State.FAIL, "1 of its feeds have no http or https address"),
    }
    for name, (state, words) in expected.items():
        seen = told[urls[name]]
        assert seen[0] is state, seen
        assert words in seen[1]
    assert told[str(local)][1].endswith("2 entries, the newest 5 h old")
    assert told[str(tmp_path / "no")][0] is State.FAIL
    assert found.code == 1


def test_what_a_list_names_besides_feeds_on_the_web_is_told(tmp_path: Path) -> None:
    around = Surroundings()
    around.site.pages["/mixed.opml"] = (
        '<opml><body><outline xmlUrl="https://blog.test/feed.xml"/>'
        '<outline xmlUrl="feeds/mine.xml"/></body></opml>'
    )
    found = look(tmp_path, WELL | {"PENSTOCK_FEEDS": "https://blog.test/mixed.opml"}, around)
    assert [(f.state, f.message.partition("opml: ")[2]) for f in found.of("feed")] == [
        (State.OK, "it lists 1 feeds, and all can be read"),
        (State.WARN, "1 of its feeds have no http or https address, such as 'feeds/mine.xml'"),
    ]


def test_a_feed_on_a_private_address_is_refused_as_in_a_run(tmp_path: Path) -> None:
    around = Surroundings()
    world = around.world()

    async def resolve(host: str, port: int) -> list[str]:
        return ["192.168.1.7"]

    given = WELL | {"PENSTOCK_STATE_DIR": str(tmp_path)}
    found = doctor.examine(doctor.admit(given, None, NOW), replace(world, resolve=resolve))
    assert "PENSTOCK_FETCH_ALLOW" in Looked(found).one("feed").message


def test_undated_entries_are_no_sign_of_a_feed_that_ended() -> None:
    from daemon.doctor.sources import judged

    item = Item("g", "https://blog.test/1", "One", None, "", "", None)
    assert judged("f", [item], NOW, timedelta(days=30)).state is State.OK
    old = replace(item, published_at=NOW - timedelta(days=90))
    assert judged("f", [item, old], NOW, timedelta(days=30)).state is State.OK
    assert judged("f", [old], NOW, timedelta(days=30)).state is State.WARN


def test_the_search_engine_is_asked_one_question(tmp_path: Path) -> None:
    around = Surroundings()
    settings = WELL | {"PENSTOCK_SEARCH_URL": "https://search.test"}
    assert look(tmp_path, settings, around).one("search").message == "1 results on “SQLite”"
    assert len(around.engine.asked) == 1
    around.engine.formats = frozenset({"html"})
    finding = look(tmp_path, settings, around).one("search")
    assert finding.state is State.FAIL
    assert "search.formats" in finding.remedy


# Providers


def models(*names: str) -> Answer:
    return Answer.of({"object": "list", "data": [{"id": name} for name in names]})


def gateway(listed: Answer, key: Answer | None = None, *, open_to_all: bool = False) -> Says:
    """A provider without a counter; `key` is what it answers to /v1/key."""

    def answer(request: Request) -> Answer:
        if request.path == "/v1/models":
            stranger = "authorization" not in request.headers and not open_to_all
            return Answer.of({"error": {"message": "no key"}}, 401) if stranger else listed
        if request.path == "/v1/key" and key is not None:
            return key
        return Answer.of({"error": "not found"}, 404)

    return Says(answer)


BOTH = models("alpha", "beta")


@pytest.mark.parametrize(
    ("provider", "state", "words"),
    [
        (gateway(BOTH), State.OK, "llm takes the key"),
        (gateway(BOTH, open_to_all=True), State.OK, "the key shows at first use"),
        (
            gateway(BOTH, Answer.of({"error": {"message": "User not found."}}, 401),
                    open_to_all=True),
            State.FAIL, "does not know the key (HTTP 401: User not found.)",
        ),
        (gateway(Answer.of({"error": {"message": "bad key"}}, 401)), State.FAIL,
         "HTTP 401: bad key: the key is refused"),
        (gateway(Answer.of({"error": "balance"}, 402)), State.FAIL, "HTTP 402: balance"),
        (gateway(Answer.of({}, 404)), State.WARN, "HTTP 404 to …/models"),
        (gateway(Answer.of({}, 429)), State.WARN, "HTTP 429"),
        (gateway(Answer(502, {}, b"<html>")), State.FAIL, "HTTP 502"),
        (gateway(Answer(301, {"location": "https://elsewhere.test/"})), State.FAIL, "a redirect"),
        (Says(Answer(fault=Fault.RESET)), State.FAIL, "cannot be reached (ReadError"),
        (Says(Answer(body=b" ", endless=True)), State.FAIL, "sends more than 8 MB"),
    ],
    ids=["key", "open", "wrong-key", "401", "402", "404", "429", "502", "redirect", "reset",
         "endless"],
)  # fmt: skip
def test_what_a_provider_answers_is_told(
    tmp_path: Path, provider: Says, state: State, words: str
) -> None:
    around = Surroundings()
    around.model = provider
    finding = look(tmp_path, WELL, around).one("provider")
    assert finding.state is state, finding
    assert words in finding.message


def test_a_model_that_is_not_listed_is_told_with_the_nearest(tmp_path: Path) -> None:
    around = Surroundings()
    around.model = gateway(models("alpha", "beta-2", "gamma"))
    found = look(tmp_path, WELL, around).of("models")
    assert [(f.state, f.remedy) for f in found] == [
        (State.OK, ""), (State.WARN, "did you mean beta-2?"),
    ]  # fmt: skip


@pytest.mark.parametrize("odd", [[1, 2], {"data": [{"id": 7}, None]}, {"data": {}}, "no", None])
def test_a_list_of_models_of_another_shape_is_none(tmp_path: Path, odd: object) -> None:
    around = Surroundings()
    around.model = gateway(Answer.of(odd))
    assert look(tmp_path, WELL, around).states("models") == {State.SKIPPED}


def test_a_bill_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    around = Surroundings()
    around.model.usage_status = 503
    finding = look(tmp_path, WELL, around).one("provider")
    assert finding.state is State.WARN
    assert "its bill cannot be read" in finding.message


def test_a_local_server_wants_no_key(tmp_path: Path) -> None:
    around = Surroundings()
    local = WELL | {"PENSTOCK_PROVIDER_LLM_URL": "http://127.0.0.1:1/v1"}
    del local["PENSTOCK_PROVIDER_LLM_KEY"]
    local_server = gateway(BOTH, open_to_all=True)
    world = replace(around.world(), models=InProcess({"127.0.0.1": local_server}))
    found = doctor.examine(
        doctor.admit(local | {"PENSTOCK_STATE_DIR": str(tmp_path)}, None, NOW), world
    )
    assert Looked(found).one("provider").message == "llm is there, and wants no key"


# Platforms


def only(publisher: str, **more: str) -> dict[str, str]:
    return {**EVERYTHING, "PENSTOCK_PUBLISHERS": publisher, **more}


def test_dev_to_is_asked_as_the_publisher_asks(tmp_path: Path) -> None:
    around = Surroundings()
    look(tmp_path, only("devto"), around)
    (request,) = (r for r in around.requests if r.path == "/api/users/me")
    asked_by = request.headers["accept"], request.headers["user-agent"]
    assert asked_by == (our_devto.API_V1, our_devto.USER_AGENT)


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (None, State.FAIL, "/settings/extensions"),
        (Answer.of({"error": "Forbidden"}, 403), State.FAIL, "keep this address"),
        (Answer(404, {}, b"<html>"), State.FAIL, "no API of Forem"),
        (Answer(302, {"location": "/x"}), State.FAIL, "final URL"),
        (Answer(200, {}, b"<html>"), State.FAIL, "no API of Forem"),
        (Answer(429, {}, b"Retry later"), State.WARN, "in a minute"),
        (Answer(503, {}, b""), State.FAIL, "later"),
    ],
    ids=["401", "403", "404", "302", "page", "429", "503"],
)
def test_what_dev_to_answers_is_told(
    tmp_path: Path, answer: Answer | None, state: State, words: str
) -> None:
    around = Surroundings()
    settings = only("devto", DEVTO_API_KEY="another-key")
    if answer is not None:
        around.forem = Says(answer)
    finding = look(tmp_path, settings, around).one("devto")
    assert finding.state is state, finding
    assert words in finding.remedy


def kept_session(home: Path, kept: Kept) -> None:
    (home / "state").mkdir(mode=0o700, exist_ok=True)
    path = home / "state" / "bluesky-session.json"
    SessionFile(path, service="https://bsky.social", identifier=HANDLE).save(kept)


def session(pds: Pds) -> Tokens:
    made = pds._session()
    return Tokens(HANDLE, DID, made["accessJwt"], made["refreshJwt"], "https://bsky.social")


def test_a_kept_session_is_shown_to_bluesky_and_neither_renewed_nor_written(tmp_path: Path) -> None:
    around = Surroundings()
    tokens = session(around.pds)
    kept_session(tmp_path, Kept(tokens=tokens))
    before = tree(tmp_path)
    found = look(tmp_path, only("bluesky"), around)
    assert tree(tmp_path) == before
    assert (
        found.one("bluesky").message == "https://bsky.social takes the kept session of author.test"
    )
    assert [name for name, _ in around.pds.asked] == ["getSession"]
    assert tokens.access not in found.text


@pytest.mark.parametrize("ended", ["by-its-own-word", "by-the-service"])
def test_a_session_that_has_ended_waits_for_the_next_publication(
    tmp_path: Path, ended: str
) -> None:
    around = Surroundings()
    tokens = session(around.pds)
    kept_session(tmp_path, Kept(tokens=tokens))
    if ended == "by-the-service":
        around.pds.end_access()
    else:
        around.pds.now = lambda: NOW - timedelta(days=3)
        kept_session(tmp_path, Kept(tokens=session(around.pds)))
        around.pds.now = lambda: NOW
    found = look(tmp_path, only("bluesky"), around)
    assert found.code == 0
    assert [f.state for f in found.of("bluesky")] == [State.OK, State.SKIPPED]
    assert "has to be renewed" in found.of("bluesky")[1].message
    assert not {"createSession", "refreshSession"} & {name for name, _ in around.pds.asked}


def test_without_a_session_the_password_is_not_tried(tmp_path: Path) -> None:
    around = Surroundings()
    found = look(tmp_path, only("bluesky"), around)
    assert [f.state for f in found.of("bluesky")] == [State.OK, State.SKIPPED]
    assert DID in found.of("bluesky")[0].message
    assert "was not tried: logins are counted" in found.of("bluesky")[1].message
    assert around.pds.logins == []


def test_a_login_that_was_refused_is_remembered(tmp_path: Path) -> None:
    reason = "Bluesky does not know author.test by this password: make a new app password"
    refusal = Refusal(NOW + timedelta(hours=3), reason, True, "salt$hash")
    kept_session(tmp_path, Kept(refusal=refusal))
    found = look(tmp_path, only("bluesky")).of("bluesky")
    assert found[-1].state is State.FAIL
    assert found[-1].message == f"the last login was refused: {reason}"
    assert "a new one is tried at once" in found[-1].remedy


def test_bluesky_that_is_none_or_knows_nobody_or_has_closed_is_told(tmp_path: Path) -> None:
    around = Surroundings()
    found = look(tmp_path, only("bluesky", BLUESKY_HANDLE="nobody.test"), around).of("bluesky")
    assert found[0].state is State.FAIL
    assert "BLUESKY_HANDLE" in found[0].remedy
    found = look(tmp_path, only("bluesky", BLUESKY_APP_PASSWORD="hunter2"), around).of("bluesky")
    assert found[0].state is State.WARN
    assert "app password" in found[0].message
    around.pds = Says(Answer(200, {}, b"<html>"))
    (finding,) = look(tmp_path, only("bluesky"), around).of("bluesky")
    assert finding.state is State.FAIL
    assert "BLUESKY_URL" in finding.remedy
    around.pds = Pds(now=lambda: NOW, active={"active": False, "status": "takendown"})
    kept_session(tmp_path, Kept(tokens=session(around.pds)))
    (finding,) = look(tmp_path, only("bluesky"), around).of("bluesky")
    assert (finding.state, finding.message) == (
        State.FAIL, "the account author.test is takendown",
    )  # fmt: skip


def test_a_token_does_not_leave_in_the_clear(tmp_path: Path) -> None:
    around = Surroundings()
    tokens = replace(session(around.pds), pds="http://bsky.social")
    kept_session(tmp_path, Kept(tokens=tokens))
    look(tmp_path, only("bluesky"), around)
    assert not any(tokens.access in str(request.headers) for request in around.requests)


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b'{"owner": 1, "session": [1]}', b"\xff"])
def test_a_session_file_that_is_none_counts_as_none(tmp_path: Path, stored: bytes) -> None:
    kept_session(tmp_path, Kept())
    (tmp_path / "state" / "bluesky-session.json").write_bytes(stored)
    found = look(tmp_path, only("bluesky"))
    assert "the app password was not tried" in found.of("bluesky")[-1].message


def test_stripe_that_cannot_be_reached_is_no_fault_of_its_key(tmp_path: Path) -> None:
    around = Surroundings()
    around.connected = False
    finding = look(tmp_path, EVERYTHING, around).one("stripe")
    assert finding.state is State.FAIL
    assert "STRIPE_URL" in finding.remedy
    assert "STRIPE_API_KEY" not in finding.remedy


def test_stripe_is_asked_for_nothing_and_its_words_are_told(tmp_path: Path) -> None:
    around = Surroundings()
    assert look(tmp_path, EVERYTHING, around).one("stripe").state is State.OK
    (request,) = (r for r in around.requests if r.path == stripe.PATH)
    assert request.query["created[gte]"] == str(int(NOW.timestamp()))
    around.account.may_read = False
    finding = look(tmp_path, EVERYTHING, around).one("stripe")
    assert finding.state is State.FAIL
    assert "Read on Balance" in finding.message + finding.remedy
    assert STRIPE_KEY not in finding.message
    finding = look(tmp_path, EVERYTHING | {"STRIPE_API_KEY": "rk_test_1234567"}).one("stripe")
    assert finding.state is State.FAIL
    around.account = StripeDouble("sk_live_everything")
    finding = look(tmp_path, EVERYTHING | {"STRIPE_API_KEY": "sk_live_everything"}, around).one(
        "stripe"
    )
    assert finding.state is State.WARN
    assert stripe.PATH in {request.path for request in around.requests}


PLUGIN = """
class Own:
    name = "own"
    public = False
    def intend(self, post): ...
    async def publish(self, intent, note): ...
    async def find(self, intent): ...
def made(surroundings):
    (surroundings.state_dir / "mine").write_text("x")
    if "token" not in surroundings.settings:
        raise ValueError("PENSTOCK_PUBLISHER_OWN_TOKEN is needed")
    return Own()
"""


def test_a_plug_in_is_made_in_a_folder_that_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site"
    meta = place / "doctors_own-0.1.dist-info"
    meta.mkdir(parents=True)
    (place / "doctors_own.py").write_text(PLUGIN)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: doctors_own\nVersion: 0.1\n")
    (meta / "entry_points.txt").write_text("[penstock.publishers]\nown = doctors_own:made\n")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "doctors_own", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = tree(tmp_path)
    given = only("own", PENSTOCK_PUBLISHER_OWN_TOKEN="t0ken-of-theirs")
    assert look(tmp_path, given).one("plugin").state is State.OK
    assert tree(tmp_path) == before
    found = look(tmp_path, only("own"))
    assert found.one("plugin").state is State.FAIL
    assert "PENSTOCK_PUBLISHER_OWN_TOKEN is needed" in found.one("plugin").message


# Secrets

ODD_KEY = "sk-ä?&\"'<é>/+% =\\kéy\ttail#1"
ODD_PASSWORD = "p@ss wörd&'\"<>%/\\"
ODD_HOOK = "https://alerts.test/T0/B0/x!*'();:@&=+$,secret-path"


def forms(secret: str) -> set[str]:
    raw = secret.encode()
    return {
        secret, quote(secret, safe=""), quote(secret), quote_plus(secret), html.escape(secret),
        json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1], ascii(secret)[1:-1], repr(raw)[2:-1], base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode().rstrip("="), quote(secret, safe="").lower(),
        " ".join(secret.split()),
    }  # fmt: skip


@pytest.mark.parametrize("secret", [KEY, "ASCII-only%2Bkey/&?<'\">+=", ODD_KEY])
def test_no_secret_is_told_however_it_is_written(secret: str) -> None:
    mask = Mask([secret])
    for form in forms(secret):
        finding = mask.masked(fail("x", f"a {form} b", f"c {form}"))
        assert form not in finding.message + finding.remedy
        # The last letter of base64 has bits of whatever would come next.
        left = f"{finding.message} {finding.remedy}"
        assert re.fullmatch(r"a \*{3}\w?=* b c \*{3}\w?=*", left)


def test_logins_in_addresses_are_not_told() -> None:
    said = "https://user:p@ss@llm.test/v1 and https://medium.com/@author"
    assert Mask([]).masked(ok("x", said)).message == (
        "https://***@llm.test/v1 and https://medium.com/@author"
    )


def test_peers_that_repeat_a_key_in_every_form_do_not_make_us_tell_it(tmp_path: Path) -> None:
    key = "ASCII-only%2Bkey/&?<'\">+="
    secrets = {
        "PENSTOCK_PROVIDER_LLM_KEY": key + "1",
        "DEVTO_API_KEY": key + "2",
        "BLUESKY_APP_PASSWORD": ODD_PASSWORD,
        "STRIPE_API_KEY": key + "4",
        "PENSTOCK_ALERT_URL": ODD_HOOK,
    }
    told = [form for secret in secrets.values() for form in sorted(forms(secret))]

    def repeats(status: int) -> Says:
        message = " | ".join(told)
        return Says(Answer.of({"error": {"message": message}, "message": message}, status))

    around = Surroundings()
    around.model, around.forem = repeats(401), repeats(403)
    around.pds, around.account = repeats(400), repeats(401)
    found = look(tmp_path, EVERYTHING | secrets, around)
    assert {f.check for f in found.failed} >= {"provider", "devto", "bluesky", "stripe"}
    assert not [form for form in told if form in found.text]


@pytest.mark.parametrize("connected", [True, False])
def test_keys_that_no_header_takes_are_not_told(tmp_path: Path, connected: bool) -> None:
    """Settings refuse some of them; httpx would quote the rest in its errors."""
    names = (
        "PENSTOCK_PROVIDER_LLM_KEY",
        "DEVTO_API_KEY",
        "BLUESKY_APP_PASSWORD",
        "STRIPE_API_KEY",
        "PENSTOCK_ALERT_URL",
    )
    secrets = dict.fromkeys(names, ODD_KEY)
    around = Surroundings()
    around.connected = connected
    found = look(tmp_path, EVERYTHING | secrets, around)
    assert found.code == 2
    for name in ("DEVTO_API_KEY", "PENSTOCK_ALERT_URL"):
        secrets.pop(name)
    usable = EVERYTHING | secrets
    text = found.text + look(tmp_path, usable, around).text
    assert not [form for form in forms(ODD_KEY) if form in text]


def test_a_secret_from_a_file_or_a_credential_is_not_told_either(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "devto_api_key").write_text("from-a-credential\n")
    (tmp_path / "key").write_text("from-a-file\n")
    for path in (folder / "devto_api_key", tmp_path / "key"):
        path.chmod(0o600)
    around = Surroundings()
    said = Answer.of({"error": {"message": "from-a-file from-a-credential"}, "message": ""}, 401)
    around.model = around.forem = Says(said)
    given = only(
        "devto", CREDENTIALS_DIRECTORY=str(folder),
        PENSTOCK_PROVIDER_LLM_KEY_FILE=str(tmp_path / "key"),
    )  # fmt: skip
    for name in ("DEVTO_API_KEY", "PENSTOCK_PROVIDER_LLM_KEY"):
        del given[name]
    found = look(tmp_path, given, around)
    assert "*** ***" in found.one("provider").message
    assert "from-a-" not in found.text.replace(str(tmp_path), "")
    assert len(found.of("secrets")) == 2


def test_an_answer_that_cannot_be_had_names_no_header() -> None:
    async def ask() -> str:
        async with getter(Times(SystemClock()), InProcess({}), 1.0) as someone:
            try:
                await someone.get("https://llm.test/", {"authorization": f"Bearer {ODD_KEY}"})
            except Exception as error:
                return f"{error!r} {error.__cause__!r}"
        return ""

    said = asyncio.run(ask())
    assert "characters that no key has" in said
    assert not [form for form in forms(ODD_KEY) if form in said]


# The command


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        ([], 0),
        (["feed"], 1),
        (["feed", "settings"], 2),
        (["prices"], 2),
        (["schema"], 2),
        (["settings", "books", "devto"], 6),
    ],
)
def test_the_worst_decides_the_code(failed: list[str], code: int) -> None:
    found = [ok("python", "well"), *(fail(check, "broken", "mend it") for check in failed)]
    assert command.code(found) == code
    assert command.document(found)["ok"] is (code == 0)


def test_a_person_gets_a_line_for_each_and_what_helps_below() -> None:
    found = [
        ok("python", "Python"),
        fail("room", "full", "free some space"),
        Finding("pause", State.WARN, "it is paused", "`penstock resume`"),
        Finding("alerts", State.SKIPPED, "no database"),
        Finding("drafts", State.SKIPPED, "no database"),
    ]
    lines = command.human(found).splitlines()
    assert [line for line in lines if line.startswith(" ")] == [
        "  ✓ python: Python",
        "  ✗ room: full",
        "      → free some space",
        "  ! pause: it is paused",
        "      → `penstock resume`",
        "  – alerts, drafts: no database",
    ]
    assert lines[-1] == "1 failed, 1 to look at, 1 well, 2 skipped"


def test_the_command_prints_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PENSTOCK_FEEDS", str(tmp_path / "feed.xml"))
    (tmp_path / "feed.xml").write_text(feed(datetime.now(UTC)))
    before = tree(tmp_path)
    assert command.run(Namespace(env_file=None, json=True)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (set(document), document["ok"]) == ({"ok", "checks"}, True)
    for check in document["checks"]:
        assert set(check) == {"check", "state", "message", "remedy"}
        assert check["state"] in ("ok", "warn", "fail", "skipped")
    assert command.run(Namespace(env_file=str(tmp_path / "none"), json=False)) == 2
    missing = tmp_path / "none"
    assert f"✗ settings: {missing}: cannot be read: there is no" in capsys.readouterr().out
    assert tree(tmp_path) == before
