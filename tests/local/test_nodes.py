"""Which Dags the demo waits for and follows."""

from __future__ import annotations

import pytest

from local.nodes import RESULTS, Nodes, dag_ids, split_dag_id
from ml.config import Edge, Project, load_project


@pytest.fixture
def project() -> Project:
    """Transactions with customers and churn, and a reference table `prices` that `baskets` is made from too."""
    shipped = load_project()
    transactions, customers = shipped.sources["transactions"], shipped.feature_tables["customers"]
    prices = transactions.model_copy(update={"source": "prices", "kind": "snapshot", "daily": {}})
    inputs = {**customers.inputs, "silver.prices": Edge.model_validate({"missing": "wait"})}
    baskets = customers.model_copy(update={"table": "baskets", "inputs": inputs})
    churn = shipped.models["churn"]
    upsell = churn.model_copy(update={"model": "upsell", "features": {"baskets": ("orders",)}, "report": None})
    return Project(
        shipped.platform,
        {"transactions": transactions, "prices": prices},
        {"customers": customers, "baskets": baskets},
        {"churn": churn, "upsell": upsell},
    )


def test_a_data_set_reaches_the_nodes_that_need_no_other_source(project: Project) -> None:
    assert Nodes.of(project, ["transactions"]) == Nodes(["transactions"], ["customers"], ["churn"])


def test_snapshots_are_loaded_before_the_facts_that_are_joined_with_them(project: Project) -> None:
    nodes = Nodes.of(project, ["transactions", "prices"])
    assert nodes.sources == ["prices", "transactions"]
    assert (nodes.tables, nodes.models) == (["customers", "baskets"], ["churn", "upsell"])


def test_a_table_that_is_carried_without_a_source_needs_only_its_facts(project: Project) -> None:
    baskets = project.feature_tables["baskets"]
    carried = baskets.inputs | {"silver.prices": Edge.model_validate({"missing": "carry"})}
    tables = dict(project.feature_tables) | {"baskets": baskets.model_copy(update={"inputs": carried})}
    changed = Project(project.platform, project.sources, tables, project.models)
    assert Nodes.of(changed, ["transactions"]).tables == ["customers", "baskets"]
    assert Nodes.of(changed, ["prices"]) == Nodes(["prices"], [], [])


def test_downstream_of_a_source_is_all_that_is_built_on_it(project: Project) -> None:
    assert Nodes.downstream(project, "prices") == Nodes(["prices"], ["baskets"], ["upsell"])
    assert Nodes.downstream(project, "transactions").tables == ["customers", "baskets"]


def test_the_dags_of_a_stage_are_those_of_its_nodes(project: Project) -> None:
    nodes = Nodes.of(project, ["transactions", "prices"])
    assert nodes.dags("ingest", "score") == ["prices_ingest", "transactions_ingest", "churn_score", "upsell_score"]


def test_a_model_without_a_report_has_no_report_dag(project: Project) -> None:
    ids = dag_ids(project)
    assert "churn_report" in ids
    assert "upsell_report" not in ids
    assert {"arrivals", "prices_calendar", "baskets_features", "upsell_train"} <= set(ids)


@pytest.mark.parametrize("stage", RESULTS)
def test_a_node_may_have_an_underscore_in_its_name(stage: str) -> None:
    assert split_dag_id(f"support_calls_{stage}") == ("support_calls", stage)
