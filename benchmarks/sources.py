"""
What reading strangers' bytes takes, in our own process and in the one with limits.

    .venv/bin/python -m benchmarks.sources [--pages DIR] [--only WORD]

The yardstick of the process is the same parsers called on the spot, taking turns with it. Each bomb
is given to a process that has read an honest feed; another honest feed and page are read after it.
Prints Markdown; docs/benchmarks.md keeps a run of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from daemon.sources.confined import Confined, Parser, Unconfined
from daemon.sources.worker import CPU_S_MAX, DATA_BYTES_MAX
from tests.corpora import REAL_BLOG
from tests.test_confined import (
    BOMBS,
    ENDLESS,
    Kind,
    Watch,
    feed,
    page,
    peak_bytes,
    pid,
    watched,
)

ROUNDS = 5
STARTS = 11


def main() -> None:
    args = _arguments()
    print("## Reading\n\n```sh\n.venv/bin/python -m benchmarks.sources\n```\n")
    print(f"{os.cpu_count()} cores, CPython {sys.version.split()[0]}, other work beside it.\n")
    if not args.only:
        asyncio.run(starting())
        asyncio.run(extracting(_pages(Path(args.pages))))
    asyncio.run(bombs(args.only))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[1])
    parser.add_argument("--pages", default=str(REAL_BLOG), help="a folder of pages as they are")
    parser.add_argument("--only", default="", help="only the bombs with this word in their name")
    return parser.parse_args()


# Starting


async def starting() -> None:
    """From nothing to the first answer; a feed needs feedparser, a page trafilatura."""
    bare = [_bare_s() for _ in range(STARTS)]
    feeds = [await _first_s("feed") for _ in range(STARTS)]
    pages = [await _first_s("page") for _ in range(STARTS)]
    print("| from start to, median of", STARTS, "| time |\n|---|---:|")
    print(f"| `python -I -c pass`, the yardstick | {_ms(bare)} |")
    print(f"| the first feed's answer | {_ms(feeds)} |")
    print(f"| the first page's answer | {_ms(pages)} |\n")


def _bare_s() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
    return time.perf_counter() - started


async def _first_s(kind: Kind) -> float:
    started = time.perf_counter()
    parser = Confined.started()
    await (feed(parser) if kind == "feed" else page(parser))
    taken = time.perf_counter() - started
    await parser.close()
    return taken


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ms"


# Extracting


def _pages(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("*.html"))]


async def extracting(bodies: list[bytes]) -> None:
    """Pages a second, here and in the process, taking turns."""
    if not bodies:
        print("NOT RUN: there are no pages to extract.\n")
        return
    parser = Confined()
    here, apart = [], []
    # What is imported with the first page is counted elsewhere.
    for each in (Unconfined(), parser):
        await page(each)
    for _ in range(ROUNDS):
        here.append(await _rate(Unconfined(), bodies))
        apart.append(await _rate(parser, bodies))
    peak_mb = peak_bytes(pid(parser)) / 1e6
    await parser.close()
    ratios = [a / b for a, b in zip(apart, here, strict=True)]
    size_kb = sum(map(len, bodies)) / len(bodies) / 1e3
    print("| pages a second | on the spot | in the process | ratio | its peak memory |")
    print("|---|---:|---:|---:|---:|")
    print(
        f"| {len(bodies)} pages of {size_kb:.0f} kB, median of {ROUNDS} rounds"
        f" | {statistics.median(here):.1f} | {statistics.median(apart):.1f}"
        f" | {statistics.median(ratios):.2f} | {peak_mb:.0f} MB |\n"
    )


async def _rate(parser: Parser, bodies: list[bytes]) -> float:
    started = time.perf_counter()
    for body in bodies:
        await page(parser, body)
    return len(bodies) / (time.perf_counter() - started)


# Bombs


async def bombs(only: str) -> None:
    """Each bomb's time, the process's peak memory, what came of it, and who was read after it."""
    print(f"Limits: {DATA_BYTES_MAX // 10**6} MB of data, {CPU_S_MAX} s of computing.\n")
    print("| bomb | as a | size | time | peak | outcome | read after it |")
    print("|---|---|---:|---:|---:|---|---|")
    worst = Watch()
    for name, (kind, make) in (BOMBS | {"name spaces at every level": ENDLESS}).items():
        if only not in name:
            continue
        body = make()
        parser = Confined()
        await feed(parser)
        found = await watched(parser, kind, body)
        after = await _honest(parser)
        await parser.close()
        print(
            f"| {name} | {kind} | {len(body) / 1e6:.1f} MB | {found.seconds:.1f} s"
            f" | {found.peak_bytes / 1e6:.0f} MB | {found.outcome} | {after} |",
            flush=True,
        )
        worst.seconds = max(worst.seconds, found.seconds)
        worst.peak_bytes = max(worst.peak_bytes, found.peak_bytes)
    print("\n| worst | found | wanted |\n|---|---:|---:|")
    print(f"| time | {worst.seconds:.1f} s | 30 s |")
    print(f"| peak memory | {worst.peak_bytes / 1e6:.0f} MB | 256 MB |")


async def _honest(parser: Parser) -> str:
    """Whether an honest feed and an honest page are read now."""
    items = (await feed(parser)).items
    text = (await page(parser)).text
    return "feed and page" if items and text else "NOT READ"


if __name__ == "__main__":
    main()
