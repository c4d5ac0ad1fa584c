"""Who scores a past day again, what a request does, and which feature tables a version reads."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from ml.cli import run_stage
from ml.config import load_feature_table
from ml.errors import StageError
from ml.evaluate import record
from ml.ops import built_days, decisions, score_requests
from ml.ops.built_days import BuiltDay
from ml.registry import model_versions, production
from ml.score.requests import choose_days
from ml.storage import tables
from tests.support.models.small_world import COLUMNS, DAY, World, customers, tampered

GOLD = "gold.customer_churn_scores"
D = [DAY + timedelta(n) for n in range(4)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def build(world: World, *days: date, seed: int = 0, table: str = "features.customers") -> None:
    """Feature partitions of these days with their journal entries; another seed gives other content."""
    for day in days:
        where = tables.day_predicate("as_of", [day])
        version = tables.replace(table, customers(60, day, seed), where, partition_by=["as_of"])
        entry = BuiltDay(
            node=table, day=day, run_key=f"f-{seed}", inputs=f"i{seed}", content=f"c{seed}", version=version, rows=60
        )
        built_days.write([entry])


def approve(number: str) -> None:
    """Record the gate's approval against the champion of now, whatever the version's quality."""
    version = model_versions.get_version("churn", number)
    champion = production.current_entry("churn")
    before = champion.version if champion else None
    decisions.record(
        decisions.Event(
            id=decisions.event_id("gate", number, str(before)),
            event="gate",
            model="churn",
            version=number,
            before=before,
            after=before,
            approved=True,
            evaluation=record.digest(model_versions.read_artifact(version, record.FILE)),
            model_digest=version.digest,
        )
    )


def promote_another(world: World, attempt: int = 2) -> str:
    number: str = world.train(0, f"train-{attempt}")["version"]
    approve(number)
    world.promote(number, f"promote-{attempt}")
    return number


def scorer_of(day: date) -> str:
    """The version of the day's rows in the score table."""
    rows = tables.read(GOLD, where=pc.field("score_date") == day)
    (version,) = pc.unique(rows["model_version"]).to_pylist()
    return str(version)


def score_by_champion(day: date, run_key: str = "by-hand") -> dict[str, Any]:
    return run_stage(["score", "--model=churn", f"--day={day}", f"--run-key={run_key}", "--champion"])


@pytest.fixture
def served(world: World) -> World:
    """Version 1 has scored the first two days; version 2 is champion."""
    world.champion()
    build(world, *D)
    for day in D[:2]:
        world.score(day, "score-1")
    assert promote_another(world) == "2"
    return world


class TestWhoScores:
    def test_a_corrected_day_is_scored_by_the_version_that_scored_it_first(self, served: World) -> None:
        build(served, D[0], seed=1)
        facts = served.score(D[0], "score-2")
        assert facts["model_version"] == scorer_of(D[0]) == "1"
        assert facts["because"].endswith("version 1 first scored it")

    def test_a_day_that_was_never_scored_is_scored_by_the_champion_of_now(self, served: World) -> None:
        facts = served.score(D[2], "score-2")
        assert scorer_of(D[2]) == "2"
        assert facts["because"] == "first; never scored before, so champion 2 scores it"

    def test_a_day_of_a_version_that_was_rolled_back_is_scored_by_the_one_that_took_its_place(
        self, served: World
    ) -> None:
        served.score(D[2], "score-2")
        served.roll_back("it calls everybody lost")
        promote_another(served, 3)
        build(served, D[2], seed=1)
        facts = served.score(D[2], "score-3")
        assert scorer_of(D[2]) == "1"
        assert "version 1 instead of 2" in facts["because"]
        assert facts["because"].endswith("version 2 first scored it, and was rolled back: version 1 took its place")

    def test_a_chain_of_rollbacks_is_followed(self, served: World) -> None:
        served.score(D[2], "score-2")
        third = promote_another(served, 3)
        served.score(D[3], "score-3")
        assert served.roll_back("wrong", "back-1") == {
            "before": third, "after": "2", "changed": True, "why": "wrong",
        }  # fmt: skip
        assert served.roll_back("wrong too", "back-2")["after"] == "1"
        build(served, D[3], seed=1)
        served.score(D[3], "score-4")
        assert scorer_of(D[3]) == "1"

    def test_days_of_other_versions_stay_as_they_are(self, served: World) -> None:
        before = tables.read(GOLD, where=pc.field("score_date") == D[1]).sort_by("customer_id")
        build(served, D[0], seed=1)
        served.score(D[0], "score-2")
        served.score(D[2], "score-2")
        assert tables.read(GOLD, where=pc.field("score_date") == D[1]).sort_by("customer_id").equals(before)

    def test_a_deleted_version_is_named_with_the_remedy_and_nothing_is_written(self, served: World) -> None:
        model_versions.client().delete_model_version("churn", "1")
        build(served, D[0], seed=1)
        with pytest.raises(StageError, match=r"version 1 \(version 1 first scored it\), and it cannot be loaded") as no:
            served.score(D[0], "score-2")
        assert f"--day {D[0]} --champion" in str(no.value)
        assert built_days.read_entries(node="churn.score", day=D[0])[-1].run_key == "score-1"
        assert score_by_champion(D[0])["model_version"] == "2"

    def test_a_wrong_version_may_be_deleted(self, served: World) -> None:
        served.score(D[2], "score-2")
        served.roll_back("wrong")
        model_versions.client().delete_model_version("churn", "2")
        build(served, D[2], seed=1)
        assert served.score(D[2], "score-3")["model_version"] == "1"

    def test_the_files_of_an_earlier_version_must_be_those_of_its_promotion(self, served: World) -> None:
        build(served, D[0], seed=1)
        with tampered("1"), pytest.raises(StageError, match="its files have digest"):
            served.score(D[0], "score-2")


