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


def test_in_words(evaluation: Mapping[str, Any]) -> str:
    """Which rows the test has: those of cut-offs, or of a table of examples split by day or by key."""
    days = list(evaluation.get("test_as_of") or ())
    if not days:
        return "none"
    split = evaluation.get("split", "cut-off")  # older evaluations are all by cut-off
    if split == "cut-off":
        return f"cut-offs {', '.join(days)}"
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"days {span}" if split == "day" else f"keys that were not trained on, days {span}"


def publish(version: Version) -> str:
    """Copy a version's page from MLflow to the reports store; returns its name there."""
    name = f"models/{version.model}/{version.number}.html"
    stores.reports().write(name, model_versions.read_artifact(version, PAGE), "text/html; charset=utf-8")
    return name
