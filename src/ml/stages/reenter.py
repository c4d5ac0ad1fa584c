"""Refused rows mended by hand: exported to a csv, edited, and given back as corrections of the day.

`ml reenter --days D --export refused.csv` writes the refused rows of a day. A person mends cells, removes the
rows that are to stay refused, and gives the file back with `--corrections refused.csv`. That writes
`corrections.json` into the day's folder of landing, which starts the day again (see ml.ingest.corrections). Each row
is judged first by the same rules: nothing is written unless all of them would be accepted. Giving the same
again changes nothing; to undo corrections, delete the file.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml import console
from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.ingest import cleaning, corrections
from ml.ingest.bronze import COLUMNS, SCHEMA
from ml.ingest.corrections import Correction
from ml.ingest.tables import LEASES, QUARANTINE
from ml.landing import listing
from ml.storage import leases, stores, tables

log = logging.getLogger(__name__)

TOLD = ("_file", "_row", "_reason", "_remedy", "_received")  # what the csv says besides the columns
WAIT = 60  # seconds for somebody who corrects the same table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=console.parse_days, required=True, help="one day")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--export", type=Path, help="write the day's refused rows to this csv, to be mended")
    what.add_argument("--corrections", type=Path, help="the same csv, mended; rows that are not in it stay refused")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export a day's refused rows, or take them back mended.

    Facts: day, rows (exported or given), and of corrections: corrected (of the day, now), file (in landing),
    written (False when all of it was there already). Raises StageError, having written nothing.
    """
    model = load_model(args.model)
    if len(args.days) != 1:
        raise StageError(f"--days: one day at a time; {len(args.days)} were given")
    (day,) = args.days
    refused = _refused(day)
    if args.export is not None:
        args.export.write_text(_exported(refused), encoding="utf-8", newline="")
        return {"day": day.isoformat(), "rows": len(refused), "export": str(args.export)}
    with leases.hold(stores.lake(), f"{LEASES}/corrections", f"ml reenter of {day}", WAIT) as lease:
        return _correct(model, day, refused, args.corrections, lease)


def _correct(
    model: ModelConfig, day: date, refused: list[dict[str, Any]], given: Path, lease: leases.Lease
) -> dict[str, Any]:
    table = model.landing.table
    before = corrections.load_corrections(stores.landing(), _there(table, day))
    fresh = _given(table, day, refused, given, before)
    _judge(model, day, fresh)
    every = {one.key: one for one in before} | {one.key: one for one in fresh}
    name, content = f"{table}/{day}/{listing.CORRECTIONS}", corrections.dump_corrections(every.values())
    written = not before or content != corrections.dump_corrections(before)
    if written:
        lease.check()
        stores.landing().write(name, content, "application/json")
    return {"day": day.isoformat(), "rows": len(fresh), "corrected": len(every), "file": name, "written": written}


def _there(table: str, day: date) -> stores.Blob | None:
    wanted = f"{table}/{day}/{listing.CORRECTIONS}"
    return next((blob for blob in stores.landing().list(wanted) if blob.name == wanted), None)


def _refused(day: date) -> list[dict[str, Any]]:
    """The day's rows in quarantine, in order of file and row."""
    if not tables.exists(QUARANTINE):
        return []
    rows = tables.read(QUARANTINE, where=pc.field("day") == pa.scalar(day)).to_pylist()
    return sorted(rows, key=lambda row: (row["_file"], row["_row"] or 0, row["record"]))


def _exported(refused: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*TOLD, *COLUMNS], lineterminator="\n")
    writer.writeheader()
    for row in refused:
        record = json.loads(row["record"])
        told = {"_file": row["_file"], "_row": row["_row"], "_reason": row["reason"], "_remedy": row["remedy"]}
        writer.writerow(told | {"_received": row["record"]} | {name: record.get(name) for name in COLUMNS})
    return out.getvalue()


def _given(
    table: str, day: date, refused: list[dict[str, Any]], path: Path, before: list[Correction]
) -> list[Correction]:
    """The csv's rows as corrections of rows that are in quarantine, or are corrected already."""
    known = {(row["_file"], row["record"]) for row in refused}
    again = {(one.file, json.dumps(one.values, ensure_ascii=False)): one.record for one in before}
    done = {(one.file, json.dumps(one.record, ensure_ascii=False)) for one in before}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path} cannot be read as csv in UTF-8: {error}") from error
    found, problems = [], []
    for number, line in enumerate(lines, start=2):
        if lacking := [name for name in ("_file", "_received", *COLUMNS) if line.get(name) is None]:
            raise StageError(
                f"{path}, line {number}: no column {', '.join(lacking)}; export the rows again and edit that"
            )
        landed = _landed_name(line["_file"], f"{table}/{day}/")
        if (line["_file"], line["_received"]) not in known and (landed, line["_received"]) not in done:
            problems.append(f"line {number}: {line['_file']} has no such refused row on {day}; export the rows again")
            continue
        values = {column: line[column] or None for column in COLUMNS}
        record = again.get((landed, line["_received"])) or json.loads(line["_received"])
        found.append(Correction(landed, record, values))
    if problems:
        raise StageError(f"{path}: nothing was written\n" + "\n".join(problems))
    if not found:
        raise StageError(f"{path} has no rows: nothing to correct")
    return found


def _landed_name(source: str, folder: str) -> str:
    """A file's path in landing: rows name container and path, or, when Data Factory skipped them, the file alone."""
    at = source.find(folder)
    return source[at:] if at >= 0 else f"{folder}{source}"


def _judge(model: ModelConfig, day: date, given: list[Correction]) -> None:
    """Raise StageError with every row that would be refused again."""
    rows = [{"_day": day, "_file": one.file, "_row": n, **one.values} for n, one in enumerate(given, start=2)]
    judged = cleaning.clean(model, pa.Table.from_pylist(rows, SCHEMA), [])
    problems = [f"line {row['_row']}: {row['reason']} ({row['remedy']})" for row in judged.quarantine.to_pylist()]
    if problems:
        raise StageError("these rows would be refused again; nothing was written\n" + "\n".join(problems))
