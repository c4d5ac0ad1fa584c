"""Landed files as Data Factory's Copy wrote them: one parquet file each, read back as text and accounted for.

`transactions/1998-06-28/x.csv` in landing is `bronze/transactions/csv/1998-06-28/x.parquet` in the lake,
with a column `_file` that names its source. A bronze file whose source is no longer landed is left alone.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    from ml.storage.stores import Blob, Store

Column: TypeAlias = pa.ChunkedArray | pa.Array
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
ABOUT = ("_file", "_listing")  # what the Copy says of each row: where it came from, and what was landed then
LINE = "Prop_0"  # the one column of a file whose lines the Copy did not read: JSON lines
SCHEMA = pa.schema(
    {"_day": pa.date32(), "_file": pa.string(), "_row": pa.int64()} | dict.fromkeys(COLUMNS, pa.string())
)
BATCH_ROWS = 50_000  # in memory at once: some 10 MB
READERS = 8  # files read at once: a read is mostly waiting for storage
BYTE_ORDER_MARK = "\ufeff"  # spreadsheets write one before the first column's name


class UnusableFileError(ValueError):
    """A landed file that cannot become rows; the message names the file, what was found and the remedy."""


class NotCopiedError(UnusableFileError):
    """A landed file of which there is nothing in bronze."""


@dataclass(frozen=True)
class BronzeFile:
    """One landed file as bronze holds it, in a local copy.

    `received` is the number of rows that the parquet file's own metadata claims, less the lines that are no
    rows (`unparsed`). `listing` says what was landed when its Copy was asked for (`land.note_listing`).
    """

    day: date
    name: str
    received: int
    local: Path | None = None
    extra: tuple[str, ...] = ()
    problem: str | None = None
    copied: bool = True
    source: str = ""
    listing: str = ""
    unparsed: tuple[Skipped, ...] = ()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows: `_day`, `_file`, `_row` (1 is the first data row) and COLUMNS as text, as received."""
        if self.local is None:
            return
        file, at = _parquet(self.local), 0
        for batch in file.iter_batches(BATCH_ROWS):
            yield _as_rows(_named(batch), self.day, self.source, at)
            at += batch.num_rows

    @property
    def rows(self) -> pa.Table | None:
        """All of them at once, for files that are known to be small."""
        return None if self.local is None else pa.Table.from_batches(self.batches(), SCHEMA)


def path(name: str) -> str:
    """Where the Copy puts a landed file: `<table>/<day>/<stem>.<format>` → its parquet file in the lake."""
    source = PurePosixPath(name)
    return f"bronze/{source.parts[0]}/{source.suffix[1:]}/{source.parts[1]}/{source.stem}.parquet"


def read(lake: Store, files: Sequence[tuple[date, Blob]], folder: Path) -> list[BronzeFile]:
    """Bring the bronze file of each landed file to `folder` and look at it, several at once; in the given order.

    What is wrong with a file stands in its `problem`, so that all of a day's files are told of at once.
    An empty (0 bytes) file has no rows, whatever an earlier Copy left in its place.
    """
    with ThreadPoolExecutor(READERS) as threads:
        numbered = [(number, *file) for number, file in enumerate(files)]
        return list(threads.map(lambda one: _read_one(lake, folder / f"bronze-{one[0]}.parquet", *one[1:]), numbered))


def batches(files: Sequence[BronzeFile]) -> Iterator[pa.RecordBatch]:
    """The rows of all files, one after the other."""
    for file in files:
        yield from file.batches()


def joined(files: Sequence[BronzeFile]) -> pa.Table:
    """The rows of all files at once, for few of them."""
    return pa.Table.from_batches(batches(files), SCHEMA)


def _read_one(lake: Store, local: Path, day: date, blob: Blob) -> BronzeFile:
    if blob.size == 0:
        return BronzeFile(day, blob.name, received=0)
    try:
        return _open(lake, local, day, blob)
    except UnusableFileError as error:
        copied = not isinstance(error, NotCopiedError)
        return BronzeFile(day, blob.name, received=0, problem=f"{blob.name}: {error}", copied=copied)


