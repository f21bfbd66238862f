"""Arrows point one way, and only the shell has a clock. Read from the source, not from memory."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("daemon", "ledger", "publishers")

# Who may import whom. A name stands for itself and everything below it.
FORBIDDEN = {
    "ledger": ("daemon", "publishers"),
    "publishers": ("daemon", "ledger"),
    "daemon.sources": ("daemon.crew", "daemon.desk", "daemon.inference", "publishers"),
    "daemon.inference": ("daemon.crew", "daemon.desk", "daemon.sources", "publishers"),
    "daemon.desk": ("daemon.crew", "daemon.inference", "publishers", "ledger"),
    "daemon.crew": ("daemon.journal", "publishers", "ledger"),
}
# The parts know nothing of what directs them.
DIRECTORS = (
    "daemon.cycle", "daemon.newsroom", "daemon.press", "daemon.steps", "daemon.app", "daemon.cli",
    "daemon.settings", "daemon.journal",
)  # fmt: skip
PARTS = ("daemon.sources", "daemon.inference", "daemon.desk", "daemon.crew")
# Pure: no database, no socket, no time of their own.
PURE = (
    "daemon.governor", "daemon.cadence", "daemon.estimate", "daemon.crew", "daemon.desk",
    "daemon.sources.parse", "ledger.rules", "ledger.money",
)  # fmt: skip
CONCRETE = (
    "publishers.outbox", "publishers.devto", "publishers.bluesky", "daemon.inference.chat",
)  # fmt: skip
# What every command may load; the rest of what we depend on is imported where it is used.
LIGHT = ("apscheduler", "httpx", "pydantic", "regex", "sqlalchemy", "sqlmodel")


def modules() -> Iterator[tuple[str, Path]]:
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if "versions" not in parts:
                yield name, path


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Every module a file imports; with `top_level` only what importing it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path} imports from where it is"
            assert node.level == 0, f"{path} imports from where it is"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def arrows(package: str) -> list[tuple[str, str]]:
    """Who imports what in a package; a name that stands for nothing would forbid nothing."""
    found = [
        (name, imported)
        for name, path in modules()
        if below(name, package)
        for imported in imports(path)
    ]
    assert found, f"there is no {package}"
    return found


@pytest.mark.parametrize(("package", "strangers"), FORBIDDEN.items())
def test_arrows_point_one_way(package: str, strangers: tuple[str, ...]) -> None:
    for name, imported in arrows(package):
        assert not any(below(imported, s) for s in strangers), f"{name} imports {imported}"


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_do_not_know_what_directs_them(part: str) -> None:
    for name, imported in arrows(part):
        assert not any(below(imported, d) for d in DIRECTORS), f"{name} imports {imported}"


@pytest.mark.parametrize("package", PURE)
def test_the_core_decides_without_a_database_a_socket_or_a_clock(package: str) -> None:
    outside = ("sqlalchemy", "sqlmodel", "sqlite3", "httpx", "socket", "asyncio", "time", "os")
    for name, imported in arrows(package):
        assert not any(below(imported, o) for o in outside), f"{name} imports {imported}"


def test_every_name_that_must_not_be_imported_is_one() -> None:
    ours = dict(modules())
    strangers = {name for names in FORBIDDEN.values() for name in names}
    assert [name for name in (*strangers, *DIRECTORS, *CONCRETE) if name not in ours] == []


def test_only_the_clock_asks_what_time_it_is() -> None:
    """Whether it calls, or hands on what would."""
    for name, path in modules():
        if name == "daemon.clock":
            continue
        clocks = ("time", "asyncio.sleep")
        assert not any(below(i, clock) for i in imports(path) for clock in clocks), name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value).rpartition(".")[2]
                asks = owner in ("datetime", "date") and node.attr in ("now", "utcnow", "today")
                assert not asks, f"{name} has {ast.unparse(node)}"
                assert (owner, node.attr) != ("asyncio", "sleep"), name


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    for name, path in modules():
        # Alembic loads the one, and pytest the other.
        if not below(name, "daemon.migrations") and name != "publishers.testing":
            roots = {imported.partition(".")[0] for imported in imports(path, top_level=True)}
            assert roots <= {*sys.stdlib_module_names, *OURS, *LIGHT}, name


def test_concrete_destinations_and_models_are_named_in_one_place() -> None:
    for name, path in modules():
        if name == "daemon.app" or any(below(name, concrete) for concrete in CONCRETE):
            continue
        for imported in imports(path):
            assert not any(below(imported, concrete) for concrete in CONCRETE), name


def test_the_lock_file_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "--hash=sha256:" in text
    assert not any(mark in text for mark in ("://", "index-url", "find-links", " @ "))
