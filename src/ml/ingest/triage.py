"""What has landed for some days, looked at before anything is judged: which files, whole or not, copied or not.

Each day ends in one of three ways: it can be used; it is *held* (a person or upstream has to act, and it starts
again when its files change); or it is *undone* (its Copy has to be made again; nothing is wrong with its files).
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
from ml.landing.listing import landed_days, saved_fingerprints
from ml.ops.held_days import Held
from ml.storage import stores

if TYPE_CHECKING:
    from ml.config import ModelConfig
    from ml.ingest.bronze import BronzeFile
    from ml.ingest.copy_log import Skipped
    from ml.ingest.corrections import Correction
    from ml.landing.listing import Landed
    from ml.storage.stores import Blob

log = logging.getLogger(__name__)

READERS = 8  # files looked at together


@dataclass
class Triage:
    """The days that have landed; `files` and `skipped` rows are of those that are neither held nor undone."""

    landed: list[Landed]
    strays: list[str] = field(default_factory=list)
    files: list[BronzeFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    corrections: dict[date, list[Correction]] = field(default_factory=dict)
    held: Held = field(default_factory=Held)
    undone: Held = field(default_factory=Held)

    @property
    def fingerprints(self) -> dict[date, str]:
        """Of the days that are not undone, or are held too: what they are marked or held with."""
        return {day.day: day.fingerprint for day in self.landed if day.day not in self.undone or day.day in self.held}

    def told(self) -> str:
        """Why days are held, and why others are undone: one that is held has failed the copies of its other files."""
        undone = [f"{day}: {why}" for day in self.held.others(sorted(self.undone)) for why in self.undone[day]]
        return "\n".join([self.held.told(), *undone] if self.held else undone)

    @property
    def usable(self) -> list[date]:
        return self.undone.others(self.held.others([day.day for day in self.landed]))


def triage_days(
    model: ModelConfig, days: Sequence[date], fingerprint: str, listing: str, copy_log: str, folder: Path
) -> Triage:
    """Look at the landed ones of `days`; `folder` is for files in passing. Raises StageError when there is none."""
    found = _landed(model.landing.table, days, fingerprint, listing)
    for day in found.landed:
        _look_at_folder(model, day, found)
    there = [(day.day, blob) for day in found.landed if day.day not in found.undone for blob in day.files]
    problems = _look_at_files(model, there, folder, found)
    files = bronze.read(stores.lake(), [one for one in there if one[1].name not in problems], folder)
    skipped = _skipped(copy_log, files)
    noted: dict[str, dict[date, str]] = {}
    for file in files:
        _judge(model, file, {row.name for row in skipped}, noted, found, folder)
    usable = set(found.usable)
    found.files = [file for file in files if file.day in usable]
    found.skipped = [row for row in skipped if row.day in usable]
    return found


def _landed(table: str, days: Sequence[date], fingerprint: str, listing: str) -> Triage:
    """The landed ones of `days`. One that is not as it was listed is undone: the change has started it again."""
    if fingerprint and len(days) > 1:
        raise StageError(f"--fingerprint is that of one day's files; {len(days)} days were asked for")
    folder = f"{table}/{days[0]}/" if len(days) == 1 else f"{table}/"
    now = landed_days(stores.landing().list(folder), table)
    wanted = set(days)
    found = Triage([day for day in now.days if day.day in wanted])
    if not found.landed:
        asked = f"{days[0]}..{days[-1]}" if len(days) > 1 else str(days[0])
        raise StageError(f"nothing is landed in {table}/ for {asked}; what was ingested of it before is unchanged")
    noted = saved_fingerprints(listing) if listing else {}
    for day in found.landed:
        if (fingerprint or listing) and day.fingerprint not in (fingerprint, noted.get(day.day)):
            found.undone[day.day].append("landing changed while it was ingested; the change starts the day again")
    found.strays = [f"{stray.name}: {stray.why}" for stray in now.strays]
    for stray in found.strays:
        log.warning("not taken: %s", stray)
    return found


def _look_at_folder(model: ModelConfig, day: Landed, found: Triage) -> None:
    """Hold a day with files that cannot be taken, with corrections that cannot be read, or that has not begun."""
    for stray in day.strays:
        found.held[day.day].append(
            f"{stray.name} cannot be taken ({stray.why}): ask upstream to send it as it should be and delete it, or "
            "delete it to accept the day without it"
        )
    if day.day > _newest_day():
        found.held[day.day].append(
            f"{model.landing.table}/{day.day}/ is a day that has not begun: delete it, or move its files to their day"
        )
    try:
        found.corrections[day.day] = load_corrections(stores.landing(), day.corrections)
    except CorrectionsError as error:
        found.held[day.day].append(str(error))


def _newest_day() -> date:
    """The last day that has begun somewhere on earth, and one for clocks that are wrong.

    Here alone the clock is asked, and not for which day it is: data of a day before it begins are wrong, today and
    in every later run. Data of 1998 are old for ever, so any backfill gives what it gave.
    """
    return datetime.now(UTC).date() + timedelta(days=2)


def _look_at_files(model: ModelConfig, there: Sequence[tuple[date, Blob]], folder: Path, found: Triage) -> set[str]:
    """The names of files that cannot be used as files; their days are held."""
    landing = stores.landing()

    def look(one: tuple[int, Blob]) -> inspection.Inspection:
        return inspection.inspect_file(landing, one[1], folder / f"landed-{one[0]}", model.landing)

    with ThreadPoolExecutor(READERS) as threads:
        looks = list(threads.map(look, enumerate(blob for _, blob in there)))
    for (day, blob), seen in zip(there, looks, strict=True):
        if seen.problem:
            found.held[day].append(f"{blob.name} {seen.problem}")
    digests = ((blob.name, seen.md5) for (_, blob), seen in zip(there, looks, strict=True))
    for name, other in inspection.same(digests):
        log.warning("%s has the same content as %s: of one day, its rows are exact duplicates", name, other)
    return {blob.name for (_, blob), seen in zip(there, looks, strict=True) if seen.problem}


def _skipped(copy_log: str, files: Sequence[BronzeFile]) -> list[Skipped]:
    """The rows that the Copy could not parse, and lines that are no rows."""
    lines = [row for file in files for row in file.unparsed]
    try:
        return [*read_copy_log(stores.lake(), copy_log, [(file.day, file.name) for file in files]), *lines]
    except UnknownSourceError as error:
        raise StageError(str(error)) from error


def _judge(
    model: ModelConfig,
    file: BronzeFile,
    with_skipped: set[str],
    noted: dict[str, dict[date, str]],
    found: Triage,
    at: Path,
) -> None:
    """Hold the day of a file that cannot be read, or is empty and config does not accept that."""
    if file.extra:
        log.warning("%s: columns that are not used: %s", file.name, ", ".join(file.extra))
    if not file.copied:
        blob = next(blob for day in found.landed for blob in day.files if blob.name == file.name)
        why = inspection.why_not_copied(stores.landing(), blob, at / "not-copied")
        if why:
            found.held[file.day].append(f"{file.name} {why}")
        else:
            found.undone[file.day].append(str(file.problem))
    elif file.problem:
        found.held[file.day].append(file.problem)
    elif file.listing and not _as_listed(file, noted, found):
        found.undone[file.day].append(
            f"{file.name} was copied when something else was landed ({file.listing}); copy the day again"
        )
    elif not file.received and file.name not in with_skipped and model.landing.empty_file == "fail":
        found.held[file.day].append(
            f"{file.name} has no rows: ask upstream to send it again, or delete it to accept the day without it, "
            "or set landing.empty_file: accept"
        )


def _as_listed(file: BronzeFile, noted: dict[str, dict[date, str]], found: Triage) -> bool:
    """Is what is landed now what was listed before the file's Copy? Then it is what was copied, whoever copied it."""
    if file.listing not in noted:
        noted[file.listing] = saved_fingerprints(file.listing)
    now = {day.day: day.fingerprint for day in found.landed}
    return noted[file.listing].get(file.day) == now[file.day]
