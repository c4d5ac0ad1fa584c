"""Drift is detected where there is some, not where there is none, and empty bins divide by nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml.errors import StageError
from ml.models.frames import Feature
from ml.monitor import drift
from ml.storage import tables
from tests.support.models.small_world import DAY, World, customers, training_set

GOLD = "gold.drift"


def histograms(before: Any, now: Any, kind: str = "number") -> tuple[Any, Any, dict[str, Any]]:
    reference, day = (pa.table({"x": pa.array(values, from_pandas=True)}) for values in (before, now))
    spec = drift.build_reference(reference, [Feature("x", kind)], bins=10)["features"]["x"]  # type: ignore[arg-type]
    spec = json.loads(json.dumps(spec))  # as read from the registry
    return np.array(spec["counts"]), drift.histogram(day["x"], spec), spec


def psi(before: Any, now: Any, kind: str = "number") -> float:
    expected, observed, _ = histograms(before, now, kind)
    return drift.psi(expected, observed)[0]


RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=20_000)


@pytest.mark.parametrize(
    ("before", "now", "kind", "at_least", "below"),
    [
        pytest.param(NORMAL, RNG.normal(size=5000), "number", 0, 0.02, id="same-distribution"),
        pytest.param(NORMAL, RNG.normal(1, 1, 5000), "number", 0.5, 3, id="shifted-by-one-deviation"),
        pytest.param(NORMAL, RNG.normal(0, 0.3, 5000), "number", 0.3, 3, id="narrower"),
        pytest.param(NORMAL, NORMAL + 100, "number", 5, 30, id="all-above-the-range"),
        pytest.param(NORMAL, NORMAL - 100, "number", 5, 30, id="all-below-the-range"),
        pytest.param(NORMAL, np.where(RNG.random(20_000) < 0.5, np.nan, NORMAL), "number", 0.5, 9, id="half-null-now"),
        pytest.param([np.nan] * 900, [np.nan] * 900, "number", 0, 0.01, id="always-null"),
        pytest.param([np.nan] * 900, [1.0] * 900, "number", 1, 30, id="no-longer-null"),
        pytest.param([5] * 900, [5] * 900, "number", 0, 0.01, id="constant"),
        pytest.param([5] * 900, [4] * 900, "number", 1, 30, id="constant-and-fell"),
        pytest.param([0] * 800 + [1] * 100, [0] * 400 + [1] * 500, "number", 0.5, 3, id="whole-numbers"),
        pytest.param(["a"] * 500 + ["b"] * 500, ["a"] * 501 + ["b"] * 499, "category", 0, 0.01, id="same-categories"),
        pytest.param(["a"] * 500 + ["b"] * 500, ["a"] * 900 + ["b"] * 100, "category", 0.3, 3, id="shares-moved"),
        pytest.param(["a"] * 500, ["z"] * 500, "category", 1, 30, id="unknown-category"),
        pytest.param(["a"] * 500, [None] * 500, "category", 1, 30, id="category-became-null"),
    ],
)
def test_psi(before: Any, now: Any, kind: str, at_least: float, below: float) -> None:
    if kind == "category":
        now = pa.array(now, pa.string())
    assert at_least <= psi(before, now, kind) < below


def test_every_row_is_in_exactly_one_bin_and_every_bin_has_a_name() -> None:
    values = np.r_[NORMAL, [np.nan, np.inf, -np.inf]]
    expected, observed, spec = histograms(NORMAL, values)
    assert (expected.sum(), observed.sum()) == (len(NORMAL), len(values))
    names = drift.bin_names(spec)
    assert len(names) == len(observed) == len(set(names))
    assert (names[0].split()[0], names[-2].split()[0], names[-1]) == ("below", "above", "null")


def test_rare_categories_share_a_bin() -> None:
    many = [f"c{n}" for n in range(500)]
    expected, observed, spec = histograms(many, many, "category")
    assert len(spec["categories"]) == drift.CATEGORIES
    assert expected[-2] == observed[-2] == 500 - drift.CATEGORIES


def test_chance_is_exceeded_by_at_most_one_undrifted_feature_in_a_hundred() -> None:
    rng = np.random.default_rng(3)
    exceeded = 0
    for _ in range(400):
        expected, observed, _ = histograms(rng.random(2000), rng.random(60))
        index, chance = drift.psi(expected, observed)
        exceeded += index > chance
    assert exceeded / 400 < 0.02


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_without_a_champion_it_says_so_and_writes_nothing(world: World) -> None:
    world.write_features(customers(10))
    assert "no champion yet" in world.monitor()["skipped"]
    assert not tables.exists(GOLD)


def test_missing_feature_is_named(world: World) -> None:
    world.champion()
    world.write_features(customers(100).drop_columns(["amount"]))
    with pytest.raises(StageError, match="column amount is missing"):
        world.monitor()


def test_a_day_like_the_training_set_has_no_drift(world: World) -> None:
    champion = world.champion()
    world.write_features(customers(1000))
    facts = world.monitor()
    assert (facts["overall"], facts["drifted"], facts["drifted_features"]) == (0.0, False, [])
    rows = {row["feature"]: row for row in tables.read(GOLD).to_pylist()}
    overall = rows.pop("overall")
    assert (overall["psi"], overall["measure"], overall["drifted"]) == (0.0, "share of drifted features", False)
    assert set(rows) == {
        "recency_days", "tenure_days", "orders", "amount", "mean_order_amount", "online_preference_ratio", "country",
    }  # fmt: skip
    assert {row["model_version"] for row in rows.values()} == {champion}


def test_a_shifted_day_has_drift_by_feature_and_overall(world: World) -> None:
    world.champion()
    world.write_features(customers(1000, tenure_days=400.0, orders=9.0, amount=500.0))
    facts = world.monitor(run_key="m-7")
    assert set(facts["drifted_features"]) == {"tenure_days", "orders", "amount"}
    assert facts["overall"] == pytest.approx(3 / 7, abs=1e-4)
    assert facts["drifted"] is True
    assert {row["feature"] for row in tables.read(GOLD).to_pylist() if row["drifted"]} == {
        "tenure_days", "orders", "amount", "overall",
    }  # fmt: skip


def test_few_customers_alone_are_no_drift(world: World) -> None:
    world.champion()
    world.write_features(customers(14))
    assert world.monitor()["drifted_features"] == []


def test_measuring_again_replaces_the_day_and_its_page(world: World) -> None:
    world.champion()
    world.write_features(customers(400))
    first = world.monitor()
    rows, page = tables.read(GOLD), (world.folder / "reports" / first["report"]).read_bytes()
    assert first["report"] == f"monitor/churn/{DAY}.html"
    assert world.monitor() == first
    assert tables.read(GOLD).equals(rows)
    assert (world.folder / "reports" / first["report"]).read_bytes() == page


def test_page_shows_every_feature_and_loads_nothing(world: World) -> None:
    world.champion()
    world.write_features(customers(400, orders=9.0))
    page = (world.folder / "reports" / world.monitor()["report"]).read_text()
    for feature in ("recency_days", "country", "online_preference_ratio"):
        assert page.count(feature) >= 2, "in the bars and above its histogram"
    assert not [word for word in ("<script", "http", "@import") if word in page]
    assert page.count("<svg") == 7


def test_reference_holds_only_histograms(world: World) -> None:
    reference = drift.build_reference(training_set(), [Feature("amount", "number")], bins=10)
    assert set(reference["features"]["amount"]) == {"kind", "edges", "counts"}
    assert len(reference["features"]["amount"]["counts"]) == 13  # ten, one below, one above, nulls
