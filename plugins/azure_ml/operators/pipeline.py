"""Pipeline jobs: a graph of components, run as one job."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from azure_ml.hook import AzureMLHook
from azure_ml.operators.base import AzureMLJobOperator, Definition, asset_reference, status_of
from azure_ml.triggers import AzureMLJobTrigger
from remote.runs import RemoteRun, facts_of

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job


class AzureMLPipelineJobOperator(AzureMLJobOperator):
    """A pipeline, by the id of its component. Returns the steps' outcomes and facts, and the pipeline's outputs.

    `{"job", "steps": {job: outcome}, "outputs": {name: address}, "facts": {job: facts}}`.

    :param component: a registered pipeline component: `name:version`, or the id that the Designer shows when it
        publishes a pipeline; or the path of a YAML file that defines a pipeline job with its steps
    :param inputs: values by name; an address as `{"type": "uri_folder", "path": …}`
    :param outputs: addresses of the pipeline's outputs, in the same form
    :param settings: Azure ML's: `continue_on_step_failure`, `default_compute` (`compute` if not set), …
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
        # the service has no time limit for pipelines: the trigger cancels at the deadline
        return AzureMLJobTrigger(run.run_id, self.conn_id, time.time() + self.timeout, self.follow_log)

    def definition(self) -> Definition:
        return {
            "type": "pipeline",
            "component": None if self._is_file else asset_reference(self.component),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "settings": {"default_compute": asset_reference(self.compute), **(self.settings or {})},
        }

    def load(self, definition: Definition) -> Job:
        if not self._is_file:
            return super().load(definition)
        from azure.ai.ml import load_job

        overrides = {name: value for name, value in definition.items() if name not in ("type", "inputs", "outputs")}
        for part in ("inputs", "outputs"):  # the file's own remain, except those that the definition names
            overrides |= {f"{part}.{name}": value for name, value in (definition.get(part) or {}).items()}
        return load_job(self.component, params_override=[{name: value} for name, value in overrides.items()])

    @property
    def _is_file(self) -> bool:
        return self.component.endswith((".yml", ".yaml"))

    def result(self, hook: AzureMLHook, run: RemoteRun, log: str) -> dict[str, Any]:  # noqa: ARG002 (the pipeline's own log)
        outputs = getattr(hook.get_conn().jobs.get(run.run_id), "outputs", None) or {}
        steps = hook.children(run.run_id)
        facts = {step.name: facts_of(hook.read_history(str(step.name))[1]) for step in steps}
        return {
            "job": run.run_id,
            "steps": {step.name: status_of(step) for step in steps},
            "outputs": {name: output.path for name, output in outputs.items()},
            "facts": {name: step_facts for name, step_facts in facts.items() if step_facts},
        }
