"""Azure ML sweep jobs: trials sampled from a search space, several at once, poor ones stopped early.

Each trial is a command job of its own with an MLflow run, to which its `mlflow.log_metric` writes (`MLFLOW_RUN_ID`). A
trial's objective is the best value it logged, as on the service. A trial's document contains its sampled parameters, so a
stand-in that was killed continues with the next trial.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.jobs import command_job
from standins.azure_ml.sweep.early_stopping import check_policy, stop_reason
from standins.azure_ml.sweep.search_space import SampledTrial, best, check_sampling, draw, parameter_values, read_space
from standins.azure_ml.sweep.tracking import Tracking
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere

if TYPE_CHECKING:
    from standins.azure_ml.jobs.followers import Jobs

_PARAMETER = re.compile(r"\$\{\{\s*search_space\.([A-Za-z0-9_.-]+)\s*\}\}")
_METRICS_SECONDS = 1.0  # between two reads of the running trials' metrics
_TRIAL_FIELDS = ("command", "environmentId", "codeId", "environmentVariables", "resources", "distribution")
_MLFLOW_STATUS = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}
_MAX_TRIALS = 1000  # the service's limit on the trials of a sweep


def check(cloud: Cloud, workspace: Workspace, definition: Json) -> None:
    """Reject a definition that cannot run. Raises ApiError."""
    if not cloud.shared(Tracking).is_configured:
        raise NotImplementedHere("A sweep while the stand-ins have no MLflow server in MLFLOW_TRACKING_URI")
    space = read_space(definition.get("searchSpace") or {})
    policy = definition.get("earlyTermination")
    check_sampling(definition.get("samplingAlgorithm") or {}, space, ends_early=bool(policy))
    if policy:
        check_policy(policy)
    objective = definition.get("objective") or {}
    if str(objective.get("goal")).lower() not in ("minimize", "maximize") or not objective.get("primaryMetric"):
        raise user_error(
            f"objective: a primaryMetric and a goal, minimize or maximize, are needed; found {objective!r}"
        )
    max_trials, max_concurrent = _limits(definition)
    if not (1 <= max_trials <= _MAX_TRIALS and max_concurrent >= 1):
        raise user_error(
            f"limits: 1 to {_MAX_TRIALS} trials, at least 1 at once; found {max_trials}, {max_concurrent} at once"
        )
    names = {parameter.name for parameter in space}
    used = set(_PARAMETER.findall((definition.get("trial") or {}).get("command") or ""))
    if undefined := sorted(used - names):
        raise user_error(
            f"The trial's command uses ${{{{search_space.{undefined[0]}}}}}, which searchSpace does not define."
        )
    timeout(definition)
    command_job.check(cloud, workspace, _trial(definition, dict.fromkeys(names, 0)))


def timeout(definition: Json) -> float:
    return command_job.timeout(definition)


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Read the metrics, stop poor trials, settle ended ones, start the next one if the limits allow it."""
    tracking = cloud.shared(Tracking)
    trials = jobs.children(job)
    if job["asked"].get("earlyTermination") and time.time() - job.get("looked", 0.0) >= _METRICS_SECONDS:
        jobs.change(job, looked=time.time())
        _stop_early(tracking, jobs, job, trials)
    _settle_all(tracking, jobs, job)
    trials = jobs.children(job)
    active = [trial for trial in trials if not trial.get("settled")]
    max_trials, max_concurrent = _limits(job["asked"])
    if len(trials) < max_trials and len(active) < max_concurrent and _start_another(tracking, jobs, job, trials):
        return
    if not active:
        _finish(tracking, jobs, job, trials)


