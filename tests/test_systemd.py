"""The units: what systemd thinks of them, and how the daemon lives under a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import install
from daemon.cli.context import UsageError
from daemon.options import OPTIONS

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "systemd"
BOX = ROOT / "tests" / "peers" / "systemd-box.sh"
PENSTOCK = Path(sys.executable).parent / "penstock"
SHIPPED = "/opt/penstock/bin/penstock"
SERVICES = ("penstock.service", "penstock@.service")
EXPOSURE_MAX = 1.2


def installed(root: Path | str, name: str = "") -> dict[str, Any]:
    words = ["--root", str(root), *(["--name", name] if name else [])]
    done = subprocess.run(
        [PENSTOCK, "install-service", "--json", *words], check=True, capture_output=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# What the daemon does now and then, and what it must not be able to do, behind the unit's doors.
_BEHIND_DOORS = """
import asyncio, ctypes, json, mmap, os, socket
from pathlib import Path
import atproto_client.client.async_raw
from daemon import tls
from daemon.desk import card
from daemon.sources.confined import Confined

async def parsed():
    parser = Confined.started()
    body = b"<html><body><article><h1>T</h1>" + b"<p>A sentence of some words that stay.</p>" * 60
    page = await parser.page(body, url="https://e.example/", content_type="text/html")
    await parser.close()
    return "some words" in json.dumps(page.text)

def refused(act):
    try:
        act()
    except FileNotFoundError:
        return False  # Nobody was asked.
    except OSError:
        return True
    return False

found = {
    "parsed": asyncio.run(parsed()),
    "drawn": card.draw("A title", "A publication", "run-1")[1:4] == b"PNG",
    "resolved": bool(socket.getaddrinfo("localhost", 80)),
    "trusts": bool(tls.context().get_ca_certs()),
    "thread": asyncio.run(asyncio.to_thread(lambda: True)),
    "etc is closed": refused(lambda: Path("/etc/open/file").write_text("x")),
    "the store of keys is closed": refused(lambda: list(Path("/etc/credstore").iterdir())),
    "nothing writable runs": refused(lambda: mmap.mmap(-1, 4096, prot=7)),
    "no netlink": refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "no namespace of its own": ctypes.CDLL(None).unshare(0x10000000) == -1,
    "others are invisible": not Path("/proc/1").exists(),
}
Path(os.environ["STATE_DIRECTORY"], "found").write_text(json.dumps(found))
"""


# What can be said of the files alone


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `install-service` put the unit of one publication and that of several."""
    root = tmp_path_factory.mktemp("root")
    for name in ("", "blog"):
        installed(root, name)
    return root / "etc/systemd/system"


@pytest.fixture
def analyze() -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT RUN: there is no systemd-analyze here, so no unit was verified")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, check=False
        )

    return run


def test_systemd_has_nothing_to_say_against_the_units(
    analyze: Callable[..., subprocess.CompletedProcess[str]], units: Path, tmp_path: Path
) -> None:
    shipped = (*UNITS.glob("*.service"), *UNITS.glob("*.timer"))
    for unit in (*shipped, *(units / name for name in SERVICES)):
        (tmp_path / unit.name).write_text(unit.read_text().replace(SHIPPED, "/bin/true"))
    for unit in sorted(tmp_path.iterdir()):
        said = analyze("verify", str(unit).replace("@.", "@blog."))
        # It exits with 0 where it ignores a line.
        assert (said.returncode, said.stderr) == (0, ""), unit.name


@pytest.mark.parametrize("unit", SERVICES)
def test_the_service_is_exposed_to_little(
    analyze: Callable[..., subprocess.CompletedProcess[str]], units: Path, unit: str
) -> None:
    said = analyze("security", "--offline=true", str(units / unit))
    score = re.search(r"exposure level for \S+: ([\d.]+)", said.stdout)
    assert score is not None, said
    assert float(score[1]) <= EXPOSURE_MAX, said.stdout


