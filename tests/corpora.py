"""What other people made, beside the clone: where it is missing, a test says what was not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
REAL_BLOG = SHARED / "realweb"
FEEDS = SHARED / "corpora" / "feedparser-tests"
ATTACKS = SHARED / "corpora" / "bipia" / "benchmark"
NAUGHTY = SHARED / "corpora" / "naughty-strings" / "blns.json"


def naughty_strings() -> list[str]:
    if not NAUGHTY.is_file():
        pytest.skip(f"NOT RUN: {NAUGHTY} is not here, so no naughty string was tried")
    found: list[str] = json.loads(NAUGHTY.read_text(encoding="utf-8"))
    assert len(found) > 500
    return found
