"""Sections of a model config: schedule, population, examples, label, score, monitor and report."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Column, Cron, Days, Frozen, QueryName, Settings, Share, TableName, Text


class Schedule(Frozen):
    train: Cron
    report: Cron


class Population(Frozen):
    """Who is trained on and scored: a query over the model's feature tables that gives entity and as_of."""

    query: QueryName
    settings: Settings = Field(default_factory=dict)


class Split(Frozen):
    """How a table of examples is split into training and test rows.

    `by: day`: the newest `test_share` of the days are the test. `by: key`: a share of the keys, whatever their day.
    """

    by: Literal["day", "key"]
    test_share: Annotated[float, Field(gt=0, lt=1)]


class Examples(Frozen):
    """Rows that are learnt from and scored as they come: each has its features, and its label once it is known."""

    table: TableName
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    split: Split
    restate_days: Days


class LabelExport(Frozen):
    """Labels that people gave in Azure ML Data Labeling; see `ml.train.human_labels`."""

    folder: Annotated[str, Field(pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)*$")]  # in the lake's container
    item: Text  # regular expression with the groups key and as_of, searched in an item's address
    positive: Annotated[tuple[Text, ...], Field(min_length=1)]
    negative: Annotated[tuple[Text, ...], Field(min_length=1)]
    min_confidence: Share
    only: bool  # leave out customers without a label in the export; else the query's label is used

    @model_validator(mode="after")
    def _check_classes(self) -> LabelExport:
        try:
            groups = set(re.compile(self.item).groupindex)
        except re.error as error:
            raise ValueError(f"item {self.item!r} is not a regular expression: {error}") from error
        if groups != {"key", "as_of"}:
            raise ValueError(f"item {self.item!r} must have the groups (?P<key>…) and (?P<as_of>…), and no others")
        if both := set(self.positive) & set(self.negative):
            raise ValueError(f"classes that are both positive and negative: {sorted(both)}")
        return self


class Label(Frozen):
    """What is learnt. `query` reads `population` and the `inputs`, whose facts end `horizon_days` after the cut-off.

    In a table of examples the label is a column (`query: null`), NULL while it is not known.
    """

    name: Column
    query: QueryName | None = None
    settings: Settings = Field(default_factory=dict)
    inputs: tuple[TableName, ...] = ()
    horizon_days: Days | None = None
    export: LabelExport | None = None

    @model_validator(mode="after")
    def _check_query(self) -> Label:
        given = {"inputs": bool(self.inputs), "horizon_days": self.horizon_days is not None}
        if self.query is None and (self.settings or self.export or any(given.values())):
            raise ValueError("without a query the label is a column: leave out settings, inputs, horizon_days, export")
        if self.query is not None and (missing := [name for name, is_given in given.items() if not is_given]):
            raise ValueError(f"a label query needs {' and '.join(missing)}")
        return self


class Band(Frozen):
    name: Text
    at_least: Share


class Score(Frozen):
    table: TableName
    rescore_days: Annotated[int, Field(ge=0)]
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]

    @field_validator("bands")
    @classmethod
    def _check_bands(cls, bands: tuple[Band, ...]) -> tuple[Band, ...]:
        floors = [band.at_least for band in bands]
        if floors != sorted(set(floors), reverse=True) or floors[-1] != 0:
            raise ValueError(f"bands must fall strictly and end at 0.0, so that every score has one; found {floors}")
        names = [band.name for band in bands]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"each band needs a unique name; found more than once: {sorted(repeated)}")
        return bands


class Monitor(Frozen):
    table: TableName
    psi_threshold: Annotated[float, Field(gt=0)]
    drifted_share: Share
    bins: Annotated[int, Field(ge=2)]


class Report(Frozen):
    connection: Text
    timeout_seconds: Annotated[int, Field(ge=1)]
