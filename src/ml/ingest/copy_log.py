"""Rows that Data Factory's Copy could not parse and skipped, read from the log that it keeps.

A Copy with `enableSkipIncompatibleRow` writes csv files of Timestamp, Level, OperationName, OperationItem
(the row) and Message. The message names source and row, for instance: "Error found when processing
'Csv/Tsv Format Text' source 'x.csv' with row number 53: found more columns than expected column count 5".
Source: https://learn.microsoft.com/azure/data-factory/copy-activity-fault-tolerance
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.storage.stores import Store

ROW_SKIP = "TabularRowSkip"
SOURCE = re.compile(r"source '([^']+)'")


class UnknownSourceError(ValueError):
    """A skipped row that cannot be assigned to one landed file, and so to no day."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """One row that never became bronze: the landed file it was in, its text, and why it could not be parsed.

    `name` is the file's path in the landing store, `file` the same as Data Factory names it.
    """

    day: date
    name: str
    file: str
    item: str
    message: str
    row: int | None = None  # number in its file, where known


def read_copy_log(lake: Store, prefix: str, landed: Sequence[tuple[date, str]]) -> list[Skipped]:
    """The skipped rows of the `landed` files (day, name), ordered by day and file.

    A retried Copy logs its rows again: the same row and message count once. Rows of files that are not landed, or no
    longer, are left out. Raises UnknownSourceError when a row may belong to several files.
    """
    if not prefix:
        return []
    entries: dict[tuple[str, str], None] = {}
    for blob in lake.list(prefix):
        if blob.name.endswith((".csv", ".txt")):
            for line in csv.DictReader(io.StringIO(lake.read(blob.name).decode("utf-8-sig")), skipinitialspace=True):
                if line.get("OperationName") == ROW_SKIP:
                    entries[(line.get("OperationItem") or "", line.get("Message") or "")] = None
    skipped: list[Skipped] = []
    for item, message in entries:
        source, files = _find_source(prefix, message, landed)
        skipped.extend(Skipped(day=day, name=name, file=source, item=item, message=message) for day, name in files)
    return sorted(skipped, key=lambda row: (row.day, row.name))


def _find_source(prefix: str, message: str, landed: Sequence[tuple[date, str]]) -> tuple[str, list[tuple[date, str]]]:
    """The source that a message names, and the landed file that it is; empty when that file is not landed."""
    named = SOURCE.search(message)
    if named is None:
        raise UnknownSourceError(f"{prefix}: Data Factory skipped a row and names no source: {message}")
    # the stand-in names container and path, the service only the file
    source = f"/{named[1]}"
    files = [(day, name) for day, name in landed if source.endswith(f"/{name}") or f"/{name}".endswith(source)]
    if len(files) > 1:
        candidates = " or ".join(name for _, name in files)
        raise UnknownSourceError(
            f"{prefix}: Data Factory skipped a row of {named[1]!r}, which may be {candidates}; ingest these days one "
            "by one"
        )
    return named[1], files
