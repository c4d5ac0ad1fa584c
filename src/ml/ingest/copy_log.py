"""Rows that Data Factory's Copy skipped because it could not parse them, from the log it keeps.

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
    """A skipped row that cannot be given to one landed file, and so to no day."""


@dataclass(frozen=True)
class Skipped:
    """One row that never became bronze: the landed file it was in, its text, and Data Factory's message.

    `name` is the file's path in the landing store, `file` the same as Data Factory names it.
    """

    day: date
    name: str
    file: str
    item: str
    message: str
    row: int | None = None  # in its file, where that is known


def read_copy_log(lake: Store, prefix: str, landed: Sequence[tuple[date, str]]) -> list[Skipped]:
    """The skipped rows of the `landed` files (day, name), by file.

    A Copy that was tried again logs its rows again: the same row and message count once. Rows of files that
    are not landed (any more) are left out. Raises UnknownSourceError when a row could be of several files.
    """
    if not prefix:
        return []
    entries: dict[tuple[str, str], None] = {}
    for blob in lake.list(prefix):
        if blob.name.endswith((".csv", ".txt")):
            for line in csv.DictReader(io.StringIO(lake.read(blob.name).decode("utf-8-sig")), skipinitialspace=True):
                if line.get("OperationName") == ROW_SKIP:
                    entries[(line.get("OperationItem") or "", line.get("Message") or "")] = None
    found: list[Skipped] = []
    for item, message in entries:
        source, names = _origin(prefix, message, landed)
        found.extend(Skipped(day, name, source, item, message) for day, name in names)
    return sorted(found, key=lambda row: (row.day, row.name))


def _origin(prefix: str, message: str, landed: Sequence[tuple[date, str]]) -> tuple[str, list[tuple[date, str]]]:
    """The source a message names, and the landed file that is; none when it is not among the landed ones."""
    named = SOURCE.search(message)
    if named is None:
        raise UnknownSourceError(f"{prefix}: Data Factory skipped a row and names no source: {message}")
    # the stand-in names container and path, the service only the file
    source = f"/{named[1]}"
    same = [(day, name) for day, name in landed if source.endswith(f"/{name}") or f"/{name}".endswith(source)]
    if len(same) > 1:
        files = " or ".join(name for _, name in same)
        raise UnknownSourceError(
            f"{prefix}: Data Factory skipped a row of {named[1]!r}, which may be {files}; ingest these days one by one"
        )
    return named[1], same
