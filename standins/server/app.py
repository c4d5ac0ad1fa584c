"""All services in one web application. No two services share a path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import standins.arm.routes
import standins.azure_ml.routes
import standins.data_factory.routes
import standins.databricks.routes
import standins.entra.routes
import standins.event_grid.routes
import standins.power_bi.routes
from standins.core import errors, ledger
from standins.core.cloud import Cloud
from standins.faults import rules
from standins.faults.injection import FaultInjection
from standins.faults.rules import Faults

# Each has `routes(cloud) -> APIRouter` and may have `start(cloud)`, which is called once when the server starts: it
# resumes unfinished work and starts watchers (cloud.background, cloud.every).
SERVICES = (
    standins.entra.routes,
    standins.arm.routes,
    standins.data_factory.routes,
    standins.power_bi.routes,
    standins.event_grid.routes,
    standins.databricks.routes,
    standins.azure_ml.routes,
)


def create_app(cloud: Cloud, faults: Faults | None = None) -> FastAPI:
    """The application for one cloud. Its lifespan starts and stops the background work."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for service in SERVICES:
            if hasattr(service, "start"):
                service.start(cloud)
        yield
        cloud.close()

    app = FastAPI(title="local cloud", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.redirect_slashes = False
    app.state.cloud = cloud
    errors.install(app)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    faults = faults or Faults()
    app.add_middleware(FaultInjection, faults=faults)
    app.include_router(rules.routes(faults))
    app.include_router(ledger.routes(cloud.ledger))
    for service in SERVICES:
        app.include_router(service.routes(cloud))
    return app
