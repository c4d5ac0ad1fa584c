"""Land: what lies in the landing store, which days are due, and day files for demos and tests.

A day is `<table>/<YYYY-MM-DD>/` with one file or more. It may come late, twice, in parts or never, so a day
is told by its fingerprint: the names, sizes and etags of its files. The one rule about days is `due`:
a day is due when its fingerprint is neither the one that was ingested nor the one already asked for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from ml import config, lake, store
from ml.cli import StageError, a_day
from ml.store import Blob, Store

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

FORMATS = ("csv", "tsv", "jsonl", "parquet")
CORRECTIONS = "corrections.json"  # in a day's folder: refused rows as a person has mended them (ml reenter)
INGESTED_DAYS = "ops.ingested_days"
LISTINGS = "bronze/_listing"  # what was landed when a Copy was asked for
UPLOADS = 8  # at once: most of an upload is waiting
BATCH = 32  # days in memory at once
FEW = 7  # days at once are taken as they come: a day, a weekend's, a week that is sent again
QUIET = timedelta(seconds=30)  # without a file, and more days than that are all there

# no path tricks, no wildcards of the copy services, nothing that Spark and Data Factory skip as hidden
_SAFE_FILE = re.compile(r"[^\W_][\w .=()+,@-]*", re.ASCII)


@dataclass(frozen=True)
class Stray:
    """A file that cannot be taken, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Landed:
    """One day's files, by name, and what tells whether any of them has changed.

    `strays` are files in the day's folder that cannot be taken, `corrections` the one that `ml reenter` writes.
    """

    day: date
    files: tuple[Blob, ...]
    fingerprint: str
    strays: tuple[Stray, ...] = ()
    corrections: Blob | None = None


@dataclass(frozen=True)
class Listing:
    """What lies in the landing store: days, oldest first, and what is out of place."""

    days: tuple[Landed, ...]
    strays: tuple[Stray, ...]


@dataclass(frozen=True)
class Due:
    """What to ask for now, and what not."""

    days: tuple[Landed, ...]
    waiting: tuple[Landed, ...] = ()  # asked for, and not ingested yet
    held: tuple[Landed, ...] = ()  # ingestion refused them as they lie there
    history: tuple[Landed, ...] = ()  # too many to be an arrival
    coming: tuple[Landed, ...] = ()  # several, and files still come in: an arrival or a history, nobody knows yet
    why: str = ""  # a sentence for people, when there is a history, or one may be coming


def fingerprint(files: Iterable[Blob]) -> str:
    """16 hex digits that change when a file is added, removed or written again, and not with their order."""
    seen = sorted((blob.name, blob.size, blob.etag) for blob in files)
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]


def landed_days(blobs: Iterable[Blob], table: str) -> Listing:
    """Sort files into the days of `table`. What has no place there is a stray; nothing is an error.

    A stray in a day's folder is the day's matter: its ingestion is held for it. Only names that begin with
    `_` or `.` are left alone: they are how tools mark a folder (`_SUCCESS`).
    """
    days: dict[date, _Folder] = {}
    strays = []
    for blob in blobs:
        if _folder_marker(blob, table):
            continue
        day, why = _place(blob.name, table)
        if why:
            strays.append(Stray(blob.name, why))
        if day is None or (why and blob.name.rpartition("/")[2].startswith(("_", "."))):
            continue
        folder = days.setdefault(day, _Folder())
        if why:
            folder.strays.append((strays[-1], blob))
        elif blob.name == f"{table}/{day}/{CORRECTIONS}":
            folder.corrections = blob
        else:
            folder.files.append(blob)
    found = tuple(folder.landed(day) for day, folder in sorted(days.items()) if folder.files or folder.strays)
    return Listing(found, tuple(sorted(strays, key=lambda stray: stray.name)))


@dataclass
class _Folder:
    files: list[Blob] = field(default_factory=list)
    strays: list[tuple[Stray, Blob]] = field(default_factory=list)
    corrections: Blob | None = None

    def landed(self, day: date) -> Landed:
        every = [*self.files, *(blob for _, blob in self.strays), *([self.corrections] if self.corrections else [])]
        return Landed(
            day,
            tuple(sorted(self.files, key=lambda blob: blob.name)),
            fingerprint(every),
            tuple(sorted((stray for stray, _ in self.strays), key=lambda stray: stray.name)),
            self.corrections,
        )


def _folder_marker(blob: Blob, table: str) -> bool:
    """Accounts with a hierarchical namespace list folders too, as empty files without an extension."""
    parts = blob.name.rstrip("/").split("/")
    return blob.size == 0 and parts[0] == table and len(parts) <= 2 and "." not in parts[-1]


