"""Whom we trust, for every HTTPS client alike."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def context() -> ssl.SSLContext:
    """
    The usual authorities, and nothing that the environment names.

    One for all clients: making it takes longer than a client's every other part together.
    """
    return httpx.create_ssl_context(trust_env=False)
