"""Dag files: Airflow can read them quickly, they are runbooks, and each Dag sets what Airflow needs."""

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
    process = subprocess.run(
        [sys.executable, "-m", "tests.dags.parse_dags", ",".join(HEAVY), *map(str, FILES)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'plugins'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, dict[str, Any]] = json.loads(process.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_reading_a_file_loads_nothing_heavy(parsed: dict[str, dict[str, Any]], file: Path) -> None:
    """Each start of a task reads its file again, including all imports at the top."""
    assert parsed["airflow"]["heavy"] == [], "Airflow itself loads it, so this test cannot check the file"
    assert parsed[str(file)]["heavy"] == []


def test_how_long_reading_takes(
    parsed: dict[str, dict[str, Any]],
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Reported without a limit: the machine that runs the tests is not the one that runs the Dags."""
    seconds = {Path(name).name: result["seconds"] for name, result in parsed.items() if name != "airflow"}
    record_property("dag_parse_seconds", seconds)
    with capsys.disabled():
        print("\nseconds to read a Dag file, beyond Airflow's own import:")
        for name, duration in sorted(seconds.items(), key=lambda item: -item[1]):
            print(f"  {duration:6.3f}  {name}")
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
            "doc_md must say what to do when it fails, in a paragraph that starts with **When …**"
        )
        assert len(doc.strip().splitlines()) >= 5

    def test_tries_again_and_does_not_catch_up(self, dags: dict[str, Any], stage: str) -> None:
        dag = dags[f"churn_{stage}"]
        assert dag.catchup is False
        for task in dag.tasks:
            assert task.retries >= 2, f"{task.task_id}: Airflow may start a deferred task twice (apache/airflow #72716)"
            assert task.retry_delay.total_seconds() <= 60
            assert task.execution_timeout is not None, f"{task.task_id} has no execution_timeout and may hang for ever"

    def test_is_not_paused_upon_creation(self, dags: dict[str, Any], stage: str) -> None:
        assert dags[f"churn_{stage}"].is_paused_upon_creation is not True, "a paused consumer loses its events"

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


class TestAStartingTask:
    """Airflow reads the file again for each task, and names the Dag."""

    @pytest.mark.parametrize("stage", sorted(STAGES))
    def test_builds_only_its_own_dag(self, dags_of: Callable[..., dict[str, Any]], stage: str) -> None:
        dags = dags_of({"model": "churn"}, {"model": "margin"}, task_of=f"margin_{stage}")
        assert set(dags) == {f"margin_{stage}"}

    def test_does_not_read_the_config_of_another_model(self, dags_of: Callable[..., dict[str, Any]]) -> None:
        dags = dags_of({"model": "churn"}, {"model": "margin", "owner": None}, task_of="churn_ingest")
        assert set(dags) == {"churn_ingest"}


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
