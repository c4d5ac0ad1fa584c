"""SHAP: contributions add up to the log-odds, exactly for LightGBM, and estimated for any other model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml import cli
from ml.config import load_model
from ml.evaluate import explanations
from ml.models.frames import Feature, feature_columns
from ml.models.predictors import LightGBMPredictor
from ml.train import fit
from ml.train.dataset import TrainingSet
from tests.support.models.small_world import COLUMNS, DAY, World, customers, training_set


@pytest.fixture(scope="module")
def fitted() -> tuple[LightGBMPredictor, pa.Table]:
    churn, rows = load_model("churn"), training_set()
    features = feature_columns(rows.schema, COLUMNS, "the training rows")
    parts = {split: rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test")}
    booster = fit.fit_booster(churn, TrainingSet(0, features, parts["train"], parts["test"], {}))
    return LightGBMPredictor("trees", features, booster), parts["test"]


def test_contributions_and_the_base_are_the_log_odds(fitted: tuple[LightGBMPredictor, pa.Table]) -> None:
    predictor, rows = fitted
    values, p = explanations.contributions(predictor, rows), predictor.predict(rows)
    base = np.log(p / (1 - p)) - values.sum(axis=1)
    assert np.ptp(base) < 1e-6


def test_reasons_are_the_largest_contributions_of_each_row(fitted: tuple[LightGBMPredictor, pa.Table]) -> None:
    predictor, rows = fitted
    values = explanations.contributions(predictor, rows.slice(0, 5))
    for row, reasons in zip(values, explanations.top_reasons(predictor, rows.slice(0, 5), top=2), strict=True):
        assert [abs(reason["contribution"]) for reason in reasons] == pytest.approx(
            sorted(abs(row))[::-1][:2], abs=1e-5
        )


def test_summary_ranks_the_features_behind_the_labels_first(fitted: tuple[LightGBMPredictor, pa.Table]) -> None:
    summary = explanations.summarise(*fitted, seed=1)
    first = {entry["feature"]: entry["direction"] for entry in summary["features"][:2]}
    assert first.keys() == {"recency_days", "orders"}
    assert first["recency_days"] > 0 > first["orders"]
    assert json.dumps(summary) == json.dumps(explanations.summarise(*fitted, seed=1))


class Formula:
    """A model that is not a tree ensemble and unknown to shap, as an ONNX graph is."""

    name = "formula"
    features = (Feature("a", "number"), Feature("b", "number"), Feature("where", "category"))

    def predict(self, rows: pa.Table) -> Any:
        a, b = (rows[name].to_numpy() for name in ("a", "b"))
        is_x = np.asarray(pc.fill_null(pc.equal(rows["where"], "x"), False).to_pylist(), dtype=float)
        return 1 / (1 + np.exp(-(2 * a - b + is_x)))


def test_any_other_model_is_explained_by_its_predictions() -> None:
    rng = np.random.default_rng(0)
    rows = pa.table({"a": rng.normal(size=50), "b": rng.normal(size=50), "where": rng.choice(["x", "y"], 50)})
    values = explanations.contributions(Formula(), rows)
    base = np.log(1 / (1 / Formula().predict(rows) - 1)) - values.sum(axis=1)
    assert np.ptp(base) < 1e-6
    assert np.corrcoef(values[:, 0], rows["a"].to_numpy())[0, 1] > 0.999
    assert np.abs(values[:, 0]).mean() > np.abs(values[:, 1]).mean()
    assert values[:, 2].std() > 0.3
    assert explanations.summarise(Formula(), rows, seed=0)["method"] == "SHAP by permutation, estimated"


def test_the_probability_of_a_row_is_explained_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, monkeypatch)
    world.champion()
    rows = customers(50)
    world.write_features(rows)
    who = rows.filter(rows["active"])["customer_id"][0].as_py()
    cli.main(["explain", "--model", "churn", "--key", who, "--day", DAY.isoformat()])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["version"], len(facts["reasons"])) == ("1", 5)
    assert {reason["feature"] for reason in facts["reasons"][:2]} <= {"recency_days", "orders", "amount"}
    with pytest.raises(SystemExit):
        cli.main(["explain", "--model", "churn", "--key", "nobody", "--day", DAY.isoformat()])
    assert "customer_id 'nobody' is not among the rows that are scored" in capsys.readouterr().out
