"""Stages of `python -m ml` as processes that start at once: forks of a process that has already imported their modules.

`python -m tests.faults.stage_processes` reads a line of JSON per process, `{"argv", "env", "log"}`, and writes its pid and,
when it has ended, its exit code (minus the signal that killed it). One process runs at a time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

PRELOAD = (
    "numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "duckdb", "deltalake", "sqlglot", "sklearn.metrics",
    "lightgbm", "mlflow", "mlflow.lightgbm", "great_expectations", "matplotlib.pyplot", "azure.storage.blob",
    "ml.stages.validate", "ml.stages.ingest", "ml.stages.features", "ml.stages.score", "ml.stages.monitor",
    "ml.stages.training_set", "ml.stages.train", "ml.stages.gate", "ml.stages.promote", "ml.stages.registry",
    "ml.registry.model_versions",
)  # fmt: skip


class StageProcesses:
    """Starts stages, each with the given environment and its own changes to it."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self.log = log
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stage_processes"],
            env={**environment, "PYTHONPATH": os.pathsep.join(("src", "plugins", "."))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *argv: str, **changes: str) -> psutil.Process:
        assert self._server.stdin is not None
        request = {"argv": argv, "env": self._environment | changes, "log": str(self.log)}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return psutil.Process(int(self._line()))

    def wait(self) -> int:
        """The exit code of the last started process."""
        return int(self._line())

    def output(self) -> str:
        """The output of the last started process."""
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def _line(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the process that forks the stages has ended"
        return line


def _run_stage(request: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["env"])
    from ml import cli

    cli.main(request["argv"])
    sys.exit(0)


def main() -> None:
    for name in PRELOAD:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            _run_stage(json.loads(line))
        os.write(1, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
