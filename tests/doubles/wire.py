"""
How a double is reached: over a loopback socket, or in process through an httpx transport.

A double decides what to answer; this module carries the answer, or spoils it, as told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

import h11
import httpx

TRICKLE_S = 0.05
ENDLESS_CHUNK_BYTES = 16_384


class Fault(Enum):
    """How the connection misbehaves while an answer is delivered."""

    NONE = auto()
    RESET = auto()  # TCP RST before any byte
    DROP = auto()  # closed without answering
    STALL = auto()  # headers and half the body, then silence
    TRICKLE = auto()  # the body one byte at a time
    CUT = auto()  # the whole length promised, half of it sent, then closed


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are lower case, the target is as it was sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query, percent-decoded as UTF-8."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The target's query, the last value of each name."""
        return dict(parse_qsl(self.target.partition("?")[2]))

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError where it is none."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back, after how many seconds, and how to spoil it on the way."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: Fault = Fault.NONE
    delay_s: float = 0.0
    endless: bool = False  # the body is repeated until the client leaves

    @classmethod
    def of(cls, value: object, status: int = 200, **headers: str) -> Answer:
        """An answer that carries a value as JSON; `retry_after="3"` becomes a header."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        body = json.dumps(value, ensure_ascii=False).encode()
        return cls(status, {"content-type": "application/json", **named}, body)

    @property
    def framed(self) -> dict[str, str]:
        """The headers with the length added, where the answer has one."""
        if self.endless or self.status in (204, 304):
            return dict(self.headers)
        # Half of an empty body would be all of it, so a spoiled one promises a byte.
        spoiled = self.fault in (Fault.STALL, Fault.CUT)
        return {**self.headers, "content-length": str(max(len(self.body), int(spoiled)))}

    @property
    def unit(self) -> bytes:
        """What an endless body repeats."""
        seed = self.body or b"x"
        return seed * max(1, ENDLESS_CHUNK_BYTES // len(seed))


class Double(Protocol):
    """Something that answers requests; called on one thread, so its state needs no lock."""

    async def handle(self, request: Request) -> Answer:
        """Answer one request. An exception becomes a 500 that names it."""
        ...


async def _ask(double: Double, request: Request) -> Answer:
    try:
        return await double.handle(request)
    except Exception as problem:  # a broken double should show in the test, not hang it
        traceback.print_exc()
        return Answer.of({"error": f"the double failed: {problem!r}"}, 500)


# Over a socket


@dataclass(frozen=True, slots=True)
class Address:
    """Where a served double listens."""

    port: int
    scheme: str = "http"
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """The root, without a trailing slash."""
        return f"{self.scheme}://{self.host}:{self.port}"


@contextmanager
def serve(
    double: Double, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Address]:
    """
    Serve a double from a background thread; port 0 picks a free one.

    Args:
        tls: With its certificate loaded; None serves plain HTTP.

    Leaving the block cuts every open connection and joins the thread.
    Raises OSError where the port is taken.
    """
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_listen(double, host, port, tls, ready)),
        name="double",
        daemon=True,
    )
    thread.start()
    try:
        bound, loop, stop = ready.result()
    except OSError:
        thread.join()
        raise
    try:
        yield Address(bound, "https" if tls else "http", host)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _listen(
    double: Double,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    talks: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, h11.RemoteProtocolError):
            await _Talk(double, reader, writer).run()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def ended(talk: asyncio.Task[None]) -> None:
            # Not at the end of the talk itself: one cancelled before its first step has no end.
            writer.close()
            talks.discard(talk)

        talk = asyncio.create_task(converse(reader, writer))
        talks.add(talk)
        talk.add_done_callback(ended)

    try:
        server = await asyncio.start_server(accept, host, port, ssl=tls)
    except OSError as problem:
        ready.set_exception(problem)
        return
    stop = asyncio.Event()
    ready.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
    await stop.wait()
    # No more are taken, and one that is being taken right now becomes a talk, for it to be
    # closed: a server that is closed first, or a cancel before the first step, forgets it open.
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    await asyncio.sleep(0)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for other in others:
            other.cancel()
        await asyncio.wait(others)
    server.close()


@dataclass(slots=True)
class _Talk:
    """One connection, kept alive for as many requests as the client cares to send."""

    double: Double
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER))

    async def run(self) -> None:
        while (request := await self._read()) is not None:
            answer = await _ask(self.double, request)
            await asyncio.sleep(answer.delay_s)
            await self._deliver(request, answer)
            if (self.http.our_state, self.http.their_state) != (h11.DONE, h11.DONE):
                return
            self.http.start_next_cycle()

    async def _read(self) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self.http.receive_data(await self.reader.read(65_536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, bytes(body))
            else:
                return None

    async def _deliver(self, request: Request, answer: Answer) -> None:
        if answer.fault is Fault.RESET:
            self._reset()
        if answer.fault in (Fault.RESET, Fault.DROP):
            return
        headers = [
            (name.encode(), value.encode("latin-1")) for name, value in answer.framed.items()
        ]
        await self._send(h11.Response(status_code=answer.status, headers=headers))
        if request.method != "HEAD" and answer.status not in (204, 304):
            await self._deliver_body(answer)
        if answer.fault not in (Fault.STALL, Fault.CUT):
            await self._send(h11.EndOfMessage())

    async def _deliver_body(self, answer: Answer) -> None:
        half = answer.body[: len(answer.body) // 2]
        if answer.endless:
            while True:
                await self._send(h11.Data(data=answer.unit))
        elif answer.fault is Fault.TRICKLE:
            for byte in answer.body:
                await self._send(h11.Data(data=bytes([byte])))
                await asyncio.sleep(TRICKLE_S)
        elif answer.fault is Fault.CUT:
            await self._send(h11.Data(data=half))
        elif answer.fault is Fault.STALL:
            await self._send(h11.Data(data=half))
            while await self.reader.read(65_536):
                pass
        else:
            await self._send(h11.Data(data=answer.body))

    async def _send(self, event: h11.Event) -> None:
        self.writer.write(self.http.send(event) or b"")
        await self.writer.drain()

    def _reset(self) -> None:
        # Zero linger makes the kernel answer close() with RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


# In process


@dataclass(slots=True)
class InProcess(httpx.AsyncBaseTransport):
    """
    Hosts answered by doubles, without a socket, at the pace of the running loop's clock.

    Waiting is asyncio.sleep and the read timeout of a request holds, so a loop that jumps
    to its next deadline can drive it. A host without a double refuses the connection.
    """

    routes: Mapping[str, Double]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the wire would; faults come out as the httpx errors they cause."""
        double = self.routes.get(request.url.host)
        if double is None:
            raise httpx.ConnectError(f"no double for {request.url.host}", request=request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        target = request.url.raw_path.decode("ascii")
        asked = Request(request.method, target, headers, await request.aread())
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("read")):
                answer = await self._wait_for(double, asked)
        except TimeoutError as late:
            raise httpx.ReadTimeout("the double did not answer", request=request) from late
        if answer.fault is Fault.RESET:
            raise httpx.ReadError("connection reset by peer", request=request)
        if answer.fault is Fault.DROP:
            raise httpx.RemoteProtocolError("disconnected without a response", request=request)
        if answer.fault is Fault.CUT:
            raise httpx.RemoteProtocolError("closed before the body was complete", request=request)
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        stream = _Body(Answer() if bodiless else answer)
        return httpx.Response(answer.status, headers=answer.framed, stream=stream, request=request)

    async def _wait_for(self, double: Double, asked: Request) -> Answer:
        answer = await _ask(double, asked)
        await asyncio.sleep(answer.delay_s)
        if answer.fault is Fault.STALL:
            # A future nobody resolves leaves no timer behind for a virtual clock to jump to.
            await asyncio.get_running_loop().create_future()
        return answer


@dataclass(slots=True)
class _Body(httpx.AsyncByteStream):
    answer: Answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.answer.endless:
            while True:
                yield self.answer.unit
                await asyncio.sleep(0)
        elif self.answer.fault is Fault.TRICKLE:
            for byte in self.answer.body:
                await asyncio.sleep(TRICKLE_S)
                yield bytes([byte])
        else:
            yield self.answer.body
