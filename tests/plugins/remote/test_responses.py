"""What a failed request says: which errors are transient, which are refusals, and how long the client must wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
import requests
import tenacity
from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from remote import responses
from remote.responses import ErrorResponse, pause_after, read_response
from remote.runs import RemoteRunFailed
from tests.support.components.scripted_runs import FAILED

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def of_requests(status: int, body: Any = None, **headers: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response._content = b"" if body is None else json.dumps(body).encode()
    return requests.HTTPError(f"{status} Error", response=response)


def of_aiohttp(status: int, **headers: str) -> aiohttp.ClientResponseError:
    request = aiohttp.RequestInfo(URL("https://x"), "GET", CIMultiDictProxy(CIMultiDict()), URL("https://x"))
    fields = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return aiohttp.ClientResponseError(request, (), status=status, message="Too Many Requests", headers=fields)


def wrapped(cause: BaseException) -> DatabricksApiError:
    """As the provider's hook raises it."""
    try:
        raise DatabricksApiError("Response: …", http_status_code=429) from cause
    except DatabricksApiError as error:
        return error


class TestReading:
    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(of_requests(429, Retry_After="7"), id="requests"),
            pytest.param(of_aiohttp(429, Retry_After="7"), id="aiohttp"),
            pytest.param(wrapped(of_aiohttp(429, Retry_After="7")), id="wrapped-by-the-provider"),
        ],
    )
    def test_finds_status_and_wait_in_every_library_s_errors(self, error: Exception) -> None:
        response = read_response(error)
        assert response is not None
        assert (response.status, response.wait) == (429, 7.0)

    def test_looks_into_tenacity_s_last_attempt(self) -> None:
        def fail() -> None:
            raise of_requests(503, Retry_After="2")

        with pytest.raises(tenacity.RetryError) as caught:
            tenacity.Retrying(stop=tenacity.stop_after_attempt(1))(fail)
        assert read_response(caught.value) == ErrorResponse(503, "", "503 Error", 2.0)

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param({"error": {"code": "Denied", "message": "no role"}}, id="azure"),
            pytest.param({"error_code": "Denied", "message": "no role"}, id="databricks"),
        ],
    )
    def test_reports_the_service_s_own_message(self, body: Any) -> None:
        assert str(read_response(of_requests(403, body))) == "403 Denied: no role"

    @pytest.mark.parametrize(
        "error",
        [
            ConnectionResetError("reset"),
            TimeoutError(),
            requests.ConnectionError("away"),
            aiohttp.ServerDisconnectedError(),
            ServiceRequestError("not sent"),
            ServiceResponseError("no reply"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_without_a_response_knows_nothing(self, error: Exception) -> None:
        assert read_response(error) == ErrorResponse()
        assert not ErrorResponse().refused
        assert not ErrorResponse().not_done, "the work may have been done"

    @pytest.mark.parametrize(
        "error",
        [
            AirflowException("one of Airflow's, which has a status_code for its web server"),
            AirflowSkipException("nothing to do"),
            RemoteRunFailed(FAILED),
            KeyError("factory_name"),
            ValueError("not a number"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_ignores_an_error_that_is_no_failed_request(self, error: Exception) -> None:
        assert read_response(error) is None


class TestTheWait:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            pytest.param({}, None, id="none"),
            pytest.param({"Retry_After": "0"}, 0.0, id="at-once"),
            pytest.param({"Retry_After": "1.5"}, 1.5, id="fractions"),
            pytest.param({"Retry_After": "-3"}, 0.0, id="never-negative"),
            pytest.param({"Retry_After": "soon"}, None, id="nonsense"),
            pytest.param({"x_ms_retry_after_ms": "2500"}, 2.5, id="milliseconds"),
            pytest.param(
                {
                    "Retry_After": format_datetime(NOW + timedelta(seconds=90), usegmt=True),
                    "Date": format_datetime(NOW),
                },
                90.0,
                id="a-date-by-the-service-s-clock",
            ),
            pytest.param(
                {"Retry_After": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0.0, id="a-date-that-is-over"
            ),
        ],
    )
    def test_is_what_the_service_says(self, headers: dict[str, str], seconds: float | None) -> None:
        response = read_response(of_requests(503, **headers))
        assert response is not None
        assert response.wait == seconds

    def test_as_a_date_counts_from_now_when_the_response_has_no_date(self) -> None:
        then = datetime.now(UTC) + timedelta(seconds=60)
        response = read_response(of_requests(429, Retry_After=format_datetime(then, usegmt=True)))
        assert response is not None
        assert response.wait == pytest.approx(60, abs=3)


class TestPauses:
    @given(failures=st.integers(1, 100), wait=st.none() | st.floats(0, 10**6))
    def test_are_never_shorter_than_demanded_and_spread(self, failures: int, wait: float | None) -> None:
        pause = pause_after(failures, wait)
        assert pause >= (wait or 0)
        assert pause <= max(responses.MAX_PAUSE, wait or 0) + responses.MAX_PAUSE / 2

    def test_grow(self) -> None:
        assert [min(pause_after(n) for _ in range(50)) >= low for n, low in ((1, 1), (4, 3), (12, 30))] == [True] * 3

    def test_last_about_eight_minutes_in_total(self) -> None:
        total = sum(pause_after(n) for n in range(1, responses.MAX_FAILURES))
        assert 5 * 60 < total < 12 * 60


class TestAStatus:
    @pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
    def test_is_retryable(self, status: int) -> None:
        assert not ErrorResponse(status).refused

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
    def test_is_a_refusal(self, status: int) -> None:
        assert ErrorResponse(status).refused
        assert ErrorResponse(status).not_done

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_leaves_open_whether_the_work_was_done(self, status: int) -> None:
        assert not ErrorResponse(status).not_done
