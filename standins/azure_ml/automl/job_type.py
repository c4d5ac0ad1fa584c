"""Azure ML AutoML jobs: classification of tables, with a real search.

A job is one run of the compute (`standins.azure_ml.automl.run`), which searches, fits and writes the best model. Ended
trials appear as children of the job, as on the service: `<job>_0`, `<job>_1`, … with `run_algorithm` and `score` among
their properties. The job itself has the properties `best_child_run_id`, `best_algorithm` and `score`.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.automl.spec import InvalidSpecError, Spec, UnsupportedSpecError, read_spec
from standins.azure_ml.computes import find_compute
from standins.azure_ml.data import mltable
from standins.azure_ml.data.datastores import DEFAULT, resolve
from standins.azure_ml.jobs.command_job import job_variables, resolve_input
from standins.azure_ml.jobs.document import outcome, workspace_of
from standins.compute.files import FileError, locate
from standins.compute.pool import Compute
from standins.compute.work import Work
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere
from standins.core.storage import container

if TYPE_CHECKING:
    from standins.azure_ml.jobs.followers import Jobs

OUTPUT = "best_model"
_ROOT = Path(__file__).resolve().parents[3]
_EXTRA_SECONDS = 1800.0  # beyond the job's own limit: time to fit the best model again and write it
_INPUTS = {"trainingData": "inputs/training", "validationData": "inputs/validation"}


def check(cloud: Cloud, workspace: Workspace, definition: Json) -> None:
    """Reject a definition that cannot run. Raises ApiError."""
    spec = _spec(definition)
    task = definition["taskDetails"]
    if task.get("validationData") and (spec.folds or spec.holdout or spec.own_splits):
        raise user_error("validationData, nCrossValidations, validationDataSize and cvSplitColumnNames: choose one.")
    for name in _INPUTS:
        if data := task.get(name):
            _check_table(cloud, workspace, name, data)
        elif name == "trainingData":
            raise user_error("The field 'trainingData' is required for an AutoML job.")
    if compute := definition.get("computeId"):
        target = compute.removeprefix("azureml:").rpartition("/")[2]
        if find_compute(cloud.documents, workspace, target) is None:
            raise user_error(f"Unknown compute target '{target}'.")
    if unknown := sorted(set(definition.get("outputs") or {}) - {OUTPUT}):
        raise user_error(f"An AutoML job has only the output '{OUTPUT}'; found also {', '.join(unknown)}.")
    _output_uri(cloud, workspace, "any", definition)


def timeout(definition: Json) -> float:  # noqa: ARG001 - required by JobType
    """No limit from outside: the search itself stops in time and keeps the best model so far."""
    return 0.0


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Start the run, add its ended trials as children, record the result."""
    compute = cloud.shared(Compute)
    folder = compute.folder / job["run"]
    status = compute.status(job["run"])
    if status is None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "spec.json").write_text(_spec(job["asked"]).to_json())
        compute.submit(job["run"], _work(cloud, workspace_of(job), job, folder))
        return
    _add_trials(jobs, job, folder)
    if status.state != "ended":
        return
    final_status, error = outcome(status, 0.0)
    if final_status == "Completed":
        best = json.loads((folder / "best.json").read_text())
        properties = {
            "best_child_run_id": f"{job['name']}_{best['best']}",
            "best_algorithm": best["algorithm"],
            "score": str(best["score"]),
            "onnx_max_difference": str(best["onnx_max_difference"]),
            "skipped": "; ".join(best["skipped"]),
        }
        jobs.annotate(job, properties=properties)
    elif (refused := folder / "refused.txt").exists():
        error = refused.read_text()
    jobs.finish(job, final_status, error)


def on_canceled(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    _add_trials(jobs, job, cloud.shared(Compute).folder / job["run"])


def _add_trials(jobs: Jobs, job: Document, folder: Path) -> None:
    """Add a child job for each trial that has ended since the last call."""
    try:
        lines = (folder / "trials.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    known = len(job.get("children", []))
    definition = {"jobType": "AutoML", "experimentName": job["asked"].get("experimentName")}
    for line in lines[known:-1]:  # the part after the last line end may be incomplete
        trial: dict[str, Any] = json.loads(line)
        name = f"{job['name']}_{trial['number']}"
        properties = {"run_algorithm": trial["algorithm"], "iteration": str(trial["number"])}
        if trial["score"] is not None:
            properties["score"] = str(trial["score"])
        if trial["members"]:
            properties["ensembled_run_ids"] = json.dumps([f"{job['name']}_{number}" for number in trial["members"]])
        jobs.add_child(
            job,
            name,
            {**definition, "displayName": name},
            status=trial["status"],
            error=trial["error"],
            started=trial["started"],
            ended=trial["ended"],
            found={"tags": {"hyperparameters": json.dumps(trial["config"])}, "properties": properties},
        )


def _spec(definition: Json) -> Spec:
    try:
        return read_spec(definition)
    except InvalidSpecError as error:
        raise user_error(f"{error}.") from error
    except UnsupportedSpecError as error:
        raise NotImplementedHere(str(error)) from error


def _check_table(cloud: Cloud, workspace: Workspace, name: str, data: Json) -> None:
    if data.get("jobInputType") != "mltable":
        raise user_error(f"{name}: an AutoML job reads an mltable; found {data.get('jobInputType')!r}.")
    uri = resolve_input(cloud, workspace, data)
    try:
        container_name, path = locate(uri)
        blob = container(cloud.settings, container_name).get_blob_client(f"{path.rstrip('/')}/{mltable.FILE}")
        if not blob.exists():
            raise user_error(f"{name}: there is no file {mltable.FILE} in {uri}.")
        mltable.file_patterns(blob.download_blob().readall().decode())
    except (FileError, mltable.BadTableError) as error:
        raise user_error(f"{name}: the {mltable.FILE} in {uri}: {error}.") from error
    except mltable.TableNotImplementedError as error:
        raise NotImplementedHere(str(error)) from error


def _output_uri(cloud: Cloud, workspace: Workspace, job: str, definition: Json) -> str:
    output = (definition.get("outputs") or {}).get(OUTPUT) or {}
    default = f"azureml://datastores/{DEFAULT}/paths/azureml/{job}/{OUTPUT}/"
    return resolve(cloud, workspace, output.get("uri") or default)


def _work(cloud: Cloud, workspace: Workspace, job: Document, folder: Path) -> Work:
    definition = job["asked"]
    data = definition["taskDetails"]
    limit = _spec(definition).timeout
    return Work(
        "command",
        f"exec {shlex.quote(sys.executable)} -m standins.azure_ml.automl.run {shlex.quote(str(folder))}",
        environment={
            **job_variables(workspace, job["name"], definition),
            "PYTHONPATH": str(_ROOT),
            "PYTHONWARNINGS": "ignore",
        },
        downloads=tuple(
            (resolve_input(cloud, workspace, data[name]), to) for name, to in _INPUTS.items() if data.get(name)
        ),
        uploads=((f"outputs/{OUTPUT}", _output_uri(cloud, workspace, job["name"], definition)),),
        timeout=limit + _EXTRA_SECONDS,
    )
