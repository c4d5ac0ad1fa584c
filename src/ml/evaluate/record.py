"""The files of an evaluation: their names, digest and place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.registry.model_versions import Version
FILE = "evaluation.json"
PAGE = "report.html"


def digest(content: bytes) -> str:
    """What a decision is bound to: changes whenever the evaluation does."""
    return hashlib.sha256(content).hexdigest()[:16]


def to_json(found: Mapping[str, Any]) -> bytes:
    return json.dumps(found, sort_keys=True, allow_nan=False, indent=1).encode()


def publish(version: Version) -> str:
    """Copy a version's page from MLflow to the reports store; returns its name there."""
    from ml.registry import model_versions
    from ml.storage import stores

    name = f"models/{version.model}/{version.number}.html"
    stores.reports().write(name, model_versions.artifact(version, PAGE), "text/html; charset=utf-8")
    return name
