"""Dag files: they can be read, quickly, they are runbooks, and what Airflow needs to know of each is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml.config import load_model

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
HEAVY = [
    "azure.ai.ml", "azure.mgmt", "deltalake", "duckdb", "great_expectations", "lightgbm", "matplotlib", "mlflow",
    "pandas", "pyarrow", "sklearn",
]  # fmt: skip
STAGES = {
    "arrivals", "calendar", "features", "ingest", "load_history", "monitor", "on_champion", "promote", "report", "rollback",
    "score", "train",
}  # fmt: skip


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    told = subprocess.run(
        [sys.executable, "-m", "tests.dags.parse_dags", ",".join(HEAVY), *map(str, FILES)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'plugins'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(told.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_reading_a_file_loads_nothing_heavy(parsed: dict[str, dict[str, Any]], file: Path) -> None:
    """Each start of a task reads its file again: what is imported at the top is paid for every time."""
    assert parsed["airflow"]["heavy"] == [], "Airflow itself loads it: nothing can be learnt about the file"
    assert parsed[str(file)]["heavy"] == []


def test_how_long_reading_takes(
    parsed: dict[str, dict[str, Any]],
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told, not judged: the machine that runs the tests is not the one that runs the Dags."""
    seconds = {Path(name).name: told["seconds"] for name, told in parsed.items() if name != "airflow"}
    record_property("dag_parse_seconds", seconds)
    with capsys.disabled():
        print("\nseconds to read a Dag file, beyond Airflow's own import:")
        for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
            print(f"  {took:6.3f}  {name}")
    assert set(seconds) == {file.name for file in FILES}


def test_there_is_one_dag_for_each_stage(dags: dict[str, Any]) -> None:
    assert set(dags) == {f"churn_{stage}" for stage in STAGES}


@pytest.mark.parametrize("stage", sorted(STAGES))
class TestEachDag:
    def test_has_an_owner_and_tags(self, dags: dict[str, Any], stage: str) -> None:
        dag = dags[f"churn_{stage}"]
        assert {task.owner for task in dag.tasks} == {load_model("churn").owner}
        assert set(dag.tags) == {"churn", stage}, "tag a Dag with its model and its stage"
        assert dag.description

    def test_is_its_own_runbook(self, dags: dict[str, Any], stage: str) -> None:
        doc = dags[f"churn_{stage}"].doc_md
        assert "**What it does.**" in doc
        assert re.search(r"^\*\*(When|Why|Score a day|By hand)[^*]*\*\*", doc, re.MULTILINE), (
            "say in doc_md what to do when it fails: a paragraph that starts with **When …**"
        )
        assert len(doc.strip().splitlines()) >= 5

    def test_tries_again_and_does_not_catch_up(self, dags: dict[str, Any], stage: str) -> None:
        dag = dags[f"churn_{stage}"]
        assert dag.catchup is False
        for task in dag.tasks:
            assert task.retries >= 2, f"{task.task_id}: a deferred task may be started twice (apache/airflow #72716)"
            assert task.retry_delay.total_seconds() <= 60
            assert task.execution_timeout is not None, f"{task.task_id} may hang for ever"

    def test_is_active_as_soon_as_it_is_there(self, dags: dict[str, Any], stage: str) -> None:
        assert dags[f"churn_{stage}"].is_paused_upon_creation is not True, "a paused consumer loses its events for good"

    def test_names_its_tasks_by_verb_and_object(self, dags: dict[str, Any], stage: str) -> None:
        for task_id in dags[f"churn_{stage}"].task_ids:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", task_id)

    def test_can_be_stored_and_read_back(self, dags: dict[str, Any], stage: str) -> None:
        """As the Dag processor stores it and the scheduler reads it: JSON, by Airflow's own serialisation."""
        from airflow.serialization.serialized_objects import DagSerialization

        stored = json.loads(json.dumps(DagSerialization.to_dict(dags[f"churn_{stage}"])))
        assert set(DagSerialization.from_dict(stored).task_dict) == set(dags[f"churn_{stage}"].task_dict)


def test_a_second_model_gets_dags_of_its_own(dags_of: Callable[..., dict[str, Any]]) -> None:
    both = dags_of({"model": "churn"}, {"model": "margin", "owner": "finance"})
    assert set(both) == {f"{model}_{stage}" for model in ("churn", "margin") for stage in STAGES}
    assert {task.owner for task in both["margin_train"].tasks} == {"finance"}
    assert set(both["margin_train"].tags) == {"margin", "train"}


def test_a_bad_config_file_is_an_import_error_that_names_the_key(dags_of: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match=r"margin\.yaml:\n\s+landing\.bulk_dayz: unknown key"):
        dags_of({"model": "margin", "landing": {"bulk_dayz": 3}})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEachFile:
    def test_is_named_for_its_stage(self, file: Path) -> None:
        assert file.stem.removesuffix("_days") in STAGES

    def test_stays_a_page_long(self, file: Path) -> None:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 100

    def test_reads_no_variables_and_holds_no_secrets(self, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        for word in ("Variable", "var.value", "var.json", "password", "secret", "os.environ", "http://", "https://"):
            assert word not in text, f"{word}: settings are in config/, secrets and addresses in Connections"
