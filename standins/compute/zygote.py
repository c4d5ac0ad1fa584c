"""The warm cluster: a process that has imported the heavy libraries, and forks for every run.

A Databricks cluster is already running when a job arrives; a new interpreter first needs several seconds to import
pandas, LightGBM, MLflow and Great Expectations. This process has one Python thread, so a fork is safe. Some libraries
start threads of their own: jemalloc's (pyarrow, deltalake) and OpenBLAS's (numpy, scipy) are restored after a fork;
those of DuckDB, tokio and OpenMP start at their first use, which never happens in this process.
tests/standins/compute/test_warm.py uses each of these libraries in forks.

Protocol: each line on standard input is the folder of a run; the reply is a line with the supervisor's pid.
The process is killed with the thread that started it, so it cannot outlive the server; its runs can.
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

from standins.compute.run import supervise, yield_to_services
from standins.compute.worker import die_with_parent

PRELOAD = (
    "numpy", "pandas", "pyarrow", "pyarrow.dataset", "pyarrow.parquet", "duckdb", "deltalake", "sqlglot",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "sklearn.isotonic", "sklearn.calibration",
    "scipy.stats", "lightgbm", "mlflow", "mlflow.lightgbm", "mlflow.sklearn", "great_expectations",
    "matplotlib.pyplot", "azure.storage.blob", "azure.identity", "pydantic", "yaml",
)  # fmt: skip


def preload() -> None:
    """Import the libraries that runs use. A missing library is skipped: a run that needs it reports the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOAD:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the garbage collector of a fork then does not touch these pages, so they stay shared


def serve() -> None:
    """Announce readiness, then fork a supervisor for every folder that is read from standard input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the forks; results are in the folders of the runs
    os.write(1, b"ready\n")
    while folder := sys.stdin.readline().strip():
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                devnull = os.open(os.devnull, os.O_RDWR)
                os.dup2(devnull, 0)
                os.dup2(devnull, 1)
                supervise(Path(folder))
            finally:
                os._exit(0)
        os.write(1, f"{pid}\n".encode())  # one write: the reader expects a whole line per read


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    yield_to_services()
    faulthandler.enable()
    preload()
    serve()
