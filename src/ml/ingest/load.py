"""Loads landed days into silver and quarantine; every row is accounted for, or nothing is written."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ml.config import ModelConfig
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.source import CUSTOMER_DAYS
from ml.ingest import bronze, cleaning, corrections, triage
from ml.ingest.tables import QUARANTINE, SILVER
from ml.ops import held_days, ingested_days
from ml.storage import tables

if TYPE_CHECKING:
    from ml.ingest.bronze import BronzeFile
    from ml.ingest.cleaning import Judged
    from ml.ingest.copy_log import Skipped
    from ml.ingest.corrections import Overlay
    from ml.ingest.triage import Triage
    from ml.ops.held_days import Held
    from ml.storage.leases import Lease

log = logging.getLogger(__name__)

Rows: TypeAlias = pa.Table | ds.Dataset
TOLD_REASONS = 3  # of the most frequent ones, when too many rows are refused


@dataclass(frozen=True)
class Account:
    """What became of a day's rows; `received` is counted before cleaning, the rest after it."""

    files: int
    received: int
    silver: int
    quarantined: int
    duplicates: int

    def check(self, day: date) -> None:
        """Raise StageError unless every received row has become exactly one thing."""
        kept = self.silver + self.quarantined + self.duplicates
        if self.received != kept:
            raise StageError(
                f"{day}: {self.received} rows received, but {self.silver} silver + {self.quarantined} quarantined + "
                f"{self.duplicates} exact duplicates are {kept}; nothing was written. The fault is in clean.sql or "
                "in how bronze was read, not in the data: report it"
            )


