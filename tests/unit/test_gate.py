"""The gate tries every rule, tells every reason, fails what was not measured, and records what it said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ml import audit, config, evaluate, lake, registry
from ml.cli import StageError
from ml.config import Gate, Rule
from ml.gate import decide
from tests.unit.small_world import World, training_set

RULES = Gate(
    min_rows=500,
    rules=(Rule(metric="roc_auc", at_least=0.80, max_loss=0.02), Rule(metric="ece", at_most=0.05, max_loss=0.01)),
)
OK = {"roc_auc": 0.84, "ece": 0.03}


def evaluation(rows: int | None, new: dict[str, Any] | None, old: dict[str, Any] | None) -> dict[str, Any]:
    def values(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if metrics is None else {name: {"value": value} for name, value in metrics.items()}

    return {
        "rows": rows,
        "champion": None if old is None else "3",
        "metrics": {"challenger": values(new), "champion": values(old)},
    }


@pytest.mark.parametrize(
    ("rows", "new", "old", "why"),
    [
        pytest.param(500, OK, None, [], id="first-model-has-no-champion"),
        pytest.param(500, OK, OK, [], id="as-good-as-the-champion"),
        pytest.param(500, OK | {"roc_auc": 0.82}, OK, [], id="loss-exactly-at-limit"),
        pytest.param(500, OK | {"roc_auc": 0.80}, None, [], id="bound-exactly-met"),
        pytest.param(500, OK | {"ece": 0.05}, OK | {"ece": 0.04}, [], id="lower-is-better-at-both-limits"),
        pytest.param(500, OK | {"roc_auc": 0.819}, OK, ["roc_auc is 0.8190, 0.0210 worse"], id="loss-above-limit"),
        pytest.param(500, OK | {"ece": 0.045}, OK, ["ece is 0.0450, 0.0150 worse"], id="lower-is-better-and-rose"),
        pytest.param(500, OK | {"roc_auc": 0.79}, None, ["roc_auc is 0.7900; must be at least 0.8"], id="below-bound"),
        pytest.param(500, OK | {"ece": 0.06}, None, ["ece is 0.0600; must be at most 0.05"], id="above-bound"),
        pytest.param(499, OK, None, ["evaluated on 499 rows; 500 needed"], id="too-few-rows"),
        pytest.param(
            500,
            {"roc_auc": None, "ece": 0.03},
            None,
            ["roc_auc was not measured; must be at least"],
            id="unmeasured-fails",
        ),
        pytest.param(500, {"roc_auc": float("nan"), "ece": 0.03}, None, ["roc_auc was not measured"], id="nan-fails"),
        pytest.param(500, {"ece": 0.03}, None, ["roc_auc was not measured"], id="metric-missing-fails"),
        pytest.param(
            500,
            OK,
            {},
            ["roc_auc of champion 3 was not measured", "ece of champion 3 was not measured"],
            id="champion-unmeasured-fails",
        ),
        pytest.param(
            None, None, None, ["evaluated on 0 rows", "roc_auc was not", "ece was not"], id="empty-evaluation-fails"
        ),
        pytest.param(
            9,
            {"roc_auc": 0.70, "ece": 0.2},
            OK,
            ["9 rows", "0.7000; must be", "0.1400 worse", "0.2000; must be", "0.1700 worse"],
            id="all-causes",
        ),
    ],
)
def test_decision(rows: int, new: dict[str, Any], old: dict[str, Any] | None, why: list[str]) -> None:
    decision = decide(RULES, evaluation(rows, new, old))
    assert decision.approved == (not why)
    assert len(decision.reasons) == len(why)
    for part, reason in zip(why, decision.reasons, strict=True):
        assert part in reason


def test_every_rule_is_among_the_checks_whether_it_passed_or_not() -> None:
    checks = decide(RULES, evaluation(500, OK, OK)).checks
    assert [check.rule for check in checks] == [
        "rows",
        "roc_auc",
        "roc_auc against the champion",
        "ece",
        "ece against the champion",
    ]
    assert (checks[2].measured, checks[2].champion, checks[2].bound) == (
        0.84,
        0.84,
        "at most 0.02 worse than champion 3",
    )


def test_rule_without_max_loss_does_not_ask_for_the_champion() -> None:
    rules = Gate(min_rows=1, rules=(Rule(metric="f1", at_least=0.5),))
    assert decide(rules, evaluation(10, {"f1": 0.6}, {})).approved


def test_deciding_imports_nothing_heavy() -> None:
    code = "import sys, ml.gate; print([m for m in ('mlflow', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def decisions() -> list[dict[str, Any]]:
    return [row for row in lake.read(audit.TABLE).to_pylist() if row["event"] == "gate"]


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


def test_decision_is_recorded_once_however_often_it_is_asked(world: World) -> None:
    version = world.trained()
    first, again = world.gate(version), world.gate(version)
    assert first["approved"]
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(again))
    (row,) = decisions()
    assert (row["version"], row["approved"], row["reasons"], row["run_key"]) == (version, True, [], "train-1")
    assert (row["event"], row["model_digest"]) == ("gate", registry.version("churn", version).digest)
    assert [rule["rule"] for rule in json.loads(row["rules"])] == [check["rule"] for check in first["checks"]]


def test_process_that_dies_before_the_tag_decides_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    version = world.trained()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):  # noqa: PT012 - replaced only inside
        broken.setattr(registry, "tag", dies)
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
    assert world.gate(version)["reasons"] == ["evaluated on 800 rows; 5000 needed"]
    assert sorted(row["approved"] for row in decisions()) == [False, True]


def test_champion_that_is_asked_about_again_keeps_its_decision(world: World) -> None:
    champion = world.champion()
    assert world.gate(champion)["approved"]
    assert len(decisions()) == 1


def test_challenger_is_held_against_the_champion(world: World) -> None:
    world.champion()
    weaker = world.train(world.write_training_set(training_set(signal=1.0, train=1000)), "train-2")["version"]
    world.configure(
        gate={"rules": (Rule(metric="roc_auc", at_least=0.5, max_loss=0.0), *config.load("churn").gate.rules)}
    )
    found = json.loads(registry.artifact(registry.version("churn", weaker), evaluate.FILE))
    decision = world.gate(weaker)
    assert decision["champion"] == "1"
    loss = found["metrics"]["champion"]["roc_auc"]["value"] - found["metrics"]["challenger"]["roc_auc"]["value"]
    assert any("against the champion" in check["rule"] for check in decision["checks"])
    assert decision["approved"] == (loss <= 0)
