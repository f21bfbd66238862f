"""
Parsing out of reach: strangers' bytes go to a process with limits, and plain text comes back.

The process is made when it is first needed and kept; one that takes too long, runs out of memory
or dies costs what it was given to parse and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any, Literal, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from daemon.sources.parse import ParsedFeed, ParsedPage, ParseError, parse_feed, parse_page
from daemon.sources.worker import ANSWER_HEAD, REQUEST_HEAD

# In computing time the process bounds itself, tighter; this is for one that waits or is starved.
TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64_000_000
T = TypeVar("T", ParsedFeed, ParsedPage)
_FEED, _PAGE = TypeAdapter(ParsedFeed), TypeAdapter(ParsedPage)


class Parser(Protocol):
    """Makes plain text of feeds and pages."""

    async def feed(self, body: bytes, *, url: str, content_type: str) -> ParsedFeed:
        """
        A feed's entries.

        Raises:
            ParseError: it is no feed, or reading it takes too much.
        """

    async def page(self, body: bytes, *, url: str, content_type: str) -> ParsedPage:
        """
        A page's text.

        Raises:
            ParseError: it is no page of text, or reading it takes too much.
        """

    async def close(self) -> None:
        """End what was begun for parsing."""


class Unconfined:
    """Parses on the spot, without limits: for bytes whose origin is known, as in a simulation."""

    async def feed(self, body: bytes, *, url: str, content_type: str) -> ParsedFeed:
        return parse_feed(body, url=url, content_type=content_type)

    async def page(self, body: bytes, *, url: str, content_type: str) -> ParsedPage:
        return parse_page(body, url=url, content_type=content_type)

    async def close(self) -> None:
        pass


class Confined:
    """
    Parses in a process of its own, one thing after another.

    Args:
        timeout_s: for one feed or page, from when its turn comes.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._worker: _Worker | None = None

    @classmethod
    def started(cls) -> Confined:
        """One whose process loads its libraries while its owner still does something else."""
        made = cls()
        made._worker = _Worker()
        return made

    async def feed(self, body: bytes, *, url: str, content_type: str) -> ParsedFeed:
        return await self._ask("feed", _FEED, body, url, content_type)

    async def page(self, body: bytes, *, url: str, content_type: str) -> ParsedPage:
        return await self._ask("page", _PAGE, body, url, content_type)

    async def close(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    async def _ask(
        self,
        kind: Literal["feed", "page"],
        shape: TypeAdapter[T],
        body: bytes,
        url: str,
        content_type: str,
    ) -> T:
        header = {"kind": kind, "url": url, "content_type": content_type}
        async with self._turn:
            worker = self._worker = self._worker or _Worker()
            said: Any = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    said = json.loads(await worker.exchange(header, body))
            except TimeoutError:
                raise ParseError("reading it takes too long") from None
            except (OSError, EOFError, ValueError):
                raise ParseError("reading it takes too much") from None
            finally:
                # Also where we are cancelled: whatever it still says would answer another question.
                if said is None:
                    await self.close()
        if "error" in said:
            raise ParseError(str(said["error"]))
        try:
            return shape.validate_python(said[kind])
        except (KeyError, ValidationError):
            raise ParseError("its reader answered with something else") from None


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        with theirs:
            # -I: neither the working directory nor PYTHON* variables choose what is imported.
            command = [sys.executable, "-I", "-m", "daemon.sources.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - our own words only
                command, pass_fds=[theirs.fileno()], env={"LC_ALL": "C.UTF-8"}, cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    async def exchange(self, header: dict[str, str], body: bytes) -> bytes:
        """
        Send one request and read its answer.

        Raises:
            OSError, EOFError: it died.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._socket)
        reader, writer = self._streams
        head = json.dumps(header).encode()
        writer.writelines([REQUEST_HEAD.pack(len(head), len(body)), head, body])
        await writer.drain()
        (length,) = ANSWER_HEAD.unpack(await reader.readexactly(ANSWER_HEAD.size))
        if length > ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of {length} bytes")
        return await reader.readexactly(length)

    def end(self) -> None:
        """Kill it; it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        if self._streams is not None:
            self._streams[1].close()
        self._socket.close()
