"""`python -m ml reenter`: exports a source's refused rows of a day to a csv, and takes the csv back with corrections.

`ml reenter --source S --days D --export refused.csv` writes the refused rows of a day. A person corrects cells, removes the rows
that are to stay refused, and returns the file with `--corrections refused.csv`. That writes `corrections.json` into
the day's folder of landing, which starts the day again (see `ml.ingest.corrections`). Each row is checked first by
the same rules: nothing is written unless all of them would be accepted. A second run with the same file has no
effect; to undo corrections, delete `corrections.json`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml.config import SourceConfig, load_source
from ml.console import parse_days
from ml.errors import StageError
from ml.ingest import bronze, cleaning, corrections
from ml.ingest.corrections import Correction
from ml.landing.listing import corrections_name
from ml.storage import leases, stores, tables
from ml.storage.leases import Lease

REFUSAL_COLUMNS = ("_file", "_row", "_reason", "_remedy", "_received")  # of the csv, besides the row's own columns
CORRECTIONS_WAIT_SECONDS = 60  # for another person who corrects rows at the same time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=parse_days, required=True, help="one day")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--export", type=Path, help="write the day's refused rows to this csv, to be corrected")
    action.add_argument("--corrections", type=Path, help="the corrected csv; rows that are not in it stay refused")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export a day's refused rows, or take them back corrected.

    Facts: day, rows (exported, or in the csv), and of corrections: corrected (of the day, now), file (in landing),
    written (False when the file had all of them already). Raises StageError, having written nothing.
    """
    source = load_source(args.source)
    if len(args.days) != 1:
        raise StageError(f"--days: one day at a time; found {len(args.days)} days")
    (day,) = args.days
    refused = _read_refused(source, day)
    if args.export is not None:
        args.export.write_text(_export(source, refused), encoding="utf-8", newline="")
        return {"day": day.isoformat(), "rows": len(refused), "export": str(args.export)}
    # a hyphen is in no name of a source or table: no other lease has this name
    name, holder = f"{leases.FOLDER}/corrections-{source.name}", f"ml reenter of {source.name} {day}"
    with leases.hold(stores.lake(), name, holder, CORRECTIONS_WAIT_SECONDS) as lease:
        return _correct(source, day, refused, args.corrections, lease)


def _correct(
    source: SourceConfig, day: date, refused: Sequence[dict[str, Any]], path: Path, lease: Lease
) -> dict[str, Any]:
    """Add the corrections in the csv at `path` to the day's corrections file."""
    name = corrections_name(source.name, day)
    before = corrections.load_corrections(source, stores.landing(), _find_blob(name))
    new = _read_corrections(source, day, refused, path, before)
    _check_accepted(source, day, new)
    merged = {correction.key: correction for correction in (*before, *new)}
    content = corrections.dump_corrections(merged.values())
    written = not before or content != corrections.dump_corrections(before)
    if written:
        lease.check()
        stores.landing().write(name, content, "application/json")
    return {"day": day.isoformat(), "rows": len(new), "corrected": len(merged), "file": name, "written": written}


def _find_blob(name: str) -> stores.Blob | None:
    return next((blob for blob in stores.landing().list(name) if blob.name == name), None)


def _read_refused(source: SourceConfig, day: date) -> list[dict[str, Any]]:
    """The day's rows in quarantine, ordered by file and row."""
    if not tables.exists(source.quarantine):
        return []
    rows = tables.read(source.quarantine, where=pc.field("day") == pa.scalar(day)).to_pylist()
    return sorted(rows, key=lambda row: (row["_file"], row["_row"] or 0, row["record"]))


def _export(source: SourceConfig, refused: Sequence[dict[str, Any]]) -> str:
    """The refused rows as csv text: REFUSAL_COLUMNS, then the source's columns."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*REFUSAL_COLUMNS, *source.columns], lineterminator="\n")
    writer.writeheader()
    for row in refused:
        record = json.loads(row["record"])
        refusal = (row["_file"], row["_row"], row["reason"], row["remedy"], row["record"])
        cells = {} if record.keys() == {corrections.LINE} else {name: record.get(name) for name in source.columns}
        writer.writerow(dict(zip(REFUSAL_COLUMNS, refusal, strict=True)) | cells)
    return out.getvalue()


def _read_corrections(
    source: SourceConfig, day: date, refused: Sequence[dict[str, Any]], path: Path, before: Sequence[Correction]
) -> list[Correction]:
    """The csv's rows as corrections of rows that are in quarantine, or that have a correction already.

    Raises StageError with every line that is neither.
    """
    refused_rows = {(row["_file"], row["record"]) for row in refused}
    first_received = {(done.file, json.dumps(done.values, ensure_ascii=False)): done.record for done in before}
    corrected_rows = {(done.file, json.dumps(done.record, ensure_ascii=False)) for done in before}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path} cannot be read as csv in UTF-8: {error}") from error
    new, problems = [], []
    for number, line in enumerate(lines, start=2):
        if missing := [name for name in ("_file", "_received", *source.columns) if line.get(name) is None]:
            raise StageError(
                f"{path}, line {number}: no column {', '.join(missing)}; export the rows again and edit that"
            )
        landed = _landed_name(line["_file"], f"{source.name}/{day}/")
        received = line["_received"]
        if (line["_file"], received) not in refused_rows and (landed, received) not in corrected_rows:
            problems.append(f"line {number}: {line['_file']} has no such refused row on {day}; export the rows again")
            continue
        values = {column: line[column] or None for column in source.columns}
        record = first_received.get((landed, received)) or json.loads(received)
        new.append(Correction(landed, record, values))
    if problems:
        raise StageError(f"{path}: nothing was written\n" + "\n".join(problems))
    if not new:
        raise StageError(f"{path} has no rows: nothing to correct")
    return new


def _landed_name(source: str, folder: str) -> str:
    """A file's path in landing. Rows name container and path or, when Data Factory skipped them, only the file."""
    at = source.find(folder)
    return source[at:] if at >= 0 else f"{folder}{source}"


def _check_accepted(source: SourceConfig, day: date, new: Sequence[Correction]) -> None:
    """Raise StageError with every row that would be refused again."""
    rows = [
        {"_day": day, "_file": correction.file, "_row": line, **correction.values}
        for line, correction in enumerate(new, start=2)
    ]
    cleaned = cleaning.clean(source, pa.Table.from_pylist(rows, bronze.schema(source)), [])
    problems = [f"line {row['_row']}: {row['reason']} ({row['remedy']})" for row in cleaned.quarantine.to_pylist()]
    if problems:
        raise StageError("these rows would be refused again; nothing was written\n" + "\n".join(problems))
