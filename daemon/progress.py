"""Telling whoever watches what a run is doing. The cycle speaks to this port and no terminal."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somebody who watches."""

    def step(self, run: str, name: str, state: str, detail: str = "") -> None:
        """A step began (`running`), ended (`done`, `failed`), or was done before (`kept`)."""

    def note(self, run: str, line: str) -> None:
        """Something worth a line."""
