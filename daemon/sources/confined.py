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
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, field_validator

from daemon.sources import text
from daemon.sources.parse import ParsedFeed, ParsedPage, ParseError, is_web, parse_feed, parse_page
from daemon.sources.worker import ANSWER_HEAD, REQUEST_HEAD

# In computing time the process bounds itself, tighter; this is for one that waits or is starved.
TIMEOUT_S = 30.0
# 200 entries at their longest, every character of four bytes, come to 22 MB.
ANSWER_BYTES_MAX = 32_000_000
CHUNK_BYTES = 256_000
Kind = Literal["feed", "page"]
# The process imports what we import, from where we do: a checkout or an archive on our path is not
# on a bare interpreter's.
_START = "import sys; sys.path[:] = sys.argv[2:]; from daemon.sources.worker import main; main()"

# Nothing of ours. At its memory's limit glibc would look for another arena at every small request,
# and a failure that takes milliseconds would take until the CPU limit.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


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
        # Where none can be had now, the first feed asks for one, and says so if it is refused.
        with suppress(OSError):
            made._worker = _Worker()
        return made

    async def feed(self, body: bytes, *, url: str, content_type: str) -> ParsedFeed:
        answer = await self._ask("feed", body, url, content_type)
        assert answer.feed is not None
        return answer.feed

    async def page(self, body: bytes, *, url: str, content_type: str) -> ParsedPage:
        answer = await self._ask("page", body, url, content_type)
        assert answer.page is not None
        return answer.page

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
        # Whoever is waiting for an answer sees that there will be none, and goes first.
        async with self._turn:
            self._end()

    async def _ask(self, kind: Kind, body: bytes, url: str, content_type: str) -> _Answer:
        header = {"kind": kind, "url": url, "content_type": content_type}
        async with self._turn:
            answer: _Answer | None = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = _understood(kind, await self._at_work().exchange(header, body))
            except TimeoutError:
                raise ParseError("reading it takes too long") from None
            except (OSError, EOFError):
                raise ParseError("reading it takes too much") from None
            except ValueError:
                raise ParseError("its reader answered with something else") from None
            finally:
                # Also where we are cancelled: whatever it still says would answer another question.
                if answer is None or answer.last:
                    self._end()
        if answer.error is not None:
            raise ParseError(text.one_line(answer.error, 200))
        return answer

    def _at_work(self) -> _Worker:
        """
        The process we have, or another where that one has died or talks out of turn.

        Raises:
            ParseError: the system gives us none.
        """
        if self._worker is not None and not self._worker.is_listening():
            self._end()
        try:
            self._worker = self._worker or _Worker()
        except OSError as error:
            raise ParseError(f"no process can be had to read it in ({error.strerror})") from error
        return self._worker

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


class _Answer(BaseModel):
    """What a process may say. It may have been taken over by what it read."""

    model_config = ConfigDict(strict=True)

    feed: ParsedFeed | None = None
    page: ParsedPage | None = None
    error: str | None = None
    last: bool = False

    @field_validator("feed")
    @classmethod
    def _as_parsed(cls, feed: ParsedFeed | None) -> ParsedFeed | None:
        """Times without a zone could not be compared; other addresses are nobody's to follow."""
        for item in feed.items if feed is not None else ():
            if item.published_at is not None and item.published_at.tzinfo is None:
                raise ValueError("a time without a zone")
            if not is_web(item.url):
                raise ValueError("no address on the web")
        return feed


def _understood(kind: Kind, said: bytes) -> _Answer:
    """
    An answer to what was asked.

    Raises:
        ValueError: it is none.
    """
    answer = _Answer.model_validate_json(said)
    if (answer.error is None) == (getattr(answer, kind) is None):
        raise ValueError(f"neither a {kind} nor an error")
    return answer


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._greeted = False
        with theirs:
            # -I, and our own path: neither its folder nor its environment chooses what is imported.
            paths = [str(Path(path).absolute()) for path in sys.path]
            command = [sys.executable, "-I", "-c", _START, str(theirs.fileno()), *paths]
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own words only
                    command, pass_fds=[theirs.fileno()], env=_ENVIRONMENT, cwd="/",
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError:
                self._socket.close()
                raise

    def is_listening(self) -> bool:
        """Whether it waits for a request, as far as can be told; one that starts counts as such."""
        if not self._greeted:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        # It has ended, or says what nobody asked for.
        return False

    async def exchange(self, header: dict[str, str], body: bytes) -> bytes:
        """
        Send one request and read its answer.

        Raises:
            OSError, EOFError: it died.
            ValueError: an answer larger than any.
            ParseError: it cannot start.
        """
        await self._greeting()
        head = json.dumps(header).encode()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, REQUEST_HEAD.pack(len(head), len(body)) + head)
        await loop.sock_sendall(self._socket, body)
        return await self._answer()

    async def _greeting(self) -> None:
        """Wait until it is there; what keeps it from starting is not the fault of any feed."""
        if self._greeted:
            return
        try:
            await self._answer()
        except (OSError, EOFError):
            self._process.kill()
            status = self._process.wait()
            raise ParseError(
                f"the process that reads feeds and pages does not start (exit status {status});"
                f" look whether `{sys.executable} -I` runs here and can import what Penstock needs"
            ) from None
        self._greeted = True

    async def _answer(self) -> bytes:
        (length,) = ANSWER_HEAD.unpack(await self._receive(ANSWER_HEAD.size))
        if length > ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of {length} bytes")
        return await self._receive(length)

    async def _receive(self, length: int) -> bytes:
        """Exactly so many bytes, and no room for more than have come."""
        loop, received = asyncio.get_running_loop(), bytearray()
        while len(received) < length:
            some = await loop.sock_recv(self._socket, min(CHUNK_BYTES, length - len(received)))
            if not some:
                raise EOFError
            received += some
        return bytes(received)

    def kill(self) -> None:
        """It has nothing to lose."""
        self._process.kill()

    def end(self) -> None:
        """Leave nothing of it behind."""
        self.kill()
        self._process.wait()
        self._socket.close()
