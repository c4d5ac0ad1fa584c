"""Two businesses on one machine: a grocery and a lender land on the same days, and neither touches anything of the other's.

The configuration is the project's own, with the files of both businesses added (`tests/businesses`). Both histories are
loaded and both models trained; then single days land for both at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from rich.console import Console

from local.airflow_api import DagRun
from local.demo import Demo
from local.nodes import Nodes, dag_ids
from ml.config import Project, load_project
from ml.storage import stores
from tests.faults.stage_boundaries import environment_of
from tests.support.cloud.faults import wait_for
from tests.support.data.businesses import Business, Credit, Grocery, install, land
from tests.support.machines.day_content import settle
from tests.support.machines.machine import Machine, machine_of, own_settings
from tests.support.resources import Resources

pytestmark = [pytest.mark.loop, pytest.mark.faults, pytest.mark.timeout(1800)]  # a machine of its own: many minutes


class Lender(Credit):
    """The lender over the same days as the grocery."""

    DAYS = Grocery.DAYS


@dataclass(frozen=True)
class Side:
    """One of the two businesses, and what belongs to it."""

    business: Business
    nodes: Nodes
    model: str
    entity: str
    ids: str  # what its ids begin with

    def dags(self) -> list[str]:
        return self.nodes.dags("ingest", "features", "score", "monitor")

    def tables(self, project: Project) -> dict[str, str]:
        """Its tables that hold days, each with the day's column."""
        sources = [project.sources[name] for name in self.nodes.sources]
        model = project.models[self.model]
        columns = {table: "day" for source in sources for table in source.tables}
        columns |= {project.feature_tables[name].table_name: "as_of" for name in self.nodes.tables}
        return columns | {model.score.table: "score_date", model.monitor.table: "day"}


GROCERY = Side(
    Grocery(),
    Nodes(["groceries", "demographics", "visits", "coupons"], ["households", "household_coupons"], ["lapse_28d"]),
    "lapse_28d",
    "household_id",
    "H",
)
CREDIT = Side(Lender(), Nodes(["applications"], [], ["default_risk"]), "default_risk", "application_id", "A")
SIDES = (GROCERY, CREDIT)
SNAPSHOTS = ("groceries", "demographics")
FACTS = ("visits", "coupons", "applications")
DAYS = Grocery().days("visits")
LAST, BOTH, HELD = DAYS[-3], DAYS[-2], DAYS[-1]  # the last of the history; a day of both; a day on which one is held


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project's nodes and those of both businesses, as every process of the machine reads them."""
    with pytest.MonkeyPatch.context() as patch:
        install(Resources(tmp_path_factory.mktemp("two") / "resources", patch), "grocery", "credit")
        yield load_project()


@pytest.fixture(scope="module")
def machine(project: Project) -> Iterator[Machine]:
    """A machine of its own, whose every service reads these resources."""
    with own_settings() as settings, machine_of(settings) as machine:
        yield machine


@pytest.fixture(scope="module")
def champions(machine: Machine, project: Project) -> dict[str, str]:
    """The version in production of each model, after both histories were loaded and both models trained."""
    demo = Demo(machine.settings, Console(soft_wrap=True), machine.airflow, [], project)
    machine.airflow.wait_for_dags(dag_ids(project))
    for source in SNAPSHOTS:  # before the facts that are joined with them; so few days are ingested as they arrive
        put(machine, GROCERY, source=source, last=LAST)
    settle(machine)
    for side in SIDES:
        for source in set(FACTS) & set(side.nodes.sources):
            put(machine, side, source=source, last=LAST)
    load(machine, FACTS)
    settle(machine)
    for side in SIDES:
        demo.model(side.model, LAST)
    return {side.model: machine.ml("registry", "--model", side.model, "production")["version"] for side in SIDES}


@pytest.fixture(scope="module")
def both(machine: Machine, champions: dict[str, str]) -> date:
    """A day on which both businesses landed, once each has its scores."""
    put(machine, *SIDES, first=BOTH, last=BOTH)
    for side in SIDES:
        follow(machine, side, BOTH)
    return BOTH


def put(machine: Machine, *sides: Side, **days: Any) -> None:
    """Land files of businesses, all of them before the machine can have finished with the first."""
    with environment_of(machine):
        for side in sides:
            land(stores.landing(), side.business, **days)


