"""All services as one web application. Paths tell them apart: no two services share one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from standins import (
    arm,
    azure_ml,
    data_factory,
    data_factory_page,
    data_factory_runs,
    databricks,
    entra,
    errors,
    event_grid,
    faults,
    ledger,
    power_bi,
)
from standins.cloud import Cloud
from standins.fault_injection import FaultInjection
from standins.faults import Faults

# Each has `routes(cloud) -> APIRouter` and may have `start(cloud)`, called once when the server
# starts: take up unfinished work, start watchers (cloud.background, cloud.every).
SERVICES = (entra, arm, data_factory, data_factory_runs, data_factory_page, power_bi, event_grid, databricks, azure_ml)


def create_app(cloud: Cloud, switches: Faults | None = None) -> FastAPI:
    """The application over one cloud's state. Its lifespan starts and stops the background work."""

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

    switches = switches or Faults()
    app.add_middleware(FaultInjection, faults=switches)
    app.include_router(faults.routes(switches))
    app.include_router(ledger.routes(cloud.ledger))
    for service in SERVICES:
        app.include_router(service.routes(cloud))
    return app
