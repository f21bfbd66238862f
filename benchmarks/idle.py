"""
What the daemon costs while it has nothing to do: memory, computing time and wake-ups.

    python -m benchmarks.idle [--seconds 60]

The real command, under something that listens as systemd does with a watchdog of a minute: with
the outbox alone, and with Bluesky, whose SDK is imported beforehand, as it is from the first
request on. The parser is the process that strangers' bytes pass through.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cli_helpers import EXAMPLE_FEEDS, PENSTOCK

STARTING_S = 8
NEVER = "0 4 1 1 *"
QUIET = {
    "PENSTOCK_FEEDS": str(EXAMPLE_FEEDS / "millrace.xml"), "PENSTOCK_FRESH_DAYS": "36500",
    "PENSTOCK_PUBLISH_CRON": NEVER, "PENSTOCK_COLLECT_CRON": NEVER, "PENSTOCK_FEED_CRON": NEVER,
}  # fmt: skip
# What publishers/bluesky imports with its first request and its first login.
WITH_SDK = (
    "import atproto_client.client.async_raw, atproto_client.request, atproto_core.did_doc\n"
    "from daemon.__main__ import main; main()"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle")
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    print("| daemon | memory | parser | computing a minute | wake-ups a minute |")
    print("|---|---|---|---|---|")
    print(measured("outbox", [PENSTOCK], {}, seconds))
    bluesky = {
        "PENSTOCK_PUBLISHERS": "outbox,bluesky", "BLUESKY_HANDLE": "author.test",
        "BLUESKY_APP_PASSWORD": "abcd-efgh-ijkl-mnop",
    }  # fmt: skip
    print(measured("and Bluesky", [sys.executable, "-c", WITH_SDK], bluesky, seconds))


def measured(name: str, command: Sequence[str], settings: Mapping[str, str], seconds: int) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, 2) as listener:
        listener.bind(f"\0penstock-idle-{os.getpid()}-{name}")
        env = {
            "PATH": os.environ["PATH"], "HOME": folder, "PENSTOCK_STATE_DIR": f"{folder}/state",
            "NOTIFY_SOCKET": f"@penstock-idle-{os.getpid()}-{name}",
            "WATCHDOG_USEC": "60000000", **QUIET, **settings,
        }  # fmt: skip
        process = subprocess.Popen([*command, "run"], env=env, stderr=subprocess.DEVNULL)
        try:
            time.sleep(STARTING_S)
            before = _computed_ms(process.pid), _woken(process.pid)
            time.sleep(seconds)
            computed = (_computed_ms(process.pid) - before[0]) * 60 / seconds
            woken = (_woken(process.pid) - before[1]) * 60 / seconds
            if process.poll() is not None:
                sys.exit(f"the daemon ended with {process.returncode}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            parser = sum(_resident_mb(int(child)) for child in children)
            memory = _resident_mb(process.pid)
        finally:
            process.terminate()
            process.wait()
    return f"| {name} | {memory} MB | {parser} MB | {computed:.0f} ms | {woken:.0f} |"


def _resident_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def _computed_ms(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")


def _woken(pid: int) -> int:
    """Of every thread: each voluntary switch is a wait that ended."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(
        int(task.read_text().split("voluntary_ctxt_switches:")[1].split()[0]) for task in tasks
    )


if __name__ == "__main__":
    main()
