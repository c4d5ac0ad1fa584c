"""Finds config, SQL and expectations: in a checkout, in an installed wheel, or in the folder that `ML_RESOURCES` names."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Literal


def resource_dir(kind: Literal["config", "sql", "expectations"]) -> Path:
    """The folder of one kind of file.

    `ML_RESOURCES` may name a folder with `config/`, `sql/` or `expectations/` to use in place of the project's own;
    what it does not have is the project's: packed into the wheel, else in the checkout.
    """
    if given := os.environ.get("ML_RESOURCES"):
        folder = Path(given) / kind
        if folder.is_dir():
            return folder
    packed = Path(str(files("ml"))) / "_data" / kind
    if packed.is_dir():
        return packed
    root = Path(__file__).resolve().parents[2]
    return root / ("config" if kind == "config" else f"include/{kind}")


def last_change(path: Path) -> tuple[int, int] | None:
    """When a file was last written and its size: what a cache of its content goes by. None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
