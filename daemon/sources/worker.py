"""
The process in which strangers' bytes are parsed: `python -m daemon.sources.worker FD`.

It gets no secret, opens nothing but Python's own files, reaches no network, and is bounded in
memory and computing time. Requests and answers go over the one socket it was given, one at a time:

    request   two big-endian 32-bit lengths, a JSON object {kind, url, content_type}, the bytes
    answer    one such length, a JSON object {feed}, {page} or {error}

After it ran out of memory it answers and ends, since nobody knows what is left of it.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import sys
import sysconfig
import threading
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from typing import Any

from daemon.sources.parse import ParseError, parse_feed, parse_page

# Heap and anonymous maps; what Python and its libraries map from their files comes to 40 MB more.
DATA_BYTES_MAX = 200_000_000
CPU_S_MAX = 15
REQUEST_HEAD = struct.Struct(">II")
ANSWER_HEAD = struct.Struct(">I")
_FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system",
              "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.",
              "urllib.", "http.", "ftplib.", "smtplib.")  # fmt: skip


def main() -> None:
    """Answer until the socket is closed."""
    _limit()
    connection = socket.socket(fileno=int(sys.argv[1]))
    with connection.makefile("rwb") as stream:
        sys.addaudithook(_refuse)
        # Ahead of the first page, and beside the feeds that come before it.
        threading.Thread(target=import_module, args=["trafilatura"], daemon=True).start()
        while len(head := stream.read(REQUEST_HEAD.size)) == REQUEST_HEAD.size:
            header, body = (stream.read(length) for length in REQUEST_HEAD.unpack(head))
            _allow_cpu(CPU_S_MAX)
            try:
                answer = _answer(json.loads(header), body)
            except MemoryError:
                answer = None
            said = _encoded(answer or {"error": "reading it takes too much memory"})
            stream.write(ANSWER_HEAD.pack(len(said)) + said)
            stream.flush()
            if answer is None:
                return


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX, DATA_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow_cpu(seconds: int) -> None:
    """So much computing from now on; who takes more is ended by the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    """
    Hold the parsers to parsing: feedparser opens paths and URLs that it is handed.

    A second lock behind the one that hands it bytes only, and none against native code.
    """
    if event.startswith(_FORBIDDEN) or (event == "open" and not _is_harmless(*args[:2])):
        raise PermissionError(f"a parser tried {event}")


def _is_harmless(path: Any, mode: Any) -> bool:
    """Reading a file of Python's or a library's, as an import does."""
    if not isinstance(path, str | bytes) or not set(str(mode or "r")) <= set("rbt"):
        return False
    return os.path.realpath(os.fsdecode(path)).startswith(_PYTHONS)


_PYTHONS = tuple(
    os.path.realpath(path) + os.sep
    for path in {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, *sys.path}
    if path
)


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
    return json.dumps(answer, default=datetime.isoformat).encode()


if __name__ == "__main__":
    main()
