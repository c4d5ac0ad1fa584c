"""What the Dags that request days do for a person, and what for a schedule: their tasks, called as a worker calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType  # as a task gets it, not as Airflow's own code does
from airflow.sdk.exceptions import AirflowSkipException

from ml.landing import listing
from ml.ops import built_days
from ml.ops.built_days import BuiltDay
from tests.support.config_folder import ConfigFolder
from tests.support.data.built_days import mark_ingested

DAY = date(2011, 6, 28)
SOURCE, TABLE, MODEL = "visits", "customers", "m"
INGEST, LOAD, FEATURES, SCORE = f"{SOURCE}_ingest", f"{SOURCE}_load_history", f"{TABLE}_features", f"{MODEL}_score"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigFolder:
    """One source, a feature table of it, and a model."""
    config = ConfigFolder(tmp_path / "resources")
    one_of_each(config)
    monkeypatch.setenv("ML_RESOURCES", str(config.folder))
    for name in ("landing", "lake"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"{name.upper()}_URI", (tmp_path / name).as_uri())
    return config


def one_of_each(config: ConfigFolder) -> None:
    config.source(SOURCE)
    config.table(TABLE, SOURCE)
    config.model(MODEL, TABLE, label=SOURCE)


@pytest.fixture(scope="module")
def own_dags(dags_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return dags_of(one_of_each)


@pytest.fixture
def fingerprint(config: ConfigFolder) -> str:
    """The fingerprint of a day that has landed."""
    from ml.storage import stores

    stores.landing().write(f"{SOURCE}/{DAY}/x.csv", b"a,b\n1,2\n")
    (landed,) = listing.list_landing(SOURCE).days
    return landed.fingerprint


class Inlets(dict[Any, Any]):
    """One event with `extra` on each asset, and one recent event on the asset `recent`."""

    def __init__(self, extra: dict[str, Any], recent: str = "") -> None:
        self.extra, self.recent = extra, recent

    def __missing__(self, asset: Any) -> Any:
        newest = SimpleNamespace(limit=lambda _: [SimpleNamespace(extra=self.extra)])
        recent = [newest] if asset.name == self.recent else []
        return SimpleNamespace(ascending=lambda _: newest, after=lambda _: recent)


class Outlets(dict[Any, Any]):
    """Records the days that are emitted on each asset."""

    def __missing__(self, asset: Any) -> Any:
        days: list[str] = []
        self[asset] = SimpleNamespace(days=days, add_partitions=days.extend, extra={})
        return self[asset]


def context(run_type: DagRunType, active_run: str = "", calls: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """`active_run`: the one Dag that has a run which is not over, and that run's state: visits_ingest.running.

    `calls` gets the Dags whose runs are counted: each is a request to Airflow's API.
    """

    def count_runs(dag_id: str, states: Sequence[str] = ()) -> int:
        if calls is not None:
            calls.append(dag_id)
        return 8 if not states else int(active_run in [f"{dag_id}.{state}" for state in states])

    began = datetime(2011, 6, 29, tzinfo=UTC)
    run = SimpleNamespace(run_type=run_type, partition_key=str(DAY), dag_id="x", run_id="r", start_date=began)
    task = SimpleNamespace(outlets=[], retries=0)
    ti = SimpleNamespace(
        get_dr_count=count_runs,
        start_date=datetime.now(UTC),
        dag_id="x",
        task_id="t",
        map_index=-1,
        max_tries=0,
        task=task,
    )
    return {"dag_run": run, "ti": ti, "task": task, **more}


def requested_before(fingerprint: str) -> Inlets:
    """The day was requested a minute ago, without effect."""
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    return Inlets({INGEST: {"runs": 8, "days": {str(DAY): [fingerprint, at, 1]}}})


def call(dag: Any, task_id: str) -> Callable[..., Any]:
    """A task of a Dag, to be called as a worker calls it."""
    function: Callable[..., Any] = dag.get_task(task_id).python_callable
    return function


class TestArrivals:
    @pytest.fixture
    def find_days(self, own_dags: dict[str, Any]) -> Callable[..., Any]:
        return call(own_dags["arrivals"], "find_days")

    @pytest.mark.parametrize("run_type", [DagRunType.SCHEDULED, DagRunType.ASSET_TRIGGERED])
    def test_repeat_no_request_within_their_wait(
        self, find_days: Callable[..., Any], fingerprint: str, run_type: DagRunType
    ) -> None:
        inlets = requested_before(fingerprint)
        with pytest.raises(AirflowSkipException, match="nothing to request; 1 days are on their way"):
            find_days(5, inlet_events=inlets, outlet_events=Outlets(), **context(run_type))

    def test_request_a_new_day_once(self, find_days: Callable[..., Any], fingerprint: str) -> None:
        outlets, found = Outlets(), context(DagRunType.SCHEDULED)
        days = find_days(5, inlet_events=Inlets({}), outlet_events=outlets, **found)
        assert days == {INGEST: [str(DAY)]}
        emitted = {asset.name: event.days for asset, event in outlets.items() if event.days}
        assert emitted == {f"{SOURCE}.landed": [str(DAY)]}
        assert [asset.name for asset in found["task"].outlets] == ["arrivals.asked", f"{SOURCE}.landed"]
        (log,) = [event.extra for asset, event in outlets.items() if asset.name == "arrivals.asked"]
        assert list(log) == [INGEST], "the log is by Dag id, and has no Dag without a request"
        with pytest.raises(AirflowSkipException):
            find_days(5, inlet_events=Inlets(log), outlet_events=Outlets(), **context(DagRunType.SCHEDULED))

    def test_ask_airflow_only_about_nodes_with_pending_work(
        self, find_days: Callable[..., Any], config: ConfigFolder, fingerprint: str
    ) -> None:
        for n in range(5):
            config.source(f"quiet{n}")
        calls: list[str] = []
        inlets, outlets = Inlets({}), Outlets()
        find_days(5, inlet_events=inlets, outlet_events=outlets, **context(DagRunType.SCHEDULED, calls=calls))
        assert set(calls) == {INGEST}

    def test_ask_airflow_nothing_when_nothing_is_pending(self, find_days: Callable[..., Any]) -> None:
        calls: list[str] = []
        with pytest.raises(AirflowSkipException, match="nothing to request; 0 days"):
            find_days(5, inlet_events=Inlets({}), outlet_events=Outlets(), **context(DagRunType.SCHEDULED, calls=calls))
        assert calls == []

    def test_triggered_by_hand_request_at_once(self, find_days: Callable[..., Any], fingerprint: str) -> None:
        inlets = requested_before(fingerprint)
        days = find_days(5, inlet_events=inlets, outlet_events=Outlets(), **context(DagRunType.MANUAL))
        assert days == {INGEST: [str(DAY)]}

    def test_go_on_without_a_node_whose_file_is_broken(
        self, find_days: Callable[..., Any], config: ConfigFolder, fingerprint: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        config.write("models/broken.yaml", "model: [")
        config.write("sources/other.yaml", "source: other")
        days = find_days(5, inlet_events=Inlets({}), outlet_events=Outlets(), **context(DagRunType.SCHEDULED))
        assert days == {INGEST: [str(DAY)]}
        assert "left out, with what is built on it" in caplog.text
        assert "models/broken.yaml" in caplog.text

    @pytest.mark.parametrize(
        ("active_run", "recent", "is_requested"),
        [
            pytest.param("", "", True, id="no-run-is-active"),
            pytest.param(f"{FEATURES}.queued", "", False, id="its-features-are-queued"),
            pytest.param(f"{INGEST}.running", "", False, id="the-ingestion-has-not-ended"),
            pytest.param(f"{LOAD}.running", "", False, id="the-history-has-not-ended"),
            pytest.param(f"{INGEST}.queued", "", True, id="the-ingestion-of-another-day-is-queued"),
            pytest.param(f"{SCORE}.running", "", True, id="a-later-stage-is-running"),
            pytest.param("", f"{SOURCE}.ingested", False, id="its-event-is-recent"),
            pytest.param("", f"{TABLE}.featured", True, id="another-event-is-recent"),
        ],
    )
    def test_triggered_by_hand_leave_out_what_is_on_its_way(
        self, find_days: Callable[..., Any], ingested: str, active_run: str, recent: str, is_requested: bool
    ) -> None:
        """The day is ingested and validated: the event at the end of the ingestion triggers its features."""
        more = {"inlet_events": Inlets({}, recent), "outlet_events": Outlets()}
        if is_requested:
            assert find_days(5, **context(DagRunType.MANUAL, active_run, **more)) == {FEATURES: [str(DAY)]}
        else:
            assert find_days(5, **context(DagRunType.MANUAL, active_run, **more)) == {}  # it is only noted


@pytest.fixture
def ingested(fingerprint: str) -> str:
    mark_ingested(SOURCE, [DAY], {f"silver.{SOURCE}": "c"}, fingerprint=fingerprint)
    return fingerprint


class TestTheCalendar:
    @pytest.fixture
    def emit_day(self, own_dags: dict[str, Any]) -> Callable[..., Any]:
        return call(own_dags[f"{SOURCE}_calendar"], "emit_day")

    def test_skips_a_day_that_is_ingested_as_it_has_landed(self, emit_day: Callable[..., Any], ingested: str) -> None:
        with pytest.raises(AirflowSkipException, match=f"{DAY} is ingested"):
            emit_day(SOURCE, inlet_events=Inlets({}), **context(DagRunType.SCHEDULED))

    def test_skips_a_day_that_has_been_requested(self, emit_day: Callable[..., Any], fingerprint: str) -> None:
        with pytest.raises(AirflowSkipException, match=f"{DAY} is ingested, being ingested"):
            emit_day(SOURCE, inlet_events=requested_before(fingerprint), **context(DagRunType.SCHEDULED))

    def test_hands_on_a_day_that_has_landed(self, emit_day: Callable[..., Any], fingerprint: str) -> None:
        assert emit_day(SOURCE, inlet_events=Inlets({}), **context(DagRunType.SCHEDULED)) == str(DAY)

    def test_skips_a_day_without_files(self, emit_day: Callable[..., Any]) -> None:
        with pytest.raises(AirflowSkipException, match=f"no file has landed for {SOURCE} on {DAY}: upstream is late"):
            emit_day(SOURCE, inlet_events=Inlets({}), **context(DagRunType.SCHEDULED))

    @pytest.mark.parametrize("run_type", [DagRunType.BACKFILL, DagRunType.MANUAL])
    def test_always_hands_a_requested_day_on(
        self, emit_day: Callable[..., Any], ingested: str, run_type: DagRunType
    ) -> None:
        assert emit_day(SOURCE, inlet_events=Inlets({}), **context(run_type)) == str(DAY)


def two_sources(config: ConfigFolder) -> None:
    for name in ("calls", SOURCE):
        config.source(name)
    config.table(TABLE, "calls", SOURCE)
    config.table("calls_only", "calls")
    config.model(MODEL, TABLE, "calls_only", label=SOURCE)


@pytest.fixture(scope="module")
def joined(dags_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return dags_of(two_sources)


class TestTheLastOfSeveralInputs:
    """`hand_on` emits a day for what it completes, once, with the task's success."""

    @pytest.fixture(autouse=True)
    def both(self, config: ConfigFolder) -> None:
        two_sources(config)

    def hand_on(self, dag: Any, name: str, *arguments: str, run_id: str = "r") -> tuple[Any, dict[str, list[str]]]:
        outlets, found = Outlets(), context(DagRunType.ASSET_TRIGGERED)
        found["dag_run"].run_id = run_id
        result = call(dag, "hand_on")(name, *arguments, outlet_events=outlets, **found)
        days = {asset.name: event.days for asset, event in outlets.items()}
        assert {asset.name for asset in found["task"].outlets} == set(days), (
            "an outlet without days would emit the run's day"
        )
        return result, days

    def ingest(self, name: str) -> None:
        mark_ingested(name, [DAY], {f"silver.{name}": "c"}, run_key=f"{name}-1")

    def test_the_first_source_skips_and_the_last_starts_the_table(self, joined: dict[str, Any]) -> None:
        self.ingest("calls")
        with pytest.raises(AirflowSkipException, match="no feature table's day is complete with it"):
            self.hand_on(joined["calls_ingest"], "calls")
        self.ingest(SOURCE)
        _, days = self.hand_on(joined[INGEST], SOURCE)
        assert days == {f"{TABLE}.ready": [str(DAY)]}

    def test_of_two_sources_at_once_one_starts_the_table(self, joined: dict[str, Any]) -> None:
        self.ingest("calls")
        self.ingest(SOURCE)
        self.hand_on(joined[INGEST], SOURCE, run_id="one")
        with pytest.raises(AirflowSkipException):
            self.hand_on(joined["calls_ingest"], "calls", run_id="other")

    def test_a_retry_starts_what_its_first_try_may_not_have_started(self, joined: dict[str, Any]) -> None:
        self.ingest("calls")
        self.ingest(SOURCE)
        assert self.hand_on(joined[INGEST], SOURCE)[1] == self.hand_on(joined[INGEST], SOURCE)[1]

    def test_a_history_is_handed_on_as_ingested_though_nothing_is_complete(self, joined: dict[str, Any]) -> None:
        self.ingest(SOURCE)
        result, days = self.hand_on(joined[LOAD], SOURCE, str(DAY))
        assert (result, days) == (str(DAY), {f"{SOURCE}.ingested": [str(DAY)]})

    def test_a_history_that_completes_a_day_starts_the_table(self, joined: dict[str, Any]) -> None:
        self.ingest("calls")
        self.ingest(SOURCE)
        _, days = self.hand_on(joined[LOAD], SOURCE, str(DAY))
        assert days == {f"{SOURCE}.ingested": [str(DAY)], f"{TABLE}.ready": [str(DAY)]}

    def test_the_last_feature_table_starts_the_model(self, joined: dict[str, Any]) -> None:
        self.ingest("calls")
        self.ingest(SOURCE)
        self.build("calls_only")
        with pytest.raises(AirflowSkipException, match="no model's day is complete with it"):
            self.hand_on(joined["calls_only_features"], "calls_only")
        self.build(TABLE)
        _, days = self.hand_on(joined[FEATURES], TABLE)
        assert days == {f"{MODEL}.ready": [str(DAY)]}

    def build(self, table: str) -> None:
        entry = BuiltDay(
            node=f"features.{table}", day=DAY, run_key=f"{table}-1", inputs="i", content="c", version=1, rows=1
        )
        built_days.write([entry])


