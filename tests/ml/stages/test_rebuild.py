"""A registered version trained again from its recorded inputs: the same trees, or a sentence that names the difference."""

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
from tests.support.data.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.models.small_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose training set is built by its stage, from purchases."""
    world = World(tmp_path, monkeypatch)
    quick = MODEL.evaluate.model_copy(update={"bootstrap": 100})
    world.config = world.resources.put_model(MODEL.model_copy(update={"evaluate": quick}))
    tables.replace("silver.customer_days", purchases(), "day IS NOT NULL", partition_by=["month"])
    days = [FIRST + timedelta(n) for n in range(DAYS)]
    tables.replace("ops.ingested_days", pa.table({"day": days, "fingerprint": ["f"] * DAYS}), "day IS NOT NULL")
    facts = training_set.run(Namespace(model="churn", through=days[-1], run_key="k"))
    world.train(facts["version"])
    return world


def rebuild_first_version(*, from_sources: bool = False) -> dict[str, Any]:
    return rebuild.run(Namespace(model="churn", version="1", from_sources=from_sources))


@pytest.mark.parametrize("from_sources", [False, True], ids=["from-the-training-set", "from-its-sources"])
def test_a_rebuilt_version_is_the_same_model(world: World, from_sources: bool) -> None:
    """The tables and the config have changed since the version was trained."""
    rows = tables.read("features.training_set")
    tables.replace("features.training_set", rows.slice(0, 10), "as_of IS NOT NULL", partition_by=["as_of"])
    tables.replace("silver.customer_days", purchases().slice(0, 50), "day IS NOT NULL", partition_by=["month"])
    world.configure(train={"params": {**MODEL.train.params, "num_leaves": 31}})
    facts = rebuild_first_version(from_sources=from_sources)
    assert (facts["same"], facts["training_set_version"]) == (True, 0)
    assert facts["sources"]["customer_days_version"] == "0"


def test_other_trees_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_booster = fit.fit_booster

    def other(config: ModelConfig, rows: Any) -> Any:
        return fit_booster(
            config.model_copy(update={"train": config.train.model_copy(update={"seed": 99})}),
            rows.__class__(**{**vars(rows), "train": rows.train.slice(5)}),
        )

    monkeypatch.setattr(fit, "fit_booster", other)
    with pytest.raises(
        StageError, match=r"is not what its inputs give: other trees; .* training rows have other scores"
    ):
        rebuild_first_version()


def test_a_training_set_that_its_source_does_not_give_is_refused(world: World) -> None:
    rows = tables.read("features.training_set")
    position = rows.schema.get_field_index("orders")
    planted = rows.set_column(position, "orders", pc.add(rows["orders"], 1))
    version = tables.replace("features.training_set", planted, "as_of IS NOT NULL", partition_by=["as_of"])
    world.train(version, "train-2")
    with pytest.raises(StageError, match=r"orders was trained on as .* where the source gives"):
        rebuild.run(Namespace(model="churn", version="2", from_sources=True))


def test_the_recorded_config_is_read_back_unchanged(world: World) -> None:
    from ml.registry import model_versions

    assert rebuild.read_recorded_config(model_versions.get_version("churn", "1")) == world.config
    assert load_model("churn") == world.config
