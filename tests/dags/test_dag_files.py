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

from ml.config import load_project
from tests.support.config_folder import ConfigFolder, ten_sources_and_fifty_models
from tests.support.dag_ids import STAGES, all_dags

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
FILE_OF = {stage: "calendar_days.py" if stage == "calendar" else f"{stage}.py" for stage in STAGES}
HEAVY = [
    "azure.ai.ml", "azure.mgmt", "deltalake", "duckdb", "great_expectations", "lightgbm", "matplotlib", "mlflow",
    "pandas", "pyarrow", "sklearn",
]  # fmt: skip
HOOKS = ["aiohttp", "requests", "azure.identity", "airflow.providers.databricks.hooks.databricks"]
PROJECT = load_project()
DAGS = all_dags(PROJECT)

PLAIN = """
from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, task

retries = {"retries": 3, "retry_delay": timedelta(seconds=3)}
params = {"day": Param(None, type=["null", "string"], format="date")}
with DAG("plain", schedule=None, start_date=datetime(1990, 1, 1), params=params, default_args=retries):

    @task
    def work(name):
        return name

    work("x")
"""

Result = dict[str, Any]


def read_files(*places: str, resources: Path | None = None) -> dict[str, Result]:
    """What reading each file costs and loads; a place is a file, or a file and the Dag of a starting task."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'plugins'}"}
    if resources:
        environment["ML_RESOURCES"] = str(resources)
    process = subprocess.run(
        [sys.executable, "-m", "tests.dags.parse_dags", ",".join([*HEAVY, *HOOKS]), *places],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result: dict[str, Result] = json.loads(process.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def parsed() -> dict[str, Result]:
    """As the Dag processor reads the files."""
    return read_files(*map(str, FILES))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_reading_a_file_loads_nothing_heavy(parsed: dict[str, Result], file: Path) -> None:
    """Each start of a task reads its file again, including all imports at the top."""
    assert not set(parsed["airflow"]["heavy"]) & set(HEAVY), (
        "Airflow itself loads it, so this test cannot check the file"
    )
    assert not set(parsed[str(file)]["heavy"]) & set(HEAVY)


def test_every_node_has_a_dag_for_each_stage_of_its_kind(dags: dict[str, Any]) -> None:
    assert set(dags) == set(DAGS)


@pytest.mark.parametrize("dag_id", DAGS)
class TestEachDag:
    def test_has_an_owner_and_tags(self, dags: dict[str, Any], dag_id: str) -> None:
        dag, node = dags[dag_id], DAGS[dag_id]
        assert {task.owner for task in dag.tasks} == {node.owner}
        assert set(dag.tags) == {node.name, node.stage} - {""}, "tag a Dag with its node and its stage"
        assert dag.description

    def test_is_its_own_runbook(self, dags: dict[str, Any], dag_id: str) -> None:
        doc = dags[dag_id].doc_md
        assert "**What it does.**" in doc
        assert re.search(r"^\*\*(When|Why|Score a day|By hand)[^*]*\*\*", doc, re.MULTILINE), (
            "doc_md must say what to do when it fails, in a paragraph that starts with **When …**"
        )
        assert len(doc.strip().splitlines()) >= 5

    def test_tries_again_and_does_not_catch_up(self, dags: dict[str, Any], dag_id: str) -> None:
        dag = dags[dag_id]
        assert dag.catchup is False
        for task in dag.tasks:
            assert task.retries >= 2, f"{task.task_id}: Airflow may start a deferred task twice (apache/airflow #72716)"
            assert task.retry_delay.total_seconds() <= 60
            assert task.execution_timeout is not None, f"{task.task_id} has no execution_timeout and may hang for ever"

    def test_is_not_paused_upon_creation(self, dags: dict[str, Any], dag_id: str) -> None:
        assert dags[dag_id].is_paused_upon_creation is not True, "a paused consumer loses its events"

    def test_names_its_tasks_by_verb_and_object(self, dags: dict[str, Any], dag_id: str) -> None:
        for task_id in dags[dag_id].task_ids:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", task_id)

    def test_can_be_stored_and_read_back(self, dags: dict[str, Any], dag_id: str) -> None:
        """As the Dag processor stores it and the scheduler reads it: JSON, by Airflow's own serialisation."""
        from airflow.serialization.serialized_objects import DagSerialization

        stored = json.loads(json.dumps(DagSerialization.to_dict(dags[dag_id])))
        assert set(DagSerialization.from_dict(stored).task_dict) == set(dags[dag_id].task_dict)


