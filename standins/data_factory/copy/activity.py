"""Data Factory's Copy activity: files of one format, from Blob Storage to parquet files or a Delta table.

A copy is idempotent: it writes each file atomically under the same name again, and does not repeat a Delta commit.
There is only one storage account, so every linked service of type AzureBlobStorage refers to it, with the stand-ins'
own key.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobProperties, ContainerClient

from standins.core import storage
from standins.core.cloud import Settings
from standins.data_factory.copy.conversion import additional_columns, write_parquet
from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import READERS, BadRow, CopyError
from standins.data_factory.copy.sink import commit_delta, upload
from standins.data_factory.copy.skip_log import SkipLog
from standins.data_factory.copy.source import download, source_files

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Tally:
    """The sums over the files that were copied so far. Sizes in bytes."""

    data_read: int = 0
    data_written: int = 0
    files_read: int = 0
    files_written: int = 0
    rows_copied: int = 0
    rows_skipped: int = 0

    def add(self, copied: CopiedFile) -> None:
        self.files_read += 1
        self.files_written += bool(copied.data_written)
        self.data_read += copied.data_read
        self.data_written += copied.data_written
        self.rows_copied += copied.rows_copied
        self.rows_skipped += copied.rows_skipped

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
    """Execute the copy and return the activity's output. Raises CopyError.

    `folder` is for temporary files. `check` is called every few megabytes and raises when the copy must stop.
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
    copy_file = _CopyFile(copy, client, sink, scratch, log, check)
    converted: list[Path] = []
    for copied in in_order(copy_file, enumerate(source_files(copy, client)), copy.parallel, check):
        tally.add(copied)
        converted.append(copied.converted)
    if to_delta:
        check()
        tally.data_written = commit_delta(copy, settings, converted, check)


@dataclass(frozen=True)
class CopiedFile:
    """A file that was copied. Sizes in bytes; `data_written` is 0 when its rows are committed later."""

    converted: Path
    data_read: int
    data_written: int
    rows_copied: int
    rows_skipped: int


@dataclass(frozen=True)
class _CopyFile:
    """Copies one file: `(number, (blob, its path below the folder))`."""

    copy: Copy
    source: ContainerClient
    sink: ContainerClient | None  # None: the rows of all files go into one commit
    scratch: Path
    log: SkipLog
    check: Callable[[], None]

    def __call__(self, numbered: tuple[int, tuple[BlobProperties, PurePosixPath]]) -> CopiedFile:
        self.check()
        number, (blob, relative) = numbered
        name = f"{self.source.container_name}/{blob.name}"
        received, converted = self.scratch / f"{number}.received", self.scratch / f"{number}.parquet"
        bytes_read = download(self.source, blob, name, received, self.check)
        skipped = 0

        def skip(row: BadRow) -> None:
            nonlocal skipped
            self.log.add(row)
            skipped += 1

        reader = READERS[self.copy.source_dataset["type"]]
        may_skip = self.copy.type_properties.get("enableSkipIncompatibleRow")
        rows = reader(received, name, self.copy.source_dataset["typeProperties"], skip if may_skip else None)
        rows_copied = write_parquet(rows, additional_columns(self.copy, name), name, converted, self.check)
        received.unlink()
        bytes_written = 0
        if self.sink is not None:
            bytes_written = converted.stat().st_size
            upload(self.copy, self.sink, relative, converted)
            converted.unlink()
        return CopiedFile(converted, bytes_read, bytes_written, rows_copied, skipped)


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, check: Callable[[], None]) -> Iterator[R]:
    """The result of `work` for each item, in order, with several workers. After a failure no further item starts."""
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
