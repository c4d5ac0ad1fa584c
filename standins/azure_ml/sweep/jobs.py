"""Azure ML sweep jobs: trials drawn from a search space, some at once, the hopeless ones ended early.

Each trial is a command job of its own with an MLflow run that its `mlflow.log_metric` reaches (`MLFLOW_RUN_ID`). A trial's
objective is the best value it logged, as on the service. What was drawn for a trial stands in its document, so a stand-in
that was killed goes on with the next trial.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from standins.azure_ml import command_job
from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.sweep.early_stopping import check_policy, verdict
from standins.azure_ml.sweep.search_space import Drawn, best, check_sampling, draw, read_space, values
from standins.azure_ml.tracking import Tracking
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere

if TYPE_CHECKING:
    from standins.azure_ml.followers import Jobs

_PARAMETER = re.compile(r"\$\{\{\s*search_space\.([A-Za-z0-9_.-]+)\s*\}\}")
_LOOK_AT_METRICS = 1.0  # seconds between looks at what live trials have logged
_OF_TRIAL = ("command", "environmentId", "codeId", "environmentVariables", "resources", "distribution")
_MLFLOW = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}
_MOST = 1000  # trials of a sweep, on the service


def check(cloud: Cloud, workspace: Workspace, asked: Json) -> None:
    """Refuse what could not run. Raises ApiError."""
    if not cloud.one(Tracking).is_there:
        raise NotImplementedHere("A sweep without an MLflow server in MLFLOW_TRACKING_URI of the stand-ins")
    space = read_space(asked.get("searchSpace") or {})
    policy = asked.get("earlyTermination")
    check_sampling(asked.get("samplingAlgorithm") or {}, space, ends_early=bool(policy))
    if policy:
        check_policy(policy)
    objective = asked.get("objective") or {}
    if str(objective.get("goal")).lower() not in ("minimize", "maximize") or not objective.get("primaryMetric"):
        raise user_error(
            f"objective: a primaryMetric and a goal, minimize or maximize, are needed; found {objective!r}"
        )
    most, at_once = _limits(asked)
    if not (1 <= most <= _MOST and at_once >= 1):
        raise user_error(f"limits: 1 to {_MOST} trials, at least 1 at once; found {most}, {at_once} at once")
    known = {parameter.name for parameter in space}
    used = set(_PARAMETER.findall((asked.get("trial") or {}).get("command") or ""))
    if strays := sorted(used - known):
        raise user_error(
            f"The trial's command uses ${{{{search_space.{strays[0]}}}}}, which searchSpace does not have."
        )
    timeout(asked)
    command_job.check(cloud, workspace, _trial(asked, dict.fromkeys(known, 0)))


def timeout(asked: Json) -> float:
    return command_job.timeout(asked)


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Read what the trials have logged, end the hopeless, settle those that are over, start what there is room for."""
    tracking = cloud.one(Tracking)
    trials = jobs.children(job)
    if job["asked"].get("earlyTermination") and time.time() - job.get("looked", 0.0) >= _LOOK_AT_METRICS:
        jobs.change(job, looked=time.time())
        _end_the_hopeless(tracking, jobs, job, trials)
    _settle_all(tracking, jobs, job)
    trials = jobs.children(job)
    live = [trial for trial in trials if not trial.get("settled")]
    most, at_once = _limits(job["asked"])
    if len(trials) < most and len(live) < at_once and _start_another(tracking, jobs, job, trials):
        return
    if not live:
        _conclude(tracking, jobs, job, trials)


