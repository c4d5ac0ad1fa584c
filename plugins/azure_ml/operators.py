"""Azure ML jobs as Airflow tasks: command, sweep, AutoML and pipeline jobs, and the cancellation of any."""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from azure_ml.hook import SERVICE, AzureMLHook
from azure_ml.job_operator import LAST_LINES, AzureMLJobOperator, Definition, filled, named
from azure_ml.triggers import AzureMLJobTrigger
from mlops.remote_operators import RemoteRunOperator
from mlops.remote_runs import RemoteRun, facts_of

if TYPE_CHECKING:
    from airflow.sdk import Context
    from azure.ai.ml.entities import Job

__all__ = (
    "LAST_LINES",
    "AzureMLAutoMLJobOperator",
    "AzureMLCancelJobOperator",
    "AzureMLCommandJobOperator",
    "AzureMLPipelineJobOperator",
    "AzureMLSweepJobOperator",
)


class AzureMLCommandJobOperator(AzureMLJobOperator):
    """A command job; returns the facts it printed last, as one JSON object in a line.

    :param command: what the job runs: a shell's line; or words, which are quoted, so nothing that comes from
        elsewhere is more than a word
    :param environment: name@label or name:version of the job's environment
    :param inputs: values by name, `${{inputs.<name>}}` in the command; an address as `{"type": "uri_folder", "path": …}`
    """

    template_fields: Sequence[str] = ("command", "environment", "inputs", "compute", "experiment", "conn_id")

    def __init__(
        self,
        *,
        command: str | Sequence[str],
        environment: str,
        inputs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.environment = environment
        self.inputs = inputs

    def definition(self) -> Definition:
        return {
            "type": "command",
            "command": line(self.command),
            "environment": named(self.environment),
            "inputs": self.inputs,
            "limits": {"timeout": self.timeout},
        }


class AzureMLSweepJobOperator(AzureMLJobOperator):
    """A sweep: the command tried with many parameters. Returns the best trial and how the trials ended.

    `{"job", "best_trial", "parameters", "metric": {"name", "goal", "value"}, "trials": {outcome: number}, "facts"}`,
    where `facts` is what the best trial printed last.

    :param command: what a trial runs (a line or words, as a command job's), with `${{search_space.<name>}}` where a parameter belongs
    :param environment: name@label or name:version of the trials' environment
    :param search_space: each parameter's distribution as Azure ML's YAML has it, e.g.
        `{"type": "uniform", "min_value": 0.01, "max_value": 0.3}` or `{"type": "choice", "values": [7, 15]}`
    :param metric: what trials log with `mlflow.log_metric`, and `goal` whether to "maximize" or "minimize" it
    :param sampling: "random", "bayesian" or "grid", or a dictionary with `type` and e.g. `seed`
    :param early_termination: e.g. `{"type": "bandit", "slack_factor": 0.05, "evaluation_interval": 1}`
    :param max_trials: trials in all, `max_concurrent` of them at once
    :param trial_timeout: seconds that a trial may take; the SDK rounds up to minutes
    """

    template_fields: Sequence[str] = ("command", "environment", "compute", "experiment", "search_space", "conn_id")

    def __init__(
        self,
        *,
        command: str | Sequence[str],
        environment: str,
        search_space: Mapping[str, Any],
        metric: str,
        goal: str,
        max_trials: int,
        max_concurrent: int,
        sampling: str | Mapping[str, Any] = "random",
        early_termination: Mapping[str, Any] | None = None,
        trial_timeout: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.environment = environment
        self.search_space = search_space
        self.metric = metric
        self.goal = goal
        self.max_trials = max_trials
        self.max_concurrent = max_concurrent
        self.sampling = sampling
        self.early_termination = early_termination
        self.trial_timeout = trial_timeout

    def definition(self) -> Definition:
        return {
            "type": "sweep",
            "trial": {"command": line(self.command), "environment": named(self.environment)},
            "search_space": self.search_space,
            "sampling_algorithm": self.sampling,
            "objective": {"primary_metric": self.metric, "goal": self.goal},
            "early_termination": self.early_termination,
            "limits": {
                "max_total_trials": self.max_trials,
                "max_concurrent_trials": self.max_concurrent,
                "timeout": self.timeout,
                "trial_timeout": self.trial_timeout,
            },
        }

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (of the sweep itself)
        told = hook.get_conn().jobs.get(run.run_id).properties
        trials = {trial.name: trial for trial in hook.children(run.run_id)}
        best = told["best_child_run_id"]
        return {
            "job": run.run_id,
            "best_trial": best,
            "parameters": parameters_of(trials[best]),
            "metric": {"name": self.metric, "goal": self.goal, "value": float(told["score"])},
            "trials": outcomes(trials.values()),
            "facts": facts_of(hook.read_history(best)[1]),
        }


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


class AzureMLPipelineJobOperator(AzureMLJobOperator):
    """A pipeline, by the id of its component. Returns how its steps ended, what they printed and its outputs.

    `{"job", "steps": {job: outcome}, "outputs": {name: address}, "facts": {job: facts}}`.

    :param component: a registered pipeline component: `name:version`, or its id, as the Designer shows it when it
        publishes a pipeline; or the path of a YAML file that describes a pipeline job with its steps
    :param inputs: values by name; an address as `{"type": "uri_folder", "path": …}`
    :param outputs: where the pipeline's outputs go, in the same form
    :param settings: Azure ML's: `continue_on_step_failure`, `default_compute` (as `compute` if not told), …
    """

    template_fields: Sequence[str] = ("component", "inputs", "outputs", "compute", "experiment", "conn_id")

    def __init__(
        self,
        *,
        component: str,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.component = component
        self.inputs = inputs
        self.outputs = outputs
        self.settings = settings

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        # a pipeline has no time limit of its own on the service: it is cancelled from here
        return AzureMLJobTrigger(run.run_id, self.conn_id, time.time() + self.timeout, self.follow_log)

    def definition(self) -> Definition:
        return {
            "type": "pipeline",
            "component": None if self._is_file else named(self.component),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "settings": {"default_compute": named(self.compute), **(self.settings or {})},
        }

    def load(self, definition: Definition) -> Job:
        if not self._is_file:
            return super().load(definition)
        from azure.ai.ml import load_job

        given = {name: value for name, value in definition.items() if name not in ("type", "inputs", "outputs")}
        for part in ("inputs", "outputs"):  # those of the file stay, but for those that are given here
            given |= {f"{part}.{name}": value for name, value in (definition.get(part) or {}).items()}
        return load_job(self.component, params_override=[{name: value} for name, value in given.items()])

    @property
    def _is_file(self) -> bool:
        return self.component.endswith((".yml", ".yaml"))

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (of the pipeline)
        outputs = getattr(hook.get_conn().jobs.get(run.run_id), "outputs", None) or {}
        steps = hook.children(run.run_id)
        facts = {step.name: facts_of(hook.read_history(str(step.name))[1]) for step in steps}
        return {
            "job": run.run_id,
            "steps": {step.name: status_of(step) for step in steps},
            "outputs": {name: output.path for name, output in outputs.items()},
            "facts": {name: found for name, found in facts.items() if found},
        }


class AzureMLCancelJobOperator(RemoteRunOperator, BaseOperator):
    """Cancels a job of any type and waits until it is over, without a worker. Returns the job and its last state.

    One that is over already is left as it is, whatever its end was.

    :param job_name: the job's name; another task's, from `ti.xcom_pull(task_ids=…, key="remote_run_id")`
    :param timeout: seconds that the service may take for it
    """

    service = SERVICE
    needs = AzureMLJobOperator.needs
    template_fields: Sequence[str] = ("job_name", "conn_id")
    ui_color = AzureMLJobOperator.ui_color
    ui_fgcolor = AzureMLJobOperator.ui_fgcolor

    def __init__(
        self, *, job_name: str, timeout: int = 600, conn_id: str = AzureMLHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.timeout = timeout
        self.conn_id = conn_id

    def attach(self, context: Context) -> RemoteRun:  # noqa: ARG002 (the same job, whatever the context)
        hook = AzureMLHook(self.conn_id)
        hook.cancel(self.job_name)
        return hook.get(self.job_name)

    def trigger(self, run: RemoteRun) -> AzureMLJobTrigger:
        return AzureMLJobTrigger(run.run_id, self.conn_id, time.time() + self.timeout, follow_log=False)

    def cancel_run(self) -> None:
        """Whoever kills this task does not want the job back."""

    def finish(self, context: Context, run: RemoteRun) -> dict[str, Any]:  # noqa: ARG002
        return {"job": run.run_id, "state": run.state}


def parameters_of(trial: Job) -> dict[str, Any]:
    """What a trial was given. Fails when the service does not say: nothing must be trained with other ones unnoticed."""
    told = (trial.tags or {}).get("hyperparameters")
    if not told:
        raise RuntimeError(
            f"{SERVICE} tells no parameters (tag hyperparameters) of the sweep's trial {trial.name}: its tags are {trial.tags}"
        )
    found: dict[str, Any] = json.loads(told)
    return found


def line(command: str | Sequence[str]) -> str:
    """A shell's line; of words, each one quoted."""
    return command if isinstance(command, str) else shlex.join(command)


def outcomes(jobs: Any) -> dict[str, int]:
    """How many jobs ended how."""
    return dict(Counter(status_of(job) for job in jobs))


def status_of(job: Job) -> str:
    return str(getattr(job.status, "value", job.status))
