"""Services of the tests end when the process that runs the tests does, however that one ends.

A worker of pytest-xdist that is interrupted, and any process that is killed, tears nothing down.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from local import launch


def ending_with_tests(command: Sequence[str], folder: Path) -> list[str]:
    """The command, run in `folder`, that is told to end (SIGTERM) by the kernel when this process is gone."""
    how = [str(int(signal.SIGTERM)), str(os.getpid()), str(folder)]
    return [sys.executable, "-I", str(Path(launch.__file__)), *how, *command]