def test_a_day_that_is_run_again_is_scored_again(served: World) -> None:
    """So a backfill rebuilds every stage, whatever has become of the scores meanwhile."""
    assert served.score(D[1], "score-2")["because"].startswith("requested again")


class TestVersionsSideBySide:
    """Each version of a feature table starts the day."""

    @pytest.fixture(autouse=True)
    def side_by_side(self, served: World) -> None:
        served.resources.put(load_feature_table("customers").model_copy(update={"table": "customers_v2"}))

    def test_a_day_waits_for_the_version_that_is_read(self, served: World) -> None:
        next_day = D[-1] + timedelta(1)
        build(served, next_day, table="features.customers_v2")
        assert served.score(next_day, "score-2")["skipped"] == f"{next_day} is scored when features.customers has it"

    def test_the_same_rows_by_the_same_version_are_skipped(self, served: World) -> None:
        version = tables.table(GOLD).version()
        facts = served.score(D[1], "score-2")
        assert facts["skipped"] == f"{D[1]} is scored already by version 1 from the same rows (run key score-1)"
        assert tables.table(GOLD).version() == version

    def test_a_task_that_is_run_again_scores(self, served: World) -> None:
        assert served.score(D[1], "score-1")["rows"] > 0

    def test_other_bands_score(self, served: World) -> None:
        (first, *others) = served.config.score.bands
        served.configure(score={"bands": (first.model_copy(update={"at_least": 0.9}), *others)})
        assert served.score(D[1], "score-2")["rows"] > 0

    def test_a_partition_that_lost_its_rows_is_scored(self, served: World) -> None:
        tables.table(GOLD).delete(f"score_date = '{D[1]}'")
        assert served.score(D[1], "score-2")["rows"] > 0

    def test_equal_scores_have_equal_content(self, served: World) -> None:
        served.score(D[1], "score-1")
        other = score_by_champion(D[1])
        first, second = built_days.read_entries(node="churn.score", day=D[1])
        assert other["model_version"] == "2"
        assert first.content != second.content
        assert len(first.content) == 32
        score_by_champion(D[1], "again")
        assert built_days.read_entries(node="churn.score", day=D[1])[-1].content == second.content


class TestRequests:
    def test_a_promotion_requests_the_newest_days(self, served: World) -> None:
        assert choose_days("churn", first=None, last=None, run_key="r") == [str(D[3])]
        (request,) = score_requests.read("churn")
        assert (request.day, request.champion, request.run_key) == (D[3], 2, "r")
        assert request.why == "version 2 was promoted"

    def test_a_rollback_requests_them_too(self, served: World) -> None:
        served.roll_back("wrong")
        choose_days("churn", first=None, last=None, run_key="r")
        assert score_requests.read("churn")[0].why == "version 2 was rolled back"

    @pytest.mark.parametrize(
        ("first", "last", "days"),
        [
            (D[0], D[1], D[:2]), (D[1], None, D[1:]), (None, D[0], D[:1]), (date(1990, 1, 1), date(1990, 1, 9), []),
        ],
    )  # fmt: skip
    def test_a_person_requests_a_span(
        self, served: World, first: date | None, last: date | None, days: list[date]
    ) -> None:
        start, end = (None if day is None else str(day) for day in (first, last))
        assert choose_days("churn", first=start, last=end, run_key="r") == [str(day) for day in days]
        assert set(score_requests.read_open("churn")) == set(days)

    @pytest.mark.parametrize(
        ("first", "last", "why"), [("soon", None, "a day as YYYY-MM-DD"), ("1998-07-01", "1998-06-01", "is before")]
    )
    def test_a_bad_span_is_refused(self, served: World, first: str, last: str | None, why: str) -> None:
        with pytest.raises(StageError, match=why):
            choose_days("churn", first=first, last=last, run_key="r")

    def test_without_a_champion_nothing_is_requested(self, world: World) -> None:
        build(world, D[0])
        assert choose_days("churn", first=str(D[0]), last=None, run_key="r") == []
        assert score_requests.read("churn") == []

    def test_rescore_days_of_zero_request_nothing(self, served: World) -> None:
        served.configure(score={"rescore_days": 0})
        assert choose_days("churn", first=None, last=None, run_key="r") == []

    def test_a_request_outlives_its_event_and_is_answered_by_any_later_scoring(self, served: World) -> None:
        choose_days("churn", first=str(D[0]), last=str(D[0]), run_key="r")
        assert list(score_requests.read_open("churn")) == [D[0]]
        facts = served.score(D[0], "by-the-sweep")
        assert facts["model_version"] == scorer_of(D[0]) == "2"
        assert facts["because"].endswith("requested (by hand), so champion 2 scores it")
        assert score_requests.read_open("churn") == {}

    def test_a_retried_choice_has_its_days_and_opens_nothing(self, served: World) -> None:
        first = choose_days("churn", first=None, last=None, run_key="r")
        served.score(D[3], "score-2")
        build(served, D[3] + timedelta(1))
        assert choose_days("churn", first=None, last=None, run_key="r") == first
        assert score_requests.read_open("churn") == {}

    def test_after_its_answer_a_corrected_day_keeps_the_version_that_answered(self, served: World) -> None:
        score_by_champion(D[0])
        promote_another(served, 3)
        build(served, D[0], seed=1)
        assert served.score(D[0], "score-3")["model_version"] == "2"

    def test_a_request_by_hand_is_recorded(self, served: World) -> None:
        assert score_by_champion(D[0], "k")["model_version"] == "2"
        (request,) = score_requests.read("churn", D[0])
        assert request.run_key == "k"
        assert request.why.startswith("by ")

    def test_without_a_champion_a_request_by_hand_is_skipped(self, world: World) -> None:
        build(world, D[0])
        assert "no champion yet" in score_by_champion(D[0])["skipped"]
        assert score_requests.read("churn") == []


