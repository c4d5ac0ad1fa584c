"""Azure ML AutoML jobs: classification of tables, really searched.

A job is one run of the compute (`standins.azure_ml.automl.run`), which searches, fits and writes; the trials it has
ended appear as the job's children, as on the service: `<job>_0`, `<job>_1`, … with `run_algorithm` and `score`
among their properties. The job itself tells `best_child_run_id`, `best_algorithm` and `score`.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from standins.azure_ml import mltable
from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.automl.spec import Spec, UnknownError, WrongError, read_spec
from standins.azure_ml.command_job import address, job_variables
from standins.azure_ml.computes import find_compute
from standins.azure_ml.datastores import DEFAULT, resolve
from standins.azure_ml.job import outcome, workspace_of
from standins.compute.files import FileError, locate
from standins.compute.pool import Compute, Work
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere
from standins.core.storage import container

if TYPE_CHECKING:
    from standins.azure_ml.followers import Jobs

OUTPUT = "best_model"
_ROOT = Path(__file__).resolve().parents[3]
_LATE = 1800.0  # seconds beyond the job's own limit, in which the best model is fitted again and written
_INPUTS = {"trainingData": "inputs/training", "validationData": "inputs/validation"}


def check(cloud: Cloud, workspace: Workspace, asked: Json) -> None:
    """Refuse what could not run. Raises ApiError."""
    spec = _spec(asked)
    task = asked["taskDetails"]
    if task.get("validationData") and (spec.folds or spec.holdout or spec.own_splits):
        raise user_error("validationData, nCrossValidations, validationDataSize and cvSplitColumnNames: choose one.")
    for name in _INPUTS:
        if given := task.get(name):
            _check_table(cloud, workspace, name, given)
        elif name == "trainingData":
            raise user_error("The field 'trainingData' is required for an AutoML job.")
    if compute := asked.get("computeId"):
        target = compute.removeprefix("azureml:").rpartition("/")[2]
        if find_compute(cloud.documents, workspace, target) is None:
            raise user_error(f"Unknown compute target '{target}'.")
    if strays := sorted(set(asked.get("outputs") or {}) - {OUTPUT}):
        raise user_error(f"An AutoML job has the output '{OUTPUT}' and no {', '.join(strays)}.")
    _output(cloud, workspace, "any", asked)


def timeout(asked: Json) -> float:  # noqa: ARG001 - as every type's
    """The search ends by itself, with the best model it has by then."""
    return 0.0


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Start the run, show its trials, tell what came out."""
    compute = cloud.one(Compute)
    folder = compute.folder / job["run"]
    status = compute.status(job["run"])
    if status is None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "spec.json").write_text(_spec(job["asked"]).to_json())
        compute.submit(job["run"], _work(cloud, workspace_of(job), job, folder))
        return
    _show_trials(jobs, job, folder)
    if status.state != "ended":
        return
    how, why = outcome(status, 0.0)
    if how == "Completed":
        found = json.loads((folder / "best.json").read_text())
        told = {
            "best_child_run_id": f"{job['name']}_{found['best']}",
            "best_algorithm": found["algorithm"],
            "score": str(found["score"]),
            "onnx_max_difference": str(found["onnx_max_difference"]),
            "skipped": "; ".join(found["skipped"]),
        }
        jobs.tell(job, properties=told)
    elif (refused := folder / "refused.txt").exists():
        why = refused.read_text()
    jobs.finish(job, how, why)


def canceled(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    _show_trials(jobs, job, cloud.one(Compute).folder / job["run"])


def _show_trials(jobs: Jobs, job: Document, folder: Path) -> None:
    """A child job for each trial that has ended since the last look."""
    try:
        lines = (folder / "trials.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    shown = len(job.get("children", []))
    asked = {"jobType": "AutoML", "experimentName": job["asked"].get("experimentName")}
    for line in lines[shown:-1]:  # what follows the last line's end is being written
        trial: dict[str, Any] = json.loads(line)
        name = f"{job['name']}_{trial['number']}"
        told = {"run_algorithm": trial["algorithm"], "iteration": str(trial["number"])}
        if trial["score"] is not None:
            told["score"] = str(trial["score"])
        if trial["members"]:
            told["ensembled_run_ids"] = json.dumps([f"{job['name']}_{number}" for number in trial["members"]])
        jobs.add_child(
            job,
            name,
            {**asked, "displayName": name},
            status=trial["status"],
            error=trial["error"],
            started=trial["started"],
            ended=trial["ended"],
            found={"tags": {"hyperparameters": json.dumps(trial["config"])}, "properties": told},
        )


def _spec(asked: Json) -> Spec:
    try:
        return read_spec(asked)
    except WrongError as error:
        raise user_error(f"{error}.") from error
    except UnknownError as error:
        raise NotImplementedHere(str(error)) from error


def _check_table(cloud: Cloud, workspace: Workspace, name: str, given: Json) -> None:
    if given.get("jobInputType") != "mltable":
        raise user_error(f"{name}: an AutoML job reads an mltable; found {given.get('jobInputType')!r}.")
    uri = address(cloud, workspace, given)
    try:
        where, path = locate(uri)
        blob = container(cloud.settings, where).get_blob_client(f"{path.rstrip('/')}/{mltable.FILE}")
        if not blob.exists():
            raise user_error(f"{name}: there is no file {mltable.FILE} in {uri}.")
        mltable.patterns(blob.download_blob().readall().decode())
    except (FileError, mltable.BadTableError) as error:
        raise user_error(f"{name}: the {mltable.FILE} in {uri}: {error}.") from error
    except mltable.TableNotImplementedError as error:
        raise NotImplementedHere(str(error)) from error


def _output(cloud: Cloud, workspace: Workspace, job: str, asked: Json) -> str:
    given = (asked.get("outputs") or {}).get(OUTPUT) or {}
    default = f"azureml://datastores/{DEFAULT}/paths/azureml/{job}/{OUTPUT}/"
    return resolve(cloud, workspace, given.get("uri") or default)


def _work(cloud: Cloud, workspace: Workspace, job: Document, folder: Path) -> Work:
    asked = job["asked"]
    data = asked["taskDetails"]
    limit = _spec(asked).timeout
    return Work(
        "command",
        f"exec {shlex.quote(sys.executable)} -m standins.azure_ml.automl.run {shlex.quote(str(folder))}",
        environment={
            **job_variables(workspace, job["name"], asked),
            "PYTHONPATH": str(_ROOT),
            "PYTHONWARNINGS": "ignore",
        },
        downloads=tuple((address(cloud, workspace, data[name]), to) for name, to in _INPUTS.items() if data.get(name)),
        uploads=((f"outputs/{OUTPUT}", _output(cloud, workspace, job["name"], asked)),),
        timeout=limit + _LATE,
    )
