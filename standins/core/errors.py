"""Error responses in the shape of Azure Resource Manager."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An error for the caller: status, code and a full sentence.

    The body is Azure's `{"error": {"code", "message"}}` unless a service with another shape (Entra ID,
    Databricks) passes its own `body`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.body = body if body is not None else error_body(code, message)
        self.headers = dict(headers or {})


class NotImplementedHere(ApiError):  # noqa: N818 - NotImplementedError is Python's own
    """501: the real service supports this, the stand-in does not."""

    def __init__(self, what: str) -> None:
        super().__init__(501, "NotImplemented", f"{what} is not implemented by this stand-in")


def error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def install(app: FastAPI) -> None:
    """Have `app` report every error, also those of its router, in Azure's shape."""

    @app.exception_handler(ApiError)
    def known(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        return JSONResponse(error_body("BadRequest", f"The request is not valid: {problems}"), 400)

    @app.exception_handler(HTTPException)
    def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        # Services raise ApiError, so a 404 or 405 here comes from the router: unknown path or method.
        if error.status_code in (404, 405):
            missing = NotImplementedHere(f"{request.method} {request.url.path}")
            return JSONResponse(missing.body, missing.status)
        return JSONResponse(error_body("BadRequest", str(error.detail)), error.status_code)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = f"{request.method} {request.url.path} failed in the stand-in: {type(error).__name__}: {error}"
        return JSONResponse(error_body("InternalServerError", message), 500)
