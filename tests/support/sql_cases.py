"""SQL tests as data: `tests/sql/<query>.yaml` has cases with input rows, parameters and expected rows.

    tables:                      # the columns of each table that the query reads, and their types
      customer_days:
        columns: {customer_id: text, day: day, orders: integer}
        usual: {customer_id: c1, day: 2024-02-29}      # values of the columns that a row leaves out; else NULL
    parameters: {as_of: 2024-02-29}                    # of all cases; a case may have others
    cases:
      - name: a purchase on the day itself counts
        rows: {customer_days: [{orders: 1}]}           # a table that is left out has no rows
        expected: [{customer_id: c1, orders: 1}]       # every row, in order; only the columns that it names

Types: text, texts, integer, double, bool, day, time (UTC). The table `bronze` has `_id`, `_day`, `_file` and `_row` too:
numbered, on the day 2024-02-29, of the file `f.csv`, unless a row says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ml.engine import Engine
from ml.engine.types import STRINGS, TIMESTAMP

Kind = Literal["text", "texts", "integer", "double", "bool", "day", "time"]
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(), "texts": STRINGS, "integer": pa.int64(), "double": pa.float64(), "bool": pa.bool_(),
    "day": pa.date32(), "time": TIMESTAMP,
}  # fmt: skip
BRONZE: dict[str, Kind] = {"_id": "integer", "_day": "day", "_file": "text", "_row": "integer"}
LEAP_DAY = date(2024, 2, 29)
Row = dict[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableOfCases(Strict):
    columns: dict[str, Kind]
    usual: Row = Field(default_factory=dict)


class Case(Strict):
    name: str
    parameters: Row = Field(default_factory=dict)
    rows: dict[str, list[Row]] = Field(default_factory=dict)
    expected: list[Row]


class Cases(Strict):
    """The cases of one query."""

    tables: dict[str, TableOfCases]
    parameters: Row = Field(default_factory=dict)
    cases: list[Case] = Field(min_length=1)


@dataclass(frozen=True)
class QueryCase:
    """One case, with what its file says of all."""

    query: str
    file: Cases
    case: Case

    def run(self, engine: Engine) -> pa.Table:
        tables = {name: self._table(name) for name in self.file.tables}
        return engine.run(self.query, tables, self.file.parameters | self.case.parameters)

    def _table(self, name: str) -> pa.Table:
        table, columns = self.file.tables[name], self.file.tables[name].columns
        if name == "bronze":
            columns = {**BRONZE, **columns}
        rows = []
        for number, given in enumerate(self.case.rows.get(name, [])):
            usual = {"_id": number, "_row": number, "_file": "f.csv", "_day": LEAP_DAY} if name == "bronze" else {}
            row = {**usual, **table.usual, **given}
            assert not (unknown := row.keys() - columns.keys()), f"{self.query}: {self.case.name}: no column {unknown}"
            rows.append({column: _to_type(row.get(column), kind) for column, kind in columns.items()})
        return pa.Table.from_pylist(rows, pa.schema([(column, TYPES[kind]) for column, kind in columns.items()]))

    def check(self, result: pa.Table) -> None:
        """Assert that the result has exactly the expected rows, in order, in the columns that they name."""
        found = result.to_pylist()
        assert len(found) == len(self.case.expected), f"{len(found)} rows: {found}"
        for number, (row, expected) in enumerate(zip(found, self.case.expected, strict=True), 1):
            assert not (missing := expected.keys() - row.keys()), f"the query gives no {missing}; it gives {list(row)}"
            differing = {column: row[column] for column, value in expected.items() if not _equal(row[column], value)}
            wanted = {column: expected[column] for column in differing}
            assert not differing, f"row {number}: found {differing}, expected {wanted}"


def read_cases(folder: Path) -> list[QueryCase]:
    """The cases of every file below a folder."""
    return [case for path in sorted(folder.rglob("*.yaml")) for case in read_file(folder, path)]


def read_file(folder: Path, path: Path) -> list[QueryCase]:
    query = path.relative_to(folder).with_suffix("").as_posix()
    file = Cases.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return [QueryCase(query, file, case) for case in file.cases]


def _to_type(value: Any, kind: str) -> Any:
    """YAML's value as that of a column: 2024-02-29 may be text of a file, a day, or a time at midnight."""
    if value is None:
        return None
    if kind == "text":
        return _as_text(value)
    if kind == "time":
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return float(value) if kind == "double" else value


def _as_text(value: Any) -> str:
    """A day or a time that YAML has read, as a file has it."""
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, datetime) and isinstance(expected, date):
        return found == _to_type(expected, "time")
    if isinstance(expected, float) and isinstance(found, float):
        return found == expected or (math.isnan(found) and math.isnan(expected))
    return (type(found) is type(expected) and found == expected) or (
        isinstance(found, float) and isinstance(expected, int) and not isinstance(expected, bool) and found == expected
    )  # fmt: skip
