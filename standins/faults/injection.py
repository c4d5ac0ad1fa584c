"""Between the server and every service: requests that meet a rule of `standins.faults` have its fault done to them."""

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
from standins.faults.rules import Active, Answer, Faults, Json, now

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_SPARED = ("/health", "/faults", "/ledger")


def protocol(faults: Faults) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, whose connections can be reset."""

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
    """Reset a connection: without lingering the kernel sends RST instead of an orderly end."""
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
        if scope["type"] != "http" or not self._faults.rules or scope["path"].startswith(_SPARED):
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        if body is None:
            return  # the client left before it had asked
        peer = tuple(scope["client"]) if scope.get("client") else None
        replay = _replay(body, receive)
        met = self._faults.meet(scope["method"], scope["path"], body, peer)
        if met is None:
            await self._app(scope, replay, send)
            return
        active, hit = met
        log.info("fault %s: %s %s: %s %s", active.number, hit["method"], hit["path"], hit["did"], hit["when"])
        if active.rule.do.run is not None:
            hit["state"] = "done"
            token = run_faults.WANTED.set(active.rule.do.run)
            try:
                await self._app(scope, replay, send)
            finally:
                run_faults.WANTED.reset(token)
        elif active.rule.when == "before":
            if await self._act(active, hit, peer, receive, send):
                await self._app(scope, replay, send)
        else:
            answered: list[Message] = []

            async def keep(message: Message) -> None:
                answered.append(message)

            await self._app(scope, replay, keep)
            if await self._act(active, hit, peer, receive, send):
                for message in answered:
                    await send(message)

    async def _act(self, active: Active, hit: Json, peer: tuple[str, int] | None, receive: Receive, send: Send) -> bool:
        """Do the fault; whether the request then goes on."""
        do = active.rule.do
        if do.answer is not None:
            await _answer(do.answer, send)
        elif do.reset:
            transport = self._faults.transports.get(peer) if peer else None
            if transport is None:
                raise RuntimeError(f"no connection of {peer} is known: only those of the server can be reset")
            reset(transport)
            await _gone(receive)
        elif do.wait is not None:
            hit["state"] = "waiting"
            return await _pause(hit, do.wait, asyncio.Event(), receive)
        elif do.hold is not None:
            hit["state"] = "held"
            return await _pause(hit, do.hold, active.released, receive)
        hit["state"] = "done"
        return False


async def _pause(hit: Json, seconds: float, released: asyncio.Event, receive: Receive) -> bool:
    """Wait for the first of: the seconds are over, the rule was deleted, the client is gone (then False)."""
    gone, free = asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(released.wait())
    try:
        await asyncio.wait((gone, free), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hit["state"] = "client gone" if gone.done() else "went on"
        hit["ended"] = now()
        return not gone.done()
    finally:
        gone.cancel()
        free.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole_body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(answer: Answer, send: Send) -> None:
    body = b"" if answer.content is None else json.dumps(answer.content).encode()
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
