"""Other futures: the rows of a table with those after a limit removed, changed, or joined by more.

A query that may not look past the limit gives the same result in every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_LATER = (1, 2, 30, 91, 365, 401, 1000)  # days after the limit on which added rows are


def until(rows: pa.Table, limit: date, column: str = "day") -> pa.Table:
    """The rows up to the limit, the limit included."""
    import pyarrow.compute as pc

    return rows.filter(pc.less_equal(rows[column], limit))


def other_futures(rows: pa.Table, limit: date, column: str = "day") -> Iterator[tuple[str, pa.Table]]:
    """Each future in words, and the rows up to the limit with those of that future."""
    import pyarrow as pa
    import pyarrow.compute as pc

    past = until(rows, limit, column)
    later = rows.filter(pc.greater(rows[column], limit))
    if later.num_rows:
        yield "with other values in the rows after it", pa.concat_tables([past, _change(later, column)])
    if past.num_rows:
        copies = [_at(past, column, limit + timedelta(days)) for days in _LATER]
        yield "with more rows after it", pa.concat_tables([rows, *copies])


def _at(rows: pa.Table, column: str, day: date) -> pa.Table:
    """Copies of rows on another day; their times move with the day."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_

    place = rows.schema.get_field_index(column)
    moved = pc.subtract(pa.scalar(day, pa.date32()), rows[column])
    for index, field in enumerate(rows.schema):
        if index != place and is_.is_timestamp(field.type):
            times = pc.add(rows[field.name], moved.cast(pa.duration(field.type.unit)))
            rows = rows.set_column(index, field, times)
    return rows.set_column(place, rows.schema.field(column), pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows))


def _change(rows: pa.Table, column: str) -> pa.Table:
    """The rows with other values on the same days: numbers shifted and turned, and every column taken from another row."""
    import pyarrow.compute as pc
    import pyarrow.types as is_

    for place, field in enumerate(rows.schema):
        if field.name == column:
            continue
        values: Any = rows[field.name].combine_chunks()
        values = pc.take(values, [(n + 1 + place) % rows.num_rows for n in range(rows.num_rows)])
        if is_.is_integer(field.type) or is_.is_floating(field.type):
            values = pc.add(pc.multiply(values, -3), 11).cast(field.type)
        elif is_.is_boolean(field.type):
            values = pc.invert(values)
        rows = rows.set_column(place, field, values)
    return rows


def shuffled(rows: pa.Table) -> pa.Table:
    """The same rows in another order."""
    count = rows.num_rows
    step = next((step for step in (7, 11, 13, 17, 19, 23) if count % step), 1)
    return rows.take([(n * step + count // 2) % count for n in range(count)]) if count else rows
