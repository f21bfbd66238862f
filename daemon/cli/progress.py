"""What a person sees while a run works: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from daemon import settings as settings_module
from daemon.app import Parts, World, opened_for_work, opened_parts
from daemon.cli import say
from daemon.cli.context import Context
from daemon.progress import Progress
from ledger import store
from ledger.database import Database
from ledger.money import MicroCredits

T = TypeVar("T")

_MARKS = {"running": "…", "done": "✓", "failed": "✗", "kept": "="}


@contextmanager
def watching() -> Iterator[Progress]:
    """The right view for where stderr goes."""
    if sys.stderr.isatty():
        # 53 ms that a log file has no use for.
        from rich.live import Live

        view = LiveView()
        with Live(
            get_renderable=view.render, transient=False, refresh_per_second=8, console=view.console
        ):
            yield view
    else:
        yield Lines()


def worked(context: Context, act: Callable[[Parts], Awaitable[T]]) -> tuple[T, MicroCredits]:
    """Do one piece of the daemon's own work, and say what is available afterwards."""
    settings_module.umask_private()
    # What a run needs (feeds, prices) is not needed to see to what is past.
    settings = context.settings(for_run=False, for_platforms=True)

    async def main(database: Database) -> T:
        with watching() as progress:
            async with opened_parts(settings, database, progress, World()) as parts:
                return await act(parts)

    with opened_for_work(context.location) as database:
        found = asyncio.run(main(database))
        with database.read() as tx:
            return found, store.balance(tx).available


class Lines:
    """One line per event, with the run's id, for logs."""

    def step(self, run: str, name: str, state: str, detail: str = "") -> None:
        """Say how a step stands."""
        if state != "running":
            # One line, whatever a provider's error says: a second one could pretend to be ours.
            told = " ".join(detail.split())
            say(f"{run} {name} {state}{f': {told}' if told else ''}")

    def note(self, run: str, line: str) -> None:
        """Say something."""
        say(f"{run} {' '.join(line.split())}")


class LiveView:
    """The steps of a run, redrawn as they change."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._run = ""
        self._notes: list[str] = []
        self._steps: dict[str, tuple[str, str]] = {}

    def step(self, run: str, name: str, state: str, detail: str = "") -> None:
        """Show how a step stands."""
        self._run = run
        self._steps[name] = (state, detail)

    def note(self, run: str, line: str) -> None:
        """Show a line above the steps."""
        self._run = run
        self._notes.append(line)

    def render(self) -> Any:
        """The picture."""
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_row("", Text(f"run {self._run}", style="bold"))
        for line in self._notes[-6:]:
            grid.add_row(Text("·", style="dim"), Text(line, style="dim"))
        # Rich draws from a thread of its own, while the run adds steps.
        for name, (state, detail) in list(self._steps.items()):
            running = state == "running"
            mark = Spinner("dots") if running else Text(_MARKS[state], style=_style(state))
            text = Text(name)
            if detail:
                text.append(f"  {detail[:100]}", style="dim")
            grid.add_row(mark, text)
        return grid


def _style(state: str) -> str:
    return {"done": "green", "failed": "red"}.get(state, "dim")
