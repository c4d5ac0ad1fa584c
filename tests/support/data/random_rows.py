"""Random rows for every query of a project: received text first, then what each query makes of the tables before it.

Nothing here knows a source by name: the columns are those of its config, and values are drawn by what a column is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml.config import Project, SourceConfig
from ml.engine import query
from ml.resources import resource_dir

OUTCOME_COLUMNS = ("_id", "outcome", "refused_column", "reason", "remedy")
ORIGIN_COLUMNS = ("day", "_file", "_row")
JUNK = (None, "", "six", "1,5", "nan", "-1", "1e99", "\ufffd", "0", "Ä b", "31/02/2024 25:61")
JUNK_SHARE = 0.02  # of cells
DAYS = tuple(date(2024, 2, 1) + timedelta(n) for n in range(0, 60, 3))
AS_OF = (date(2024, 2, 16), date(2024, 3, 10))

# by the end of a column's name
VALUES: Mapping[str, Sequence[str]] = {
    "application_id": [str(n) for n in range(5000)],
    "_id": [str(n) for n in range(150)],
    "_at": ["T00:00:00", "T10:30:00", "T10:30", "T23:59:59.999999", ""],
    "_on": [""],
    "channel": ["online", "mobile", "store", "phone"],
    "quantity": ["1", "2", "3", "-1", "10", "1.0"],
    "size": ["1", "2", "5"],
    "defaulted": ["0", "1"],
    "months": ["12", "36"],
    "age": ["20", "61", "61.0"],
    "years": ["0", "1.5", "40"],
    "loans": ["0", "1"],
    "payments": ["0", "3"],
    "department": ["fresh", "dry"],
}
NUMBERS = ("9.99", "10", "0.5", "100.25", "0", "3.1")
NUMERIC = ("price", "cost", "amount", "value", "income")
WORDS = ("a", "b", "Z", "é", "日本")


class Run(Protocol):
    """Runs a query over named tables, with values of its parameters."""

    def __call__(self, query: str, tables: dict[str, pa.Table], **values: Any) -> pa.Table: ...


def received(source: SourceConfig, random: np.random.Generator, size: int) -> pa.Table:
    """`bronze` of some days of a source: mostly good rows, a few bad cells, and a few rows twice."""
    days = [DAYS[n] for n in np.sort(random.integers(0, len(DAYS), size))]
    columns: dict[str, pa.Array] = {
        "_day": pa.array(days, pa.date32()),
        "_file": pa.array([f"f{n}" for n in random.integers(0, 3, size)]),
    }
    for name in source.column_names:
        pool = next((values for end, values in VALUES.items() if name.endswith(end)), None)
        pool = pool or (NUMBERS if name.endswith(NUMERIC) else WORDS)
        texts: list[str | None] = [pool[n] for n in random.integers(0, len(pool), size)]
        if name.endswith(("_at", "_on")):
            texts = [f"{day}{text}" for day, text in zip(days, texts, strict=True)]
        for place in np.flatnonzero(random.random(size) < JUNK_SHARE):
            texts[place] = JUNK[random.integers(0, len(JUNK))] or None
        columns[name] = pa.array(texts, pa.string())
    rows = pa.table(columns)
    rows = pa.concat_tables([rows, rows.take(random.integers(0, size, size // 50))])
    rows = rows.append_column("_row", pa.array(random.permutation(rows.num_rows)))
    rows = rows.sort_by([("_day", "ascending"), ("_file", "ascending"), ("_row", "ascending")])
    return rows.append_column("_id", pa.array(range(rows.num_rows), pa.int64()))


@dataclass
class Walk:
    """Every query of a project, each over the results of those before it. `queries` are the names that were run."""

    project: Project
    run: Run
    seed: int = 0
    size: int = 1500
    silver: dict[str, pa.Table] = field(default_factory=dict)
    features: dict[str, list[pa.Table]] = field(default_factory=dict)
    queries: set[str] = field(default_factory=set)

    def everything(self) -> None:
        for number, source in enumerate(self.project.sources.values()):
            self.ingest(source, np.random.default_rng((self.seed, number)))
        for name in self.project.feature_tables:
            self.features[name] = [self.build(name, day) for day in AS_OF]
        for name in self.project.models:
            self.label(name)

    def ingest(self, source: SourceConfig, random: np.random.Generator) -> None:
        rows = received(source, random, self.size)
        outcomes = self._run(
            source.clean.query, {"bronze": rows}, source.clean.settings | {"timezone": source.timezone}
        )
        assert outcomes["_id"].to_pylist() == list(range(rows.num_rows))
        good = outcomes.filter(pc.equal(outcomes["outcome"], "silver")).drop_columns(list(OUTCOME_COLUMNS))
        self.silver[source.table] = good
        for table, name in source.daily.items():
            self.silver[table] = self._run(name, {_short(source.table): good}, {})

    def build(self, name: str, day: date, silver: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """A feature table's rows as of a day; `silver`: other tables than those that were ingested."""
        table = self.project.feature_tables[name]
        inputs = {}
        for each, edge in table.inputs.items():
            rows = (silver or self.silver)[each]
            if self.project.source_of(each).kind == "snapshot":
                days = sorted({d for d in rows["day"].to_pylist() if d <= day})
                rows = rows.filter(pc.equal(rows["day"], pa.scalar(days[-1] if days else date.min)))
                inputs[_short(each)] = rows.drop_columns(list(ORIGIN_COLUMNS))
            else:
                back = edge.window.back if edge.window else None
                first = day - timedelta((back or 10_000) - 1)
                known = pc.and_(pc.greater_equal(rows["day"], first), pc.less_equal(rows["day"], day))
                inputs[_short(each)] = rows.filter(known)
        return self._run(table.query, inputs, table.settings | {"as_of": day})

    def label(self, name: str) -> None:
        model = self.project.models[name]
        if model.label.query is None:
            return
        for number, day in enumerate(AS_OF):
            members = self.features[next(iter(model.features))][number].select([model.entity, "as_of"])
            if model.population:
                inputs = {table: self.features[table][number] for table in model.features}
                members = self._run(model.population.query, inputs, model.population.settings | {"as_of": day})
            last = day + timedelta(model.label.horizon_days or 0)
            facts = {
                _short(t): (rows := self.silver[t]).filter(pc.less_equal(rows["day"], last)) for t in model.label.inputs
            }
            values = model.label.settings | {"as_of": day, "horizon_days": model.label.horizon_days or 0}
            labelled = self._run(model.label.query, {"population": members} | facts, values)
            assert labelled.num_rows == members.num_rows

    def _run(self, name: str, tables: dict[str, pa.Table], values: Mapping[str, Any]) -> pa.Table:
        """Run a query with those of the tables and values that its text uses."""
        self.queries.add(name)
        loaded = query.load(name)
        used = {key: value for key, value in values.items() if key in loaded.parameters}
        return self.run(name, {key: table for key, table in tables.items() if key in loaded.tables}, **used)


def _short(table: str) -> str:
    return table.rpartition(".")[2]


def all_queries() -> set[str]:
    """The names of all queries that there are."""
    root = resource_dir("sql")
    return {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.sql")}
