"""Compares two results of a query: how many rows differ, and an example of one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def find_difference(first: pa.Table, second: pa.Table, keys: Sequence[str], names: tuple[str, str]) -> str:
    """How two results differ, in words; empty when they are equal, row for row. `names` say whose results they are.

    Doubles are compared exactly; all NaN are equal, and so are both zeros.
    """
    if first.schema.names != second.schema.names:
        return f"the columns are {', '.join(first.schema.names)} {names[0]} and {', '.join(second.schema.names)} {names[1]}"
    for name in first.schema.names:
        kinds = first.schema.field(name).type, second.schema.field(name).type
        if kinds[0] != kinds[1]:
            return f"{name} is {kinds[0]} {names[0]} and {kinds[1]} {names[1]}"
    rows = _comparable(first), _comparable(second)
    if rows[0] == rows[1]:
        return ""
    counts = Counter(rows[0]), Counter(rows[1])
    only = counts[0] - counts[1], counts[1] - counts[0]
    if not only[0] and not only[1]:
        return "the rows are equal, but in another order"
    columns = first.schema.names
    places = [columns.index(key) for key in keys if key in columns]
    differing = max(only[0].total(), only[1].total())
    return f"{differing} of {max(len(rows[0]), len(rows[1]))} rows differ, such as {_example(columns, places, *only, names)}"


def _example(
    columns: list[str], places: list[int], first: Counter[Any], second: Counter[Any], names: tuple[str, str]
) -> str:
    """One row of either side beside the row of the other side with the same key."""
    ordered = sorted(first, key=repr) + sorted(second, key=repr)
    row = ordered[0]
    is_first = row in first
    key = tuple(row[place] for place in places)
    other = next(
        (each for each in (second if is_first else first) if places and tuple(each[p] for p in places) == key), None
    )
    label = ", ".join(f"{columns[place]} {_print(row[place])}" for place in places) or "a row"
    if other is None:
        return f"{label}: only {names[0] if is_first else names[1]}"
    mine, its = (row, other) if is_first else (other, row)
    changed = [
        f"{column} {_print(a)} {names[0]}, {_print(b)} {names[1]}"
        for column, a, b in zip(columns, mine, its, strict=True)
        if a != b
    ]
    return f"{label}: {'; '.join(changed[:3])}"


def _comparable(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = [[_value(value) for value in column.to_pylist()] for column in table.columns]
    return list(zip(*columns, strict=True)) if columns else []


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    return tuple(value) if isinstance(value, list) else value


def _print(value: Any) -> str:
    return "NULL" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
