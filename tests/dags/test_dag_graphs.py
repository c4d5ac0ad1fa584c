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
    "score": {"score_customers": set()},
    "train": {
        "choose_day": {"build_training_set"}, "build_training_set": {"validate_training_set"},
        "validate_training_set": {"train_model"}, "train_model": set(),
    },
}  # fmt: skip

EMITTED = {
    "arrivals": {"find_days": {"landed", "restate", "rescore", "remeasure", "asked"}},
    "calendar": {"emit_day": {"landed"}},
    "features": {"compute_features": {"featured"}},
    "ingest": {"clean_day": {"ingested"}},
    "load_history": {"hand_on": {"ingested"}},
    "monitor": {},
    "on_champion": {"choose_days": {"rescore"}},
    "promote": {"promote_version": {"champion"}},
    "report": {"note_version": {"reported"}},
    "rollback": {"roll_back": {"champion"}},
    "score": {"score_customers": {"scored"}},
    "train": {"train_model": {"challenger"}},
}

STARTED_BY = {
    "arrivals": {"noticed"},
    "ingest": {"landed"},
    "features": {"ingested", "restate"},
    "score": {"featured", "rescore"},
    "monitor": {"scored", "remeasure"},
    "train": {"retrain"},
    "promote": {"challenger"},
    "on_champion": {"champion"},
}

PER_DAY = {
    "ingest": "clean_day",
    "features": "compute_features",
    "score": "score_customers",
    "monitor": "measure_drift",
}


def starting_assets(dag: Any) -> set[str]:
    """Names of the assets that start a Dag."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    condition = decode_timetable(encode_timetable(dag.timetable)).asset_condition
    return {asset.name for _, asset in condition.iter_assets()}


@pytest.mark.parametrize("stage", GRAPHS)
class TestEachDag:
    def test_has_these_tasks_and_arrows(self, dags: dict[str, Any], stage: str) -> None:
        tasks = dags[f"churn_{stage}"].task_dict
        assert {name: task.downstream_task_ids for name, task in tasks.items()} == GRAPHS[stage]

    def test_emits_these_assets(self, dags: dict[str, Any], stage: str) -> None:
        tasks = dags[f"churn_{stage}"].task_dict
        outlets = {name: {asset.name for asset in task.outlets} for name, task in tasks.items() if task.outlets}
        assert outlets == {task: {f"churn.{name}" for name in names} for task, names in EMITTED[stage].items()}

    def test_starts_on_these_assets(self, dags: dict[str, Any], stage: str) -> None:
        assert starting_assets(dags[f"churn_{stage}"]) == {f"churn.{name}" for name in STARTED_BY.get(stage, ())}


def test_every_asset_that_starts_a_dag_comes_from_one(dags: dict[str, Any]) -> None:
    """Except those from outside: messages of the landing queue, and a person's request to retrain."""
    emitted = {asset.name for dag in dags.values() for task in dag.tasks for asset in task.outlets}
    needed = set().union(*map(starting_assets, dags.values()))
    assert needed - emitted == {"churn.noticed", "churn.retrain"}


@pytest.mark.parametrize("stage", ["ingest", "features", "score", "monitor"])
def test_any_one_asset_starts_a_day(dags: dict[str, Any], stage: str) -> None:
    """A partition that waits for a second asset may wait for ever; 500 such stop all partitioned scheduling."""
    from airflow.sdk.definitions.asset import Asset, AssetAny

    timetable = dags[f"churn_{stage}"].timetable
    condition = timetable.asset_condition
    assert isinstance(condition, Asset) or (
        type(condition) is AssetAny and all(isinstance(asset, Asset) for asset in condition.objects)
    ), "a partitioned Dag must start on any one of its assets: use |, never &"
    assert type(timetable.default_partition_mapper).__name__ == "StartOfDayMapper", (
        "no roll-ups: they wait for more keys"
    )
    assert not timetable.partition_mapper_config


def test_models_share_no_asset(dags_of: Callable[..., dict[str, Any]]) -> None:
    by_model: dict[str, set[str]] = {"churn": set(), "margin": set()}
    for dag_id, dag in dags_of({"model": "churn"}, {"model": "margin"}).items():
        names = starting_assets(dag) | {asset.name for task in dag.tasks for asset in (*task.outlets, *task.inlets)}
        by_model[dag_id.partition("_")[0]] |= names
    assert by_model["churn"]
    assert not by_model["churn"] & by_model["margin"]


@pytest.mark.parametrize("stage", [stage for stage in GRAPHS if stage != "calendar"])
def test_one_run_at_a_time_where_runs_could_meet(dags: dict[str, Any], stage: str) -> None:
    """A day that is emitted twice is two runs in Airflow; they must not write the same partition at once."""
    assert dags[f"churn_{stage}"].max_active_runs == 1


@pytest.mark.parametrize(("stage", "task"), PER_DAY.items())
def test_a_stage_of_a_day_does_not_run_without_one(dags: dict[str, Any], stage: str, task: str) -> None:
    assert dags[f"churn_{stage}"].task_dict[task].per_day is True


