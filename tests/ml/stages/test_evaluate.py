"""Challenger and champion on the same rows: every unmeasured value is named, and the page shows the evaluation."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.config import load_model
from ml.errors import StageError
from ml.evaluate import evaluation, record
from ml.evaluate.report.page import model_page
from ml.registry import model_versions
from ml.stages import evaluate
from tests.support.models.small_world import COLUMNS, World, training_set

SETTINGS = load_model("churn").evaluate


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def rows(count: int = 600, noise: float = 0.2) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    truth = rng.random(count)
    return (rng.random(count) < truth).astype(float), np.clip(truth + rng.normal(0, noise, count), 0, 1)


def evaluated(y: Any, p: Any, champion: Any = None) -> dict[str, Any]:
    return evaluation.evaluate(y, p, champion, np.arange(len(y)), SETTINGS, seed=1)


def page_facts(result: dict[str, Any]) -> dict[str, Any]:
    return result | {
        "model": "churn", "champion": None, "run_key": "k", "commit": "c", "training_set_version": 0, "rows_train": 1,
        "test_as_of": ["1998-04-01"], "params": {}, "importance": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("y", "p", "sentence"),
    [
        pytest.param(np.ones(50), np.linspace(0, 1, 50), "all 50 test rows are of class 1", id="single-class"),
        pytest.param(np.zeros(50), np.linspace(0, 1, 50), "all 50 test rows are of class 0", id="nobody-churned"),
        pytest.param(rows(50)[0], np.full(50, np.nan), "50 of 50 predictions are not finite", id="nan-predictions"),
        pytest.param(rows(50)[0], np.full(50, 0.1), "no row was predicted", id="nobody-predicted"),
        pytest.param(np.empty(0), np.empty(0), "there are no test rows", id="no-rows"),
    ],
)
def test_unmeasured_is_null_with_a_sentence_and_a_page(y: Any, p: Any, sentence: str) -> None:
    result = json.loads(record.to_json(evaluated(y, p)))
    assert any(metric["value"] is None for metric in result["metrics"]["challenger"].values())
    assert any(sentence in problem for problem in result["problems"])
    page = model_page(load_model("churn"), page_facts(result)).decode()
    assert sentence in page
    assert "not measured" in page


def test_a_measured_model_has_no_problems_and_intervals_around_its_values() -> None:
    result = evaluated(*rows())
    assert result["problems"] == []
    for name, metric in result["metrics"]["challenger"].items():
        assert metric["low"] <= metric["value"] <= metric["high"], name


def test_paired_difference_has_a_narrower_interval_than_the_two_metrics() -> None:
    y, p = rows()
    result = evaluated(y, p, champion=rows(noise=0.3)[1])["metrics"]
    paired = result["difference"]["roc_auc"]
    apart = result["challenger"]["roc_auc"]
    assert paired["value"] == pytest.approx(apart["value"] - result["champion"]["roc_auc"]["value"], abs=1e-8)
    assert paired["high"] - paired["low"] < apart["high"] - apart["low"]


def test_a_model_compared_with_itself_has_no_difference() -> None:
    y, p = rows()
    difference = evaluated(y, p, champion=p)["metrics"]["difference"]
    assert {tuple(metric.values()) for metric in difference.values()} == {(0.0, 0.0, 0.0)}


def test_confusion_counts_every_row_once() -> None:
    cells = evaluated(*rows())["confusion"]
    assert sum(count for name, count in cells.items() if name != "threshold") == 600


def test_curves_start_and_end_at_the_corners() -> None:
    curves = evaluated(*rows())["curves"]["challenger"]
    assert [curves["roc"][0], curves["roc"][-1]] == [[0, 0], [1, 1]]
    assert curves["precision_recall"][-1][0] == 1
    assert sum(part["rows"] for part in curves["calibration"]) == 600


def test_same_inputs_give_the_same_evaluation_and_page() -> None:
    first, again = evaluated(*rows()), evaluated(*rows())
    assert record.to_json(first) == record.to_json(again)
    pages = [model_page(load_model("churn"), page_facts(result)) for result in (first, again)]
    assert pages[0] == pages[1]


def test_page_is_complete_and_loads_nothing() -> None:
    page = model_page(load_model("churn"), page_facts(evaluated(*rows()))).decode()
    assert len(page) < 200_000
    assert not [word for word in ("<script", 'src="http', "@import") if word in page]
    for word in ("ROC AUC", "Calibration", "Precision and recall", "Confusion matrix", "1998-04-01"):
        assert word in page


def test_page_escapes_text_from_outside() -> None:
    result = page_facts(evaluated(*rows())) | {"run_key": "<script>alert(1)</script>"}
    assert "<script>" not in model_page(load_model("churn"), result).decode()


def test_champion_that_cannot_score_the_rows_is_named_and_not_measured(world: World) -> None:
    """The challenger has dropped a column; the champion's own rows would be computed from silver, which is not there."""
    world.champion()
    stays_away = tuple(check for check in world.config.evaluate.behaviour if check.name == "stays_away")
    quick = world.config.evaluate.model_copy(update={"behaviour": stays_away})
    gate = world.config.gate.model_copy(update={"max_violations": {"stays_away": 0.1}})
    kept = tuple(column for column in COLUMNS if column != "orders")
    config = world.config.model_copy(update={"features": {"customers": kept}, "evaluate": quick, "gate": gate})
    world.config = world.resources.put(config)
    rows = training_set(seed=5).drop_columns(["orders"])
    trained = world.train(world.write_training_set(rows), "train-2")
    assert any(
        "champion 1 could not score" in line and "silver.customer_days does not exist" in line
        for line in trained["problems"]
    )
    decision = world.gate(trained["version"])
    assert not decision["approved"]
    assert any("champion 1 was not measured" in reason for reason in decision["reasons"])


def test_champion_trained_on_the_test_period_is_named(world: World) -> None:
    world.champion()
    old = training_set()
    earlier = old.set_column(
        old.schema.get_field_index("as_of"),
        "as_of",
        [[day.replace(year=day.year - 1) for day in old["as_of"].to_pylist()]],
    ).cast(old.schema)
    trained = world.train(world.write_training_set(earlier), "train-2")
    assert any("the comparison favours it" in line for line in trained["problems"])


def test_evaluating_again_compares_with_the_present_champion(world: World) -> None:
    table = world.write_training_set(training_set())
    waiting, other = world.train(table, "train-1")["version"], world.train(table, "train-2")["version"]
    world.gate(other)
    world.promote(other)
    with pytest.raises(StageError, match=r"champion changed since evaluation.*evaluate again"):
        world.gate(waiting)
    result = evaluate.run(Namespace(model="churn", version=waiting))
    assert result["champion"] == other
    assert world.gate(waiting)["champion"] == other


def test_evaluation_is_logged_and_its_page_is_in_the_reports(world: World) -> None:
    trained = world.train(world.write_training_set(training_set()))
    version = model_versions.get_version("churn", trained["version"])
    result = json.loads(model_versions.read_artifact(version, record.FILE))
    assert result["metrics"]["challenger"]["roc_auc"] == trained["roc_auc"]
    page = (world.folder / "reports" / trained["report"]).read_bytes()
    assert page == model_versions.read_artifact(version, record.PAGE)
