"""Two processes promote two versions at the same moment, against a real MLflow and Azurite: one wins, the other is told."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ml.evaluate import record
from ml.ops import decisions
from ml.registry import model_versions, production
from ml.stages import train
from ml.storage import tables
from tests.support.cloud import KEY, ROOT, Account
from tests.support.mlflow_server import mlflow_server
from tests.support.small_world import TRAINING_SET, training_set


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[None]:
    """A lake in Azurite, an MLflow server, and three registered versions."""
    account, folder = new_account(), tmp_path_factory.mktemp("mlflow")
    for container in ("lake", "reports"):
        account.container(container)
    with mlflow_server(folder) as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "LAKE_URI": "az://lake",
            "REPORTS_URI": "az://reports",
            "AZURE_STORAGE_ACCOUNT_NAME": account.name,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": account.blob_endpoint,
            "MLFLOW_TRACKING_URI": url,
            "ML_ENVIRONMENT": "local",
        }.items():
            patch.setenv(name, value)
        tables.replace(TRAINING_SET, training_set(), "as_of IS NOT NULL", partition_by=["as_of"])
        for number in range(3):
            asked = {"training_set_version": 0, "run_key": f"train-{number}", "commit": "abc123"}
            train.run(Namespace(model="churn", params=None, automl_model=None, **asked))
        yield


class Racer:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.promoting"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, version: str, run_key: str, at: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"version": version, "run_key": run_key, "at": at}) + "\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("told "):
                found: dict[str, Any] = json.loads(line.removeprefix("told "))
                return found
        raise AssertionError(f"the process ended with {self.process.wait()}")


@pytest.fixture
def racers(services: None) -> Iterator[list[Racer]]:
    made = [Racer(), Racer()]
    yield made
    for one in made:
        assert one.process.stdin is not None
        one.process.stdin.close()
        one.process.wait(60)


def approve(number: str, champion: str | None) -> None:
    """As the gate would against this champion; whether it deserves it is not what is tested."""
    version = model_versions.version("churn", number)
    decisions.record(
        decisions.Event(
            id=decisions.event_id("gate", number, str(champion), str(time.time())),
            event="gate",
            model="churn",
            version=number,
            before=champion,
            after=champion,
            approved=True,
            evaluation=record.digest(model_versions.artifact(version, record.FILE)),
            model_digest=version.digest,
        )
    )


def race(racers: list[Racer], name: str, apart: float) -> str:
    """One round; the winner. `apart`: seconds by which the second starts later."""
    before = production.current("churn")
    champion = before.version if before else None
    candidates = [number for number in ("1", "2", "3") if number != champion][:2]
    for number in candidates:
        approve(number, champion)
    at = time.time() + 0.3
    for racer, number, later in zip(racers, candidates, (0.0, apart), strict=True):
        racer.start(number, f"{name}-{number}", at + later)
    told = dict(zip(candidates, [racer.told() for racer in racers], strict=True))
    (winner,) = [number for number, one in told.items() if one.get("changed")]
    (loser,) = set(candidates) - {winner}
    assert told[winner] == {"before": champion, "after": winner, "changed": True}
    assert f"version {winner} since" in told[loser]["refused"]
    assert f"{name}-{winner}" in told[loser]["refused"], "the loser is told which run it lost to"
    now = production.current("churn")
    assert now is not None
    assert (now.version, now.before, now.number) == (winner, champion, (before.number if before else 0) + 1)
    assert model_versions.aliases("churn") == {"champion": winner} | ({"previous": champion} if champion else {})
    return "told at the write" if "came second" in told[loser]["refused"] else "told before it"


def races(racers: list[Racer], rounds: int) -> Counter[str]:
    draw = random.Random(7)
    began = len(production.history("churn"))
    found = Counter(
        race(racers, f"round-{began}-{number}", draw.choice((-1, 1)) * draw.random() * 0.1) for number in range(rounds)
    )
    entries = production.history("churn")
    assert len(entries) == began + rounds
    recorded = decisions.events("churn", kind="promotion")
    assert [(one.before, one.after) for one in recorded] == [(one.before, one.version) for one in entries]
    return found


def test_of_two_at_once_one_wins_and_the_other_is_told(racers: list[Racer]) -> None:
    races(racers, 4)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_hundred_races(racers: list[Racer], record_property: Callable[[str, object], None]) -> None:
    found = races(racers, 100)
    print("races:", dict(found))
    record_property("races", dict(found))
    assert found["told at the write"] >= 20, "most rounds must be races for the one write, not two runs in turn"
