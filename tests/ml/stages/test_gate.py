"""The gate checks every rule, names every reason, fails what was not measured, and records its decision."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mlflow import MlflowClient

from ml.errors import StageError
from ml.ops import decisions as decision_log
from ml.registry import model_versions
from ml.storage import tables
from tests.support.models.small_world import World, customers, training_set


def test_deciding_imports_nothing_heavy() -> None:
    code = (
        "import sys, ml.gate.decide; print([m for m in ('mlflow', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def decisions() -> list[dict[str, Any]]:
    return [row for row in tables.read(decision_log.TABLE).to_pylist() if row["event"] == "gate"]


def test_unknown_version_is_named(world: World) -> None:
    with pytest.raises(StageError, match="churn version 5 is not in the registry"):
        world.gate("5")


def test_version_without_evaluation_is_refused(world: World) -> None:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("x")).info
    client.create_registered_model("churn")
    client.create_model_version("churn", f"{run.artifact_uri}/model", run.run_id)
    with pytest.raises(StageError, match=f"churn version 1: artifact evaluation.json of run {run.run_id}"):
        world.gate("1")


def test_a_repeated_decision_is_recorded_once(world: World) -> None:
    version = world.trained()
    first, again = world.gate(version), world.gate(version)
    assert first["approved"]
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(again))
    (row,) = decisions()
    assert (row["version"], row["approved"], row["reasons"], row["run_key"]) == (version, True, [], "train-1")
    assert (row["event"], row["model_digest"]) == ("gate", model_versions.get_version("churn", version).digest)
    assert [rule["rule"] for rule in json.loads(row["rules"])] == [check["rule"] for check in first["checks"]]


def test_process_that_dies_before_the_tag_decides_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.trained()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):  # noqa: PT012 - replaced only inside
        broken.setattr(model_versions, "set_tag", dies)
        world.gate(version)
    world.gate(version)
    assert len(decisions()) == 1


def test_rejection_is_a_result_with_all_reasons(world: World) -> None:
    version = world.train(world.write_training_set(training_set(signal=0.0)))["version"]
    decision = world.gate(version)
    assert not decision["approved"]
    assert "roc_auc is 0." in decision["reasons"][0]
    assert decisions()[0]["reasons"] == list(decision["reasons"])


def test_other_rules_make_another_decision(world: World) -> None:
    version = world.trained()
    assert world.gate(version)["approved"]
    world.configure(gate={"min_rows": 5000})
    assert world.gate(version)["reasons"] == ["evaluated on 800 rows; at least 5000 are needed"]
    assert sorted(row["approved"] for row in decisions()) == [False, True]


def test_the_champion_decided_on_again_keeps_its_decision(world: World) -> None:
    champion = world.champion()
    assert world.gate(champion)["approved"]
    assert len(decisions()) == 1


def test_challenger_is_compared_with_the_champion(world: World) -> None:
    world.champion()
    other = world.train(0, "train-2")["version"]
    assert world.gate(other)["approved"]
    world.configure(gate={"when_equal": "keep"})
    decision = world.gate(other)
    assert decision["champion"] == "1"
    assert any("not better than champion 1" in reason for reason in decision["reasons"])


def test_the_champion_under_another_number_is_rejected(world: World) -> None:
    world.champion()
    same = world.train(0, "train-2", params="{}")["version"]
    assert world.gate(same)["reasons"] == [
        "every test row has the same probability as from champion 1: it is the same model"
    ]


def test_worse_model_is_rejected_for_a_significant_loss(world: World) -> None:
    world.champion()
    worse = world.train(0, "train-2", params=json.dumps({"num_leaves": 2, "n_estimators": 5}))["version"]
    assert any("a loss of more than 0.01 is not ruled out" in reason for reason in world.gate(worse)["reasons"])


@pytest.mark.parametrize(
    ("report", "why"),
    [
        pytest.param({"passed": False}, "has not passed its validation", id="failed"),
        pytest.param({"passed": "true"}, "has not passed its validation", id="passed-is-a-word"),
        pytest.param({"rows": {"rows": 9}}, "is of 9 rows, but version 0 has 2000", id="other-row-count"),
        pytest.param({"table": {"id": "x", "version": 0}}, "of another table features.training_set", id="another-table"),
        pytest.param({"table": None}, "is not a validation report", id="no-table"),
        pytest.param({"outcomes": []}, "lists no checked expectation", id="nothing-was-checked"),
    ],
)  # fmt: skip
def test_version_whose_training_set_did_not_pass_validation_is_rejected(
    world: World, report: dict[str, Any], why: str
) -> None:
    table = world.write_training_set(training_set())
    world.write_validation(table, **report)
    trained = world.train(table)
    (reason,) = world.gate(trained["version"])["reasons"]
    assert why in reason


def test_a_new_column_of_the_feature_table_blocks_nobody(world: World) -> None:
    table = world.write_training_set(training_set())
    world.write_features(customers(10).append_column("visits", pa.array([1] * 10)))
    assert world.gate(world.train(table)["version"])["approved"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        pytest.param(
            customers(10).drop_columns(["orders"]), "features.customers does not have orders", id="a-column-is-gone"
        ),
        pytest.param(
            customers(10).drop_columns(["orders"]).append_column("orders", pa.array(["3"] * 10)),
            "orders is a category in features.customers, and the model takes it as a number",
            id="a-column-of-another-kind",
        ),
    ],
)
def test_a_model_whose_columns_the_feature_table_does_not_have_is_rejected(
    world: World, rows: pa.Table, why: str
) -> None:
    table = world.write_training_set(training_set())
    world.forget_features()
    world.write_features(rows)
    (reason,) = world.gate(world.train(table)["version"])["reasons"]
    assert reason == f"the model's input columns differ from the pinned ones: {why}"
