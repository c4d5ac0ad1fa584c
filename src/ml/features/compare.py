"""Compares rows that were computed twice: which rows differ in a column, and an example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

RELATIVE_TOLERANCE = 1e-9  # two engines add in different orders


def align(rows: pa.Table, others: pa.Table, entity: str) -> tuple[pa.Table, NDArray[np.bool_]]:
    """`others` in the order of `rows`, by entity, with NULLs where it has no such row; and where that is. Shape (rows,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pc.index_in(rows[entity], value_set=others[entity].cast(rows[entity].type).combine_chunks())
    missing = pa.chunked_array(places.is_null()) if isinstance(places, pa.Array) else places.is_null()
    return others.take(places), missing.to_numpy()


def differing_rows(values: pa.ChunkedArray, others: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where two aligned columns differ. Shape (rows,); two NULLs are the same, as are numbers within the tolerance."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_number(values.type) != _is_number(others.type) or _is_text(values.type) != _is_text(others.type):
        return ~(values.is_null().to_numpy() & others.is_null().to_numpy())
    if _is_number(values.type):
        a, b = values.cast(pa.float64()).to_numpy(), others.cast(pa.float64()).to_numpy()
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= RELATIVE_TOLERANCE * np.maximum(1.0, np.abs(a))
        return ~(near | (a == b) | (np.isnan(a) & np.isnan(b)))
    if _is_text(values.type):
        same = pc.equal(values.cast(pa.string()).fill_null("\0"), others.cast(pa.string()).fill_null("\0"))
        return ~same.to_numpy()
    pairs = zip(values.to_pylist(), others.to_pylist(), strict=True)
    return np.array([a != b for a, b in pairs], dtype=bool)


def first_difference(
    rows: pa.Table, aligned: pa.Table, column: str, differs: NDArray[np.bool_]
) -> tuple[int, Any, Any]:
    """The position of the first differing row, with its two values."""
    import numpy as np

    place = int(np.flatnonzero(differs)[0])
    return place, rows[column][place].as_py(), aligned[column][place].as_py()


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind)
