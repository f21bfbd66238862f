"""What the daemon's log has in it, and what it must never have."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import html
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from daemon import logs
from daemon.logs import LINE_MAX_BYTES, MESSAGE_MAX, READ_MAX, SECRET_MIN, Redactor

KEY = "sk-or-v1-Zk3/9+xQ~7_pL0w8Rr2T5y"
OURS = logging.getLogger("daemon.tests")
THEIRS = logging.getLogger("httpx")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """`begin` is for a process of its own; here others come after."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in NAMES}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    logs._run.set(None)


NAMES = ("", "daemon", "ledger", "publishers", "penstock")


class Log:
    """What was written, read back."""

    def __init__(self, level: str = "info", *secrets: str, terminal: bool = False) -> None:
        # pytest's own would raise where ours must not; of ours, `begin` has to be rid by itself.
        root = logging.getLogger()
        root.handlers[:] = [one for one in root.handlers if isinstance(one, logs.Lines)]
        self.stream = io.StringIO()
        self.progress = logs.begin(level, secrets, self.stream, terminal, env={})

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        # As journald does it, which knows no other end of a line.
        return [json.loads(line) for line in self.text.split("\n")[:-1]]


# What stands in a line


def test_a_step_and_a_note_are_an_object_a_line_with_the_run() -> None:
    log = Log("debug")
    log.progress.step("r1", "research", "running")
    log.progress.step("r1", "research", "done")
    log.progress.step("r1", "publish:devto", "failed", "HTTP 422: title is too long")
    log.progress.step("r1", "write", "kept")
    log.progress.note("r1", "economy: the balance lasts 12 days")
    lines = log.lines
    assert all(line.pop("at").endswith("Z") for line in lines)
    step = {"event": "step", "run": "r1"}
    assert lines == [
        {"level": "debug", **step, "step": "research", "state": "running", "message": ""},
        {"level": "info", **step, "step": "research", "state": "done", "message": ""},
        {
            "level": "warning", **step, "step": "publish:devto", "state": "failed",
            "message": "HTTP 422: title is too long",
        },
        {"level": "info", **step, "step": "write", "state": "kept", "message": ""},
        {
            "level": "info", "event": "note", "run": "r1",
            "message": "economy: the balance lasts 12 days",
        },
    ]  # fmt: skip


def test_records_of_a_run_and_of_what_it_starts_have_its_id() -> None:
    log = Log()

    async def question() -> None:
        OURS.warning("reading.fetch: %s is gone", "a page")

    async def run(name: str) -> None:
        log.progress.note(name, "begun")
        await asyncio.gather(question(), asyncio.sleep(0))

    async def service() -> None:
        await asyncio.gather(asyncio.create_task(run("r1")), asyncio.create_task(run("r2")))
        OURS.warning("service: between runs")

    asyncio.run(service())
    found = [(line["run"], line["event"]) for line in log.lines if line["event"] != "note"]
    assert sorted(found, key=str) == [
        ("r1", "reading.fetch"), ("r2", "reading.fetch"), (None, "daemon.tests"),
    ]  # fmt: skip


def test_libraries_are_heard_from_warning_on() -> None:
    for level, expected in {
        "debug": ["ours.debug", "ours.info", "ours.warning", "their.warning", "ours.error"],
        "info": ["ours.info", "ours.warning", "their.warning", "ours.error"],
        "warning": ["ours.warning", "their.warning", "ours.error"],
        "error": ["ours.error"],
    }.items():
        log = Log(level)
        OURS.debug("ours.debug: x")
        OURS.info("ours.info: x")
        THEIRS.info("their.info: GET https://x/?key=1")
        OURS.warning("ours.warning: x")
        THEIRS.warning("their.warning: x")
        OURS.error("ours.error: x")
        assert [line["event"] for line in log.lines] == expected, level


