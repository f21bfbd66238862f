"""
What a destination is to us.

Publishing is three steps, so that a crash between any two is harmless: the caller asks for an
`Intent` and stores it, then has it published, then stores the `Receipt`. Publishing the same
intent again must never make a second post.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
        canonical_url: the one address of the article that counts where it is in several places,
            http or https; None where the destination's own is as good as any.
        card: a picture for the cards that links become, as PNG, less than 1,000,000 bytes; it
            shows the title, so it is no illustration within the article. None for no picture.
        reading_minutes: whole, rounded up; 0 where nobody measured.
    """

    run: str
    title: str
    description: str
    tags: tuple[str, ...]
    markdown: str
    at: datetime
    language: str
    canonical_url: str | None = None
    card: bytes | None = field(default=None, repr=False)
    reading_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Intent:
    """
    Exactly what will be sent, and the key under which it can be found again.

    Args:
        payload: UTF-8 text, since that is how it is stored; a picture in it is base64.
    """

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
