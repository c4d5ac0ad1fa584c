"""The contents of the landing store, by source and day.

A day of a source is `<source>/<YYYY-MM-DD>/` with one file or more. It may come late, twice, in parts or never, so a
day is identified by its fingerprint: the names, sizes and etags of its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from ml.errors import StageError
from ml.storage import stores
from ml.storage.stores import Blob

FORMATS = ("csv", "tsv", "jsonl", "parquet")
CORRECTIONS = "corrections.json"  # in a day's folder: refused rows that a person has corrected (ml reenter)
LISTINGS = "bronze/_listing"  # in the lake: what was landed when a Copy was requested

# refuses path tricks, wildcards of the copy services, and names that Spark and Data Factory skip as hidden
_SAFE_FILE = re.compile(r"[^\W_][\w .=()+,@-]*", re.ASCII)


@dataclass(frozen=True)
class Stray:
    """A file that cannot be used, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class LandedDay:
    """One day's files, by name, and the fingerprint that changes with any of them.

    `strays` are files in the day's folder that cannot be used; `corrections` is the file that `ml reenter` writes.
    """

    day: date
    files: tuple[Blob, ...]
    fingerprint: str
    strays: tuple[Stray, ...] = ()
    corrections: Blob | None = None


@dataclass(frozen=True)
class Listing:
    """The contents of the landing store: days, oldest first, and files that are out of place."""

    days: tuple[LandedDay, ...]
    strays: tuple[Stray, ...]


def corrections_name(source: str, day: date) -> str:
    """The path in landing of the file with a day's corrections."""
    return f"{source}/{day}/{CORRECTIONS}"


def fingerprint(files: Iterable[Blob]) -> str:
    """16 hex digits that change when a file is added, removed or written again. The files' order does not count."""
    identities = sorted((blob.name, blob.size, blob.etag) for blob in files)
    return hashlib.sha256(json.dumps(identities).encode()).hexdigest()[:16]


def landed_days(blobs: Iterable[Blob], source: str) -> Listing:
    """Assign files to the days of a source. A file without a place there is a stray; nothing is an error.

    A stray in a day's folder belongs to the day, whose ingestion is held for it. Only names that begin with `_` or
    `.` are left out: tools mark folders with them (`_SUCCESS`).
    """
    days: dict[date, _Folder] = {}
    strays = []
    for blob in blobs:
        if _is_folder_marker(blob, source):
            continue
        day, why = _locate(blob.name, source)
        if why:
            strays.append(Stray(blob.name, why))
        if day is None or (why and blob.name.rpartition("/")[2].startswith(("_", "."))):
            continue
        folder = days.setdefault(day, _Folder())
        if why:
            folder.strays.append((strays[-1], blob))
        elif blob.name == corrections_name(source, day):
            folder.corrections = blob
        else:
            folder.files.append(blob)
    landed = tuple(folder.landed(day) for day, folder in sorted(days.items()) if folder.files or folder.strays)
    return Listing(landed, tuple(sorted(strays, key=lambda stray: stray.name)))


@dataclass
class _Folder:
    files: list[Blob] = field(default_factory=list)
    strays: list[tuple[Stray, Blob]] = field(default_factory=list)
    corrections: Blob | None = None

    def landed(self, day: date) -> LandedDay:
        every = [*self.files, *(blob for _, blob in self.strays), *([self.corrections] if self.corrections else [])]
        return LandedDay(
            day=day,
            files=tuple(sorted(self.files, key=lambda blob: blob.name)),
            fingerprint=fingerprint(every),
            strays=tuple(sorted((stray for stray, _ in self.strays), key=lambda stray: stray.name)),
            corrections=self.corrections,
        )


def _is_folder_marker(blob: Blob, source: str) -> bool:
    """Storage accounts with a hierarchical namespace list folders too, as empty files without an extension."""
    parts = blob.name.rstrip("/").split("/")
    return blob.size == 0 and parts[0] == source and len(parts) <= 2 and "." not in parts[-1]


def _locate(name: str, source: str) -> tuple[date | None, str]:
    """The day in whose folder a file is, or None, and why the file cannot be used ("" when it can)."""
    parts = name.split("/")
    if len(parts) < 3 or parts[0] != source:
        return None, f"not {source}/<YYYY-MM-DD>/<file>"
    folder, file = parts[1], parts[-1]
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", folder, re.ASCII):
        return None, f"its folder is {folder!r}; a day as YYYY-MM-DD is needed"
    try:
        day = date.fromisoformat(folder)
    except ValueError:
        return None, f"there is no day {folder}"
    if len(parts) > 3:
        return day, f"not {source}/<YYYY-MM-DD>/<file>"
    if not _SAFE_FILE.fullmatch(file):
        return day, (f"its file name {file!r} has a character that the copy services interpret as something else")
    if file != CORRECTIONS and (file.rpartition(".")[2] not in FORMATS or "." not in file):
        return day, f"format not known; known extensions, in lower case: {', '.join(FORMATS)}"
    return day, ""


def list_landing(source: str, days: Sequence[date] | None = None) -> Listing:
    """What is landed of a source now: of all days, or of `days`, other days left out."""
    folder = f"{source}/{days[0]}/" if days is not None and len(days) == 1 else f"{source}/"
    listing = landed_days(stores.landing().list(folder), source)
    if days is None:
        return listing
    requested = set(days)
    return Listing(tuple(day for day in listing.days if day.day in requested), listing.strays)


def save_listing(source: str, days: Sequence[date] | None, name: str) -> str:
    """Save what is landed of a source now (of all days, or of `days`) to the lake, before a Copy.

    `name` is the run key of the Copy. Returns the path in the lake. Ingestion receives it (`--listing`), so that what was copied is what was listed: a day whose files differ from the
    saved listing is not ingested until it is copied again.
    """
    fingerprints = {day.day.isoformat(): day.fingerprint for day in list_landing(source, days).days}
    path = f"{LISTINGS}/{source}/{name}.json"
    stores.lake().write(path, json.dumps(fingerprints, indent=1).encode(), "application/json")
    return path


def saved_fingerprints(path: str) -> dict[date, str]:
    """The fingerprint that each day had when the listing was saved. Raises StageError when there is no such file."""
    try:
        fingerprints = json.loads(stores.lake().read(path))
    except FileNotFoundError as error:
        raise StageError(f"no listing at {path}: the task that lists what is to be copied writes it") from error
    return {date.fromisoformat(day): fingerprint for day, fingerprint in fingerprints.items()}
