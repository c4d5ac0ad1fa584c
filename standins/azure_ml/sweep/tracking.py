"""Client of the MLflow server to which a sweep's trials log: their runs and metrics.

On Azure ML the workspace itself is the MLflow server; here it is the one in `MLFLOW_TRACKING_URI`, called through its REST
API, https://mlflow.org/docs/latest/rest-api.html. (Importing mlflow would cost the stand-ins seconds and 200 MB.)
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import httpx

from standins.azure_ml.api import Json
from standins.core.cloud import Cloud

JOB = "azureml.job"  # tag of a run: the name of its job


class Tracking:
    """One MLflow server. Methods raise httpx.HTTPError when it does not answer; callers retry later."""

    def __init__(self, cloud: Cloud) -> None:  # noqa: ARG002 - made by `cloud.one`
        self.uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._experiments: dict[str, str] = {}
        self._http = httpx.Client(base_url=f"{self.uri}/api/2.0/mlflow", timeout=20, trust_env=False)

    @property
    def is_configured(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    def find_or_create_run(self, experiment: str, job: str) -> str:
        """The id of a job's run; created when there is none. Only one thread per job calls this, so it is unique."""
        experiment_id = self._experiment_id(experiment)
        filter_string = f"tags.`{JOB}` = '{job}'"
        search = {"experiment_ids": [experiment_id], "filter": filter_string, "max_results": 1}
        if runs := self._post("runs/search", search).get("runs"):
            return str(runs[0]["info"]["run_id"])
        tags = [{"key": JOB, "value": job}, {"key": "mlflow.source.type", "value": "JOB"}]
        new_run = {"experiment_id": experiment_id, "start_time": _now(), "run_name": job, "tags": tags}
        return str(self._post("runs/create", new_run)["run"]["info"]["run_id"])

    def metric_history(self, run: str, metric: str) -> list[float]:
        """The finite values of a metric, ordered by step."""
        points = self._get("metrics/get-history", {"run_id": run, "metric_key": metric}).get("metrics", [])
        rows = sorted((int(row.get("step", 0)), int(row["timestamp"]), float(row["value"])) for row in points)
        return [value for _, _, value in rows if math.isfinite(value)]

    def metric_names(self, run: str) -> list[str]:
        """The names of all metrics of a run."""
        metrics = self._get("runs/get", {"run_id": run})["run"]["data"].get("metrics", [])
        return sorted(row["key"] for row in metrics)

    def end_run(self, run: str, status: str) -> None:
        """End a run with a status: FINISHED, FAILED or KILLED."""
        self._post("runs/update", {"run_id": run, "status": status, "end_time": _now()})

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            response = self._http.get("experiments/get-by-name", params={"experiment_name": name})
            if response.status_code == 404:
                response = self._http.post("experiments/create", json={"name": name})
                self._experiments[name] = str(response.raise_for_status().json()["experiment_id"])
            else:
                self._experiments[name] = str(response.raise_for_status().json()["experiment"]["experiment_id"])
        return self._experiments[name]

    def _get(self, path: str, parameters: dict[str, str]) -> Json:
        response = self._http.get(path, params=parameters).raise_for_status()
        content: dict[str, Any] = response.json()
        return content

    def _post(self, path: str, body: Json) -> Json:
        response = self._http.post(path, json=body)
        if response.is_error:  # the experiment may be gone with the server's database: read its id again next time
            self._experiments.clear()
        content: dict[str, Any] = response.raise_for_status().json()
        return content


def _now() -> int:
    return int(time.time() * 1000)