def ingest_days(model: ModelConfig, args: argparse.Namespace, lease: Lease, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    found = triage.triage_days(model, args.days, args.fingerprint, args.listing, args.copy_log, folder)
    usable = found.usable
    overlay = corrections.Overlay(found.corrections)
    work = Work(folder)
    skipped = _gather(found, overlay, work)
    judged = cleaning.clean_file(model, work.bronze, skipped, work.silver, work.quarantine)
    accounts = _accounts(usable, found.files, found.skipped, judged)
    _hold_refused(model, accounts, judged, found.held)

    done = found.held.others(usable)
    follow = [day.day for day in found.landed] if args.follow is None else args.follow
    versions = _write(found, usable, done, work, judged, accounts, follow, args.run_key, lease)
    totals: Counter[str] = Counter(dict.fromkeys(Account.__dataclass_fields__, 0))
    reasons: Counter[str] = Counter()
    for day in done:
        totals.update(asdict(accounts[day]))
        reasons.update(judged.reasons[day])
    facts = {
        "days": len(done),
        **totals,
        "reasons": dict(reasons.most_common()),
        "corrected": len(overlay.used),
        "extra_columns": sorted({column for file in found.files for column in file.extra}),
        "strays": found.strays,
        "versions": versions,
        "seconds": round(time.monotonic() - started, 2),
    }
    for rests in overlay.unused():
        log.warning("a correction rests, because its row is not there any more: %s %s", rests.file, rests.record)
    if found.held or found.undone:
        others = len(found.held) + len(found.undone)
        if done:
            log.info("%s days are not done, the other %s are: %s", others, len(done), json.dumps(facts))
        raise StageError(found.told())
    return facts


@dataclass(frozen=True)
class Work:
    """Files in passing: every row as received, and what became of it."""

    folder: Path

    @property
    def bronze(self) -> Path:
        return self.folder / "rows.parquet"

    @property
    def silver(self) -> Path:
        return self.folder / "silver.parquet"

    @property
    def quarantine(self) -> Path:
        return self.folder / "quarantine.parquet"


def _gather(found: Triage, overlay: Overlay, work: Work) -> list[Skipped]:
    """Write the usable days' rows, corrected, to one file, numbered; the rows that could not be parsed."""
    skipped, mended = overlay.parsed(found.skipped)
    schema = bronze.SCHEMA.append(pa.field("_id", pa.int64()))
    at = 0
    with pq.ParquetWriter(work.bronze, schema) as writer:
        for batch in _grouped(itertools.chain(*map(overlay.batches, found.files), mended.to_batches())):
            ids = pa.array(np.arange(at, at + batch.num_rows, dtype=np.int64))
            writer.write_table(batch.append_column("_id", ids))
            at += batch.num_rows
    return skipped


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in larger pieces, so that ten thousand small files do not make as many row groups."""
    some, count = [], 0
    for batch in batches:
        some.append(batch)
        count += batch.num_rows
        if count >= bronze.BATCH_ROWS:
            yield pa.Table.from_batches(some, bronze.SCHEMA)
            some, count = [], 0
    yield pa.Table.from_batches(some, bronze.SCHEMA)


def _accounts(
    days: Sequence[date], files: Sequence[BronzeFile], skipped: Sequence[Skipped], judged: Judged
) -> dict[date, Account]:
    """What became of each day's rows. Raises StageError when any row was lost or made."""
    got = Counter(row.day for row in skipped)
    for file in files:
        got[file.day] += file.received
    sources = Counter(file.day for file in files)
    accounts = {
        day: Account(sources[day], got[day], judged.silver[day], judged.quarantined[day], judged.duplicates[day])
        for day in days
    }
    for day, account in accounts.items():
        account.check(day)
    return accounts


def _hold_refused(model: ModelConfig, accounts: dict[date, Account], judged: Judged, held: Held) -> None:
    """Hold the days of which too large a share was refused."""
    limit = model.clean.max_quarantined_share
    for day, account in accounts.items():
        if account.quarantined > limit * account.received:
            most = ", ".join(f"{reason} ({count})" for reason, count in judged.reasons[day].most_common(TOLD_REASONS))
            held[day].append(
                f"{account.quarantined} of {account.received} rows were refused, which is more than "
                f"clean.max_quarantined_share ({limit:g}); most for: {most}. The rows are in {QUARANTINE}; the day's "
                "silver is unchanged. Ask upstream to send the day again, or raise the limit"
            )


def _write(
    found: Triage,
    usable: Sequence[date],
    done: Sequence[date],
    work: Work,
    judged: Judged,
    accounts: dict[date, Account],
    follow: Sequence[date],
    run_key: str,
    lease: Lease,
) -> dict[str, int]:
    """Replace the days' rows in each table, the day's mark last. Held days are written to quarantine only."""
    versions = {}
    fingerprints = found.fingerprints

    def replace(table: str, rows: Rows, days: Sequence[date], partition: str = "") -> None:
        lease.check()
        where = tables.day_predicate("day", days)
        versions[table] = tables.replace(table, rows, where, partition_by=[partition] if partition else [])

    if usable:
        replace(QUARANTINE, _of(work.quarantine, usable), usable, "day")
    lease.check()
    held_days.note(found.held, sorted(fingerprints), fingerprints, run_key)
    if done:
        silver = _of(work.silver, done)
        replace(SILVER, silver, done, "day")
        lines = silver.scanner(**tables.PIECEWISE)
        replace(CUSTOMER_DAYS, open_engine().run("customer_days", {"transactions": lines}), done, "month")
        marks = [
            {"day": day, "fingerprint": fingerprints[day], **asdict(accounts[day]), "run_key": run_key}
            | {"content": judged.contents.of(day), "follow": day in follow}
            for day in done
        ]
        counts = dict.fromkeys(Account.__dataclass_fields__, pa.int64())
        texts = dict.fromkeys(("run_key", "content"), pa.string())
        schema = pa.schema({"day": pa.date32(), "fingerprint": pa.string(), **counts, **texts, "follow": pa.bool_()})
        replace(ingested_days.INGESTED_DAYS, pa.Table.from_pylist(marks, schema), done)
    return versions


def _of(rows: Path, days: Sequence[date]) -> ds.Dataset:
    """The rows of some days."""
    return ds.dataset(rows).filter(pc.field("day").isin(pa.array(days, pa.date32())))
