"""Azure ML pipeline jobs: steps run as soon as what they take is made, and hand on what they make.

A pipeline's steps stand in the job, or in a registered pipeline component that the job names by its id, which is how one
that was published (by the Designer, too) is run. Each step is a command job of its own, `<pipeline>_<step>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from standins.azure_ml import command_job
from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.assets import find_asset
from standins.azure_ml.datastores import DEFAULT
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere

if TYPE_CHECKING:
    from standins.azure_ml.followers import Jobs

_PARENT_INPUT = re.compile(r"\$\{\{\s*parent\.inputs\.([A-Za-z0-9_]+)\s*\}\}")
_STEP_OUTPUT = re.compile(r"\$\{\{\s*parent\.jobs\.([A-Za-z0-9_]+)\.outputs\.([A-Za-z0-9_]+)\s*\}\}")
_PARENT_OUTPUT = re.compile(r"\$\{\{\s*parent\.outputs\.([A-Za-z0-9_]+)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]")
_INPUT = re.compile(r"\$\{\{\s*inputs\.([A-Za-z0-9_]+)\s*\}\}")


@dataclass(frozen=True)
class Step:
    """A step as it was asked for, and the component that it runs."""

    name: str
    node: Json
    component: Json

    @property
    def needs(self) -> set[str]:
        """The steps whose outputs it takes."""
        return {found[1] for given in self.given.values() if (found := _STEP_OUTPUT.search(str(given.get("value"))))}

    @property
    def given(self) -> dict[str, Json]:
        return {key: value for key, value in (self.node.get("inputs") or {}).items() if value is not None}

    @property
    def takes(self) -> dict[str, Json]:
        """Its component's inputs: type, default, whether it is optional."""
        return self.component.get("inputs") or {}


@dataclass(frozen=True)
class Pipeline:
    """A pipeline job as far as it can be read: its steps, and its inputs and outputs with its component's."""

    name: str
    asked: Json
    steps: Mapping[str, Step]
    inputs: Json
    outputs: Json

    def job_of(self, step: Step) -> Json:
        """The command job of a step. What it takes need not be made yet: where it will be is known."""
        spec = step.component
        settings = self.asked.get("settings") or {}
        inputs = {key: found for key, told in step.takes.items() if (found := self._input(step, key, told)) is not None}
        outputs = {
            key: {"jobOutputType": (told or {}).get("type"), "uri": self._place(step.name, key)}
            for key, told in (spec.get("outputs") or {}).items()
        }
        command = _OPTIONAL.sub(lambda at: at[1] if set(_INPUT.findall(at[1])) <= set(inputs) else "", spec["command"])
        variables = {**(spec.get("environment_variables") or {}), **(step.node.get("environment_variables") or {})}
        return {
            "jobType": "Command",
            "displayName": step.node.get("display_name") or step.name,
            "experimentName": self.asked.get("experimentName"),
            "command": command,
            "environmentId": step.node.get("environment") or spec.get("environment"),
            "codeId": spec.get("code"),
            "computeId": step.node.get("computeId") or settings.get("default_compute") or self.asked.get("computeId"),
            "environmentVariables": {**variables, "AZUREML_ROOT_RUN_ID": self.name},
            "limits": step.node.get("limits"),
            "resources": _camel(step.node.get("resources") or spec.get("resources")),
            "distribution": _camel(step.node.get("distribution") or spec.get("distribution")),
            "inputs": inputs,
            "outputs": outputs,
        }

    def made(self, output: str) -> str:
        """Where an output of the pipeline itself is."""
        told = self.outputs.get(output) or {}
        return str(told.get("uri") or f"azureml://datastores/{DEFAULT}/paths/azureml/{self.name}/{output}/")

    def _input(self, step: Step, key: str, told: Json) -> Json | None:
        """What a step's input becomes; None for one that is optional and not given."""
        default = told.get("default")
        otherwise = None if default is None else {"jobInputType": "literal", "value": default}
        given = step.given.get(key)
        if given is None:
            return otherwise
        mode = {"mode": given["mode"]} if given.get("mode") else {}
        if given.get("uri"):
            return {"jobInputType": told.get("type"), "uri": given["uri"], **mode}
        value = str(given.get("value"))
        if whole := _STEP_OUTPUT.fullmatch(value.strip()):
            return {"jobInputType": told.get("type"), "uri": self._place(whole[1], whole[2]), **mode}
        if whole := _PARENT_INPUT.fullmatch(value.strip()):
            parent = self.inputs.get(whole[1])
            return otherwise if parent is None else {**parent, **mode}
        text = _PARENT_INPUT.sub(lambda at: str((self.inputs.get(at[1]) or {}).get("value", "")), value)
        return {"jobInputType": "literal", "value": text}

    def _place(self, step: str, output: str) -> str:
        """Where a step's output is put: where it says, where the output of the pipeline is, or in a place of its own."""
        given = (self.steps[step].node.get("outputs") or {}).get(output) or {}
        given = given if isinstance(given, dict) else {"value": given}
        if bound := _PARENT_OUTPUT.search(str(given.get("value"))):
            return self.made(bound[1])
        place = f"azureml://datastores/{DEFAULT}/paths/azureml/{self.name}_{step}/{output}/"
        return str(given.get("uri") or place)


