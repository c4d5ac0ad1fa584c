"""Services of the tests end when the process that runs the tests ends, for whatever reason it ends.

An interrupted worker of pytest-xdist, and any killed process, runs no teardown.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from local import launch


def ending_with_tests(command: Sequence[str], folder: Path) -> list[str]:
    """The command, run in `folder`; the kernel sends it SIGTERM when this process has ended."""
    options = [str(int(signal.SIGTERM)), str(os.getpid()), str(folder)]
    return [sys.executable, "-I", str(Path(launch.__file__)), *options, *command]