def test_a_traceback_is_there_for_errors_and_at_debug_for_all() -> None:
    def fail(said: Callable[..., None]) -> None:
        try:
            raise ValueError(f"no {KEY}") from OSError(f"because of {KEY}")
        except ValueError:
            said("press.intend: %s cannot", "devto", exc_info=True)

    log = Log("info", KEY)
    fail(OURS.warning)
    fail(OURS.error)
    quiet, loud = log.lines
    assert (quiet["error"], quiet["message"]) == ("ValueError: no ***", "devto cannot")
    assert "traceback" not in quiet
    assert loud["traceback"].startswith("OSError: because of ***\n")
    assert loud["traceback"].endswith("ValueError: no ***")
    assert "test_logs.py" in loud["traceback"]
    log = Log("debug", KEY)
    fail(OURS.debug)
    assert "traceback" in log.lines[0]


def test_a_person_reads_plain_lines() -> None:
    log = Log("info", terminal=True)
    log.progress.note("r1", "economy:\n  the balance lasts")
    log.progress.step("r1", "draft", "failed", "no\x1b[31m answer\x9b")
    THEIRS.error("gone\n2026-11-23 r2 forged", exc_info=ValueError("a\nb"))
    bare = [line[9:] if line[0] != " " else line for line in log.text.splitlines()]
    assert bare == [
        "r1 economy: the balance lasts",
        "warning r1 draft failed no\\u001b[31m answer\\u009b",
        "error r1 httpx: gone 2026-11-23 r2 forged ValueError: a b",
        "    ValueError: a",
        "    b",
    ]


def test_what_nobody_caught_is_a_line_too() -> None:
    log = Log("info", KEY)

    def fail() -> None:
        raise RuntimeError(KEY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(f"old {KEY}", DeprecationWarning, stacklevel=1)
    thrown, caught, warned = log.lines
    assert thrown["error"] == caught["error"] == "RuntimeError: ***"
    assert "old ***" in warned["message"]
    assert KEY not in log.text


def test_setting_it_up_again_takes_the_place_of_what_was() -> None:
    first = Log("debug", KEY)
    second = Log("info", "another-key")
    OURS.info("x: another-key")
    assert first.text == ""
    assert [line["message"] for line in second.lines] == ["x: ***"]


# Forging


@settings(deadline=None)
@given(st.text(st.characters(), max_size=60), st.booleans())
@example('x"}\n{"level":"error","event":"forged"', True)
@example("a\r\nb\x0b\x0c\x1c\x85\u2028\u2029\x00\x1b]0;x\x07\u202e", True)
@example("\ud800 lone", True)
def test_no_text_makes_a_second_line(text: str, terminal: bool) -> None:
    for end in (False, True):
        log = Log("info", terminal=end and terminal)
        log.progress.step(text, text, "done", text)
        log.progress.note(text, text)
        OURS.warning("%s", text)
        assert len(log.text.splitlines()) == 3
        # A terminal acts on nothing in it, and no word turns around.
        assert not {c for c in log.text if c in "\x1b\x9b\x07\x00\u202e\u2066\x7f"}
        log.text.encode()
    assert log.text.endswith("\n")


def test_what_was_said_can_be_read_back_as_it_was() -> None:
    log = Log()
    said = 'a "quoted"\\\nline\x1b[0m\u2028 é 👩\u200d🚀 日本\u3000語'
    log.progress.note("r1", said)
    assert log.lines[0]["message"] == said
    assert "日本" in log.text


# Bounds


@pytest.mark.parametrize("text", ["x", "\n", "\U0010fffe", "é", "\\", "\ud800"])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_longer_than_journald_takes(text: str, terminal: bool) -> None:
    log = Log("debug", KEY, terminal=terminal)
    begun = time.monotonic()
    try:
        raise ValueError(text * 1_000_000)
    except ValueError:
        OURS.exception("%s", text * 1_000_000, extra={"run": text * 1000, "event": text * 1000})
    assert time.monotonic() - begun < 30
    # A terminal may have what it has room for; LineMax is the journal's.
    assert len(log.text.encode()) <= (LINE_MAX_BYTES + 10 if not terminal else 400_000)


def test_a_key_that_a_cut_goes_through_leaves_nothing() -> None:
    for before in range(READ_MAX - len(KEY), READ_MAX + 1):
        text = f"{'x' * before}{KEY}{'y' * 200}"
        for found in (Redactor([KEY])(text), Redactor([KEY])(text[::-1], from_end=True)):
            for start in range(len(KEY) - 5):
                piece = KEY[start : start + 6]
                assert piece not in found
                assert piece[::-1] not in found
    # It is redacted first and cut then.
    log = Log("info", KEY)
    for before in range(MESSAGE_MAX - len(KEY), MESSAGE_MAX + 1, 5):
        log.progress.note("r1", f"{'.' * before}{KEY}")
    assert "sk-" not in log.text


# Secrets

PRINTABLE = st.characters(exclude_characters="*", exclude_categories=["Cs"])
SECRETS = st.one_of(
    st.text(PRINTABLE, min_size=SECRET_MIN, max_size=40),
    st.text(st.sampled_from("aB3/+%\\\"'&<> -_=.~é日🚀\n\t"), min_size=SECRET_MIN, max_size=24),
    st.binary(min_size=12, max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    st.binary(min_size=12, max_size=40).map(bytes.hex),
)
AROUND = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=5)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Where a form is of the whole text, what is around the secret shifts it.
WHOLE: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": quote,
    "percent, slashes too": lambda text: quote(text, safe=""),
    "percent, lower case": lambda text: quote(text, safe="").lower(),
    "percent, every byte": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "JSON": json.dumps,
    "JSON, not only ASCII": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON, slashes too": lambda text: json.dumps(text).replace("/", r"\/"),
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "repr of repr": lambda text: repr([repr(text)]),
    "HTML": html.escape,
    "HTML, numbers": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "backwards": lambda text: text[::-1],
    "upper case": lambda text: "".join(c.upper() if c.isascii() else c for c in text),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, upper case": lambda text: text.encode().hex().upper(),
    "hexadecimal, colons": lambda text: text.encode().hex(":"),
    "base64": base64_of,
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in a URL": lambda text: quote(base64_of(text), safe=""),
    "base64 of a mail": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 of a mail in JSON": lambda text: json.dumps(base64.encodebytes(text.encode()).decode()),
}
ALONE: dict[str, Callable[[str], str]] = {
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
}