def _open(lake: Store, local: Path, day: date, blob: Blob) -> BronzeFile:
    where = path(blob.name)
    try:
        lake.fetch(where, local)
    except FileNotFoundError:
        raise NotCopiedError(
            f"the Copy did not write {where}; see why in the Copy's run in Data Factory, then run the day again"
        ) from None
    try:
        file = _parquet(local)
        names = _names(file.schema_arrow)
        received = file.metadata.num_rows
        if not received:
            return BronzeFile(day, blob.name, received=0, extra=_extra(names))
        told = _told(file)
        source = _source(told.get("_file", set()), blob.name)
        unparsed: list[Skipped] = []
        if set(names) - set(ABOUT) == {LINE}:
            names = json_lines.convert(file, local.with_suffix(".rows"), day, blob.name, source, COLUMNS, unparsed)
            local = local.with_suffix(".rows")
        else:
            _check_types(file.schema_arrow, names)
        if len(unparsed) < received:
            _check_columns(names)
    except json_lines.NotJsonError as error:
        raise UnusableFileError(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise UnusableFileError(f"{where} is not readable parquet ({error}); run the day's Copy again") from error
    listing = next(iter(told.get("_listing", {""}))) or ""
    return BronzeFile(
        day,
        blob.name,
        received - len(unparsed),
        local,
        _extra(names),
        source=source,
        listing=listing,
        unparsed=tuple(unparsed),
    )


def _parquet(local: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(local)
    there = [name for name in ABOUT if name in file.schema_arrow.names]
    return pq.ParquetFile(local, metadata=file.metadata, read_dictionary=there)  # the same text in every row


def _names(schema: pa.Schema) -> list[str]:
    return [name.removeprefix(BYTE_ORDER_MARK) for name in schema.names]


def _named(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.rename_columns(_names(batch.schema))


def _extra(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names) - {*COLUMNS, *ABOUT, LINE, "_row"}))


def _told(file: pq.ParquetFile) -> dict[str, set[str | None]]:
    """What the rows say of where they came from, by column."""
    there = [name for name in ABOUT if name in file.schema_arrow.names]
    told: dict[str, set[str | None]] = {name: set() for name in there}
    for batch in file.iter_batches(BATCH_ROWS, columns=there):
        for name in there:
            told[name].update(pc.unique(batch[name]).to_pylist())
    return told


def _check_types(schema: pa.Schema, names: Sequence[str]) -> None:
    """Raise UnusableFileError for a column that holds no plain values; told by its type, before any row is read."""
    for name, kind in zip(names, schema.types, strict=True):
        if name in COLUMNS:
            try:
                as_text(pa.chunked_array([], kind))
                if is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind):
                    raise TypeError("bytes are no text")
            except (pa.ArrowException, TypeError) as error:
                raise UnusableFileError(f"column {name} holds {kind}, not text or numbers ({error})") from error


def _check_columns(names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1 and name in COLUMNS]
    if twice:
        raise UnusableFileError(f"has {', '.join(twice)} more than once; ask upstream which one counts")
    found = [name for name in names if name not in (*ABOUT, "_row")]
    spare = {name.strip().lower(): name for name in found if name not in COLUMNS}
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        hints = []
        for name in missing:
            alike = difflib.get_close_matches(name, spare, n=1, cutoff=0.5)
            hints.append(f"rename {spare[alike[0]]!r} to {name!r}" if alike else f"ask upstream for {name!r}")
        raise UnusableFileError(
            f"lacks {', '.join(missing)}; found {', '.join(found)}; needed {', '.join(REQUIRED)}; {', '.join(hints)}"
        )
    # an optional column may be absent; one that is there under another spelling would be lost without a word
    letters = {_letters(name): name for name in spare.values()}
    renamed = [(letters[_letters(name)], name) for name in COLUMNS if name not in names and _letters(name) in letters]
    if renamed:
        told = ", ".join(f"rename {found!r} to {name!r}" for found, name in renamed)
        raise UnusableFileError(f"has columns under another name: {told}, or leave them out")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _as_rows(batch: pa.RecordBatch, day: date, source: str, at: int) -> pa.RecordBatch:
    count = batch.num_rows
    columns = {
        "_day": pa.repeat(pa.scalar(day, pa.date32()), count),
        "_file": pa.repeat(pa.scalar(source, pa.string()), count),
        "_row": batch["_row"]
        if "_row" in batch.schema.names
        else pa.array(np.arange(at + 1, at + count + 1, dtype=np.int64)),
    }
    for column in COLUMNS:
        there = column in batch.schema.names
        columns[column] = as_text(batch[column]) if there else pa.nulls(count, pa.string())
    return pa.record_batch(list(columns.values()), schema=SCHEMA)


def _source(found: set[str | None], name: str) -> str:
    """What the rows say of where they came from: all must name the one landed file."""
    told = next(iter(found), None)
    if len(found) == 1 and told is not None and (told == name or told.endswith(f"/{name}")):
        return told
    listed = sorted(str(one) for one in found) if found else [None]
    raise UnusableFileError(
        f"{path(name)} says in _file that its rows are from {listed}; the Copy must write each source to its own "
        "file, with the extra column _file = $$FILEPATH"
    )


def as_text(column: Column) -> Column:
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
