"""A service with scripted responses, for tests of the wait that all services share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from remote.runs import RemoteRun
from remote.triggers import RemoteRunTrigger

GOING = RemoteRun("Scripted", "r1", "Running", url="https://example.org/r1")
DONE = RemoteRun("Scripted", "r1", "Succeeded", done=True, succeeded=True, url="https://example.org/r1")
FAILED = RemoteRun("Scripted", "r1", "Failed", done=True, detail="out of memory", url="https://example.org/r1")


@dataclass
class Service:
    """The results of its polls (the last one is repeated), and counts of what was requested."""

    results: list[RemoteRun | Exception]
    connection_errors: int = 0
    cancel_errors: int = 0
    uncancellable: str = ""
    polls: int = 0
    cancels: int = 0
    opened: int = 0
    closed: int = 0

    @property
    def is_closed(self) -> bool:
        return self.opened == self.closed


services: dict[str, Service] = {}


class ScriptedTrigger(RemoteRunTrigger):
    service = "Scripted"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Service]:
        service = services[self.run_id]
        if service.connection_errors:
            service.connection_errors -= 1
            raise ConnectionError("no route")
        service.opened += 1
        try:
            yield service
        finally:
            service.closed += 1

    async def poll(self, client: Service) -> RemoteRun:
        result = client.results[min(client.polls, len(client.results) - 1)]
        client.polls += 1
        if isinstance(result, Exception):
            raise result
        return result

    async def cancel(self, client: Service) -> str:
        client.cancels += 1
        if client.cancel_errors:
            client.cancel_errors -= 1
            raise ConnectionError("no route")
        return client.uncancellable
