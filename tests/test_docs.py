"""What the documents tell an operator to type, to set and to read is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from daemon import alerts, drafts, lookout, press, reference, service
from daemon.alerts import Kind
from daemon.cli import parser
from daemon.cli.exits import Exit
from daemon.options import OPTIONS, Option

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")

# Words that end a command within a line of a shell.
_BETWEEN = {"&&", "||", ";", "|", "&", "(", ")"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_CRON_LINE = re.compile(r"(?:[\d*/,-]+ ){5}\w+ (?=/)")
_SETTING = re.compile(r"\b(?:PENSTOCK|DEVTO|BLUESKY|STRIPE)_[A-Z][A-Z0-9_]*")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return _FENCE.sub("", text_of(path))


def name_of(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else str(path)


# Commands


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of ours in a line of a shell, without the program's name."""
    lexer = shlex.shlex(_CRON_LINE.sub("", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _BETWEEN:
            command.append(word)
            continue
        if ours := _without_what_is_before(command):
            yield ours[1:]
        command = []


def _without_what_is_before(command: list[str]) -> list[str]:
    """From the name of our program on; nothing where the command is somebody else's."""
    redirected = (n for n, word in enumerate(command) if set(word) <= set("<>"))
    words = command[: next(redirected, len(command))]
    while words and (words[0] in ("sudo", "env") or _ASSIGNMENT.match(words[0])):
        words = words[1:]
        while words and words[0] == "-u":
            words = words[2:]
    return words if words and words[0].rpartition("/")[2] == "penstock" else []


def typed(path: Path) -> Iterator[str]:
    """Lines that an operator types: those of shell blocks, whole."""
    for language, block in _FENCE.findall(text_of(path)):
        if language in ("sh", ""):
            yield from block.replace("\\\n", " ").splitlines()


def in_blocks(path: Path) -> list[str]:
    return [shlex.join(words) for line in typed(path) for words in commands(line)]


def in_prose(path: Path) -> list[str]:
    """Commands that are named in passing, with more than the name of a group."""
    found = re.findall(r"`([^`\n]*\bpenstock [^`\n]*)`", prose(path))
    return [shlex.join(words) for line in found for words in commands(line)]


TYPED = [(path, call) for path in DOCS for call in in_blocks(path)]
NAMED = sorted({call for path in DOCS for call in in_prose(path)})


def test_commands_are_found_however_a_shell_lets_them_be_written() -> None:
    line = "X=1 .venv/bin/penstock status # why\n"
    assert list(commands(line)) == [["status"]]
    assert list(
        commands("15 3 * * * penstock /opt/penstock/bin/penstock backup /b/ >/dev/null && x")
    ) == [["backup", "/b/"]]
    assert list(commands("a | sudo -u penstock penstock run; sudo env A=b penstock once")) == [
        ["run"], ["once"],
    ]  # fmt: skip
    assert list(commands("systemctl stop penstock && install -o penstock -g penstock x")) == []
    assert len(TYPED) > 60
    assert len(NAMED) > 30


@pytest.mark.parametrize(("path", "call"), TYPED, ids=name_of)
def test_every_command_in_a_block_can_be_typed(path: Path, call: str) -> None:
    assert parser().parse_args(shlex.split(call)).command


@pytest.mark.parametrize("call", NAMED)
def test_every_command_named_in_passing_exists(call: str) -> None:
    words = shlex.split(call)
    said = ""
    try:
        parser().parse_args(words)
    except Exception as error:
        said = str(error)
    # It may be named without the words it wants, not by a name that is unknown.
    assert re.search(r"^$|\brequired\b|\bexpected\b", said)


# Settings


# What our own tests read, and the program does not.
OF_THE_TESTS = {"PENSTOCK_LONG"}


def is_setting(name: str) -> bool:
    """Whether it is one, or of a family of which one is for each provider or plug-in."""
    secrets = {f"{option.name}_FILE" for option in OPTIONS if option.secret}
    of_provider = r"PENSTOCK_PROVIDER_[A-Z0-9_]+_(URL|KEY|KEY_FILE|USAGE)"
    of_plugin = r"PENSTOCK_PUBLISHER_[A-Z0-9_]+"
    return (
        name in OF_THE_TESTS
        or name in {option.name for option in OPTIONS} | secrets
        or re.fullmatch(f"{of_provider}|{of_plugin}", name) is not None
    )


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    assert [name for name in _SETTING.findall(text_of(path)) if not is_setting(name)] == []


def test_the_reference_is_the_one_the_settings_write() -> None:
    assert text_of(ROOT / "docs" / "settings.md") == reference.text()


def test_the_reference_has_every_setting_once_in_their_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", reference.text(), re.MULTILINE)
    names = [option.name for option in OPTIONS]
    assert [name for name in rows if name in names] == names


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_reference_says_default_meaning_and_whether_it_is_secret(option: Option) -> None:
    (row,) = re.findall(rf"^\| `{option.name}` \|.*", reference.text(), re.MULTILINE)
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells[1].strip("`") == option.default.replace("|", r"\|")
    assert (cells[2] == "secret") is option.secret
    assert cells[3] == option.meaning.replace("|", r"\|")


# Links


def headings(path: Path) -> set[str]:
    """Anchors, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [*DOCS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(path)):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", [*DOCS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_every_document_that_is_named_is_there(path: Path) -> None:
    named = re.findall(r"\bdocs/[\w-]+\.md\b", text_of(path))
    assert [name for name in named if not (ROOT / name).is_file()] == []


# The tables of operating.md


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of operating.md."""
    section = OPERATING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_kind_of_alert_is_explained_once_with_what_to_do() -> None:
    rows = table("Alerts")
    assert [row[0].strip("`") for row in rows] == list(Kind)
    assert all(means and do for _, means, do in rows)


@pytest.mark.parametrize(("kind", "means"), [row[:2] for row in table("Alerts")])
def test_what_happened_and_is_over_is_marked_as_an_event(kind: str, means: str) -> None:
    assert means.startswith("event: ") is Kind(kind.strip("`")).of_event


def test_every_exit_code_is_explained_once_by_its_name() -> None:
    found = [(int(row[0]), row[1]) for row in table("Exit codes")]
    assert found == [(code.value, code.name.lower().replace("_", " ")) for code in Exit]


def test_every_symptom_has_a_reason() -> None:
    rows = table("Troubleshooting")
    assert len(rows) >= 15
    assert all(len(row) == 3 and row[0] and row[1] for row in rows)


@pytest.mark.parametrize(
    "said",
    [
        f"had no address within {press.LAPSES_AFTER // timedelta(hours=1)} hours lapses",
        f"nobody approves within {drafts.STANDS.days} days expires",
        f"stands for {alerts.EVENT_STANDS.days} days",
        f"unknown outcome for {lookout.UNCONFIRMED_AFTER // timedelta(hours=1)} hours",
        f"less than {lookout.DISK_BYTES_MIN // 2**20} MB are left",
        f"work in hand has {service.GRACE_S:.0f} seconds",
    ],
)
def test_the_figures_of_the_guide_are_those_of_the_code(said: str) -> None:
    assert said in OPERATING
