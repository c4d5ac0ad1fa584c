"""`python -m ml land`: writes day files of a demo source into the landing store, as upstream would."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

from ml.config import load_model
from ml.console import parse_day
from ml.errors import StageError
from ml.landing.listing import FORMATS
from ml.storage import stores
from ml.storage.stores import Blob, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.datasets import Source

log = logging.getLogger(__name__)
UPLOAD_THREADS = 8  # an upload mostly waits for storage
BATCH_DAYS = 32  # in memory at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="cdnow, shop, or the path of an Online Retail parquet file")
    parser.add_argument("--from", dest="first", type=parse_day, help="first day (default: the source's first)")
    parser.add_argument("--to", dest="last", type=parse_day, help="last day, included (default: the source's last)")
    parser.add_argument("--format", default="csv", choices=[*FORMATS, "mixed"], help="mixed: each day the next one")
    parser.add_argument("--size", type=int, help="shop: customers (default 4000)")
    parser.add_argument("--drift", type=float, help="shop: 0 a steady world, 1 a changed one in the last third")
    parser.add_argument("--seed", type=int, help="shop: which of the possible worlds (default 0)")
    parser.add_argument("--list", action="store_true", help="print the source's days and write nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the source's days as upstream would. A second run writes nothing, because the same files exist already.

    Facts: source, days, files (in place), written, removed, rows, first_day, last_day; with --list
    every day instead. A day without rows has no file.
    """
    from ml.datasets import SourceError, open_source

    try:
        source = open_source(args.source, size=args.size, drift=args.drift, seed=args.seed)
        source_days = source.days()
    except SourceError as error:
        raise StageError(str(error)) from error
    days = [day for day in source_days if _is_between(day, args.first, args.last)]
    if not days:
        span = f"it goes from {source_days[0]} to {source_days[-1]}" if source_days else "it has no rows at all"
        raise StageError(f"source {source.name} has no day between --from and --to: {span}")
    if args.list:
        return {"source": source.name, "days": [day.isoformat() for day in days]}

    tally = _land(source, days, load_model(args.model).landing.table, args.format)
    return {"source": source.name} | vars(tally)


def _land(source: Source, days: Sequence[date], table: str, file_format: str) -> _Tally:
    landing = stores.landing()
    existing = {blob.name: blob for blob in landing.list(f"{table}/")}
    tally = _Tally()
    with ThreadPoolExecutor(UPLOAD_THREADS) as uploads:
        for batch in _batches(days, BATCH_DAYS):
            contents = [(day, rows) for day in batch if (rows := source.rows(day)).num_rows]
            jobs = [
                uploads.submit(
                    _put_file, landing, existing, f"{table}/{day}/{source.name}", _extension(file_format, day), rows
                )
                for day, rows in contents
            ]
            for (day, rows), job in zip(contents, jobs, strict=True):
                tally.add(day, rows.num_rows, *job.result())
            log.info("landed %s of %s days of %s, to %s", tally.days, len(days), source.name, batch[-1])
    return tally


@dataclass
class _Tally:
    """The facts of a landing; `written` and `removed` are 0 when all files existed already."""

    days: int = 0
    files: int = 0
    written: int = 0
    removed: int = 0
    rows: int = 0
    first_day: date | None = None
    last_day: date | None = None

    def add(self, day: date, rows: int, written: int, removed: int) -> None:
        self.days += 1
        self.files += 1
        self.written += written
        self.removed += removed
        self.rows += rows
        self.first_day = self.first_day or day
        self.last_day = day


def _put_file(
    landing: Store, existing: Mapping[str, Blob], stem: str, extension: str, rows: pa.Table
) -> tuple[int, int]:
    """Write one day's file; the numbers of files (written, removed).

    The same rows in another format are removed: they would be received twice.
    """
    from ml.datasets.encode import ENCODERS

    twins = [twin for other in FORMATS if other != extension and (twin := f"{stem}.{other}") in existing]
    for twin in twins:
        landing.delete(twin)
    name, content = f"{stem}.{extension}", ENCODERS[extension](rows)
    before = existing.get(name)
    same = before is not None and before.size == len(content) and landing.read(name) == content
    if not same:
        landing.write(name, content)
    return int(not same), len(twins)


def _extension(file_format: str, day: date) -> str:
    return FORMATS[day.toordinal() % len(FORMATS)] if file_format == "mixed" else file_format


def _is_between(day: date, first: date | None, last: date | None) -> bool:
    return (first is None or day >= first) and (last is None or day <= last)


def _batches(days: Sequence[date], size: int) -> Iterator[list[date]]:
    remaining = iter(days)
    while batch := list(islice(remaining, size)):
        yield batch
