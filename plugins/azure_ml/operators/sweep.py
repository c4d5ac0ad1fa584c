"""Sweep jobs: trials of one command over a search space."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from azure_ml.hook import SERVICE, AzureMLHook
from azure_ml.operators.base import AzureMLJobOperator, Definition, asset_reference, count_outcomes, shell_line
from remote.runs import RemoteRun, facts_of

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job


class AzureMLSweepJobOperator(AzureMLJobOperator):
    """A sweep: one command with many sets of parameters. Returns the best trial and the trials' outcomes.

    `{"job", "best_trial", "parameters", "metric": {"name", "goal", "value"}, "trials": {outcome: number}, "facts"}`,
    where `facts` are those that the best trial printed last.

    :param command: a trial's command (a line or words, as in a command job), with `${{search_space.<name>}}` for each
        parameter
    :param environment: name@label or name:version of the trials' environment
    :param search_space: each parameter's distribution in the form of Azure ML's YAML, e.g.
        `{"type": "uniform", "min_value": 0.01, "max_value": 0.3}` or `{"type": "choice", "values": [7, 15]}`
    :param metric: the metric that trials log with `mlflow.log_metric`; `goal` is "maximize" or "minimize"
    :param sampling: "random", "bayesian" or "grid", or a dictionary with `type` and e.g. `seed`
    :param early_termination: e.g. `{"type": "bandit", "slack_factor": 0.05, "evaluation_interval": 1}`
    :param max_trials: trials in total, at most `max_concurrent` of them at once
    :param trial_timeout: a trial's limit in seconds; the SDK rounds up to minutes
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
            "trial": {"command": shell_line(self.command), "environment": asset_reference(self.environment)},
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

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (the sweep's own log)
        properties = hook.get_conn().jobs.get(run.run_id).properties
        trials = {trial.name: trial for trial in hook.children(run.run_id)}
        best = properties["best_child_run_id"]
        return {
            "job": run.run_id,
            "best_trial": best,
            "parameters": parameters_of(trials[best]),
            "metric": {"name": self.metric, "goal": self.goal, "value": float(properties["score"])},
            "trials": count_outcomes(trials.values()),
            "facts": facts_of(hook.read_history(best)[1]),
        }


def parameters_of(trial: Job) -> dict[str, Any]:
    """The parameters of a trial. Raises RuntimeError when the service does not report them, so that no model is trained with others."""
    hyperparameters = (trial.tags or {}).get("hyperparameters")
    if not hyperparameters:
        raise RuntimeError(
            f"{SERVICE} reports no parameters (tag hyperparameters) for the sweep's trial {trial.name}: its tags are {trial.tags}"
        )
    parameters: dict[str, Any] = json.loads(hyperparameters)
    return parameters
