"""What the text of a query says without running it: tables, parameters, literals, and functions that are not repeatable."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

from sqlglot import exp, parse_one

from ml.engine.query import AnsiSpark, Query, load

# Each gives another result in another run: of the clock, of chance, or of where and by whom the query runs.
UNSTABLE = {
    "current_catalog", "current_database", "current_date", "current_datetime", "current_schema", "current_time",
    "current_timestamp", "current_timezone", "current_user", "curdate", "getdate", "input_file_name", "localtime",
    "localtimestamp", "monotonically_increasing_id", "now", "rand", "randn", "random", "randstr", "session_user",
    "shuffle", "spark_partition_id", "sysdate", "today", "uniform", "user", "uuid", "version",
}  # fmt: skip
_MOMENTS = {"now", "today", "tomorrow", "yesterday"}  # as text cast to a date, also of the clock


@dataclass(frozen=True)
class Text:
    """A loaded query and its syntax tree."""

    query: Query
    tree: exp.Expression

    @property
    def tables(self) -> frozenset[str]:
        return self.query.tables

    @property
    def parameters(self) -> frozenset[str]:
        return self.query.parameters

    @cached_property
    def unstable_functions(self) -> list[str]:
        """The functions, each once, whose result depends on the clock, on chance, or on where the query runs."""
        names = dict.fromkeys(map(_function_name, self.tree.find_all(exp.Func)))
        casts = (cast.this for cast in self.tree.find_all(exp.Cast) if cast.to.is_type(*exp.DataType.TEMPORAL_TYPES))
        moments = {each.name.lower() for each in casts if isinstance(each, exp.Literal)} & _MOMENTS
        return [f"{name}()" for name in names if name in UNSTABLE] + [f"'{moment}'" for moment in sorted(moments)]

    @cached_property
    def column_names(self) -> set[str]:
        """Every column that the text names, of whatever table or subquery."""
        return {column.name for column in self.tree.find_all(exp.Column) if column.name}

    @cached_property
    def aliases(self) -> set[str]:
        """Names that the text gives itself: `… AS name`, tables, and the parameters of lambdas."""
        names = {alias.alias for alias in self.tree.find_all(exp.Alias, exp.TableAlias, exp.CTE)}
        names |= {column.name for alias in self.tree.find_all(exp.TableAlias) for column in alias.columns}
        lambdas = (each for each in self.tree.find_all(exp.Lambda))
        return names | {name.name for each in lambdas for name in each.expressions}

    @cached_property
    def texts(self) -> list[str]:
        """Short text literals: often the values that a column may have."""
        literals = (literal for literal in self.tree.find_all(exp.Literal) if literal.is_string)
        return list(dict.fromkeys(each.name for each in literals if 0 < len(each.name) <= 24 and "->" not in each.name))

    @cached_property
    def whole_numbers(self) -> list[int]:
        """Whole numbers in the text: often days or limits."""
        literals = (literal for literal in self.tree.find_all(exp.Literal) if not literal.is_string)
        return sorted({int(literal.name) for literal in literals if literal.name.isdigit() and len(literal.name) < 7})


def load_text(name: str) -> Text:
    """Load `include/sql/<name>.sql`. Raises QueryError."""
    query = load(name)
    return Text(query, _parse(query.spark))


@cache
def _parse(text: str) -> exp.Expression:
    return parse_one(text, read=AnsiSpark)


def _function_name(call: exp.Func) -> str:
    if isinstance(call, exp.Anonymous):
        return str(call.name).lower()
    return str(call.sql_name()).lower()
