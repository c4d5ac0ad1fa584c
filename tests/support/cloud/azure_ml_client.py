"""Helpers for tests that use an Azure ML workspace of the stand-ins through the SDK."""

from __future__ import annotations

import time
from typing import Any

import pytest
from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import Environment
from azure.identity import ClientSecretCredential

from tests.support.cloud.standins import CLIENT, GROUP, SECRET, SUBSCRIPTION, TENANT, Standins

WORKSPACE = "mlops-ws"
ARM = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices/workspaces"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"


def connect(cloud: Standins, monkeypatch: pytest.MonkeyPatch) -> MLClient:
    for name, value in cloud.client_variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", "https://management.azure.com/metadata/endpoints")
    monkeypatch.setenv("AZUREML_RUN_POLLING_INTERVAL_MIN", "1")
    credential = ClientSecretCredential(TENANT, CLIENT, SECRET)
    return MLClient(credential, SUBSCRIPTION, GROUP, WORKSPACE, enable_telemetry=False)


def register_environment(client: MLClient) -> None:
    client.environments.create_or_update(Environment(name="ml", version="1", image=IMAGE))


def job(line: str, name: str, **more: Any) -> Any:
    defaults = {
        "environment": "ml@latest",
        "compute": "cpu-cluster",
        "experiment_name": "tests",
        "tags": {"run_key": name},
    }
    return command(command=line, name=name, **defaults | more)


def wait_for_end(client: MLClient, name: str, seconds: float = 30) -> Any:
    return wait_until(client, name, ("Completed", "Failed", "Canceled"), seconds)


def wait_until(client: MLClient, name: str, states: tuple[str, ...], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while (result := client.jobs.get(name)).status not in states:
        assert time.monotonic() < deadline, result.status
        time.sleep(0.05)
    return result


def read_log(cloud: Standins, name: str) -> str:
    """The job's log, read from the URL in the run history."""
    headers = {"Authorization": f"Bearer {cloud.token()}"}
    with cloud.http() as http:
        details = http.get(f"/history/v1.0{ARM}/{WORKSPACE}/runs/{name}/details", headers=headers).raise_for_status()
        address = details.json()["logFiles"]["user_logs/std_log.txt"]
        return http.get("/" + address.split("/", 3)[3]).raise_for_status().text


TRIAL = """
import json, os, sys, time, urllib.request

def log(value, step):
    metric = {"run_id": os.environ["MLFLOW_RUN_ID"], "key": "auc", "value": value, "step": step}
    body = json.dumps(metric | {"timestamp": int(time.time() * 1000)}).encode()
    address = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/runs/log-metric"
    urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})).read()

rate, mode = float(sys.argv[1]), sys.argv[2]
print(json.dumps({"rate": rate}))
if mode == "fails": sys.exit(4)
if mode != "silent": log(rate / 2, 1)
if mode == "slow": time.sleep(60 if rate < 0.5 else 1)
if mode != "silent": log(rate, 2)
if mode == "waits":
    while not os.path.exists(sys.argv[3]): time.sleep(0.05)
"""
