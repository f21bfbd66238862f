"""Whom we trust, for every HTTPS client alike."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx


@cache
def context() -> ssl.SSLContext:
    """
    The usual authorities, and nothing that the environment names.

    One for all clients: making it takes longer than a client's every other part together.
    """
    return httpx.create_ssl_context(trust_env=False)


def client(
    transport: httpx.AsyncBaseTransport | None, headers: Mapping[str, str], **others: Any
) -> httpx.AsyncClient:
    """
    A client that asks whom it was told to ask, and nobody else.

    Args:
        transport: how bytes travel; None for real sockets.
        others: as httpx.AsyncClient takes them.
    """
    return httpx.AsyncClient(
        transport=transport,
        verify=context(),
        headers=headers,
        # No proxies or netrc from the environment: nobody named them.
        trust_env=False,
        # A key goes where the operator said, and nowhere that an answer points to.
        follow_redirects=False,
        **others,
    )
