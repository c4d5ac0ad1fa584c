"""The stand-ins' fault rules (`standins/faults/rules.py`) as tests use them: over HTTP, from outside."""

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
        """Add a rule; returns its id."""
        match = {"method": method, "path": path} | ({"body": body} if body else {})
        rule = {"match": match, "skip": skip, "times": times, "when": when, "do": do}
        response = self._http.post("/faults", json=rule)
        assert response.status_code == 201, response.text
        return int(response.json()["id"])

    def rules(self) -> list[Json]:
        rules: list[Json] = self._http.get("/faults").raise_for_status().json()["value"]
        return rules

    def matches(self, rule: int) -> list[Json]:
        """Every request that matched a rule, in order, whether or not the fault was applied to it."""
        (entry,) = [entry for entry in self.rules() if entry["id"] == rule]
        requests: list[Json] = entry["hits"]
        return requests

    def hits(self, rule: int) -> list[Json]:
        """The requests that a rule's fault was applied to."""
        return [hit for hit in self.matches(rule) if hit["did"]]

    def wait_for_hit(self, rule: int, number: int = 1, *, state: str | None = None, timeout: float = 120) -> Json:
        """The n-th request that a rule's fault was applied to, once it has come (and is in that state, e.g. "held")."""

        def nth_hit() -> Json | None:
            hits = self.hits(rule)
            if len(hits) >= number and state in (None, hits[number - 1]["state"]):
                return hits[number - 1]
            return None

        return wait_for(nth_hit, f"request {number} at fault rule {rule} ({state or 'any state'})", timeout)

    def delete(self, rule: int) -> None:
        """Remove a rule; the requests that it holds go on."""
        self._http.delete(f"/faults/{rule}").raise_for_status()

    def clear(self) -> None:
        self._http.delete("/faults").raise_for_status()


def wait_for(poll: Callable[[], Any], what: str, timeout: float = 120) -> Any:
    """The first true result of `poll`. Raises AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        if result := poll():
            return result
        assert time.monotonic() < end, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.1)


def owners(port: int, to: int | None = None) -> list[psutil.Process]:
    """The processes that hold the connection whose own end is this port on loopback, parents first.

    `to` is the other end's port, where it is known: the kernel gives one port to several connections when their other
    ends differ, and on a busy machine the oldest holder of a port was an unrelated process.
    """
    pids = {
        end.pid
        for end in psutil.net_connections("tcp4")
        if end.pid and end.laddr and end.raddr and end.laddr.port == port and to in (None, end.raddr.port)
    }
    processes = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile: a killed process, or a fork of a living one
            processes.append(psutil.Process(pid))
    return sorted(processes, key=lambda process: process.create_time())


def kill_holder(hit: Json) -> psutil.Process:
    """Kill (-9) the process whose request is held and wait for its end. Where a fork shares the connection: its parent."""
    host, port = hit["client_pid_hint"]
    processes = owners(port, hit["server_port"])
    assert processes, f"no process holds the connection {host}:{port} of {hit['method']} {hit['path']} any more"
    processes[0].kill()
    wait_for(lambda: not is_alive(processes[0]), f"the end of process {processes[0].pid}", 10)
    return processes[0]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command(process: psutil.Process | int) -> list[str]:
    """The words of a process's command line; none when it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return (psutil.Process(process) if isinstance(process, int) else process).cmdline()
    return []
