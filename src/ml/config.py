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
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1)]
TableName = Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]

_CRON = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))


def _cron(text: str) -> str:
    """Airflow would find a bad schedule too, but only while it reads the Dags, and without the key's name."""
    fields = text.split()
    if len(fields) != len(_CRON):
        raise ValueError('a cron expression of five fields is needed, such as "0 6 * * *"')
    for field, (name, least, most) in zip(fields, _CRON, strict=True):
        for item in field.split(","):
            found = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/[1-9]\d*)?", item, re.ASCII)
            if not found or not all(least <= int(number) <= most for number in found.groups() if number):
                raise ValueError(
                    f"the cron expression's {name} is {field!r}; numbers from {least} to {most} are allowed"
                )
    return text


Cron = Annotated[str, AfterValidator(_cron)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


QueryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]  # of include/sql/<name>.sql
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]


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


class Choice(Frozen):
    type: Literal["choice"]
    values: Annotated[tuple[int | float | str | bool, ...], Field(min_length=1)]


class Uniform(Frozen):
    """From `min_value` to `max_value`; `loguniform` takes these as natural logarithms, as Azure ML does."""

    type: Literal["uniform", "loguniform"]
    min_value: float
    max_value: float

    @model_validator(mode="after")
    def _a_range(self) -> Uniform:
        if not self.min_value < self.max_value:
            raise ValueError(
                f"{self.type} needs min_value below max_value; found {self.min_value} and {self.max_value}"
            )
        return self


class EarlyTermination(Frozen):
    """When a trial that falls behind the others is ended; Azure ML's policies in its own words."""

    type: Literal["bandit", "median_stopping", "truncation_selection"]
    evaluation_interval: Annotated[int, Field(ge=1)]
    delay_evaluation: Annotated[int, Field(ge=0)] = 0
    slack_factor: Annotated[float, Field(gt=0)] | None = None
    truncation_percentage: Annotated[int, Field(ge=1, le=99)] | None = None

    @model_validator(mode="after")
    def _its_own_limit(self) -> EarlyTermination:
        needed = {"bandit": "slack_factor", "truncation_selection": "truncation_percentage"}.get(self.type)
        for name in ("slack_factor", "truncation_percentage"):
            if (getattr(self, name) is not None) != (name == needed):
                raise ValueError(f"{self.type} {'needs' if name == needed else 'knows no'} {name}")
        return self


class Sweep(Frozen):
    """`train.method: sweep`: parameters tried on the older training cut-offs before the model is trained with the best."""

    sampling: Literal["random", "bayesian", "grid"]
    max_trials: Annotated[int, Field(ge=1, le=1000)]
    max_concurrent: Annotated[int, Field(ge=1)]
    timeout_seconds: Annotated[int, Field(ge=60)]
    trial_timeout_seconds: Annotated[int, Field(ge=60)]
    early_termination: EarlyTermination | None
    space: dict[str, Annotated[Choice | Uniform, Field(discriminator="type")]]

    @model_validator(mode="after")
    def _as_azure_ml_takes_it(self) -> Sweep:
        allowed = {"bayesian": ("choice", "uniform"), "grid": ("choice",)}.get(self.sampling)
        if allowed and (strays := sorted(name for name, told in self.space.items() if told.type not in allowed)):
            raise ValueError(
                f"{self.sampling} sampling takes {' and '.join(allowed)} only; not so: {', '.join(strays)}"
            )
        if self.sampling == "bayesian" and self.early_termination:
            raise ValueError("bayesian sampling ends no trial early: early_termination must be null")
        return self


class AutoMl(Frozen):
    """`train.method: automl`: the limits of Azure ML's AutoML, in its own words."""

    metric: Literal["auc_weighted", "accuracy", "norm_macro_recall", "average_precision_score_weighted"]
    folds: Annotated[int, Field(ge=2, le=20)]
    timeout_seconds: Annotated[int, Field(ge=60)]
    trial_timeout_seconds: Annotated[int, Field(ge=60)]
    max_trials: Annotated[int, Field(ge=1, le=1000)]
    max_concurrent: Annotated[int, Field(ge=1)]
    early_termination: bool
    algorithms: Annotated[tuple[Text, ...], Field(min_length=1)]
    vote_ensemble: bool
    stack_ensemble: bool
    imputation: dict[str, Literal["mean", "median", "most_frequent", "constant"]]


