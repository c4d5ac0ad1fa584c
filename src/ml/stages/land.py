"""Land: what lies in the landing store, which days are due, and day files for demos and tests.

A day is `<table>/<YYYY-MM-DD>/` with one file or more. It may come late, twice, in parts or never, so a day
is told by its fingerprint: the names, sizes and etags of its files. The one rule about days is `due_days`:
a day is due when its fingerprint is neither the one that was ingested nor the one already asked for.
"""

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

log = logging.getLogger(__name__)
UPLOADS = 8  # at once: most of an upload is waiting
BATCH = 32  # days in memory at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="cdnow, shop, or the path of an Online Retail parquet file")
    parser.add_argument("--from", dest="first", type=parse_day, help="first day (default: the source's first)")
    parser.add_argument("--to", dest="last", type=parse_day, help="last day, included (default: the source's last)")
    parser.add_argument("--format", default="csv", choices=[*FORMATS, "mixed"], help="mixed: each day the next one")
    parser.add_argument("--size", type=int, help="shop: customers (default 4000)")
    parser.add_argument("--drift", type=float, help="shop: 0 a steady world, 1 a changed one in the last third")
    parser.add_argument("--seed", type=int, help="shop: which of the possible worlds (default 0)")
    parser.add_argument("--list", action="store_true", help="tell the source's days and write nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the source's days as upstream would. Again, it writes nothing that is there already.

    Facts: source, days, files (in place), written, removed, rows, first_day, last_day; with --list
    every day instead. A day without rows has no file.
    """
    from ml.datasets import SourceError, open_source

    try:
        source = open_source(args.source, size=args.size, drift=args.drift, seed=args.seed)
        known = source.days()
    except SourceError as error:
        raise StageError(str(error)) from error
    days = [day for day in known if _between(day, args.first, args.last)]
    if not days:
        span = f"it goes from {known[0]} to {known[-1]}" if known else "it has no rows at all"
        raise StageError(f"source {source.name} has no day there: {span}")
    if args.list:
        return {"source": source.name, "days": [day.isoformat() for day in days]}

    table = load_model(args.model).landing.table
    target = stores.landing()
    there = {blob.name: blob for blob in target.list(f"{table}/")}
    done = _Tally()
    with ThreadPoolExecutor(UPLOADS) as uploads:
        for some in _batches(days, BATCH):
            contents = [(day, rows) for day in some if (rows := source.rows(day)).num_rows]
            jobs = [
                uploads.submit(_put, target, there, f"{table}/{day}/{source.name}", _format(args.format, day), rows)
                for day, rows in contents
            ]
            for (day, rows), job in zip(contents, jobs, strict=True):
                done.add(day, rows.num_rows, *job.result())
            log.info("landed %s of %s days of %s, to %s", done.days, len(days), source.name, some[-1])
    return {"source": source.name} | vars(done)


@dataclass
class _Tally:
    """The facts of a landing; `written` and `removed` are 0 when everything was there already."""

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


def _put(target: Store, there: Mapping[str, Blob], stem: str, extension: str, rows: pa.Table) -> tuple[int, int]:
    """One day's file: files (written, removed). Its twin in another format would count every row twice."""
    from ml.datasets.encode import ENCODERS

    twins = [twin for other in FORMATS if other != extension and (twin := f"{stem}.{other}") in there]
    for twin in twins:
        target.delete(twin)
    name, content = f"{stem}.{extension}", ENCODERS[extension](rows)
    old = there.get(name)
    same = old is not None and old.size == len(content) and target.read(name) == content
    if not same:
        target.write(name, content)
    return int(not same), len(twins)


def _format(asked: str, day: date) -> str:
    return FORMATS[day.toordinal() % len(FORMATS)] if asked == "mixed" else asked


def _between(day: date, first: date | None, last: date | None) -> bool:
    return (first is None or day >= first) and (last is None or day <= last)


def _batches(days: Sequence[date], size: int) -> Iterator[list[date]]:
    left = iter(days)
    while some := list(islice(left, size)):
        yield some