def _place(name: str, table: str) -> tuple[date | None, str]:
    """The day in whose folder a file is, if it is in one, and why it cannot be taken, if it cannot."""
    parts = name.split("/")
    if len(parts) < 3 or parts[0] != table:
        return None, f"not {table}/<YYYY-MM-DD>/<file>"
    folder, file = parts[1], parts[-1]
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", folder, re.ASCII):
        return None, f"its folder is {folder!r}; a day as YYYY-MM-DD is needed"
    try:
        day = date.fromisoformat(folder)
    except ValueError:
        return None, f"there is no day {folder}"
    if len(parts) > 3:
        return day, f"not {table}/<YYYY-MM-DD>/<file>"
    if not _SAFE_FILE.fullmatch(file):
        return day, (
            f"its file name {file!r} starts or goes on with a character that the copy services read as something else"
        )
    if file != CORRECTIONS and (file.rpartition(".")[2] not in FORMATS or "." not in file):
        return day, f"format not known; known extensions, in lower case: {', '.join(FORMATS)}"
    return day, ""


def due(
    landed: Sequence[Landed],
    ingested: Mapping[date, str],
    asked: Mapping[date, str],
    bulk_days: int,
    held: Mapping[date, str] | None = None,
    now: datetime | None = None,
) -> Due:
    """Which landed days to ask for now: the one rule about days, for the calendar, arrivals and people alike.

    `ingested`, `asked` and `held` hold the fingerprint that each day had when it was ingested, asked for or held. A
    day that is held rests until its files change. One that was asked for waits; whoever asked remembers when, and
    asks again when nothing came of it. More than `bulk_days` new days at once are a history, to be loaded by one run:
    while one is copied in, its days are not taken for arrivals (`now` tells until when).
    """
    refused = held or {}
    pending = [day for day in landed if ingested.get(day.day) != day.fingerprint]
    resting = tuple(day for day in pending if refused.get(day.day) == day.fingerprint)
    wanted = [day for day in pending if day not in resting]
    waiting = tuple(day for day in wanted if asked.get(day.day) == day.fingerprint)
    new = tuple(day for day in wanted if asked.get(day.day) != day.fingerprint)
    rest = Due(days=(), waiting=waiting, held=resting)
    if not new:
        return rest
    first, last = new[0].day, new[-1].day
    them = f"{len(new)} new or changed days ({first} to {last})"
    if len(new) > bulk_days:
        why = (
            f"{them} are more than landing.bulk_days ({bulk_days}): "
            f"a history, not an arrival. Load it with one run of ingest over days {first}..{last}; "
            "single days arrive by themselves again after it."
        )
        return replace(rest, history=new, why=why)
    written = [blob.written for day in new for blob in day.files if blob.written]
    if now and len(new) + len(waiting) > FEW and written and max(written) > now - QUIET:
        why = (
            f"{them}, and files still come in: they may be a history. "
            f"The first sweep after {QUIET.seconds} seconds without one takes them."
        )
        return replace(rest, coming=new, why=why)
    return replace(rest, days=new)


def listing(table: str) -> Listing:
    """What lies in the landing store for `table`, now."""
    return landed_days(store.landing().list(f"{table}/"), table)


def note_listing(table: str, days: Iterable[date] | None, name: str) -> str:
    """Write down in the lake what lies in landing now (for some days), before a Copy; where it was written.

    An ingestion is given it (`--listing`), so that what was copied is what was listed: a day whose files are
    not those of the note any more is held back until it is copied again.
    """
    asked = None if days is None else set(days)
    found = [day for day in listing(table).days if asked is None or day.day in asked]
    noted = {day.day.isoformat(): day.fingerprint for day in found}
    where = f"{LISTINGS}/{name}.json"
    store.lake().write(where, json.dumps(noted, indent=1).encode(), "application/json")
    return where


def noted_fingerprints(where: str) -> dict[date, str]:
    """The fingerprint that each day had when the listing was noted. Raises StageError when there is no such note."""
    try:
        noted = json.loads(store.lake().read(where))
    except FileNotFoundError as error:
        raise StageError(f"no listing at {where}: the task that lists what is to be copied writes it") from error
    return {date.fromisoformat(day): fingerprint for day, fingerprint in noted.items()}


def ingested_fingerprints() -> dict[date, str]:
    """The fingerprint that each ingested day had; none before the first ingestion."""
    if not lake.exists(INGESTED_DAYS):
        return {}
    rows = lake.read(INGESTED_DAYS, columns=["day", "fingerprint"])
    return dict(zip(rows["day"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="cdnow, shop, or the path of an Online Retail parquet file")
    parser.add_argument("--from", dest="first", type=a_day, help="first day (default: the source's first)")
    parser.add_argument("--to", dest="last", type=a_day, help="last day, included (default: the source's last)")
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
    from ml.sources import SourceError, open_source

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

    table = config.load(args.model).landing.table
    target = store.landing()
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
    from ml.sources.encode import ENCODERS

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
