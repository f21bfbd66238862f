"""
The ladder of models each role climbs down when money or a provider runs short.

Values only. A rung is one model at one provider, or the digest, which needs no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

DIGEST = "digest"


class Role(StrEnum):
    """Who a model is asked to be; each has a ladder of its own."""

    RESEARCH = "research"
    WRITE = "write"
    EDIT = "edit"


class Tier(StrEnum):
    """How richly the governor lets a run be made, best first."""

    SURPLUS = "surplus"
    STANDARD = "standard"
    ECONOMY = "economy"
    THROTTLED = "throttled"
    DORMANT = "dormant"


@dataclass(frozen=True, slots=True)
class Rung:
    """One model at one provider."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Ladder:
    """
    The rungs of one role, best first.

    `ends_in_digest` says that below the last paid rung the whole run becomes a digest instead
    of failing. A ladder without paid rungs is a digest from the start.
    """

    paid: tuple[Rung, ...] = ()
    ends_in_digest: bool = True

    def start(self, tier: Tier) -> int:
        """The index of the paid rung that a tier begins on, clamped to what there is."""
        wanted = {Tier.ECONOMY: 1, Tier.THROTTLED: len(self.paid) - 1}.get(tier, 0)
        return max(0, min(wanted, len(self.paid) - 1))

    def from_tier(self, tier: Tier) -> Sequence[Rung]:
        """The paid rungs that a tier may use, in the order they are tried."""
        return () if tier is Tier.DORMANT else self.paid[self.start(tier) :]


def parse_rung(text: str) -> Rung:
    """
    Read `provider/model`; the first slash ends the provider's name.

    Raises:
        ValueError: one of the two is missing.
    """
    provider, slash, model = text.strip().partition("/")
    if not (provider and slash and model) or re.search(r"[\s;]", text.strip()):
        raise ValueError(f"{text.strip()!r} is not provider/model")
    return Rung(provider.lower(), model)


def parse_ladder(text: str) -> Ladder:
    """
    Read `llm/best > llm/cheaper > digest`.

    Raises:
        ValueError: an empty rung, or `digest` anywhere but last.
    """
    names = [name.strip() for name in text.split(">")]
    ends_in_digest = names[-1] == DIGEST
    paid = names[:-1] if ends_in_digest else names
    if DIGEST in paid:
        raise ValueError("`digest` can only be the last rung")
    return Ladder(tuple(parse_rung(name) for name in paid), ends_in_digest)