def clues(secret: str, before: str, form: str) -> list[str]:
    """What may not be found afterwards: the secret, and what its form has of it alone."""
    found = [secret]
    encode = {**WHOLE, **ALONE}[form]
    if "base64" not in form:
        return [*found, encode(secret).strip("\"'b")]
    # Three bytes are four letters; those at the ends have bits of the neighbours.
    place = len(before.encode())
    whole = encode("\0" * (place % 3) + secret)
    start = -(-8 * (place % 3) // 6) if place % 3 else 0
    inner = "".join(whole.replace("=", "").replace("%3D", "").split())[start:]
    return [*found, inner[:-2]] if "mail" not in form else found


@settings(deadline=None)
@given(SECRETS, AROUND, AROUND, st.sampled_from([*WHOLE, *ALONE]))
@example('a"b\\c/d', "", "", "JSON in JSON")
@example("pass word\ttwice", "x", "", "form")
@example(KEY, "a", "b", "base64")
@example(KEY, "user:", "\n", "base64 of a mail")
@example("😀" * 6, "é", "", "JSON")
@example("000000", "0", "0", "hexadecimal")
@example("00000\0", "", "", "HTML, numbers")
@example("日%é\t_<B日-/&", "", "", "percent, every byte")
@example("a +b\x1f\xa0 c", "", "", "form")
def test_no_line_has_a_secret_in_any_form(secret: str, before: str, after: str, form: str) -> None:
    core = secret.strip(" \t\n\r\x0b\x0c\\").strip()
    assume(len(core) >= SECRET_MIN)
    if form in WHOLE:
        text = WHOLE[form](f"{before}{core}{after}")
    else:
        text = f"{before} {ALONE[form](core)} {after}"
    log = Log("debug", secret, terminal=False)
    log.progress.step(f"r {text}", text, "done", text)
    log.progress.note("r1", text)
    try:
        raise ValueError(text)
    except ValueError:
        OURS.exception("%s and %r", text, {"key": text})
    for line in log.lines:
        assert "***" in line["message"], (form, line["message"])
        for name in ("event", "run", "step", "message", "error", "traceback"):
            for clue in clues(core, before, form):
                assert clue not in str(line.get(name)), (form, name)


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=30), AROUND, st.sampled_from([*WHOLE]))
def test_nor_has_the_line_as_it_is_written(raw: bytes, before: str, form: str) -> None:
    key = "sk-" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    for terminal in (False, True):
        log = Log("debug", key, terminal=terminal)
        log.progress.note("r1", WHOLE[form](f"{before}{key}"))
        OURS.error("x", exc_info=ValueError(WHOLE[form](f"{before}{key}")))
        assert "***" in log.text
        assert key not in log.text
        assert not [clue for clue in clues(key, before, form) if clue in log.text]


