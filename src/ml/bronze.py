"""Landed files as Data Factory's Copy wrote them: one parquet file each, read back as text and accounted for.

`transactions/1998-06-28/x.csv` in landing is `bronze/transactions/csv/1998-06-28/x.parquet` in the lake,
with a column `_file` that names its source. A bronze file whose source is no longer landed is left alone.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as is_

if TYPE_CHECKING:
    from ml.store import Blob, Store

REQUIRED = ("customer_id", "occurred_at", "quantity", "amount")
COLUMNS = (
    "transaction_id",
    "customer_id",
    "occurred_at",
    "product_id",
    "category",
    "channel",
    "country",
    "quantity",
    "unit_price",
    "amount",
)
READERS = 8  # files read at once: a read is mostly waiting for storage
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets write one before the first column's name


class UnusableFileError(ValueError):
    """A landed file that cannot become rows; the message names the file, what was found and the remedy."""


@dataclass(frozen=True)
class BronzeFile:
    """One landed file as bronze holds it.

    `rows` has `_day`, `_file`, `_row` (1 is the first data row) and COLUMNS as text, as received.
    `received` is the number of rows that the parquet file's own metadata claims.
    """

    day: date
    name: str
    received: int
    rows: pa.Table | None = None
    extra: tuple[str, ...] = ()
    problem: str | None = None


def path(name: str) -> str:
    """Where the Copy puts a landed file: `<table>/<day>/<stem>.<format>` → its parquet file in the lake."""
    source = PurePosixPath(name)
    return f"bronze/{source.parts[0]}/{source.suffix[1:]}/{source.parts[1]}/{source.stem}.parquet"


def read(lake: Store, files: Sequence[tuple[date, Blob]]) -> list[BronzeFile]:
    """Read the bronze file of each landed file, several at once; in the given order.

    What is wrong with a file stands in its `problem`, so that all of a day's files are told of at once.
    An empty (0 bytes) file has no rows, whatever an earlier Copy left in its place.
    """
    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(lambda file: _read_one(lake, *file), files))


def joined(files: Sequence[BronzeFile]) -> pa.Table:
    """The rows of all files, one after the other."""

    keys = {"_day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}
    empty = pa.schema(keys | dict.fromkeys(COLUMNS, pa.string())).empty_table()
    return pa.concat_tables([empty, *(file.rows for file in files if file.rows is not None)])


def _read_one(lake: Store, day: date, blob: Blob) -> BronzeFile:
    if blob.size == 0:
        return BronzeFile(day, blob.name, received=0)
    try:
        return _open(lake, day, blob)
    except UnusableFileError as error:
        return BronzeFile(day, blob.name, received=0, problem=f"{blob.name}: {error}")


def _open(lake: Store, day: date, blob: Blob) -> BronzeFile:

    where = path(blob.name)
    try:
        content = lake.read(where)
    except FileNotFoundError:
        raise UnusableFileError(
            f"the Copy did not write {where}; see why in the Copy's run in Data Factory (a truncated file "
            "cannot be copied: ask upstream to send it again), then run the day again"
        ) from None
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = [name.removeprefix(BYTE_ORDER_MARK) for name in file.schema_arrow.names]
        received = file.metadata.num_rows
        table = file.read().rename_columns(names) if received else None
    except (pa.ArrowException, OSError) as error:
        raise UnusableFileError(f"{where} is not readable parquet ({error}); run the day's Copy again") from error
    extra = tuple(sorted(set(names) - {*COLUMNS, "_file"}))
    if table is None:
        return BronzeFile(day, blob.name, received=0, extra=extra)
    _check_columns(names)
    return BronzeFile(day, blob.name, received, _rows(table, day, blob.name), extra)


def _check_columns(names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1 and name in COLUMNS]
    if twice:
        raise UnusableFileError(f"has {', '.join(twice)} more than once; ask upstream which one counts")
    missing = [name for name in REQUIRED if name not in names]
    if not missing:
        return
    found = [name for name in names if name != "_file"]
    spare = {name.strip().lower(): name for name in found if name not in COLUMNS}
    hints = []
    for name in missing:
        alike = difflib.get_close_matches(name, spare, n=1, cutoff=0.5)
        hints.append(f"rename {spare[alike[0]]!r} to {name!r}" if alike else f"ask upstream for {name!r}")
    raise UnusableFileError(
        f"lacks {', '.join(missing)}; found {', '.join(found)}; needed {', '.join(REQUIRED)}; {', '.join(hints)}"
    )


def _rows(table: pa.Table, day: date, name: str) -> pa.Table:

    count = table.num_rows
    source = _source(table, name)
    columns = {
        "_day": pa.repeat(pa.scalar(day, pa.date32()), count),
        "_file": pa.repeat(pa.scalar(source, pa.string()), count),
        "_row": pa.array(np.arange(1, count + 1, dtype=np.int64)),
    }
    for column in COLUMNS:
        if column not in table.column_names:
            columns[column] = pa.nulls(count, pa.string())
            continue
        try:
            columns[column] = as_text(table[column])
        except (pa.ArrowException, TypeError) as error:
            kind = table[column].type
            raise UnusableFileError(f"column {column} holds {kind}, not text or numbers ({error})") from error
    return pa.table(columns)


def _source(table: pa.Table, name: str) -> str:
    """What the rows say of where they came from: all must name the one landed file."""

    found = pc.unique(table["_file"]).to_pylist() if "_file" in table.column_names else [None]
    if len(found) == 1 and found[0] is not None and (found[0] == name or found[0].endswith(f"/{name}")):
        return str(found[0])
    raise UnusableFileError(
        f"{path(name)} says in _file that its rows are from {found}; the Copy must write each source to its own "
        "file, with the extra column _file = $$FILEPATH"
    )


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any plain column as text that loses nothing: whole doubles as integers, times as ISO 8601.

    NaN is NULL: it is how pandas writes "missing". Raises TypeError for nested and other unreadable types.
    """

    kind = column.type
    if is_.is_dictionary(kind):
        return as_text(column.cast(kind.value_type))
    if is_.is_float16(kind):
        return as_text(column.cast(pa.float32()))
    if is_.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
        integers = pc.if_else(whole, column, 0.0).cast(pa.int64())
        return pc.if_else(whole, integers.cast(pa.string()), column.cast(pa.string()))
    if is_.is_decimal(kind):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "")
    if is_.is_nested(kind) or is_.is_time(kind) or is_.is_duration(kind):
        raise TypeError("a plain value per row is needed")
    return column.cast(pa.string())
