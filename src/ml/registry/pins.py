"""The feature tables and columns that a version of a model reads: recorded when it is trained, and again at its promotion.

A version is scored with what it was trained on, whatever the model's file says now: so a feature table can get a new
version beside the old one, and the promotion of a model that reads it switches both in one record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml.config.sections import Population
from ml.errors import StageError
from ml.features.rows import Pins, pins_of
from ml.ops.production_log import Entry
from ml.registry import model_versions

if TYPE_CHECKING:
    from ml.config import ModelConfig
    from ml.models.frames import Feature
    from ml.registry.model_versions import Version

FILE = "config.json"  # artifact of a training run: the model's config


def read_pins(version: Version) -> Pins | None:
    """What a version was trained on; None when it was trained before models named their feature tables."""
    try:
        recorded = json.loads(model_versions.read_artifact(version, FILE))
    except ValueError as error:
        raise StageError(f"{version}: artifact {FILE} of run {version.run_id} is not JSON: {error}") from error
    if "entity" not in recorded:
        return None
    if examples := recorded.get("examples"):
        return Pins({examples["table"]: tuple(examples["columns"])})
    features = {table: tuple(columns) for table, columns in recorded["features"].items()}
    return Pins(features, _population(recorded.get("population")))


def record(pins: Pins | None) -> dict[str, Any]:
    """The fields of an entry of the production log that say what its version reads."""
    if pins is None:
        return {"features": None, "population": None}
    return {
        "features": dict(pins.features),
        "population": pins.population.model_dump() if pins.population is not None else None,
    }


def pins_of_entry(config: ModelConfig, entry: Entry, features: Sequence[Feature]) -> Pins:
    """What the version of an entry reads. `features` are the inputs of its model.

    An entry that does not record it gets what the model's file says, without columns that the model does not take.
    Raises StageError when that file lacks a column that the model takes.
    """
    if entry.features is not None:
        return Pins(entry.features, _population(entry.population))
    return _pins_of_file(config, f"{entry.model} version {entry.version}", features)


def pins_of_version(config: ModelConfig, version: Version, features: Sequence[Feature]) -> Pins:
    """What a version reads, whether it is in production or not; see `pins_of_entry`."""
    return read_pins(version) or _pins_of_file(config, str(version), features)


def _pins_of_file(config: ModelConfig, who: str, features: Sequence[Feature]) -> Pins:
    names = [feature.name for feature in features]
    if missing := [name for name in names if name not in config.feature_names]:
        raise StageError(
            f"{who} takes {', '.join(missing)}, which config/models/{config.model}.yaml does not name, and it is from a "
            "release that did not record feature tables: name the columns there, or promote another version"
        )
    pins = pins_of(config)
    return Pins(
        {table: tuple(column for column in columns if column in names) for table, columns in pins.features.items()},
        pins.population,
    )


def trained_config(config: ModelConfig, version: Version) -> ModelConfig:
    """The model's config with the tables, columns and population that a version was trained on."""
    pins = read_pins(version)
    if pins is None:
        return config
    if not pins.is_of_examples:
        changes = {"features": dict(pins.features), "population": pins.population, "examples": None}
        return config.model_copy(update=changes)
    ((table, columns),) = pins.features.items()
    if config.examples is None:
        raise StageError(
            f"{version} learnt from examples of {table}, and config/models/{config.model}.yaml has none now: train "
            "another version"
        )
    examples = config.examples.model_copy(update={"table": table, "columns": columns})
    return config.model_copy(update={"examples": examples})


def _population(recorded: Any) -> Population | None:
    return None if recorded is None else Population.model_validate(dict(recorded))
