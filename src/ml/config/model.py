"""The config of one model, from `config/<model>.yaml`: names, schedules, thresholds.

Everything is frozen and refuses unknown keys, so a misspelt threshold stops the load and never becomes a silent
default.
"""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from ml.config.gate import Approval, Evaluate, Gate
from ml.config.sections import Clean, Compute, Features, Label, Landing, Monitor, Report, Schedule, Score
from ml.config.train import Train
from ml.config.types import Frozen, Text


class ModelConfig(Frozen):
    """All settings of one model. `model` is its name: Dag ids and the registry use it."""

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
    def _check_gate_matches_evaluate(self) -> ModelConfig:
        """A check that is measured but not gated has no effect; one that is gated but not measured never passes."""
        measured, gated = {check.name for check in self.evaluate.behaviour}, self.gate.max_violations.keys()
        if mismatched := measured ^ gated:
            raise ValueError(
                f"gate.max_violations and evaluate.behaviour must name the same checks: {sorted(mismatched)}"
            )
        if missing := {rule.column for rule in self.gate.fairness} - set(self.evaluate.groups.columns):
            raise ValueError(f"gate.fairness needs {sorted(missing)} among evaluate.groups.columns")
        return self

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError("not a time zone of the IANA database, such as Europe/London") from error
        return name
