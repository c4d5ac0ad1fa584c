"""What all sources, feature tables and models share, from `config/platform.yaml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ml.config.types import Cron, Frozen, Text

Seconds = Annotated[int, Field(ge=1)]


class Arrivals(Frozen):
    sweep: Cron
    ask_again_minutes: Annotated[int, Field(ge=1)]


class Databricks(Frozen):
    cluster: Text
    timeout_seconds: Seconds


class AzureMl(Frozen):
    compute: Text
    environment: Text
    timeout_seconds: Seconds


class Compute(Frozen):
    databricks: Databricks
    azure_ml: AzureMl


class PlatformConfig(Frozen):
    arrivals: Arrivals
    compute: Compute
