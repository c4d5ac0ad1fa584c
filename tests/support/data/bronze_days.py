"""Landing and bronze in folders, as Data Factory's Copy leaves them, for the tests of ingest and validate."""

from __future__ import annotations

import argparse
import copy
import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.ingest import bronze
from ml.ops import ingested_days
from ml.stages import ingest
from ml.storage import stores, tables

DAY = date(2011, 6, 28)
GOOD: Mapping[str, Any] = {
    "transaction_id": "536365",
    "customer_id": "17850",
    "occurred_at": "2011-06-28T10:30:00",
    "product_id": "85123A",
    "category": "home",
    "channel": "online",
    "country": "United Kingdom",
    "quantity": "6",
    "unit_price": "2.55",
    "amount": "15.3",
}


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    """A good purchase, different for each number, with some values changed."""
    return {**GOOD, "transaction_id": str(536365 + number), **changed}


class Days:
    """A landing store and a lake in folders, and what arrives there of one source."""

    source = "transactions"

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        for variable, name in (("LANDING_URI", "landing"), ("LAKE_URI", "lake"), ("REPORTS_URI", "reports")):
            (folder / name).mkdir(parents=True)
            monkeypatch.setenv(variable, (folder / name).as_uri())
        self.skipped: list[tuple[str, str]] = []

    def of(self, source: str) -> Days:
        """The same stores, for another source."""
        other = copy.copy(self)
        other.source, other.skipped = source, []
        return other

    def land(self, name: str, content: bytes, day: date = DAY) -> str:
        """Put a file into landing only. Returns its path there."""
        path = f"{self.source}/{day}/{name}"
        stores.landing().write(path, content)
        return path

    def arrive(self, name: str, rows: Sequence[Mapping[str, Any]] | pa.Table, day: date = DAY) -> str:
        """Land a file and copy it. The landed file has the right format, and differs when the rows differ."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(r) for r in rows])
        path = self.land(name, landed_as(name, table), day)
        self.copy(path, table)
        return path

    def copy(self, path: str, table: pa.Table) -> None:
        """Write the bronze file of a landed one."""
        source = pa.repeat(pa.scalar(f"landing/{path}", pa.string()), table.num_rows)
        content = io.BytesIO()
        pq.write_table(table.append_column("_file", source), content)
        stores.lake().write(bronze.path(path), content.getvalue())

    def skip(self, path: str, number: int, text: str, log: str = "bronze/_log/k") -> None:
        """Log a row that the Copy could not parse."""
        message = (
            "ErrorCode=DelimitedTextMoreColumnsThanDefined,'Type=HybridDeliveryException,Message=Error found when "
            f"processing 'Csv/Tsv Format Text' source 'landing/{path}' with row number {number}: found more columns "
            "than expected column count 10.,'"
        )
        self.skipped.append((text, message))
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(("Timestamp", "Level", "OperationName", "OperationItem", "Message"))
        for item, why in self.skipped:
            writer.writerow(("2011-06-29 06:00:00.000000", "Warning", "TabularRowSkip", item, why))
        stores.lake().write(f"{log}/copyactivity-logs/copy_csv/1/2.csv", out.getvalue().encode())

    def ingest(self, *days: date, run_key: str = "k", **arguments: str) -> dict[str, Any]:
        """Run the stage for some days (default: DAY). Returns its facts."""
        parser = argparse.ArgumentParser()
        parser.set_defaults(source=self.source)
        ingest.add_arguments(parser)
        requested = ",".join(str(day) for day in days or (DAY,))
        options = [text for name, value in arguments.items() for text in (f"--{name.replace('_', '-')}", value)]
        return ingest.run(parser.parse_args(["--days", requested, "--run-key", run_key, *options]))


def landed_as(name: str, table: pa.Table) -> bytes:
    if name.endswith(".parquet"):
        content = io.BytesIO()
        pq.write_table(table, content)
        return content.getvalue()
    header = ("\t" if name.endswith(".tsv") else ",").join(table.column_names)
    return f"{header}\n{json.dumps(table.to_pylist(), default=str)}\n".encode()


def rows_of(table: str, day: date | None = None) -> list[dict[str, Any]]:
    """A table's rows (of one day), in a fixed order."""
    where = None if day is None else pc.field("day") == pa.scalar(day)
    rows = tables.read(table, where=where).to_pylist()
    return sorted(rows, key=lambda r: (r.get("day"), r.get("_file") or "", r.get("_row") or 0, str(r)))


def mark(day: date = DAY, source: str = "transactions") -> dict[str, Any] | None:
    """The day's row in ops.ingested_days, or None."""
    marks = ingested_days.read_rows(source, [day])
    assert len(marks) <= 1
    return marks[0] if marks else None
