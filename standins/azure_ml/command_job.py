"""Azure ML command jobs: checked, and made into work for the compute.

A job's environment is a name that must exist; what runs is this project's own environment, as if the image
had been built from it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.assets import find_asset
from standins.azure_ml.computes import find_compute
from standins.azure_ml.datastores import DEFAULT, resolve
from standins.compute.pool import Compute, Work
from standins.core.cloud import Cloud
from standins.core.errors import NotImplementedHere

_REFERENCE = re.compile(r"\$\{\{\s*(inputs|outputs)\.([A-Za-z0-9_.-]+)\s*\}\}")
_DURATION = TypeAdapter(timedelta)
_DIRECT = "Direct"


def check(cloud: Cloud, workspace: Workspace, asked: Json) -> None:
    """Refuse what could not run. Raises ApiError."""
    if not asked.get("command"):
        raise user_error("The field 'command' is required for a command job.")
    if (asked.get("distribution") or {}).get("distributionType") or (asked.get("resources") or {}).get(
        "instanceCount", 1
    ) != 1:
        raise NotImplementedHere("A command job on several nodes")
    environment = asked.get("environmentId") or ""
    if find_asset(cloud.documents, workspace, "environments", environment) is None:
        raise user_error(f"No environment exists for '{environment}'. Register it first, or check name and version.")
    if compute := asked.get("computeId"):
        name = compute.removeprefix("azureml:").rpartition("/")[2]
        if find_compute(cloud.documents, workspace, name) is None:
            raise user_error(f"Unknown compute target '{name}'.")
    if asked.get("codeId") and find_asset(cloud.documents, workspace, "codes", asked["codeId"]) is None:
        raise user_error(f"No code exists for '{asked['codeId']}'.")
    timeout(asked)
    named = {"inputs": asked.get("inputs") or {}, "outputs": asked.get("outputs") or {}}
    for kind, name in _REFERENCE.findall(asked["command"]):
        if name not in named[kind]:
            raise user_error(f"The command uses ${{{{{kind}.{name}}}}}, and the job has no such {kind.rstrip('s')}.")


def timeout(asked: Json) -> float:
    """Seconds after which the job is to be ended; 0 for no limit. Raises ApiError."""
    given = (asked.get("limits") or {}).get("timeout")
    if not given:
        return 0.0
    try:
        return _DURATION.validate_python(given).total_seconds()
    except ValidationError as error:
        raise user_error(f"limits.timeout: an ISO 8601 duration such as PT1H is needed; found {given!r}") from error


def work(cloud: Cloud, workspace: Workspace, name: str, run: str, asked: Json) -> Work:
    """What the compute is to do for the job `name` as its run `run`. Raises ApiError."""
    folder = cloud.one(Compute).folder / run
    values: dict[tuple[str, str], str] = {}
    variables = job_variables(workspace, name, asked)
    downloads: list[tuple[str, str]] = []
    uploads: list[tuple[str, str]] = []
    if code := asked.get("codeId"):
        found = find_asset(cloud.documents, workspace, "codes", code)
        if found is None:
            raise user_error(f"No code exists for '{code}'.")
        downloads.append((found[1]["properties"]["codeUri"], "work"))
    for key, given in (asked.get("inputs") or {}).items():
        if given.get("jobInputType") == "literal":
            values["inputs", key] = str(given.get("value", ""))
            continue
        uri = address(cloud, workspace, given)
        if given.get("mode") == _DIRECT:
            values["inputs", key] = uri
        else:
            downloads.append((uri, f"inputs/{key}"))
            values["inputs", key] = str(folder / "inputs" / key)
        variables[f"AZURE_ML_INPUT_{key}"] = values["inputs", key]
    for key, given in (asked.get("outputs") or {}).items():
        default = f"azureml://datastores/{DEFAULT}/paths/azureml/{name}/{key}/"
        uri = resolve(cloud, workspace, (given or {}).get("uri") or default)
        if (given or {}).get("mode") == _DIRECT:
            values["outputs", key] = uri
        else:
            kind = (given or {}).get("jobOutputType")
            uploads.append((f"outputs/{key}" + ("" if kind == "uri_file" else "/"), uri))
            values["outputs", key] = str(folder / "outputs" / key)
        variables[f"AZURE_ML_OUTPUT_{key}"] = values["outputs", key]
    line = _REFERENCE.sub(lambda at: values[at[1], at[2]], asked["command"])
    plain = Work.command(line)
    return Work(
        plain.kind,
        plain.target,
        arguments=plain.arguments,
        environment={**variables, **{k: str(v) for k, v in (asked.get("environmentVariables") or {}).items()}},
        downloads=tuple(downloads),
        uploads=tuple(uploads),
        timeout=timeout(asked),
    )


def address(cloud: Cloud, workspace: Workspace, given: dict[str, Any]) -> str:
    """Where an input is: a datastore's path, or a data asset's or model's."""
    uri = str(given.get("uri") or "")
    for kind, field in (("data", "dataUri"), ("models", "modelUri")):
        asset = find_asset(cloud.documents, workspace, kind, uri)
        if asset is not None:
            uri = asset[1]["properties"][field]
            break
    return resolve(cloud, workspace, uri)


def job_variables(workspace: Workspace, name: str, asked: Json) -> dict[str, str]:
    """What a job finds in its environment on the service, of what says something here."""
    experiment = asked.get("experimentName") or "Default"
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