@settings(deadline=None)
@given(
    st.text(st.sampled_from("aB3/+%&;amp25x\\\"'<> -_=#é🚀\t"), min_size=SECRET_MIN, max_size=40),
    st.sampled_from([*WHOLE, *ALONE]),
)
@example("correct-horse-ba&ttery-staple-9XQ", "HTML")
@example("correct-horse-ba%ttery-staple-9XQ", "percent")
@example("correct-horse-battery&", "HTML")
@example("aaaaaaaaXYZ&&%%&amp;%25", "percent twice")
def test_nothing_of_a_key_is_left_in_any_form(secret: str, form: str) -> None:
    core = secret.strip(" \t\\").strip()
    assume(len(core) >= SECRET_MIN)
    text = {**WHOLE, **ALONE}[form](core)
    left = Redactor([secret])(f"({text})")
    # Quotes are the form's; of base64 the last letter has bits of whatever would come next.
    end = r"\w?(?:=|%3D)*(?:\\n|\n)*" if "base" in form else ""
    assert re.fullmatch(rf"\([\[\\\"'b]*\*{{3}}{end}[\]\\\"']*\)", left), (form, left)


def test_a_secret_as_long_as_a_file_is_hidden_and_costs_little_where_it_is_not() -> None:
    secret = "".join(hashlib.sha512(bytes([at])).hexdigest() for at in range(250))
    begun = time.process_time()
    redact = Redactor([secret])
    assert redact("no secret") == "no secret"
    assert time.process_time() - begun < 3
    assert Redactor([secret[:2000]])(f"({html.escape(secret[:2000])})") == "(***)"


WEBHOOKS = (
    "https://n.io/ab", "https://ntfy.sh/mytopic", "http://127.0.0.1:8099/hook",
    "https://hooks.example/services/T0001/B0002/4f7d01c9aa",
)  # fmt: skip


@pytest.mark.parametrize("webhook", WEBHOOKS)
def test_a_webhook_hides_no_other_address_that_begins_as_it_does(webhook: str) -> None:
    host = webhook.partition("://")[2].partition("/")[0]
    others = f"https://example.org/a http://127.0.0.1:80/x https://{host}/ {host} https://{host}"
    redact = Redactor([webhook])
    assert redact(others) == others
    for said in (webhook, f"POST {webhook}: 503", webhook.encode().hex(), webhook[::-1]):
        assert "***" in redact(said)
        assert webhook.rpartition("/")[2] not in redact(said)


def test_a_key_after_its_own_first_half_is_hidden() -> None:
    assert Redactor(["aaaaaaaaXYZQRSTU"])(f"a{'a' * 8}XYZQRSTU.") == "a***."


def test_a_key_cut_short_is_hidden_as_far_as_it_goes() -> None:
    redact = Redactor([KEY])
    for length in range(-(-len(KEY) // 2), len(KEY)):
        assert redact(f"refused {KEY[:length]}…") == "refused ***…"
        assert redact(f"refused {quote(KEY[:length])}") == "refused ***"
    odd = "correct-horse-ba&t%ery-staple-9XQ"
    for length in range(17, len(odd)):
        assert Redactor([odd])(f"refused {html.escape(odd[:length])}…") == "refused ***…"
        assert Redactor([odd])(f"refused {quote(odd[:length])}…") == "refused ***…"


def test_short_values_and_the_rest_of_the_text_are_left_alone() -> None:
    text = "the dormant tier costs 0.25; sk-or is no key, nor is https://blog.example/a?b=c%20d"
    assert Redactor(["", "tier", "0.25", KEY])(text) == text


def test_of_two_secrets_one_may_begin_as_the_other() -> None:
    redact = Redactor(["abcdef-1", "abcdef-1-and-more"])
    assert redact("abcdef-1 abcdef-1-and-more") == "*** ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://penstock:hunter2@db.example/x", "https://penstock:***@db.example/x"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer ***"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "authorization: basic ***"),
        (f"accessJwt {'.'.join(['eyJhbGciOiJIUzI1NiJ9', 'a' * 20, 'b' * 20])}!", "accessJwt ***!"),
        ("basic understanding of reading", "basic understanding of reading"),
        ("http://127.0.0.1:8080/@name", "http://127.0.0.1:8080/@name"),
    ],
)
def test_tokens_of_a_session_are_hidden_though_nobody_named_them(text: str, expected: str) -> None:
    assert Redactor([])(text) == expected


