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
    ("words", "all_of_them"),
    [
        (("led",), {"ledger"}),
        (("drafts", "re"), {"reject"}),
        (("ledger", "deposit", "5", "--r"), {"--ref"}),
        (("drafts", "reject", "r1", "--"), {"--reason", "--json", "--env-file", "--help"}),
        (("once", "--dry"), {"--dry-run"}),
        (("--ver",), {"--version"}),
        (("nothing", ""), set()),
        # A command whose name begins with another's is not that one.
        (("runs", "nothing", "--"), set()),
        (("oncemore", "--"), set()),
    ],
)
def test_the_words_that_can_stand_there_are_offered(
    words: tuple[str, ...], all_of_them: set[str]
) -> None:
    assert offered(*words) == all_of_them


def test_a_group_is_followed_by_its_commands() -> None:
    assert offered("ledger", "") >= {"balance", "check", "deposit"}
