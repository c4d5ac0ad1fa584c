"""Data tables of Azure ML: an `MLTable` file that names parquet files of its own folder.

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
    """The file cannot be used; the message says why."""


class TableNotImplementedError(ValueError):
    """The file asks for what the service can do and this stand-in cannot."""


def patterns(text: str) -> list[str]:
    """The files that a table is made of, relative to its folder, as patterns. Raises BadTableError and TableNotImplementedError."""
    try:
        told = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadTableError(f"it is not YAML: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("paths"), list) or not told["paths"]:
        raise BadTableError("it names no paths")
    if unknown := sorted(set(told) - {"paths", "transformations", "type", "$schema"}):
        raise TableNotImplementedError(f"An MLTable with {', '.join(unknown)}")
    found = []
    for entry in told["paths"]:
        kind, path = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else ("", "")
        if kind not in ("file", "pattern", "folder") or not isinstance(path, str):
            raise BadTableError(f"path {entry!r}: one of file, pattern and folder is needed")
        place = PurePosixPath(path)
        if "://" in path or path.startswith(("/", "azureml:")) or ".." in place.parts:
            raise TableNotImplementedError(f"An MLTable of files outside of its own folder ({path})")
        found.append(str(place / "*.parquet" if kind == "folder" else place))
    _check_transformations(told.get("transformations") or [])
    return found


def _check_transformations(steps: list[Any]) -> None:
    names = [step if isinstance(step, str) else next(iter(step)) for step in steps]
    if names != ["read_parquet"]:
        what = ", ".join(map(str, names)) or "none"
        raise TableNotImplementedError(f"An MLTable with other transformations than read_parquet ({what})")
    options = {} if isinstance(steps[0], str) else steps[0]["read_parquet"] or {}
    if asked := sorted(name for name, value in options.items() if value):
        raise TableNotImplementedError(f"An MLTable whose read_parquet has {', '.join(asked)}")


def read(folder: Path) -> pa.Table:
    """All rows, in the order of the files' names. Raises BadTableError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = folder / FILE
    if not place.is_file():
        raise BadTableError(f"there is no file {FILE} in the folder")
    parts = []
    for pattern in patterns(place.read_text()):
        files = sorted(folder.glob(pattern))
        if not files:
            raise BadTableError(f"there is no file {pattern}")
        parts += [pq.read_table(file) for file in files]
    try:
        return pa.concat_tables(parts)
    except pa.ArrowInvalid as error:
        raise BadTableError(f"its files have different columns: {error}") from error