def two_nodes_of_each_kind(config: ConfigFolder) -> None:
    for name in ("visits", "calls"):
        config.source(name, owner=f"{name}-team")
        config.table(f"by_{name}", name)
        config.model(f"{name}_model", f"by_{name}", label=name)


def test_every_further_node_gets_dags_of_its_own(dags_of: Callable[..., dict[str, Any]]) -> None:
    dags = dags_of(two_nodes_of_each_kind)
    sources = {f"{name}_{stage}" for name in ("visits", "calls") for stage in ("calendar", "ingest", "load_history")}
    assert {"arrivals", "by_visits_features", "by_calls_features", "visits_model_train", *sources} < set(dags)
    assert {task.owner for task in dags["calls_ingest"].tasks} == {"calls-team"}
    assert set(dags["calls_model_train"].tags) == {"calls_model", "train"}


def test_a_model_without_a_report_has_no_report_dag(dags_of: Callable[..., dict[str, Any]]) -> None:
    def arrange(config: ConfigFolder) -> None:
        two_nodes_of_each_kind(config)
        config.model("calls_model", "by_calls", label="calls", report=None)

    dags = dags_of(arrange)
    assert "visits_model_report" in dags
    assert "calls_model_report" not in dags


class TestAStartingTask:
    """Airflow reads the file again for each task, and names the Dag."""

    @pytest.mark.parametrize("dag_id", DAGS)
    def test_builds_only_its_own_dag(self, dags_of: Callable[..., dict[str, Any]], dag_id: str) -> None:
        def arrange(config: ConfigFolder) -> None:
            shipped = ROOT / "config"
            for kind in ("sources", "features", "models"):
                for file in (shipped / kind).glob("*.yaml"):
                    config.write(f"{kind}/{file.name}", file.read_text(encoding="utf-8"))
            config.source("another")

        assert set(dags_of(arrange, task_of=dag_id)) == {dag_id}

    def test_finds_every_task_that_the_scheduler_knows(
        self, dags: dict[str, Any], dags_of: Callable[..., dict[str, Any]]
    ) -> None:
        known = dags_of(two_tables_of_two_sources_and_a_model_of_both)
        for dag_id in ("a_ingest", "a_load_history", "one_features", "m_score", "m_train", "m_report", "arrivals"):
            started = dags_of(two_tables_of_two_sources_and_a_model_of_both, task_of=dag_id)
            assert set(known[dag_id].task_ids) <= set(started[dag_id].task_ids)
            for task_id in known[dag_id].task_ids:
                task, same = known[dag_id].get_task(task_id), started[dag_id].get_task(task_id)
                assert type(task) is type(same)
                assert getattr(task, "stages", None) == getattr(same, "stages", None)

    def test_does_not_read_broken_files_of_other_nodes(self, dags_of: Callable[..., dict[str, Any]]) -> None:
        def arrange(config: ConfigFolder) -> None:
            two_nodes_of_each_kind(config)
            config.write("sources/calls.yaml", "source: [")
            config.write("models/visits_model.yaml", "model: visits_model")

        assert set(dags_of(arrange, task_of="visits_ingest")) == {"visits_ingest"}
        assert set(dags_of(arrange, task_of="calls_model_train")) == {"calls_model_train"}
        assert set(dags_of(arrange, task_of="arrivals")) == {"arrivals"}


def two_tables_of_two_sources_and_a_model_of_both(config: ConfigFolder) -> None:
    for name in ("a", "b"):
        config.source(name)
    config.table("one", "a", "b")
    config.table("two", "b")
    config.model("m", "one", "two", label="a")


NODE_OF = {"sources": "s7", "features": "t7", "models": "m7"}  # of ten, twenty and fifty
STARTS = {
    **{stage: f"s7_{stage}" for stage in ("calendar", "ingest", "load_history")},
    "features": "t7_features",
    **{stage: f"m7_{stage}" for stage in ("train", "promote", "rollback", "score", "monitor", "report", "on_champion")},
    "arrivals": "arrivals",
}


