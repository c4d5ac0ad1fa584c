"""AutoML jobs: Azure ML searches for an algorithm and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from azure_ml.hook import AzureMLHook
from azure_ml.operators.base import AzureMLJobOperator, Definition, count_outcomes, fill_run_key
from remote.runs import RemoteRun

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job


class AzureMLAutoMLJobOperator(AzureMLJobOperator):
    """AutoML for a classification. Returns the best trial and the address of its model.

    `{"job", "best_trial", "algorithm", "metric": {"name", "value"}, "trials": {outcome: number}, "best_model"}`.

    :param training_data: address of an MLTable folder
    :param target: column to predict
    :param metric: primary metric, e.g. "auc_weighted"
    :param cross_validations: number of folds that AutoML draws at random; or columns of the training data, one for each
        fold, with 1 in rows to fit on and 0 in rows to score on
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
        folds = self.cross_validations
        split = {"n_cross_validations": folds} if isinstance(folds, int) else {"cv_split_column_names": [*folds]}
        return {
            "type": "automl",
            "task": "classification",
            "training_data": {"type": "mltable", "path": self.training_data},
            "target_column_name": self.target,
            "primary_metric": self.metric,
            **split,
            "limits": {"timeout_minutes": -(-self.timeout // 60), **(self.limits or {})},
            "training": self.training,
            "featurization": self.featurization,
            "outputs": {"best_model": {"type": "mlflow_model", "path": self.best_model}},
        }

    def load(self, definition: Definition) -> Job:
        from azure.ai.ml import Output

        job = super().load(definition)  # it reads the output as a plain folder
        job.outputs = {name: Output(**output) for name, output in definition["outputs"].items()}
        return job

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (AutoML's own log)
        job = hook.get_conn().jobs.get(run.run_id)
        attributes = {**job.tags, **job.properties}
        best = attributes.get("best_child_run_id") or attributes["automl_best_child_run_id"]  # the service sets a tag
        trials = {trial.name: trial for trial in hook.children(run.run_id)}
        best_attributes = {**trials[best].properties, **attributes}
        return {
            "job": run.run_id,
            "best_trial": best,
            "algorithm": best_attributes.get("best_algorithm") or best_attributes.get("run_algorithm"),
            "metric": {"name": self.metric, "value": float(best_attributes["score"])},
            "trials": count_outcomes(trials.values()),
            "best_model": fill_run_key(self.best_model, run.run_id),
        }
