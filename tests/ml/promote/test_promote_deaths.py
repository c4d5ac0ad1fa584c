"""A process that dies at any step of a promotion or a rollback: the step is completed later, or it never happened.

The steps are counted while it runs: every call of MLflow's client and every write to the lake.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deltalake
import pytest
from mlflow import MlflowClient

from ml.ops import decisions as decision_log
from ml.registry import model_versions, production
from ml.storage import stores
from tests.support.models.small_world import World, customers

REMOTE = ("set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag")


class DiedError(BaseException):
    """Like SIGKILL: nothing catches it."""


@contextmanager
def dying_at(step: int) -> Iterator[list[str]]:
    """Die before an effect (`step` 0, 2, 4, …) or after it, before its result is read (1, 3, …). Yields the effects begun."""
    begun: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begun.append(name)
            if step == 2 * (len(begun) - 1):
                raise DiedError
            result = call(*args, **kwargs)
            if step == 2 * (len(begun) - 1) + 1:
                raise DiedError
            return result

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in REMOTE:
            patch.setattr(MlflowClient, name, counted(name, getattr(MlflowClient, name)))
        patch.setattr(stores.FolderStore, "create", counted("create", stores.FolderStore.create))
        patch.setattr(deltalake, "write_deltalake", counted("write_deltalake", deltalake.write_deltalake))
        yield begun


def state() -> dict[str, Any]:
    """Everything that a promotion changes."""
    decisions = [
        (event.event, event.version, event.before, event.after)
        for event in decision_log.read_events("churn")
        if event.event != "gate"
    ]
    tags = {
        number: sorted(
            model_versions.get_version("churn", number).tags.keys() & {production.PROMOTED, production.TAKEN_BACK}
        )
        for number in ("1", "2")
    }
    now = production.current_entry("churn")
    return {
        "now": now and now.version,
        "aliases": model_versions.get_aliases("churn"),
        "decisions": decisions,
        "tags": tags,
    }


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is champion and has scored a day, version 2 is approved."""
    folder = tmp_path_factory.mktemp("ready")
    with pytest.MonkeyPatch.context() as patch:
        world = World(folder, patch)
        world.champion()
        world.write_features(customers(50))
        world.score()
        assert world.gate(world.train(0, "train-2")["version"])["approved"]
    return folder


def promote(world: World) -> dict[str, Any]:
    return world.promote("2", "promote-2")


def roll_back(world: World) -> dict[str, Any]:
    return world.roll_back("wrong")


def run_another_stage(world: World) -> object:
    """Any other run, instead of the same command again."""
    return production.settle("churn")


@pytest.mark.parametrize("by", ["the-same-command", "another-run"])
@pytest.mark.parametrize("what", [promote, roll_back], ids=["promotion", "rollback"])
def test_a_death_at_every_step(ready: Path, tmp_path: Path, what: Callable[[World], dict[str, Any]], by: str) -> None:
    def fresh(name: str, patch: pytest.MonkeyPatch) -> World:
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, patch)
        shutil.copytree(ready, tmp_path / name, dirs_exist_ok=True)
        if what is roll_back:
            promote(world)
        return world

    with pytest.MonkeyPatch.context() as patch:
        world = fresh("undisturbed", patch)
        before = state()
        with dying_at(-1) as effects:
            what(world)
        after = state()
    assert effects[0] == "create", "the write of the log entry comes before all its consequences"
    assert {"write_deltalake", *REMOTE[:1]} <= set(effects)
    for step in range(2 * len(effects)):
        with pytest.MonkeyPatch.context() as patch:
            world = fresh(f"death-{step}", patch)
            with dying_at(step), pytest.raises(DiedError):
                what(world)
            if by == "the-same-command":
                what(world)
            else:
                run_another_stage(world)
            never_happened = by == "another-run" and step == 0
            assert state() == (before if never_happened else after), f"death at {step} of {effects}"
