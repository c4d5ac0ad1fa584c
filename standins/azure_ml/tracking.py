"""The MLflow that a workspace's trials log to: their runs, and what they logged.

Azure ML's own workspace is an MLflow server; here it is the one that `MLFLOW_TRACKING_URI` names, asked by its REST API,
https://mlflow.org/docs/latest/rest-api.html. (Importing mlflow would cost these servers seconds and 200 MB.)
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import httpx

from standins.azure_ml.api import Json
from standins.core.cloud import Cloud

JOB = "azureml.job"  # the tag that holds the name of the job a run belongs to


class Tracking:
    """One MLflow server. Raises httpx.HTTPError when it does not answer: callers try again later."""

    def __init__(self, cloud: Cloud) -> None:  # noqa: ARG002 - made by `cloud.one`
        self.uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._experiments: dict[str, str] = {}
        self._http = httpx.Client(base_url=f"{self.uri}/api/2.0/mlflow", timeout=20, trust_env=False)

    @property
    def is_there(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    def run_of(self, experiment: str, job: str) -> str:
        """The id of a job's run; made when there is none. One thread per job asks, so there is never a second."""
        where = self._experiment(experiment)
        wanted = f"tags.`{JOB}` = '{job}'"
        found = self._post("runs/search", {"experiment_ids": [where], "filter": wanted, "max_results": 1})
        if runs := found.get("runs"):
            return str(runs[0]["info"]["run_id"])
        tags = [{"key": JOB, "value": job}, {"key": "mlflow.source.type", "value": "JOB"}]
        asked = {"experiment_id": where, "start_time": _now(), "run_name": job, "tags": tags}
        return str(self._post("runs/create", asked)["run"]["info"]["run_id"])

    def logged(self, run: str, metric: str) -> list[float]:
        """The finite values of a metric, in the order of their steps."""
        found = self._get("metrics/get-history", {"run_id": run, "metric_key": metric}).get("metrics", [])
        rows = sorted((int(row.get("step", 0)), int(row["timestamp"]), float(row["value"])) for row in found)
        return [value for _, _, value in rows if math.isfinite(value)]

    def metrics(self, run: str) -> list[str]:
        """The names of all metrics of a run."""
        found = self._get("runs/get", {"run_id": run})["run"]["data"].get("metrics", [])
        return sorted(row["key"] for row in found)

    def end(self, run: str, status: str) -> None:
        """Say that a run is over: FINISHED, FAILED or KILLED."""
        self._post("runs/update", {"run_id": run, "status": status, "end_time": _now()})

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            answer = self._http.get("experiments/get-by-name", params={"experiment_name": name})
            if answer.status_code == 404:
                answer = self._http.post("experiments/create", json={"name": name})
                self._experiments[name] = str(answer.raise_for_status().json()["experiment_id"])
            else:
                self._experiments[name] = str(answer.raise_for_status().json()["experiment"]["experiment_id"])
        return self._experiments[name]

    def _get(self, path: str, parameters: dict[str, str]) -> Json:
        answer: dict[str, Any] = self._http.get(path, params=parameters).raise_for_status().json()
        return answer

    def _post(self, path: str, body: Json) -> Json:
        answer = self._http.post(path, json=body)
        if answer.is_error:  # the experiment may be gone, with the server's database: ask for its id again
            self._experiments.clear()
        told: dict[str, Any] = answer.raise_for_status().json()
        return told


def _now() -> int:
    return int(time.time() * 1000)
