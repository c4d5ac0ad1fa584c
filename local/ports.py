"""Ports that the machine needs and another process uses: which one, whose it is, and the variable that changes it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import psutil

from local.settings import PORTS, Settings


def taken(settings: Settings, names: Iterable[str]) -> list[str]:
    """A sentence for each of these ports of `settings.PORTS` on which another process listens."""
    return [_sentence(name, settings.ports[name]) for name in names if not _free(settings.ports[name])]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: ports of just closed connections are free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                raise PermissionError(f"port {port} cannot be used: only root may listen below 1024") from error
            raise
    return True


def _sentence(name: str, number: int) -> str:
    port = PORTS[name]
    return (
        f"Port {number}, needed for {port.service}, is used by {_owner(number)}. "
        f"End that process, or choose another port: {port.variable}=<number>."
    )


def _owner(number: int) -> str:
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (number,) and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline()) or process.name()
                return f"pid {connection.pid} of user {process.username()} ({command[:120]})"
            except psutil.Error:
                continue
    return "another user's process"
