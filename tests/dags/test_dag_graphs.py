"""The tasks of each Dag and their order, the assets that start it, the assets it emits, and its remote work."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ml import cli
from ml.config import load_project
from tests.support.config_folder import ConfigFolder
from tests.support.dag_ids import all_dags, emitted_assets, starting_assets

GRAPHS = {
    "arrivals": {"find_days": set()},
    "calendar": {"emit_day": set()},
    "features": {"compute_features": set()},
    "ingest": {"list_files": {"copy_files"}, "copy_files": {"clean_day"}, "clean_day": set()},
    "load_history": {
        "note_files": {"copy_files"}, "copy_files": {"clean_days"}, "clean_days": {"hand_on"}, "hand_on": set(),
    },
    "monitor": {"measure_drift": set()},
    "on_champion": {"choose_days": set()},
    "promote": {
        "decide": {"ask_approval", "promote_version"}, "ask_approval": {"promote_version"}, "promote_version": set(),
    },
    "report": {
        "find_changes": {"refresh_dataset", "note_version"},
        "refresh_dataset": {"note_version"},
        "note_version": set(),
    },
    "rollback": {"roll_back": set()},
    "score": {"score_day": set()},
    "train": {
        "choose_day": {"build_training_set"}, "build_training_set": {"validate_training_set"},
        "validate_training_set": {"train_model"}, "train_model": set(),
    },
}  # fmt: skip
LAST_BEFORE_HAND_ON = {"ingest": "clean_day", "features": "compute_features"}

EMITTED = {  # of the Dag's own node
    "calendar": {"emit_day": {"landed"}},
    "features": {"compute_features": {"featured"}},
    "ingest": {"clean_day": {"ingested"}},
    "load_history": {"hand_on": {"ingested"}},
    "monitor": {},
    "on_champion": {"choose_days": {"rescore"}},
    "promote": {"promote_version": {"champion"}},
    "report": {"note_version": {"reported"}},
    "rollback": {"roll_back": {"champion"}},
    "score": {"score_day": {"scored"}},
    "train": {"train_model": {"challenger"}},
}

STARTED_BY = {  # of the Dag's own node
    "calendar": set(),
    "ingest": {"landed"},
    "load_history": set(),
    "monitor": {"scored", "remeasure"},
    "train": {"retrain"},
    "promote": {"challenger"},
    "rollback": set(),
    "report": set(),
    "on_champion": {"champion"},
}

PER_DAY = {
    "ingest": "clean_day",
    "features": "compute_features",
    "score": "score_day",
    "monitor": "measure_drift",
}

PROJECT = load_project()
DAGS = all_dags(PROJECT)
WITH_NODE = {dag_id: node for dag_id, node in DAGS.items() if node.name}
SOURCE = next(iter(PROJECT.sources))
MODEL = next(name for name, model in PROJECT.models.items() if model.report and model.train.method == "job")


@pytest.mark.parametrize("dag_id", DAGS)
class TestEachDag:
    def test_has_these_tasks_and_arrows(self, dags: dict[str, Any], dag_id: str) -> None:
        stage = DAGS[dag_id].stage
        tasks = {name: set(task.downstream_task_ids) for name, task in dags[dag_id].task_dict.items()}
        expected = {name: set(after) for name, after in GRAPHS[stage].items()}
        if "hand_on" in tasks and stage in LAST_BEFORE_HAND_ON:
            expected |= {LAST_BEFORE_HAND_ON[stage]: {"hand_on"}, "hand_on": set()}
        if "search_model" in tasks:  # TestTheSearchForAModel has those
            return
        assert tasks == expected


@pytest.mark.parametrize("dag_id", WITH_NODE)
class TestEachDagOfANode:
    def test_emits_these_assets(self, dags: dict[str, Any], dag_id: str) -> None:
        node, outlets = WITH_NODE[dag_id], emitted_assets(dags[dag_id])
        own = {task: {name for name in names if not name.endswith(".ready")} for task, names in outlets.items()}
        own = {task: names for task, names in own.items() if names}
        assert own == {task: {f"{node.name}.{n}" for n in names} for task, names in EMITTED[node.stage].items()}

    def test_starts_on_these_assets(self, dags: dict[str, Any], dag_id: str) -> None:
        node, starts = WITH_NODE[dag_id], starting_assets(dags[dag_id])
        if node.stage in STARTED_BY:
            assert starts == {f"{node.name}.{name}" for name in STARTED_BY[node.stage]}
        else:
            request = {"features": "restate", "score": "rescore"}[node.stage]
            assert f"{node.name}.{request}" in starts
            assert len(starts) > 1


def test_arrivals_start_on_the_queue_and_request_every_day_of_every_node(dags: dict[str, Any]) -> None:
    assert starting_assets(dags["arrivals"]) == {"arrivals.noticed"}
    requests = {f"{name}.landed" for name in PROJECT.sources} | {f"{name}.restate" for name in PROJECT.feature_tables}
    requests |= {f"{name}.{state}" for name in PROJECT.models for state in ("rescore", "remeasure")}
    assert emitted_assets(dags["arrivals"]) == {"find_days": {"arrivals.asked", *requests}}


def test_every_asset_that_starts_a_dag_comes_from_one(dags: dict[str, Any]) -> None:
    """Except those from outside: messages of the landing queue, and a person's request to retrain."""
    emitted = {asset.name for dag in dags.values() for task in dag.tasks for asset in task.outlets}
    needed = set().union(*map(starting_assets, dags.values()))
    assert needed - emitted == {"arrivals.noticed", *(f"{name}.retrain" for name in PROJECT.models)}


