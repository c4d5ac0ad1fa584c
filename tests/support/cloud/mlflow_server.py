"""A real MLflow server with its state in a folder, for sweeps and their trials."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.machines.ends_with_tests import ending_with_tests


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Start the server and yield its URL; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ending_with_tests(command, folder), env=os.environ | variables, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health", trust_env=False, timeout=5).is_success:
                break
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.2)
    yield url
    process.terminate()
    process.wait(20)
