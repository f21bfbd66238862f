"""
What the crew costs beside frameworks for agents, as ratios taken in one run.

    .venv/bin/python -m benchmarks.crew [--crewai PYTHON] [--langgraph PYTHON] [--httpx PYTHON]
        [--rounds 7] [--pages 6] [--characters 5000] [--folder DIR]

The same job for everyone, on an endpoint and sites in a process of their own: a plan, notes on
four questions, a draft, a review, and publishing, which is code. Each contestant is a whole
process, from exec to exit, and they take turns. PYTHON is an interpreter that has the framework;
who has none is reported as NOT RUN. Prints Markdown; docs/benchmarks.md keeps a run of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
PENSTOCK = Path(sys.executable).with_name("penstock")
QUESTIONS = 4
LATENCIES_MS = (0, 200)
# Plan, notes side by side, draft, review: what waits for what.
CRITICAL_CALLS = 4
SIZES = (1_400, 5_000, 20_000)
OURS, PLAIN, GRAPH, CREW = "Penstock", "httpx", "LangGraph", "CrewAI"
LEAST_GRAPH, FOUR = f"{GRAPH} over httpx", f"{CREW}, four tasks"
BRIEF = {
    "niche": "running databases, SQLite",
    "audience": "working developers who know the basics and have little time",
    "voice": "plain, precise and friendly; short sentences; no hype",
    "language": "en",
    "words": "600-1200",
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """
    Somebody who does the job.

    Args:
        prepare: makes an empty folder ready, and returns the command and its environment.
    """

    name: str
    prepare: Callable[[Path], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Measured:
    """
    One process from exec to exit.

    Args:
        run_s: from opening to closing of the run, as our journal has it.
        crew_s: from the plan's beginning to the end: the part that the others do, whose sources
            were read for them.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    calls: int
    tokens: int
    stages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    run_s: float | None = None
    crew_s: float | None = None


