"""What a failed request says about itself, with any client library.

Azure's SDKs, requests and aiohttp each have exceptions of their own, and providers wrap them once more. This module
reads an exception's attributes instead of its class, so it imports none of these libraries.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

# Transient: request timeout, conflict, too early, too many requests.
TRANSIENT = (408, 409, 425, 429)
CLIENT_LIBRARIES = ("aiohttp", "azure", "requests", "urllib3")  # their exceptions mean a failed request

MIN_PAUSE = 1.0  # seconds between the first two requests; grows by half each time
MAX_PAUSE = 30.0  # seconds between two requests
MAX_FAILURES = 20  # in a row: a service may be unreachable for about eight minutes


@dataclass(frozen=True)
class ErrorResponse:
    """A service's response to a failed request. `status` 0: no response came, so whether the work was done is unknown."""

    status: int = 0
    code: str = ""
    message: str = ""
    wait: float | None = None  # seconds that the client must wait before the next request

    @property
    def refused(self) -> bool:
        """Not retryable: bad credentials, a missing role, a wrong name."""
        return 400 <= self.status < 500 and self.status not in TRANSIENT

    @property
    def not_done(self) -> bool:
        """Rejected before any work, so a repeated request cannot do it twice. After a 5xx this is unknown."""
        return 400 <= self.status < 500

    @property
    def gone(self) -> bool:
        return self.status in (404, 410)

    def __str__(self) -> str:
        if not self.status:
            return "no response"
        return " ".join(part for part in (str(self.status), self.code and f"{self.code}:", self.message) if part)


def read_response(error: BaseException) -> ErrorResponse | None:
    """The service's response; one with status 0 when none came; None when the error is not a failed request."""
    chain = list(_causes(error))
    for cause in chain:
        if _is_from_a_client(cause) and (status := _status(cause)):
            return _read(cause, status)
    if any(isinstance(cause, OSError) or _is_from_a_client(cause) for cause in chain):
        return ErrorResponse()
    return None


def pause_after(failures: int, wait: float | None = None) -> float:
    """Seconds until the next request after that many failures in a row; never less than the service demands (`wait`).

    Up to half of it is added at random, so that many waiting tasks do not return at once.
    """
    growing = min(MAX_PAUSE, MIN_PAUSE * 1.5 ** (failures - 1))
    return max(growing, wait or 0.0) + random.uniform(0, growing / 2)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        attempt = getattr(error, "last_attempt", None)  # tenacity's RetryError keeps the cause there
        error = attempt.exception() if attempt is not None else error.__cause__


def _is_from_a_client(error: BaseException) -> bool:
    """Whether a client library raised it. Airflow's own exceptions have a status_code too, for its web server."""
    return type(error).__module__.split(".")[0] in CLIENT_LIBRARIES


def _status(error: BaseException) -> int:
    """Azure: status_code; aiohttp: status; requests: the response's."""
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status_code", None),
        getattr(error, "status", None),
        _attribute(response, "status_code"),
    ):
        if isinstance(status, int) and status >= 400:
            return status
    return 0


def _attribute(of: Any, name: str) -> Any:
    return getattr(of, name, None)


def _read(error: BaseException, status: int) -> ErrorResponse:
    response = getattr(error, "response", None)
    headers = _attribute(response, "headers") or getattr(error, "headers", None) or {}
    code, message = _code_and_message(error, response)
    return ErrorResponse(status, code, message, _wait_seconds(headers))


def _code_and_message(error: BaseException, response: Any) -> tuple[str, str]:
    """Code and message of the service's own error."""
    parsed = getattr(error, "error", None)  # azure-core has parsed it already
    if message := _attribute(parsed, "message"):
        return str(_attribute(parsed, "code") or ""), str(message)
    try:
        body: Any = response.json()
    except Exception:  # noqa: BLE001 - no body, no JSON, or consumed already: the exception's own message remains
        body = None
    if isinstance(body, dict):
        inner: dict[str, Any] = body["error"] if isinstance(body.get("error"), dict) else body
        code = inner.get("code") or body.get("error_code") or ""
        if message := inner.get("message") or body.get("error_description"):
            return str(code), str(message)
    return "", str(getattr(error, "message", "") or error)


def _wait_seconds(headers: Mapping[str, str]) -> float | None:
    lowered = {name.lower(): value for name, value in headers.items()}
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if name in lowered:
            return _seconds(lowered[name], None, 1000)
    return _seconds(lowered["retry-after"], lowered.get("date")) if "retry-after" in lowered else None


def _seconds(text: str, date: str | None, unit: int = 1) -> float | None:
    """Parse seconds or an HTTP date; a date is compared with the service's own clock (`date`) where the response has it."""
    try:
        return max(0.0, float(text) / unit)
    except ValueError:
        pass
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):  # neither form: there is no time to wait for
        return None
