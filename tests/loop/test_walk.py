"""The demo's walk: a history in bulk, a model that passes its gate, three single days."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from local.demo import Demo
from local.nodes import Nodes
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1200)]


def test_every_stage_of_the_walk_succeeded(demo: Demo) -> None:
    assert {row.state for row in demo.rows} == {"success"}
    nodes, single_days = Nodes.of(demo.project, demo.landed_days()), 3
    reports = [name for name in nodes.models if demo.project.models[name].report]
    assert Counter(row.stage.split()[0] for row in demo.rows) == {
        "land": 1,
        "ingest": len(nodes.sources) + single_days,  # of these days, only transactions have files
        "features": len(nodes.tables) * (1 + single_days),
        "train": len(nodes.models),
        "gate": len(nodes.models),
        "promote": len(nodes.models),
        "score": len(nodes.models) * (1 + single_days),
        "monitor": len(nodes.models) * single_days,
        "report": len(reports),
    }


def test_every_node_of_the_configuration_took_part(demo: Demo) -> None:
    nodes = Nodes.of(demo.project, demo.landed_days())
    assert set(nodes.sources) == set(demo.project.sources)
    assert set(nodes.tables) == set(demo.project.feature_tables)
    assert set(nodes.models) == set(demo.project.models)


def test_every_received_row_of_each_day_is_in_silver_in_quarantine_or_a_counted_duplicate(
    machine: Machine, shop_days: list[date]
) -> None:
    for day in (shop_days[0], shop_days[len(shop_days) // 2], *shop_days[-3:]):
        account = machine.ingested(str(day))
        silver = machine.rows("silver.transactions", "day", str(day))
        quarantine = machine.rows("quarantine.transactions", "day", str(day))
        assert account["received"] > 0
        assert account["received"] == len(silver) + len(quarantine) + account["duplicates"]
        assert (account["silver"], account["quarantined"]) == (len(silver), len(quarantine))


def test_each_score_says_which_model_features_and_run_made_it(machine: Machine, shop_days: list[date]) -> None:
    day = str(shop_days[-1])
    scores = machine.rows("gold.customer_churn_scores", "score_date", day)
    active = [row for row in machine.rows("features.customers", "as_of", day) if row["active"]]
    assert {row["customer_id"] for row in scores} == {row["customer_id"] for row in active}
    for row in scores:
        floor = {"High": 0.75, "Medium": 0.5, "Low": 0.25, "Very Low": 0.0}[row["band"]]
        assert floor <= row["score"] <= 1
        assert row["model_version"]
        assert row["feature_table_version"] >= 0
        assert row["run_key"].startswith("churn_score")


def test_the_gate_reports_every_rule_that_it_checked(machine: Machine, demo: Demo) -> None:
    run = machine.airflow.runs("churn_promote")[0]
    decision = machine.airflow.xcom(run, "decide")
    assert decision["approved"] is True
    assert decision["reasons"] == []
    assert len(decision["checks"]) >= 3


def test_the_remote_services_worked_once_per_run_key(machine: Machine, demo: Demo) -> None:
    entries = machine.ledger()
    effects = Counter(
        (entry["service"], entry["run_key"]) for entry in entries if entry["run_key"] and entry["first"] is None
    )
    assert {service for service, _ in effects} == {"data_factory", "databricks", "azure_ml"}
    assert {key: count for key, count in effects.items() if count > 1} == {}


def test_tasks_link_to_their_remote_runs(machine: Machine, demo: Demo) -> None:
    for dag_id, task in (
        ("transactions_ingest", "copy_files"),
        ("transactions_ingest", "clean_day"),
        ("churn_train", "train_model"),
    ):
        run = next(run for run in machine.airflow.runs(dag_id) if run.state == "success")
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}/links"
        links = machine.airflow.call("GET", path)["extra_links"]
        assert links["Remote run"].startswith(machine.settings.url("standins", "https"))
    assert links["Report"].endswith("/report.html")  # of the model that was trained


def test_power_bi_shows_the_newest_scores(machine: Machine, demo: Demo, shop_days: list[date]) -> None:
    refreshes = [entry for entry in machine.ledger() if entry["service"] == "power_bi"]
    assert {entry["outcome"] for entry in refreshes} == {"Completed"}


def test_a_report_without_new_scores_is_skipped(machine: Machine, demo: Demo) -> None:
    machine.airflow.wait(machine.airflow.trigger("churn_report"))  # publishes the scores of other tests
    run = machine.airflow.wait(machine.airflow.trigger("churn_report"))
    states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(run)}
    assert set(states.values()) == {"skipped"}
