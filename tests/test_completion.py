"""What bash offers after `penstock`."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from daemon.cli import completion

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="NOT RUN: there is no bash")


def offered(*words: str) -> set[str]:
    """What Tab offers with the last word begun."""
    typed = " ".join(f"'{word}'" for word in ("penstock", *words))
    script = (
        f"{completion.text()}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}; _penstock\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("led",), {"ledger"}),
        (("ledger", ""), {"balance", "check", "deposit"}),
        (("ledger", "dep"), {"deposit"}),
        (("ledger", "deposit", "5", "--r"), {"--ref"}),
        (("drafts", "reject", "r1", "--"), {"--reason", "--json", "--env-file"}),
        (("once", "--dry"), {"--dry-run"}),
        (("--ver",), {"--version"}),
    ],
)
def test_the_words_of_commands_are_offered(words: tuple[str, ...], some: set[str]) -> None:
    assert some <= offered(*words)


def test_what_does_not_begin_so_is_not_offered() -> None:
    assert offered("ledger", "dep") == {"deposit"}
    assert offered("nothing", "") == set()
