"""A model, from `config/models/<model>.yaml`: names, schedules, thresholds.

Everything is frozen and refuses unknown keys, so a misspelt threshold stops the load and never becomes a silent
default.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ml.config.gate import Approval, Evaluate, Gate
from ml.config.sections import Examples, Label, Monitor, Population, Report, Schedule, Score
from ml.config.train import Train
from ml.config.types import Column, Frozen, Name, Text, TimeZone

RESERVED_FEATURES = ("as_of", "split")  # columns of a training set besides entity, label and features
CUTOFF_KEYS = ("test_cutoffs", "train_cutoffs", "step_days", "min_history_days")


class ModelConfig(Frozen):
    """All settings of one model. `model` is its name: Dag ids and the registry use it.

    It learns either from `features` (columns of feature tables as of past cut-offs, with a label query) or from
    `examples` (rows that have their label).
    """

    model: Name
    owner: Text
    description: Text
    experiment: Text
    timezone: TimeZone
    schedule: Schedule
    entity: Column
    features: dict[Name, Annotated[tuple[Column, ...], Field(min_length=1)]] = Field(default_factory=dict)
    population: Population | None = None
    examples: Examples | None = None
    label: Label
    train: Train
    evaluate: Evaluate
    gate: Gate
    approval: Approval
    score: Score
    monitor: Monitor
    report: Report | None = None

    @property
    def name(self) -> str:
        return self.model

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns that the model learns from, in their order."""
        if self.examples is not None:
            return self.examples.columns
        return tuple(column for columns in self.features.values() for column in columns)

    @model_validator(mode="after")
    def _check_rows(self) -> ModelConfig:
        """Either feature tables with a label query, or a table of examples; each with its own keys and no other."""
        if (self.examples is None) == (not self.features):
            raise ValueError("either features (tables, and their columns) or examples (a table) is needed")
        cutoffs = [key for key in CUTOFF_KEYS if getattr(self.train, key) is not None]
        if self.examples is not None:
            if self.label.query is not None or self.population is not None or cutoffs:
                unused = [*(["label.query"] if self.label.query else []), *(["population"] if self.population else [])]
                raise ValueError(
                    f"examples has no use for {', '.join([*unused, *(f'train.{key}' for key in cutoffs)])}"
                )
        elif self.label.query is None:
            raise ValueError("label.query: feature tables have no label; a query gives it")
        elif missing := [f"train.{key}" for key in CUTOFF_KEYS if key not in cutoffs]:
            raise ValueError(f"{', '.join(missing)}: missing; cut-offs are chosen by them")
        return self

    @model_validator(mode="after")
    def _check_feature_names(self) -> ModelConfig:
        names = self.feature_names
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"features: {', '.join(repeated)}: more than once; the model's columns need unique names")
        if taken := sorted({*RESERVED_FEATURES, self.entity, self.label.name} & set(names)):
            raise ValueError(f"features: {', '.join(taken)}: the name of another column of the training set")
        return self

    @model_validator(mode="after")
    def _check_gate_matches_evaluate(self) -> ModelConfig:
        """A check that is measured but not gated has no effect; one that is gated but not measured never passes."""
        measured, gated = {check.name for check in self.evaluate.behaviour}, self.gate.max_violations.keys()
        if mismatched := measured ^ gated:
            raise ValueError(
                f"gate.max_violations and evaluate.behaviour must name the same checks: {sorted(mismatched)}"
            )
        if missing := {rule.column for rule in self.gate.fairness} - set(self.evaluate.groups.columns):
            raise ValueError(f"gate.fairness needs {sorted(missing)} among evaluate.groups.columns")
        for place, column in self._named_columns():
            if column not in self.feature_names:
                raise ValueError(
                    f"{place}: {column} is not among the model's features: {', '.join(self.feature_names)}"
                )
        return self

    def _named_columns(self) -> list[tuple[str, str]]:
        """Columns that other sections name, and where."""
        named = [("evaluate.groups.columns", column) for column in self.evaluate.groups.columns]
        for check in self.evaluate.behaviour:
            named += [(f"evaluate.behaviour {check.name}", column) for column in (*check.replace, *check.add)]
            named += [(f"evaluate.behaviour {check.name}", by) for by in check.add.values() if isinstance(by, str)]
        if self.train.automl is not None:
            named += [("train.automl.imputation", column) for column in self.train.automl.imputation]
        return named
