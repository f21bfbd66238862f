"""`penstock completion`: the words of every command, for bash (and zsh, by its bashcompinit)."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterator

from daemon import cli
from daemon.cli.exits import Exit

_SCRIPT = """\
# bash completion of penstock, written by `penstock completion`
_penstock() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" path="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $each == -* ]] || path="$path $each"
    done
    case "${{path# }}" in
{cases}
    *) COMPREPLY=() ;;
    esac
    [[ $word == */* || $word == .* ]] && COMPREPLY=($(compgen -f -- "$word"))
    return 0
}}
complete -o default -F _penstock penstock
"""


def run(args: Namespace) -> int:
    """Print it: `penstock completion > /etc/bash_completion.d/penstock`."""
    print(text(), end="")
    return Exit.DONE


def text() -> str:
    """The script, from the very parser that reads the words."""
    # What stands behind a command's own words, such as a run's id, leaves its options.
    cases = []
    for path, words, nested in sorted(_commands(cli.parser(), ""), key=lambda c: -len(c[0])):
        offered = f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word"))'
        within = "" if nested else f'|"{path} "*'
        cases.append(f'    "{path}"{within}) {offered} ;;')
    return _SCRIPT.format(cases="\n".join(cases))


def _commands(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str], bool]]:
    """Each command with its words, and whether further commands are among them."""
    words: list[str] = []
    nested = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            nested = True
            for name, below in action.choices.items():
                words.append(name)
                yield from _commands(below, f"{path} {name}".strip())
        else:
            words += [option for option in action.option_strings if option.startswith("--")]
    yield path, sorted(words), nested
