"""The CONNECT proxy: it forwards the host names of the cloud and refuses all others."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest


def _send(cloud: Any, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", cloud.proxy_port), timeout=5) as connection:
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("example.com:443", id="another-host"),
        pytest.param("127.0.0.1:443", id="this-machine"),
        pytest.param("management.azure.com:22", id="another-port"),
        pytest.param("management.azure.com.example.com:443", id="a-host-with-the-same-beginning"),
    ],
)
def test_forbidden(bare_cloud: Any, target: str) -> None:
    response = _send(bare_cloud, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert response.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"Its names: login.microsoftonline.com:443" in response


def test_plain_requests_are_not_implemented(bare_cloud: Any) -> None:
    assert _send(bare_cloud, b"GET http://management.azure.com/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 501 ")


def test_a_head_without_end_is_refused(bare_cloud: Any) -> None:
    assert _send(bare_cloud, b"CONNECT " + b"x" * 40_000).startswith(b"HTTP/1.1 400 ")


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
