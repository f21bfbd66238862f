"""
Lines for the journal: JSON where no person watches, with the run's id, and no secret in any form.

Everything goes through the standard library's `logging`, ours and the libraries' alike, to one
handler: it redacts, bounds, and writes one line with one call. A line is written or lost, and never
waited for: a log that is full, or that nobody reads, must not stop the daemon.

    begin      sets it up; what it returns is the `Progress` of the service
    Redactor   finds a secret however it is written

In the journal a line begins with its priority, as in `<4>`, which journald takes off the message
and keeps as PRIORITY, so that `journalctl -p warning` finds what matters and `-o cat` still shows
pure JSON. It is written only where stderr is the very stream that `$JOURNAL_STREAM` names: in a
file, or under another supervisor, it would be noise before the brace.
"""

from __future__ import annotations

import base64
import contextvars
import json
import logging
import os
import re
import select
import string
import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any, TextIO

from daemon.journal import StepState

# A word of five letters says nothing, and would black out half of what is logged.
SECRET_MIN = 6
MESSAGE_MAX = 4_000
TRACEBACK_MAX = 16_000
FIELD_MAX = 200
# journald breaks a longer line in two (LineMax=48K), and the second half would be a line of its
# own that begins wherever a stranger's text wants it to.
LINE_MAX_BYTES = 46_000
# Characters by which a secret is looked for; where they are, the rest is, too.
HEAD_MAX = 64
# What is looked at before it is cut to its length: a megabyte in an error would take seconds.
READ_MAX = 20_000

_OURS = ("daemon", "ledger", "publishers", "penstock")
# By syslog: err, warning, info, debug.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
# How our own messages begin: `press.intend: outbox cannot prepare it`.
_EVENT = re.compile(r"([a-z_]+(?:\.[a-z_]+)+): ")
_HIDDEN = "***"
# As much as a pipe or socket that is ready takes at once (POSIX's PIPE_BUF on Linux).
_PIECE_BYTES = 4096
_PATIENCE_MS = 50

_run: contextvars.ContextVar[str | None] = contextvars.ContextVar("penstock_run", default=None)
_logger = logging.getLogger("penstock")


