"""Rollback to the last champion that scored a day: once, recorded with its reason; the wrong version stays out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml.cli import run_stage
from ml.console import current_user
from ml.errors import StageError
from ml.registry import model_versions
from ml.storage import tables
from tests.support.models.small_world import DAY, World, customers, tampered


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def aliases() -> tuple[str | None, str | None]:
    versions = [
        model_versions.version_of_alias("churn", alias) for alias in (model_versions.CHAMPION, model_versions.PREVIOUS)
    ]
    return versions[0].number if versions[0] else None, versions[1].number if versions[1] else None


def serve(world: World, run_key: str) -> str:
    """Train a version, make it champion and request that it scores the day; its number."""
    number: str = world.train(0, run_key)["version"]
    assert world.gate(number)["approved"]
    world.promote(number, f"promote-{run_key}")
    run_stage(["score", "--model=churn", f"--day={DAY}", f"--run-key=score-{run_key}", "--champion"])
    return number


@pytest.fixture
def served(world: World) -> World:
    """Version 1 has scored the day."""
    world.champion()
    world.write_features(customers(200))
    world.score(run_key="score-1")
    return world


def test_the_previous_champion_is_champion_again(served: World) -> None:
    second = serve(served, "train-2")
    assert served.roll_back("it calls everybody lost") == {
        "before": second, "after": "1", "changed": True, "why": "it calls everybody lost",
    }  # fmt: skip
    assert aliases() == ("1", None)
    served.score(run_key="score-again")
    assert set(tables.read("gold.customer_churn_scores")["model_version"].to_pylist()) == {"1"}


def test_a_champion_that_never_scored_a_day_is_skipped(served: World) -> None:
    second: str = served.train(0, "train-2")["version"]
    served.gate(second)
    served.promote(second)
    third = serve(served, "train-3")
    assert served.roll_back("wrong")["before"] == third
    assert aliases()[0] == "1"


def test_a_second_rollback_goes_further_back(served: World) -> None:
    second, third = serve(served, "train-2"), serve(served, "train-3")
    assert served.roll_back("wrong", "back-1")["after"] == second
    assert aliases() == (second, "1")
    assert served.roll_back("wrong too", "back-2")["after"] == "1"
    with pytest.raises(StageError, match="churn version 1 cannot be rolled back: no earlier champion"):
        served.roll_back("everything is wrong", "back-3")
    assert third != second


def test_the_same_run_key_rolls_back_once(served: World) -> None:
    serve(served, "train-2")
    serve(served, "train-3")
    first = served.roll_back("wrong")
    assert served.roll_back("wrong") == first | {"changed": False}


def test_a_rollback_is_recorded_in_the_decisions(served: World) -> None:
    second = serve(served, "train-2")
    served.roll_back("it calls everybody lost", "key-7")
    rows = tables.read("ops.decisions").to_pylist()
    (row,) = (row for row in rows if row["run_key"] == "key-7")
    assert (row["event"], row["version"], row["before"], row["after"]) == ("rollback", "1", second, "1")
    assert row["reasons"] == ["it calls everybody lost"]
    assert row["by"] == current_user()
    assert row["model_digest"] == model_versions.get_version("churn", "1").digest


def test_a_version_that_was_rolled_back_is_not_promoted_again(served: World) -> None:
    second = serve(served, "train-2")
    served.roll_back("it calls everybody lost")
    with pytest.raises(
        StageError, match=f"version {second} was champion and was rolled back .it calls everybody lost."
    ):
        served.promote(second)
    assert aliases()[0] == "1"


def test_a_champion_promoted_meanwhile_is_left_alone(served: World) -> None:
    serve(served, "train-2")
    served.roll_back("wrong", "back-1")
    third = serve(served, "train-3")
    with pytest.raises(StageError, match=f"the champion has changed since then .*version {third} since"):
        served.roll_back("wrong", "back-1")
    assert aliases()[0] == third


@pytest.mark.parametrize("why", ["", "  "])
def test_a_reason_is_needed(served: World, why: str) -> None:
    with pytest.raises(StageError, match="say why the champion is wrong"):
        served.roll_back(why)


def test_without_a_champion_there_is_nothing_to_roll_back(world: World) -> None:
    with pytest.raises(StageError, match="churn has no champion"):
        world.roll_back("wrong")


def test_without_a_run_key_the_reason_identifies_the_rollback(served: World) -> None:
    """So the same command twice rolls back once."""
    second = serve(served, "train-2")
    serve(served, "train-3")
    assert served.roll_back("wrong", None)["after"] == second
    assert not served.roll_back("wrong", None)["changed"]
    assert served.roll_back("wrong, too", None)["after"] == "1"


def test_a_rollback_to_a_named_version_skips_those_between(served: World) -> None:
    serve(served, "train-2")
    serve(served, "train-3")
    assert served.roll_back("both are wrong", version="1")["after"] == "1"
    assert aliases() == ("1", None)


@pytest.mark.parametrize("version", ["2", "7"], ids=["the-champion-itself", "never-promoted"])
def test_only_an_earlier_champion_can_be_named(served: World, version: str) -> None:
    serve(served, "train-2")
    with pytest.raises(StageError, match=f"version {version} cannot be rolled back to"):
        served.roll_back("wrong", version=version)


def test_a_version_with_changed_files_is_not_rolled_back_to(served: World) -> None:
    serve(served, "train-2")
    with tampered("1"), pytest.raises(StageError, match="churn version 1: its files have digest"):
        served.roll_back("wrong")
    assert aliases()[0] == "2"
