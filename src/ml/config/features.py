"""A feature table, from `config/features/<table>.yaml`: what is computed per key and day, and from which tables."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from ml.config.types import Column, Days, Frozen, Name, QueryName, Settings, TableName, Text

RESERVED_PARAMETERS = ("as_of",)


def _parse_span(value: object) -> object:
    """`90d` as 90 days, `all` as None: no limit."""
    if value == "all":
        return None
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)d", value, re.ASCII)):
        return int(match.group(1))
    raise ValueError("a number of days such as 90d, or all")


def _print_span(value: int | None) -> str:
    return "all" if value is None else f"{value}d"


Span = Annotated[
    Days | None, BeforeValidator(_parse_span), PlainSerializer(_print_span, return_type=str, when_used="json")
]


class Window(Frozen):
    """The days of facts that reach a day: the day itself and those before it, `back` days in all; None: all days."""

    back: Span


class Edge(Frozen):
    """How a table reaches the feature table.

    Facts have a `window`. A snapshot has none: its rows as known on the day reach the day, those of the first snapshot
    before that; `max_age` limits how old the snapshot may be. `missing`: whether a day waits for this table
    (for `wait_until` at most, counted from the end of the day), or is carried without it and made again when it comes.
    """

    window: Window | None = None
    max_age: Span = None
    missing: Literal["wait", "carry"]
    wait_until: Span = None

    @model_validator(mode="after")
    def _check_kind(self) -> Edge:
        if self.window is not None and self.max_age is not None:
            raise ValueError("window is for facts and max_age for snapshots; an input has one of them")
        if self.missing == "carry" and self.wait_until is not None:
            raise ValueError("wait_until needs missing: wait")
        return self


class Rebuild(Frozen):
    """What rebuilds days by itself: changed data, changed code; `plan` leaves it to a person."""

    data: Literal["auto", "plan"]
    code: Literal["auto", "plan"]
    restate_days: Days
    revision: Annotated[int, Field(ge=1)] = 1  # raise it to make every built day out of date


def family_of(table: str) -> str:
    """The name that the versions of a feature table share: `customers` of `customers_v2`."""
    return re.sub(r"_v\d+$", "", table, flags=re.ASCII)


class FeatureTableConfig(Frozen):
    """All settings of one feature table. `table` is its name; other versions of it are tables of their own, `…_v2`."""

    table: Name
    owner: Text
    description: Text
    entity: Column
    query: QueryName
    settings: Settings = Field(default_factory=dict)
    inputs: Annotated[dict[TableName, Edge], Field(min_length=1)]
    rebuild: Rebuild

    @property
    def name(self) -> str:
        return self.table

    @property
    def table_name(self) -> str:
        """The table in the lake, with a partition per day in `as_of`."""
        return f"features.{self.table}"

    @property
    def family(self) -> str:
        return family_of(self.table)

    @model_validator(mode="after")
    def _check_names(self) -> FeatureTableConfig:
        if taken := [name for name in self.settings if name in RESERVED_PARAMETERS]:
            raise ValueError(f"settings: {', '.join(taken)}: the day's own parameter has this name")
        if outside := [name for name in self.inputs if not name.startswith("silver.")]:
            raise ValueError(f"inputs: {', '.join(outside)}: a feature table is made from tables in silver")
        return self
