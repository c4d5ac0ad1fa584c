"""Only an approval that still holds moves the alias, once, and the one before stays findable."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from ml import evaluate, promote, registry
from ml.cli import StageError
from tests.unit.small_world import World, training_set


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def champion() -> str | None:
    found = registry.aliased("churn")
    return found.number if found else None


def previous() -> str | None:
    found = registry.aliased("churn", registry.PREVIOUS)
    return found.number if found else None


def test_without_a_decision_nothing_moves(world: World) -> None:
    version = world.trained()
    with pytest.raises(StageError, match=f"churn version {version} has no recorded decision: run the stage 'gate'"):
        world.promote(version)
    assert champion() is None


def test_rejected_version_is_refused_with_the_gates_reasons(world: World) -> None:
    version: str = world.train(world.write_training_set(training_set(signal=0.0)))["version"]
    world.gate(version)
    with pytest.raises(StageError, match="was rejected by the gate: roc_auc is"):
        world.promote(version)
    assert champion() is None


def test_first_champion_has_none_before_it(world: World) -> None:
    version = world.trained()
    world.gate(version)
    assert world.promote(version) == {"before": None, "after": version, "changed": True}
    assert (champion(), previous()) == (version, None)


def test_champion_before_becomes_previous(world: World) -> None:
    first = world.champion()
    second: str = world.train(0, "train-2")["version"]
    assert world.gate(second)["approved"]
    assert world.promote(second)["before"] == first
    assert (champion(), previous()) == (second, first)


def test_asked_again_nothing_changes_and_it_says_so(world: World) -> None:
    version = world.champion()
    before = registry.version("churn", version).tags
    again = world.promote(version, "promote-2")
    assert (again["changed"], again["note"]) == (False, f"churn version {version} is champion already")
    assert registry.version("churn", version).tags == before, "time and run key stay those of the promotion"


def test_champion_that_moved_since_the_decision_refuses(world: World) -> None:
    slow, quick = world.trained(), world.train(0, "train-2")["version"]
    world.gate(slow)
    world.gate(quick)
    world.promote(quick)
    with pytest.raises(StageError, match=f"approved against champion none, and the champion is now {quick}"):
        world.promote(slow)
    assert champion() == quick


def test_evaluation_made_again_after_the_decision_refuses(world: World) -> None:
    version = world.train(world.write_training_set(training_set()))["version"]
    world.gate(version)
    world.configure(evaluate={"bootstrap": 120})
    evaluate.run(Namespace(model="churn", version=version))
    with pytest.raises(StageError, match="evaluated again after the decision: run the stage 'gate' again"):
        world.promote(version)


def test_somebody_promoting_at_the_same_moment_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = world.trained(), world.train(0, "train-2")["version"]
    world.gate(one)
    move = registry.move_alias

    def race(model: str, alias: str, number: str) -> None:
        move(model, alias, number)
        move(model, alias, other)

    monkeypatch.setattr(registry, "move_alias", race)
    with pytest.raises(StageError, match=f"made champion and churn version {other} is: somebody promoted"):
        world.promote(one)


@pytest.mark.parametrize(
    ("dies_at", "moved"),
    [
        pytest.param(1, False, id="before-the-first-alias"),
        pytest.param(2, False, id="between-the-two-aliases"),
        pytest.param(3, True, id="before-it-is-noted"),
    ],
)
def test_process_that_dies_is_completed_by_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_at: int, moved: bool
) -> None:
    first = world.champion()
    second: str = world.train(0, "train-2")["version"]
    world.gate(second)
    steps = 0

    def until_it_dies(step: Any) -> Any:
        def run(*args: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == dies_at:
                raise KeyboardInterrupt
            step(*args)

        return run

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):  # noqa: PT012 - replaced only inside
        broken.setattr(registry, "move_alias", until_it_dies(registry.move_alias))
        broken.setattr(registry, "tag", until_it_dies(registry.tag))
        world.promote(second, "promote-2")
    assert world.promote(second, "promote-2")["changed"] is not moved
    assert (champion(), previous()) == (second, first)
    note = registry.version("churn", second).json_tag(promote.TAG)
    assert note is not None
    assert (note["before"], note["run_key"]) == (first, "promote-2")