def test_every_day_that_a_dag_emits_starts_one(dags: dict[str, Any]) -> None:
    """Nothing is emitted that no Dag listens to, but what only tells a state."""
    emitted = {asset.name for dag in dags.values() for task in dag.tasks for asset in task.outlets}
    needed = set().union(*map(starting_assets, dags.values()))
    states = {"arrivals.asked", *(f"{name}.reported" for name in PROJECT.models)}
    without_consumer = {
        f"{name}.ingested" for name in PROJECT.sources
    }  # of a reference table, or one of several inputs
    without_consumer |= {f"{name}.featured" for name in PROJECT.feature_tables}
    assert emitted - needed <= states | without_consumer


@pytest.mark.parametrize("dag_id", [dag_id for dag_id, node in DAGS.items() if node.stage in PER_DAY])
def test_any_one_asset_starts_a_day(dags: dict[str, Any], dag_id: str) -> None:
    """A partition that waits for a second asset may wait for ever; 500 such stop all partitioned scheduling."""
    from airflow.sdk.definitions.asset import Asset, AssetAny

    timetable = dags[dag_id].timetable
    condition = timetable.asset_condition
    assert isinstance(condition, Asset) or (
        type(condition) is AssetAny and all(isinstance(asset, Asset) for asset in condition.objects)
    ), "a partitioned Dag must start on any one of its assets: use |, never &"
    assert type(timetable.default_partition_mapper).__name__ == "StartOfDayMapper", (
        "no roll-ups: they wait for more keys"
    )
    assert not timetable.partition_mapper_config


@pytest.mark.parametrize("dag_id", [dag_id for dag_id, node in DAGS.items() if node.stage != "calendar"])
def test_one_run_at_a_time_where_runs_could_meet(dags: dict[str, Any], dag_id: str) -> None:
    """A day that is emitted twice is two runs in Airflow; they must not write the same partition at once."""
    assert dags[dag_id].max_active_runs == 1


@pytest.mark.parametrize("dag_id", [dag_id for dag_id, node in DAGS.items() if node.stage in PER_DAY])
def test_a_stage_of_a_day_does_not_run_without_one(dags: dict[str, Any], dag_id: str) -> None:
    assert dags[dag_id].task_dict[PER_DAY[DAGS[dag_id].stage]].per_day is True


# The result of `ti.xcom_pull` while these tests render a Dag's tasks.
LISTING = "bronze/_listing/k.json"
FINGERPRINT = "0123456789abcdef"
CONNECTIONS = {
    "powerbi_default": {"group_id": "g", "dataset_id": "d"},
    "power-bi of m": {"group_id": "g", "dataset_id": "d"},
}
XCOMS = {
    ("list_files", "return_value"): {"fingerprint": FINGERPRINT, "files": 2, "listing": LISTING},
    ("copy_files", "run_key"): "churn_ingest-copy_files-1998-06-28-0123456789-g1",
    ("note_files", "return_value"): LISTING,
    ("choose_day", "return_value"): "1998-06-28",
    ("build_training_set", "return_value"): {"training_set": {"version": 7}},
}