class TestTenSourcesAndFiftyModels:
    """The start of a task costs what it costs with one node of each kind."""

    @pytest.fixture(scope="class")
    def resources(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        config = ConfigFolder(tmp_path_factory.mktemp("many"))
        ten_sources_and_fifty_models(config)
        return config.folder

    @pytest.fixture(scope="class")
    def results(self, resources: Path) -> dict[str, Result]:
        """By stage, and of a file that uses Airflow only."""
        (resources / "plain.py").write_text(PLAIN, encoding="utf-8")
        places = {stage: f"{ROOT / 'dags' / FILE_OF[stage]}={dag_id}" for stage, dag_id in STARTS.items()}
        places["plain"] = f"{resources / 'plain.py'}=plain"
        results = read_files(*places.values(), resources=resources)
        return {stage: results[place] for stage, place in places.items()}

    @pytest.fixture(scope="class")
    def starts(self, results: dict[str, Result]) -> dict[str, Result]:
        return {stage: results[stage] for stage in STARTS}

    def test_covers_every_dag_file(self) -> None:
        assert {FILE_OF[stage] for stage in STARTS} == {file.name for file in FILES} - {"config_errors.py"}

    @pytest.mark.parametrize("stage", STARTS)
    def test_a_start_builds_one_dag(self, starts: dict[str, Result], stage: str) -> None:
        assert starts[stage]["dags"] == [STARTS[stage]]

    @pytest.mark.parametrize("stage", STARTS)
    def test_a_start_reads_the_platform_and_at_most_its_own_node(
        self, starts: dict[str, Result], resources: Path, stage: str
    ) -> None:
        own = {f"{folder}/{name}.yaml" for folder, name in NODE_OF.items() if STARTS[stage].startswith(name)}
        read = [str(Path(file).relative_to(resources / "config")) for file in starts[stage]["config"]]
        assert set(read) <= {"platform.yaml", *own}
        assert len(read) == len(set(read)), "each file once"

    @pytest.mark.parametrize("stage", STARTS)
    def test_a_start_loads_no_client_of_a_service(self, starts: dict[str, Result], stage: str) -> None:
        """Their import takes ten times as long as the rest: an operator imports its hook when it runs."""
        assert starts[stage]["heavy"] == []

    def test_how_long_a_start_takes(
        self,
        results: dict[str, Result],
        record_property: Callable[[str, object], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Reported without a limit: the machine that runs the tests is not the one that runs the Dags."""
        milliseconds = {stage: round(result["milliseconds"], 1) for stage, result in results.items()}
        record_property("task_start_milliseconds", milliseconds)
        with capsys.disabled():
            print("\nmilliseconds of CPU time to read a Dag file at the start of a task, with Airflow imported:")
            for stage, duration in sorted(milliseconds.items(), key=lambda item: -item[1]):
                print(f"  {duration:6.1f}  {stage}")
        assert set(milliseconds) == {*STARTS, "plain"}

    def test_the_dag_processor_finds_all_dags(self, dags_of: Callable[..., dict[str, Any]]) -> None:
        dags = dags_of(ten_sources_and_fifty_models)
        assert len(dags) == 1 + 10 * 3 + 20 + 50 * 7


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEachFile:
    def test_is_named_for_its_stage(self, file: Path) -> None:
        assert file.name in {*FILE_OF.values(), "config_errors.py"}

    def test_stays_a_page_long(self, file: Path) -> None:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 110

    def test_reads_no_variables_and_holds_no_secrets(self, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        for word in ("Variable", "var.value", "var.json", "password", "secret", "os.environ", "http://", "https://"):
            assert word not in text, f"{word}: settings are in config/, secrets and addresses in Connections"

    def test_names_no_node_of_the_project(self, file: Path) -> None:
        """A stage's file serves every node: names come from `config/`."""
        words = set(re.findall(r"\w+", file.read_text(encoding="utf-8")))
        names = {*PROJECT.sources, *PROJECT.feature_tables, *PROJECT.models}
        assert not words & names