@pytest.mark.parametrize(
    "secret", ["\\" * 12 + "x", "a\\\\\\b\\\\cd", "ab      cd", "((a+)+)+$", "aaaaaaaaaaaaaaaab"]
)
@pytest.mark.parametrize(
    "piece", ["\\", " ", "%25", "%5c", "a", "&#92;", "\\u", "\n", "eyJ-", "Basic ", "a://a:", "-"]
)
def test_no_text_takes_long(secret: str, piece: str) -> None:
    redact = Redactor([secret, KEY])
    text = piece * (READ_MAX // len(piece))
    begun = time.process_time()
    redact(text)
    redact(f"a{text}")
    assert time.process_time() - begun < 1


# Trouble under it


class Unfit:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_what_cannot_be_formatted_costs_its_own_line_at_most() -> None:
    log = Log()
    OURS.warning("%d of %d", "x")
    OURS.warning("%s", Unfit())
    OURS.warning(Unfit())
    OURS.warning("x.y: fine")
    assert [line["message"] for line in log.lines] == [
        "%d of %d (its arguments do not fit)",
        "%s (its arguments do not fit)",
        "1 lines before this one could not be written",
        "fine",
    ]


def test_a_reader_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        progress = logs.begin("info", [], stream, env={})
        progress.note("r1", "read")
        os.close(reading)
        for _ in range(3):
            progress.note("r1", "lost")
        stream.flush()


def test_a_reader_that_has_stalled_is_not_waited_for_and_told_what_it_missed() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as stream:
        progress = logs.begin("info", [], stream, env={})
        begun = time.monotonic()
        for number in range(300):
            progress.note("r1", f"{number} {'x' * 900}")
        assert time.monotonic() - begun < 30
        received = reader.read(65_536)
        progress.note("r1", "read again")
        received += reader.read(65_536)
    lines = received.decode().split("\n")
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    *_, told, last = whole
    assert last["message"] == "read again"
    assert told["event"] == "log.lost"
    kept = sum(line["event"] == "note" for line in whole) - 1
    assert told["message"] == f"{300 - kept} lines before this one could not be written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_stops_nothing_and_changes_no_exit_code() -> None:
    script = (
        "import sys; from daemon import logs\n"
        "progress = logs.begin('info', [], sys.stderr)\n"
        "for _ in range(3): progress.note('r1', 'x' * 5000)\n"
        "print('lived')"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "lived\n")


def test_in_the_journal_each_line_begins_with_its_priority(tmp_path: Path) -> None:
    def written(env: dict[str, str]) -> list[str]:
        path = tmp_path / "log"
        with path.open("w") as stream:
            found = os.fstat(stream.fileno())
            named = {name: value.format(found) for name, value in env.items()}
            logs.begin("debug", [], stream, env=named)
            OURS.debug("a.b: x")
            OURS.info("a.b: x\n<0>y")
            OURS.warning("a.b: x")
            OURS.critical("a.b: x")
        return path.read_text().splitlines()

    lines = written({"JOURNAL_STREAM": "{0.st_dev}:{0.st_ino}"})
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{"]
    # Told to somebody else's stream, as a child of a service is.
    assert {line[0] for line in written({"JOURNAL_STREAM": "8:1"})} == {"{"}


def test_a_closed_stream_stops_nothing() -> None:
    with closing(io.StringIO()) as stream:
        progress = logs.begin("info", [], stream, env={})
    progress.note("r1", "x")
