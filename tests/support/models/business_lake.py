"""A lake in a folder with the businesses of `tests/businesses` beside the project's own, and stages run as commands."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ml.storage import stores
from tests.support.data.businesses import BUSINESSES, Business, copy, install, land
from tests.support.models.small_world import empty_mlflow
from tests.support.models.stages import ml
from tests.support.resources import Resources


class BusinessLake:
    """Landing, lake, reports and registry. `data` has the businesses' data sets by name."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, names: Sequence[str] = tuple(BUSINESSES)) -> None:
        self.folder = folder
        shutil.copy(empty_mlflow(), folder / "mlflow.db")
        patch.chdir(folder)  # MLflow puts the artifacts of a database on disk below the current folder
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("landing", "lake", "reports"):
            (folder / name).mkdir()
            patch.setenv(f"{name.upper()}_URI", (folder / name).as_uri())
        patch.setenv("ML_ENVIRONMENT", "local")
        self.resources = Resources(folder / "resources", patch)
        install(self.resources, *names)
        self.data: dict[str, Business] = {name: BUSINESSES[name]() for name in names}

    def bring(self, business: Business, source: str, *, late: bool = False, **days: date) -> dict[str, Any]:
        """Land, copy and ingest a source's days (all, or from `first` to `last`). Returns the facts of ingestion."""
        names = land(stores.landing(), business, source=source, late=late, **days)
        copy(stores.landing(), stores.lake(), names)
        landed = sorted({name.split("/")[1] for name in names})
        run_key = f"{source}-{landed[0]}-{landed[-1]}{'-late' if late else ''}"
        return ml("ingest", source=source, days=",".join(landed), run_key=run_key)

    def features(self, *names: str, as_of: Sequence[date]) -> None:
        for name in names:
            ml("features", table=name, as_of=",".join(map(str, as_of)), run_key=f"features-{name}-{as_of[-1]}")

    def champion(self, model: str, through: date) -> dict[str, Any]:
        """From silver to a promoted version. Returns the facts of training, with the gate's decision."""
        keys = {"model": model, "run_key": f"{model}-1"}
        version = ml("training_set", through=through, **keys)["version"]
        checked = ml("validate", suite="training", version=version, **keys)
        assert checked["failed"] == [], checked
        trained = ml("train", training_set_version=version, **keys)
        decision = ml("gate", model=model, version=trained["version"])
        assert decision["approved"], decision
        ml("promote", version=trained["version"], **keys)
        return trained
