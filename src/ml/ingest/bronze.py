"""Landed files as Data Factory's Copy wrote them: one parquet file each, read back as text and accounted for.

`orders/1998-06-28/x.csv` in landing is `bronze/orders/csv/1998-06-28/x.parquet` in the lake, with a column `_file`
that names the landed file. A bronze file whose landed file is gone is ignored.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as is_

from ml.ingest import json_lines
from ml.ingest.copy_log import Skipped

if TYPE_CHECKING:
    from ml.config import SourceConfig
    from ml.storage.stores import Blob, Store

Column: TypeAlias = pa.ChunkedArray | pa.Array
COPY_COLUMNS = ("_file", "_listing")  # the Copy adds them: the row's landed file, and what was landed then
LINE_COLUMN = "Prop_0"  # the only column of a file whose lines the Copy did not parse: JSON lines
ROW_FIELDS = {"_day": pa.date32(), "_file": pa.string(), "_row": pa.int64()}  # of every source's rows
BATCH_ROWS = 50_000  # in memory at once: about 10 MB
READ_THREADS = 8  # a read mostly waits for storage
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets write one before the first column's name


class UnusableFileError(ValueError):
    """A landed file that cannot become rows; the message names the file, what was found and the remedy."""


class NotCopiedError(UnusableFileError):
    """A landed file that has no bronze file."""


@dataclass(frozen=True, kw_only=True)
class BronzeFile:
    """One landed file as bronze holds it, in a local copy.

    `received` is the number of rows in the parquet file's own metadata, less the lines that are no rows
    (`unparsed`). `origin` is what its rows have in `_file`. `listing` is the saved listing of what was landed when its
    Copy was requested (`ml.landing.listing.save_listing`).
    """

    source: SourceConfig
    day: date
    name: str
    received: int
    local: Path | None = None
    extra: tuple[str, ...] = ()
    problem: str | None = None
    copied: bool = True
    origin: str = ""
    listing: str = ""
    unparsed: tuple[Skipped, ...] = ()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows: `_day`, `_file`, `_row` (1 is the first data row) and the source's columns as text, as received."""
        if self.local is None:
            return
        file, offset = _open_parquet(self.local), 0
        for batch in file.iter_batches(BATCH_ROWS):
            yield _to_rows(_rename(batch), self, offset)
            offset += batch.num_rows

    @property
    def rows(self) -> pa.Table | None:
        """All rows at once, for files that are known to be small; None for an empty or unusable file."""
        return None if self.local is None else pa.Table.from_batches(self.batches(), schema(self.source))


def schema(source: SourceConfig) -> pa.Schema:
    """A source's rows as received: ROW_FIELDS, then its columns as text."""
    return pa.schema(ROW_FIELDS | dict.fromkeys(source.column_names, pa.string()))


def path(name: str) -> str:
    """The parquet file in the lake that the Copy writes for a landed `<source>/<day>/<stem>.<format>`."""
    landed = PurePosixPath(name)
    return f"bronze/{landed.parts[0]}/{landed.suffix[1:]}/{landed.parts[1]}/{landed.stem}.parquet"


def read(source: SourceConfig, lake: Store, files: Sequence[tuple[date, Blob]], folder: Path) -> list[BronzeFile]:
    """Download the bronze file of each landed file to `folder` and check it, several at once; in the same order.

    What is wrong with a file is in its `problem`, so that the problems of all files of a day are reported at once.
    An empty (0 bytes) file has no rows, whatever an earlier Copy left in its place.
    """

    def read_one(number: int, day: date, blob: Blob) -> BronzeFile:
        return _read_file(source, lake, folder / f"bronze-{number}.parquet", day, blob)

    days, blobs = [day for day, _ in files], [blob for _, blob in files]
    with ThreadPoolExecutor(READ_THREADS) as threads:
        return list(threads.map(read_one, range(len(files)), days, blobs))


def join_rows(source: SourceConfig, files: Sequence[BronzeFile]) -> pa.Table:
    """The rows of all files at once, for few files."""
    return pa.Table.from_batches((batch for file in files for batch in file.batches()), schema(source))


def _read_file(source: SourceConfig, lake: Store, local: Path, day: date, blob: Blob) -> BronzeFile:
    empty = BronzeFile(source=source, day=day, name=blob.name, received=0)
    if blob.size == 0:
        return empty
    try:
        return _open(source, lake, local, day, blob)
    except UnusableFileError as error:
        copied = not isinstance(error, NotCopiedError)
        return replace(empty, problem=f"{blob.name}: {error}", copied=copied)