def test_a_new_champion_requests_the_days_that_are_chosen(
    own_dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml.score import requests

    chosen: list[dict[str, Any]] = []

    def choose(model: str, **options: Any) -> list[str]:
        chosen.append({"model": model, **options})
        return [str(DAY)]

    monkeypatch.setattr(requests, "choose_days", choose)
    choose_days, outlets = call(own_dags[f"{MODEL}_on_champion"], "choose_days"), Outlets()
    params = {"first": "2011-06-28", "last": None}
    assert choose_days(MODEL, params=params, outlet_events=outlets, **context(DagRunType.MANUAL)) == [str(DAY)]
    assert {asset.name: event.days for asset, event in outlets.items()} == {f"{MODEL}.rescore": [str(DAY)]}
    (request,) = chosen
    assert (request["model"], request["first"], request["last"]) == (MODEL, "2011-06-28", None)
    assert request["run_key"].startswith("x-t-2011-06-28-")


def test_a_new_champion_without_days_to_score_again_is_a_skip(
    own_dags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml.score import requests

    monkeypatch.setattr(requests, "choose_days", lambda model, **_: [])
    choose_days = call(own_dags[f"{MODEL}_on_champion"], "choose_days")
    with pytest.raises(AirflowSkipException, match="no day is scored again"):
        choose_days(
            MODEL,
            params={"first": None, "last": None},
            outlet_events=Outlets(),
            **context(DagRunType.ASSET_TRIGGERED),
        )


class TestTheDayToTrainThrough:
    @pytest.fixture
    def choose_day(self, joined: dict[str, Any], config: ConfigFolder) -> Callable[..., Any]:
        two_sources(config)
        return call(joined[f"{MODEL}_train"], "choose_day")

    def test_is_the_requested_one(self, choose_day: Callable[..., Any]) -> None:
        assert choose_day(MODEL, params={"through": "2011-01-01"}) == "2011-01-01"

    def test_is_the_newest_that_all_facts_have(self, choose_day: Callable[..., Any]) -> None:
        days = [DAY - timedelta(n) for n in range(4)]
        mark_ingested(SOURCE, days, {f"silver.{SOURCE}": "c"})
        mark_ingested("calls", days[2:], {"silver.calls": "c"})
        assert choose_day(MODEL, params={"through": None}) == str(days[2])

    @pytest.mark.parametrize("ingested_sources", [(), (SOURCE,)], ids=["none", "one-of-two"])
    def test_is_none_while_a_fact_is_missing(
        self, choose_day: Callable[..., Any], ingested_sources: tuple[str, ...]
    ) -> None:
        for name in ingested_sources:
            mark_ingested(name, [DAY], {f"silver.{name}": "c"})
        with pytest.raises(AirflowSkipException, match="no day has all facts of the model yet"):
            choose_day(MODEL, params={"through": None})
