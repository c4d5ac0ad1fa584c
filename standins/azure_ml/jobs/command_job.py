"""Azure ML command jobs: checked, and converted into work for the compute.

The environment that a job names must exist, but the job always runs in this project's own Python environment, as if the
image had been built from it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.computes import find_compute
from standins.azure_ml.data.assets import find_asset
from standins.azure_ml.data.datastores import DEFAULT, resolve
from standins.compute.pool import Compute
from standins.compute.work import Work
from standins.core.cloud import Cloud
from standins.core.errors import NotImplementedHere

_REFERENCE = re.compile(r"\$\{\{\s*(inputs|outputs)\.([A-Za-z0-9_.-]+)\s*\}\}")
_DURATION = TypeAdapter(timedelta)
_DIRECT = "Direct"


def check(cloud: Cloud, workspace: Workspace, definition: Json) -> None:
    """Reject a definition that cannot run. Raises ApiError."""
    if not definition.get("command"):
        raise user_error("The field 'command' is required for a command job.")
    if (definition.get("distribution") or {}).get("distributionType") or (definition.get("resources") or {}).get(
        "instanceCount", 1
    ) != 1:
        raise NotImplementedHere("A command job on several nodes")
    environment = definition.get("environmentId") or ""
    if find_asset(cloud.documents, workspace, "environments", environment) is None:
        raise user_error(f"No environment exists for '{environment}'. Register it first, or check name and version.")
    if compute := definition.get("computeId"):
        name = compute.removeprefix("azureml:").rpartition("/")[2]
        if find_compute(cloud.documents, workspace, name) is None:
            raise user_error(f"Unknown compute target '{name}'.")
    if definition.get("codeId") and find_asset(cloud.documents, workspace, "codes", definition["codeId"]) is None:
        raise user_error(f"No code exists for '{definition['codeId']}'.")
    timeout(definition)
    declared = {"inputs": definition.get("inputs") or {}, "outputs": definition.get("outputs") or {}}
    for kind, name in _REFERENCE.findall(definition["command"]):
        if name not in declared[kind]:
            raise user_error(f"The command uses ${{{{{kind}.{name}}}}}, and the job has no such {kind.rstrip('s')}.")


def timeout(definition: Json) -> float:
    """The job's time limit in seconds; 0 for no limit. Raises ApiError."""
    limit = (definition.get("limits") or {}).get("timeout")
    if not limit:
        return 0.0
    try:
        return _DURATION.validate_python(limit).total_seconds()
    except ValidationError as error:
        raise user_error(f"limits.timeout: an ISO 8601 duration such as PT1H is needed; found {limit!r}") from error


def build_work(cloud: Cloud, workspace: Workspace, name: str, run: str, definition: Json) -> Work:
    """The work that the compute does for the job `name` in its run `run`. Raises ApiError."""
    folder = cloud.shared(Compute).folder / run
    values: dict[tuple[str, str], str] = {}
    variables = job_variables(workspace, name, definition)
    downloads: list[tuple[str, str]] = []
    uploads: list[tuple[str, str]] = []
    if code := definition.get("codeId"):
        asset = find_asset(cloud.documents, workspace, "codes", code)
        if asset is None:
            raise user_error(f"No code exists for '{code}'.")
        downloads.append((asset[1]["properties"]["codeUri"], "work"))
    for key, job_input in (definition.get("inputs") or {}).items():
        if job_input.get("jobInputType") == "literal":
            values["inputs", key] = str(job_input.get("value", ""))
            continue
        uri = resolve_input(cloud, workspace, job_input)
        if job_input.get("mode") == _DIRECT:
            values["inputs", key] = uri
        else:
            downloads.append((uri, f"inputs/{key}"))
            values["inputs", key] = str(folder / "inputs" / key)
        variables[f"AZURE_ML_INPUT_{key}"] = values["inputs", key]
    for key, job_output in (definition.get("outputs") or {}).items():
        default = f"azureml://datastores/{DEFAULT}/paths/azureml/{name}/{key}/"
        uri = resolve(cloud, workspace, (job_output or {}).get("uri") or default)
        if (job_output or {}).get("mode") == _DIRECT:
            values["outputs", key] = uri
        else:
            kind = (job_output or {}).get("jobOutputType")
            uploads.append((f"outputs/{key}" + ("" if kind == "uri_file" else "/"), uri))
            values["outputs", key] = str(folder / "outputs" / key)
        variables[f"AZURE_ML_OUTPUT_{key}"] = values["outputs", key]
    line = _REFERENCE.sub(lambda match: values[match[1], match[2]], definition["command"])
    command = Work.command(line)
    return Work(
        command.kind,
        command.target,
        arguments=command.arguments,
        environment={**variables, **{k: str(v) for k, v in (definition.get("environmentVariables") or {}).items()}},
        downloads=tuple(downloads),
        uploads=tuple(uploads),
        timeout=timeout(definition),
    )


def resolve_input(cloud: Cloud, workspace: Workspace, job_input: dict[str, Any]) -> str:
    """The URI of an input's data: a datastore path, or that of a data asset or model. Raises ApiError."""
    uri = str(job_input.get("uri") or "")
    for kind, field in (("data", "dataUri"), ("models", "modelUri")):
        asset = find_asset(cloud.documents, workspace, kind, uri)
        if asset is not None:
            uri = asset[1]["properties"][field]
            break
    return resolve(cloud, workspace, uri)


def job_variables(workspace: Workspace, name: str, definition: Json) -> dict[str, str]:
    """The environment variables that the service sets for a job, as far as they have a meaning here."""
    experiment = definition.get("experimentName") or "Default"
    return {
        "AZUREML_RUN_ID": name,
        "AZUREML_ROOT_RUN_ID": name,
        "AZUREML_EXPERIMENT_NAME": experiment,
        "AZUREML_ARM_PROJECT_NAME": experiment,
        "AZUREML_ARM_SUBSCRIPTION": workspace.subscription,
        "AZUREML_ARM_RESOURCEGROUP": workspace.group,
        "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
        "AZUREML_WORKSPACE_SCOPE": workspace.id,
    }
