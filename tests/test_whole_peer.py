"""
The whole program against Bluesky's own servers, as its owner uses it: commands and an env file.

Dev.to, the model and the blog are doubles; the PDS, its directory and the AppView are real. The
commands' clock jumps where they only sleep (`faults.c`), so that a minute between two logins costs
none of ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli_helpers import PENSTOCK, TIMEOUT_S, Result, checked, micro, noon_zone, small_world
from tests.doubles import devto
from tests.doubles.devto import DevToDouble
from tests.doubles.wire import Answer, Fault, Request, serve
from tests.peers import pds
from tests.peers.pds import until
from tests.test_publishing_kills import TOLD, Moment, SharedClock

POSTS, PROFILES = "app.bsky.feed.post", "app.bsky.actor.profile"
LIKES, REPOSTS = "app.bsky.feed.like", "app.bsky.feed.repost"
NAMES = ("ada", "berta", "carla", "dora", "emil", "bob")
PASSED_ON_MAX_S = 30.0


@pytest.fixture(scope="module")
def network() -> Iterator[pds.Network]:
    with pds.network(NAMES, appview=True) as running:
        yield running


@pytest.fixture(scope="module")
def appview(network: pds.Network) -> pds.Network:
    return network.with_appview()


def command(home: Path, library: Path, args: Sequence[str]) -> subprocess.Popen[bytes]:
    """`penstock …` in its owner's folder, where the `.env` is."""
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8",
        "LD_PRELOAD": str(library), "FAULTS_CLOCK": str(home / "clock"),
    }  # fmt: skip
    return subprocess.Popen(
        [PENSTOCK, *args], cwd=home, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def write_env(home: Path, settings: Mapping[str, str]) -> None:
    (home / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))


@dataclass(frozen=True)
class Written:
    """A state in which one article is written and approved, and nowhere yet."""

    home: Path
    run: str
    settings: Mapping[str, str]