def begin(
    level: str,
    secrets: Sequence[str],
    stream: TextIO,
    terminal: bool = False,
    env: Mapping[str, str] = os.environ,
) -> Telling:
    """
    Send every record to a stream, in the place of whatever was set up before.

    Our own records come from `level` on, those of libraries from warning on. Tracebacks are
    written for errors, and at `debug` for whatever has one. What nobody caught, and warnings, go
    the same way, so that they are redacted, too.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        secrets: values that may not be written in any form.
        terminal: a person reads it; else JSON.
    Returns:
        Who tells of runs. A run's id is on every record of the task that told of it, and of the
        tasks which that starts.
    """
    wanted = getattr(logging, level.upper())
    shape = Plain() if terminal else Json(in_journal=_is_journal(stream, env))
    handler = Lines(stream, Redactor(secrets), shape, with_all_tracebacks=wanted <= logging.DEBUG)
    root = logging.getLogger()
    for one in root.handlers[:]:
        if isinstance(one, Lines):
            root.removeHandler(one)
    root.addHandler(handler)
    root.setLevel(max(wanted, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(wanted)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    return Telling()


class Telling:
    """The service's `Progress`."""

    def step(self, run: str, name: str, state: str, detail: str = "") -> None:
        """Say how a step stands; that it began only at `debug`."""
        level = {StepState.RUNNING: logging.DEBUG, StepState.FAILED: logging.WARNING}
        chosen = next((found for one, found in level.items() if one == state), logging.INFO)
        _say(chosen, "step", run, detail, step=name, state=state)

    def note(self, run: str, line: str) -> None:
        """Say something."""
        _say(logging.INFO, "note", run, line)

    def warn(self, run: str, line: str) -> None:
        """Say what somebody should see to."""
        _say(logging.WARNING, "note", run, line)


def _say(level: int, event: str, run: str, message: str, **facts: str) -> None:
    _run.set(run)
    _logger.log(level, "%s", message, extra={"event": event, "run": run, **facts})


# Redaction


class Redactor:
    """
    Takes secrets out of a text.

    A value is found as it is, backwards, in hexadecimal, in base32 and in base64 (at any of its
    three alignments, standard or for URLs, wrapped or not), whatever of it is percent-encoded or
    escaped as JSON, Python, a shell or HTML do, once or several times; and so is its first half, as
    what cuts a text short may cut a key. Beside these, what is shaped like a session's token or
    a password in an address: sessions are made while the daemon runs.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # A backslash at an end is one more escape of what stands beside it.
        stripped = {each.strip(string.whitespace + "\\") for each in secrets}
        values = {value.strip() for value in stripped if len(value.strip()) >= SECRET_MIN}
        longest_first = sorted(values, key=len, reverse=True)
        self._forms = [form for value in longest_first for form in _forms(value)]
        self._longest = max((form.longest for form in self._forms), default=0)

    def __call__(self, text: str, *, from_end: bool = False) -> str:
        """
        The text without them; of one that is very long only the beginning, or the end.
        """
        if len(text) > READ_MAX:
            return self._part(text, from_end=from_end)
        for form in self._forms:
            text = form.hidden(text)
        return _TOKENS.sub(lambda found: f"{found[1] or found[2] or ''}{_HIDDEN}", text)

    def _part(self, text: str, *, from_end: bool) -> str:
        """The cut may have gone through a secret: what could be a piece of one goes, too."""
        part = self(text[-READ_MAX:] if from_end else text[:READ_MAX])
        kept = max(0, len(part) - self._longest)
        return f"…{part[len(part) - kept :]}" if from_end else f"{part[:kept]}…"


# A password in an address, what stands after a scheme of authorization, a JSON web token.
_TOKENS = re.compile(
    r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,100}:)[^\s/@\"'<>]{1,200}(?=@)"
    r"|(\b(?:bearer|basic)\s{1,4})(?=[\w~+/.-]{0,199}[\d=+/_-])[\w~+/.-]{16,}+=*+"
    r"|(?<![\w-])eyJ[\w-]{10,}+\.[\w-]{10,}+\.[\w-]{5,}+",
    re.IGNORECASE | re.ASCII,
)


# Of an address: how it is reached, and at whose.
_PUBLIC = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/?#@\s]*(?=[/?#])[/?#]?)?", re.IGNORECASE)


class _Form:
    """
    One way in which a secret may be written: its characters, each in any of its spellings.

    Args:
        open_to_all: so many of the first are no secret, and tell it from nothing.
    """

    def __init__(self, nodes: Sequence[str], open_to_all: int = 0) -> None:
        # Half of a key cannot be guessed to the whole of it. A file of keys is known by its first
        # line, so that it costs no more than another.
        half = -(-(len(nodes) - open_to_all) // 2)
        head = min(len(nodes), open_to_all + max(8, min(half, HEAD_MAX)))
        self._head = _compiled("".join(nodes[:head]))
        self._nodes, self._rest = nodes, nodes[head:]
        # The longest spelling there is reason to expect: twice escaped, as in \\\\u0041.
        self.longest = 12 * len(nodes)

    def hidden(self, text: str) -> str:
        """The text without it."""
        if not self._head.search(text):
            return text
        # In one pattern, since only there a node can try its other spellings when the next one does
        # not fit: `&amp;` begins as `&` does.
        text = _compiled("".join(self._nodes)).sub(_HIDDEN, text)
        parts, done = [], 0
        while found := self._head.search(text, done):
            parts += [text[done : found.start()], _HIDDEN]
            done = found.end()
            for node in self._rest:
                more = _compiled(node).match(text, done)
                if more is None:
                    break
                done = more.end()
        return "".join((*parts, text[done:]))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _forms(secret: str) -> Iterator[_Form]:
    raw = secret.encode(errors="surrogatepass")
    # Else a short webhook would black out every address that begins as it does.
    found = _PUBLIC.match(secret)
    start = len(found[0]) if found else 0
    yield _Form(_spelt(secret), start)
    if secret != secret[::-1]:
        yield _Form(_spelt(secret[::-1]))
    yield _Form([f"{'[:-]?' if place else ''}{byte:02x}" for place, byte in enumerate(raw)], start)
    yield _Form(_coded(base64.b32encode(raw).rstrip(b"=")), start * 8 // 5)
    for offset in range(3):
        # What is the secret's alone, wherever it stands in a longer text.
        coded = base64.b64encode(b"\0" * offset + raw)
        yield _Form(
            _coded(coded[-(-8 * offset // 6) : 8 * (offset + len(raw)) // 6]), start * 4 // 3
        )


def _coded(text: bytes) -> list[str]:
    """A pattern for each letter of a base; a mail's lines end after 76, and may be escaped."""
    other = {"+": "(?:[+-]|%(?:25)*2b)", "/": r"(?:\\*+/|_|%(?:25)*2f)"}
    wrap = r"(?:[\r\n]|\\++[rn])*+"
    letters = [other.get(letter) or letter for letter in text.decode()]
    return [letters[0], *(f"{wrap}{letter}" for letter in letters[1:])]


def _spelt(text: str) -> list[str]:
    """
    A pattern for each character, or run of spaces or backslashes.

    Every repetition takes all it can and gives nothing back (`++`), and none stands first, so that
    no text takes long.
    """
    first, *others = re.findall(r"\s+|\\+|[^\s\\]", text)
    return [_character(first, ""), *(_node(run) for run in others)]


@cache
def _node(run: str) -> str:
    if run.isspace():
        # Whoever made one line of it made one space of many; a form has a plus.
        spelt = "|".join(_character(space, r"\\*+") for space in sorted(set(run)))
        return rf"(?:\s++|\+|\\*+[nrtvf]|{spelt}){{1,{len(run)}}}"
    if run.startswith("\\"):
        return r"(?:\\|%(?:25)*5c|&#(?:92|x0*5c);)++"
    # Any number of backslashes before it: escaping adds to them.
    return _character(run, r"\\*+")


def _character(character: str, before: str) -> str:
    code = ord(character)
    raw = character.encode(errors="surrogatepass")
    units = character.encode("utf-16-be", errors="surrogatepass")
    escapes = [
        re.escape(character),
        r"\\*+".join(f"u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)),
        f"u\\{{0*{code:x}\\}}",
        f"U{code:08x}",
        r"\\*+".join(f"x{byte:02x}" for byte in raw),
        *([f"x{code:02x}"] if 0x80 <= code <= 0xFF else []),
        *(["b"] if character == "\b" else []),
    ]
    percent = "".join(f"%(?:25)*{byte:02x}" for byte in raw)
    named = {"&": "&amp;|", "<": "&lt;|", ">": "&gt;|", '"': "&quot;|", "'": "&apos;|"}
    # The character itself last: `%` begins `%25`, and of a key cut short the first to fit counts.
    return (
        f"(?:{named.get(character, '')}&#0*{code};|&#x0*{code:x};|{percent}"
        f"|{before}(?:{'|'.join(escapes)}))"
    )


# Lines


class Lines(logging.Handler):
    """
    Writes records as lines.

    Args:
        shape: makes one text of a line's fields.
    """

    def __init__(
        self,
        stream: TextIO,
        redact: Redactor,
        shape: Callable[[Mapping[str, Any]], str],
        *,
        with_all_tracebacks: bool = False,
    ) -> None:
        super().__init__()
        self._redact = redact
        self._shape = shape
        self._with_all_tracebacks = with_all_tracebacks
        self._sink = Sink(stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or lose it."""
        try:
            line = self._shape(self._fields(record))
            if lost := self._sink.lost:
                told = {
                    "at": _moment(record),
                    "level": "warning",
                    "event": "log.lost",
                    "message": f"{lost} lines before this one could not be written",
                }
                line = f"{self._shape(told)}\n{line}"
            self._sink.write(line)
        except Exception:  # noqa: BLE001 - a line is not worth a run
            self._sink.lost += 1

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        message, event = _message(record), getattr(record, "event", None)
        if event is None:
            found = _EVENT.match(message)
            event = found[1] if found else record.name
            message = message[found.end() :] if found else message
        fields: dict[str, Any] = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "event": self._told(str(event), FIELD_MAX),
            "run": self._named(getattr(record, "run", None) or _run.get()),
        }
        for name in ("step", "state"):
            if (value := getattr(record, name, None)) is not None:
                fields[name] = self._named(value)
        fields["message"] = self._told(message, MESSAGE_MAX)
        if record.exc_info and record.exc_info[1] is not None:
            fields |= self._failure(record.exc_info[1], record.levelno)
        return fields

    def _failure(self, error: BaseException, level: int) -> dict[str, str]:
        said = "".join(traceback.format_exception_only(error)).strip()
        fields = {"error": self._told(said, MESSAGE_MAX)}
        if level >= logging.ERROR or self._with_all_tracebacks:
            # The end of it says what happened.
            whole = self._redact("".join(traceback.format_exception(error)).rstrip(), from_end=True)
            cut = len(whole) > TRACEBACK_MAX
            fields["traceback"] = f"…{whole[-TRACEBACK_MAX:]}" if cut else whole
        return fields

    def _named(self, value: object) -> str | None:
        return None if value is None else self._told(str(value), FIELD_MAX)

    def _told(self, text: str, length_max: int) -> str:
        text = self._redact(text)
        return text if len(text) <= length_max else f"{text[:length_max]}…"


class Json:
    """One JSON object a line, of printable characters only."""

    def __init__(self, *, in_journal: bool = False) -> None:
        self._in_journal = in_journal

    def __call__(self, fields: Mapping[str, Any]) -> str:
        line = _document(fields)
        while len(line.encode()) > LINE_MAX_BYTES:
            # Of four bytes each, or all escaped: the longest gives way.
            longest = max((n for n in fields if fields[n]), key=lambda n: len(_document(fields[n])))
            fields = {**fields, longest: f"{fields[longest][: len(fields[longest]) // 2]}…"}
            line = _document(fields)
        return f"<{_priority(fields['level'])}>{line}" if self._in_journal else line


class Plain:
    """For a person: what continues a line is set in, so that it cannot pretend to be another."""

    def __call__(self, fields: Mapping[str, Any]) -> str:
        at = datetime.fromisoformat(fields["at"]).astimezone()
        words = [
            f"{at:%H:%M:%S}",
            *([fields["level"]] if fields["level"] != "info" else []),
            *(fields[name] for name in ("run", "step", "state") if fields.get(name)),
            *([f"{fields['event']}:"] if fields["event"] not in ("step", "note") else []),
            *(fields[name] for name in ("message", "error") if fields.get(name)),
        ]
        lines = [_shown(" ".join(" ".join(words).split()))]
        lines += [f"    {_shown(line)}" for line in fields.get("traceback", "").splitlines()]
        return "\n".join(lines)


def _document(value: Any) -> str:
    return _shown(json.dumps(value, ensure_ascii=False))


def _shown(text: str) -> str:
    """
    Printable, as JSON escapes it: what is not could end the line, colour a terminal, or turn the
    direction of what follows.
    """
    return (
        text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)
    )


def _escaped(character: str) -> str:
    # A space that is not the usual one, and what joins emoji, is as it was.
    if unicodedata.category(character) == "Zs" or character == "\u200d":
        return character
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - the arguments are a library's, and so is what they do
        return f"{record.msg!s} (its arguments do not fit)"


def _moment(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _priority(level: str) -> int:
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    return next((priority for least, priority in _PRIORITIES if number >= least), 7)


class Sink:
    """
    Where lines go, one call each. `lost` is how many could not be written since the last that was.

    It writes to the file descriptor, past the stream's buffer, which would keep what a full disk
    did not take, and fail again at exit. A pipe or socket that nobody empties gets some
    milliseconds; the flag that would make writing to it never block belongs to others, too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_torn = False
        self.lost = 0
        try:
            self._fd: int | None = stream.fileno()
        # A stream that is no file, as tests have them, or one that is closed.
        except (OSError, ValueError, AttributeError):
            self._fd = None

    def write(self, line: str) -> None:
        """Write a line and its end, whole or not at all as far as the reader is concerned."""
        try:
            if self._fd is None:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            else:
                self._write(self._fd, f"{line}\n".encode(errors="backslashreplace"))
        except (OSError, ValueError):
            self.lost += 1
        else:
            self.lost = 0

    def _write(self, fd: int, data: bytes) -> None:
        if self._is_torn:
            # The beginning of a line stands there without its end.
            data = b"\n" + data
        ready = select.poll()
        ready.register(fd, select.POLLOUT)
        # Whoever let one line wait in vain is not waited for again until a line gets through.
        patience_ms = 0 if self.lost else _PATIENCE_MS
        done = 0
        while done < len(data):
            if not ready.poll(patience_ms):
                raise BlockingIOError("nobody reads it")
            done += os.write(fd, data[done : done + _PIECE_BYTES])
            self._is_torn = done < len(data)


def _is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """See systemd.exec(5): $JOURNAL_STREAM is the device and inode of what we were started with."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


# What nobody caught


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, KeyboardInterrupt):
        _logger.critical("uncaught", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        _logger.error("uncaught in a thread", exc_info=args.exc_value)


def _unraisable(args: Any) -> None:
    if args.exc_value is not None:
        _logger.error("uncaught where nothing can be raised", exc_info=args.exc_value)
