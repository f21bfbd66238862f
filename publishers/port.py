"""
What a destination is to us.

Publishing is three steps, so that a crash between any two is harmless: the caller asks for an
`Intent` and stores it, then has it published, then stores the `Receipt`. Publishing the same
intent again must never make a second post.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias, runtime_checkable

# What can be counted of readers, in the singular.
METRICS = ("view", "reaction", "comment", "like", "repost", "reply", "quote")

Note: TypeAlias = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Post:
    """
    An article ready to go out.

    Args:
        run: the run it came from; also in the visible closing line of `markdown`.
        markdown: the body, without title, without raw HTML.
        at: when it goes out, aware, UTC.
        begun: when its run began, aware, UTC: the same however often its intent is made, as after
            the journal was restored from a backup; None where nobody knows.
        language: a BCP 47 tag.
        canonical_url: the one address of the article that counts where it is in several places,
            http or https; None where the destination's own is as good as any.
        card: a picture for the cards that links become, as PNG, less than 1,000,000 bytes; it
            shows the title, so it is no illustration within the article. None for no picture.
        reading_minutes: whole, rounded up; 0 where nobody measured.
        link: where readers find the article, for a destination that announces it; None where it
            has no public address.
        announcement: the words of such a destination, one post each; several make a thread.
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
    link: str | None = None
    announcement: tuple[str, ...] = ()
    begun: datetime | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """
    Exactly what will be sent, and the key under which it can be found again.

    Args:
        payload: UTF-8 text, since that is how it is stored; a picture in it is base64.
        noted: what `publish` last noted while it carried this intent out, such as the id of a
            draft; None where it noted nothing.
    """

    key: str
    payload: bytes
    noted: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    Where the post is.

    Args:
        whole: False where `find` sees that a part of it is still to be published, such as the rest
            of a thread.
    """

    url: str | None
    remote_id: str
    whole: bool = True


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

    async def publish(self, intent: Intent, note: Note) -> Receipt:
        """
        Carry the intent out; repeating it changes nothing.

        Args:
            note: stores a short text durably before it returns; the next call finds it as
                `intent.noted`, after a crash as well.
        Raises:
            Transient, Barred: nothing new went out, or not all of it; publishing again goes on.
                What an earlier attempt left unknown is as unknown as before.
            Rejected: nothing of it is out, or will ever be, for what the post is.
            OutcomeUnknown: it may be out.
        """

    async def find(self, intent: Intent) -> Receipt | None:
        """
        The receipt of an intent that was carried out, or None. Reads only.

        What the run's intent made in an earlier life, and the journal has forgotten, counts too.

        Raises:
            Transient, Barred: it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Engagement:
    """
    What readers have done with a post so far.

    Args:
        counts: by metric, as in METRICS.
        gone: whether it was taken down or deleted at the destination.
    """

    remote_id: str
    counts: Mapping[str, int] = field(default_factory=dict)
    gone: bool = False


@runtime_checkable
class Engaging(Protocol):
    """A destination that counts what readers do."""

    async def engagement(self, receipts: Sequence[Receipt]) -> Sequence[Engagement]:
        """
        The counts of these posts, as far as they could be read now; reads only.

        Raises:
            Transient, Barred: none could be read.
        """


@runtime_checkable
class Withdrawing(Protocol):
    """A destination from which a post can be taken back."""

    async def withdraw(self, receipt: Receipt, reason: str) -> None:
        """
        Take a post back; repeating it, or taking back what is gone, changes nothing.

        Raises:
            Transient, Barred: it is still there, or a part of it.
            Rejected: it is none of this destination's.
            OutcomeUnknown: it may be gone.
        """


@runtime_checkable
class Discarding(Protocol):
    """A destination where an intent that was cut short may leave something to be seen."""

    async def discard(self, intent: Intent) -> None:
        """
        Remove what `publish` left of an intent that `find` does not find; repeatable.

        Raises:
            Transient
        """


@runtime_checkable
class Announcing(Protocol):
    """A destination that says that there is an article, and links to it elsewhere."""

    announces: bool


@runtime_checkable
class Hosting(Protocol):
    """A destination that knows where a post will be before it is there."""

    def address(self, post: Post) -> str | None:
        """The public address of the article; None where it will have none."""

    def picture(self, post: Post) -> str | None:
        """The public address of its card; None where it will have none."""