def main() -> None:
    args = _arguments()
    print(f"{os.cpu_count()} cores, CPython {sys.version.split()[0]},", end=" ")
    print(f"{args.pages} pages of {args.characters:,} characters, {args.rounds} rounds\n")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        with opened(Path(folder) / "main", args, args.characters) as stage:
            print(f"{'; '.join(stage.versions)}\n")
            found = {ms: stage.rounds(args.rounds, ms) for ms in LATENCIES_MS}
        for ms, measured in found.items():
            _table(ms, measured)
        sizes = {size: _sizes(Path(folder) / str(size), args, size) for size in SIZES}
    _sizes_table(args.pages, sizes)
    _targets(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[1])
    for name in ("crewai", "langgraph"):
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"an interpreter that has {name}")
    parser.add_argument(
        "--httpx", metavar="PYTHON", default=sys.executable, help="one that has httpx"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pages", type=int, default=6)
    parser.add_argument("--characters", type=int, default=5_000, help="of each page")
    parser.add_argument("--folder", help="where to put the books; a real disk")
    return parser.parse_args()


# The stage


class Stage:
    """An endpoint with sites, the job's pages as Penstock read them, and who is to do the job."""

    def __init__(self, folder: Path, args: argparse.Namespace, world: dict[str, Any]) -> None:
        self._folder = folder
        self._world = world
        self._count = 0
        self.versions: list[str] = []
        self._template = self._make_books()
        self.contestants = [Contestant(OURS, self._penstock)]
        # Once ahead, so that the endpoint knows every answer and the peers get the same pages.
        measured = self.measure(self.contestants[0], keep=True)
        assert measured.stages["notes"][0] == QUESTIONS, measured
        self._sources = self._read_sources()
        self._add_peer(PLAIN, args.httpx, "httpx", "plain.py")
        self._add_peer(GRAPH, args.langgraph, "langgraph", "graph.py", "openai")
        self._add_peer(LEAST_GRAPH, args.langgraph, "langgraph", "graph.py", "httpx")
        self._add_peer(CREW, args.crewai, "crewai", "agents.py", "default")
        self._add_peer(f"{CREW}, told", args.crewai, "crewai", "agents.py", "told")
        self._add_peer(FOUR, args.crewai, "crewai", "agents.py", "four")

    def _add_peer(
        self, name: str, python: str | None, package: str, script: str, *words: str
    ) -> None:
        version = _version(python, package) if python else None
        if version is None:
            why = f"{python} has no {package}" if python else f"no --{package} PYTHON was given"
            print(f"**NOT RUN: {name}: {why}**\n")
            return
        if f"{package} {version}" not in self.versions:
            self.versions.append(f"{package} {version}")
        self.contestants.append(
            Contestant(name, lambda folder: self._peer(folder, str(python), script, words))
        )

    def rounds(self, rounds: int, latency_ms: int) -> dict[str, list[Measured]]:
        """Everyone in turn, a different one first each time; a first round is not counted."""
        _get(self._world["model"], f"/latency?ms={latency_ms}")
        found: dict[str, list[Measured]] = {one.name: [] for one in self.contestants}
        for turn in range(rounds + 1):
            at = turn % len(self.contestants)
            for one in self.contestants[at:] + self.contestants[:at]:
                measured = self.measure(one)
                if turn:
                    found[one.name].append(measured)
        return found

    def measure(self, contestant: Contestant, *, keep: bool = False) -> Measured:
        """One process, from exec to exit, and what it asked."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir(parents=True)
        command, env = contestant.prepare(folder)
        _get(self._world["model"], "/counts")
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            # The resources of this child alone; RUSAGE_CHILDREN would keep the largest of all.
            _, status, used = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said = (folder / "out").read_text() + (folder / "err").read_text()
            raise RuntimeError(
                f"{contestant.name} ended with {process.returncode}:\n{said[-4000:]}"
            )
        counts = _get(self._world["model"], "/counts")
        ours = contestant.name == OURS
        assert list(folder.glob("**/*.md")), f"{contestant.name} published nothing"
        measured = Measured(
            wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024,
            counts["calls"], counts["tokens"], counts["stages"],
            *(_run_and_crew_s(folder / "state" / "penstock.db") if ours else ()),
        )  # fmt: skip
        if not keep:
            shutil.rmtree(folder)
        return measured

    def _env(self, home: Path) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}

    def _penstock(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        (folder / "state").mkdir(mode=0o700)
        shutil.copyfile(self._template, folder / "state" / "penstock.db")
        return [str(PENSTOCK), "once", "--json"], self._env(folder) | self._settings(folder)

    def _settings(self, folder: Path) -> dict[str, str]:
        ladders = {f"PENSTOCK_MODELS_{role}": "llm/good" for role in ("RESEARCH", "WRITE", "EDIT")}
        return ladders | {
            "PENSTOCK_STATE_DIR": str(folder / "state"),
            "PENSTOCK_NICHE": BRIEF["niche"],
            "PENSTOCK_FEEDS": ",".join(self._world["feeds"]),
            "PENSTOCK_FETCH_ALLOW": ",".join(self._world["hosts"]),
            "PENSTOCK_PROVIDER_LLM_URL": f"{self._world['model']}/v1",
            "PENSTOCK_PROVIDER_LLM_KEY": self._world["key"],
            "PENSTOCK_PRICES": "llm/good=1,0.1,5",
            "PENSTOCK_APPROVAL": "auto",
        }

    def _make_books(self) -> Path:
        """A database with enough in it for a standard run, and too little for a surplus one."""
        folder = self._folder / "template"
        folder.mkdir(parents=True)
        env = self._env(folder) | self._settings(folder)
        for words in (["init"], ["ledger", "deposit", "2", "--ref", "first"]):
            command = [str(PENSTOCK), *words]
            subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True)
        return folder / "state" / "penstock.db"

    def _read_sources(self) -> list[dict[str, str]]:
        """The pages as the first run read them, in its order."""
        path = self._folder / str(self._count) / "state" / "penstock.db"
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT id, title, text FROM source ORDER BY id").fetchall()
        return [dict(zip(("id", "title", "text"), row, strict=True)) for row in rows]

    def _peer(
        self, folder: Path, python: str, script: str, words: Sequence[str]
    ) -> tuple[list[str], dict[str, str]]:
        job = {
            "url": f"{self._world['model']}/v1",
            "key": self._world["key"],
            "model": "good",
            "questions": QUESTIONS,
            "instructions": self._world["instructions"],
            "schemas": self._world["schemas"],
            "brief": BRIEF,
            "sources": self._sources,
            "out": str(folder / "article.md"),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [python, str(PEERS / script), str(folder / "job.json"), *words]
        # One home for all rounds: what a framework keeps there is made once.
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        return command, self._env(home) | {"LANGSMITH_TRACING": "false"}


@contextmanager
def opened(folder: Path, args: argparse.Namespace, characters: int) -> Iterator[Stage]:
    """The endpoint runs inside the block."""
    command = [sys.executable, "-m", "benchmarks.peers.endpoint"]
    command += ["--pages", str(args.pages), "--characters", str(characters)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as endpoint:
        assert endpoint.stdout is not None
        try:
            yield Stage(folder, args, json.loads(endpoint.stdout.readline()))
        finally:
            endpoint.terminate()


def _get(base: str, path: str) -> Any:
    connection = HTTPConnection(base.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def _version(python: str, package: str) -> str | None:
    code = f"from importlib.metadata import version; print(version('{package}'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _run_and_crew_s(path: Path) -> tuple[float, float]:
    with closing(sqlite3.connect(path)) as connection:
        ((started, finished),) = connection.execute("SELECT started_at, finished_at FROM run")
        ((planned,),) = connection.execute("SELECT started_at FROM step WHERE name = 'plan'")
    opened, begun, ended = map(datetime.fromisoformat, (started, planned, finished))
    return (ended - opened).total_seconds(), (ended - begun).total_seconds()


# What is told


def _of(measured: Measured, name: str) -> float:
    return float(getattr(measured, name))


def _median(measured: Sequence[Measured], name: str) -> float:
    return statistics.median(_of(one, name) for one in measured)


def _least(measured: Sequence[Measured], name: str) -> float:
    """The round that others on the machine disturbed least."""
    return min(_of(one, name) for one in measured)


def _ratio(found: Mapping[str, Sequence[Measured]], one: str, other: str, name: str) -> float:
    """The median of the rounds' ratios: what slows the machine slows both."""
    return statistics.median(
        _of(a, name) / _of(b, name) for a, b in zip(found[one], found[other], strict=True)
    )


def _table(latency_ms: int, found: Mapping[str, Sequence[Measured]]) -> None:
    print(f"Answers after {latency_ms} ms:\n")
    print("| | wall | least | over httpx | CPU | peak memory | calls | prompt tokens |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, measured in found.items():
        over = f"{_ratio(found, name, PLAIN, 'wall_s'):.2f}" if PLAIN in found else "–"
        print(
            f"| {name} | {_median(measured, 'wall_s'):.2f} s | {_least(measured, 'wall_s'):.2f} s"
            f" | {over}"
            f" | {_median(measured, 'cpu_s'):.2f} s | {_median(measured, 'peak_mib'):.0f} MiB"
            f" | {_median(measured, 'calls'):.0f} | {_median(measured, 'tokens'):,.0f} |"
        )
    print()


def _sizes(folder: Path, args: argparse.Namespace, characters: int) -> dict[str, Measured]:
    """Once each: what is asked does not change from run to run."""
    with opened(folder, args, characters) as stage:
        return {one.name: stage.measure(one) for one in stage.contestants}


def _sizes_table(pages: int, sizes: Mapping[int, Mapping[str, Measured]]) -> None:
    print(f"Prompt tokens, by the length of each of the {pages} pages:\n")
    print(
        f"| | {' | '.join(f'{size:,} characters' for size in sizes)} | stages at the middle one |"
    )
    print("|---|" + "---:|" * len(sizes) + "---|")
    for name in sizes[SIZES[0]]:
        cells = " | ".join(f"{measured[name].tokens:,}" for measured in sizes.values())
        stages = ", ".join(
            f"{calls} {stage} {read:,}"
            for stage, (calls, read) in sizes[SIZES[1]][name].stages.items()
        )
        print(f"| {name} | {cells} | {stages} |")
    print()


def _targets(found: Mapping[int, Mapping[str, Sequence[Measured]]]) -> None:
    fast, slow = (found[ms] for ms in LATENCIES_MS)
    print("| what | median | least | CPU | wanted |\n|---|---:|---:|---:|---:|")
    for peer, wanted in ((CREW, "0.33"), (GRAPH, "1.5"), (LEAST_GRAPH, "1.5")):
        shown = "NOT RUN | – | –"
        if peer in fast:
            least = _least(fast[OURS], "wall_s") / _least(fast[peer], "wall_s")
            shown = (
                f"{_ratio(fast, OURS, peer, 'wall_s'):.2f} | {least:.2f}"
                f" | {_ratio(fast, OURS, peer, 'cpu_s'):.2f}"
            )
        print(f"| time at 0 ms: ours over {peer} | {shown} | {wanted} |")
    critical_s = CRITICAL_CALLS * LATENCIES_MS[1] / 1000
    for name, word, wanted in (
        ("crew_s", "from the plan's beginning to the published article", "1.15"),
        ("run_s", "the run, with reading its feeds and pages", "–"),
        ("wall_s", "the whole process", "–"),
    ):
        over = _median(slow[OURS], name) / critical_s
        least = _least(slow[OURS], name) / critical_s
        shown = f"{over:.2f} | {least:.2f} | – | {wanted}"
        print(f"| at {LATENCIES_MS[1]} ms: {word}, over {critical_s:.1f} s | {shown} |")
    for peer, wanted in ((CREW, "0.5"), (FOUR, "–")):
        shown = f"{_ratio(fast, OURS, peer, 'tokens'):.2f}" if peer in fast else "NOT RUN"
        print(f"| prompt tokens: ours over {peer} | {shown} | – | – | {wanted} |")
    for ms, one in found.items():
        for name, word in (("run_s", "our run itself"), ("crew_s", "of that the crew")):
            took = f"{_median(one[OURS], name):.2f} s | {_least(one[OURS], name):.2f} s"
            print(f"| {word} at {ms} ms | {took} | – | – |")


if __name__ == "__main__":
    main()
