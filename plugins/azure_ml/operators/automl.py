"""AutoML jobs: Azure ML searches for an algorithm and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from azure_ml.hook import AzureMLHook
from azure_ml.operators.base import AzureMLJobOperator, Definition, filled, outcomes
from remote.runs import RemoteRun

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job


class AzureMLAutoMLJobOperator(AzureMLJobOperator):
    """AutoML for a classification. Returns the best trial and where its model is.

    `{"job", "best_trial", "algorithm", "metric": {"name", "value"}, "trials": {outcome: number}, "best_model"}`.

    :param training_data: address of an MLTable folder
    :param target: column to predict
    :param metric: primary metric, e.g. "auc_weighted"
    :param cross_validations: folds that AutoML makes by drawing rows, or columns of the training data that tell them, one
        for each fold: 1 in rows to fit on, 0 in rows to score on
    :param limits: Azure ML's: `trial_timeout_minutes`, `max_trials`, `max_concurrent_trials`, `exit_score`,
        `enable_early_termination`; `timeout_minutes` comes from `timeout`
    :param training: Azure ML's: `allowed_training_algorithms`, `blocked_training_algorithms`,
        `enable_onnx_compatible_models`, `enable_vote_ensemble`, `enable_stack_ensemble`, …
    :param featurization: Azure ML's: `mode`, `transformer_params`, …
    :param best_model: address of a folder for the best model
    """

    template_fields: Sequence[str] = ("training_data", "compute", "experiment", "best_model", "conn_id")

    def __init__(
        self,
        *,
        training_data: str,
        target: str,
        metric: str,
        cross_validations: int | Sequence[str],
        best_model: str,
        limits: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        featurization: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.training_data = training_data
        self.target = target
        self.metric = metric
        self.cross_validations = cross_validations
        self.best_model = best_model
        self.limits = limits
        self.training = training
        self.featurization = featurization

    def definition(self) -> Definition:
        given = self.cross_validations
        folds = {"n_cross_validations": given} if isinstance(given, int) else {"cv_split_column_names": [*given]}
        return {
            "type": "automl",
            "task": "classification",
            "training_data": {"type": "mltable", "path": self.training_data},
            "target_column_name": self.target,
            "primary_metric": self.metric,
            **folds,
            "limits": {"timeout_minutes": -(-self.timeout // 60), **(self.limits or {})},
            "training": self.training,
            "featurization": self.featurization,
            "outputs": {"best_model": {"type": "mlflow_model", "path": self.best_model}},
        }

    def load(self, definition: Definition) -> Job:
        from azure.ai.ml import Output

        job = super().load(definition)  # which makes a plain folder of the output
        job.outputs = {name: Output(**told) for name, told in definition["outputs"].items()}
        return job

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (of AutoML itself)
        job = hook.get_conn().jobs.get(run.run_id)
        told = {**job.tags, **job.properties}
        best = told.get("best_child_run_id") or told["automl_best_child_run_id"]  # the latter is a tag of the service
        trials = {trial.name: trial for trial in hook.children(run.run_id)}
        of_best = {**trials[best].properties, **told}
        return {
            "job": run.run_id,
            "best_trial": best,
            "algorithm": of_best.get("best_algorithm") or of_best.get("run_algorithm"),
            "metric": {"name": self.metric, "value": float(of_best["score"])},
            "trials": outcomes(trials.values()),
            "best_model": filled(self.best_model, run.run_id),
        }
