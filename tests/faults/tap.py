"""A proxy in front of HTTP services that records every change that a process requests, and can kill the process at one.

Each client connection is joined to its own connection to the service behind, and forwarded byte for byte; only the
frames of HTTP/1.1 are read. A request that changes something is recorded with the process that sent it. A `Trap` waits
for one of them and kills the process, either before the service receives the request, or after the service has responded
and before the process reads the response.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import psutil

from tests.support.cloud.faults import owners

CHANGING = ("POST", "PUT", "PATCH", "DELETE")

# Requests that are not recorded, and why.
LEFT_OUT = (
    (
        r"/api/2\.0/mlflow/[a-z-]+/(search|get|get-history|get-latest-versions)$",
        "MLflow reads by POST; nothing changes",
    ),
    (r"/api/2\.0/mlflow/logged-models/search$", "the same"),
    (r"/heartbeat$", "reports only that the process lives; the next one reports it again"),
    (r" renew$", "a lease's holder reports that it lives"),
    (r"/rtif$", "a task's rendered templates, for display; each try writes them again"),
)

# Parts of a path that differ from run to run, in the order in which they are replaced.
_VARYING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "*"),
    (r"m-[0-9a-f]{32}|[0-9a-f]{32,64}", "*"),
    (r"part-\d{5}-\*(-c\d+)?", "part-*"),
    (r"(?<=_delta_log/)\d{20}(?=\.json|\.checkpoint)", "{version}"),
    (r"(?<=ops/_ready/)([^/]+)/\d{4}-\d{2}-\d{2}-[0-9a-f]{16}", r"\1/{day}-*"),
    (r"\d{4}-\d{2}(-\d{2})?(?=[./]|$)", "{day}"),
    (r"-[0-9a-f]{10}-g\d+", "-*"),
    (r"(scheduled|manual|asset_triggered|backfill)__[^/]+", "{run}"),
    (r"version-\d+", "version-{n}"),
    (r"(?<=reports/models/)([^/]+)/\d+\.html", r"\1/{n}.html"),
)


def normalise(target: str) -> str:
    """A request's target without the parts that differ from run to run; of the query only the operation (`comp`)."""
    parts = urlsplit(target)
    path = re.sub(r"%[0-9A-Fa-f]{2}", lambda escape: bytes.fromhex(escape[0][1:]).decode("latin-1"), parts.path)
    for pattern, name in _VARYING:
        path = re.sub(pattern, name, path)
    operation = dict(parse_qsl(parts.query)).get("comp")
    return f"{path}?comp={operation}" if operation else path


@dataclass(frozen=True)
class Change:
    """One request that changes something, and the process that sent it."""

    service: str
    method: str
    name: str  # the normalised path
    process: psutil.Process | None
    at: float  # seconds since the epoch

    @property
    def kind(self) -> str:
        return f"{self.service} {self.method} {self.name}"


