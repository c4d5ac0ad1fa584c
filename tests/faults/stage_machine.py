"""A machine without Airflow: storage, MLflow and the stand-ins, with a history and a model in it.

Enough for stages as processes, ready sooner, and it leaves the processor to them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from rich.console import Console

from local import control, machine
from local.settings import Settings
from local.unit import Unit
from tests.faults.stage_boundaries import environment_of
from tests.support.machine import SHOP, Machine, own_settings


def units(settings: Settings) -> Sequence[Unit]:
    """The units of the machine but Airflow's."""
    return [unit for unit in machine.units(settings) if not unit.name.startswith("airflow")]


@contextmanager
def stage_machine() -> Iterator[Machine]:
    """A machine of its own, brought up, filled, and taken down."""
    with own_settings() as settings, without_airflow(settings) as made:
        fill(made)
        yield made


@contextmanager
def without_airflow(settings: Settings) -> Iterator[Machine]:
    """The machine of these settings but for Airflow, brought up and taken down."""
    console = Console(soft_wrap=True)
    control.up(settings, console, f"{__name__}:units")
    try:
        yield Machine(settings)
    finally:
        control.down(settings, console)


def fill(made: Machine) -> date:
    """The shop's history, and a champion trained on it that has scored the last day; that day."""
    last, number = train(made)
    made.ml("gate", "--version", number)
    made.ml("promote", "--version", number, *KEY)
    made.ml("score", "--day", str(last), *KEY)
    return last


def train(made: Machine) -> tuple[date, str]:
    """The shop's history, and a model trained on it: the last day, and the model's version."""
    days = made.ml("land", *SHOP, "--list")["days"][:-3]
    first, last = days[0], days[-1]
    made.ml("land", *SHOP, "--to", last)
    with environment_of(made):
        copy_all()
    made.ml("ingest", "--days", f"{first}..{last}", "--copy-log", f"bronze/_log/{COPY}", *KEY)
    made.ml("features", "--as-of", last, *KEY)
    version = made.ml("training_set", "--through", last, *KEY)["version"]
    made.ml("validate", "--suite", "training", "--version", str(version), *KEY)
    number: str = made.ml("train", "--training-set-version", str(version), *KEY)["version"]
    return date.fromisoformat(last), number


KEY = ("--run-key", "history")
COPY = "history"


def copy_all() -> None:
    """Run the Data Factory pipeline over all landed days, through its SDK."""
    import os

    from azure.identity import ClientSecretCredential
    from azure.mgmt.datafactory import DataFactoryManagementClient

    conn: dict[str, Any] = json.loads(os.environ["AIRFLOW_CONN_AZURE_DATA_FACTORY_DEFAULT"])
    extra = conn["extra"]
    credential = ClientSecretCredential(extra["tenantId"], conn["login"], conn["password"])
    client = DataFactoryManagementClient(credential, extra["subscriptionId"])
    where = (extra["resource_group_name"], extra["factory_name"])
    parameters = {"table": "transactions", "folder": "*", "copy_log": f"bronze/_log/{COPY}", "run_key": COPY}
    run_id = client.pipelines.create_run(*where, "ingest", parameters=parameters).run_id
    end = time.monotonic() + 600
    while (run := client.pipeline_runs.get(*where, run_id)).status not in ("Succeeded", "Failed", "Cancelled"):
        assert time.monotonic() < end, f"the copy is {run.status}"
        time.sleep(1)
    assert run.status == "Succeeded", run.message
