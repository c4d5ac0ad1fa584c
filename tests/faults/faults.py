"""The stand-ins' switchable faults (`standins/faults/rules.py`) as tests use them: over HTTP, from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

Json = dict[str, Any]


class Faults:
    """The fault rules of running stand-ins."""

    def __init__(self, url: str, ca: Path) -> None:
        self._http = httpx.Client(base_url=url, verify=str(ca), trust_env=False, timeout=30)

    def add(
        self,
        do: Json,
        *,
        path: str = ".*",
        method: str = "GET|POST|PUT|PATCH|DELETE",
        body: str | None = None,
        when: str = "before",
        skip: int = 0,
        times: int | None = 1,
    ) -> int:
        """Add a rule; its id."""
        match = {"method": method, "path": path} | ({"body": body} if body else {})
        rule = {"match": match, "skip": skip, "times": times, "when": when, "do": do}
        answer = self._http.post("/faults", json=rule)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def rules(self) -> list[Json]:
        found: list[Json] = self._http.get("/faults").raise_for_status().json()["value"]
        return found

    def seen(self, rule: int) -> list[Json]:
        """Every request that matched a rule, in order, whether or not a fault was done to it."""
        (found,) = [one for one in self.rules() if one["id"] == rule]
        hits: list[Json] = found["hits"]
        return hits

    def hits(self, rule: int) -> list[Json]:
        """The requests that a rule's fault was done to."""
        return [hit for hit in self.seen(rule) if hit["did"]]

    def wait_for_hit(self, rule: int, number: int = 1, *, state: str | None = None, timeout: float = 120) -> Json:
        """The n-th request that meets a rule's fault, once it is there (and in that state, e.g. "held")."""

        def there() -> Json | None:
            hits = self.hits(rule)
            if len(hits) >= number and state in (None, hits[number - 1]["state"]):
                return hits[number - 1]
            return None

        return wait_for(there, f"request {number} at fault rule {rule} ({state or 'any state'})", timeout)

    def delete(self, rule: int) -> None:
        """Take a rule away; what it holds goes on."""
        self._http.delete(f"/faults/{rule}").raise_for_status()

    def clear(self) -> None:
        self._http.delete("/faults").raise_for_status()


def wait_for(there: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    """What `there` gives once it gives something; AssertionError when the time is over."""
    end = time.monotonic() + timeout
    while True:
        if found := there():
            return found
        assert time.monotonic() < end, f"{what}: not seen within {timeout:.0f} s"
        time.sleep(0.1)


def owners(port: int, to: int | None = None) -> list[psutil.Process]:
    """The processes that hold the connection whose own end is this port on loopback, parents first.

    `to` is the other end's port, where it is known: the kernel gives one port to several connections when they lead to
    different places, and on a busy machine the eldest holder of a port was a stranger.
    """
    pids = {
        one.pid
        for one in psutil.net_connections("tcp4")
        if one.pid and one.laddr and one.raddr and one.laddr.port == port and to in (None, one.raddr.port)
    }
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile: a killed one, or a fork of one that lives
            found.append(psutil.Process(pid))
    return sorted(found, key=lambda process: process.create_time())


def kill_holder(hit: Json) -> psutil.Process:
    """Kill (-9) the process whose request is held, and see it gone. Where a fork shares the connection, its parent."""
    host, port = hit["client_pid_hint"]
    found = owners(port)
    assert found, f"no process holds the connection {host}:{port} of {hit['method']} {hit['path']} any more"
    found[0].kill()
    wait_for(lambda: not is_alive(found[0]), f"the end of process {found[0].pid}", 10)
    return found[0]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command(process: psutil.Process | int) -> list[str]:
    """The words of its command line; none where it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return (psutil.Process(process) if isinstance(process, int) else process).cmdline()
    return []
