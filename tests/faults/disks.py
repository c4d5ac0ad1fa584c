"""Small disks for a machine's services, which tests fill up and empty again."""

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
    """A file system of its own, in memory, for each service's folder; nothing where this user may not mount."""
    with ExitStack() as mounted:
        for name, size in SIZES.items():
            folder = run_dir / name
            folder.mkdir()
            asked = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
        yield


def is_small(folder: Path) -> bool:
    return os.path.ismount(folder)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte is free on the folder's disk inside of `with`."""
    assert is_small(folder), f"{folder} is no disk of its own"
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
