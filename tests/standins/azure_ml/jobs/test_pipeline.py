"""Pipeline jobs through azure-ai-ml: steps wait for their inputs, pass on their outputs, and fail by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.ai.ml import MLClient, load_component, load_job
from azure.core.exceptions import HttpResponseError

from tests.support.cloud.azure_ml_client import read_log, wait_for_end
from tests.support.cloud.standins import Standins

STEPS: dict[str, Any] = {
    "make": {
        "type": "command",
        "command": "sleep 0.2; for n in $(seq ${{inputs.count}}); do echo row $n; done > ${{outputs.made}}/rows",
        "environment": "azureml:ml@latest",
        "inputs": {"count": "${{parent.inputs.rows}}"},
        "outputs": {"made": {"type": "uri_folder"}},
    },
    "number": {
        "type": "command",
        "command": "wc -l < ${{inputs.given}}/rows | tee ${{outputs.counted}}/count; echo root $AZUREML_ROOT_RUN_ID",
        "environment": "azureml:ml@latest",
        "inputs": {"given": {"type": "uri_folder", "path": "${{parent.jobs.make.outputs.made}}"}},
        "outputs": {"counted": "${{parent.outputs.last}}"},
    },
}
WAITS = "while [ ! -e {file} ]; do sleep 0.1; done"


def pipeline(folder: Path, name: str, steps: dict[str, Any] | None = None, **more: Any) -> Any:
    """A pipeline job, loaded from YAML as users write it."""
    content = {
        "type": "pipeline",
        "name": name,
        "experiment_name": "tests",
        "tags": {"run_key": name},
        "inputs": {"rows": 3},
        "outputs": {"last": {"type": "uri_folder"}},
        "settings": {"default_compute": "azureml:cpu-cluster", "continue_on_step_failure": False},
        "jobs": steps or STEPS,
    }
    (folder / "pipeline.yml").write_text(yaml.safe_dump(content | more))
    return load_job(folder / "pipeline.yml")


def command_step(line: str, **more: Any) -> dict[str, Any]:
    return {"type": "command", "command": line, "environment": "azureml:ml@latest", **more}


def steps_of(client: MLClient, name: str) -> dict[str, str]:
    steps = client.jobs.list(parent_job_name=name)
    return {step.name.removeprefix(f"{name}_"): step.status for step in steps}


def test_steps_run_in_the_order_of_their_inputs(client: MLClient, workspace: Standins, tmp_path: Path) -> None:
    for _ in range(2):  # submitted twice, it is one job
        client.jobs.create_or_update(pipeline(tmp_path, "hands-on"))
    result = wait_for_end(client, "hands-on")
    assert result.status == "Completed"
    assert steps_of(client, "hands-on") == {"make": "Completed", "number": "Completed"}
    assert read_log(workspace, "hands-on_number") == "3\nroot hands-on\n"
    uri = result.outputs["last"].path
    assert uri == "azureml://datastores/workspaceblobstore/paths/azureml/hands-on/last/"
    default = workspace.account.container("azureml-blobstore")
    assert default.download_blob("azureml/hands-on/last/count").readall() == b"3\n"
    outcomes = [entry["outcome"] for entry in workspace.ledger(run_key="hands-on")]
    assert outcomes == ["Completed", "already asked"]
    log = read_log(workspace, "hands-on")
    assert [line[9:] for line in log.splitlines()] == [
        "step make starts", "step make ended Completed", "step number starts", "step number ended Completed",
    ]  # fmt: skip


def test_a_registered_pipeline_is_run_by_its_id(client: MLClient, workspace: Standins, tmp_path: Path) -> None:
    component = {
        "type": "pipeline",
        "name": "counting",
        "version": "1",
        "inputs": {"rows": {"type": "integer", "default": 2}},
        "outputs": {"last": {"type": "uri_folder"}},
        "jobs": STEPS,
    }
    (tmp_path / "component.yml").write_text(yaml.safe_dump(component))
    published = client.components.create_or_update(load_component(tmp_path / "component.yml"))
    assert client.components.get("counting", "1").id == published.id
    for name, inputs, count in (("by-id", {"rows": 5}, "5"), ("by-id-with-its-default", {}, "2")):
        definition = {"type": "pipeline", "name": name, "component": f"azureml:{published.id}", "inputs": inputs}
        definition |= {"settings": {"default_compute": "azureml:cpu-cluster"}, "tags": {"run_key": name}}
        (tmp_path / "job.yml").write_text(yaml.safe_dump(definition))
        client.jobs.create_or_update(load_job(tmp_path / "job.yml"))
        assert wait_for_end(client, name).status == "Completed"
        assert read_log(workspace, f"{name}_number").startswith(f"{count}\n")


def test_a_failed_step_fails_the_pipeline_by_name_and_ends_the_others(
    client: MLClient, workspace: Standins, tmp_path: Path
) -> None:
    steps = {
        "good": command_step("true"),
        "bad": command_step("sleep 1; echo broken; exit 7"),
        "endless": command_step(WAITS.format(file=tmp_path / "never")),
    }
    client.jobs.create_or_update(pipeline(tmp_path, "fails", steps, outputs={}))
    assert wait_for_end(client, "fails").status == "Failed"
    assert steps_of(client, "fails") == {"good": "Completed", "bad": "Failed", "endless": "Canceled"}
    (entry,) = workspace.ledger(run_key="fails")
    assert entry["detail"].startswith("Step 'bad' ended Failed: Execution failed.")
    assert "status code 7" in entry["detail"]


def test_other_steps_continue_with_continue_on_step_failure(
    client: MLClient, workspace: Standins, tmp_path: Path
) -> None:
    steps = {
        **STEPS,
        "bad": command_step("exit 7"),
        "after": command_step(
            "cat ${{inputs.x}}/rows", inputs={"x": {"type": "uri_folder", "path": "${{parent.jobs.make.outputs.made}}"}}
        ),
    }
    settings = {"default_compute": "azureml:cpu-cluster", "continue_on_step_failure": True}
    client.jobs.create_or_update(pipeline(tmp_path, "goes-on", steps, settings=settings))
    assert wait_for_end(client, "goes-on").status == "Failed"
    assert set(steps_of(client, "goes-on").items()) >= {("bad", "Failed"), ("after", "Completed")}
    assert workspace.ledger(run_key="goes-on")[0]["detail"].startswith("Step 'bad' ended Failed")


def test_cancel_ends_the_steps(client: MLClient, tmp_path: Path) -> None:
    steps = {"waits": command_step(WAITS.format(file=tmp_path / "never"))}
    client.jobs.create_or_update(pipeline(tmp_path, "canceled", steps, outputs={}))
    deadline = time.monotonic() + 30
    while steps_of(client, "canceled") != {"waits": "Running"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.jobs.begin_cancel("canceled").result(30)
    assert client.jobs.get("canceled").status == "Canceled"
    assert steps_of(client, "canceled") == {"waits": "Canceled"}


def optional(inputs: dict[str, Any]) -> dict[str, Any]:
    component = {
        "type": "command",
        "inputs": {"who": {"type": "string", "optional": True}, "times": {"type": "integer", "default": 1}},
        "command": "echo hello ${{inputs.times}} $[[to ${{inputs.who}}]]",
        "environment": "azureml:ml@latest",
    }
    return {"type": "command", "component": component, "inputs": inputs}


def test_optional_inputs_and_defaults(client: MLClient, workspace: Standins, tmp_path: Path) -> None:
    steps = {"none": optional({}), "all": optional({"who": "you", "times": 2})}
    client.jobs.create_or_update(pipeline(tmp_path, "optional", steps, outputs={}))
    assert wait_for_end(client, "optional").status == "Completed"
    assert read_log(workspace, "optional_none") == "hello 1\n"
    assert read_log(workspace, "optional_all") == "hello 2 to you\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"component": "azureml:nobody:1"}, "nobody", id="component-that-is-not-there"),
        pytest.param({"environment": "azureml:none@latest"}, "none", id="environment-that-is-not-there"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused(
    client: MLClient, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(Exception, match=why):
        client.jobs.create_or_update(
            pipeline(tmp_path, "refused", {"a": {**command_step("true"), **change}}, outputs={})
        )
    with pytest.raises(HttpResponseError, match="refused not found"):
        client.jobs.get("refused")


@pytest.mark.parametrize(
    ("jobs", "status", "why"),
    [
        pytest.param({}, 400, "at least one step", id="no-steps"),
        pytest.param({"a": {"type": "sweep"}}, 501, "a step of type 'sweep'", id="sweep-step"),
        pytest.param({"a": {"componentId": "gone:1"}}, 400, "'gone:1', which does not exist", id="unknown-component"),
        pytest.param(
            {"a": {"componentId": "loop:1", "inputs": {"x": {"value": "${{parent.jobs.b.outputs.y}}"}}},
             "b": {"componentId": "loop:1", "inputs": {"x": {"value": "${{parent.jobs.a.outputs.y}}"}}}},
            400, "depend on each other", id="circle",
        ),
        pytest.param({"a": {"componentId": "loop:1"}}, 400, "requires the input 'x'", id="input-not-given"),
        pytest.param(
            {"a": {"componentId": "loop:1", "inputs": {"x": {"value": "${{parent.jobs.c.outputs.y}}"}}}},
            400, "output 'y' of step 'c', which does not exist", id="step-that-is-not-there",
        ),
        pytest.param(
            {"a": {"componentId": "loop:1", "inputs": {"x": {"value": "${{parent.inputs.z}}"}}}},
            400, "the pipeline's input 'z', which is not set", id="input-that-is-not-there",
        ),
    ],
)  # fmt: skip
def test_definitions_that_the_sdk_would_not_send_are_refused(
    client: MLClient, workspace: Standins, tmp_path: Path, jobs: dict[str, Any], status: int, why: str
) -> None:
    component = {
        "type": "command", "name": "loop", "version": "1",
        "command": "cp ${{inputs.x}} ${{outputs.y}}", "environment": "azureml:ml@latest",
        "inputs": {"x": {"type": "uri_folder"}}, "outputs": {"y": {"type": "uri_folder"}},
    }  # fmt: skip
    (tmp_path / "loop.yml").write_text(yaml.safe_dump(component))
    client.components.create_or_update(load_component(tmp_path / "loop.yml"))
    path = f"{client.workspaces.get(client.workspace_name).id}/jobs/strange?api-version=2024-04-01"
    with workspace.http() as http:
        answer = http.put(
            path,
            json={"properties": {"jobType": "Pipeline", "jobs": jobs}},
            headers={"Authorization": f"Bearer {workspace.token()}"},
        )
    assert answer.status_code == status
    assert why in answer.json()["error"]["message"]
