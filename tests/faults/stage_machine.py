"""A machine without Airflow: storage, MLflow and the stand-ins, with a history and a model in it.

It suffices for stages that run as processes, starts sooner, and leaves them the processor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from rich.console import Console

from local import control
from local.machine import units as all_units
from local.settings import Settings
from local.unit import Unit
from ml.config import load_project
from tests.faults.stage_boundaries import environment_of
from tests.faults.stages import MODEL, SOURCE, TO_MODEL
from tests.support.machines.machine import SHOP, Machine, own_settings


def units(settings: Settings) -> Sequence[Unit]:
    """The units of the machine except Airflow's."""
    return [unit for unit in all_units(settings) if not unit.name.startswith("airflow")]


@contextmanager
def stage_machine() -> Iterator[Machine]:
    """A machine of its own, started, filled and stopped."""
    with own_settings() as settings, without_airflow(settings) as machine:
        fill(machine)
        yield machine


@contextmanager
def without_airflow(settings: Settings) -> Iterator[Machine]:
    """The machine of these settings without Airflow, started and stopped."""
    console = Console(soft_wrap=True)
    control.up(settings, console, f"{__name__}:units")
    try:
        yield Machine(settings)
    finally:
        control.down(settings, console)


def fill(machine: Machine) -> date:
    """Load the shop's history, train a champion on it and score the last day; that day."""
    last, number = train(machine)
    machine.ml("gate", *TO_MODEL, "--version", number)
    machine.ml("promote", *TO_MODEL, "--version", number, *KEY)
    machine.ml("score", *TO_MODEL, "--day", str(last), *KEY)
    return last


def train(machine: Machine) -> tuple[date, str]:
    """Load the shop's history and train a model on it; the last day and the model's version."""
    landed = machine.ml("land", *SHOP, "--list")["sources"]
    last = landed[SOURCE][-4]
    machine.ml("land", *SHOP, "--to", last)
    project = load_project()
    for source in sorted(landed, key=lambda name: project.sources[name].kind != "snapshot"):
        with environment_of(machine):
            copy_all(source)
        days = [day for day in landed[source] if day <= last]
        options = ["--source", source, "--days", f"{days[0]}..{days[-1]}"]
        machine.ml("ingest", *options, "--copy-log", f"bronze/_log/{COPY}-{source}", *KEY)
    for table in project.models[MODEL].features:
        machine.ml("features", "--table", table, "--as-of", last, *KEY)
    version = machine.ml("training_set", *TO_MODEL, "--through", last, *KEY)["version"]
    machine.ml("validate", *TO_MODEL, "--suite", "training", "--version", str(version), *KEY)
    number: str = machine.ml("train", *TO_MODEL, "--training-set-version", str(version), *KEY)["version"]
    return date.fromisoformat(last), number


KEY = ("--run-key", "history")
COPY = "history"


def copy_all(source: str) -> None:
    """Run the Data Factory pipeline over all landed days of a source, through its SDK."""
    import os

    from azure.identity import ClientSecretCredential
    from azure.mgmt.datafactory import DataFactoryManagementClient

    conn: dict[str, Any] = json.loads(os.environ["AIRFLOW_CONN_AZURE_DATA_FACTORY_DEFAULT"])
    extra = conn["extra"]
    credential = ClientSecretCredential(extra["tenantId"], conn["login"], conn["password"])
    client = DataFactoryManagementClient(credential, extra["subscriptionId"])
    where = (extra["resource_group_name"], extra["factory_name"])
    key = f"{COPY}-{source}"
    parameters = {"table": source, "folder": "*", "copy_log": f"bronze/_log/{key}", "run_key": key}
    run_id = client.pipelines.create_run(*where, "ingest", parameters=parameters).run_id
    end = time.monotonic() + 600
    while (run := client.pipeline_runs.get(*where, run_id)).status not in ("Succeeded", "Failed", "Cancelled"):
        assert time.monotonic() < end, f"the copy is {run.status}"
        time.sleep(1)
    assert run.status == "Succeeded", run.message
