"""The Dags as Airflow reads them from the files, without a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.config_folder import ConfigFolder

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"

Arrange = Callable[[ConfigFolder], None]
ReadDags = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Parsed:
    """What Airflow found in the folder: Dags by id, and the error of each file that it could not import, by its name."""

    dags: dict[str, Any]
    errors: dict[str, str]


def read_folder() -> Parsed:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(DAGS)
    return Parsed(dict(bag.dags), {Path(file).name: error for file, error in bag.import_errors.items()})


@pytest.fixture(scope="session")
def dags() -> dict[str, Any]:
    """The Dags of the shipped configuration, by id."""
    parsed = read_folder()
    assert not parsed.errors, "\n".join(parsed.errors.values())
    return parsed.dags


@pytest.fixture(scope="session")
def parse_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Parsed]:
    """Reads the folder with other config files: `parse_with(arrange)`, where `arrange(config)` writes them.

    `task_of`: the Dag of a starting task, which Airflow names when it reads the files.
    """
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID

    def parse(arrange: Arrange, *, task_of: str | None = None) -> Parsed:
        config = ConfigFolder(tmp_path_factory.mktemp("resources"))
        arrange(config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ML_RESOURCES", str(config.folder))
            if task_of:
                patch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, task_of)
            return read_folder()

    return parse


@pytest.fixture(scope="session")
def dags_of(parse_with: Callable[..., Parsed]) -> ReadDags:
    """The Dags of other config files. Fails with Airflow's own message when a file cannot be read."""

    def read(arrange: Arrange, *, task_of: str | None = None) -> dict[str, Any]:
        parsed = parse_with(arrange, task_of=task_of)
        assert not parsed.errors, "\n".join(parsed.errors.values())
        return parsed.dags

    return read