@dataclass
class Trap:
    """Springs at the n-th (from 1) change that fits, and kills the `victims` of the process that sent it."""

    fits: Callable[[Change], bool]
    number: int = 1
    when: str = "before"
    delay: float = 0.0  # seconds between the moment and the kill
    victims: Callable[[psutil.Process], list[psutil.Process]] = lambda process: [process]
    count: int = 0  # of the changes that fit, so far
    sprung: threading.Event = field(default_factory=threading.Event)
    change: Change | None = None

    def meets(self, change: Change) -> bool:
        if self.sprung.is_set() or change.process is None or not self.fits(change):
            return False
        self.count += 1
        return self.count == self.number

    def spring(self, change: Change) -> None:
        assert change.process is not None
        time.sleep(self.delay)
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self.victims(change.process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.change = change
        self.sprung.set()


class Tap:
    """Listens on its own port for each service; `changes` grows, `traps` may be set at any time."""

    def __init__(self, services: dict[str, int], listen: dict[str, int] | None = None) -> None:
        self._behind = services
        self._wanted = listen or {}
        self.ports: dict[str, int] = {}
        self.changes: list[Change] = []
        self.traps: list[Trap] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap", daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        for service in self._behind:
            asyncio.run_coroutine_threadsafe(self._listen(service), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _listen(self, service: str) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._join(service, reader, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", self._wanted.get(service, 0), limit=1 << 20)
        self.ports[service] = server.sockets[0].getsockname()[1]

    async def _join(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind[service], limit=1 << 20)
        caller: psutil.Process | None = None
        try:
            while head := await _head(reader):
                method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
                trap, change = None, None
                action = _field(head, b"x-ms-lease-action").decode()
                path = f"{urlsplit(target).path} {action}".strip()
                if method in CHANGING and not any(re.search(pattern, path) for pattern, _ in LEFT_OUT):
                    port = writer.get_extra_info("peername")[1]
                    caller = caller or await asyncio.to_thread(_caller, port, self.ports[service])
                    change = Change(service, method, f"{normalise(target)} {action}".strip(), caller, time.time())
                    self.changes.append(change)
                    trap = next((trap for trap in self.traps if trap.meets(change)), None)
                if trap and change and trap.when == "before":
                    await asyncio.to_thread(trap.spring, change)
                    return  # the service never receives it
                behind_writer.write(head)
                interim = await self._forward_request_body(head, reader, behind_writer, behind_reader, writer)
                response = interim or await _head(behind_reader)
                while response.startswith(b"HTTP/1.1 1"):  # 100 Continue
                    writer.write(response)
                    response = await _head(behind_reader)
                if not response:
                    return
                sink = _Sink() if trap else writer
                sink.write(response)
                ended = await _forward(response, behind_reader, sink, no_body=method == "HEAD")
                if trap and change:
                    await asyncio.to_thread(trap.spring, change)
                    return  # nobody reads the response
                await writer.drain()
                if ended:
                    return
        finally:
            behind_writer.close()

    async def _forward_request_body(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        behind_writer: asyncio.StreamWriter,
        behind_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Forward a request's body; where the client expects `100 Continue`, the service's interim response first."""
        if _field(head, b"expect").lower() == b"100-continue":
            interim = await _head(behind_reader)
            if not interim.startswith(b"HTTP/1.1 100"):
                return interim
            writer.write(interim)
        await _forward(head, reader, behind_writer, no_body=False, request=True)
        await behind_writer.drain()
        return b""


class _Sink:
    def write(self, data: bytes) -> None:
        """Discard it."""

    async def drain(self) -> None:
        """Nothing to wait for."""


def _caller(port: int, to: int) -> psutil.Process | None:
    """The process behind a connection, by the ports of its ends; of several that share it (forks), the oldest."""
    processes = owners(port, to)
    return processes[0] if processes else None


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the empty line; b"" when the other end has closed."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


async def _forward(
    head: bytes,
    source: asyncio.StreamReader,
    sink: _Sink | asyncio.StreamWriter,
    *,
    no_body: bool,
    request: bool = False,
) -> bool:
    """Forward the body that belongs to a head. True when the body ends with the connection."""
    status = b"" if request else head.split(b" ", 2)[1]
    if no_body or status in (b"204", b"304"):
        return _field(head, b"connection").lower() == b"close"
    if _field(head, b"transfer-encoding").lower() == b"chunked":
        while True:
            line = await source.readuntil(b"\r\n")
            sink.write(line)
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            sink.write(await source.readexactly(size + 2))
            await sink.drain()
        sink.write(await source.readuntil(b"\r\n"))  # no trailers are in use here
    elif length := _field(head, b"content-length"):
        left = int(length)
        while left:
            part = await source.read(min(left, 1 << 16))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            sink.write(part)
            await sink.drain()
            left -= len(part)
    elif not request:
        while part := await source.read(1 << 16):
            sink.write(part)
        return True
    return _field(head, b"connection").lower() == b"close"
