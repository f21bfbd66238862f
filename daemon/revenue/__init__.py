"""
Revenue that is real money, booked once by the name its source gave it.

    port      what a source is, and how it fails
    booking   since when a source counts, and what it received into the books
    stripe    Stripe's balance transactions

docs/revenue.md says how the next one is added.
"""

from daemon.revenue.booking import Collected, book, collect
from daemon.revenue.port import Received, RevenueSource, SourceBarred, SourceError

__all__ = [
    "Collected",
    "Received",
    "RevenueSource",
    "SourceBarred",
    "SourceError",
    "book",
    "collect",
]