def test_the_timers_never_ring_together(
    analyze: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Where collecting had the lock first, a run would end with 7 and its slot be lost."""
    minutes = []
    for name in ("once", "collect"):
        timer = (UNITS / f"penstock-{name}.timer").read_text()
        (rings,) = re.findall(r"^OnCalendar=(.+)$", timer, re.MULTILINE)
        said = analyze("calendar", "--iterations=8", rings).stdout
        minutes.append(set(re.findall(r"\d\d:(\d\d):00 UTC", said)))
    assert minutes == [{"00"}, {"15", "45"}]


def test_every_key_with_a_setting_of_its_own_can_be_a_credential() -> None:
    text = (UNITS / "penstock.service").read_text()
    keys = {option.name.lower() for option in OPTIONS if option.secret}
    assert set(re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE)) == keys | {
        "penstock_provider_llm_key"
    }


# Putting them in place


def test_installing_twice_changes_nothing_and_keeps_the_operators_settings(tmp_path: Path) -> None:
    first = installed(tmp_path)
    assert {file["state"] for file in first["files"]} == {"written"}
    unit = tmp_path / "etc/systemd/system/penstock.service"
    settings = tmp_path / "etc/penstock/penstock.env"
    assert f"ExecStart={PENSTOCK} run --env-file /etc/penstock/penstock.env\n" in unit.read_text()
    assert settings.stat().st_mode & 0o777 == 0o640
    assert "\nPENSTOCK_STATE_DIR=/var/lib/penstock\n" in settings.read_text()
    settings.write_text("PENSTOCK_NICHE=mine\n")
    unit.write_text("of an older version")
    second = {file["path"]: file["state"] for file in installed(tmp_path)["files"]}
    assert second == {
        "/etc/systemd/system/penstock.service": "replaced",
        "/etc/sysusers.d/penstock.conf": "kept",
        "/etc/bash_completion.d/penstock": "kept",
        "/etc/penstock/penstock.env": "kept",
    }
    assert settings.read_text() == "PENSTOCK_NICHE=mine\n"
    assert {file["state"] for file in installed(tmp_path)["files"]} == {"kept"}


@pytest.mark.parametrize("there", ["no text", "a link to nowhere"])
def test_what_can_not_be_read_as_a_unit_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    unit = tmp_path / "etc/systemd/system/penstock.service"
    unit.parent.mkdir(parents=True)
    if there == "no text":
        unit.write_bytes(b"[Unit]\n\xff\xfe\n")
    else:
        unit.symlink_to(tmp_path / "nowhere")
    words = Namespace(name=None, root=str(tmp_path), dry_run=False, json=True, env_file=None)
    assert install.run(words) == 0
    states = {file["path"]: file["state"] for file in json.loads(capsys.readouterr().out)["files"]}
    assert states["/etc/systemd/system/penstock.service"] == "replaced"
    assert not unit.is_symlink()
    assert f"ExecStart={PENSTOCK} run" in unit.read_text()


def test_a_further_publication_has_its_own_settings_and_state(tmp_path: Path) -> None:
    found = installed(tmp_path, "blog")
    assert "systemctl enable --now penstock@blog" in found["next"]
    settings = tmp_path / "etc/penstock/blog.env"
    assert "\nPENSTOCK_STATE_DIR=/var/lib/penstock-blog\n" in settings.read_text()
    assert {"/etc/systemd/system/penstock@.service", "/etc/penstock/blog.env"} <= {
        file["path"] for file in found["files"]
    }


def test_nothing_of_one_publication_is_another_s(units: Path) -> None:
    """What names its settings, its state or its keys says whose they are."""
    one, several = ((units / name).read_text().splitlines() for name in SERVICES)
    changed = [
        of_several for line, of_several in zip(one, several, strict=True) if line != of_several
    ]
    keys = [line for line in one if line.startswith("LoadCredential=")]
    assert len(changed) == len(keys) + 5
    assert all("%i" in line for line in changed)
    own = re.compile(r"penstock\.env|^(State|Runtime)Directory=penstock$|:penstock\.(?!%i\.)")
    assert not any(own.search(line) for line in several)


def test_nothing_is_written_where_one_only_looks(tmp_path: Path) -> None:
    looking = Namespace(name="blog", root=str(tmp_path), dry_run=True, json=False, env_file=None)
    assert install.run(looking) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["penstock", "../etc", "Blog", "", "a b", "%n", "x" * 40])
def test_a_name_that_would_mean_something_else_is_refused(tmp_path: Path, name: str) -> None:
    wrong = Namespace(name=name, root=str(tmp_path), dry_run=False, json=False, env_file=None)
    with pytest.raises(UsageError, match="--name"):
        install.run(wrong)
    assert list(tmp_path.iterdir()) == []


# Under a real systemd


@dataclass
class Box:
    """A systemd of its own, with its own /etc, /var and /run; see systemd-box.sh."""

    folder: Path

    def run(self, *words: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if "PENSTOCK" not in name}
        return subprocess.run(
            ["sh", str(BOX), str(self.folder), *words], input=told, capture_output=True, text=True,
            check=False, timeout=60, env=env,
        )  # fmt: skip

    def ctl(self, *words: str) -> str:
        done = self.run("ctl", *words)
        assert done.returncode == 0, (words, done)
        return done.stdout

    def read(self, *words: str) -> str:
        done = self.run("exec", *words)
        assert done.returncode == 0, (words, done)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        assert self.run("exec", "sh", "-c", f"cat > {path}", told=text).returncode == 0

    def drop_in(self, unit: str, text: str) -> None:
        folder = self.folder / "units" / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)

    def show(self, unit: str, name: str) -> str:
        return self.ctl("show", "-P", name, unit).strip()

    def journal(self, unit: str) -> str:
        return self.read("journalctl", "-q", "--no-pager", "-o", "cat", "-u", unit)


@dataclass
class Publication:
    """One instance of the service in the box."""

    box: Box
    name: str

    @property
    def unit(self) -> str:
        return f"penstock@{self.name}.service"

    @property
    def state(self) -> str:
        return f"/var/lib/penstock-{self.name}"

    def configure(self, **settings: str) -> None:
        lines = {
            "PENSTOCK_STATE_DIR": self.state,
            "PENSTOCK_NICHE": "small servers, SQLite in production",
            "PENSTOCK_FEEDS": ",".join(map(str, sorted((ROOT / "examples/feeds").glob("*.xml")))),
            "PENSTOCK_FRESH_DAYS": "36500",
            "PENSTOCK_PUBLISHERS": "outbox",
            "PENSTOCK_PUBLISH_CRON": "0 9 1 1 *",
        } | settings
        text = "".join(f'{name}="{value}"\n' for name, value in lines.items())
        self.box.write(f"/etc/penstock/{self.name}.env", text)

    def start(self) -> None:
        self.box.ctl("start", self.unit)

    def show(self, name: str) -> str:
        return self.box.show(self.unit, name)

    def signal(self, name: str) -> None:
        self.box.ctl("kill", "--kill-whom=main", "-s", name, self.unit)

    def wait_for(self, what: str, happened: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds} s\n{self.box.journal(self.unit)}")
            time.sleep(0.2)

    def is_back_after(self, pid: str) -> bool:
        return self.show("ActiveState") == "active" and self.show("MainPID") not in {"0", pid}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    needed = ("systemctl", "systemd-sysusers", "nsenter", "unshare")
    if lacking := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(f"NOT RUN: there is no {', '.join(lacking)}, so no unit was started")
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: a systemd of its own needs root, so no unit was started")
    made = Box(tmp_path_factory.mktemp("box"))
    # Where Python and this clone lie, /root perhaps, is what the unit hides; the rest of it stands.
    places = {sys.prefix, sys.base_prefix, str(ROOT)}
    seen = f"ProtectHome=tmpfs\nBindReadOnlyPaths={' '.join(sorted(places))}\nRestartSec=1\n"
    made.drop_in("penstock@.service", f"[Service]\n{seen}")
    made.drop_in("penstock@hang.service", f"[Service]\n{seen}WatchdogSec=4\n")
    # As `sudo penstock status` is, but for where Python lies.
    status = f"{PENSTOCK} status --json --env-file /etc/penstock/%i.env"
    (made.folder / "units" / "status@.service").write_text(
        f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart={status}\n{seen}"
    )
    up = made.run("start")
    if up.returncode != 0:
        made.run("stop")
        pytest.skip(f"NOT RUN: no systemd can be started in namespaces here: {up.stderr.strip()}")
    try:
        yield made
    finally:
        made.run("stop")


@pytest.fixture(scope="module")
def publish(box: Box) -> Callable[[str], Publication]:
    def make(name: str) -> Publication:
        box.read(str(PENSTOCK), "install-service", "--json", *(["--name", name] if name else []))
        box.read("systemd-sysusers")
        box.read("chgrp", "penstock", f"/etc/penstock/{name}.env")
        box.ctl("daemon-reload")
        made = Publication(box, name)
        made.configure()
        return made

    return make


@pytest.fixture(scope="module")
def busy(publish: Callable[[str], Publication]) -> Publication:
    """It publishes every minute, while the other tests go on."""
    made = publish("busy")
    made.configure(PENSTOCK_PUBLISH_CRON="* * * * *", PENSTOCK_MAX_POSTS_PER_DAY="9")
    made.start()
    return made


def test_what_it_needs_works_behind_the_units_doors_and_the_rest_does_not(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    box = busy.box
    box.write("/etc/penstock/behind.py", _BEHIND_DOORS)
    # What must be closed is there, and one of them to everybody.
    box.read("install", "-d", "-m", "777", "/etc/open")
    box.read("install", "-d", "-m", "700", "/etc/credstore")
    own = (box.folder / "units/penstock@.service.d/test.conf").read_text()
    box.drop_in(
        "penstock@doors.service",
        f"{own}Type=oneshot\nRestart=no\n"
        f"ExecStart=\nExecStart={sys.executable} /etc/penstock/behind.py\n",
    )
    one = publish("doors")
    assert box.run("ctl", "start", one.unit).returncode == 0, box.journal(one.unit)
    found = json.loads(box.read("cat", f"{one.state}/found"))
    assert [what for what, is_so in found.items() if not is_so] == []


def test_it_comes_back_after_a_kill(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("kill")
    one.start()
    pid = one.show("MainPID")
    one.signal("KILL")
    one.wait_for("a restart", lambda: one.is_back_after(pid), 15)
    assert one.show("NRestarts") == "1"


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_comes_back(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("hang")
    one.start()
    pid = one.show("MainPID")
    # Longer than the watchdog waits: it lives because it says so.
    time.sleep(5)
    assert one.show("MainPID") == pid
    one.signal("STOP")
    one.wait_for("a restart", lambda: one.is_back_after(pid), 20)
    assert "Watchdog timeout" in one.box.journal(one.unit)


def test_a_reload_takes_up_the_settings_of_the_file_in_the_same_process(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("reload")
    one.start()
    pid = one.show("MainPID")
    assert "-01-01 09:00 UTC" in one.show("StatusText")
    one.configure(PENSTOCK_PUBLISH_CRON="0 9 2 2 *")
    one.box.ctl("reload", one.unit)
    one.wait_for("new settings", lambda: "-02-02 09:00 UTC" in one.show("StatusText"), 10)
    one.configure(PENSTOCK_PUBLISH_CRON="gibberish")
    one.box.ctl("reload", one.unit)
    one.wait_for("a refusal", lambda: "new settings are not used" in one.box.journal(one.unit), 10)
    one.wait_for("readiness", lambda: one.show("ActiveState") == "active", 10)
    assert "-02-02 09:00 UTC" in one.show("StatusText")
    assert one.show("MainPID") == pid


def test_it_stops_in_order_and_soon(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("stop")
    one.start()
    began = time.monotonic()
    one.box.ctl("stop", one.unit)
    assert time.monotonic() - began < 10
    assert (one.show("Result"), one.show("ExecMainStatus")) == ("success", "0")


def test_a_key_is_read_from_a_credential_and_lacking_it_is_no_reason_to_try_again(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("keys")
    one.configure(PENSTOCK_PUBLISHERS="outbox,devto", DEVTO_URL="http://127.0.0.1:9")
    assert one.box.run("ctl", "start", one.unit).returncode != 0
    assert "DEVTO_API_KEY" in one.box.journal(one.unit)
    assert_left_alone(one, exit_code="2")
    one.box.read("install", "-d", "-m", "700", "/etc/credstore")
    one.box.write("/etc/credstore/penstock.keys.devto_api_key", "a-key-of-the-operator")
    one.start()
    assert one.show("ActiveState") == "active"
    assert "a-key-of-the-operator" not in one.box.journal(one.unit)


def test_wrong_books_are_left_to_a_person(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    one = publish("wrong")
    one.start()
    one.box.ctl("stop", one.unit)
    damage = f"dd if=/dev/urandom of={one.state}/penstock.db bs=4096 seek=2 count=8 conv=notrunc"
    one.box.read("sh", "-c", f"{damage} 2>&1")
    assert one.box.run("ctl", "start", one.unit).returncode != 0
    assert_left_alone(one, exit_code="6")


def test_what_passes_is_outlasted_however_many_starts_it_takes(
    busy: Publication, publish: Callable[[str], Publication]
) -> None:
    box = busy.box
    own = (box.folder / "units/penstock@.service.d/test.conf").read_text()
    box.drop_in("penstock@locked.service", f"{own}RestartSec=100ms\n")
    one = publish("locked")
    one.start()
    one.box.ctl("stop", one.unit)
    # As a `penstock once` of a quarter of an hour.
    (box.folder / "units/holder.service").write_text(
        "[Unit]\nDefaultDependencies=no\n[Service]\n"
        f"ExecStart=flock {one.state}/penstock.db.lock sleep 600\n"
    )
    box.ctl("daemon-reload")
    box.ctl("start", "holder.service")
    assert box.run("ctl", "start", one.unit).returncode != 0
    one.wait_for("twelve starts", lambda: int(one.show("NRestarts")) > 12, 60)
    kept = f"/run/penstock-{one.name}/failed-start.json"
    assert '"LockHeld"' in box.read("cat", kept)
    box.ctl("stop", "holder.service")
    one.wait_for("a start", lambda: one.show("ActiveState") == "active", 30)
    one.wait_for("the end", lambda: box.run("exec", "ls", kept).returncode != 0, 10)


def assert_left_alone(one: Publication, exit_code: str) -> None:
    # Longer than it would take to be started again.
    time.sleep(2)
    found = [one.show(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    assert found == ["failed", exit_code, "0"], one.box.journal(one.unit)


def test_it_publishes_on_its_schedule_with_all_doors_closed(busy: Publication) -> None:
    def articles() -> list[str]:
        return busy.box.read("find", busy.state, "-name", "*.md").split()

    busy.wait_for("an article", lambda: bool(articles()), 75)
    assert busy.show("NRestarts") == "0"
    shown = busy.box.ctl("status", busy.unit)
    assert re.search(r'Status: ".*credits available; next slot \d{4}-\d\d-\d\d', shown)
    # Beside the daemon, by root: it becomes the owner, and leaves no file of root's.
    busy.box.ctl("start", "status@busy")
    said = busy.box.read("journalctl", "-q", "-o", "cat", "-u", "status@busy", "_COMM=penstock")
    assert json.loads(said)["last_run"] is not None
    owners = busy.box.read("find", busy.state, "-printf", "%u %m %p\n").splitlines()
    assert {line.split()[0] for line in owners} == {"penstock"}
    assert f"penstock 700 {busy.state}" in owners
