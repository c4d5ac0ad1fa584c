"""An AutoML job's trials in MLflow, as the service logs them: a run for the job and a child run for each trial."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

from standins.azure_ml.automl.spec import Spec

if TYPE_CHECKING:
    from standins.azure_ml.automl.search import Trial


class MlflowRuns:
    """Context manager that logs to MLflow. Without `MLFLOW_TRACKING_URI` it logs nothing."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._client: Any = None
        self._experiment = self._run = ""

    def __enter__(self) -> MlflowRuns:
        if os.environ.get("MLFLOW_TRACKING_URI"):
            import mlflow

            name = os.environ.get("AZUREML_EXPERIMENT_NAME", "Default")
            job = os.environ.get("AZUREML_RUN_ID", "automl")
            self._client = mlflow.MlflowClient()
            # not mlflow.set_experiment: it leaves the id in os.environ, for every process that this one starts
            experiment = self._client.get_experiment_by_name(name)
            self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(name)
            job_run = self._client.create_run(self._experiment, run_name=job, tags={"azureml.job": job})
            self._run = job_run.info.run_id
        return self

    def log_trial(self, trial: Trial) -> None:
        if self._client is None:
            return
        name = f"{os.environ.get('AZUREML_RUN_ID', 'automl')}_{trial.number}"
        tags = {"mlflow.parentRunId": self._run, "algorithm": trial.algorithm}
        started = int(trial.started * 1000)
        run = self._client.create_run(self._experiment, start_time=started, run_name=name, tags=tags).info.run_id
        for key, value in trial.config.items():
            self._client.log_param(run, key, value)
        if trial.score is not None:
            self._client.log_metric(run, self._spec.metric, trial.score)
        status = {"Completed": "FINISHED", "Canceled": "KILLED"}.get(trial.status, "FAILED")
        self._client.set_terminated(run, status, end_time=int(trial.ended * 1000))

    def log_best(self, trial: Trial) -> None:
        if self._client is not None:
            self._client.set_tag(self._run, "algorithm", trial.algorithm)
            self._client.log_metric(self._run, self._spec.metric, trial.score)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run, "FAILED" if kind else "FINISHED")
