"""A version of a feature table may go when a newer one exists and nothing reads it any more."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from ml.config import Project, load_feature_table, load_project
from ml.days.freshness import Freshness
from ml.days.retired import retired_tables
from ml.days.state import State
from ml.graph import build_graph, score_id
from ml.ops.built_days import BuiltDay
from ml.ops.production_log import Entry
from ml.ops.scoring_rule import Scorers
from tests.support.resources import Resources

DAY = date(2024, 2, 29)
OLD, NEW = "features.customers", "features.customers_v2"


@pytest.fixture
def project(resources: Resources) -> Project:
    """`customers_v2` beside `customers`; the model's file names the new one."""
    resources.put(load_feature_table("customers").model_copy(update={"table": "customers_v2"}))
    churn = load_project().models["churn"]
    resources.put(churn.model_copy(update={"features": {"customers_v2": churn.features["customers"]}}))
    return load_project()


def entry(number: int, version: str, before: str | None, table: str) -> Entry:
    values: dict[str, Any] = {"digest": "", "run_key": "", "run": "", "by": "", "why": (), "features": {table: ("x",)}}
    return Entry(number=number, kind="promotion", model="churn", version=version, before=before, **values)


def retired(project: Project, history: list[Entry], scored_by: str | None = None) -> list[str]:
    scorings = []
    if scored_by:
        scorings = [
            BuiltDay(
                node=score_id("churn"), day=DAY, run_key="k", inputs="i", version=0, rows=1, model_version=scored_by
            )
        ]
    scorers = Scorers(history, {DAY: scorings}, {})
    built = {score_id("churn"): {each.day: each for each in scorings}}
    state = State(graph=build_graph(project), ingested={}, built=built, scorers={"churn": scorers})
    return retired_tables(project, Freshness(state, datetime.now(UTC)))


def test_the_old_version_is_needed_while_the_champion_or_the_rollback_target_reads_it(project: Project) -> None:
    first, second = entry(1, "1", None, OLD), entry(2, "2", "1", NEW)
    assert retired(project, [first]) == []
    assert retired(project, [first, second]) == []
    assert retired(project, [first, second, entry(3, "3", "2", NEW)]) == ["customers"]


def test_the_old_version_is_needed_while_a_day_that_may_be_rebuilt_was_scored_from_it(project: Project) -> None:
    history = [entry(1, "1", None, OLD), entry(2, "2", "1", NEW), entry(3, "3", "2", NEW)]
    assert retired(project, history, scored_by="1") == []
    assert retired(project, history, scored_by="3") == ["customers"]


def test_a_version_that_a_models_file_names_is_needed(project: Project, resources: Resources) -> None:
    churn = project.models["churn"]
    resources.put(churn.model_copy(update={"features": {"customers": churn.features["customers_v2"]}}))
    assert retired(load_project(), []) == []


@pytest.mark.usefixtures("project")
def test_a_table_without_a_newer_version_is_never_retired(resources: Resources) -> None:
    resources.remove("config", "features/customers.yaml")
    assert "products" not in retired(load_project(), [])
