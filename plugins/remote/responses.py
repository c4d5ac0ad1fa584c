"""What a request that failed says about itself, whichever client library raised it.

Azure's SDKs, requests and aiohttp each have exceptions of their own, and providers wrap them once more.
They are read by what they carry, not by their classes, so that no library is imported to ask.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

# They may pass as quickly as they came: request timeout, conflict, too early, too many requests.
PASSING = (408, 409, 425, 429)
CLIENTS = ("aiohttp", "azure", "requests", "urllib3")  # libraries whose exceptions tell of a request that failed

OFTEN = 1.0  # seconds between two requests at first; grows by half each time
SELDOM = 30.0  # seconds between two requests at most
PATIENCE = 20  # failures in a row: about eight minutes of a service being away


@dataclass(frozen=True)
class Answer:
    """A service's answer to a request that failed. `status` 0 is no answer: whether the work was done is unknown."""

    status: int = 0
    code: str = ""
    message: str = ""
    wait: float | None = None  # seconds that the service asks its client to wait

    @property
    def refused(self) -> bool:
        """The same again would be refused again: bad credentials, a role that is missing, a name that is wrong."""
        return 400 <= self.status < 500 and self.status not in PASSING

    @property
    def not_done(self) -> bool:
        """Turned away before any work, so asking again cannot do it twice. After a 5xx nobody knows."""
        return 400 <= self.status < 500

    @property
    def gone(self) -> bool:
        return self.status in (404, 410)

    def __str__(self) -> str:
        if not self.status:
            return "no answer"
        return " ".join(part for part in (str(self.status), self.code and f"{self.code}:", self.message) if part)


def read_answer(error: BaseException) -> Answer | None:
    """What the service answered; an `Answer` without a status when none came; None when it was no request that failed."""
    chain = list(_causes(error))
    for each in chain:
        if _is_a_clients(each) and (status := _status(each)):
            return _read(each, status)
    if any(isinstance(each, OSError) or _is_a_clients(each) for each in chain):
        return Answer()
    return None


def pause_after(failures: int, wait: float | None = None) -> float:
    """Seconds until the next request after so many failures in a row; never before the service wants it.

    Spread by up to a half, so that many waiting tasks do not come back at once.
    """
    growing = min(SELDOM, OFTEN * 1.5 ** (failures - 1))
    return max(growing, wait or 0.0) + random.uniform(0, growing / 2)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        attempt = getattr(error, "last_attempt", None)  # tenacity's RetryError keeps the failure there
        error = attempt.exception() if attempt is not None else error.__cause__


def _is_a_clients(error: BaseException) -> bool:
    """Not one of Airflow's own, for instance: they have a status_code too, for its web server."""
    return type(error).__module__.split(".")[0] in CLIENTS


def _status(error: BaseException) -> int:
    """Azure: status_code; aiohttp: status; requests: the response's."""
    response = getattr(error, "response", None)
    for found in (getattr(error, "status_code", None), getattr(error, "status", None), _of(response, "status_code")):
        if isinstance(found, int) and found >= 400:
            return found
    return 0


def _of(thing: Any, name: str) -> Any:
    return getattr(thing, name, None)


def _read(error: BaseException, status: int) -> Answer:
    response = getattr(error, "response", None)
    headers = _of(response, "headers") or getattr(error, "headers", None) or {}
    code, message = _told(error, response)
    return Answer(status, code, message, _wait(headers))


def _told(error: BaseException, response: Any) -> tuple[str, str]:
    """The code and the sentence of the service's own error."""
    parsed = getattr(error, "error", None)  # azure-core has read it already
    if message := _of(parsed, "message"):
        return str(_of(parsed, "code") or ""), str(message)
    try:
        body: Any = response.json()
    except Exception:  # noqa: BLE001 - no body, no JSON, read already: the exception's own words remain
        body = None
    if isinstance(body, dict):
        inner: dict[str, Any] = body["error"] if isinstance(body.get("error"), dict) else body
        code = inner.get("code") or body.get("error_code") or ""
        if message := inner.get("message") or body.get("error_description"):
            return str(code), str(message)
    return "", str(getattr(error, "message", "") or error)


def _wait(headers: Mapping[str, str]) -> float | None:
    lowered = {name.lower(): value for name, value in headers.items()}
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if name in lowered:
            return _seconds(lowered[name], None, 1000)
    return _seconds(lowered["retry-after"], lowered.get("date")) if "retry-after" in lowered else None


def _seconds(text: str, date: str | None, unit: int = 1) -> float | None:
    """Seconds, or an HTTP date: by the service's own clock, where it tells it."""
    try:
        return max(0.0, float(text) / unit)
    except ValueError:
        pass
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):  # neither: then nothing was asked that could be honoured
        return None
