"""The log of the rows that a Copy activity skipped."""

from __future__ import annotations

import csv
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from standins.core import storage

if TYPE_CHECKING:
    from standins.core.cloud import Settings
    from standins.data_factory.copy.definition import Copy
    from standins.data_factory.copy.formats import BadRow


class SkipLog:
    """The skipped rows of a copy, as the CSV file that Data Factory writes. Thread-safe."""

    HEADER = ("Timestamp", "Level", "OperationName", "OperationItem", "Message")

    def __init__(self, copy: Copy, settings: Settings, folder: Path) -> None:
        self._copy = copy
        self._settings = settings
        self._path = folder / "skipped.csv"
        self._file = self._path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(self.HEADER)
        self._lock = threading.Lock()
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: BadRow) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        with self._lock:
            self._writer.writerow((now, "Warning", "TabularRowSkip", row.text, str(row.error)))
            self.rows += 1

    def upload(self) -> str | None:
        """Upload the log to the path in `logSettings` and return its folder; None when there is nothing to upload."""
        settings = self._copy.type_properties.get("logSettings")
        self._file.close()
        if not settings or not self.rows:
            return None
        path = PurePosixPath(settings["logLocationSettings"]["path"])
        container, *folders = path.parts
        folder = PurePosixPath(*folders, "copyactivity-logs", self._copy.name, self._copy.run_id)
        # The name is derived from the run: a resumed activity replaces its own log.
        name = f"{uuid.uuid5(uuid.NAMESPACE_OID, self._copy.run_id)}.csv"
        with self._path.open("rb") as file:
            storage.container(self._settings, container).upload_blob(str(folder / name), file, overwrite=True)
        return f"{container}/{folder}/"
