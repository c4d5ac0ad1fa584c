"""Azure ML pipeline jobs: each step runs as soon as its inputs exist, and passes its outputs on.

The steps are defined in the job, or in a registered pipeline component that the job references by id. The latter is how
a published pipeline (also one from the Designer) runs. Each step is a command job of its own, `<pipeline>_<step>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from standins.azure_ml.api import Json, Workspace, user_error
from standins.azure_ml.data.assets import find_asset
from standins.azure_ml.data.datastores import DEFAULT
from standins.azure_ml.jobs import command_job
from standins.azure_ml.jobs.document import workspace_of
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import NotImplementedHere

if TYPE_CHECKING:
    from standins.azure_ml.jobs.followers import Jobs

_PARENT_INPUT = re.compile(r"\$\{\{\s*parent\.inputs\.([A-Za-z0-9_]+)\s*\}\}")
_STEP_OUTPUT = re.compile(r"\$\{\{\s*parent\.jobs\.([A-Za-z0-9_]+)\.outputs\.([A-Za-z0-9_]+)\s*\}\}")
_PARENT_OUTPUT = re.compile(r"\$\{\{\s*parent\.outputs\.([A-Za-z0-9_]+)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]")
_INPUT = re.compile(r"\$\{\{\s*inputs\.([A-Za-z0-9_]+)\s*\}\}")


@dataclass(frozen=True)
class Step:
    """A step as defined (`node`), and the component that it runs."""

    name: str
    node: Json
    component: Json

    @property
    def upstream(self) -> set[str]:
        """The steps whose outputs it uses."""
        bindings = (_STEP_OUTPUT.search(str(binding.get("value"))) for binding in self.inputs.values())
        return {match[1] for match in bindings if match}

    @property
    def inputs(self) -> dict[str, Json]:
        return {key: value for key, value in (self.node.get("inputs") or {}).items() if value is not None}

    @property
    def component_inputs(self) -> dict[str, Json]:
        """The inputs that its component declares: type, default, whether it is optional."""
        return self.component.get("inputs") or {}


@dataclass(frozen=True)
class Pipeline:
    """A parsed pipeline job: its steps, and its inputs and outputs completed by those of its component."""

    name: str
    definition: Json
    steps: Mapping[str, Step]
    inputs: Json
    outputs: Json

    def job_of(self, step: Step) -> Json:
        """The definition of a step's command job. Its inputs need not exist yet: their URIs are known in advance."""
        spec = step.component
        settings = self.definition.get("settings") or {}
        inputs = {
            key: job_input
            for key, declared in step.component_inputs.items()
            if (job_input := self._input(step, key, declared)) is not None
        }
        outputs = {
            key: {"jobOutputType": (declared or {}).get("type"), "uri": self._step_output_uri(step.name, key)}
            for key, declared in (spec.get("outputs") or {}).items()
        }
        command = _OPTIONAL.sub(
            lambda match: match[1] if set(_INPUT.findall(match[1])) <= set(inputs) else "", spec["command"]
        )
        variables = {**(spec.get("environment_variables") or {}), **(step.node.get("environment_variables") or {})}
        return {
            "jobType": "Command",
            "displayName": step.node.get("display_name") or step.name,
            "experimentName": self.definition.get("experimentName"),
            "command": command,
            "environmentId": step.node.get("environment") or spec.get("environment"),
            "codeId": spec.get("code"),
            "computeId": step.node.get("computeId")
            or settings.get("default_compute")
            or self.definition.get("computeId"),
            "environmentVariables": {**variables, "AZUREML_ROOT_RUN_ID": self.name},
            "limits": step.node.get("limits"),
            "resources": _to_camel_case(step.node.get("resources") or spec.get("resources")),
            "distribution": _to_camel_case(step.node.get("distribution") or spec.get("distribution")),
            "inputs": inputs,
            "outputs": outputs,
        }

    def output_uri(self, output: str) -> str:
        """The URI of an output of the pipeline itself."""
        declared = self.outputs.get(output) or {}
        return str(declared.get("uri") or f"azureml://datastores/{DEFAULT}/paths/azureml/{self.name}/{output}/")

    def _input(self, step: Step, key: str, declared: Json) -> Json | None:
        """The input of a step's command job; None for an optional input that is not set."""
        default = declared.get("default")
        fallback = None if default is None else {"jobInputType": "literal", "value": default}
        binding = step.inputs.get(key)
        if binding is None:
            return fallback
        mode = {"mode": binding["mode"]} if binding.get("mode") else {}
        if binding.get("uri"):
            return {"jobInputType": declared.get("type"), "uri": binding["uri"], **mode}
        value = str(binding.get("value"))
        if match := _STEP_OUTPUT.fullmatch(value.strip()):
            return {"jobInputType": declared.get("type"), "uri": self._step_output_uri(match[1], match[2]), **mode}
        if match := _PARENT_INPUT.fullmatch(value.strip()):
            parent = self.inputs.get(match[1])
            return fallback if parent is None else {**parent, **mode}
        text = _PARENT_INPUT.sub(lambda match: str((self.inputs.get(match[1]) or {}).get("value", "")), value)
        return {"jobInputType": "literal", "value": text}

    def _step_output_uri(self, step: str, output: str) -> str:
        """The URI of a step's output: that of the pipeline output it is bound to, its own `uri`, or a default."""
        binding = (self.steps[step].node.get("outputs") or {}).get(output) or {}
        binding = binding if isinstance(binding, dict) else {"value": binding}
        if match := _PARENT_OUTPUT.search(str(binding.get("value"))):
            return self.output_uri(match[1])
        default = f"azureml://datastores/{DEFAULT}/paths/azureml/{self.name}_{step}/{output}/"
        return str(binding.get("uri") or default)


