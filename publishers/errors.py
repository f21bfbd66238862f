"""
What a destination can answer instead of a receipt, grouped by what the caller does next.

    PublisherError
     ├─ Transient        try later
     │   └─ Barred       not before a person acts: tell them, and try later all the same
     ├─ Rejected         this post will never pass: let go
     │   └─ Withdrawn    it was taken back before: it must not go anywhere else either
     └─ OutcomeUnknown   it may be live: look before repeating

Rejected is about the post alone. What is about us, a key or an account, is Barred: the same post
may pass once somebody has seen to it.
"""

from __future__ import annotations


class PublisherError(Exception):
    """Base of everything a publisher raises."""


class Transient(PublisherError):
    """
    Not now. `retry_after_s` is the destination's own word, None where it gave none.

    It says nothing of attempts before: what they left unknown stays so.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Barred(Transient):
    """
    Not now, and not before a person acts: a key, an account or an address is refused.

    The message says what happened, in the destination's words, and what to do, by the name of the
    setting where there is one. Asking again is harmless; `retry_after_s` is how long it would be
    answered without asking the destination, if it would.
    """


class Rejected(PublisherError):
    """The destination will not take this post, now or later; the message says why."""


class Withdrawn(Rejected):
    """
    The destination remembers that this run's article was taken back.

    Who asks has forgotten it, as a restored database has.
    """


class OutcomeUnknown(PublisherError):
    """The request may have taken effect; `key` finds what it made."""

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(reason)
        self.key = key