def _open(source: SourceConfig, lake: Store, local: Path, day: date, blob: Blob) -> BronzeFile:
    """Download and check one bronze file. Raises UnusableFileError."""
    remote = path(blob.name)
    try:
        lake.fetch(remote, local)
    except FileNotFoundError:
        raise NotCopiedError(
            f"the Copy did not write {remote}; see why in the Copy's run in Data Factory, then run the day again"
        ) from None
    try:
        file = _open_parquet(local)
        names = _column_names(file.schema_arrow)
        received = file.metadata.num_rows
        if not received:
            return BronzeFile(source=source, day=day, name=blob.name, received=0, extra=_extra_columns(source, names))
        origins = _read_origins(file)
        origin = _only_origin(origins.get("_file", set()), blob.name)
        unparsed: list[Skipped] = []
        if set(names) - set(COPY_COLUMNS) == {LINE_COLUMN}:
            converted = local.with_suffix(".rows")
            names, unparsed = json_lines.convert(
                file, converted, day=day, name=blob.name, source=origin, columns=source.column_names
            )
            local = converted
        else:
            _check_types(source, file.schema_arrow, names)
        if len(unparsed) < received:
            _check_columns(source, names)
    except json_lines.NotJsonError as error:
        raise UnusableFileError(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise UnusableFileError(f"{remote} is not readable parquet ({error}); run the day's Copy again") from error
    return BronzeFile(
        source=source,
        day=day,
        name=blob.name,
        received=received - len(unparsed),
        local=local,
        extra=_extra_columns(source, names),
        origin=origin,
        listing=next(iter(origins.get("_listing", {""}))) or "",
        unparsed=tuple(unparsed),
    )


def _open_parquet(local: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(local)
    constant = [name for name in COPY_COLUMNS if name in file.schema_arrow.names]  # the same text in every row
    return pq.ParquetFile(local, metadata=file.metadata, read_dictionary=constant)


def _column_names(schema: pa.Schema) -> list[str]:
    return [name.removeprefix(BYTE_ORDER_MARK) for name in schema.names]


def _rename(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.rename_columns(_column_names(batch.schema))


def _extra_columns(source: SourceConfig, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names) - {*source.columns, *COPY_COLUMNS, LINE_COLUMN, "_row"}))


def _read_origins(file: pq.ParquetFile) -> dict[str, set[str | None]]:
    """The different values of each of COPY_COLUMNS that the file has."""
    present = [name for name in COPY_COLUMNS if name in file.schema_arrow.names]
    origins: dict[str, set[str | None]] = {name: set() for name in present}
    for batch in file.iter_batches(BATCH_ROWS, columns=present):
        for name in present:
            origins[name].update(pc.unique(batch[name]).to_pylist())
    return origins


def _check_types(source: SourceConfig, received: pa.Schema, names: Sequence[str]) -> None:
    """Raise UnusableFileError for a column without plain values. Checks its type, before any row is read."""
    for name, kind in zip(names, received.types, strict=True):
        if name in source.columns:
            try:
                as_text(pa.chunked_array([], kind))
                if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind):
                    raise TypeError("bytes are no text")
            except (pa.ArrowException, TypeError) as error:
                raise UnusableFileError(f"column {name} holds {kind}, not text or numbers ({error})") from error


def _check_columns(source: SourceConfig, names: Sequence[str]) -> None:
    """Raise UnusableFileError for repeated, missing and misspelt columns."""
    repeated = [name for name, times in Counter(names).items() if times > 1 and name in source.columns]
    if repeated:
        raise UnusableFileError(f"has {', '.join(repeated)} more than once; ask upstream which one counts")
    received = [name for name in names if name not in (*COPY_COLUMNS, "_row")]
    unknown = {name.strip().lower(): name for name in received if name not in source.columns}
    required = source.required_columns
    missing = [name for name in required if name not in names]
    if missing:
        hints = []
        for name in missing:
            similar = difflib.get_close_matches(name, unknown, n=1, cutoff=0.5)
            hints.append(f"rename {unknown[similar[0]]!r} to {name!r}" if similar else f"ask upstream for {name!r}")
        raise UnusableFileError(
            f"lacks {', '.join(missing)}; found {', '.join(received)}; needed {', '.join(required)}; {', '.join(hints)}"
        )
    # an optional column may be missing; one under another spelling would be lost without notice
    spellings = {_normalise(name): name for name in unknown.values()}
    absent = [name for name in source.columns if name not in names]
    renamed = [(spellings[_normalise(name)], name) for name in absent if _normalise(name) in spellings]
    if renamed:
        remedy = ", ".join(f"rename {wrong!r} to {name!r}" for wrong, name in renamed)
        raise UnusableFileError(f"has columns under another name: {remedy}, or leave them out")


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _to_rows(batch: pa.RecordBatch, file: BronzeFile, offset: int) -> pa.RecordBatch:
    """A batch in the columns of `schema`; `offset` is the number of the file's rows before it."""
    count = batch.num_rows
    columns = {
        "_day": pa.repeat(pa.scalar(file.day, pa.date32()), count),
        "_file": pa.repeat(pa.scalar(file.origin, pa.string()), count),
        "_row": batch["_row"]
        if "_row" in batch.schema.names
        else pa.array(np.arange(offset + 1, offset + count + 1, dtype=np.int64)),
    }
    for column in file.source.columns:
        present = column in batch.schema.names
        columns[column] = as_text(batch[column]) if present else pa.nulls(count, pa.string())
    return pa.record_batch(list(columns.values()), schema=schema(file.source))


def _only_origin(origins: set[str | None], name: str) -> str:
    """The value of `_file` in all rows. Raises UnusableFileError unless every row names the landed file `name`."""
    origin = next(iter(origins), None)
    if len(origins) == 1 and origin is not None and (origin == name or origin.endswith(f"/{name}")):
        return origin
    listed = sorted(map(str, origins)) if origins else [None]
    raise UnusableFileError(
        f"{path(name)} says in _file that its rows are from {listed}; the Copy must write each source to its own "
        "file, with the extra column _file = $$FILEPATH"
    )


def as_text(column: Column) -> Column:
    """A column of any plain type as text, without loss: whole doubles as integers, times as ISO 8601.

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
