"""
The commands. This file knows their words; each group's module is imported when it is called.

    exits     exit codes, in one place
    context   what every command starts from
    progress  the live view and the plain lines, and one piece of the daemon's work under them
    page      what `status` prints
    init, run, install, completion, doctor, once, collect, reconcile, status, report, simulate,
    ledger, runs, drafts, posts, withdraw, pause, backup
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TextIO, TypeAlias

from daemon import __version__

Command = Callable[["argparse.Namespace"], int]


def main(argv: Sequence[str]) -> int:
    """Run one command; every error becomes a message and an exit code, never a traceback."""
    _open_streams("--json" in argv)
    try:
        # Python hands over bytes that are no UTF-8 as lone surrogates, which nothing can store.
        " ".join(argv).encode()
    except UnicodeEncodeError:
        problem = "a word of this call is not UTF-8; write it in UTF-8"
        say(f"penstock: {problem}")
        if "--json" in argv:
            _print_document({"error": problem})
        return 2
    try:
        args = parser().parse_args(argv)
    except _WrongCall as error:
        say(error.usage + f"penstock: {error}")
        if "--json" in argv:
            _print_document({"error": str(error)})
        return 2
    try:
        code = int(args.command(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader went away in the middle of a page, as `head` does.
        _drop(sys.stdout)
        return 0
    except KeyboardInterrupt:
        say(f"penstock: {args.stopped}")
        if args.json:
            _print_document(args.failure(args.stopped))
        return 1
    except Exception as error:  # noqa: BLE001 - no traceback reaches an operator
        return _report(error, args)


def _open_streams(for_programs: bool) -> None:
    """Make sure that what is said can be written, whatever the shell made of our streams."""
    if sys.stdout is None or sys.stderr is None:
        # The shell closed one (`>&-`): a command must still do its work.
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as we live
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Failing to print a letter must not change what a run came to.
            stream.reconfigure(errors="backslashreplace")
    if for_programs:
        write_utf8()


def write_utf8() -> None:
    """What programs read is UTF-8, whatever letters the terminal has."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def say(line: str) -> None:
    """A line for whoever watches: never on stdout, where results go."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # Whoever watched went away, or their disk is full. The work goes on without them.
        _drop(sys.stderr)


def tell(text: str, *, end: str = "\n") -> None:
    """A result. Where its reader went away, as `head` does, what the command came to stands."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        _drop(sys.stdout)


