"""
Bluesky: a post, or a thread of them, that says that there is an article.

    publisher   the destination itself: publish, find, count, withdraw
    records     pure: a post's texts as records, their keys and their content ids
    session     one account: its session file, its rare logins, its requests
    xrpc        one request through the SDK, and what became of it

The `atproto` SDK costs half a second and some 25 MB, so it is imported with the first request, by
`session` and `xrpc` only, within functions.
"""

from publishers.bluesky.publisher import Bluesky

__all__ = ["Bluesky"]
