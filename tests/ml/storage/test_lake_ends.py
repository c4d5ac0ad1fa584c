"""A process that has read a table ends with its own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ml.storage import tables

READ = "from ml.storage import tables; print(tables.read('ops.numbers', columns=['n']).num_rows)"


def test_a_process_that_ends_right_after_reading_is_not_aborted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading through a file system written in Python aborted about half of such processes (exit code 134)."""
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    tables.replace("ops.numbers", pa.table({"n": range(100)}), "n IS NOT NULL")
    environment = os.environ | {"PYTHONPATH": str(Path(tables.__file__).parents[2])}
    for _ in range(2):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", READ], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(3)
        ]
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, b"100\n"), err
