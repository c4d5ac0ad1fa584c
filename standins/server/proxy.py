"""A CONNECT proxy that forwards the cloud's host names to the stand-ins.

With `HTTPS_PROXY` set to this proxy, an unmodified SDK that connects to management.azure.com reaches this machine.
The proxy only forwards bytes: TLS is between client and server.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from standins.faults.injection import reset
from standins.server.certificates import HOSTS

log = logging.getLogger(__name__)

_HEAD_LIMIT = 16 * 1024
_HEAD_SECONDS = 10


class Proxy:
    """Serves CONNECT on a listening socket. `target` is the host and port of the TLS server.

    `clients` maps each local port of a connection to the server to the address of its client and the proxy's own port; it
    is kept up to date.
    """

    def __init__(self, target: tuple[str, int], clients: dict[int, tuple[tuple[str, int], int]] | None = None) -> None:
        self._target = target
        self._clients = {} if clients is None else clients
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=_HEAD_LIMIT)

    async def stop(self) -> None:
        """Close the listener and every tunnel."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            await self._tunnel(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one side disconnected, or the proxy is stopping: the tunnel ends in both cases
        finally:
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            await _refuse(writer, 400, "Bad Request", "A complete CONNECT request is required.")
            return
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        host, _, port = rest.partition(" ")[0].rpartition(":")
        if method != "CONNECT":
            await _refuse(writer, 501, "Not Implemented", f"{method} is not implemented by this proxy: use CONNECT.")
            return
        if host.lower() not in HOSTS or port != "443":
            known = ", ".join(f"{name}:443" for name in HOSTS)
            log.warning("refused CONNECT to %s:%s", host, port)
            await _refuse(
                writer, 403, "Forbidden", f"{host}:{port} does not belong to the local cloud. Its names: {known}."
            )
            return
        try:
            remote_reader, remote_writer = await asyncio.open_connection(*self._target)
        except OSError as error:
            await _refuse(writer, 502, "Bad Gateway", f"The stand-ins do not respond at {self._target}: {error}.")
            return
        own_port = remote_writer.get_extra_info("sockname")[1]
        self._clients[own_port] = writer.get_extra_info("peername"), writer.get_extra_info("sockname")[1]
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await asyncio.gather(_pump(reader, remote_writer), _pump(remote_reader, writer))
        except ConnectionResetError:
            reset(writer.transport)  # a reset of one side is passed on to the other side
            reset(remote_writer.transport)
        finally:
            del self._clients[own_port]
            remote_writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(64 * 1024):
        sink.write(chunk)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def _refuse(writer: asyncio.StreamWriter, status: int, reason: str, message: str) -> None:
    body = (message + "\n").encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
