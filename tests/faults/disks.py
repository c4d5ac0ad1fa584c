"""Small disks for a machine's services, which tests fill and empty again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SIZES = {"azurite": "400m", "standins": "400m", "postgres": "600m"}  # a walk through the loop needs a third of it
_BALLAST = ".ballast"


@contextmanager
def small_disks(run_dir: Path) -> Iterator[None]:
    """Mount a file system in memory on each service's folder; does nothing where this user may not mount."""
    with ExitStack() as mounted:
        for name, size in SIZES.items():
            folder = run_dir / name
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
        yield


def is_small(folder: Path) -> bool:
    return os.path.ismount(folder)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Inside of `with`, no byte is free on the folder's disk."""
    assert is_small(folder), f"{folder} is not a disk of its own"
    ballast = folder / _BALLAST
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    try:
        yield
    finally:
        ballast.unlink()