def load(machine: Machine, sources: tuple[str, ...]) -> None:
    """Load the histories of these sources, all at once."""
    conf = {"first": DAYS[0].isoformat(), "last": LAST.isoformat()}
    started = [machine.airflow.trigger(f"{source}_load_history", conf=conf) for source in sources]
    for run in started:
        machine.airflow.wait(run)


def arriving(side: Side) -> list[str]:
    """Its Dags that have a run of a single day: no price list and no questionnaire comes with it."""
    return [dag_id for dag_id in side.dags() if dag_id.removesuffix("_ingest") not in SNAPSHOTS]


def follow(machine: Machine, side: Side, day: date) -> None:
    for dag_id in arriving(side):
        machine.airflow.wait_for_new(dag_id, set(), partition_key=str(day), timeout=600)


def runs(machine: Machine, dag_ids: list[str], day: date) -> dict[str, list[str]]:
    """The states of a day's runs, by Dag."""
    return {dag_id: [run.state for run in machine.airflow.runs(dag_id, partition_key=str(day))] for dag_id in dag_ids}


def content(machine: Machine, side: Side, project: Project, day: date) -> dict[str, list[dict[str, Any]]]:
    """Every row of the day in every table of a business."""
    return {table: machine.rows(table, column, str(day)) for table, column in side.tables(project).items()}


def rows_by_source(machine: Machine, table: str, day: date) -> dict[str, dict[str, Any]]:
    """The rows of a day in a table of the system that all sources share."""
    return {row["source"]: row for row in machine.rows(table, "day", str(day))}


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.business.name)
def test_a_business_flows_from_landing_to_scores_of_its_own_champion(
    machine: Machine, project: Project, both: date, champions: dict[str, str], side: Side
) -> None:
    model = project.models[side.model]
    scores = machine.rows(model.score.table, "score_date", str(both))
    assert scores
    assert {row["model_version"] for row in scores} == {champions[side.model]}
    assert all(row[side.entity].startswith(side.ids) and 0 <= row["score"] <= 1 for row in scores)
    assert all(row["run_key"].startswith(f"{side.model}_score") for row in scores)
    assert {row["band"] for row in scores} <= {band.name for band in model.score.bands}
    assert machine.rows(model.monitor.table, "day", str(both))


def test_each_dag_of_both_runs_once_for_the_day_and_no_other_dag_runs(
    machine: Machine, project: Project, both: date
) -> None:
    expected = [dag_id for side in SIDES for dag_id in arriving(side)]
    assert runs(machine, expected, both) == {dag_id: ["success"] for dag_id in expected}
    others = [dag_id for dag_id in dag_ids(project) if dag_id not in (*expected, "arrivals")]
    assert {dag_id: states for dag_id, states in runs(machine, others, both).items() if states} == {}


def test_each_source_has_a_mark_of_its_own_and_every_row_is_accounted_for(
    machine: Machine, project: Project, both: date
) -> None:
    marks = rows_by_source(machine, "ops.ingested_days", both)
    assert set(marks) == set(FACTS)
    for name, mark in marks.items():
        silver = machine.rows(project.sources[name].table, "day", str(both))
        assert mark["received"] == mark["silver"] + mark["quarantined"] + mark["duplicates"]
        assert mark["silver"] == len(silver)
        assert {row["_file"].split("/")[-3] for row in silver} == {name}
    assert rows_by_source(machine, "ops.held_days", both) == {}


def test_the_journal_has_each_node_of_the_day_once(machine: Machine, both: date) -> None:
    nodes = [row["node"] for row in machine.rows("ops.built_days", "day", str(both))]
    assert sorted(nodes) == sorted(
        [
            *(f"silver.{source}" for source in FACTS),
            *(f"features.{table}" for side in SIDES for table in side.nodes.tables),
            *(f"{side.model}.{stage}" for side in SIDES for stage in ("score", "monitor")),
        ]
    )


def test_reports_and_leases_are_named_after_their_own_node(machine: Machine, both: date) -> None:
    pages = {page for page in machine.storage("report_pages") if str(both) in page}
    assert pages == {
        *(f"validation/{source}/{suite}/{both}.html" for source in FACTS for suite in ("arrival", "silver")),
        *(f"monitor/{side.model}/{both}.html" for side in SIDES),
    }
    assert machine.storage("leased_blobs") == []


