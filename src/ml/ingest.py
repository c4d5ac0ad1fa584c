"""Bronze into silver and quarantine, day by day, every row accounted for.

`received = silver + quarantined + exact duplicates` holds for every day, or nothing is written. Each
table's write replaces exactly the landed ones of the given days; the day's row in `ops.ingested_days`
is written last, so a day without it, or with another fingerprint, is a day to run again. A day that
cannot be used is held: its silver stays what it was, the other days go on, and the stage fails in the
end with every reason. A day of which nothing is landed (any more) is left as it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml import bronze, cleaning, cli, config, copylog, held_days, lake, land, leases, store
from ml.cli import StageError
from ml.content import Contents
from ml.engine import open_engine
from ml.held_days import Held

if TYPE_CHECKING:
    from ml.bronze import BronzeFile
    from ml.cleaning import Cleaned
    from ml.copylog import Skipped
    from ml.land import Landed
    from ml.leases import Lease

log = logging.getLogger(__name__)

QUARANTINE = "quarantine.transactions"
SILVER = "silver.transactions"
CUSTOMER_DAYS = "silver.customer_days"
LEASES = "ops/_leases"  # in the lake: one ingestion of a table at a time, whoever starts it
LEASE_WAIT = 900  # seconds for another one; a history of years takes minutes
TOLD_REASONS = 3  # of the most frequent ones, when too many rows are refused


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=cli.some_days, required=True, help="1998-06-28, or 1998-06-01..1998-06-30")
    parser.add_argument("--fingerprint", default="", help="of the day's landed files when they were copied")
    parser.add_argument(
        "--listing", default="", help="the same of many days: what land.note_listing wrote before a Copy"
    )
    parser.add_argument("--copy-log", default="", help="folder in the lake where the Copy logged the rows it skipped")
    parser.add_argument("--follow", type=cli.some_days, help="days that features and scores follow (default: all)")
    parser.add_argument("--run-key", required=True, help="kept with the days that are ingested")


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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ingest the landed ones of `args.days`.

    Facts: days, files, received, silver, quarantined, duplicates, reasons (refused rows by reason),
    extra_columns and strays (what was found and not used), versions (of the tables written), seconds.
    Raises StageError with every reason of every held day, after the other days were written.
    """
    model = config.load(args.model)
    who = f"ingest of {args.days[0]}..{args.days[-1]}, run key {args.run_key}"
    with leases.hold(store.lake(), f"{LEASES}/{model.landing.table}", who, LEASE_WAIT) as lease:
        return _ingest(model, args, lease)


def _ingest(model: config.Model, args: argparse.Namespace, lease: Lease) -> dict[str, Any]:
    started = time.monotonic()
    changed = Held()
    landed, strays = _landed(model.landing.table, args.days, args.fingerprint, args.listing, changed)
    days = [day.day for day in landed]
    files, skipped = _received(landed, args.copy_log)

    held = Held()
    _hold_unusable(model, files, skipped, held)
    usable = held.others(days)
    files = [file for file in files if file.day in usable]
    cleaned = cleaning.clean(model, bronze.joined(files), [row for row in skipped if row.day in usable])
    accounts = _accounts(usable, files, skipped, cleaned)
    _hold_refused(model, accounts, cleaned, held)

    done = held.others(usable)
    fingerprints = {day.day: day.fingerprint for day in landed}
    follow = days if args.follow is None else args.follow
    versions = _write(usable, done, cleaned, accounts, fingerprints, follow, held, args.run_key, lease)
    totals: Counter[str] = Counter(dict.fromkeys(Account.__dataclass_fields__, 0))
    for day in done:
        totals.update(asdict(accounts[day]))
    facts = {
        "days": len(done),
        **totals,
        "reasons": cleaning.reasons(_of(cleaned.quarantine, done)),
        "extra_columns": sorted({column for file in files for column in file.extra}),
        "strays": strays,
        "versions": versions,
        "seconds": round(time.monotonic() - started, 2),
    }
    if held or changed:
        if done:
            log.info(
                "%s days are held, the other %s are done: %s", len(held) + len(changed), len(done), json.dumps(facts)
            )
        raise StageError("\n".join(told for told in (held.told(), changed.told()) if told))
    return facts


def _landed(
    table: str, days: Sequence[date], fingerprint: str, listing: str, changed: Held
) -> tuple[list[Landed], list[str]]:
    """The landed ones of `days` that are as they were listed, and the names of files that belong to no day.

    A day that is not as it was listed goes to `changed`. It is not noted as held: the change is what
    starts it again.
    """
    if fingerprint and len(days) > 1:
        raise StageError(f"--fingerprint is that of one day's files; {len(days)} days were asked for")
    folder = f"{table}/{days[0]}/" if len(days) == 1 else f"{table}/"
    now = land.landed_days(store.landing().list(folder), table)
    landed = [day for day in now.days if day.day in set(days)]
    if not landed:
        asked = f"{days[0]}..{days[-1]}" if len(days) > 1 else str(days[0])
        raise StageError(f"nothing is landed in {table}/ for {asked}; what was ingested of it before is unchanged")
    noted = land.noted_fingerprints(listing) if listing else {}
    for day in landed:
        if (fingerprint or listing) and day.fingerprint not in (fingerprint, noted.get(day.day)):
            changed[day.day].append("landing changed while it was ingested; the change starts the day again")
    landed = [day for day in landed if day.day not in changed]
    strays = [f"{stray.name}: {stray.why}" for stray in now.strays]
    for stray in strays:
        log.warning("left out: %s", stray)
    return landed, strays