def _drop(stream: TextIO) -> None:
    """Let what is still to be written go nowhere; else Python would complain at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(error: Exception, args: argparse.Namespace) -> int:
    from daemon.cli.exits import Exit, of_error

    code = of_error(error)
    message = str(error)
    if code is None:
        if _debugging(args):
            raise error
        code = Exit.FAILED
        message = (
            f"unexpected: {type(error).__name__}: {error} (PENSTOCK_LOG_LEVEL=debug shows where)"
        )
    say(f"penstock: {message}")
    if args.json:
        problems = [str(problem) for problem in getattr(error, "problems", [])] or [message]
        _print_document(args.failure(message) | {"problems": problems})
    try:
        sys.stdout.flush()
    except OSError:
        # A full disk under stdout is what was just reported.
        _drop(sys.stdout)
    return int(code)


def _print_document(document: Mapping[str, object]) -> None:
    """The one document that `--json` promises, whatever the exit code."""
    try:
        print(json.dumps(document, ensure_ascii=False, indent=2), flush=True)
    except OSError:
        # The code says it as well.
        _drop(sys.stdout)


def _debugging(args: argparse.Namespace) -> bool:
    """Whether the operator asked to see where an error comes from."""
    from daemon.cli.context import Context

    try:
        return Context(args).env.get("PENSTOCK_LOG_LEVEL", "").lower() == "debug"
    except Exception:  # noqa: BLE001 - this is asked while another error is being told
        return False


class _WrongCall(Exception):
    """The words do not make a call; `usage` says what would."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    """Leaves it to `run` what a wrong call prints, because of `--json`."""

    def error(self, message: str) -> NoReturn:
        raise _WrongCall(message, self.format_usage())


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def parser() -> argparse.ArgumentParser:
    """Every command with its words."""
    top = _Parser(prog="penstock", description="A self-funding content daemon.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    _add(commands, "init", _in("init"), "write a commented .env, make state folder and database")

    once = _add(commands, "once", _in("once"), "go on with an interrupted run, else make one now")
    once.add_argument("--topic", metavar="TEXT", help="what to write about")
    once.add_argument("--dry-run", action="store_true", help="stop before publishing and show it")
    once.set_defaults(failure=failed_once, stopped=_GOES_ON)

    status = _add(commands, "status", _in("status"), "balance, pace and why, next slots, last run")
    status.add_argument("--watch", action="store_true", help="redraw it until Ctrl-C")

    _add(commands, "run", _in("run"), "the daemon, in the foreground", json=False)
    install = _add(commands, "install-service", _in("install"), "put what systemd needs in place")
    install.add_argument("--name", metavar="NAME", help="a further publication on this machine")
    install.add_argument("--root", metavar="DIR", help="where, instead of /")
    install.add_argument("--dry-run", action="store_true", help="only say what it would do")
    _add(commands, "completion", _in("completion"), "the words of all this, for bash", json=False)
    _add(commands, "doctor", _in("doctor"), "what is wrong, and what to do")

    ledger = _group(commands, "ledger", "the books")
    _add(ledger, "balance", _in("ledger", "balance"), "what there is, per account")
    _add(ledger, "entries", _in("ledger", "entries"), "every entry", listing=True)
    _add(ledger, "attempts", _in("ledger", "list_attempts"), "requests to providers", listing=True)
    _add(ledger, "check", _in("ledger", "check"), "recompute the books")
    deposit = _add(ledger, "deposit", _in("ledger", "deposit"), "book money that came in")
    deposit.add_argument("amount", metavar="AMOUNT", help="credits, such as 5 or 4.25")
    deposit.add_argument(
        "--ref", required=True, type=_words, help="its name, once: a receipt or transfer number"
    )
    deposit.add_argument("--source", metavar="NAME", help="revenue of this source; else your own")

    adjust = _add(ledger, "adjust", _in("ledger", "adjust"), "book what you know better")
    # Else argparse takes `-1,5` for an option, and cannot say what is wrong with it.
    adjust._negative_number_matcher = re.compile(r"-[\d.]")
    adjust.add_argument(
        "amount", metavar="AMOUNT", help="by how much the balance changes, such as 0.25 or -0.25"
    )
    adjust.add_argument(
        "--ref", required=True, type=_words, help="its name, once: a bill or ticket number"
    )
    adjust.add_argument("--memo", required=True, type=_words, metavar="TEXT", help="why")
    adjust.add_argument("--corrects", metavar="ENTRY", help="the entry that was wrong")
    export = _add(
        ledger, "export", _in("ledger", "write_export"), "entries, for other programs", json=False
    )
    export.add_argument(
        "--format", required=True, choices=("json", "csv", "beancount", "hledger"), dest="form"
    )

    runs = _group(commands, "runs", "runs, their steps and what they cost")
    _add(runs, "list", _in("runs", "list_runs"), "every run", listing=True)
    _add_of_run(runs, "show", _in("runs", "show"), "one run whole")
    _add_of_run(runs, "trace", _in("runs", "trace"), "one run as a tree of steps and requests")
    _add_of_run(runs, "resume", _in("runs", "resume"), "go on with a run")

    drafts = _group(commands, "drafts", "what waits for a person")
    _add(drafts, "list", _in("drafts", "list_drafts"), "drafts that wait", listing=True)
    _add_of_run(drafts, "show", _in("drafts", "show"), "one draft whole")
    _add_of_run(drafts, "approve", _in("drafts", "approve"), "let it go out on the next free day")
    edit = _add_of_run(drafts, "edit", _in("drafts", "edit"), "change it; the desk looks again")
    how = edit.add_mutually_exclusive_group()
    how.add_argument(
        "--file", metavar="PATH", help="read the text here, `-` for stdin; else an editor"
    )
    how.add_argument("--print", action="store_true", help="write the text to edit to stdout")
    reject = _add_of_run(drafts, "reject", _in("drafts", "reject"), "drop it")
    reject.add_argument("--reason", required=True, type=_words)

    posts = _group(commands, "posts", "publications")
    _add(posts, "list", _in("posts", "list_posts"), "what went out, and where", listing=True)
    _add_of_run(posts, "retry", _in("posts", "retry"), "try again where it was given up")
    withdraw = _add_of_run(
        posts, "withdraw", _in("withdraw"), "take an article back from wherever it went"
    )
    withdraw.add_argument(
        "--reason", required=True, type=_words, metavar="TEXT", help="why; kept in the journal"
    )

    _add(commands, "collect", _in("collect"), "engagement and revenue now, and what they earn")

    report = _add(commands, "report", _in("report"), "what came of it, over some days")
    report.add_argument("--days", type=_count, default=30, metavar="N", help="30 by default")

    foreseen = "what the schedule, prices, budgets and rates would do, before a credit is spent"
    simulate = _add(commands, "simulate", _in("simulate"), foreseen)
    simulate.add_argument("--days", type=_count, default=365, metavar="N", help="365 by default")
    simulate.add_argument("--seed", type=int, default=1, metavar="N", help="1 by default")
    simulate.add_argument(
        "--balance", metavar="AMOUNT", help="credits to begin with; else what the books have"
    )
    simulate.add_argument("--audience", metavar="NAME", help="how many readers a post finds")
    simulate.add_argument("--picture", metavar="PATH", help="write the picture here, as SVG")

    _add(commands, "reconcile", _in("reconcile"), "find out what became of what is not known")

    backup = _add(commands, "backup", _in("backup"), "an online copy, opened and checked")
    backup.add_argument("path", metavar="PATH", help="a file, or a folder for a file with the date")

    pause = _add(
        commands, "pause", _in("pause", "pause"), "let no new request or publication start"
    )
    pause.add_argument("--reason", metavar="TEXT")
    _add(commands, "resume", _in("pause", "resume"), "lift the pause")
    return top


def _group(commands: _Commands, name: str, help_text: str) -> _Commands:
    group = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _add(
    commands: _Commands,
    name: str,
    command: Command,
    help_text: str,
    *,
    json: bool = True,
    listing: bool = False,
) -> argparse.ArgumentParser:
    added = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    added.add_argument(
        "--env-file",
        type=_words,
        metavar="PATH",
        help="settings file; else ./.env or /etc/penstock/penstock.env",
    )
    if json:
        added.add_argument("--json", action="store_true", help="one JSON document on stdout")
    else:
        added.set_defaults(json=False)
    if listing:
        added.add_argument("--limit", type=_count, metavar="N", help="the newest N")
        added.add_argument("--since", metavar="TIME", help="ISO 8601, or 24h, 7d, 2w ago")
    added.set_defaults(
        command=command, failure=lambda message: {"error": message}, stopped="stopped"
    )
    return added


def _add_of_run(
    commands: _Commands, name: str, command: Command, help_text: str
) -> argparse.ArgumentParser:
    added = _add(commands, name, command, help_text)
    added.add_argument("run", metavar="RUN")
    return added


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError("a whole number from 1 to 999999999 is needed")
    return int(text)


def _words(text: str) -> str:
    # What a script leaves empty names nothing, and " x" in the books would not be told from "x".
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text.strip()


_GOES_ON = "stopped; `penstock once` goes on where it was"


def failed_once(message: str) -> dict[str, object]:
    """`once` keeps its shape even when it cannot begin."""
    return {
        "run": None, "outcome": "failed", "reason": message, "tier": None, "title": None,
        "cost": "0.000000", "publications": [],
    }  # fmt: skip


def _in(module: str, function: str = "run") -> Command:
    """A function of a command's module, which is imported when it is called."""

    def command(args: argparse.Namespace) -> int:
        gc.disable()
        try:
            found = import_module(f"daemon.cli.{module}")
        finally:
            # What is loaded stays loaded. Looked through again and again by the collector it would
            # cost a run 0.2 s, at times that nobody chose.
            gc.freeze()
            gc.enable()
        return int(getattr(found, function)(args))

    return command
