"""What several files begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import NotToBeHad, built


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faults before libc, compiled; where that cannot be, it is said."""
    try:
        return built(tmp_path_factory.mktemp("faults"))
    except NotToBeHad as problem:
        pytest.skip(f"NOT RUN: {problem}")
