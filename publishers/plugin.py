"""What a destination from elsewhere is given when it is made; `docs/publishers.md` is its guide."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from publishers.clock import Clock


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What a plug-in may use.

    Args:
        clock: the only source of time.
        timeout_s: seconds for one whole answer of the destination (PENSTOCK_HTTP_TIMEOUT).
        state_dir: a folder of the plug-in's own that only Penstock may read, as for a session.
        publication: what the publication is called.
        tls: which certificates are trusted.
        settings: the plug-in's own, PENSTOCK_PUBLISHER_NAME_KEY as `key`. Secrets are among them,
            so they are not shown.
    """

    clock: Clock
    timeout_s: float
    state_dir: Path
    publication: str
    tls: ssl.SSLContext
    settings: Mapping[str, str] = field(repr=False)
