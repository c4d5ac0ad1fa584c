"""The section `train` of a model config, with the searches that it may request."""

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
    def _check_range(self) -> Uniform:
        if not self.min_value < self.max_value:
            raise ValueError(
                f"{self.type} needs min_value below max_value; found {self.min_value} and {self.max_value}"
            )
        return self


class EarlyTermination(Frozen):
    """When a trial that falls behind the others is stopped. Policies and names are Azure ML's."""

    type: Literal["bandit", "median_stopping", "truncation_selection"]
    evaluation_interval: Annotated[int, Field(ge=1)]
    delay_evaluation: Annotated[int, Field(ge=0)] = 0
    slack_factor: Annotated[float, Field(gt=0)] | None = None
    truncation_percentage: Annotated[int, Field(ge=1, le=99)] | None = None

    @model_validator(mode="after")
    def _check_limit(self) -> EarlyTermination:
        needed = {"bandit": "slack_factor", "truncation_selection": "truncation_percentage"}.get(self.type)
        for name in ("slack_factor", "truncation_percentage"):
            if (getattr(self, name) is not None) != (name == needed):
                raise ValueError(f"{self.type} {'needs' if name == needed else 'has no'} {name}")
        return self


class Sweep(Frozen):
    """`train.method: sweep`: trials on the older training cut-offs; the model is then trained with the best parameters."""

    sampling: Literal["random", "bayesian", "grid"]
    max_trials: Annotated[int, Field(ge=1, le=1000)]
    max_concurrent: Annotated[int, Field(ge=1)]
    timeout_seconds: Annotated[int, Field(ge=60)]
    trial_timeout_seconds: Annotated[int, Field(ge=60)]
    early_termination: EarlyTermination | None
    space: dict[str, Annotated[Choice | Uniform, Field(discriminator="type")]]

    @model_validator(mode="after")
    def _check_sampling(self) -> Sweep:
        allowed = {"bayesian": ("choice", "uniform"), "grid": ("choice",)}.get(self.sampling)
        if allowed and (
            others := sorted(name for name, dimension in self.space.items() if dimension.type not in allowed)
        ):
            raise ValueError(
                f"{self.sampling} sampling takes {' and '.join(allowed)} only; found others in: {', '.join(others)}"
            )
        if self.sampling == "bayesian" and self.early_termination:
            raise ValueError("bayesian sampling stops no trial early: early_termination must be null")
        return self


class AutoMl(Frozen):
    """`train.method: automl`: the limits of Azure ML's AutoML, under its own names."""

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
        """Columns of AutoML's data, one per fold: 1 in the rows that are fitted, 0 in those that are scored."""
        return tuple(f"fit_in_fold_{n}" for n in range(1, self.folds + 1))


class Train(Frozen):
    table: TableName
    method: Literal["job", "sweep", "automl"]
    algorithm: Literal["lightgbm"]
    test_cutoffs: Days | None = None
    train_cutoffs: Days | None = None
    step_days: Days | None = None
    min_history_days: Days | None = None
    min_train_rows: Annotated[int, Field(ge=1)]
    max_auc_alone: Annotated[float, Field(gt=0.5, le=1)]
    seed: int
    params: dict[str, int | float | str | bool]
    sweep: Sweep | None = None
    automl: AutoMl | None = None

    @model_validator(mode="after")
    def _check_method(self) -> Train:
        if self.method != "job" and getattr(self, self.method) is None:
            raise ValueError(f"method {self.method} needs the section train.{self.method}")
        return self

    @field_validator("params")
    @classmethod
    def _check_params(cls, params: dict[str, int | float | str | bool]) -> dict[str, int | float | str | bool]:
        if missing := {"n_estimators", "num_threads"} - params.keys():
            raise ValueError(
                f"{', '.join(sorted(missing))} must be set: without it the same inputs may give different models"
            )
        if fixed := {"deterministic", "force_row_wise", "objective", "seed", "verbosity"} & params.keys():
            raise ValueError(
                f"{', '.join(sorted(fixed))} must not be set here: training sets it; the seed is train.seed"
            )
        return params
