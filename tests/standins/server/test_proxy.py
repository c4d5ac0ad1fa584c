"""The CONNECT proxy: the cloud's names and nothing else."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest


def _say(cloud: Any, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", cloud.proxy_port), timeout=5) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("example.com:443", id="another-host"),
        pytest.param("127.0.0.1:443", id="this-machine"),
        pytest.param("management.azure.com:22", id="another-port"),
        pytest.param("management.azure.com.example.com:443", id="a-host-that-starts-alike"),
    ],
)
def test_forbidden(bare_cloud: Any, target: str) -> None:
    answer = _say(bare_cloud, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"It has: login.microsoftonline.com:443" in answer


def test_plain_requests_are_not_implemented(bare_cloud: Any) -> None:
    assert _say(bare_cloud, b"GET http://management.azure.com/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 501 ")


def test_an_endless_head_is_cut_off(bare_cloud: Any) -> None:
    assert _say(bare_cloud, b"CONNECT " + b"x" * 40_000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "host",
    [
        "login.microsoftonline.com",
        "management.azure.com",
        "api.powerbi.com",
        "westeurope.api.azureml.ms",
        "adb-1.1.azuredatabricks.net",
    ],
)
def test_the_clouds_names_reach_the_standins(bare_cloud: Any, host: str) -> None:
    with httpx.Client(
        proxy=f"http://127.0.0.1:{bare_cloud.proxy_port}", verify=str(bare_cloud.ca), trust_env=False
    ) as http:
        assert http.get(f"https://{host}/health").json() == {"status": "ok"}
