"""Finds config, SQL and expectations: in a checkout, in an installed wheel, or in the folder that `ML_RESOURCES` names."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)


def resource_dir(kind: Literal["config", "sql", "expectations"]) -> Path:
    """The folder of one kind of file.

    `ML_RESOURCES` may name a folder with `config/`, `sql/` or `expectations/` that replaces the project's own. A kind
    that it lacks is the project's: packed into the wheel, else in the checkout.
    """
    if override := os.environ.get("ML_RESOURCES"):
        folder = Path(override) / kind
        if folder.is_dir():
            _log_override(folder)
            return folder
    packed = Path(str(files("ml"))) / "_data" / kind
    if packed.is_dir():
        return packed
    root = Path(__file__).resolve().parents[2]
    return root / ("config" if kind == "config" else f"include/{kind}")


@cache
def _log_override(folder: Path) -> None:
    log.info("ML_RESOURCES: %s replaces the project's own files", folder)


def last_change(path: Path) -> tuple[int, int] | None:
    """Modification time (ns) and size (bytes) of a file, as a cache key of its content. None when it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
