"""
What a destination can answer instead of a receipt, grouped by what the caller does next.

    PublisherError
     ├─ Transient        try later
     ├─ Rejected         this post will never pass: let go
     └─ OutcomeUnknown   it may be live: look before repeating
"""

from __future__ import annotations


class PublisherError(Exception):
    """Base of everything a publisher raises."""


class Transient(PublisherError):
    """Not now. `retry_after_s` is the destination's own word, None where it gave none."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Rejected(PublisherError):
    """The destination will not take this post, now or later; the message says why."""


class OutcomeUnknown(PublisherError):
    """The request may have taken effect; `key` finds what it made."""

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(reason)
        self.key = key
