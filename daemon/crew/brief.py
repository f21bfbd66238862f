"""What the publication is: the operator's words, handed to the crew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Brief:
    """The niche as phrases, whom it is for, how it sounds, and how long an article is."""

    niche: tuple[str, ...]
    audience: str
    voice: str
    language: str
    words_min: int
    words_max: int

    @property
    def publication(self) -> str:
        """What the publication is called: the first of its subjects."""
        return self.niche[0][:1].upper() + self.niche[0][1:] if self.niche else "Penstock"
