"""What one model is: names, schedules, thresholds. Loaded from `config/<model>.yaml`.

Everything is frozen and refuses unknown keys, so a misspelt threshold stops the load and never
becomes a silent default. Imports stay light: Dag files read this at parse time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ml.config_gate import Approval, Evaluate, Gate
from ml.config_training import Train
from ml.config_types import Column, Cron, Days, Frozen, QueryName, Share, TableName, Text


class ConfigError(ValueError):
    """A config file that cannot be used; the message names file, key, what was found and what is allowed."""


class Schedule(Frozen):
    calendar: Cron
    sweep: Cron
    train: Cron
    report: Cron
    ask_again_minutes: Annotated[int, Field(ge=1)]


class Landing(Frozen):
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    bulk_days: Days
    empty_file: Literal["fail", "accept"]
    max_file_rows: Annotated[int, Field(ge=1)]
    max_file_mb: Annotated[int, Field(ge=1)]


class Clean(Frozen):
    max_abs_quantity: Annotated[float, Field(gt=0)]
    max_abs_amount: Annotated[float, Field(gt=0)]
    max_quarantined_share: Share


class Features(Frozen):
    table: TableName
    key: Column
    source: TableName
    query: QueryName
    active_days: Days
    restate_days: Days


class LabelExport(Frozen):
    """Labels that people gave in Azure ML Data Labeling; see `ml.labelled`."""

    folder: Annotated[str, Field(pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)*$")]  # in the lake's container
    item: Text  # regular expression with the groups key and as_of, looked for in an item's address
    positive: Annotated[tuple[Text, ...], Field(min_length=1)]
    negative: Annotated[tuple[Text, ...], Field(min_length=1)]
    min_confidence: Share
    only: bool  # leave out who has no label in it; else the query's label stands

    @model_validator(mode="after")
    def _tells_apart(self) -> LabelExport:
        try:
            groups = set(re.compile(self.item).groupindex)
        except re.error as error:
            raise ValueError(f"item {self.item!r} is no regular expression: {error}") from error
        if groups != {"key", "as_of"}:
            raise ValueError(f"item {self.item!r} must have the groups (?P<key>…) and (?P<as_of>…), and no other")
        if both := set(self.positive) & set(self.negative):
            raise ValueError(f"classes that are both positive and negative: {sorted(both)}")
        return self


class Label(Frozen):
    name: Column
    query: QueryName
    horizon_days: Days
    export: LabelExport | None


class Band(Frozen):
    name: Text
    at_least: Share


class Score(Frozen):
    table: TableName
    rescore_days: Annotated[int, Field(ge=0)]
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]

    @field_validator("bands")
    @classmethod
    def _falling_to_zero(cls, bands: tuple[Band, ...]) -> tuple[Band, ...]:
        floors = [band.at_least for band in bands]
        if floors != sorted(set(floors), reverse=True) or floors[-1] != 0:
            raise ValueError(f"bands must fall strictly and end at 0.0, so that every score has one; found {floors}")
        names = [band.name for band in bands]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"each band needs a name of its own; found more than once: {sorted(twice)}")
        return bands


class Monitor(Frozen):
    table: TableName
    psi_threshold: Annotated[float, Field(gt=0)]
    drifted_share: Share
    bins: Annotated[int, Field(ge=2)]


class Databricks(Frozen):
    cluster: Text
    timeout_seconds: Annotated[int, Field(ge=1)]


class AzureMl(Frozen):
    compute: Text
    environment: Text
    timeout_seconds: Annotated[int, Field(ge=1)]


class Compute(Frozen):
    databricks: Databricks
    azure_ml: AzureMl


class Report(Frozen):
    timeout_seconds: Annotated[int, Field(ge=1)]


class Model(Frozen):
    """All there is to know of one model. `model` is its name: Dag ids and the registry use it."""

    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    owner: Text
    description: Text
    experiment: Text
    timezone: str
    schedule: Schedule
    landing: Landing
    clean: Clean
    features: Features
    label: Label
    train: Train
    evaluate: Evaluate
    gate: Gate
    approval: Approval
    score: Score
    monitor: Monitor
    compute: Compute
    report: Report

    @model_validator(mode="after")
    def _gate_holds_what_is_measured(self) -> Model:
        """A check that is measured and not gated would be decoration; one gated and not measured could never pass."""
        measured, gated = {check.name for check in self.evaluate.behaviour}, self.gate.max_violations.keys()
        if odd := measured ^ gated:
            raise ValueError(f"gate.max_violations and evaluate.behaviour must name the same checks: {sorted(odd)}")
        if odd := {rule.column for rule in self.gate.fairness} - set(self.evaluate.groups.columns):
            raise ValueError(f"gate.fairness needs {sorted(odd)} among evaluate.groups.columns")
        return self

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError("not a time zone of the IANA database, such as Europe/London") from error
        return name


def resource_dir(kind: Literal["config", "sql", "expectations"]) -> Path:
    """Where the project's own files are: inside an installed wheel, else in the checkout."""
    packed = Path(str(files("ml"))) / "_data" / kind
    if packed.is_dir():
        return packed
    root = Path(__file__).resolve().parents[2]
    return root / ("config" if kind == "config" else f"include/{kind}")


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a key stands once: two values for one threshold are one too many."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for place, key in enumerate(keys):
        if any(key.value == before.value for before in keys[:place]):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands here twice", key.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _tuples(value: Any) -> Any:
    """YAML lists as tuples: strict, frozen models hold nothing that can be changed."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; allowed here: {', '.join(_allowed(problem['loc'][:-1]))}")
        else:
            lines.append(f"{key}: found {problem['input']!r}; {problem['msg']}")
    return f"{path}:\n  " + "\n  ".join(lines)


def _allowed(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the (nested) settings class that `loc` leads to."""
    kind: Any = Model
    for part in loc:
        if isinstance(part, str):
            kind = kind.model_fields[part].annotation
        while not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            kind = next(arg for arg in kind.__args__ if arg is not Ellipsis)
            if not hasattr(kind, "__args__"):
                break
    return sorted(kind.model_fields)


def load_file(path: Path) -> Model:
    """Read one config file. Raises ConfigError naming every bad key at once."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such model; there are: {known}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}; a mapping of settings is needed")
    try:
        model = Model.model_validate(_tuples(raw))
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error
    if model.model != path.stem:
        raise ConfigError(f"{path}: model: found {model.model!r}; must be the file's name, {path.stem!r}")
    return model


@cache
def load(name: str) -> Model:
    """The model called `name`, from `config/<name>.yaml`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise ConfigError(f"model name {name[:60]!r}: at most 50 lower-case letters, digits and _ only")
    return load_file(resource_dir("config") / f"{name}.yaml")


def load_all() -> Iterator[Model]:
    """Every model there is, by name. A bad file stops at that file."""
    for path in sorted(resource_dir("config").glob("*.yaml")):
        yield load(path.stem)
