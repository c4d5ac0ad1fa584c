"""Checks one query against the file that names it, and runs it on both engines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml.check.comparing import find_difference
from ml.check.engines import Engines
from ml.check.findings import Findings, query_file
from ml.check.futures import shuffled
from ml.check.text import Text, load_text
from ml.config.project import one_of
from ml.engine import QueryError
from ml.resources import resource_dir

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.engine.interface import Value


@dataclass(frozen=True)
class Use:
    """One use of a query: the config file and key that name it, and what it gets.

    `tables` are the short names of the tables, each with the place that gives it. `settings` are all needed by the
    text; `given` are values that the caller binds if the text has them. `files` are all files that its rows depend on.
    """

    file: str
    key: str
    query: str
    tables: Mapping[str, str]
    files: tuple[str, ...]
    settings: Mapping[str, Value] = field(default_factory=dict)
    settings_key: str = ""
    given: Collection[str] = ()
    needed: Collection[str] = ()  # tables that must be read

    @property
    def sql(self) -> str:
        return query_file(self.query)

    @property
    def concerned(self) -> tuple[str, ...]:
        return (self.sql, self.file, *self.files)


class Queries:
    """Runs queries on both engines and adds what is wrong to the findings."""

    def __init__(self, engines: Engines, findings: Findings) -> None:
        self.engines = engines
        self.findings = findings

    def add(self, use: Use, message: str) -> None:
        """A problem in the text of the query."""
        self.findings.add(use.sql, "", message, use.file, *use.files)

    def load(self, use: Use) -> Text | None:
        """The query's text; None when it cannot be run, which is then among the findings."""
        folder = resource_dir("sql")
        known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.sql"))
        if use.query not in known:
            self.findings.add(use.file, use.key, f"there is no {use.sql}; {one_of(use.query, known)}", *use.files)
            return None
        try:
            text = load_text(use.query)
        except QueryError as error:
            self.add(use, _without_path(use, error))
            return None
        tables_known, values_known = self._check_tables(use, text), self._check_parameters(use, text)
        for function in text.unstable_functions:
            self.add(
                use,
                f"{function} gives another result in every run, so a day could not be built again; "
                "use :as_of or the columns of the row instead",
            )
        return text if tables_known and values_known and not text.unstable_functions else None

    def _check_tables(self, use: Use, text: Text) -> bool:
        """Whether the query gets every table that it reads."""
        unknown = sorted(text.tables - set(use.tables))
        for name in unknown:
            self.add(use, f"it reads {name}, which {use.file} does not give it; {one_of(name, use.tables)}")
        for name in sorted(set(use.needed) - text.tables):
            message = f"{use.sql} does not read {name}; remove it here, or read it there"
            self.findings.add(use.file, use.tables[name], message, use.sql, *use.files)
        return not unknown

    def _check_parameters(self, use: Use, text: Text) -> bool:
        """Whether the query gets every parameter that it has."""
        known = {*use.settings, *use.given}
        for name in sorted(text.parameters - known):
            place = f"add it to {use.settings_key} in {use.file}" if use.settings_key else "remove it"
            listed = ", ".join(f":{each}" for each in sorted(known)) or "no parameters"
            self.add(use, f":{name} has no value; {place}; it gets {listed}")
        for name in use.settings:
            key = f"{use.settings_key}.{name}"
            if name in use.given:
                message = f"the caller itself gives :{name}; remove the setting, or call it something else"
                self.findings.add(use.file, key, message, *use.files)
            elif name not in text.parameters:
                message = f"{use.sql} has no :{name}; remove the setting, or use it in the query"
                self.findings.add(use.file, key, message, use.sql, *use.files)
        return text.parameters <= known

    def run(self, use: Use, text: Text, tables: Mapping[str, pa.Table], values: Mapping[str, Value]) -> pa.Table | None:
        """The result on DuckDB; None when it fails, which is then among the findings."""
        bound = {name: value for name, value in {**values, **use.settings}.items() if name in text.parameters}
        self.findings.queries.add(use.query)
        try:
            return self.engines.run(use.query, tables, bound)
        except QueryError as error:
            self._explain(use, text, tables, error)
            return None

    def _explain(self, use: Use, text: Text, tables: Mapping[str, pa.Table], error: QueryError) -> None:
        known = {name for table in text.tables for name in tables[table].schema.names}
        unknown = sorted(text.column_names - known - text.aliases - set(text.tables))
        if not unknown:
            self.add(use, f"it cannot run: {_without_path(use, error)}")
        for name in unknown:
            read = ", ".join(f"{table} ({', '.join(tables[table].schema.names)})" for table in sorted(text.tables))
            close = one_of(name, known) if one_of(name, known).startswith("did you") else f"it reads {read}"
            self.add(use, f"there is no column {name} in what it reads; {close}")

    def compare_engines(
        self, use: Use, text: Text, tables: Mapping[str, pa.Table], values: Mapping[str, Value], keys: Sequence[str]
    ) -> pa.Table | None:
        """The result, when both engines give it, a second run too, and rows in another order; else None."""
        first = self.run(use, text, tables, values)
        if first is None:
            return None
        if self._differs_in_another_order(use, text, tables, values, keys, first):
            return None
        spark = self.engines.spark
        if spark is not None:
            bound = {name: value for name, value in {**values, **use.settings}.items() if name in text.parameters}
            try:
                second = spark.run(use.query, tables, bound)
            except QueryError as error:
                self.add(use, f"it runs on DuckDB, but not on Spark: {_without_path(use, error)}")
                return None
            if difference := find_difference(first, second, keys, ("on DuckDB", "on Spark")):
                order = "; end it with ORDER BY its keys" if "order" in difference else ""
                self.add(
                    use, f"DuckDB and Spark differ: {difference}{order or '; write it so that both give the same'}"
                )
                return None
        return first

    def _differs_in_another_order(
        self, use: Use, text: Text, tables: Mapping[str, pa.Table], values: Mapping[str, Value], keys: Sequence[str],
        first: pa.Table,
    ) -> bool:  # fmt: skip
        """Whether the rows of the inputs in another order, in a second run, give another result."""
        second = self.run(use, text, {name: shuffled(rows) for name, rows in tables.items()}, values)
        if second is None:
            return True
        if difference := find_difference(first, second, keys, ("in one run", "in another run")):
            self.add(
                use,
                "two runs over the same rows in another order give different results: "
                f"{difference}; order the result and every window by unique columns, and add up integers only",
            )
        return bool(difference)

    def same_as(
        self,
        use: Use,
        expected: pa.Table,
        other: pa.Table | None,
        keys: Sequence[str],
        names: tuple[str, str],
        why: str,
    ) -> bool:
        """Whether two results are equal; else what differs is among the findings: `why` with `…` in place of it."""
        if other is None:
            return False
        difference = find_difference(expected, other, keys, names)
        if difference:
            self.add(use, why.replace("…", difference))
        return not difference


def _without_path(use: Use, error: QueryError) -> str:
    """An engine's message without the path, which the finding names itself; first lines only."""
    text = str(error).removeprefix(f"{resource_dir('sql') / use.query}.sql: ")
    return " ".join(line.strip() for line in text.splitlines() if line.strip() and "^" not in line)[:600]
