"""The conversion of a source file's rows to a Parquet file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import CopyError, Rows, check_unique

# Characters that Data Factory refuses in a column name when it writes Parquet.
_FORBIDDEN = set(",;{}()\n\t=")
_FILE_PATH = "$$FILEPATH"
_GROUP_ROWS = 50_000  # rows of a Parquet row group, held in memory until it is written


def additional_columns(copy: Copy, name: str) -> dict[str, str]:
    """The values of the activity's additional columns for the file `name`."""
    return {
        column["name"]: name if column["value"] == _FILE_PATH else str(column["value"])
        for column in copy.source.get("additionalColumns", [])
    }


def write_parquet(rows: Rows, additional: dict[str, str], name: str, path: Path, check: Callable[[], None]) -> int:
    """Write rows and additional columns to `path` as Parquet; returns the number of rows."""
    for column in rows.schema.names:
        if _FORBIDDEN & set(column):
            raise CopyError(
                "ParquetInvalidColumnName",
                f"The column name '{column}' of '{name}' is invalid. Column name cannot contain these "
                "character:[,;{}()\\n\\t=]. If it looks like several columns, the file has another delimiter.",
            )
    check_unique([*rows.schema.names, *additional], name)
    schema = rows.schema
    for column in additional:
        schema = schema.append(pa.field(column, pa.string()))
    count = 0
    group: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:

        def write_group() -> None:
            writer.write_table(pa.Table.from_batches(group, schema))
            group.clear()

        for batch in rows.batches:
            check()
            constants = [pa.repeat(pa.scalar(value, pa.string()), batch.num_rows) for value in additional.values()]
            group.append(pa.record_batch([*batch.columns, *constants], schema=schema))
            count += batch.num_rows
            if sum(part.num_rows for part in group) >= _GROUP_ROWS:
                write_group()
        if group:
            write_group()
    return count
