"""The evidence of an evaluation: separate rows of training and test, and the columns that the config pins."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from ml.config import ModelConfig, load_model
from ml.config.sections import Examples, Split
from ml.evaluate import evidence, record
from ml.models.frames import Feature
from ml.registry.model_versions import Version
from ml.storage import tables
from ml.train.dataset import TrainingSet

CHURN = load_model("churn")
DAY = date(2024, 3, 1)
LABEL = CHURN.label.model_copy(update={"query": None, "inputs": (), "horizon_days": None})


def examples(by: Literal["day", "key"]) -> ModelConfig:
    section = Examples(table="silver.files", columns=("income",), split=Split(by=by, test_share=0.2), restate_days=31)
    return CHURN.model_copy(update={"features": {}, "population": None, "examples": section, "label": LABEL})


def rows(*keys: str, split: str = "train") -> pa.Table:
    return pa.table({"customer_id": list(keys), "as_of": [DAY] * len(keys), "split": [split] * len(keys)})


def training_set(train: pa.Table, test: pa.Table) -> TrainingSet:
    return TrainingSet(0, (), train, test, {})


@pytest.fixture(autouse=True)
def _lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}")


def test_labels_reach_a_horizon_after_the_cut_off_and_those_of_examples_are_of_their_day() -> None:
    made = training_set(rows("a"), rows("b"))
    champion = Version("churn", "1", "r", {"trained_through": "2024-02-01"})
    assert evidence.learnt_through(CHURN, made, champion) == {"challenger": "2024-05-30", "champion": "2024-05-01"}
    assert evidence.learnt_through(examples("day"), made, champion) == {
        "challenger": "2024-03-01", "champion": "2024-02-01",
    }  # fmt: skip


@pytest.mark.parametrize(("config", "split"), [(CHURN, "cut-off"), (examples("day"), "day"), (examples("key"), "key")])
def test_the_split_is_named(config: ModelConfig, split: str) -> None:
    assert evidence.split_of(config) == split


class TestSharedEntities:
    def test_they_are_counted_once_per_entity(self) -> None:
        made = training_set(rows("a", "b", "b"), rows("b", "b", "c", split="test"))
        assert evidence.count_shared_entities(examples("key"), made, None) == {"challenger": 1}

    def test_those_of_the_champion_are_of_its_own_training_set(self) -> None:
        stored = pa.concat_tables([rows("c", "d"), rows("b", split="test")])
        tables.replace(CHURN.train.table, stored, "as_of IS NOT NULL")
        made = training_set(rows("a"), rows("b", "c", split="test"))
        champion = Version("churn", "1", "r", {"training_set_version": "0"})
        assert evidence.count_shared_entities(examples("key"), made, champion) == {"challenger": 0, "champion": 1}

    @pytest.mark.parametrize("tags", [{}, {"training_set_version": "0"}], ids=["not-recorded", "no-such-table"])
    def test_an_unknown_training_set_is_not_zero(self, tags: dict[str, str]) -> None:
        made = training_set(rows("a"), rows("b", split="test"))
        counts = evidence.count_shared_entities(examples("key"), made, Version("churn", "1", "r", tags))
        assert counts["champion"] is None


class TestSchema:
    MODEL = CHURN.model_copy(update={"features": {"customers": ("orders", "country")}})
    FEATURES = (Feature("orders", "number"), Feature("country", "category"))

    def write(self, **columns: pa.Array) -> None:
        tables.replace("features.customers", pa.table({"as_of": [DAY], **columns}), "as_of IS NOT NULL")

    def test_columns_beside_the_pinned_ones_do_not_matter(self) -> None:
        self.write(orders=pa.array([1]), country=pa.array(["DE"]), added=pa.array([True]))
        compared = evidence.compare_schema(self.MODEL, self.FEATURES)
        assert compared == {"equal": True, "problems": [], "tables": {"features.customers": 0}}

    def test_a_missing_table_is_not_compared(self) -> None:
        compared = evidence.compare_schema(self.MODEL, self.FEATURES)
        assert compared["equal"] is None
        assert "features.customers does not exist" in compared["problems"][0]

    @pytest.mark.parametrize(
        ("features", "why"),
        [
            pytest.param(FEATURES[:1], "names country, which the model does not take", id="fewer"),
            pytest.param((*FEATURES, Feature("x", "number")), "the model takes x, which", id="more"),
            pytest.param(
                (Feature("orders", "category"), FEATURES[1]),
                "orders is a number in features.customers, and the model takes it as a category",
                id="another-kind",
            ),
        ],
    )
    def test_other_inputs_than_the_pinned_ones_are_named(self, features: tuple[Feature, ...], why: str) -> None:
        self.write(orders=pa.array([1]), country=pa.array(["DE"]))
        (problem,) = evidence.compare_schema(self.MODEL, features)["problems"]
        assert why in problem

    def test_examples_are_compared_with_their_table_in_silver(self) -> None:
        tables.replace("silver.files", pa.table({"day": [DAY], "income": [1.0]}), "day IS NOT NULL")
        compared = evidence.compare_schema(examples("day"), (Feature("income", "number"),))
        assert compared == {"equal": True, "problems": [], "tables": {"silver.files": 0}}


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({}, "none"),
        ({"test_as_of": ["2024-01-01", "2024-02-01"]}, "cut-offs 2024-01-01, 2024-02-01"),
        ({"split": "day", "test_as_of": ["2024-01-01"]}, "days 2024-01-01"),
        ({"split": "key", "test_as_of": ["a", "b", "c"]}, "keys that were not trained on, days a to c"),
    ],
)
def test_the_test_rows_in_words(evaluation: dict[str, object], words: str) -> None:
    assert record.test_in_words(evaluation) == words
