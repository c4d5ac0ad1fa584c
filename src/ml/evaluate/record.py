"""The files of an evaluation: their names, digest and place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml.registry import model_versions
from ml.storage import stores

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

FILE = "evaluation.json"
PAGE = "report.html"


def digest(content: bytes) -> str:
    """A decision is bound to this digest: it changes whenever the evaluation does."""
    return hashlib.sha256(content).hexdigest()[:16]


def to_json(evaluation: Mapping[str, Any]) -> bytes:
    return json.dumps(evaluation, sort_keys=True, allow_nan=False, indent=1).encode()


def read(version: Version) -> dict[str, Any]:
    """The evaluation of a registered version. Raises StageError when it was not logged."""
    evaluation: dict[str, Any] = json.loads(model_versions.read_artifact(version, FILE))
    return evaluation


def publish(version: Version) -> str:
    """Copy a version's page from MLflow to the reports store; returns its name there."""
    name = f"models/{version.model}/{version.number}.html"
    stores.reports().write(name, model_versions.read_artifact(version, PAGE), "text/html; charset=utf-8")
    return name
