"""The params of a run: a schema for each, an error message for others, and no way into a shell or a template."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowException, ParamValidationError

from azure_ml.operators.base import shell_line
from ml.config import list_names

NONSENSE = [
    pytest.param("'; DROP TABLE x; --", id="sql"),
    pytest.param("$(touch /tmp/owned)", id="shell"),
    pytest.param("1; touch /tmp/owned", id="shell-after-a-number"),
    pytest.param("../../etc/passwd", id="path"),
    pytest.param("2026-11-01\n", id="newline"),
    pytest.param("2026-11-01\0", id="nul"),
    pytest.param("{{ conn.azure_ml_default.password }}", id="template"),
    pytest.param("20261101", id="day-in-another-form"),
    pytest.param("2026-02-30", id="no-day"),
    pytest.param("x" * 10_000, id="long"),
    pytest.param("", id="empty"),
    pytest.param(-1, id="negative"),
    pytest.param(1.5, id="part-of-a-number"),
    pytest.param(["2026-11-01"], id="list"),
    pytest.param({"a": 1}, id="mapping"),
    pytest.param(True, id="boolean"),
]


# Free text of bounded length, stored as data; no template, shell or SQL reads it.
SENTENCES = {(f"{name}_rollback", "why") for name in list_names("model")}


def params_of(dag: Any) -> ParamsDict:
    return ParamsDict(dict(dag.params.items()))


def set_param(params: ParamsDict, name: str, value: object) -> None:
    params[name] = value
    params.validate()


@pytest.mark.parametrize("value", NONSENSE)
def test_every_param_refuses_nonsense(dags: dict[str, Any], value: object) -> None:
    targets = [(dag_id, name) for dag_id, dag in dags.items() for name in dag.params]
    if isinstance(value, str) and 0 < len(value) <= 500:
        targets = [target for target in targets if target not in SENTENCES]
    assert targets, "there are Dags with params"
    for dag_id, name in targets:
        params = params_of(dags[dag_id])
        with pytest.raises((ParamValidationError, AirflowException, ValueError)):
            set_param(params, name, value)


def test_every_param_says_its_type_and_what_it_is(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for name in dag.params:
            schema = dag.params.get_param(name).schema
            assert schema.get("type"), f"{dag.dag_id}: {name}"
            assert dag.params.get_param(name).description, f"{dag.dag_id}: {name}"
            if (dag.dag_id, name) in SENTENCES:
                assert schema["maxLength"] <= 500
            elif "string" in schema["type"]:
                assert schema.get("format") or schema.get("enum") or schema.get("pattern"), (
                    f"{dag.dag_id}: {name} takes any text"
                )


def test_a_shell_reads_only_numbers_and_fixed_words(dags: dict[str, Any]) -> None:
    """An Azure ML job's command is a shell line: words are quoted, and a template in a line must end in an integer."""
    commands = [task.command for dag in dags.values() for task in dag.tasks if hasattr(task, "command")]
    assert commands
    for command in commands:
        if isinstance(command, list):
            assert shlex.split(shell_line(command)) == command
            continue
        for template in re.findall(r"{{(.*?)}}", command):
            assert re.search(r"\|\s*int\s*$", template), command


def test_no_template_reads_the_conf_of_a_run(dags: dict[str, Any]) -> None:
    """`conf` is not validated; `params` are."""
    for dag in dags.values():
        for task in dag.tasks:
            for field in task.template_fields:
                assert "conf" not in re.sub(r"confi\w+", "", str(getattr(task, field, ""))), (
                    f"{dag.dag_id}.{task.task_id}"
                )


def test_a_sentence_reaches_no_template(dags: dict[str, Any]) -> None:
    for dag_id, name in SENTENCES:
        for task in dags[dag_id].tasks:
            assert not any(name in str(getattr(task, field, "")) for field in task.template_fields)
