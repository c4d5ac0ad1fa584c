"""The server process: health, errors, TLS, the ledger page, its end and its restart."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest


class TestProcess:
    def test_health(self, bare_cloud: Any) -> None:
        with bare_cloud.http() as http:
            assert http.get("/health").json() == {"status": "ok"}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            pytest.param("GET", "/no/such/path", id="unknown-path"),
            pytest.param("DELETE", "/health", id="unknown-method-of-a-known-path"),
            pytest.param("PROPFIND", "/health", id="unknown-method"),
        ],
    )
    def test_an_unimplemented_route_returns_501_with_method_and_path(
        self, bare_cloud: Any, method: str, path: str
    ) -> None:
        with bare_cloud.http() as http:
            response = http.request(method, path)
        assert response.status_code == 501
        message = f"{method} {path} is not implemented by this stand-in"
        assert response.json() == {"error": {"code": "NotImplemented", "message": message}}

    def test_the_certificate_passes_a_strict_check(self, bare_cloud: Any) -> None:
        context = ssl.create_default_context(cafile=str(bare_cloud.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
        with (
            socket.create_connection(("127.0.0.1", bare_cloud.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="management.azure.com") as secure,
        ):
            assert secure.version() == "TLSv1.3"

    def test_without_the_authority_the_certificate_is_not_trusted(self, bare_cloud: Any) -> None:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{bare_cloud.url}/health", trust_env=False)

    def test_the_ledger_is_a_page_for_people(self, bare_cloud: Any) -> None:
        with bare_cloud.http() as http:
            response = http.get("/ledger")
        assert response.headers["content-type"].startswith("text/html")
        assert "<table>" in response.text

    def test_sigterm_ends_the_process_in_time(self, standins_of: Callable[..., Any], nowhere: Any) -> None:
        cloud = standins_of(nowhere)
        idle = socket.create_connection(("127.0.0.1", cloud.proxy_port))  # an open tunnel must not delay the end
        began = time.monotonic()
        assert cloud.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 20  # without the signal an open tunnel never ends
        idle.close()

    def test_a_taken_port_is_named(self, standins_of: Callable[..., Any], nowhere: Any, bare_cloud: Any) -> None:
        cloud = standins_of(nowhere)
        cloud.stop()
        cloud.port = bare_cloud.port
        with pytest.raises(RuntimeError, match=f"{bare_cloud.port} cannot be listened on"):
            cloud.start()

    def test_a_token_from_before_a_kill_is_valid_after_it(self, standins_of: Callable[..., Any], nowhere: Any) -> None:
        cloud = standins_of(nowhere)
        token, ca = cloud.token(), cloud.ca.read_bytes()
        cloud.stop(signal.SIGKILL)
        cloud.start()
        with cloud.http() as http:
            headers = {"Authorization": f"Bearer {token}"}
            response = http.get("/subscriptions?api-version=2022-12-01", headers=headers)
        assert response.status_code == 200
        assert cloud.ca.read_bytes() == ca
        assert json.loads((cloud.state / "address.json").read_text())["port"] == cloud.port