# The result of `ti.xcom_pull` while these tests render a Dag's tasks.
LISTING = "bronze/_listing/k.json"
FINGERPRINT = "0123456789abcdef"
XCOMS = {
    ("list_files", "return_value"): {"fingerprint": FINGERPRINT, "files": 2, "listing": LISTING},
    ("copy_files", "run_key"): "churn_ingest-copy_files-1998-06-28-0123456789-g1",
    ("note_files", "return_value"): LISTING,
    ("choose_day", "return_value"): "1998-06-28",
    ("build_training_set", "return_value"): {"training_set": {"version": 7}},
}


def rendered(task: Any, xcoms: dict[tuple[str, str], Any] = XCOMS) -> Any:
    """The task with its templates filled in for a run of 28 June 1998."""
    from copy import copy

    ti = SimpleNamespace(xcom_pull=lambda task_ids, key="return_value": xcoms[task_ids, key])
    filled = copy(task)
    params = {"first": "1998-06-01", "last": "1998-06-28"}
    filled.render_template_fields(
        {"ti": ti, "dag_run": SimpleNamespace(partition_key="1998-06-28"), "params": params, "dag": task.dag}
    )
    return filled


STAGE_TASKS = {
    ("ingest", "clean_day"): {
        "validate_arrival": "validate --model churn --suite arrival --days 1998-06-28"
        f" --fingerprint {FINGERPRINT} --run-key KEY",
        "ingest": "ingest --model churn --days 1998-06-28"
        " --copy-log bronze/_log/churn_ingest-copy_files-1998-06-28-0123456789-g1"
        f" --fingerprint {FINGERPRINT} --run-key KEY",
        "validate_silver": "validate --model churn --suite silver --days 1998-06-28 --run-key KEY",
    },
    ("load_history", "clean_days"): {
        "validate_arrival": "validate --model churn --suite arrival --days 1998-06-01..1998-06-28 --run-key KEY",
        "ingest": "ingest --model churn --days 1998-06-01..1998-06-28"
        " --copy-log bronze/_log/churn_ingest-copy_files-1998-06-28-0123456789-g1 --listing bronze/_listing/k.json --follow 1998-06-28 --run-key KEY",
        "validate_silver": "validate --model churn --suite silver --days 1998-06-01..1998-06-28 --run-key KEY",
    },
    ("features", "compute_features"): {"features": "features --model churn --as-of 1998-06-28 --run-key KEY"},
    ("score", "score_customers"): {"score": "score --model churn --day 1998-06-28 --run-key KEY"},
    ("monitor", "measure_drift"): {"monitor": "monitor --model churn --day 1998-06-28 --run-key KEY"},
    ("train", "build_training_set"): {"training_set": "training_set --model churn --through 1998-06-28 --run-key KEY"},
    ("train", "validate_training_set"): {
        "validate_training": "validate --model churn --suite training --version 7 --run-key KEY"
    },
}


@pytest.mark.parametrize(("place", "lines"), STAGE_TASKS.items(), ids=lambda value: "-".join(value))
def test_the_command_lines_of_a_cluster(
    dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, place: tuple[str, str], lines: dict[str, str]
) -> None:
    """Exactly these command lines, word by word and without a shell; and the stages accept them."""
    stage, task_id = place
    stages = rendered(dags[f"churn_{stage}"].task_dict[task_id]).stages
    commands = {name: [word.replace("{run_key}", "KEY") for word in words] for name, words in stages.items()}
    assert commands == {name: line.split() for name, line in lines.items()}
    for words in commands.values():
        assert parsed_arguments(words, monkeypatch).run_key == "KEY"


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
    dags = dags_of(*({"model": method, "train": {"method": method}} for method in methods))
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
        command = command_line(dags["churn_train"], "train_model")
        assert command == "python -m ml train --model churn --training-set-version 7 --run-key '{run_key}'"
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "ml"]
        assert parsed_arguments(words[3:], monkeypatch).training_set_version == 7

    @pytest.mark.parametrize("evil", ["7; rm -rf /", "$(id)", "7 --model other", "`id`", {"a": 1}, None, ""])
    def test_takes_nothing_from_a_run_but_a_number(self, dags: dict[str, Any], evil: Any) -> None:
        xcoms = XCOMS | {("build_training_set", "return_value"): {"training_set": {"version": evil}}}
        command = command_line(dags["churn_train"], "train_model", xcoms)
        assert command == "python -m ml train --model churn --training-set-version 0 --run-key '{run_key}'"

    def test_is_the_only_task_that_a_shell_reads(self, dags: dict[str, Any]) -> None:
        with_command = {
            f"{dag_id}.{task.task_id}"
            for dag_id, dag in dags.items()
            for task in dag.tasks
            if any(hasattr(task, name) for name in ("command", "bash_command", "sql"))
        }
        assert with_command == {"churn_train.train_model"}


@pytest.mark.parametrize(("stage", "folder"), [("ingest", "1998-06-28"), ("load_history", "*")])
def test_the_parameters_of_the_copy(dags: dict[str, Any], stage: str, folder: str) -> None:
    task = rendered(dags[f"churn_{stage}"].task_dict["copy_files"])
    assert task.pipeline == "ingest"
    assert task.parameters == {
        "table": "transactions",
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

    params = _with(dags[f"churn_{stage}"], conf)
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
    assert _with(dags[f"churn_{stage}"], conf).validate().items() >= conf.items()


def _with(dag: Any, conf: dict[str, Any]) -> Any:
    """The parameters of a requested run, as the API server validates them."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(DagSerialization.to_dict(dag)).params.deep_merge(conf)
