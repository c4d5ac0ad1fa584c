"""Middleware between the server and all services: injects the faults of the rules into the requests that match."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from standins.faults import run_faults
from standins.faults.rules import ActiveRule, Answer, Faults, Json, now

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_EXCLUDED_PATHS = ("/health", "/faults", "/ledger")


def protocol(faults: Faults) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, extended so that connections can be reset."""

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.peer = transport.get_extra_info("peername")
            faults.transports[self.peer] = transport

        def connection_lost(self, error: Exception | None) -> None:
            faults.transports.pop(self.peer, None)
            super().connection_lost(error)

    return Protocol


def reset(transport: asyncio.WriteTransport) -> None:
    """Reset a connection: with a linger time of 0 the kernel sends RST instead of FIN."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class FaultInjection:
    """ASGI middleware around all services."""

    def __init__(self, app: App, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._faults.rules or scope["path"].startswith(_EXCLUDED_PATHS):
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            return  # the client disconnected before its request was complete
        peer = tuple(scope["client"]) if scope.get("client") else None
        replay = _replay(body, receive)
        port = scope["server"][1] if scope.get("server") else None
        match = self._faults.match(scope["method"], scope["path"], body, peer, port)
        if match is None:
            await self._app(scope, replay, send)
            return
        active, hit = match
        log.info("fault %s: %s %s: %s %s", active.number, hit["method"], hit["path"], hit["did"], hit["when"])
        if active.rule.do.run is not None:
            hit["state"] = "done"
            token = run_faults.REQUESTED.set(active.rule.do.run)
            try:
                await self._app(scope, replay, send)
            finally:
                run_faults.REQUESTED.reset(token)
        elif active.rule.when == "before":
            if await self._inject(active, hit, peer, receive, send):
                await self._app(scope, replay, send)
        else:
            response: list[Message] = []

            async def buffer(message: Message) -> None:
                response.append(message)

            await self._app(scope, replay, buffer)
            if await self._inject(active, hit, peer, receive, send):
                for message in response:
                    await send(message)

    async def _inject(
        self, active: ActiveRule, hit: Json, peer: tuple[str, int] | None, receive: Receive, send: Send
    ) -> bool:
        """Inject the fault. True when the request continues afterwards."""
        do = active.rule.do
        if do.answer is not None:
            await _send_answer(do.answer, send)
        elif do.reset:
            transport = self._faults.transports.get(peer) if peer else None
            if transport is None:
                raise RuntimeError(
                    f"the connection from {peer} is unknown: only connections to this server can be reset"
                )
            reset(transport)
            await _wait_for_disconnect(receive)
        elif do.wait is not None:
            hit["state"] = "waiting"
            return await _pause(hit, do.wait, asyncio.Event(), receive)
        elif do.hold is not None:
            hit["state"] = "held"
            return await _pause(hit, do.hold, active.released, receive)
        hit["state"] = "done"
        return False


async def _pause(hit: Json, seconds: float, released: asyncio.Event, receive: Receive) -> bool:
    """Wait until the seconds have passed, the rule is deleted, or the client has disconnected (then False)."""
    gone, free = asyncio.ensure_future(_wait_for_disconnect(receive)), asyncio.ensure_future(released.wait())
    try:
        await asyncio.wait((gone, free), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hit["state"] = "client gone" if gone.done() else "went on"
        hit["ended"] = now()
        return not gone.done()
    finally:
        gone.cancel()
        free.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _send_answer(answer: Answer, send: Send) -> None:
    body = b"" if answer.content is None else json.dumps(answer.content).encode()
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
