"""`python -m ml land`: writes day files of a data set into the landing store, as upstream would."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

from ml.console import parse_day
from ml.errors import StageError
from ml.landing.listing import FORMATS
from ml.storage import stores
from ml.storage.stores import Blob, Store

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.datasets import DataSet

log = logging.getLogger(__name__)
UPLOAD_THREADS = 8  # an upload mostly waits for storage
BATCH_DAYS = 32  # in memory at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="cdnow, shop, or the path of an Online Retail parquet file")
    parser.add_argument("--source", help="land this source only (default: all that the data set has)")
    parser.add_argument("--from", dest="first", type=parse_day, help="first day (default: the data set's first)")
    parser.add_argument("--to", dest="last", type=parse_day, help="last day, included (default: the data set's last)")
    parser.add_argument("--format", default="csv", choices=[*FORMATS, "mixed"], help="mixed: each day the next one")
    parser.add_argument("--size", type=int, help="shop: customers (default 4000)")
    parser.add_argument("--drift", type=float, help="shop: 0 a steady world, 1 a changed one in the last third")
    parser.add_argument("--seed", type=int, help="shop: which of the possible worlds (default 0)")
    parser.add_argument("--list", action="store_true", help="print the days of the sources and write nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the days of each source as upstream would, below `<source>/<day>/` in landing.

    A second run writes nothing, because the same files exist already. A day without rows has no file.

    Facts: data, days (with files of any source), files (in place), written, removed, rows, first_day, last_day, and the
    same numbers by source in `sources`; with --list every day that any of the sources has instead, and in `sources` those
    of each. Raises StageError for an unknown data set or source, and when no source has a day between --from and --to.
    """
    from ml.datasets import DataSetError, open_data_set

    try:
        data = open_data_set(args.data, size=args.size, drift=args.drift, seed=args.seed)
        source_days = {source: data.days(source) for source in ([args.source] if args.source else data.sources())}
    except DataSetError as error:
        raise StageError(str(error)) from error
    days = {
        source: [day for day in days if _is_between(day, args.first, args.last)] for source, days in source_days.items()
    }
    if not any(days.values()):
        every_day = sorted(set().union(*source_days.values()))
        span = f"it goes from {every_day[0]} to {every_day[-1]}" if every_day else "it has no rows at all"
        of_source = f", source {args.source}," if args.source else ""
        raise StageError(f"data set {data.name}{of_source} has no day between --from and --to: {span}")
    if args.list:
        listed = {source: [day.isoformat() for day in in_span] for source, in_span in days.items()}
        return {"data": data.name, "days": sorted(set().union(*listed.values())), "sources": listed}

    tallies = {source: _land(data, source, days[source], args.format) for source in days}
    return (
        {"data": data.name} | _total(tallies.values()).facts() | {"sources": {s: t.facts() for s, t in tallies.items()}}
    )


def _land(data: DataSet, source: str, days: Sequence[date], file_format: str) -> _Tally:
    landing = stores.landing()
    existing = {blob.name: blob for blob in landing.list(f"{source}/")}
    tally = _Tally()
    with ThreadPoolExecutor(UPLOAD_THREADS) as uploads:
        for batch in _batches(days, BATCH_DAYS):
            contents = [(day, rows) for day in batch if (rows := data.rows(source, day)).num_rows]
            jobs = [
                uploads.submit(
                    _put_file, landing, existing, f"{source}/{day}/{data.name}", _extension(file_format, day), rows
                )
                for day, rows in contents
            ]
            for (day, rows), job in zip(contents, jobs, strict=True):
                tally.add(day, rows.num_rows, *job.result())
            log.info("%s: landed %s of %s days of %s, to %s", source, len(tally.days), len(days), data.name, batch[-1])
    return tally


@dataclass
class _Tally:
    """The facts of a landing; `written` and `removed` are 0 when all files existed already."""

    days: set[date] = field(default_factory=set)
    files: int = 0
    written: int = 0
    removed: int = 0
    rows: int = 0

    def add(self, day: date, rows: int, written: int, removed: int) -> None:
        self.days.add(day)
        self.files += 1
        self.written += written
        self.removed += removed
        self.rows += rows

    def facts(self) -> dict[str, Any]:
        return vars(self) | {
            "days": len(self.days),
            "first_day": min(self.days, default=None),
            "last_day": max(self.days, default=None),
        }


def _total(tallies: Iterable[_Tally]) -> _Tally:
    total = _Tally()
    for tally in tallies:
        total.days |= tally.days
        total.files += tally.files
        total.written += tally.written
        total.removed += tally.removed
        total.rows += tally.rows
    return total


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
