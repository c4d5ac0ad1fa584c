"""Loads landed days of a source into silver and quarantine; every row is accounted for, or nothing is written.

`received = silver + quarantined + exact duplicates` holds for every day. Each table's write replaces exactly the
landed ones of the requested days: quarantine, held days, silver, daily tables. The day's row in `ops.ingested_days` is
written last, so a day without it, or with another fingerprint, has to be ingested again. A day that cannot be used is held: its silver stays as it was, the
other days go on, and the load fails in the end with every reason.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ml.errors import StageError
from ml.ingest import bronze, cleaning
from ml.ingest.corrections import Overlay
from ml.ingest.day_tables import DayTable, check_daily_queries, make_tables
from ml.ingest.triage import Triage, triage_days
from ml.ops import held_days, ingested_days
from ml.storage import tables

if TYPE_CHECKING:
    from ml.config import SourceConfig
    from ml.ingest.cleaning import Outcomes
    from ml.ingest.copy_log import Skipped
    from ml.ops.held_days import Held
    from ml.storage.leases import Lease

log = logging.getLogger(__name__)

INGESTION_WAIT_SECONDS = 900  # for another ingestion of the same source; a history of years takes minutes
REASONS_IN_MESSAGE = 3  # the most frequent ones, when too many rows are refused


@dataclass(frozen=True, kw_only=True)
class Account:
    """Row counts of a day; `received` is counted before cleaning, the rest after it."""

    files: int
    received: int
    silver: int
    quarantined: int
    duplicates: int

    def check(self, day: date, query: str) -> None:
        """Raise StageError unless every received row has exactly one outcome of the cleaning query."""
        total = self.silver + self.quarantined + self.duplicates
        if self.received != total:
            raise StageError(
                f"{day}: {self.received} rows received, but {self.silver} silver + {self.quarantined} quarantined + "
                f"{self.duplicates} exact duplicates are {total}; nothing was written. The fault is in "
                f"include/sql/{query}.sql or in how bronze was read, not in the data: report it"
            )


@dataclass(frozen=True)
class WorkFiles:
    """Temporary files: every row as received, and what became of it."""

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


def ingest_days(
    source: SourceConfig,
    *,
    days: Sequence[date],
    run_key: str,
    lease: Lease,
    folder: Path,
    fingerprint: str = "",
    listing: str = "",
    copy_log: str = "",
    follow: Sequence[date] | None = None,
) -> dict[str, Any]:
    """Ingest those of `days` that have landed of a source; the facts that the stage returns.

    `fingerprint` (of one day) or `listing` (a saved listing of many) says what was landed when the days were copied;
    `copy_log` is the Copy's log folder in the lake; `follow` are the days that later stages follow (None: all);
    `folder` is for temporary files. Raises StageError with every reason, after the usable days were written, and
    ConfigError for a query that cannot be used, before anything is written.
    """
    started = time.monotonic()
    check_daily_queries(source)
    triage = triage_days(source, days=days, fingerprint=fingerprint, listing=listing, copy_log=copy_log, folder=folder)
    usable = triage.usable
    overlay = Overlay(source, triage.corrections)
    work = WorkFiles(folder)
    skipped = _write_received(source, triage, overlay, work.bronze)
    outcomes = cleaning.clean_file(source, work.bronze, skipped, work.silver, work.quarantine)
    accounts = _accounts(source, usable, triage, outcomes)
    _hold_refused(source, accounts, outcomes, triage.held)

    accepted = triage.held.exclude_from(usable)
    following = {day.day for day in triage.landed} if follow is None else set(follow)
    fingerprints = triage.fingerprints
    day_tables = list(make_tables(source, work.silver, accepted)) if accepted else []
    marks = [
        {"day": day, "fingerprint": fingerprints[day], **asdict(accounts[day]), "run_key": run_key}
        | {"contents": {table.name: table.digest(day) for table in day_tables}, "follow": day in following}
        for day in accepted
    ]
    versions = _write_tables(source, triage, usable, work, day_tables, marks, run_key=run_key, lease=lease)
    totals: Counter[str] = Counter(dict.fromkeys(Account.__dataclass_fields__, 0))
    reasons: Counter[str] = Counter()
    for day in accepted:
        totals.update(asdict(accounts[day]))
        reasons.update(outcomes.reasons[day])
    facts = {
        "days": len(accepted),
        **totals,
        "reasons": dict(reasons.most_common()),
        "corrected": len(overlay.used),
        "extra_columns": sorted({column for file in triage.files for column in file.extra}),
        "strays": triage.strays,
        "versions": versions,
        "seconds": round(time.monotonic() - started, 2),
    }
    for unused in overlay.unused():
        log.warning("a correction is not applied: its row is no longer in the file: %s %s", unused.file, unused.record)
    if triage.held or triage.deferred:
        if accepted:
            others = len(triage.held) + len(triage.deferred)
            log.info("%s days are not ingested, the other %s are: %s", others, len(accepted), json.dumps(facts))
        raise StageError(triage.message())
    return facts


def _write_received(source: SourceConfig, triage: Triage, overlay: Overlay, path: Path) -> list[Skipped]:
    """Write the usable days' rows, corrected and numbered, to one file. Returns the rows that could not be parsed."""
    skipped, rewritten = overlay.apply_to_skipped(triage.skipped)
    schema = bronze.schema(source)
    batches = itertools.chain(*map(overlay.batches, triage.files), rewritten.to_batches())
    offset = 0
    with pq.ParquetWriter(path, schema.append(pa.field("_id", pa.int64()))) as writer:
        for rows in _regroup(batches, schema):
            ids = pa.array(np.arange(offset, offset + rows.num_rows, dtype=np.int64))
            writer.write_table(rows.append_column("_id", ids))
            offset += rows.num_rows
    return skipped


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in larger pieces: ten thousand small files would make as many row groups."""
    group, count = [], 0
    for batch in batches:
        group.append(batch)
        count += batch.num_rows
        if count >= bronze.BATCH_ROWS:
            yield pa.Table.from_batches(group, schema)
            group, count = [], 0
    yield pa.Table.from_batches(group, schema)


def _accounts(source: SourceConfig, days: Sequence[date], triage: Triage, outcomes: Outcomes) -> dict[date, Account]:
    """The account of each day. Raises StageError when any row was lost or invented."""
    received = Counter(row.day for row in triage.skipped)
    for file in triage.files:
        received[file.day] += file.received
    file_counts = Counter(file.day for file in triage.files)
    accounts = {
        day: Account(
            files=file_counts[day],
            received=received[day],
            silver=outcomes.silver[day],
            quarantined=outcomes.quarantined[day],
            duplicates=outcomes.duplicates[day],
        )
        for day in days
    }
    for day, account in accounts.items():
        account.check(day, source.clean.query)
    return accounts


def _hold_refused(source: SourceConfig, accounts: dict[date, Account], outcomes: Outcomes, held: Held) -> None:
    """Hold the days of which too large a share was refused."""
    limit = source.clean.max_quarantined_share
    for day, account in accounts.items():
        if account.quarantined > limit * account.received:
            frequent = outcomes.reasons[day].most_common(REASONS_IN_MESSAGE)
            reasons = ", ".join(f"{reason} ({count})" for reason, count in frequent)
            held[day].append(
                f"{account.quarantined} of {account.received} rows were refused, which is more than "
                f"clean.max_quarantined_share ({limit:g}); most for: {reasons}. The rows are in {source.quarantine}; the "
                "day's silver is unchanged. Ask upstream to send the day again, or raise the limit"
            )


def _write_tables(
    source: SourceConfig,
    triage: Triage,
    usable: Sequence[date],
    work: WorkFiles,
    day_tables: Sequence[DayTable],
    marks: Sequence[dict[str, Any]],
    *,
    run_key: str,
    lease: Lease,
) -> dict[str, int]:
    """Replace the days' rows in each table, `marks` (rows of `ops.ingested_days`) last; the version of each table.

    Held days are written to quarantine only.
    """
    versions = {}
    if usable:
        lease.check()
        refused = ds.dataset(work.quarantine).filter(pc.field("day").isin(pa.array(usable, pa.date32())))
        where = tables.day_predicate("day", usable)
        versions[source.quarantine] = tables.replace(source.quarantine, refused, where, partition_by=["day"])
    lease.check()
    fingerprints = triage.fingerprints
    held_days.write(source.name, triage.held, sorted(fingerprints), fingerprints, run_key)
    if marks:
        where = tables.day_predicate("day", [mark["day"] for mark in marks])
        for table in day_tables:
            lease.check()
            versions[table.name] = tables.replace(table.name, table.rows, where, partition_by=[table.partition])
        lease.check()
        versions[ingested_days.INGESTED_DAYS] = ingested_days.write(source.name, marks)
    return versions
