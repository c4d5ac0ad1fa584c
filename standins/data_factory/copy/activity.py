"""Data Factory's Copy activity: files of one format, from Blob Storage to parquet files or a Delta table.

A copy is idempotent: it writes the same names again, each file in one step, and a Delta commit
that was already made is not made twice. There is one storage account here, so every linked service
of type AzureBlobStorage leads to it, with the stand-ins' own key.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobProperties, ContainerClient

from standins.core import storage
from standins.core.cloud import Settings
from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import READERS, BadRow, CopyError, Rows, check_unique
from standins.data_factory.copy.skip_log import SkipLog

# What Data Factory refuses in a column's name when it writes Parquet.
_FORBIDDEN = set(",;{}()\n\t=")
_FILE_PATH = "$$FILEPATH"
_GROUP_ROWS = 50_000  # rows of a Parquet row group, held in memory until it is written

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Tally:
    """What a copy has done so far. Sizes in bytes."""

    data_read: int = 0
    data_written: int = 0
    files_read: int = 0
    files_written: int = 0
    rows_copied: int = 0
    rows_skipped: int = 0

    def add(self, done: Done) -> None:
        self.files_read += 1
        self.files_written += bool(done.data_written)
        self.data_read += done.data_read
        self.data_written += done.data_written
        self.rows_copied += done.rows_copied
        self.rows_skipped += done.rows_skipped

    def output(self, seconds: float, parallel: int) -> dict[str, Any]:
        """The activity's output, under Data Factory's names."""
        return {
            "dataRead": self.data_read,
            "dataWritten": self.data_written,
            "filesRead": self.files_read,
            "filesWritten": self.files_written,
            "rowsRead": self.rows_copied + self.rows_skipped,
            "rowsCopied": self.rows_copied,
            "rowsSkipped": self.rows_skipped,
            "copyDuration": round(seconds),
            "throughput": round(self.data_read / 1024 / max(seconds, 0.001), 3),  # KB/s
            "usedParallelCopies": parallel,
            "errors": [],
        }


def run(copy: Copy, settings: Settings, folder: Path, check: Callable[[], None]) -> dict[str, Any]:
    """Do the copy and return the activity's output. Raises CopyError.

    `folder` is for files in passing. `check` is called every few megabytes and raises when the
    copy is to stop.
    """
    started = time.monotonic()
    tally = Tally()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch, SkipLog(copy, settings, Path(scratch)) as log:
        try:
            _copy_files(copy, settings, Path(scratch), log, tally, check)
        except AzureError as error:
            raise CopyError(
                "UserErrorFailedBlobOperation",
                f"Blob operation of '{copy.name}' failed: {error}. Check that the container exists and answers.",
            ) from error
        log_path = log.upload()
    output = tally.output(time.monotonic() - started, copy.parallel)
    return output | ({"logFilePath": log_path} if log_path else {})


def _copy_files(
    copy: Copy, settings: Settings, scratch: Path, log: SkipLog, tally: Tally, check: Callable[[], None]
) -> None:
    location = copy.source_dataset["typeProperties"]["location"]
    client = storage.container(settings, location["container"])
    to_delta = copy.sink["type"] == "AzureDatabricksDeltaLakeSink"
    sink = (
        None if to_delta else storage.container(settings, copy.sink_dataset["typeProperties"]["location"]["container"])
    )
    one = _OneFile(copy, client, sink, scratch, log, check)
    kept: list[Path] = []
    for done in in_order(one, enumerate(_source_files(copy, client)), copy.parallel, check):
        tally.add(done)
        kept.append(done.converted)
    if to_delta:
        check()
        _commit_delta(copy, settings, kept, tally, check)


@dataclass(frozen=True)
class Done:
    """A file that was copied. Sizes in bytes; `data_written` is 0 when its rows are still to be committed."""

    converted: Path
    data_read: int
    data_written: int
    rows_copied: int
    rows_skipped: int


@dataclass(frozen=True)
class _OneFile:
    """Copies one file of many: `(number, (blob, its path below the folder))`."""

    copy: Copy
    source: ContainerClient
    sink: ContainerClient | None  # None: the rows of all files are committed together
    scratch: Path
    log: SkipLog
    check: Callable[[], None]

    def __call__(self, numbered: tuple[int, tuple[BlobProperties, PurePosixPath]]) -> Done:
        self.check()
        number, (blob, relative) = numbered
        name = f"{self.source.container_name}/{blob.name}"
        received, converted = self.scratch / f"{number}.received", self.scratch / f"{number}.parquet"
        read = _download(self.source, blob, name, received, self.check)
        skipped = 0

        def skip(row: BadRow) -> None:
            nonlocal skipped
            self.log.add(row)
            skipped += 1

        reader = READERS[self.copy.source_dataset["type"]]
        may_skip = self.copy.type_properties.get("enableSkipIncompatibleRow")
        rows = reader(received, name, self.copy.source_dataset["typeProperties"], skip if may_skip else None)
        copied = _convert(rows, _additional(self.copy, name), name, converted, self.check)
        received.unlink()
        written = 0
        if self.sink is not None:
            written = converted.stat().st_size
            _upload(self.copy, self.sink, relative, converted)
            converted.unlink()
        return Done(converted, read, written, copied, skipped)


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, check: Callable[[], None]) -> Iterator[R]:
    """What `work` makes of each item, in their order, several at once. After a failure no more are begun."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                check()
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# --- source ---------------------------------------------------------------------------------------