def check(cloud: Cloud, workspace: Workspace, asked: Json) -> None:
    """Refuse what could not run. Raises ApiError."""
    pipeline = _read(cloud, workspace, "checked", asked)
    for step in pipeline.steps.values():
        for key, given in step.given.items():
            _refuse_strays(pipeline, step, key, str(given.get("value")))
        if missing := sorted(key for key, told in step.takes.items() if _is_needed(told) and key not in step.given):
            raise user_error(f"Step '{step.name}' needs the input '{missing[0]}', and is given none.")
        command_job.check(cloud, workspace, pipeline.job_of(step))
    try:
        list(TopologicalSorter({step.name: step.needs for step in pipeline.steps.values()}).static_order())
    except CycleError as error:
        raise user_error(f"The steps wait for each other: {' -> '.join(error.args[1])}.") from error


def timeout(_: Json) -> float:
    return 0.0  # the service has no limit for a whole pipeline; steps have their own


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Start the steps that have all they take; end the job when no step goes on."""
    pipeline = _read(cloud, Workspace(job["subscription"], job["group"], job["workspace"]), job["name"], job["asked"])
    runs = _runs(jobs, job)
    _note_ends(jobs, job, runs)
    failed = [name for name, run in runs.items() if run["status"] in ("Failed", "Canceled")]
    done = {name for name, run in runs.items() if run["status"] == "Completed"}
    live = [run for run in runs.values() if not jobs.is_over(run)]
    if failed and not (job["asked"].get("settings") or {}).get("continue_on_step_failure"):
        for run in live:
            if not run["stop"]:
                jobs.stop(run, f"Step '{failed[0]}' failed.")
    else:
        for step in pipeline.steps.values():
            if step.name not in runs and step.needs <= done:
                jobs.note(job, f"step {step.name} starts")
                live.append(jobs.add_child(job, f"{job['name']}_{step.name}", pipeline.job_of(step)))
    if live:
        return
    if failed:
        first = min(failed, key=lambda name: runs[name]["ended"])
        why = runs[first]["error"] or "it was canceled"
        jobs.finish(job, "Failed", f"Step '{first}' ended {runs[first]['status']}: {why}")
        return
    made = {key: {**(told or {}), "uri": pipeline.made(key)} for key, told in pipeline.outputs.items()}
    jobs.change(job, outputs=made)
    jobs.finish(job, "Completed")


def canceled(_: Cloud, jobs: Jobs, job: Document) -> None:
    _note_ends(jobs, job, _runs(jobs, job))


def _runs(jobs: Jobs, job: Document) -> dict[str, Document]:
    """The jobs of the steps that have been started, by step."""
    prefix = f"{job['name']}_"
    return {child["name"].removeprefix(prefix): child for child in jobs.children(job)}


def _note_ends(jobs: Jobs, job: Document, runs: Mapping[str, Document]) -> None:
    for name, run in runs.items():
        if jobs.is_over(run) and not run.get("settled"):
            jobs.note(job, f"step {name} ended {run['status']}{': ' + run['error'] if run['error'] else ''}")
            jobs.change(run, settled=True)


def _read(cloud: Cloud, workspace: Workspace, name: str, asked: Json) -> Pipeline:
    """Raises ApiError for what cannot be read as a pipeline of command steps."""
    inputs, outputs = dict(asked.get("inputs") or {}), dict(asked.get("outputs") or {})
    nodes = asked.get("jobs") or {}
    if component := asked.get("componentId"):
        spec = _component(cloud, workspace, component, "The pipeline")
        if spec.get("type") != "pipeline":
            raise user_error(f"'{component}' is a component of type {spec.get('type')!r}; a pipeline is needed.")
        nodes = spec.get("jobs") or {}
        outputs = {
            key: {"jobOutputType": told.get("type")} for key, told in (spec.get("outputs") or {}).items()
        } | outputs
        for key, told in (spec.get("inputs") or {}).items():
            if key not in inputs and told.get("default") is not None:
                inputs[key] = {"jobInputType": "literal", "value": told["default"]}
            elif key not in inputs and not told.get("optional"):
                raise user_error(f"The pipeline needs the input '{key}', and is given none.")
    if not nodes:
        raise user_error("A pipeline job needs at least one step, or the id of a pipeline component.")
    steps = {}
    for step, node in nodes.items():
        if node.get("type", "command") != "command":
            raise NotImplementedHere(f"Step '{step}': a step of type {node.get('type')!r}")
        found = _component(cloud, workspace, str(node.get("componentId")), f"Step '{step}'")
        if found.get("type") != "command":
            raise NotImplementedHere(f"Step '{step}': a component of type {found.get('type')!r}")
        steps[step] = Step(step, node, found)
    return Pipeline(name, asked, steps, inputs, outputs)


def _component(cloud: Cloud, workspace: Workspace, reference: str, who: str) -> Json:
    found = find_asset(cloud.documents, workspace, "components", reference)
    if found is None:
        raise user_error(f"{who} names the component '{reference}', which does not exist.")
    spec: Json = found[1]["properties"]["componentSpec"]
    return spec


def _refuse_strays(pipeline: Pipeline, step: Step, key: str, value: str) -> None:
    for name in _PARENT_INPUT.findall(value):
        if name not in pipeline.inputs and _is_needed(step.takes.get(key) or {}):
            raise user_error(f"Step '{step.name}' takes the pipeline's input '{name}', which is not given.")
    for name, output in _STEP_OUTPUT.findall(value):
        if name not in pipeline.steps or output not in (pipeline.steps[name].component.get("outputs") or {}):
            raise user_error(f"Step '{step.name}' takes the output '{output}' of step '{name}', which is not there.")


def _is_needed(told: Json) -> bool:
    return not told.get("optional") and told.get("default") is None


def _camel(given: Json | None) -> Json | None:
    """A node's field in the management API's spelling: `instance_count` becomes `instanceCount`."""
    if given is None:
        return None
    return {re.sub(r"_(\w)", lambda at: at[1].upper(), key): value for key, value in given.items()}
