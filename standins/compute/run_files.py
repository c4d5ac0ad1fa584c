"""The files in a run's folder: all that is known about a run.

`work.json` says what to do, `process.json` is the supervisor's claim, `log.txt` the output, `error.json` the first
error, `stop` a request to end the run, `result.json` how it ended.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

WORK, PROCESS, RESULT, STOP, LOG, ERROR = "work.json", "process.json", "result.json", "stop", "log.txt", "error.json"
SCRATCH = "tmp"  # the run's own folder for temporary files: deleted when the run ends, however it ends


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write or replace a file atomically, readable by its owner only (it may hold an account key)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a file, or None when it does not exist. Files are replaced atomically, so it is complete."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def clear_away(folder: Path) -> None:
    """Remove what an ended run no longer needs: temporary files, and the environment with the account key."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    if work := read_json(folder / WORK):
        write_json(folder / WORK, {**work, "environment": {}})
