"""Is it ready? Each check asks the service itself and says in words what is missing."""

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

_SECONDS = 10.0  # a small machine at work can take this long


def fetch(url: str, ca_file: Path | None = None) -> bytes:
    """GET without any proxy. Raises OSError (refused, timed out, an HTTP error)."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if ca_file is not None:
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file))))
    with urllib.request.build_opener(*handlers).open(url, timeout=_SECONDS) as response:
        content: bytes = response.read()
    return content


def http(url: str, answers: Callable[[], object] | None = None) -> Check:
    """Ready when a GET of `url` succeeds; `answers` replaces the plain GET, and raises OSError when it does not."""

    def check(_started: float) -> str | None:
        try:
            answers() if answers else fetch(url)
        except (OSError, ValueError) as error:
            return f"{url} does not answer: {error}"
        return None

    return check


def https(url: str, ca_file: Path) -> Check:
    """Ready when a GET of `url` succeeds over TLS, trusting `ca_file` only."""
    return http(url, lambda: fetch(url, ca_file))


def listening(*urls: str) -> Check:
    """Ready when every URL is answered at all, be it with an HTTP error: a service that wants signed requests."""

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
    """Ready when Airflow's health report has the component healthy by a heartbeat newer than this start.

    Older ones do not count: after a crash the report goes on saying healthy for half a minute.
    """

    def check(started: float) -> str | None:
        try:
            report: dict[str, Any] = json.loads(fetch(url))[component]
        except (OSError, ValueError, KeyError) as error:
            return f"{url} says nothing of the {component}: {error}"
        latest = report.get(f"latest_{component}_heartbeat")
        if report.get("status") != "healthy" or not latest:
            return f"{url} reports the {component} {report.get('status')}"
        if datetime.fromisoformat(latest).timestamp() < started:
            return f"the last heartbeat of the {component} is from {latest}, before this start"
        return None

    return check
