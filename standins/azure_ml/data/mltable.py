"""Azure ML data tables: an `MLTable` file that lists parquet files of its own folder.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-mltable
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "MLTable"


class BadTableError(ValueError):
    """The table is invalid; the message says why."""


class TableNotImplementedError(ValueError):
    """The table uses a feature that the service has and this stand-in lacks."""


def file_patterns(text: str) -> list[str]:
    """The table's files as glob patterns relative to its folder. Raises BadTableError and TableNotImplementedError."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadTableError(f"it is not YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("paths"), list) or not content["paths"]:
        raise BadTableError("'paths' is missing or empty")
    if unknown := sorted(set(content) - {"paths", "transformations", "type", "$schema"}):
        raise TableNotImplementedError(f"An MLTable with {', '.join(unknown)}")
    patterns = []
    for entry in content["paths"]:
        kind, path = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else ("", "")
        if kind not in ("file", "pattern", "folder") or not isinstance(path, str):
            raise BadTableError(f"path {entry!r}: one of file, pattern and folder is needed")
        relative = PurePosixPath(path)
        if "://" in path or path.startswith(("/", "azureml:")) or ".." in relative.parts:
            raise TableNotImplementedError(f"An MLTable with files outside its own folder ({path})")
        patterns.append(str(relative / "*.parquet" if kind == "folder" else relative))
    _check_transformations(content.get("transformations") or [])
    return patterns


def _check_transformations(steps: list[Any]) -> None:
    names = [step if isinstance(step, str) else next(iter(step)) for step in steps]
    if names != ["read_parquet"]:
        listed = ", ".join(map(str, names)) or "none"
        raise TableNotImplementedError(f"An MLTable with other transformations than read_parquet ({listed})")
    options = {} if isinstance(steps[0], str) else steps[0]["read_parquet"] or {}
    if active := sorted(name for name, value in options.items() if value):
        raise TableNotImplementedError(f"An MLTable whose read_parquet sets {', '.join(active)}")


def read_table(folder: Path) -> pa.Table:
    """All rows, ordered by file name. Raises BadTableError and TableNotImplementedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / FILE
    if not file.is_file():
        raise BadTableError(f"its folder has no file {FILE}")
    parts = []
    for pattern in file_patterns(file.read_text()):
        files = sorted(folder.glob(pattern))
        if not files:
            raise BadTableError(f"no file matches {pattern}")
        parts += [pq.read_table(file) for file in files]
    try:
        return pa.concat_tables(parts)
    except pa.ArrowInvalid as error:
        raise BadTableError(f"its files have different columns: {error}") from error
