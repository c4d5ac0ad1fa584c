"""The Dags as Airflow reads them from the files, without a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml.resources import resource_dir

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"


def read_dags() -> dict[str, Any]:
    """Every Dag of the folder by id. Fails with Airflow's own message when a file cannot be read."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(DAGS)
    assert not bag.import_errors, "\n".join(bag.import_errors.values())
    return dict(bag.dags)


@pytest.fixture(scope="session")
def dags() -> dict[str, Any]:
    """The Dags of the shipped configuration."""
    return read_dags()


@pytest.fixture(scope="session")
def dags_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Dags of models derived from the shipped one: `dags_of({"model": "margin"}, …)`, each with its changed settings.

    `task_of`: the Dag of a starting task, which Airflow names when it reads the files.
    """
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID

    def make(*changes: dict[str, Any], task_of: str | None = None) -> dict[str, Any]:
        resources = tmp_path_factory.mktemp("resources")
        folder = resources / "config"
        folder.mkdir()
        shipped = (resource_dir("config") / "churn.yaml").read_text(encoding="utf-8")
        for change in changes:
            settings = yaml.safe_load(shipped)
            for section, value in change.items():
                settings[section] = {**settings[section], **value} if isinstance(value, dict) else value
            (folder / f"{settings['model']}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ML_RESOURCES", str(resources))
            if task_of:
                patch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, task_of)
            return read_dags()

    return make