@pytest.fixture(scope="module")
def written(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    home = tmp_path_factory.mktemp("written")
    SharedClock(home / "clock")
    with small_world() as world:
        settings = world.settings | {
            "PENSTOCK_STATE_DIR": "state",
            "PENSTOCK_TIMEZONE": noon_zone(),
            "PENSTOCK_PUBLISHERS": "bluesky,devto,outbox",
            "PENSTOCK_APPROVAL": "manual",
            "PENSTOCK_PROVIDER_LLM_USAGE": "none",
            "DEVTO_API_KEY": devto.KEY,
            "BLUESKY_HANDLE": "nobody.test",
            "BLUESKY_APP_PASSWORD": "none yet",
        }
        write_env(home, settings)
        world.model.answers["announcement"] = lambda asked: {"posts": list(TOLD)}

        def done(*args: str) -> Result:
            with command(home, library, args) as process:
                said = process.communicate(timeout=TIMEOUT_S)
            result = checked(args, process.returncode, *said)
            assert result.code == 0, result
            return result

        done("init")
        done("ledger", "deposit", "5", "--ref", "first")
        made = done("once", "--json")
        assert made.json["outcome"] == "awaiting_approval", made
        run = made.json["run"]
        done("drafts", "approve", run)
    return Written(home, run, settings)


# Where a life can end


@dataclass
class Way:
    """
    Between the program and its PDS: every request passes, and a life can end at one.

    Args:
        deaths: a method, which of a life's requests of it, and when; each comes once, in order.
        seen: the methods that this life asked for.
    """

    service: str
    url: str = ""
    deaths: list[tuple[str, int, Moment]] = field(default_factory=list)
    victim: subprocess.Popen[bytes] | None = None
    seen: list[str] = field(default_factory=list)

    def _strikes(self, moment: Moment) -> bool:
        method = self.seen[-1]
        if not self.deaths or self.deaths[0] != (method, self.seen.count(method), moment):
            return False
        assert self.victim is not None
        os.kill(self.victim.pid, signal.SIGKILL)
        del self.deaths[0]
        return True

    async def handle(self, request: Request) -> Answer:
        method = request.path.rpartition(".")[2]
        if method == "putRecord":
            method += f" {request.json['collection'].rpartition('.')[2]}"
        self.seen.append(method)
        if self._strikes(Moment.BEFORE):
            return Answer(fault=Fault.DROP)
        passed = {n: v for n, v in request.headers.items() if n not in ("host", "content-length")}
        async with httpx.AsyncClient(timeout=PASSED_ON_MAX_S) as client:
            answer = await client.request(
                request.method, self.service + request.target, headers=passed, content=request.body
            )
        if self._strikes(Moment.AFTER):
            return Answer(fault=Fault.DROP)
        # A session says where its account lives; it goes on living on this way.
        body = answer.content.replace(self.service.encode(), self.url.encode())
        kept = ("content-type", "ratelimit-reset", "retry-after", "dpop-nonce")
        headers = {name: value for name, value in answer.headers.items() if name in kept}
        return Answer(answer.status_code, headers, body)


@dataclass
class Owner(pds.Account):
    """
    Somebody with an account, an approved article, and a Dev.to of their own.

    Args:
        gone: the posts there were before they were withdrawn.
    """

    library: Path
    home: Path
    run_id: str
    settings: dict[str, str]
    site: DevToDouble
    way: Way
    gone: list[str] = field(default_factory=list)

    @property
    def clock(self) -> SharedClock:
        return SharedClock(self.home / "clock")

    def set(self, **settings: str) -> None:
        self.settings |= settings
        write_env(self.home, self.settings)

    def run(self, *args: str) -> Result:
        """One command to its end, which may be a violent one."""
        self.way.seen.clear()
        with command(self.home, self.library, args) as process:
            self.way.victim = process
            out, err = process.communicate(timeout=TIMEOUT_S)
        if process.returncode == -signal.SIGKILL:
            return Result(args, process.returncode, out.decode(), err.decode())
        return checked(args, process.returncode, out, err)

    def read(self, *args: str) -> Any:
        result = self.run(*args, "--json")
        assert result.code == 0, result
        return result.json

    def post(self) -> Any:
        """The publication at Bluesky, as `posts list` has it."""
        return next(p for p in self.read("posts", "list") if p["platform"] == "bluesky")

    def states(self) -> dict[str, str]:
        return {p["platform"]: p["state"] for p in self.read("posts", "list")}

    # What anybody can see

    def thread(self) -> list[dict[str, str]]:
        """References to the posts, the first one first."""
        found = sorted(self.records().items())
        return [{"uri": r["uri"], "cid": r["cid"]} for _, r in found]

    def shown(self) -> list[Any]:
        """The thread's first post, as the AppView has it, or nothing."""
        uri, *_ = [ref["uri"] for ref in self.thread()] or self.gone
        found = self.network.call("app.bsky.feed.getPosts", token=self.token(), uris=uri)
        return list(found["posts"])

    def act(self, nsid: str, **fields: Any) -> Any:
        return self.network.call(f"com.atproto.{nsid}", fields, self.token())


Owners = Callable[[str], Owner]


@pytest.fixture
def owners(
    network: pds.Network, library: Path, written: Written, tmp_path: Path
) -> Iterator[Owners]:
    with ExitStack() as stack:

        def owner(name: str) -> Owner:
            home = tmp_path / name
            shutil.copytree(written.home, home)
            site, way = DevToDouble(), Way(network.pds)
            site.now = SharedClock(home / "clock").monotonic
            way.url = stack.enter_context(serve(way)).url
            made = Owner(
                network, name, library, home, written.run, dict(written.settings), site, way
            )
            made.set(
                DEVTO_URL=stack.enter_context(serve(site)).url,
                BLUESKY_URL=way.url,
                BLUESKY_HANDLE=f"{name}.test",
                BLUESKY_APP_PASSWORD=f"{name}-password",
            )
            return made

        yield owner


def assert_thread(owner: Owner) -> None:
    """One thread, whole and in order, whose first post shows the article."""
    values = [record["value"] for _, record in sorted(owner.records().items())]
    assert [value["text"] for value in values] == list(TOLD)
    first, *rest = owner.thread()
    assert [value.get("reply", {}).get("root") for value in values] == [None, first, first]
    assert values[2]["reply"]["parent"] == rest[0]
    (article,) = owner.site.public
    card = values[0]["embed"]["external"]
    assert card["uri"] == f"https://dev.to/penstock/{article.slug}"
    blob = owner.network.call(
        "com.atproto.sync.getBlob", did=owner.did, cid=card["thumb"]["ref"]["$link"]
    )
    assert blob.startswith((b"\x89PNG", b"\xff\xd8"))
    assert all("embed" not in value for value in values[1:])


# A life


def test_a_thread_lives_through_kills_readers_and_its_withdrawal(
    owners: Owners, appview: pds.Network
) -> None:
    owner = owners("ada")
    profile = {"$type": PROFILES, "displayName": "The Writer", "description": "Writes.",
               "unheardOf": {"n": [1, None, True]}}  # fmt: skip
    owner.act("repo.putRecord", repo=owner.did, collection=PROFILES, rkey="self", record=profile)
    killed_between_request_and_answer(owner)
    has_the_label_and_all_else(owner, profile)
    reader = Reader(appview, "bob")
    counts_and_income(owner, reader)
    withdrawn_everywhere(owner)


def killed_between_request_and_answer(owner: Owner) -> None:
    killed(
        owner,
        ("createSession", 1, Moment.AFTER),
        ("putRecord profile", 1, Moment.AFTER),
        ("uploadBlob", 1, Moment.AFTER),
        ("putRecord post", 1, Moment.BEFORE),
        ("putRecord post", 3, Moment.AFTER),
    )
    done = owner.read("once")
    assert done["outcome"] == "published", done
    assert set(owner.states().values()) == {"published"}
    assert_thread(owner)
    assert len(owner.site.public) == owner.site.public_most == 1


def killed(owner: Owner, *deaths: tuple[str, int, Moment]) -> None:
    """One life after the other, each ending there."""
    owner.way.deaths = list(deaths)
    for number, death in enumerate(deaths, start=1):
        ended = owner.run("once", "--json")
        assert ended.code == -signal.SIGKILL, (death, ended)
        assert len(owner.way.deaths) == len(deaths) - number
        # Each login within a day waits longer than the one before.
        owner.clock.skip(3600)


def test_a_thread_that_a_kill_cut_short_is_gone_on_with(owners: Owners) -> None:
    owner = owners("emil")
    killed(owner, ("putRecord post", 1, Moment.AFTER))
    assert owner.read("once")["outcome"] == "published"
    assert_thread(owner)


def has_the_label_and_all_else(owner: Owner, profile: Mapping[str, Any]) -> None:
    stored = owner.records(PROFILES)["self"]["value"]
    labels = stored.pop("labels")
    assert stored == profile
    assert labels["values"] == [{"val": "bot"}]


class Reader(pds.Account):
    """The second account."""

    def does(self, collection: str, **fields: Any) -> str:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        record = {"$type": collection, "createdAt": now, **fields}
        made = self._call("createRecord", collection=collection, record=record)
        return str(made["uri"]).rpartition("/")[2]

    def takes_back(self, collection: str, rkey: str) -> None:
        self._call("deleteRecord", collection=collection, rkey=rkey)

    def _call(self, method: str, **fields: Any) -> Any:
        body = {"repo": self.did, **fields}
        return self.network.call(f"com.atproto.repo.{method}", body, self.token())


def counts_and_income(owner: Owner, reader: Reader) -> None:
    root, second, _ = owner.thread()
    until(owner.shown)
    like = reader.does(LIKES, subject=root)
    reader.does(LIKES, subject=second)
    reader.does(REPOSTS, subject=root)
    reader.does(POSTS, text="Is it so?", reply={"root": root, "parent": root})

    def counted() -> dict[str, int]:
        owner.clock.skip(60)
        assert owner.run("collect").code == 0
        return dict(owner.post()["metrics"])

    wanted = {"like": 2, "repost": 1, "reply": 1, "quote": 0}
    until(lambda: counted() == wanted, "the counts are not those of the reader")
    # By the rate card: a like 0.002, a repost 0.005, a reply 0.005.
    income = 14_000
    assert earned(owner) == {"list": income, "books": income}
    reader.takes_back(LIKES, like)
    until(lambda: counted()["like"] == 1, "a like that was taken back still counts")
    reader.does(LIKES, subject=root)
    until(lambda: counted()["like"] == 2, "a like that was given again does not count")
    assert earned(owner) == {"list": income, "books": income}
    check = owner.read("ledger", "check")
    assert (check["ok"], check["problems"]) == (True, [])


def earned(owner: Owner) -> dict[str, int]:
    """Micro-credits, as `posts list` and as the books have it."""
    accounts = owner.read("ledger", "balance")["accounts"]
    booked = [micro(a["balance"]) for a in accounts if a["name"] == "engagement:bluesky"]
    return {"list": micro(owner.post()["earned"]), "books": sum(booked)}


def withdrawn_everywhere(owner: Owner) -> None:
    owner.gone = [ref["uri"] for ref in owner.thread()]
    assert owner.run("posts", "withdraw", owner.run_id, "--reason", "a claim was wrong").code == 0
    assert set(owner.states().values()) == {"withdrawn"}
    assert owner.records() == {}
    assert owner.site.public == []
    assert list((owner.home / "state" / "outbox").glob("*.md")) == []
    until(lambda: not owner.shown(), "the AppView still shows it")
    assert owner.post()["metrics"]["like"] == 2


# Accounts in trouble


def alerts(owner: Owner) -> str:
    return "\n".join(owner.read("status")["alerts"])


def test_a_revoked_password_keeps_back_bluesky_alone_until_there_is_a_new_one(
    owners: Owners,
) -> None:
    owner = owners("berta")
    made = owner.act("server.createAppPassword", name="penstock")
    owner.set(BLUESKY_APP_PASSWORD=made["password"])
    owner.way.deaths = [("putRecord post", 1, Moment.BEFORE)]
    assert owner.run("once").code == -signal.SIGKILL
    # The session lives as long as its access token, which nobody can revoke.
    owner.act("server.revokeAppPassword", name="penstock")
    owner.clock.skip(3 * 3600)
    report = owner.read("once")
    assert report["outcome"] == "published"
    assert owner.states() == {"outbox": "published", "devto": "published", "bluesky": "intended"}
    said = owner.post()["error"]
    assert "new app password" in said, said
    assert "BLUESKY_APP_PASSWORD" in alerts(owner)
    assert owner.records() == {}
    again = owner.act("server.createAppPassword", name="penstock again")
    owner.set(BLUESKY_APP_PASSWORD=again["password"])
    assert owner.run("reconcile").code == 0
    # Each login within a day waits longer than the one before; it is two minutes this time.
    assert "the next attempt waits" in owner.post()["error"]
    owner.clock.skip(120)
    assert owner.run("reconcile").code == 0
    assert owner.post()["state"] == "published"
    assert "BLUESKY_APP_PASSWORD" not in alerts(owner)
    assert_thread(owner)


def test_what_its_owner_deletes_in_the_app_is_noticed(owners: Owners, appview: pds.Network) -> None:
    owner = owners("dora")
    assert owner.run("once").code == 0
    until(owner.shown)
    assert owner.run("collect").code == 0
    assert owner.post()["state"] == "published"
    root, *_ = owner.thread()
    rkey = root["uri"].rpartition("/")[2]
    owner.act("repo.deleteRecord", repo=owner.did, collection=POSTS, rkey=rkey)

    def noticed() -> bool:
        assert owner.run("collect").code == 0
        return bool(owner.post()["state"] == "withdrawn")

    until(noticed, "nobody noticed")
    assert owner.states() == {"outbox": "published", "devto": "published", "bluesky": "withdrawn"}
    assert "gone at bluesky" in alerts(owner)
    # It is not put back.
    owner.clock.skip(3600)
    owner.run("reconcile")
    assert rkey not in owner.records()


def test_an_account_that_is_taken_down_waits_for_its_moderators(owners: Owners) -> None:
    owner = owners("carla")

    def taken_down(applied: bool) -> None:
        subject = {"$type": "com.atproto.admin.defs#repoRef", "did": owner.did}
        body = {"subject": subject, "takedown": {"applied": applied, "ref": "1"}}
        basic = httpx.BasicAuth("admin", "admin-pass")._auth_header
        owner.network.call("com.atproto.admin.updateSubjectStatus", body, basic)

    taken_down(True)
    assert owner.read("once")["outcome"] == "published"
    assert owner.states() == {"outbox": "published", "devto": "published", "bluesky": "intended"}
    assert "moderators" in alerts(owner)
    taken_down(False)
    # A refused login is not repeated within a day.
    owner.clock.skip(25 * 3600)
    assert owner.run("reconcile").code == 0
    assert "moderators" not in alerts(owner)
    assert owner.post()["state"] == "published"
    assert_thread(owner)