def canceled(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    _settle_all(cloud.one(Tracking), jobs, job)


def _start_another(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> bool:
    """Start the next trial; False when the space has no more."""
    asked = job["asked"]
    space = read_space(asked["searchSpace"])
    goal = _goal(asked)
    sampling = asked.get("samplingAlgorithm") or {}
    seed = str(sampling.get("seed") if sampling.get("seed") is not None else job["name"])
    earlier = [
        Drawn(trial["drawn"], best(trial["logged"], goal) if trial["logged"] else None)
        for trial in trials
        if trial["logged"] or not trial.get("settled") or sampling.get("samplingAlgorithmType") != "Bayesian"
    ]
    drawn = draw(space, sampling, goal, f"{seed}/{len(trials)}", earlier)
    if drawn is None:
        return False
    name = f"{job['name']}_{len(trials)}"
    chosen = values(space, drawn)
    run = tracking.run_of(asked.get("experimentName") or "Default", name)
    wanted = _trial(asked, chosen)
    wanted["environmentVariables"] |= {"MLFLOW_RUN_ID": run, "AZUREML_ROOT_RUN_ID": job["name"]}
    told = {"tags": {"hyperparameters": json.dumps(chosen)}, "properties": {"mlflow.run_id": run}}
    jobs.add_child(job, name, wanted, drawn=drawn, logged=[], mlflow=run, found=told)
    jobs.note(job, f"trial {name} starts with {json.dumps(chosen)}")
    return True


def _trial(asked: Json, chosen: dict[str, Any]) -> Json:
    """The command job that tries these parameters."""
    trial = {field: asked["trial"][field] for field in _OF_TRIAL if (asked.get("trial") or {}).get(field) is not None}
    command = _PARAMETER.sub(lambda at: str(chosen[at[1]]), trial.get("command") or "")
    limit = (asked.get("limits") or {}).get("trialTimeout")
    return {
        **trial,
        "jobType": "Command",
        "command": command,
        "environmentVariables": dict(trial.get("environmentVariables") or {}),
        "computeId": asked.get("computeId"),
        "experimentName": asked.get("experimentName"),
        "inputs": asked.get("inputs") or {},
        "outputs": asked.get("outputs") or {},
        "limits": {"jobLimitsType": "Command", "timeout": limit},
    }


def _end_the_hopeless(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> None:
    metric, goal = job["asked"]["objective"]["primaryMetric"], _goal(job["asked"])
    logged: dict[str, list[float]] = {trial["name"]: trial["logged"] for trial in trials}
    live = [trial for trial in trials if not jobs.is_over(trial)]
    for trial in live:
        found = tracking.logged(trial["mlflow"], metric)
        if len(found) > len(logged[trial["name"]]):
            logged[trial["name"]] = found
            jobs.change(trial, logged=found)
    for trial in live:
        others = [found for name, found in logged.items() if name != trial["name"]]
        why = verdict(job["asked"]["earlyTermination"], goal, logged[trial["name"]], others)
        if why and not trial["stop"]:
            jobs.note(job, f"trial {trial['name']} is ended early: {why}")
            jobs.stop(trial, why)


def _settle_all(tracking: Tracking, jobs: Jobs, job: Document) -> None:
    for trial in jobs.children(job):
        if jobs.is_over(trial) and not trial.get("settled"):
            _settle(tracking, jobs, job, trial)


def _settle(tracking: Tracking, jobs: Jobs, job: Document, trial: Document) -> None:
    """Take note of how a trial ended and of all it logged."""
    metric = job["asked"]["objective"]["primaryMetric"]
    found = tracking.logged(trial["mlflow"], metric)
    tracking.end(trial["mlflow"], _MLFLOW[trial["status"]])
    told = f"{metric} {best(found, _goal(job['asked'])):.6g}" if found else f"{metric} was not logged"
    jobs.note(job, f"trial {trial['name']} ended {trial['status']}: {trial['error'] or told}")
    if found:
        jobs.tell(trial, properties={"score": str(best(found, _goal(job["asked"])))})
    jobs.change(trial, logged=found, settled=True)


def _conclude(tracking: Tracking, jobs: Jobs, job: Document, trials: list[Document]) -> None:
    metric, goal = job["asked"]["objective"]["primaryMetric"], _goal(job["asked"])
    finished = [trial for trial in trials if trial["status"] == "Completed" and trial["logged"]]
    if not finished:
        jobs.finish(job, "Failed", _why_none(tracking, metric, trials))
        return
    sign = 1 if goal == "maximize" else -1
    winner = max(finished, key=lambda trial: sign * best(trial["logged"], goal))
    score = best(winner["logged"], goal)
    jobs.tell(job, properties={"best_child_run_id": winner["name"], "score": str(score)})
    jobs.note(job, f"the best of {len(trials)} trials is {winner['name']}: {metric} {score:.6g}")
    jobs.finish(job, "Completed")


def _why_none(tracking: Tracking, metric: str, trials: list[Document]) -> str:
    """Why a sweep whose trials are all over has no best one."""
    told = f"None of {len(trials)} trials completed with a value of the metric '{metric}'."
    for trial in trials:
        if trial["error"]:
            return f"{told} Trial {trial['name']} ended {trial['status']}: {trial['error']}"
    seen = ", ".join(tracking.metrics(trials[-1]["mlflow"])) if trials else ""
    return f"{told} Trial {trials[-1]['name']} logged {seen or 'no metric'}." if trials else told


def _goal(asked: Json) -> Any:
    return str(asked["objective"]["goal"]).lower()


def _limits(asked: Json) -> tuple[int, int]:
    """How many trials there are to be, and how many at once."""
    limits = asked.get("limits") or {}
    most = int(limits.get("maxTotalTrials") or _MOST)
    return most, int(limits.get("maxConcurrentTrials") or min(most, 100))
