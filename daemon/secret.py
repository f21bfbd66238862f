"""A value that does not print."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """A key or password; only `reveal` gives it away."""

    _value: str = field(default="", repr=False)

    def reveal(self) -> str:
        """The secret itself, for the wire and nothing else."""
        return self._value

    def __str__(self) -> str:
        return "***" if self._value else "(not set)"

    def __bool__(self) -> bool:
        return bool(self._value)