def check(cloud: Cloud, workspace: Workspace, definition: Json) -> None:
    """Reject a definition that cannot run. Raises ApiError."""
    pipeline = _read_pipeline(cloud, workspace, "checked", definition)
    for step in pipeline.steps.values():
        for key, binding in step.inputs.items():
            _check_binding(pipeline, step, key, str(binding.get("value")))
        if missing := sorted(
            key for key, declared in step.component_inputs.items() if _is_required(declared) and key not in step.inputs
        ):
            raise user_error(f"Step '{step.name}' requires the input '{missing[0]}', which is not set.")
        command_job.check(cloud, workspace, pipeline.job_of(step))
    try:
        list(TopologicalSorter({step.name: step.upstream for step in pipeline.steps.values()}).static_order())
    except CycleError as error:
        raise user_error(f"The steps depend on each other: {' -> '.join(error.args[1])}.") from error


def timeout(_: Json) -> float:
    return 0.0  # the service limits only steps, not a whole pipeline


def follow(cloud: Cloud, jobs: Jobs, job: Document) -> None:
    """Start the steps whose inputs exist; finish the job when no step runs or can start."""
    pipeline = _read_pipeline(cloud, workspace_of(job), job["name"], job["asked"])
    runs = _step_jobs(jobs, job)
    _log_ended_steps(jobs, job, runs)
    failed = [name for name, run in runs.items() if run["status"] in ("Failed", "Canceled")]
    done = {name for name, run in runs.items() if run["status"] == "Completed"}
    active = [run for run in runs.values() if not jobs.is_over(run)]
    if failed and not (job["asked"].get("settings") or {}).get("continue_on_step_failure"):
        for run in active:
            if not run["stop"]:
                jobs.stop(run, f"Step '{failed[0]}' failed.")
    else:
        for step in pipeline.steps.values():
            if step.name not in runs and step.upstream <= done:
                jobs.note(job, f"step {step.name} starts")
                active.append(jobs.add_child(job, f"{job['name']}_{step.name}", pipeline.job_of(step)))
    if active:
        return
    if failed:
        first = min(failed, key=lambda name: runs[name]["ended"])
        error = runs[first]["error"] or "it was canceled"
        jobs.finish(job, "Failed", f"Step '{first}' ended {runs[first]['status']}: {error}")
        return
    outputs = {key: {**(declared or {}), "uri": pipeline.output_uri(key)} for key, declared in pipeline.outputs.items()}
    jobs.change(job, outputs=outputs)
    jobs.finish(job, "Completed")