class TestPinnedTables:
    """A changed feature is a new version of its table beside the old one."""

    @pytest.fixture
    def switched(self, served: World) -> World:
        """The model's file names `customers_v2`; version 3 was trained on it and is champion."""
        served.resources.copy_all()
        table = load_feature_table("customers")
        served.resources.put(table.model_copy(update={"table": "customers_v2"}))
        query = (served.resources.folder / "sql/populations/active_customers.sql").read_text()
        served.resources.write(
            "sql", "populations/active_customers_v2.sql", query.replace("FROM customers", "FROM customers_v2")
        )
        assert served.config.population is not None
        population = served.config.population.model_copy(update={"query": "populations/active_customers_v2"})
        features = {"customers_v2": COLUMNS}
        served.config = served.resources.put(
            served.config.model_copy(update={"features": features, "population": population})
        )
        build(served, *D, seed=7, table="features.customers_v2")
        assert promote_another(served, 3) == "3"
        return served

    def test_the_entry_of_the_promotion_switches_model_and_table_together(self, switched: World) -> None:
        entries = production.read_history("churn")
        assert [(entry.version, entry.tables) for entry in entries] == [
            ("1", ("features.customers",)), ("2", ("features.customers",)), ("3", ("features.customers_v2",)),
        ]  # fmt: skip
        assert entries[2].features == {"customers_v2": COLUMNS}
        assert [entry.population and entry.population["query"] for entry in entries[1:]] == [
            "populations/active_customers", "populations/active_customers_v2",
        ]  # fmt: skip

    def test_each_version_reads_its_own_tables(self, switched: World) -> None:
        assert list(switched.score(D[2], "score-3")["sources"]) == ["features.customers_v2"]
        build(switched, D[0], seed=1)
        facts = switched.score(D[0], "score-3")
        assert (facts["model_version"], list(facts["sources"])) == ("1", ["features.customers"])

    def test_the_champion_reads_its_table_until_the_promotion(self, served: World) -> None:
        served.config = served.resources.put(
            served.config.model_copy(update={"features": {"customers_v2": COLUMNS}, "population": None})
        )
        served.resources.put(load_feature_table("customers").model_copy(update={"table": "customers_v2"}))
        assert list(served.score(D[2], "score-2")["sources"]) == ["features.customers"]

    def test_another_table_s_day_does_not_make_scores_stale(self, switched: World) -> None:
        build(switched, D[0], seed=8, table="features.customers_v2")
        assert "scored already by version 1" in switched.score(D[0], "score-3")["skipped"]

    def test_a_rollback_switches_back(self, switched: World) -> None:
        switched.score(D[2], "score-3")
        switched.roll_back("wrong")
        entry = production.current_entry("churn")
        assert entry is not None
        assert (entry.kind, entry.version, entry.tables) == ("rollback", "1", ("features.customers",))
        assert list(score_by_champion(D[2])["sources"]) == ["features.customers"]

    def test_drift_is_of_the_version_and_table_that_scored_the_day(self, switched: World) -> None:
        facts = switched.monitor(D[0], "monitor-1")
        assert (facts["model_version"], list(facts["sources"])) == ("1", ["features.customers"])
        facts = switched.monitor(D[3], "monitor-1")
        assert (facts["model_version"], list(facts["sources"])) == ("3", ["features.customers_v2"])

    def test_a_version_evaluated_again_has_its_own_columns(self, switched: World) -> None:
        facts = run_stage(["evaluate", "--model=churn", "--version=1"])
        assert not [problem for problem in facts["problems"] if problem.startswith("input schema")]
