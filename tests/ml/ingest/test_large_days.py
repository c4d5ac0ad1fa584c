"""Days of ten thousand files, and of one huge file, are ingested; memory does not grow with the size of the file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from tests.support.data.bad_arrivals import as_csv, rows
from tests.support.data.bronze_days import DAY, Days, mark, row
from tests.support.data.copied_days import CopiedDays

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FILES = 10_000
LARGE, HUGE = 1_500_000, 4_500_000  # rows


def test_ten_thousand_small_files_are_one_day(copied_days: CopiedDays, monkeypatch: pytest.MonkeyPatch) -> None:
    copied_days.connect(monkeypatch)
    day = date(2015, 1, 1)

    def land(number: int) -> None:
        copied_days.land(f"part-{number:05}.csv", as_csv(rows(day, 2 * number, 2 * number + 1)), day)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(land, range(FILES)))
    copied_days.copy(day, seconds=1200)
    assert copied_days.try_ingest(day) is None
    account = mark(day)
    assert account is not None
    assert (account["files"], account["received"], account["silver"]) == (FILES, 2 * FILES, 2 * FILES)


def test_a_file_three_times_as_large_needs_hardly_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_MEMORY_LIMIT", "500MB")  # of DuckDB, which uses all the memory that it is allowed
    peaks = [peak_of_ingestion(Days(tmp_path / str(count), monkeypatch), count) for count in (LARGE, HUGE)]
    assert peaks[1] < 1.4 * peaks[0], [f"{peak / 1e6:.0f} MB" for peak in peaks]


def peak_of_ingestion(days: Days, count: int) -> int:
    """Peak memory of the stage, in bytes, while it ingests a day of one file with `count` rows."""
    same = {name: pa.repeat(pa.scalar(value), count) for name, value in row().items()}
    ids = pa.array([str(number) for number in range(count)])
    customers = pa.array([str(number % 50_000) for number in range(count)])
    days.arrive("x.parquet", pa.table(same | {"transaction_id": ids, "customer_id": customers}))
    command = [sys.executable, "-m", "ml", "ingest", "--source", days.source, "--days", str(DAY), "--run-key", "k"]
    stage = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        with suppress(psutil.NoSuchProcess):
            while not done.wait(0.02):
                peak = max(peak, psutil.Process(stage.pid).memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert stage.wait(900) == 0
    finally:
        done.set()
        watcher.join()
    account = mark(DAY)
    assert account is not None
    assert account["silver"] == count
    return peak
