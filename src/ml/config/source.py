"""A source, from `config/sources/<source>.yaml`: which files upstream sends, and how they become a clean silver table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ml.config.types import Column, Cron, Days, Frozen, Name, QueryName, Settings, Share, TableName, Text, TimeZone

RESERVED_COLUMNS = ("day", "outcome", "refused_column", "reason", "remedy")  # of a cleaning query's result


class From(Frozen):
    """Where upstream puts its files. Other kinds are refused by name until they are built."""

    kind: Literal["blob"]

    @field_validator("kind", mode="before")
    @classmethod
    def _check_kind(cls, kind: object) -> object:
        if kind in ("sql", "cosmos", "http", "event_hub", "table"):
            raise ValueError(f"{kind} sources are not built yet; blob is")
        return kind


class Landing(Frozen):
    bulk_days: Days
    empty_file: Literal["fail", "accept"]
    max_file_rows: Annotated[int, Field(ge=1)]
    max_file_mb: Annotated[int, Field(ge=1)]


class SourceColumn(Frozen):
    """A column of the received files."""

    required: bool = False


class Clean(Frozen):
    """`query` gives the outcome of each received row; it gets `settings` and the source's `timezone` as parameters."""

    query: QueryName
    settings: Settings
    max_quarantined_share: Share


class SourceConfig(Frozen):
    """All settings of one source. `source` is its name: the folder in landing, and part of table names and Dag ids."""

    source: Name
    owner: Text
    description: Text
    from_: Annotated[From, Field(alias="from")]
    kind: Literal["facts", "snapshot"]
    timezone: TimeZone
    due: Cron
    landing: Landing
    columns: Annotated[dict[Column, SourceColumn], Field(min_length=1)]
    time: Column | None = None
    clean: Clean
    daily: dict[TableName, QueryName] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source

    @property
    def table(self) -> str:
        """The silver table: one clean row per fact, or per row of each snapshot, by `day`."""
        return f"silver.{self.source}"

    @property
    def quarantine(self) -> str:
        return f"quarantine.{self.source}"

    @property
    def tables(self) -> tuple[str, ...]:
        """The silver tables that its ingestion writes; a day's rows of all of them come from the same files."""
        return (self.table, *self.daily)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def required_columns(self) -> tuple[str, ...]:
        return tuple(name for name, column in self.columns.items() if column.required)

    @model_validator(mode="after")
    def _check_columns(self) -> SourceConfig:
        if taken := [name for name in self.columns if name in RESERVED_COLUMNS]:
            raise ValueError(f"columns: {', '.join(taken)}: the name is used by ingestion itself")
        if not self.required_columns:
            raise ValueError("columns: at least one must be required, or a file of another source would be taken")
        if self.kind == "snapshot" and self.daily:
            raise ValueError("daily: a snapshot has no facts of a day; leave it out")
        for table in self.daily:
            if not table.startswith("silver."):
                raise ValueError(f"daily: {table}: the tables of a source are in silver")
        return self
