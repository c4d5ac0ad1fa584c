"""The sections `evaluate`, `gate` and `approval` of a model config: when a model may go into production."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Frozen, Share, Text


class Groups(Frozen):
    """Columns whose values split the customers into groups: does the model serve some groups worse?"""

    columns: tuple[Text, ...]
    min_rows: Annotated[int, Field(ge=1)]


class Behaviour(Frozen):
    """A behavioural test: a change to every customer, after which the probability may not rise, or may not fall."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
    replace: dict[str, float] = Field(default_factory=dict)
    add: dict[str, float | str] = Field(default_factory=dict)  # a number, or the column that holds it
    expect: Literal["not_higher", "not_lower"]
    tolerance: Share

    @model_validator(mode="after")
    def _check_change(self) -> Behaviour:
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
    def _check_names(cls, checks: tuple[Behaviour, ...]) -> tuple[Behaviour, ...]:
        names = [check.name for check in checks]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"each needs a unique name; found more than once: {sorted(repeated)}")
        return checks


class Rule(Frozen):
    """A bound on one metric, and by how much it may be worse than the champion's."""

    metric: Literal["accuracy", "average_precision", "ece", "f1", "log_loss", "precision", "recall", "roc_auc"]
    at_least: float | None = None
    at_most: float | None = None
    max_loss: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_bound(self) -> Rule:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"gate rule '{self.metric}': set at_least or at_most, and not both")
        if (self.at_most is not None) != (self.metric in ("ece", "log_loss")):
            raise ValueError(f"gate rule '{self.metric}': use at_most for ece and log_loss, else at_least")
        return self


class FairnessRule(Frozen):
    """The largest difference that the groups of one column may have in one metric."""

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
    def _check_rules(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not any(rule.max_loss is not None for rule in rules):
            raise ValueError("at least one rule needs max_loss: else nothing is compared with the champion")
        names = [rule.metric for rule in rules]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"one rule per metric; found more than one of {sorted(repeated)}")
        return rules


class Approvers(Frozen):
    """Who must approve in one environment: one person with one of the roles. Without roles the gate alone decides."""

    roles: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")], ...]
    hours: Annotated[int, Field(ge=1, le=24 * 30)] | None = None

    @model_validator(mode="after")
    def _check_hours(self) -> Approvers:
        if bool(self.roles) != (self.hours is not None):
            raise ValueError("set roles and hours together: hours is the time within which one of them must respond")
        return self


class Approval(Frozen):
    environments: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,49}$")], Approvers], Field(min_length=1)
    ]
