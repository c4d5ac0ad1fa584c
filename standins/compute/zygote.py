"""The warm cluster: a process that has the heavy libraries imported, and forks for every run.

A Databricks cluster is running before a job reaches it; a fresh interpreter that imports pandas,
LightGBM, MLflow and Great Expectations is not, and takes several seconds. This process is
single-threaded in Python, so a fork is safe. The libraries leave threads of their own behind, jemalloc's
(pyarrow, deltalake) and OpenBLAS's (numpy, scipy); both bring them back after a fork. DuckDB's, tokio's
and OpenMP's only come with the first use, which is never here. tests/standins/compute/test_warm.py uses
every one of them in forks.

Protocol: a line on standard input is a run's folder; the answer is a line with the supervisor's pid.
It is killed with the thread that started it, so it cannot outlive the stand-in; its runs can.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import sys
import warnings
from pathlib import Path

from standins.compute import run as compute_run

PRELOAD = (
    "numpy", "pandas", "pyarrow", "pyarrow.dataset", "pyarrow.parquet", "duckdb", "deltalake", "sqlglot",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "sklearn.isotonic", "sklearn.calibration",
    "scipy.stats", "lightgbm", "mlflow", "mlflow.lightgbm", "mlflow.sklearn", "great_expectations",
    "matplotlib.pyplot", "azure.storage.blob", "azure.identity", "pydantic", "yaml",
)  # fmt: skip


def preload() -> None:
    """Import what runs import. A library that is not installed is the run's own concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOAD:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector of a fork then leaves these pages alone, and they stay shared


def serve() -> None:
    """Announce readiness, then fork a supervisor for every folder that is named."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; results are in the runs' folders
    os.write(1, b"ready\n")
    while folder := sys.stdin.readline().strip():
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 0)
                os.dup2(nothing, 1)
                compute_run.supervise(Path(folder))
            finally:
                os._exit(0)
        os.write(1, f"{pid}\n".encode())  # one write: the reader takes what it gets for a line


if __name__ == "__main__":
    compute_run.die_with_parent(int(sys.argv[1]))
    compute_run.yield_to_services()
    faulthandler.enable()
    preload()
    serve()