def test_each_model_learnt_from_its_own_business_only(machine: Machine, project: Project, champions: Any) -> None:
    for side in SIDES:
        rows = machine.storage("read_table", project.models[side.model].train.table)
        assert len(rows) >= project.models[side.model].train.min_train_rows
        assert all(row[side.entity].startswith(side.ids) for row in rows)
        assert champions[side.model] == "1"
        history = machine.ml("registry", "--model", side.model, "history")["events"]
        assert {event["event"] for event in history} == {"gate", "promotion"}
    decided = {row["model"] for row in machine.storage("read_table", "ops.decisions")}
    assert decided == {side.model for side in SIDES}


def test_no_report_of_another_model_is_refreshed(machine: Machine, both: date) -> None:
    """Neither business has a Power BI dataset; the project's own model has one, and no scores."""
    machine.airflow.wait(machine.airflow.trigger("churn_report"))
    assert [entry for entry in machine.ledger() if entry["service"] == "power_bi"] == []


def test_a_day_that_is_held_for_one_business_flows_for_the_other(
    machine: Machine, project: Project, both: date, champions: dict[str, str]
) -> None:
    machine.land_file(str(HELD), "credit.csv", b"application_id,applied_on\nA1,2024-01-01\n", "applications")
    put(machine, GROCERY, first=HELD, last=HELD)
    failed = ended(machine, "applications_ingest", HELD)
    assert failed.state == "failed"
    assert "amount" in machine.airflow.explain(failed)
    follow(machine, GROCERY, HELD)
    assert set(rows_by_source(machine, "ops.held_days", HELD)) == {"applications"}
    assert set(rows_by_source(machine, "ops.ingested_days", HELD)) == {"visits", "coupons"}
    assert machine.ml("days")["held"] == {"silver.applications": [str(HELD)]}
    assert content(machine, CREDIT, project, HELD) == {table: [] for table in CREDIT.tables(project)}
    put(machine, CREDIT, first=HELD, last=HELD)  # under the same name: the right file
    follow_again(machine, ["applications_ingest"], HELD, {"applications_ingest": {failed.run_id}})
    follow(machine, Side(CREDIT.business, Nodes([], [], [CREDIT.model]), CREDIT.model, "", ""), HELD)
    assert rows_by_source(machine, "ops.held_days", HELD) == {}
    assert runs(machine, arriving(GROCERY), HELD) == {dag_id: ["success"] for dag_id in arriving(GROCERY)}


def test_late_rows_of_one_source_rebuild_what_is_built_on_it_and_nothing_else(
    machine: Machine, project: Project, champions: dict[str, str]
) -> None:
    """A third of the day's coupons comes late: the grocery's scores of the day are made again."""
    settle(machine)
    lender, visits = content(machine, CREDIT, project, HELD), machine.rows("silver.visits", "day", str(HELD))
    households = machine.rows("features.households", "as_of", str(HELD))
    coupons = machine.rows("silver.coupons", "day", str(HELD))
    rebuilt = ["coupons_ingest", "household_coupons_features", "lapse_28d_score", "lapse_28d_monitor"]
    others = [dag_id for dag_id in dag_ids(project) if dag_id not in (*rebuilt, "arrivals")]
    before = runs(machine, others, HELD)
    known = {
        dag_id: {run.run_id for run in machine.airflow.runs(dag_id, partition_key=str(HELD))} for dag_id in rebuilt
    }
    put(machine, GROCERY, source="coupons", first=HELD, last=HELD, late=True)
    follow_again(machine, rebuilt, HELD, known)
    settle(machine)
    assert len(machine.rows("silver.coupons", "day", str(HELD))) > len(coupons)
    assert runs(machine, others, HELD) == before
    assert machine.rows("silver.visits", "day", str(HELD)) == visits
    assert machine.rows("features.households", "as_of", str(HELD)) == households
    assert content(machine, CREDIT, project, HELD) == lender


def ended(machine: Machine, dag_id: str, day: date) -> DagRun:
    """The newest run of the day, once it has ended, whatever its state."""

    def newest() -> DagRun | None:
        of_day = machine.airflow.runs(dag_id, partition_key=str(day))
        return of_day[0] if of_day and of_day[0].state in ("success", "failed") else None

    find: Callable[[], DagRun | None] = newest
    run: DagRun = wait_for(find, f"the end of {dag_id} for {day}", 600)
    return run


def follow_again(machine: Machine, dag_ids: list[str], day: date, known: dict[str, set[str]]) -> None:
    for dag_id in dag_ids:
        machine.airflow.wait_for_new(dag_id, known[dag_id], partition_key=str(day), timeout=600)
