"""Reads the model registry that trainings have written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts


def versions() -> list[Any]:
    return list(MlflowClient().search_model_versions("name = 'churn'"))


def trees(number: str) -> bytes:
    return (Path(download_artifacts(artifact_uri=f"models:/churn/{number}")) / "model.lgb").read_bytes()