def _source_files(copy: Copy, client: ContainerClient) -> Iterator[tuple[BlobProperties, PurePosixPath]]:
    """The files to copy, each with its path below the folder in front of the first wildcard."""
    store = copy.source.get("storeSettings", {})
    location = copy.source_dataset["typeProperties"]["location"]
    if location.get("fileName") and "wildcardFileName" not in store:
        yield _the_file(client, str(PurePosixPath(location.get("folderPath") or "", location["fileName"])))
        return
    folder = str(store.get("wildcardFolderPath") or location.get("folderPath") or "").strip("/")
    file = str(store.get("wildcardFileName") or "*")
    base = "/".join(_before_wildcard(folder.split("/"))) if folder else ""
    wanted_folder, wanted_file = _pattern(folder), _pattern(file)
    below = f"{base}/" if base else ""
    for blob in client.list_blobs(name_starts_with=below or None):
        parent, _, leaf = str(blob.name).rpartition("/")
        levels = parent.split("/") if parent else []
        depths = range(len(levels) + 1) if store.get("recursive", True) else [len(levels)]
        if wanted_file.fullmatch(leaf) and any(wanted_folder.fullmatch("/".join(levels[:depth])) for depth in depths):
            yield blob, PurePosixPath(str(blob.name)[len(below) :])


def _the_file(client: ContainerClient, name: str) -> tuple[BlobProperties, PurePosixPath]:
    try:
        return client.get_blob_client(name).get_blob_properties(), PurePosixPath(PurePosixPath(name).name)
    except ResourceNotFoundError as error:
        raise _missing(f"{client.container_name}/{name}") from error


def _before_wildcard(levels: list[str]) -> list[str]:
    for position, level in enumerate(levels):
        if "*" in level or "?" in level:
            return levels[:position]
    return levels


def _pattern(wildcards: str) -> re.Pattern[str]:
    """`*` is any number of characters but `/`, `?` one or none."""
    translated = {"*": "[^/]*", "?": "[^/]?"}
    return re.compile("".join(translated.get(character) or re.escape(character) for character in wildcards))


def _download(client: ContainerClient, blob: BlobProperties, name: str, path: Path, check: Callable[[], None]) -> int:
    """Bring a blob to `path`, all of one version of it; its size in bytes."""
    try:
        stream = client.download_blob(str(blob.name), etag=blob.etag, match_condition=MatchConditions.IfNotModified)
        with path.open("wb") as file:
            for chunk in stream.chunks():
                check()
                file.write(chunk)
    except ResourceNotFoundError as error:
        raise _missing(name) from error
    except ResourceModifiedError as error:
        raise CopyError(
            "DataConsistencySourceDataChanged",
            f"Source file '{name}' is changed by other clients during the copy activity run. Run it again.",
        ) from error
    return path.stat().st_size


def _missing(name: str) -> CopyError:
    return CopyError(
        "UserErrorFileNotFound", f"The required Blob is missing: '{name}'. Check that the file exists and run again."
    )


# --- conversion -----------------------------------------------------------------------------------


def _additional(copy: Copy, name: str) -> dict[str, str]:
    return {
        column["name"]: name if column["value"] == _FILE_PATH else str(column["value"])
        for column in copy.source.get("additionalColumns", [])
    }


def _convert(rows: Rows, additional: dict[str, str], name: str, path: Path, check: Callable[[], None]) -> int:
    """Write rows and their additional columns to `path` as Parquet; the number of rows."""
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
            more = [pa.repeat(pa.scalar(value, pa.string()), batch.num_rows) for value in additional.values()]
            group.append(pa.record_batch([*batch.columns, *more], schema=schema))
            count += batch.num_rows
            if sum(part.num_rows for part in group) >= _GROUP_ROWS:
                write_group()
        if group:
            write_group()
    return count


# --- sink -----------------------------------------------------------------------------------------


def _upload(copy: Copy, client: ContainerClient, relative: PurePosixPath, path: Path) -> None:
    """PreserveHierarchy: the source's path below its folder, kept below the sink's folder."""
    folder = copy.sink_dataset["typeProperties"]["location"].get("folderPath") or ""
    with path.open("rb") as file:
        client.upload_blob(str(PurePosixPath(folder, relative.with_suffix(".parquet"))), file, overwrite=True)


def _commit_delta(copy: Copy, settings: Settings, files: list[Path], tally: Tally, check: Callable[[], None]) -> None:
    """Append all rows in one commit that carries the activity's run id, so that a resumed copy makes no second one."""
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

    if not files:
        return
    target = copy.sink_dataset["typeProperties"]
    uri = f"az://{storage.LAKE}/{target['database']}/{target['table']}"
    options = storage.delta_options(settings)
    tally.data_written = sum(path.stat().st_size for path in files)
    if DeltaTable.is_deltatable(uri, options):
        table = DeltaTable(uri, storage_options=options)
        if table.transaction_version(copy.run_id) is not None:
            return
    try:
        schema = pa.unify_schemas([pq.read_schema(path) for path in files], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CopyError("UserErrorSchemaMappingInvalid", f"The files' columns do not agree: {error}.") from error

    def batches() -> Iterator[pa.RecordBatch]:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches():
                check()
                columns = [
                    batch.column(field.name).cast(field.type)
                    if field.name in batch.schema.names
                    else pa.nulls(batch.num_rows, field.type)
                    for field in schema
                ]
                yield pa.record_batch(columns, schema=schema)

    write_deltalake(
        uri,
        pa.RecordBatchReader.from_batches(schema, batches()),
        mode="append",
        storage_options=options,
        commit_properties=CommitProperties(app_transactions=[Transaction(copy.run_id, 1)]),
    )