def rendered(task: Any, xcoms: dict[tuple[str, str], Any] = XCOMS, run_type: str = "asset_triggered") -> Any:
    """The task with its templates filled in for a run of 28 June 1998."""
    from copy import copy

    ti = SimpleNamespace(xcom_pull=lambda task_ids, key="return_value": xcoms[task_ids, key])
    filled = copy(task)
    params = {"first": "1998-06-01", "last": "1998-06-28"}
    run = SimpleNamespace(partition_key="1998-06-28", run_type=SimpleNamespace(value=run_type))
    connections = SimpleNamespace(**{name: SimpleNamespace(extra_dejson=extra) for name, extra in CONNECTIONS.items()})
    filled.render_template_fields({"ti": ti, "dag_run": run, "params": params, "dag": task.dag, "conn": connections})
    return filled


ARRIVAL = "validate --source {name} --suite arrival --days"
SILVER = "validate --source {name} --suite silver --days"
COPY_LOG = "--copy-log bronze/_log/churn_ingest-copy_files-1998-06-28-0123456789-g1"
STAGE_TASKS = {  # `{name}`: the Dag's node
    ("ingest", "clean_day"): {
        "validate_arrival": f"{ARRIVAL} 1998-06-28 --fingerprint {FINGERPRINT} --run-key KEY",
        "ingest": f"ingest --source {{name}} --days 1998-06-28 {COPY_LOG} --fingerprint {FINGERPRINT} --run-key KEY",
        "validate_silver": f"{SILVER} 1998-06-28 --run-key KEY",
    },
    ("load_history", "clean_days"): {
        "validate_arrival": f"{ARRIVAL} 1998-06-01..1998-06-28 --run-key KEY",
        "ingest": f"ingest --source {{name}} --days 1998-06-01..1998-06-28 {COPY_LOG} --listing {LISTING}"
        " --follow 1998-06-28 --run-key KEY",
        "validate_silver": f"{SILVER} 1998-06-01..1998-06-28 --run-key KEY",
    },
    ("features", "compute_features"): {"features": "features --table {name} --as-of 1998-06-28 --run-key KEY"},
    ("score", "score_day"): {"score": "score --model {name} --day 1998-06-28 --run-key KEY"},
    ("monitor", "measure_drift"): {"monitor": "monitor --model {name} --day 1998-06-28 --run-key KEY"},
    ("train", "build_training_set"): {"training_set": "training_set --model {name} --through 1998-06-28 --run-key KEY"},
    ("train", "validate_training_set"): {
        "validate_training": "validate --model {name} --suite training --version 7 --run-key KEY"
    },
}
PLACES = [(dag_id, place) for dag_id, node in DAGS.items() for place in STAGE_TASKS if place[0] == node.stage]


def commands_of(task: Any) -> dict[str, list[str]]:
    """The command lines as the operator submits them."""
    tasks = task._tasks("KEY")
    return {each["task_key"]: each["python_wheel_task"]["parameters"] for each in tasks}


@pytest.mark.parametrize(("dag_id", "place"), PLACES, ids=lambda value: value if isinstance(value, str) else value[1])
def test_the_command_lines_of_a_cluster(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dag_id: str, place: tuple[str, str]
) -> None:
    """Exactly these command lines, word by word and without a shell; and the stages accept them."""
    commands = commands_of(rendered(dags[dag_id].task_dict[place[1]]))
    name = DAGS[dag_id].name
    assert commands == {key: line.format(name=name).split() for key, line in STAGE_TASKS[place].items()}
    for words in commands.values():
        assert parsed_arguments(words, monkeypatch).run_key == "KEY"


@pytest.mark.parametrize(
    ("run_type", "is_requested"), [("manual", True), ("asset_triggered", False), ("backfill", False)]
)
def test_a_person_s_run_scores_with_the_champion_of_now(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, run_type: str, is_requested: bool
) -> None:
    (words,) = commands_of(rendered(dags[f"{MODEL}_score"].task_dict["score_day"], run_type=run_type)).values()
    assert ("--champion" in words) is is_requested
    assert parsed_arguments(words, monkeypatch).champion is is_requested


def test_a_report_refreshes_the_dataset_that_its_own_connection_names(dags_of: Callable[..., dict[str, Any]]) -> None:
    def arrange(config: ConfigFolder) -> None:
        config.source("a")
        config.table("t", "a")
        config.model("m", "t", label="a", report={"connection": "power-bi of m"})

    task = rendered(dags_of(arrange)["m_report"].task_dict["refresh_dataset"])
    assert (task.conn_id, task.group_id, task.dataset_id) == ("power-bi of m", "g", "d")


