"""
Destinations.

    port     what a destination is: Post in, Intent, Receipt out
    errors   Transient, Rejected, OutcomeUnknown
    clock    what a destination is told of time
    outbox   Markdown, HTML and an Atom feed in a folder
    devto    Dev.to, draft first; not yet to be chosen in the settings
    bluesky  Bluesky, through parts of its SDK; likewise

Imports nothing else of ours. A new destination is one file and one line in `daemon.app`.
"""

from publishers.port import (
    Announcing,
    Engagement,
    Engaging,
    Intent,
    Note,
    Post,
    Publisher,
    Receipt,
    Withdrawing,
)

__all__ = [
    "Announcing",
    "Engagement",
    "Engaging",
    "Intent",
    "Note",
    "Post",
    "Publisher",
    "Receipt",
    "Withdrawing",
]
