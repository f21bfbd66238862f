"""
What a destination is to us.

Publishing is three steps, so that a crash between any two is harmless: the caller asks for an
`Intent` and stores it, then has it published, then stores the `Receipt`. Publishing the same
intent again must never make a second post.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Post:
    """
    An article ready to go out.

    Args:
        run: the run it came from; also in the visible closing line of `markdown`.
        markdown: the body, without title, without raw HTML.
        at: when it goes out, aware, UTC.
        language: a BCP 47 tag.
    """

    run: str
    title: str
    description: str
    tags: tuple[str, ...]
    markdown: str
    at: datetime
    language: str


@dataclass(frozen=True, slots=True)
class Intent:
    """Exactly what will be sent, and the key under which it can be found again."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the post is."""

    url: str | None
    remote_id: str


class Publisher(Protocol):
    """A destination."""

    @property
    def name(self) -> str:
        """The word in PENSTOCK_PUBLISHERS."""

    @property
    def public(self) -> bool:
        """Whether strangers can read what is published there."""

    def intend(self, post: Post) -> Intent:
        """Fix the bytes and the key. Sends nothing and changes nothing."""

    async def publish(self, intent: Intent) -> Receipt:
        """
        Carry the intent out; repeating it changes nothing.

        Raises:
            Transient, Rejected, OutcomeUnknown: see `publishers.errors`.
        """

    async def find(self, intent: Intent) -> Receipt | None:
        """The receipt of an intent that was carried out, or None. Reads only."""
