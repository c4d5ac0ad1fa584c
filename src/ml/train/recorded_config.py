"""Reads the config that a model version was trained with, as this release or one before it has recorded it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ml.config import ModelConfig

REMOVED = (
    "landing",
    "clean",
    "compute",
    "report",
)  # sections of a model before 0.3 that fitting it again does not need


def parse(text: bytes, features: Sequence[str]) -> tuple[ModelConfig, bool]:
    """The config, and whether a release before 0.3 has recorded it. `features` are the columns that the model takes.

    Raises ValueError naming the keys that do not fit.
    """
    recorded = json.loads(text)
    if not isinstance(recorded, dict):
        raise ValueError(f"found {type(recorded).__name__}; a mapping of settings is needed")
    is_before_0_3 = "entity" not in recorded
    try:
        if is_before_0_3:
            recorded = _converted(recorded, features)
        return ModelConfig.model_validate_json(json.dumps(recorded)), is_before_0_3
    except KeyError as error:
        raise ValueError(f"the key {error} is missing") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ValueError(problems) from error


def _converted(old: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """The same model in the keys of this release: enough to read its training set and to fit it again."""
    table = old["features"]
    label = {key: old["label"].get(key) for key in ("name", "query", "horizon_days", "export")}
    return {
        **{key: value for key, value in old.items() if key not in REMOVED},
        "schedule": {key: old["schedule"][key] for key in ("train", "report")},
        "entity": table["key"],
        "features": {table["table"].rpartition(".")[2]: list(features)},
        "label": {**label, "inputs": [table["source"]]},
        "train": {**old["train"], "min_history_days": table["active_days"]},
    }
