"""A registered version trained again from its recorded inputs: the same trees, or a sentence that names the difference."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.registry import model_versions
from ml.stages import rebuild, training_set
from ml.storage import tables
from ml.train import fit
from tests.support.data.built_days import mark_ingested
from tests.support.data.purchases import DAYS, FIRST, MODEL, purchases
from tests.support.models.small_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose training set is built by its stage, from purchases."""
    world = World(tmp_path, monkeypatch)
    quick = MODEL.evaluate.model_copy(update={"bootstrap": 100})
    world.config = world.resources.put(MODEL.model_copy(update={"evaluate": quick}))
    tables.replace("silver.customer_days", purchases(), "day IS NOT NULL", partition_by=["month"])
    days = [FIRST + timedelta(n) for n in range(DAYS)]
    mark_ingested("transactions", days, {"silver.customer_days": "a"}, validated=False)
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
    assert facts["sources"] == {"silver.customer_days": "0"}


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
    with pytest.raises(StageError, match=r"orders was trained on as .* where the sources give"):
        rebuild.run(Namespace(model="churn", version="2", from_sources=True))


def test_rows_that_the_sources_no_longer_give_are_refused(world: World) -> None:
    """A feature's query was changed since: the message names the column and both values."""
    name = "sql/features/customers.sql"
    world.resources.copy("sql")
    text = (world.resources.folder / name).read_text()
    (world.resources.folder / name).write_text(text.replace("sum(orders) AS orders,", "sum(orders) + 1 AS orders,"))
    assert rebuild_first_version()["same"]
    with pytest.raises(
        StageError, match=r"orders was trained on as .* where the sources give .*silver.customer_days version 0"
    ):
        rebuild_first_version(from_sources=True)


def test_the_recorded_config_is_read_back_unchanged(world: World) -> None:
    version = model_versions.get_version("churn", "1")
    assert rebuild.read_recorded_config(version, world.config.feature_names) == (world.config, False)
    assert load_model("churn") == world.config


# --- a version that the release before has trained ------------------------------------------------------------------

BEFORE = json.loads((Path(__file__).parents[1] / "train/churn_0_2.json").read_text())


@pytest.fixture
def old_world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The training set and the config are as that release wrote them."""
    rows = tables.read("features.training_set").drop_columns(["_inputs"])
    old = rows.append_column("active", pa.repeat(True, rows.num_rows))
    old = old.append_column("customer_days_version", pa.repeat(0, rows.num_rows))
    old = old.append_column("features_version", pa.repeat(0, rows.num_rows))
    version = tables.replace_all("features.training_set", old, partition_by=["as_of"])
    world.train(version, "train-2", params="{}")
    train = {**BEFORE["train"], "min_train_rows": 1, "train_cutoffs": 3, "step_days": 10}
    recorded = json.dumps({**BEFORE, "label": {**BEFORE["label"], "horizon_days": 20}, "train": train})
    monkeypatch.setattr(model_versions, "read_artifact", lambda *_: recorded.encode())
    return world


def test_a_version_of_the_release_before_is_the_same_model(old_world: World) -> None:
    facts = rebuild.run(Namespace(model="churn", version="2", from_sources=False))
    assert (facts["same"], facts["sources"]) == (True, {"silver.customer_days": "0"})


def test_its_sources_are_computed_again_by_its_own_release(old_world: World) -> None:
    with pytest.raises(
        StageError, match=r"a release before 0\.3, whose queries these are not: check out commit abc123"
    ):
        rebuild.run(Namespace(model="churn", version="2", from_sources=True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda old: [old], "found list", id="no-mapping"),
        pytest.param(
            lambda old: old | {"features": {"table": "features.customers"}}, "the key 'key' is missing", id="key"
        ),
        pytest.param(lambda old: old | {"gate": {}}, "gate.min_rows: Field required", id="section"),
    ],
)
def test_a_recorded_config_that_does_not_fit_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], why: str
) -> None:
    monkeypatch.setattr(model_versions, "read_artifact", lambda *_: json.dumps(change(BEFORE)).encode())
    with pytest.raises(StageError, match=f"its config.json does not fit this code .*{why}.*check out commit abc123"):
        rebuild_first_version()
