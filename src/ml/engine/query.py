"""Loads the text of a query, checks it and translates it, once per version of its file."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlglot import exp, parse
from sqlglot.dialects.spark import Spark
from sqlglot.errors import SqlglotError

from ml.engine.interface import QueryError
from ml.resources import last_change, resource_dir


class AnsiSpark(Spark):
    """Spark SQL as ANSI mode runs it: a `CAST` that fails stops the query; only `TRY_CAST` gives NULL.

    sqlglot's own Spark dialect is the permissive one and would turn every CAST into DuckDB's TRY_CAST.
    """

    class Parser(Spark.Parser):
        STRICT_CAST = True


@dataclass(frozen=True)
class Query:
    """A query in both dialects. `parameters` and `tables` are the names that have to be bound.

    `normalised` changes with the meaning of the text only, not with comments, spaces or line breaks.
    """

    path: Path
    spark: str
    duckdb: str
    normalised: str
    parameters: frozenset[str]
    tables: frozenset[str]

    def check(self, tables: Collection[str], values: Collection[str]) -> None:
        """Raise QueryError unless every table and parameter is given, and every given value is needed."""
        if missing := self.tables - set(tables):
            raise QueryError(f"{self.path}: reads {_listed(missing)}; given: {_listed(tables)}")
        if self.parameters != set(values):
            needed, given = _listed(f":{name}" for name in self.parameters), _listed(f":{name}" for name in values)
            raise QueryError(f"{self.path}: needs {needed}; given: {given}")


def load(name: str) -> Query:
    """Load `include/sql/<name>.sql`. Raises QueryError when it is missing, or may differ between the engines."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?", name):
        raise QueryError(f"query name {name!r}: lower-case letters, digits and _ only")
    path = resource_dir("sql") / f"{name}.sql"
    return _translate(path, last_change(path))


@cache
def _translate(path: Path, _: tuple[int, int] | None) -> Query:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = _listed(p.stem for p in resource_dir("sql").rglob("*.sql"))
        raise QueryError(f"{path}: no such query; there are: {known}") from error
    try:
        statements = [tree for tree in parse(text, read=AnsiSpark) if tree is not None]
    except SqlglotError as error:
        raise QueryError(f"{path}: not Spark SQL: {error}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise QueryError(f"{path}: exactly one SELECT is needed")
    tree = statements[0]
    _refuse_bare_division(path, tree)
    common_tables = {cte.alias for cte in tree.find_all(exp.CTE)}
    return Query(
        path=path,
        spark=text.rstrip().rstrip(";"),
        duckdb=tree.sql("duckdb"),
        normalised=tree.sql(AnsiSpark, comments=False),
        parameters=frozenset(p.name for p in tree.find_all(exp.Placeholder)),
        tables=frozenset(t.name for t in tree.find_all(exp.Table)) - common_tables,
    )


def _refuse_bare_division(path: Path, tree: exp.Expression) -> None:
    """Raise QueryError for a divisor that is neither a literal nor `nullif(…, 0)`.

    `a / 0` stops Spark and is NULL or infinite on DuckDB. (`try_divide` has the same effect, but Sail implements it
    for integers only.)
    """
    for division in tree.find_all(exp.Div):
        divisor = division.expression
        literal = isinstance(divisor, exp.Literal) and divisor.is_number and float(divisor.name) != 0
        if not (literal or isinstance(divisor, exp.Nullif)):
            raise QueryError(
                f"{path}: '{division.sql(AnsiSpark)}' differs between engines when the divisor is 0: divide by nullif(…, 0)"
            )


def _listed(names: object) -> str:
    return ", ".join(sorted(names)) or "none"  # type: ignore[call-overload]
