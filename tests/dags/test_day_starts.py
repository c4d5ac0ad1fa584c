"""What starts a day of a feature table and of a model: the one node that brings all, or the last of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.config_folder import ConfigFolder
from tests.support.dag_ids import emitted_assets, starting_assets

Starts = dict[str, set[str]]
HandsOn = dict[str, set[str]]


def one_source(config: ConfigFolder) -> None:
    config.source("a")
    config.table("t", "a")
    config.model("m", "t", label="a")


def two_models_on_one_table(config: ConfigFolder) -> None:
    one_source(config)
    config.model("n", "t", label="a")


def two_facts(config: ConfigFolder) -> None:
    config.source("a")
    config.source("b")
    config.table("t", "a", "b")
    config.model("m", "t", label="a")


def carried_facts(config: ConfigFolder) -> None:
    config.source("a")
    config.source("b")
    config.table("t", "a", carried=("b",))
    config.model("m", "t", label="a")


def only_carried_facts(config: ConfigFolder) -> None:
    config.source("a")
    config.table("t", carried=("a",))
    config.model("m", "t", label="a")


def a_snapshot_that_is_waited_for(config: ConfigFolder) -> None:
    config.source("a")
    config.source("ref", kind="snapshot")
    config.table("t", "a", "ref")
    config.model("m", "t", label="a")


def a_snapshot_that_is_carried(config: ConfigFolder) -> None:
    config.source("a")
    config.source("ref", kind="snapshot")
    config.table("t", "a", carried=("ref",))
    config.model("m", "t", label="a")


def two_tables_of_one_source(config: ConfigFolder) -> None:
    config.source("a", daily={"silver.days": "sources/customer_days"})
    edge = {"window": {"back": "all"}, "missing": "wait"}
    config.table("t", "a", inputs={"silver.a": edge, "silver.days": edge})
    config.model("m", "t", label="a")


def a_model_of_two_tables(config: ConfigFolder) -> None:
    config.source("a")
    config.source("b")
    config.table("t", "a")
    config.table("u", "b")
    config.model("m", "t", "u", label="a")


def another_version_of_the_table(config: ConfigFolder) -> None:
    one_source(config)
    config.table("t_v2", "a")
    config.table("t_v2x", "a")
    config.model("m", "t_v2", label="a")


def another_version_of_one_of_two_tables(config: ConfigFolder) -> None:
    a_model_of_two_tables(config)
    config.table("t_v2", "a")
    config.model("m", "t_v2", "u", label="a")


def examples(config: ConfigFolder) -> None:
    config.source("a")
    config.examples_model("m", "a")


@pytest.mark.parametrize(
    ("arrange", "starts", "hands_on"),
    [
        pytest.param(
            one_source, {"t_features": {"a.ingested", "t.restate"}, "m_score": {"t.featured", "m.rescore"}}, {},
            id="one-source",
        ),
        pytest.param(
            two_models_on_one_table,
            {"m_score": {"t.featured", "m.rescore"}, "n_score": {"t.featured", "n.rescore"}}, {},
            id="two-models-on-one-table",
        ),
        pytest.param(
            two_facts, {"t_features": {"t.ready", "t.restate"}, "m_score": {"t.featured", "m.rescore"}},
            {"a": {"t.ready"}, "b": {"t.ready"}}, id="facts-of-two-sources",
        ),
        pytest.param(
            carried_facts, {"t_features": {"t.ready", "t.restate"}}, {"a": {"t.ready"}, "b": {"t.ready"}},
            id="carried-facts-make-the-day-again",
        ),
        pytest.param(only_carried_facts, {"t_features": {"a.ingested", "t.restate"}}, {}, id="only-carried-facts"),
        pytest.param(
            a_snapshot_that_is_waited_for, {"t_features": {"t.ready", "t.restate"}},
            {"a": {"t.ready"}, "ref": {"t.ready"}}, id="a-snapshot-that-is-waited-for",
        ),
        pytest.param(
            a_snapshot_that_is_carried, {"t_features": {"a.ingested", "t.restate"}}, {}, id="a-snapshot-that-is-carried",
        ),
        pytest.param(
            two_tables_of_one_source, {"t_features": {"a.ingested", "t.restate"}}, {}, id="two-tables-of-one-source",
        ),
        pytest.param(
            a_model_of_two_tables,
            {
                "t_features": {"a.ingested", "t.restate"}, "u_features": {"b.ingested", "u.restate"},
                "m_score": {"m.ready", "m.rescore"},
            },
            {"t": {"m.ready"}, "u": {"m.ready"}}, id="a-model-of-two-tables",
        ),
        pytest.param(
            another_version_of_the_table, {"m_score": {"t.featured", "t_v2.featured", "m.rescore"}}, {},
            id="a-model-follows-every-version-of-its-table",
        ),
        pytest.param(
            another_version_of_one_of_two_tables, {"m_score": {"m.ready", "m.rescore"}},
            {"t": {"m.ready"}, "t_v2": {"m.ready"}, "u": {"m.ready"}},
            id="a-model-of-two-tables-follows-every-version-of-each",
        ),
        pytest.param(examples, {"m_score": {"a.ingested", "m.rescore"}}, {}, id="a-table-of-examples"),
    ],
)  # fmt: skip
def test_a_day_starts_once_its_inputs_have_come(
    dags_of: Callable[..., dict[str, Any]],
    arrange: Callable[[ConfigFolder], None],
    starts: Starts,
    hands_on: HandsOn,
) -> None:
    """On the event of the one node that brings all, else on `ready`, which each of them hands on as the last task."""
    dags = dags_of(arrange)
    assert {dag_id: starting_assets(dags[dag_id]) for dag_id in starts} == starts
    found = {}
    for dag_id, dag in dags.items():
        for task, names in emitted_assets(dag).items():
            if ready := {name for name in names if name.endswith(".ready")}:
                assert task == "hand_on"
                found[dag_id] = ready
    expected = {}
    for node, names in hands_on.items():
        stages = ("features",) if f"{node}_features" in dags else ("ingest", "load_history")
        expected |= {f"{node}_{stage}": names for stage in stages}
    assert found == expected
    assert {
        dag_id for dag_id in dags if dag_id.endswith(("_ingest", "_features")) and "hand_on" in dags[dag_id].task_ids
    } == {dag_id for dag_id in expected if not dag_id.endswith("_load_history")}


def test_two_businesses_share_no_asset(dags_of: Callable[..., dict[str, Any]]) -> None:
    def arrange(config: ConfigFolder) -> None:
        for name in ("x", "y"):
            config.source(f"{name}_source")
            config.table(f"{name}_table", f"{name}_source")
            config.model(f"{name}_model", f"{name}_table", label=f"{name}_source")

    by_business: dict[str, set[str]] = {"x": set(), "y": set()}
    for dag_id, dag in dags_of(arrange).items():
        if dag_id != "arrivals":
            names = starting_assets(dag) | {asset.name for task in dag.tasks for asset in (*task.outlets, *task.inlets)}
            by_business[dag_id[0]] |= names - {"arrivals.asked"}
    assert by_business["x"]
    assert not by_business["x"] & by_business["y"]
