"""Broken config files: a node whose file cannot be used holds up what is built on it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.config_folder import BUSINESS as NAMES
from tests.support.config_folder import ConfigFolder, business, not_yaml, unknown_key

BROKEN = [
    pytest.param(not_yaml("models/on_a.yaml"), "models/on_a.yaml: not YAML", {"on_a"}, id="a-model-that-is-not-yaml"),
    pytest.param(unknown_key("models/on_a.yaml"), "threshhold: unknown key", {"on_a"}, id="a-model-with-an-unknown-key"),
    pytest.param(
        lambda config: config.write("models/on_a.yml.yaml", "x: 1"), "on_a.yml", set(), id="a-file-that-is-no-name"
    ),
    pytest.param(
        lambda config: config.model("on_a", "of_c", label="a"), "no such feature table", {"on_a"},
        id="a-model-on-a-table-that-is-not-there",
    ),
    pytest.param(
        lambda config: config.model("on_a", "of_a", label="a", entity="household_id"), "its rows are by", {"on_a"},
        id="a-model-of-another-entity",
    ),
    pytest.param(
        lambda config: config.model("on_a", "of_a", label="a", train={"table": "features.of_b"}),
        "features.of_b is also written by", {"on_a"},
        id="a-model-that-would-write-a-feature-table",
    ),
    pytest.param(
        lambda config: config.model("on_a", "of_a", label="a", score={"table": "gold.on_b_scores"}),
        "gold.on_b_scores is also written by", {"on_a", "on_b"},
        id="two-models-that-would-write-one-table",
    ),
    pytest.param(
        not_yaml("features/of_both.yaml"), "of_both.yaml: not YAML", {"of_both", "on_both"}, id="a-feature-table"
    ),
    pytest.param(
        lambda config: config.table("of_both", "a", "c"), "silver.c: no source writes this table", {"of_both", "on_both"},
        id="a-feature-table-of-a-source-that-is-not-there",
    ),
    pytest.param(
        not_yaml("sources/b.yaml"), "b.yaml: not YAML", {"b", "of_b", "on_b", "of_both", "on_both"}, id="a-source"
    ),
    pytest.param(
        lambda config: config.source("b", daily={"silver.a": "sources/customer_days"}), "silver.a is also written by",
        {name for names in NAMES.values() for name in names},
        id="two-sources-that-would-write-one-table",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message", "held_up"), BROKEN)
class TestABrokenFile:
    def test_holds_up_only_what_is_built_on_it(
        self,
        parse_with: Callable[..., Any],
        change: Callable[[ConfigFolder], None],
        message: str,
        held_up: set[str],
    ) -> None:
        def arrange(config: ConfigFolder) -> None:
            business(config)
            change(config)

        parsed = parse_with(arrange)
        expected = {kind: set(names) - held_up for kind, names in NAMES.items()}
        stages = {"source": "ingest", "table": "features", "model": "train"}
        for kind, stage in stages.items():
            assert {f"{name}_{stage}" for name in expected[kind]} == {
                dag_id for dag_id in parsed.dags if dag_id.endswith(f"_{stage}")
            }
        names = {dag_id.rsplit("_", 1)[0] for dag_id in parsed.dags if dag_id.endswith(("_score", "_calendar"))}
        assert not names & held_up

    def test_is_the_import_error_of_one_file_that_has_no_dag(
        self,
        parse_with: Callable[..., Any],
        change: Callable[[ConfigFolder], None],
        message: str,
        held_up: set[str],
    ) -> None:
        """Airflow schedules no Dag of a file with an import error."""

        def arrange(config: ConfigFolder) -> None:
            business(config)
            change(config)

        parsed = parse_with(arrange)
        assert list(parsed.errors) == ["config_errors.py"]
        assert message in parsed.errors["config_errors.py"]
        assert not [dag_id for dag_id, dag in parsed.dags.items() if dag.fileloc.endswith("config_errors.py")]

    def test_is_left_out_of_the_sweep(
        self,
        parse_with: Callable[..., Any],
        change: Callable[[ConfigFolder], None],
        message: str,
        held_up: set[str],
    ) -> None:
        def arrange(config: ConfigFolder) -> None:
            business(config)
            change(config)

        outlets = {asset.name for asset in parse_with(arrange).dags["arrivals"].get_task("find_days").outlets}
        named = {name.rpartition(".")[0] for name in outlets} - {"arrivals"}
        assert named == {name for names in NAMES.values() for name in names} - held_up


def test_all_that_is_wrong_is_shown_at_once(parse_with: Callable[..., Any]) -> None:
    def arrange(config: ConfigFolder) -> None:
        business(config)
        unknown_key("sources/a.yaml")(config)
        unknown_key("models/on_b.yaml")(config)

    parsed = parse_with(arrange)
    for part in ("sources/a.yaml", "models/on_b.yaml", "config/features/of_a.yaml", "config/models/on_a.yaml"):
        assert part in parsed.errors["config_errors.py"]
    assert "of_b_features" in parsed.dags


def test_without_the_platform_there_is_no_dag_and_each_file_says_so(parse_with: Callable[..., Any]) -> None:
    def arrange(config: ConfigFolder) -> None:
        business(config)
        config.write("platform.yaml", "compute: {}")

    parsed = parse_with(arrange)
    assert not parsed.dags
    assert all("platform.yaml" in error for error in parsed.errors.values())


def test_good_files_are_no_import_error(parse_with: Callable[..., Any]) -> None:
    assert not parse_with(business).errors
