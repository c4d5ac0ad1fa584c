"""What lies in the landing store, by day.

A day is `<table>/<YYYY-MM-DD>/` with one file or more. It may come late, twice, in parts or never, so a day is
identified by its fingerprint: the names, sizes and etags of its files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from ml.errors import StageError
from ml.storage import stores
from ml.storage.stores import Blob

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

FORMATS = ("csv", "tsv", "jsonl", "parquet")
CORRECTIONS = "corrections.json"  # in a day's folder: refused rows as a person has mended them (ml reenter)
LISTINGS = "bronze/_listing"  # what was landed when a Copy was asked for

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


def list_landing(table: str) -> Listing:
    """What lies in the landing store for `table`, now."""
    return landed_days(stores.landing().list(f"{table}/"), table)


def save_listing(table: str, days: Iterable[date] | None, name: str) -> str:
    """Write down in the lake what lies in landing now (for some days), before a Copy; where it was written.

    An ingestion is given it (`--list_landing`), so that what was copied is what was listed: a day whose files are
    not those of the note any more is held back until it is copied again.
    """
    asked = None if days is None else set(days)
    found = [day for day in list_landing(table).days if asked is None or day.day in asked]
    noted = {day.day.isoformat(): day.fingerprint for day in found}
    where = f"{LISTINGS}/{name}.json"
    stores.lake().write(where, json.dumps(noted, indent=1).encode(), "application/json")
    return where


def saved_fingerprints(where: str) -> dict[date, str]:
    """The fingerprint that each day had when the listing was noted. Raises StageError when there is no such note."""
    try:
        noted = json.loads(stores.lake().read(where))
    except FileNotFoundError as error:
        raise StageError(f"no listing at {where}: the task that lists what is to be copied writes it") from error
    return {date.fromisoformat(day): fingerprint for day, fingerprint in noted.items()}
