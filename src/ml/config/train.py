"""How a model is trained: the section `train` of its config, and the searches that it may ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Days, Frozen, TableName, Text


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

    @property
    def fold_columns(self) -> tuple[str, ...]:
        """Of AutoML's data, one for each fold: 0 in the rows that it is scored on, 1 in those that are fitted."""
        return tuple(f"fit_in_fold_{n}" for n in range(1, self.folds + 1))


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
                f"{', '.join(sorted(fixed))} must not be set here: src/ml/stages/train.py fixes it, seed is a key"
            )
        return params
