"""A registered version made again from what is recorded: the same trees, or a sentence that says what is not."""

from __future__ import annotations

from argparse import Namespace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.stages import rebuild, training_set
from ml.storage import tables
from ml.train import fit
from tests.support.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.small_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose training set is made by its stage, from purchases."""
    made = World(tmp_path, monkeypatch)
    quick = MODEL.evaluate.model_copy(update={"bootstrap": 100})
    made.config = MODEL.model_copy(update={"evaluate": quick})
    tables.replace("silver.customer_days", purchases(), "day IS NOT NULL", partition_by=["month"])
    days = [FIRST + timedelta(n) for n in range(DAYS)]
    tables.replace("ops.ingested_days", pa.table({"day": days, "fingerprint": ["f"] * DAYS}), "day IS NOT NULL")
    facts = training_set.run(Namespace(model="churn", through=days[-1], run_key="k"))
    made.train(facts["version"])
    return made


def again(*, from_sources: bool = False) -> dict[str, Any]:
    return rebuild.run(Namespace(model="churn", version="1", from_sources=from_sources))


@pytest.mark.parametrize("from_sources", [False, True], ids=["from-the-training-set", "from-its-sources"])
def test_the_same_training_gives_the_same_model(world: World, from_sources: bool) -> None:
    """Though the tables have moved on, and the config is another one by now."""
    rows = tables.read("features.training_set")
    tables.replace("features.training_set", rows.slice(0, 10), "as_of IS NOT NULL", partition_by=["as_of"])
    tables.replace("silver.customer_days", purchases().slice(0, 50), "day IS NOT NULL", partition_by=["month"])
    world.configure(train={"params": {**MODEL.train.params, "num_leaves": 31}})
    facts = again(from_sources=from_sources)
    assert (facts["same"], facts["training_set_version"]) == (True, 0)
    assert facts["sources"]["customer_days_version"] == "0"


def test_other_trees_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fit.fit

    def other(config: ModelConfig, rows: Any) -> Any:
        return real(
            config.model_copy(update={"train": config.train.model_copy(update={"seed": 99})}),
            rows.__class__(**{**vars(rows), "train": rows.train.slice(5)}),
        )

    monkeypatch.setattr(fit, "fit", other)
    with pytest.raises(StageError, match=r"is not what its inputs give: other trees; .* training rows are scored"):
        again()


def test_a_training_set_that_was_not_what_its_source_gives_is_told(world: World) -> None:
    rows = tables.read("features.training_set")
    at = rows.schema.get_field_index("orders")
    planted = rows.set_column(at, "orders", pc.add(rows["orders"], 1))
    version = tables.replace("features.training_set", planted, "as_of IS NOT NULL", partition_by=["as_of"])
    world.train(version, "train-2")
    with pytest.raises(StageError, match=r"orders was learnt as .* where the source gives"):
        rebuild.run(Namespace(model="churn", version="2", from_sources=True))


def test_the_recorded_config_is_read_back_as_it_was(world: World) -> None:
    from ml.registry import model_versions

    assert rebuild.recorded_config(model_versions.version("churn", "1")) == world.config
    assert load_model("churn") == world.config
