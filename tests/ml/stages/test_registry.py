"""Questions of an auditor are answered from the records of the time, for people and as facts."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml import cli
from ml.ops import built_days
from ml.registry import production
from ml.storage import tables
from tests.support.models.small_world import DAY, FEATURES, World, customers

SILVER, CUSTOMER_DAYS = "silver.transactions", "silver.customer_days"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def served(world: World) -> World:
    """Seven ingestions, a model trained on version 7 of `silver.customer_days`, and a scored day built from version 6."""
    for day in range(8):
        for name in (SILVER, CUSTOMER_DAYS):
            tables.replace(name, pa.table({"day": [day]}), f"day = {day}")
    world.champion()
    version = world.write_features(customers(20))
    sources = {CUSTOMER_DAYS: 6}
    built_days.write(
        [
            built_days.BuiltDay(
                node=FEATURES,
                day=DAY,
                run_key="features-1",
                inputs="x",
                version=version,
                rows=20,
                content="c",
                because=("first",),
                sources=sources,
            )
        ]
    )
    world.score()
    return world


class Questions:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: str) -> tuple[str, dict[str, Any]]:
        """The lines for people, and the facts."""
        self.capsys.readouterr()
        cli.main(["registry", "--model", "churn", *args])
        *lines, facts = self.capsys.readouterr().out.splitlines()
        return "\n".join(lines), json.loads(facts)

    def refused(self, *args: str) -> str:
        with pytest.raises(SystemExit):
            cli.main(["registry", "--model", "churn", *args])
        reason: str = json.loads(self.capsys.readouterr().out.splitlines()[-1])["refused"]
        return reason


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Questions:
    return Questions(capsys)


class TestProduction:
    def test_nothing_was_promoted_yet(self, world: World, ask: Questions) -> None:
        text, facts = ask("production")
        assert text == "churn: no version was in production now"
        assert facts["version"] is None

    def test_the_present_champion_with_its_decision(self, world: World, ask: Questions) -> None:
        world.champion()
        text, facts = ask("production")
        assert text.startswith("churn version 1 is in production now\n")
        assert (facts["version"], facts["before"], facts["until"]) == ("1", None, None)
        assert facts["why"][0].startswith("approved by the gate against none")

    def test_at_a_moment_before_between_and_after(self, world: World, ask: Questions) -> None:
        world.champion()
        second = world.train(0, "train-2")["version"]
        world.gate(second)
        world.promote(second, "promote-2")
        first, latest = (entry.moment for entry in production.read_history("churn"))
        moments = [first - timedelta(microseconds=1), first, latest - timedelta(microseconds=1), latest]
        assert [ask("production", "--at", at.isoformat())[1]["version"] for at in moments] == [None, "1", "1", second]

    @pytest.mark.parametrize("at", ["yesterday", "2026-13-01T00:00Z"])
    def test_an_invalid_moment_is_refused(self, world: World, ask: Questions, at: str) -> None:
        with pytest.raises(SystemExit):
            cli.main(["registry", "--model", "churn", "production", "--at", at])
        assert "a moment such as 2026-11-03T10:00Z is needed" in ask.capsys.readouterr().err


def test_history_lists_every_decision_in_order(served: World, ask: Questions) -> None:
    second = served.train(0, "train-2")["version"]
    served.gate(second)
    served.promote(second, "promote-2")
    served.roll_back("it calls everybody lost")
    text, facts = ask("history")
    assert [event["event"] for event in facts["events"]] == ["gate", "promotion", "gate", "promotion", "rollback"]
    assert "it calls everybody lost" in text.splitlines()[-1]
    assert f"{second} → 1" in text.splitlines()[-1]


def test_two_versions_are_compared(served: World, ask: Questions) -> None:
    second = served.train(0, "train-2", params="{}")["version"]
    text, facts = ask("compare", "1", second)
    assert facts["same_test_rows"]
    assert facts["versions"]["1"]["roc_auc"] == facts["versions"][second]["roc_auc"]
    assert (facts["versions"]["1"]["gate"], facts["versions"][second]["gate"]) == ("approved", "not decided")
    assert "training_set_version" in text


def test_a_score_is_traced_to_its_tables_and_commit(served: World, ask: Questions) -> None:
    customer = tables.read("gold.customer_churn_scores")["customer_id"][0].as_py()
    _, facts = ask("lineage", "--score-day", str(DAY), "--key", customer)
    assert facts["sources"] == {CUSTOMER_DAYS: 6, SILVER: 6}
    assert facts["features"][FEATURES]["run_key"] == "features-1"
    assert facts["model"]["commit"] == "abc123"
    assert (facts["model"]["training_set_version"], facts["model"]["source.silver.customer_days"]) == ("0", "7")
    assert facts["in_production"]["why"][0].startswith("approved by the gate")


def test_a_missing_score_is_named(served: World, ask: Questions) -> None:
    reason = ask.refused("lineage", "--score-day", "1998-01-01", "--key", "c1")
    assert reason == "gold.customer_churn_scores has no score of customer_id 'c1' on 1998-01-01"


class TestWhatATableFed:
    @pytest.mark.parametrize("name", [SILVER, CUSTOMER_DAYS])
    @pytest.mark.parametrize(
        ("versions", "features", "models"),
        [
            pytest.param(("5",), 0, [], id="no-consumer"),
            pytest.param(("6",), 1, [], id="features-and-their-scores"),
            pytest.param(("7",), 0, ["1"], id="a-model-and-its-scores"),
            pytest.param(("5", "7"), 1, ["1"], id="range-of-versions"),
        ],
    )
    def test_a_version_of_silver(
        self, served: World, ask: Questions, name: str, versions: tuple[str, ...], features: int, models: list[str]
    ) -> None:
        through = ("--through", versions[-1]) if len(versions) > 1 else ()
        _, facts = ask("feeds", "--table", name, "--version", versions[0], *through)
        assert (len(facts["features"]), facts["models"]) == (features, models)
        assert facts["score_days"]["by_its_features"] == [str(DAY)] * features
        assert facts["score_days"]["by_its_models"] == [str(DAY)] * len(models)
        assert [entry["version"] for entry in facts["production"]] == models

    def test_scores_are_listed_for_the_features_they_read(self, served: World, ask: Questions) -> None:
        again = served.write_features(customers(20, seed=1))
        served.score(run_key="score-2")
        _, facts = ask("feeds", "--table", FEATURES, "--version", str(again - 1))
        assert facts["score_days"]["by_its_features"] == [str(DAY)]

    def test_a_training_set(self, served: World, ask: Questions) -> None:
        _, facts = ask("feeds", "--table", "features.training_set", "--version", "0")
        assert (facts["models"], facts["training_sets"], facts["features"]) == (["1"], [0], [])

    @pytest.mark.parametrize(
        ("args", "why"),
        [
            pytest.param(
                ("gold.drift", "--version", "0"),
                "gold.drift: its consumers are not recorded for churn",
                id="another-table",
            ),
            pytest.param(
                (CUSTOMER_DAYS, "--version", "99"), "has no version 99; the newest is 7", id="no-such-version"
            ),
            pytest.param(
                (CUSTOMER_DAYS, "--version", "7", "--through", "6"),
                "the last version is lower than the first",
                id="backwards",
            ),
        ],
    )
    def test_a_question_that_cannot_be_answered(
        self, served: World, ask: Questions, args: tuple[str, ...], why: str
    ) -> None:
        assert why in ask.refused("feeds", "--table", *args)


def test_a_promotion_whose_process_died_is_completed_before_it_is_reported(world: World, ask: Questions) -> None:
    world.champion()
    now = production.current_entry("churn")
    assert now is not None
    second = world.train(0, "train-2")["version"]
    from dataclasses import replace

    production.claim(replace(now, version=second, before="1"), now)
    _, facts = ask("history")
    assert [(event["event"], event["after"]) for event in facts["events"]][-1] == ("promotion", second)