def on_canceled(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    _settle_all(cloud.shared(Tracking), jobs, job)


def _start_another(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> bool:
    """Start the next trial; False when the search space is exhausted."""
    definition = job["asked"]
    space = read_space(definition["searchSpace"])
    goal = _goal(definition)
    sampling = definition.get("samplingAlgorithm") or {}
    seed = str(sampling.get("seed") if sampling.get("seed") is not None else job["name"])
    earlier = [
        SampledTrial(trial["drawn"], best(trial["logged"], goal) if trial["logged"] else None)
        for trial in trials
        if trial["logged"] or not trial.get("settled") or sampling.get("samplingAlgorithmType") != "Bayesian"
    ]
    drawn = draw(space, sampling, goal, f"{seed}/{len(trials)}", earlier)
    if drawn is None:
        return False
    name = f"{job['name']}_{len(trials)}"
    chosen = parameter_values(space, drawn)
    run = tracking.find_or_create_run(definition.get("experimentName") or "Default", name)
    trial_definition = _trial(definition, chosen)
    trial_definition["environmentVariables"] |= {"MLFLOW_RUN_ID": run, "AZUREML_ROOT_RUN_ID": job["name"]}
    annotations = {"tags": {"hyperparameters": json.dumps(chosen)}, "properties": {"mlflow.run_id": run}}
    jobs.add_child(job, name, trial_definition, drawn=drawn, logged=[], mlflow=run, found=annotations)
    jobs.note(job, f"trial {name} starts with {json.dumps(chosen)}")
    return True


def _trial(definition: Json, chosen: dict[str, Any]) -> Json:
    """The definition of the command job that runs with these parameters."""
    trial = {
        field: definition["trial"][field]
        for field in _TRIAL_FIELDS
        if (definition.get("trial") or {}).get(field) is not None
    }
    command = _PARAMETER.sub(lambda match: str(chosen[match[1]]), trial.get("command") or "")
    limit = (definition.get("limits") or {}).get("trialTimeout")
    return {
        **trial,
        "jobType": "Command",
        "command": command,
        "environmentVariables": dict(trial.get("environmentVariables") or {}),
        "computeId": definition.get("computeId"),
        "experimentName": definition.get("experimentName"),
        "inputs": definition.get("inputs") or {},
        "outputs": definition.get("outputs") or {},
        "limits": {"jobLimitsType": "Command", "timeout": limit},
    }


def _stop_early(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> None:
    metric, goal = job["asked"]["objective"]["primaryMetric"], _goal(job["asked"])
    logged: dict[str, list[float]] = {trial["name"]: trial["logged"] for trial in trials}
    active = [trial for trial in trials if not jobs.is_over(trial)]
    for trial in active:
        history = tracking.metric_history(trial["mlflow"], metric)
        if len(history) > len(logged[trial["name"]]):
            logged[trial["name"]] = history
            jobs.change(trial, logged=history)
    for trial in active:
        others = [history for name, history in logged.items() if name != trial["name"]]
        reason = stop_reason(job["asked"]["earlyTermination"], goal, logged[trial["name"]], others)
        if reason and not trial["stop"]:
            jobs.note(job, f"trial {trial['name']} is stopped early: {reason}")
            jobs.stop(trial, reason)


def _settle_all(tracking: Tracking, jobs: Jobs, job: Document) -> None:
    for trial in jobs.children(job):
        if jobs.is_over(trial) and not trial.get("settled"):
            _settle(tracking, jobs, job, trial)


def _settle(tracking: Tracking, jobs: Jobs, job: Document, trial: Document) -> None:
    """Record the final status and metrics of a trial, in its document and in MLflow."""
    metric = job["asked"]["objective"]["primaryMetric"]
    history = tracking.metric_history(trial["mlflow"], metric)
    tracking.end_run(trial["mlflow"], _MLFLOW_STATUS[trial["status"]])
    result = f"{metric} {best(history, _goal(job['asked'])):.6g}" if history else f"{metric} was not logged"
    jobs.note(job, f"trial {trial['name']} ended {trial['status']}: {trial['error'] or result}")
    if history:
        jobs.annotate(trial, properties={"score": str(best(history, _goal(job["asked"])))})
    jobs.change(trial, logged=history, settled=True)


def _finish(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> None:
    metric, goal = job["asked"]["objective"]["primaryMetric"], _goal(job["asked"])
    finished = [trial for trial in trials if trial["status"] == "Completed" and trial["logged"]]
    if not finished:
        jobs.finish(job, "Failed", _no_result_message(tracking, metric, trials))
        return
    sign = 1 if goal == "maximize" else -1
    winner = max(finished, key=lambda trial: sign * best(trial["logged"], goal))
    score = best(winner["logged"], goal)
    jobs.annotate(job, properties={"best_child_run_id": winner["name"], "score": str(score)})
    jobs.note(job, f"the best of {len(trials)} trials is {winner['name']}: {metric} {score:.6g}")
    jobs.finish(job, "Completed")


def _no_result_message(tracking: Tracking, metric: str, trials: list[Document]) -> str:
    """Why a sweep whose trials have all ended has no best trial."""
    summary = f"None of {len(trials)} trials completed with a value of the metric '{metric}'."
    for trial in trials:
        if trial["error"]:
            return f"{summary} Trial {trial['name']} ended {trial['status']}: {trial['error']}"
    metrics = ", ".join(tracking.metric_names(trials[-1]["mlflow"])) if trials else ""
    return f"{summary} Trial {trials[-1]['name']} logged {metrics or 'no metric'}." if trials else summary


def _goal(definition: Json) -> Any:
    return str(definition["objective"]["goal"]).lower()


def _limits(definition: Json) -> tuple[int, int]:
    """The maximum number of trials in total and at once."""
    limits = definition.get("limits") or {}
    max_trials = int(limits.get("maxTotalTrials") or _MAX_TRIALS)
    return max_trials, int(limits.get("maxConcurrentTrials") or min(max_trials, 100))