class Train(Frozen):
    table: TableName
    method: Literal["job", "sweep", "automl"]
    algorithm: Literal["lightgbm"]
    test_cutoffs: Days
    train_cutoffs: Days
    step_days: Days
    min_train_rows: Annotated[int, Field(ge=1)]
    max_auc_alone: Annotated[float, Field(gt=0.5, le=1)]
    seed: int
    params: dict[str, int | float | str | bool]
    sweep: Sweep
    automl: AutoMl

    @field_validator("params")
    @classmethod
    def _repeatable(cls, params: dict[str, int | float | str | bool]) -> dict[str, int | float | str | bool]:
        if missing := {"n_estimators", "num_threads"} - params.keys():
            raise ValueError(
                f"{', '.join(sorted(missing))} must be set: without, the same inputs need not give one model"
            )
        if fixed := {"deterministic", "force_row_wise", "objective", "seed", "verbosity"} & params.keys():
            raise ValueError(
                f"{', '.join(sorted(fixed))} must not be set here: src/ml/train.py fixes it, seed is a key"
            )
        return params


class Groups(Frozen):
    """Columns by whose values a model is compared with itself: does it serve some customers worse?"""

    columns: tuple[Text, ...]
    min_rows: Annotated[int, Field(ge=1)]


class Behaviour(Frozen):
    """A change to every customer after which the probability may not rise, or may not fall."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    replace: dict[str, float] = {}
    add: dict[str, float | str] = {}  # a number, or the column that holds it
    expect: Literal["not_higher", "not_lower"]
    tolerance: Share

    @model_validator(mode="after")
    def _changes_something(self) -> Behaviour:
        if not self.replace and not self.add:
            raise ValueError(f"behaviour '{self.name}': replace or add must change a column")
        if both := self.replace.keys() & self.add.keys():
            raise ValueError(f"behaviour '{self.name}': {', '.join(sorted(both))} is both replaced and added to")
        return self


class Evaluate(Frozen):
    threshold: Share
    bootstrap: Annotated[int, Field(ge=100)]
    calibration_bins: Annotated[int, Field(ge=2)]
    groups: Groups
    behaviour: tuple[Behaviour, ...]

    @field_validator("behaviour")
    @classmethod
    def _named_apart(cls, checks: tuple[Behaviour, ...]) -> tuple[Behaviour, ...]:
        names = [check.name for check in checks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"each needs a name of its own; found more than once: {sorted(twice)}")
        return checks


class Rule(Frozen):
    """One bound on one metric, and how much worse than the champion it may be."""

    metric: Literal["accuracy", "average_precision", "ece", "f1", "log_loss", "precision", "recall", "roc_auc"]
    at_least: float | None = None
    at_most: float | None = None
    max_loss: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Rule:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"gate rule '{self.metric}': set at_least or at_most, and not both")
        if (self.at_most is not None) != (self.metric in ("ece", "log_loss")):
            raise ValueError(f"gate rule '{self.metric}': the bound is on the side where the metric is good")
        return self


class FairnessRule(Frozen):
    """How far apart the groups of one column may be in one metric."""

    column: Text
    metric: Literal["accuracy", "precision", "recall", "selection_rate"]
    max_difference: Share
    when_one_group: Literal["pass", "fail"]


class Gate(Frozen):
    min_rows: Annotated[int, Field(ge=1)]
    min_per_class: Annotated[int, Field(ge=1)]
    when_equal: Literal["keep", "promote"]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    fairness: tuple[FairnessRule, ...]
    max_violations: dict[str, Share]  # by the names of evaluate.behaviour
    max_ms_per_1000_rows: Annotated[float, Field(gt=0)]
    max_model_mb: Annotated[float, Field(gt=0)]

    @field_validator("rules")
    @classmethod
    def _compares(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not any(rule.max_loss is not None for rule in rules):
            raise ValueError("one rule at least needs max_loss: else nothing is compared with the champion")
        names = [rule.metric for rule in rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"one rule per metric; found more than one of {sorted(twice)}")
        return rules


class Approvers(Frozen):
    """Who has to agree in one environment: one person with one of the roles. No roles: the gate alone decides."""

    roles: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")], ...]
    hours: Annotated[int, Field(ge=1, le=24 * 30)] | None = None

    @model_validator(mode="after")
    def _a_limit(self) -> Approvers:
        if bool(self.roles) != (self.hours is not None):
            raise ValueError("roles and hours belong together: within how many hours must one of them have answered?")
        return self


class Approval(Frozen):
    environments: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,49}$")], Approvers], Field(min_length=1)
    ]


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
