"""Sections of a model config: schedule, landing, clean, features, label, score, monitor, compute and report."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Column, Cron, Days, Frozen, QueryName, Share, TableName, Text


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
