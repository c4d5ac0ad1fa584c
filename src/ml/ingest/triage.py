"""Triage of landed days before any row is judged: which files there are, whether they are whole, and were copied.

Each day ends in one of three ways: it is usable; it is *held* (a person or upstream has to act, and it starts again
when its files change); or it is *deferred* (another run brings it, after another Copy; nothing is wrong with its
files).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ml.errors import StageError
from ml.ingest import bronze, inspection
from ml.ingest.copy_log import UnknownSourceError, read_copy_log
from ml.ingest.corrections import CorrectionsError, load_corrections
from ml.landing.listing import list_landing, saved_fingerprints
from ml.ops.held_days import Held
from ml.storage import stores

if TYPE_CHECKING:
    from ml.config import SourceConfig
    from ml.ingest.bronze import BronzeFile
    from ml.ingest.copy_log import Skipped
    from ml.ingest.corrections import Correction
    from ml.landing.listing import LandedDay
    from ml.storage.stores import Blob

log = logging.getLogger(__name__)

INSPECTION_THREADS = 8


@dataclass
class Triage:
    """The landed days. `files` and `skipped` rows belong to the usable days only."""

    landed: list[LandedDay]
    strays: list[str] = field(default_factory=list)
    files: list[BronzeFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    corrections: dict[date, list[Correction]] = field(default_factory=dict)
    held: Held = field(default_factory=Held)
    deferred: Held = field(default_factory=Held)

    @property
    def fingerprints(self) -> dict[date, str]:
        """The fingerprint with which each day is ingested or held; a day that is only deferred has none."""
        return {day.day: day.fingerprint for day in self.landed if day.day not in self.deferred or day.day in self.held}

    @property
    def usable(self) -> list[date]:
        return self.deferred.exclude_from(self.held.exclude_from([day.day for day in self.landed]))

    def message(self) -> str:
        """Why days are held, then why others are deferred. Of a day that is both, only why it is held."""
        deferred_only = self.held.exclude_from(sorted(self.deferred))
        deferred = [f"{day}: {reason}" for day in deferred_only for reason in self.deferred[day]]
        return "\n".join([self.held.message(), *deferred] if self.held else deferred)


def triage_days(
    source: SourceConfig, *, days: Sequence[date], fingerprint: str, listing: str, copy_log: str, folder: Path
) -> Triage:
    """Triage those of a source's `days` that have landed. `folder` is for temporary files.

    Raises StageError when none has landed, and when the Copy's log cannot be assigned to files.
    """
    triage = _find_landed(source.name, days, fingerprint, listing)
    for day in triage.landed:
        _check_folder(source, day, triage)
    blobs = [(day.day, blob) for day in triage.landed if day.day not in triage.deferred for blob in day.files]
    unusable = _check_landed_files(source, blobs, folder, triage)
    readable = [(day, blob) for day, blob in blobs if blob.name not in unusable]
    files = bronze.read(source, stores.lake(), readable, folder)
    skipped = _read_skipped(copy_log, files)
    saved: dict[str, dict[date, str]] = {}
    for file in files:
        _check_bronze_file(source, file, {row.name for row in skipped}, saved, triage, folder)
    usable = set(triage.usable)
    triage.files = [file for file in files if file.day in usable]
    triage.skipped = [row for row in skipped if row.day in usable]
    return triage


def _find_landed(source: str, days: Sequence[date], fingerprint: str, listing: str) -> Triage:
    """Those of `days` that have landed. A day that changed since it was listed is deferred: the change starts it."""
    if fingerprint and len(days) > 1:
        raise StageError(f"--fingerprint is that of one day's files; {len(days)} days were requested")
    landing = list_landing(source, days)
    triage = Triage(list(landing.days))
    if not triage.landed:
        span = f"{days[0]}..{days[-1]}" if len(days) > 1 else str(days[0])
        raise StageError(f"nothing is landed in {source}/ for {span}; what was ingested of it before is unchanged")
    saved = saved_fingerprints(listing) if listing else {}
    for day in triage.landed:
        if (fingerprint or listing) and day.fingerprint not in (fingerprint, saved.get(day.day)):
            triage.deferred[day.day].append("landing changed while it was ingested; the change starts the day again")
    triage.strays = [f"{stray.name}: {stray.why}" for stray in landing.strays]
    for stray in triage.strays:
        log.warning("not used: %s", stray)
    return triage


def _check_folder(source: SourceConfig, day: LandedDay, triage: Triage) -> None:
    """Hold a day with files that cannot be used, with corrections that cannot be read, or that has not begun."""
    for stray in day.strays:
        triage.held[day.day].append(
            f"{stray.name} cannot be used ({stray.why}): ask upstream to send it as it should be and delete it, or "
            "delete it to accept the day without it"
        )
    if day.day > _newest_day():
        triage.held[day.day].append(
            f"{source.name}/{day.day}/ is a day that has not begun: delete it, or move its files to their day"
        )
    try:
        triage.corrections[day.day] = load_corrections(source, stores.landing(), day.corrections)
    except CorrectionsError as error:
        triage.held[day.day].append(str(error))


def _newest_day() -> date:
    """The last day that has begun anywhere on earth, and one more for clocks that are wrong.

    Only here is the clock read, and not to choose a day: data of a day before it begins are wrong, today and in every
    later run. Data of 1998 stay old, so a backfill has the same result at any time.
    """
    return datetime.now(UTC).date() + timedelta(days=2)


def _check_landed_files(
    source: SourceConfig, blobs: Sequence[tuple[date, Blob]], folder: Path, triage: Triage
) -> set[str]:
    """The names of files that cannot be used as files; their days are held."""
    landing = stores.landing()

    def inspect(number: int, blob: Blob) -> inspection.Inspection:
        return inspection.inspect_file(landing, blob, folder / f"landed-{number}", source.landing)

    with ThreadPoolExecutor(INSPECTION_THREADS) as threads:
        inspections = list(threads.map(inspect, range(len(blobs)), (blob for _, blob in blobs)))
    inspected = [(day, blob.name, result) for (day, blob), result in zip(blobs, inspections, strict=True)]
    for day, name, result in inspected:
        if result.problem:
            triage.held[day].append(f"{name} {result.problem}")
    for name, other in inspection.repeated_content((name, result.md5) for _, name, result in inspected):
        log.warning("%s has the same content as %s: within one day, its rows are exact duplicates", name, other)
    return {name for _, name, result in inspected if result.problem}


def _read_skipped(copy_log: str, files: Sequence[BronzeFile]) -> list[Skipped]:
    """The rows that the Copy could not parse, and lines that are no rows."""
    unparsed = [row for file in files for row in file.unparsed]
    try:
        return [*read_copy_log(stores.lake(), copy_log, [(file.day, file.name) for file in files]), *unparsed]
    except UnknownSourceError as error:
        raise StageError(str(error)) from error


def _check_bronze_file(
    source: SourceConfig,
    file: BronzeFile,
    with_skipped: set[str],
    saved: dict[str, dict[date, str]],
    triage: Triage,
    folder: Path,
) -> None:
    """Hold or defer the day of a file that cannot be read, or that is empty when the config does not accept that.

    `saved` caches the fingerprints of each listing that was saved before a Copy.
    """
    if file.extra:
        log.warning("%s: columns that are not used: %s", file.name, ", ".join(file.extra))
    if not file.copied:
        blob = next(blob for day in triage.landed for blob in day.files if blob.name == file.name)
        problem = inspection.explain_failed_copy(stores.landing(), blob, folder / "not-copied")
        if problem:
            triage.held[file.day].append(f"{file.name} {problem}")
        else:
            triage.deferred[file.day].append(str(file.problem))
    elif file.problem:
        triage.held[file.day].append(file.problem)
    elif file.listing and not _is_as_listed(file, saved, triage):
        triage.deferred[file.day].append(
            f"{file.name} was copied when something else was landed ({file.listing}); copy the day again"
        )
    elif not file.received and file.name not in with_skipped and source.landing.empty_file == "fail":
        triage.held[file.day].append(
            f"{file.name} has no rows: ask upstream to send it again, or delete it to accept the day without it, "
            "or set landing.empty_file: accept"
        )


def _is_as_listed(file: BronzeFile, saved: dict[str, dict[date, str]], triage: Triage) -> bool:
    """Is what is landed now what was listed before the file's Copy? Then it is what was copied, by any run."""
    if file.listing not in saved:
        saved[file.listing] = saved_fingerprints(file.listing)
    current = {day.day: day.fingerprint for day in triage.landed}
    return saved[file.listing].get(file.day) == current[file.day]
