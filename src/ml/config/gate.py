"""When a model may go into production: the sections `evaluate`, `gate` and `approval` of its config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Frozen, Share, Text


class Groups(Frozen):
    """Columns by whose values a model is compared with itself: does it serve some customers worse?"""

    columns: tuple[Text, ...]
    min_rows: Annotated[int, Field(ge=1)]


class Behaviour(Frozen):
    """A change to every customer after which the probability may not rise, or may not fall."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    replace: dict[str, float] = Field(default_factory=dict)
    add: dict[str, float | str] = Field(default_factory=dict)  # a number, or the column that holds it
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