def _received(landed: Sequence[Landed], copy_log: str) -> tuple[list[BronzeFile], list[Skipped]]:
    """Every landed file as bronze holds it, and the rows of them that the Copy skipped."""
    there = [(day.day, blob) for day in landed for blob in day.files]
    files = bronze.read(store.lake(), there)
    for file in files:
        if file.extra:
            log.warning("%s: columns that are not used: %s", file.name, ", ".join(file.extra))
    try:
        return files, copylog.read(store.lake(), copy_log, [(file.day, file.name) for file in files])
    except copylog.UnknownSourceError as error:
        raise StageError(str(error)) from error


def _hold_unusable(model: config.Model, files: Sequence[BronzeFile], skipped: Sequence[Skipped], held: Held) -> None:
    """Hold the days of files that cannot be read, and of empty ones unless config accepts them."""
    with_skipped = {row.name for row in skipped}
    for file in files:
        if file.problem:
            held[file.day].append(file.problem)
        elif not file.received and file.name not in with_skipped and model.landing.empty_file == "fail":
            held[file.day].append(
                f"{file.name} has no rows: ask upstream to send it again, or delete it to accept the day without it, "
                "or set landing.empty_file: accept"
            )


def _accounts(
    days: Sequence[date], files: Sequence[BronzeFile], skipped: Sequence[Skipped], cleaned: Cleaned
) -> dict[date, Account]:
    """What became of each day's rows. Raises StageError when any row was lost or made."""
    received = Counter(row.day for row in skipped)
    for file in files:
        received[file.day] += file.received
    sources = Counter(file.day for file in files)
    silver, quarantined = cleaning.per_day(cleaned.silver), cleaning.per_day(cleaned.quarantine)
    accounts = {
        day: Account(sources[day], received[day], silver[day], quarantined[day], cleaned.duplicates[day])
        for day in days
    }
    for day, account in accounts.items():
        account.check(day)
    return accounts


def _hold_refused(model: config.Model, accounts: dict[date, Account], cleaned: Cleaned, held: Held) -> None:
    """Hold the days of which too large a share was refused."""
    limit = model.clean.max_quarantined_share
    for day, account in accounts.items():
        if account.quarantined > limit * account.received:
            reasons = cleaning.reasons(_of(cleaned.quarantine, [day]))
            most = ", ".join(f"{reason} ({count})" for reason, count in list(reasons.items())[:TOLD_REASONS])
            held[day].append(
                f"{account.quarantined} of {account.received} rows were refused, which is more than "
                f"clean.max_quarantined_share ({limit:g}); most for: {most}. The rows are in {QUARANTINE}; the day's "
                "silver is unchanged. Ask upstream to send the day again, or raise the limit"
            )


def _write(
    usable: Sequence[date],
    done: Sequence[date],
    cleaned: Cleaned,
    accounts: dict[date, Account],
    fingerprints: dict[date, str],
    follow: Sequence[date],
    held: Held,
    run_key: str,
    lease: Lease,
) -> dict[str, int]:
    """Replace the days' rows in each table, the day's mark last. Held days are written to quarantine only."""

    versions = {}
    if usable:
        where = lake.day_predicate("day", usable)
        lease.check()
        versions[QUARANTINE] = lake.replace(QUARANTINE, cleaned.quarantine, where, partition_by=["day"])
    lease.check()
    held_days.note(held, sorted(fingerprints), fingerprints, run_key)
    if done:
        where = lake.day_predicate("day", done)
        silver = _of(cleaned.silver, done)
        lease.check()
        versions[SILVER] = lake.replace(SILVER, silver, where, partition_by=["day"])
        customer_days = open_engine().run("customer_days", {"transactions": silver})
        lease.check()
        versions[CUSTOMER_DAYS] = lake.replace(CUSTOMER_DAYS, customer_days, where, partition_by=["month"])
        contents = Contents()
        contents.add(silver)
        marks = [
            {"day": day, "fingerprint": fingerprints[day], **asdict(accounts[day]), "run_key": run_key}
            | {"content": contents.of(day), "follow": day in follow}
            for day in done
        ]
        counts = dict.fromkeys(Account.__dataclass_fields__, pa.int64())
        texts = dict.fromkeys(("run_key", "content"), pa.string())
        schema = pa.schema({"day": pa.date32(), "fingerprint": pa.string(), **counts, **texts, "follow": pa.bool_()})
        lease.check()
        versions[land.INGESTED_DAYS] = lake.replace(land.INGESTED_DAYS, pa.Table.from_pylist(marks, schema), where)
    return versions


def _of(rows: pa.Table, days: Sequence[date]) -> pa.Table:
    """The rows of some days."""

    return rows.filter(pc.is_in(rows["day"], pa.array(days, pa.date32())))