def parsed_arguments(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments as the stage's own command line reads them; the stage is not run."""
    calls: list[Any] = []
    stage = importlib.import_module(f"ml.stages.{words[0]}")

    def run(args: Any) -> dict[str, Any]:
        calls.append(args)
        return {}

    monkeypatch.setattr(stage, "run", run)
    cli.main(words)
    return calls[0]


def command_line(dag: Any, task_id: str, xcoms: dict[tuple[str, str], Any] = XCOMS) -> str:
    """The command line of an Azure ML job."""
    definition = rendered(dag.task_dict[task_id], xcoms).definition()
    line: str = definition.get("command") or definition["trial"]["command"]
    return line


@pytest.fixture(scope="session")
def of_method(dags_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The train Dags of models with each of the search methods."""
    methods = ("job", "sweep", "automl")

    def arrange(config: ConfigFolder) -> None:
        config.source("a")
        config.table("t", "a")
        for method in methods:
            config.model(method, "t", label="a", train={"method": method})

    dags = dags_of(arrange)
    return {method: dags[f"{method}_train"] for method in methods}


class TestTheSearchForAModel:
    """`train.method` selects the search; its result reaches the training job, each value as one word."""

    @pytest.mark.parametrize(
        ("method", "steps"),
        [
            pytest.param("job", [], id="job"),
            pytest.param("sweep", ["search_model"], id="sweep"),
            pytest.param("automl", ["export_rows", "search_model"], id="automl"),
        ],
    )
    def test_stands_between_validation_and_training(
        self, of_method: dict[str, Any], method: str, steps: list[str]
    ) -> None:
        task, names = of_method[method].task_dict["validate_training_set"], []
        while task.downstream_task_ids:
            (name,) = task.downstream_task_ids
            names.append(name)
            task = of_method[method].task_dict[name]
        assert names == [*steps, "train_model"]

    def test_a_trial_takes_each_parameter_from_azure_ml(
        self, of_method: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = command_line(of_method["sweep"], "search_model")
        assert "num_leaves=${{search_space.num_leaves}}" in line
        words = shlex.split(line.replace("${{search_space.", "").replace("}}", ""))
        assert parsed_arguments(words[3:], monkeypatch).set == [
            "learning_rate=learning_rate",
            "min_child_samples=min_child_samples",
            "n_estimators=n_estimators",
            "num_leaves=num_leaves",
        ]

    @pytest.mark.parametrize("evil", ["'; rm -rf / #", "$(id)", '"', "`id`"])
    def test_the_best_parameters_are_one_word(
        self, of_method: dict[str, Any], monkeypatch: pytest.MonkeyPatch, evil: str
    ) -> None:
        best = {"num_leaves": 5, "boosting": evil}
        xcoms = XCOMS | {("search_model", "return_value"): {"parameters": best}}
        words = shlex.split(command_line(of_method["sweep"], "train_model", xcoms))
        assert json.loads(parsed_arguments(words[3:], monkeypatch).params) == best

    @pytest.mark.parametrize("algorithm", ["LightGBM", "'; rm -rf / #", "$(id)"])
    def test_automl_s_model_is_an_input_of_the_job(
        self, of_method: dict[str, Any], monkeypatch: pytest.MonkeyPatch, algorithm: str
    ) -> None:
        result = {"job": "j-1", "algorithm": algorithm, "best_model": "azureml://datastores/x/paths/automl/j-1/"}
        xcoms = XCOMS | {("search_model", "return_value"): result}
        words = shlex.split(command_line(of_method["automl"], "train_model", xcoms))
        args = parsed_arguments(words[3:], monkeypatch)
        assert (args.automl_model, args.automl_job, args.automl_algorithm) == (
            "${{inputs.best_model}}",
            "j-1",
            algorithm,
        )
        assert rendered(of_method["automl"].task_dict["train_model"], xcoms).inputs["best_model"] == {
            "type": "uri_folder",
            "path": result["best_model"],
        }


class TestTheTrainingJob:
    """The one command line that a shell reads."""

    def test_is_a_stage_of_the_same_package(self, dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        command = command_line(dags[f"{MODEL}_train"], "train_model")
        assert command == f"python -m ml train --model {MODEL} --training-set-version 7 --run-key '{{run_key}}'"
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "ml"]
        assert parsed_arguments(words[3:], monkeypatch).training_set_version == 7

    @pytest.mark.parametrize("evil", ["7; rm -rf /", "$(id)", "7 --model other", "`id`", {"a": 1}, None, ""])
    def test_takes_nothing_from_a_run_but_a_number(self, dags: dict[str, Any], evil: Any) -> None:
        xcoms = XCOMS | {("build_training_set", "return_value"): {"training_set": {"version": evil}}}
        command = command_line(dags[f"{MODEL}_train"], "train_model", xcoms)
        assert command == f"python -m ml train --model {MODEL} --training-set-version 0 --run-key '{{run_key}}'"

    def test_is_the_only_task_that_a_shell_reads(self, dags: dict[str, Any]) -> None:
        with_command = {
            f"{dag_id}.{task.task_id}"
            for dag_id, dag in dags.items()
            for task in dag.tasks
            if any(hasattr(task, name) for name in ("command", "bash_command", "sql"))
        }
        jobs = {f"{name}_train.train_model" for name in PROJECT.models}
        searches = {
            f"{name}_train.search_model" for name, model in PROJECT.models.items() if model.train.method == "sweep"
        }
        assert with_command == jobs | searches


@pytest.mark.parametrize(("stage", "folder"), [("ingest", "1998-06-28"), ("load_history", "*")])
def test_the_parameters_of_the_copy(dags: dict[str, Any], stage: str, folder: str) -> None:
    task = rendered(dags[f"{SOURCE}_{stage}"].task_dict["copy_files"])
    assert task.pipeline == "ingest"
    assert task.parameters == {
        "table": SOURCE,
        "folder": folder,
        "copy_log": "bronze/_log/{run_key}",
        "listing": LISTING,
    }


@pytest.mark.parametrize(
    ("stage", "conf", "why"),
    [
        pytest.param("load_history", {}, "first", id="no-days"),
        pytest.param("load_history", {"first": "1998-06-01"}, "last", id="no-last-day"),
        pytest.param("load_history", {"first": "1998-06-31", "last": "1998-07-01"}, "date", id="no-such-day"),
        pytest.param("load_history", {"first": "1 June", "last": "1998-07-01"}, "date", id="not-a-day"),
        pytest.param("load_history", {"first": "1998-06-01", "last": "1998-07-01 --x"}, "date", id="more-than-a-day"),
        pytest.param("load_history", {"first": 19980601, "last": "1998-07-01"}, "string", id="number-for-a-day"),
        pytest.param("train", {"through": "soon"}, "date", id="train-through-no-day"),
        pytest.param("train", {"through": 7}, "string", id="train-through-a-number"),
        pytest.param("promote", {"version": 0}, "minimum", id="version-zero"),
        pytest.param("promote", {"version": "7"}, "integer", id="version-as-text"),
        pytest.param("promote", {"version": 1.5}, "integer", id="version-and-a-half"),
        pytest.param("rollback", {}, "why", id="rollback-without-why"),
        pytest.param("rollback", {"why": ""}, "non-empty", id="rollback-without-a-reason"),
        pytest.param("rollback", {"why": True}, "string", id="rollback-why-is-text"),
        pytest.param("rollback", {"why": "wrong", "version": "1"}, "integer", id="rollback-version-as-text"),
        pytest.param("on_champion", {"first": "yesterday"}, "date", id="score-again-from-no-day"),
        pytest.param("on_champion", {"last": 3}, "string", id="score-again-to-a-number"),
    ],
)
def test_a_bad_parameter_is_refused_before_any_task_runs(
    dags: dict[str, Any], stage: str, conf: dict[str, Any], why: str
) -> None:
    from airflow.exceptions import ParamValidationError

    params = _with(dags[dag_of(stage)], conf)
    with pytest.raises(ParamValidationError, match=why):
        params.validate()


@pytest.mark.parametrize(
    ("stage", "conf"),
    [
        ("load_history", {"first": "1998-06-01", "last": "1998-06-28"}),
        ("train", {}),
        ("train", {"through": "1998-06-28"}),
        ("promote", {}),
        ("promote", {"version": 7}),
        ("rollback", {"why": "it calls everybody lost"}),
        ("rollback", {"why": "it calls everybody lost", "version": 3}),
        ("on_champion", {}),
        ("on_champion", {"first": "1998-06-28"}),
        ("on_champion", {"first": "1998-06-28", "last": "1998-06-30"}),
    ],
)
def test_a_good_parameter_is_accepted(dags: dict[str, Any], stage: str, conf: dict[str, Any]) -> None:
    assert _with(dags[dag_of(stage)], conf).validate().items() >= conf.items()


def dag_of(stage: str) -> str:
    """The id of one Dag of a stage."""
    return f"{SOURCE if stage == 'load_history' else MODEL}_{stage}"


def _with(dag: Any, conf: dict[str, Any]) -> Any:
    """The parameters of a requested run, as the API server validates them."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).params.deep_merge(conf)
