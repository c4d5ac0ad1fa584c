"""`python -m tests.support.machines.machine_end PID`: stops a machine of the tests when the tests' process PID has ended.

An interrupted worker of pytest-xdist, and any killed process, runs no teardown.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from rich.console import Console

from local import control
from local.settings import from_environment


def main() -> None:
    try:
        psutil.Process(int(sys.argv[1])).wait()
    except psutil.NoSuchProcess:
        pass
    settings = from_environment()
    if settings.run_dir.exists():
        control.down(settings, Console(quiet=True))
        for disk in psutil.disk_partitions(all=True):
            if Path(disk.mountpoint).is_relative_to(settings.run_dir):
                subprocess.run(["umount", "--lazy", disk.mountpoint], check=False)
        shutil.rmtree(settings.run_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
