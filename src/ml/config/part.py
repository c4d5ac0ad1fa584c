"""One part of a model's file, for the start of a task: it needs few parts, and all classes take ten times as long to load."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ml.config.load import check, config_path, read_file
from ml.resources import last_change

SECTIONS = {"label": "Label", "report": "Report", "score": "Score", "train": "Train"}
MODULES = {"train": "train"}  # of the section's class; the others are in `sections`


def load_part(model: str, key: str) -> Any:
    """The value of one key of a model's file, checked on its own. The Dag processor has checked the whole file.

    Raises ConfigError.
    """
    path = config_path("model", model)
    value = _read_version(path, last_change(path)).get(key)
    if key not in SECTIONS or value is None:
        return value
    kind = getattr(import_module(f"ml.config.{MODULES.get(key, 'sections')}"), SECTIONS[key])
    return check(path, value, kind)


@cache
def _read_version(path: Path, _: tuple[int, int] | None) -> dict[str, Any]:
    return read_file(path)