def on_canceled(_: Cloud, jobs: Jobs, job: Document) -> None:
    _log_ended_steps(jobs, job, _step_jobs(jobs, job))


def _step_jobs(jobs: Jobs, job: Document) -> dict[str, Document]:
    """The jobs of the started steps, by step name."""
    prefix = f"{job['name']}_"
    return {child["name"].removeprefix(prefix): child for child in jobs.children(job)}


def _log_ended_steps(jobs: Jobs, job: Document, runs: Mapping[str, Document]) -> None:
    for name, run in runs.items():
        if jobs.is_over(run) and not run.get("settled"):
            jobs.note(job, f"step {name} ended {run['status']}{': ' + run['error'] if run['error'] else ''}")
            jobs.change(run, settled=True)


def _read_pipeline(cloud: Cloud, workspace: Workspace, name: str, definition: Json) -> Pipeline:
    """Parse a pipeline of command steps. Raises ApiError."""
    inputs, outputs = dict(definition.get("inputs") or {}), dict(definition.get("outputs") or {})
    nodes = definition.get("jobs") or {}
    if component := definition.get("componentId"):
        spec = _component(cloud, workspace, component, "The pipeline")
        if spec.get("type") != "pipeline":
            raise user_error(f"'{component}' is a component of type {spec.get('type')!r}; a pipeline is needed.")
        nodes = spec.get("jobs") or {}
        declared_outputs = spec.get("outputs") or {}
        outputs = {key: {"jobOutputType": declared.get("type")} for key, declared in declared_outputs.items()} | outputs
        for key, declared in (spec.get("inputs") or {}).items():
            if key not in inputs and declared.get("default") is not None:
                inputs[key] = {"jobInputType": "literal", "value": declared["default"]}
            elif key not in inputs and not declared.get("optional"):
                raise user_error(f"The pipeline requires the input '{key}', which is not set.")
    if not nodes:
        raise user_error("A pipeline job needs at least one step, or the id of a pipeline component.")
    steps = {}
    for step, node in nodes.items():
        if node.get("type", "command") != "command":
            raise NotImplementedHere(f"Step '{step}': a step of type {node.get('type')!r}")
        component_spec = _component(cloud, workspace, str(node.get("componentId")), f"Step '{step}'")
        if component_spec.get("type") != "command":
            raise NotImplementedHere(f"Step '{step}': a component of type {component_spec.get('type')!r}")
        steps[step] = Step(step, node, component_spec)
    return Pipeline(name, definition, steps, inputs, outputs)


def _component(cloud: Cloud, workspace: Workspace, reference: str, user: str) -> Json:
    asset = find_asset(cloud.documents, workspace, "components", reference)
    if asset is None:
        raise user_error(f"{user} names the component '{reference}', which does not exist.")
    spec: Json = asset[1]["properties"]["componentSpec"]
    return spec


def _check_binding(pipeline: Pipeline, step: Step, key: str, value: str) -> None:
    for name in _PARENT_INPUT.findall(value):
        if name not in pipeline.inputs and _is_required(step.component_inputs.get(key) or {}):
            raise user_error(f"Step '{step.name}' uses the pipeline's input '{name}', which is not set.")
    for name, output in _STEP_OUTPUT.findall(value):
        if name not in pipeline.steps or output not in (pipeline.steps[name].component.get("outputs") or {}):
            raise user_error(f"Step '{step.name}' uses the output '{output}' of step '{name}', which does not exist.")


def _is_required(declared: Json) -> bool:
    return not declared.get("optional") and declared.get("default") is None


def _to_camel_case(settings: Json | None) -> Json | None:
    """A node's settings with the management API's keys: `instance_count` becomes `instanceCount`."""
    if settings is None:
        return None
    return {re.sub(r"_(\w)", lambda match: match[1].upper(), key): value for key, value in settings.items()}
