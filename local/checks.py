"""Readiness checks. Each one asks the service itself and returns what is missing, as a sentence."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from local.unit import Check

_SECONDS = 10.0  # a small busy machine can take this long


def fetch(url: str, ca_file: Path | None = None) -> bytes:
    """GET without any proxy. Raises OSError (refused, timed out, an HTTP error)."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_file is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))))
    with urllib.request.build_opener(*handlers).open(url, timeout=_SECONDS) as response:
        content: bytes = response.read()
    return content


def http(url: str, request: Callable[[], object] | None = None) -> Check:
    """Ready when a GET of `url` succeeds; `request` replaces the plain GET and raises OSError when it fails."""

    def check(_started: float) -> str | None:
        try:
            request() if request else fetch(url)
        except (OSError, ValueError) as error:
            return f"{url} does not answer: {error}"
        return None

    return check


def https(url: str, ca_file: Path) -> Check:
    """Ready when a GET of `url` succeeds over TLS, trusting `ca_file` only."""
    return http(url, lambda: fetch(url, ca_file))


def listening(*urls: str) -> Check:
    """Ready when every URL responds at all, even with an HTTP error, as a service does that accepts only signed requests."""

    def check(_started: float) -> str | None:
        for url in urls:
            try:
                fetch(url)
            except urllib.error.HTTPError:
                continue
            except OSError as error:
                return f"{url} does not answer: {error}"
        return None

    return check


def heartbeat(url: str, component: str) -> Check:
    """Ready when Airflow's health report shows the component as healthy with a heartbeat newer than this start.

    Older heartbeats do not count: for half a minute after a crash the report still shows the component as healthy.
    """

    def check(started: float) -> str | None:
        try:
            report: dict[str, Any] = json.loads(fetch(url))[component]
        except (OSError, ValueError, KeyError) as error:
            return f"{url} does not report the {component}: {error}"
        latest = report.get(f"latest_{component}_heartbeat")
        if report.get("status") != "healthy" or not latest:
            return f"{url} reports the {component} {report.get('status')}"
        if datetime.fromisoformat(latest).timestamp() < started:
            return f"the last heartbeat of the {component} is from {latest}, before this start"
        return None

    return check
