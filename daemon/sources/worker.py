"""
The process in which strangers' bytes are parsed; `daemon.sources.confined` starts it and asks it.

It gets no secret, opens nothing but Python's own files, reaches no network, and is bounded in
memory and computing time. Requests and answers go over the one socket it was given, one at a time,
after a first answer that only says that it is there:

    request   two big-endian 32-bit lengths, a JSON object {kind, url, content_type}, the bytes
    answer    one such length, a JSON object {feed}, {page} or {error}; with {last} it ends

It ends when memory ran out, since nobody knows what is left of it then, and when what it read has
left it so large that the next one, which did nothing wrong, might find no room.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
import sysconfig
import threading
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from daemon.sources.parse import ParseError, parse_feed, parse_page

# Heap and anonymous maps; what Python and its libraries map from their files comes to 40 MB more.
DATA_BYTES_MAX = 200_000_000
# Half of it is free for whatever comes next; with all libraries loaded it takes 70 MB.
KEPT_BYTES_MAX = 100_000_000
SPARE_BYTES = 4_000_000
CPU_S_MAX = 15
REQUEST_HEAD = struct.Struct(">II")
ANSWER_HEAD = struct.Struct(">I")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
              "os.system", "os.kill", "os.remove", "os.rename", "os.link", "os.symlink",
              "os.truncate", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.utime",
              "os.setxattr", "os.removexattr", "shutil.", "tempfile.", "pty.", "ctypes.",
              "sqlite3.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.",
              "telnetlib.", "nntplib.", "webbrowser.")  # fmt: skip
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Answer until the socket is closed."""
    _limit()
    _die_with_parent()
    memory = os.open("/proc/self/statm", os.O_RDONLY)
    connection = socket.socket(fileno=int(sys.argv[1]))
    stream = connection.makefile("rb")
    sys.addaudithook(_refuse)
    _say(connection, b"{}")
    # Two threads that import at one time can meet a module of the library's that is half made.
    import_module("feedparser")
    # Ahead of the first page, and beside the feeds that come before it.
    threading.Thread(target=import_module, args=["trafilatura"], daemon=True).start()
    spare = [bytearray(SPARE_BYTES)]
    while spare and len(head := stream.read(REQUEST_HEAD.size)) == REQUEST_HEAD.size:
        header, body = (stream.read(length) for length in REQUEST_HEAD.unpack(head))
        _allow_cpu()
        said = _said(header, body, memory, spare)
        _say(connection, said or _TOO_MUCH)


def _said(header: bytes, body: bytes, memory: int, spare: list[bytearray]) -> bytes | None:
    """
    A whole answer, or None where memory ran out.

    CPython 3.11 can turn in circles for ever where it cannot have the few bytes that unwinding an
    exception through a long function takes (ceval.c, exception_unwind). So this one is short, and
    what was spared is given up first; an empty `spare` says that no more is to be read.
    """
    try:
        answer = _answer(json.loads(header), body)
        last = _data_bytes(memory) > KEPT_BYTES_MAX
        said = _encoded(answer | {"last": last})
    except MemoryError:
        spare.clear()
        return None
    if last:
        spare.clear()
    return said


def _say(connection: socket.socket, said: bytes) -> None:
    connection.sendall(ANSWER_HEAD.pack(len(said)))
    connection.sendall(said)


def _die_with_parent() -> None:
    """
    Be killed when the thread that started us ends.

    One that waits is told by its socket; one that computes would go on to its CPU limit.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _data_bytes(memory: int) -> int:
    """What counts against DATA_BYTES_MAX at present: proc(5), /proc/pid/statm, the sixth number."""
    return int(os.pread(memory, 200, 0).split()[5]) * resource.getpagesize()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX, DATA_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow_cpu() -> None:
    """CPU_S_MAX of computing from now on; who takes more is ended by the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + CPU_S_MAX
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    """
    Hold the parsers to parsing: feedparser opens paths and URLs that it is handed.

    A second lock behind the one that hands it bytes only, and none against native code.
    """
    if event.startswith(_FORBIDDEN) or (event == "open" and not _is_harmless(*args)):
        raise PermissionError(f"a parser tried {event}")


def _is_harmless(path: Any, mode: Any, flags: int) -> bool:
    """Reading a file of Python's or a library's, as an import does."""
    # `os.open` has no mode, only flags.
    if not isinstance(path, str | bytes) or flags & _WRITING:
        return False
    real = os.path.realpath(os.fsdecode(path))
    return real in _IMPORTED_FROM or real.startswith(_FOLDERS)


def _imported_from() -> frozenset[str]:
    """
    Where modules come from, folders and archives.

    Of a checkout that is on the path only our own package: a file of secrets may lie beside it.
    """
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    package = Path(__file__).resolve().parents[1]
    folders = {Path(path).resolve() for path in sys.path if path} - {package.parent}
    folders |= {package, *(Path(sysconfig.get_path(kind)).resolve() for kind in kinds)}
    return frozenset(map(str, folders))


_IMPORTED_FROM = _imported_from()
_FOLDERS = tuple(path + os.sep for path in _IMPORTED_FROM)


def _answer(header: dict[str, Any], body: bytes) -> dict[str, Any]:
    parse = parse_feed if header["kind"] == "feed" else parse_page
    try:
        found = parse(body, url=header["url"], content_type=header["content_type"])
    except MemoryError:
        raise
    except ParseError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a parser trips over is the bytes' fault
        return {"error": f"its reader failed ({type(error).__name__})"}
    return {header["kind"]: asdict(found)}


def _encoded(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, default=datetime.isoformat, ensure_ascii=False).encode()


_TOO_MUCH = _encoded({"error": "reading it takes too much memory", "last": True})
