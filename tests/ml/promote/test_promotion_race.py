"""Two processes promote two versions at the same moment, against a real MLflow and Azurite: one wins, the other fails."""

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

from ml.config import load_model
from ml.evaluate import record
from ml.ops import decisions
from ml.registry import model_versions, production
from ml.stages import train
from ml.storage import tables
from tests.support.cloud.mlflow_server import mlflow_server
from tests.support.cloud.standins import KEY, ROOT, Account
from tests.support.models.small_world import TRAINING_SET, small_model, training_set
from tests.support.resources import Resources


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
        Resources(folder / "resources", patch).put(small_model(load_model("churn")))
        tables.replace(TRAINING_SET, training_set(), "as_of IS NOT NULL", partition_by=["as_of"])
        for number in range(3):
            arguments = {"training_set_version": 0, "run_key": f"train-{number}", "commit": "abc123"}
            train.run(Namespace(model="churn", params=None, automl_model=None, **arguments))
        yield


class Racer:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.models.promoting"],
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

    def read_result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("result "):
                result: dict[str, Any] = json.loads(line.removeprefix("result "))
                return result
        raise AssertionError(f"the process ended with {self.process.wait()}")


@pytest.fixture
def racers(services: None) -> Iterator[list[Racer]]:
    started = [Racer(), Racer()]
    yield started
    for racer in started:
        assert racer.process.stdin is not None
        racer.process.stdin.close()
        racer.process.wait(60)


def approve(number: str, champion: str | None) -> None:
    """Record an approval by the gate against this champion, whatever the version's quality."""
    version = model_versions.get_version("churn", number)
    decisions.record(
        decisions.Event(
            id=decisions.event_id("gate", number, str(champion), str(time.time())),
            event="gate",
            model="churn",
            version=number,
            before=champion,
            after=champion,
            approved=True,
            evaluation=record.digest(model_versions.read_artifact(version, record.FILE)),
            model_digest=version.digest,
        )
    )


def race(racers: list[Racer], name: str, apart: float) -> str:
    """Run one round; returns where the loser failed. The second racer starts `apart` seconds later."""
    before = production.current_entry("churn")
    champion = before.version if before else None
    candidates = [number for number in ("1", "2", "3") if number != champion][:2]
    for number in candidates:
        approve(number, champion)
    at = time.time() + 0.3
    for racer, number, later in zip(racers, candidates, (0.0, apart), strict=True):
        racer.start(number, f"{name}-{number}", at + later)
    results = dict(zip(candidates, [racer.read_result() for racer in racers], strict=True))
    (winner,) = [number for number, result in results.items() if result.get("changed")]
    (loser,) = set(candidates) - {winner}
    assert results[winner] == {"before": champion, "after": winner, "changed": True}
    assert f"version {winner} since" in results[loser]["refused"]
    assert f"{name}-{winner}" in results[loser]["refused"], "the loser's error names the run that won"
    now = production.current_entry("churn")
    assert now is not None
    assert (now.version, now.before, now.number) == (winner, champion, (before.number if before else 0) + 1)
    assert model_versions.get_aliases("churn") == {"champion": winner} | ({"previous": champion} if champion else {})
    return "failed at the write" if "another change came first" in results[loser]["refused"] else "failed before it"


def races(racers: list[Racer], rounds: int) -> Counter[str]:
    draw = random.Random(7)
    rounds_before = len(production.read_history("churn"))
    outcomes = Counter(
        race(racers, f"round-{rounds_before}-{number}", draw.choice((-1, 1)) * draw.random() * 0.1)
        for number in range(rounds)
    )
    entries = production.read_history("churn")
    assert len(entries) == rounds_before + rounds
    recorded = decisions.read_events("churn", kind="promotion")
    assert [(event.before, event.after) for event in recorded] == [(entry.before, entry.version) for entry in entries]
    return outcomes


def test_of_two_at_once_one_wins_and_the_other_fails(racers: list[Racer]) -> None:
    races(racers, 4)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_hundred_races(racers: list[Racer], record_property: Callable[[str, object], None]) -> None:
    outcomes = races(racers, 100)
    print("races:", dict(outcomes))
    record_property("races", dict(outcomes))
    assert outcomes["failed at the write"] >= 20, "most rounds must be races for the one write, not two runs in turn"
