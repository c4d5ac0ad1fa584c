"""Validate: hold what arrived, what became silver, or what a model is to learn, against its expectations.

The page and its JSON are written first, pass or fail, so that a failed validation can be looked at:
`validation/<model>/<suite>/<day, first..last, or version-N>.html` in the reports store. A failed
critical expectation fails the stage; warnings are told and do not.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml import (
    bronze,
    cleaning,
    cli,
    config,
    evidence,
    expectations,
    held_days,
    journal,
    lake,
    land,
    leaks,
    store,
    validation_html,
)
from ml.cli import StageError
from ml.ingest import QUARANTINE, SILVER

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", choices=["arrival", "silver", "training"], required=True)
    parser.add_argument("--days", type=cli.some_days, default=(), help="of arrival and silver: D or D..D")
    parser.add_argument(
        "--fingerprint", default="", help="arrival of one day: of its files, which are held when refused"
    )
    parser.add_argument("--version", type=int, help="of the training set")
    parser.add_argument("--run-key", required=True, help="kept with the result")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Validate the days, or the training set's version.

    Facts: passed (no critical failure), expectations, failed (a sentence each, warnings too), rows, report
    (its name in the reports store), seconds. Raises StageError with every critical failure and the report.
    """
    started = time.monotonic()
    model = config.load(args.model)
    if args.suite == "training":
        if args.version is None:
            raise StageError("--suite training needs --version, that of the training set")
        of, frames = f"version-{args.version}", _training(model, args.version)
    else:
        if not args.days:
            raise StageError(f"--suite {args.suite} needs --days")
        of = str(args.days[0]) if len(args.days) == 1 else f"{args.days[0]}..{args.days[-1]}"
        frames = {"arrival": _arrival, "silver": _silver}[args.suite](model, args.days)
    suite = expectations.load(args.suite, model)
    outcomes = expectations.check(suite, frames)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = [outcome for outcome in failed if outcome.expectation.severity == "critical"]
    rows = {name: frame.num_rows for name, frame in frames.items()}

    name = f"validation/{model.model}/{args.suite}/{of}"
    page = validation_html.page(model.model, suite, of, rows, outcomes, args.run_key)
    store.reports().write(f"{name}.html", page, "text/html; charset=utf-8")
    result = {
        "model": model.model,
        "suite": suite.name,
        "of": of,
        "run_key": args.run_key,
        "passed": not critical,
        "rows": rows,
        "outcomes": [
            {**o.expectation.model_dump(), "passed": o.passed, "observed": o.observed, "examples": o.examples}
            for o in outcomes
        ],
    }
    if args.suite == "training":  # a version is of one table: the evaluation asks whether it was this one
        of_table = lake.table(model.train.table, args.version)
        result["table"] = {"name": model.train.table, "version": args.version, "id": evidence.table_id(of_table)}
    store.reports().write(f"{name}.json", json.dumps(result, indent=1, default=str).encode(), "application/json")
    for outcome in failed:
        log.warning("%s: %s", outcome.expectation.severity, outcome.sentence)
    if critical:
        _hold(args, [outcome.sentence for outcome in critical])
        told = "\n".join(outcome.sentence for outcome in critical)
        raise StageError(
            f"{suite.name} of {of}: {len(critical)} critical expectations failed:\n{told}\nReport: {name}.html"
        )
    if args.suite == "silver":
        _note_passed(args, frames)
    return {
        "passed": True,
        "expectations": len(outcomes),
        "failed": [outcome.sentence for outcome in failed],
        "rows": rows,
        "report": f"{name}.html",
        "seconds": round(time.monotonic() - started, 2),
    }


def _hold(args: argparse.Namespace, reasons: list[str]) -> None:
    """A day that was refused rests until its files change. Of many days, nobody knows which one it was."""
    fingerprint = args.fingerprint
    if len(args.days) != 1:
        return
    if args.suite == "silver":
        marks = lake.read(land.INGESTED_DAYS, where=pc.field("day") == pa.scalar(args.days[0])).to_pylist()
        fingerprint = marks[0]["fingerprint"] if marks else ""
    if fingerprint:
        held = held_days.Held()
        held[args.days[0]] += reasons
        held_days.note(held, args.days, {args.days[0]: fingerprint}, args.run_key)


def _note_passed(args: argparse.Namespace, frames: dict[str, pa.Table]) -> None:
    """The later stages may use these days as they are now."""
    counts = cleaning.per_day(frames["rows"])
    version = lake.table(land.INGESTED_DAYS).version()
    marks = lake.read(land.INGESTED_DAYS, version=version, where=pc.field("day").isin(pa.array(args.days, pa.date32())))
    passed = [
        journal.Entry(
            "validate",
            mark["day"],
            args.run_key,
            mark.get("content") or mark["fingerprint"],
            version,
            counts[mark["day"]],
            (),
        )
        for mark in marks.to_pylist()
    ]
    if passed:
        journal.write(passed)


def _arrival(model: config.Model, days: Sequence[date]) -> dict[str, pa.Table]:
    """Bronze rows as text, and the landed files that they are from."""
    table = model.landing.table
    folder = f"{table}/{days[0]}/" if len(days) == 1 else f"{table}/"
    listing = land.landed_days(store.landing().list(folder), table)
    landed = [(day.day, blob) for day in listing.days if day.day in set(days) for blob in day.files]
    if not landed:
        raise StageError(f"nothing is landed in {table}/ for {days[0]}" + (f"..{days[-1]}" if len(days) > 1 else ""))
    with TemporaryDirectory(prefix="ml-validate-") as folder:
        files = bronze.read(store.lake(), landed, Path(folder))
        rows = bronze.joined(files)
    for name in bronze.COLUMNS:
        rows = rows.set_column(rows.schema.get_field_index(name), name, cleaning.trimmed(rows[name]))
    schema = pa.schema(
        {"name": pa.string(), "received": pa.int64(), "problem": pa.string(), "extra_columns": pa.string()}
    )
    told = [
        {
            "name": file.name,
            "received": None if file.problem else file.received,
            "problem": file.problem,
            "extra_columns": ", ".join(file.extra) or None,
        }
        for file in files
    ]
    return {"rows": rows, "files": pa.Table.from_pylist(told, schema)}


def _silver(model: config.Model, days: Sequence[date]) -> dict[str, pa.Table]:
    """Silver rows, with the day they were `occurred_on` in the model's zone, and each day's account."""
    where = pc.field("day").isin(pa.array(days, pa.date32()))
    try:
        rows = lake.read(SILVER, where=where)
        quarantined = cleaning.per_day(lake.read(QUARANTINE, columns=["day"], where=where))
        marks = {mark["day"]: mark for mark in lake.read(land.INGESTED_DAYS, where=where).to_pylist()}
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'ingest' makes it)") from error
    local = rows["occurred_at"].cast(pa.timestamp("us", model.timezone))
    rows = rows.append_column("occurred_on", pc.local_timestamp(local).cast(pa.date32(), safe=False))
    silver = cleaning.per_day(rows)
    accounts = []
    for day in sorted({*silver, *quarantined, *marks}):
        mark = marks.get(day, {})
        account = {name: mark.get(name) for name in ("received", "silver", "quarantined", "duplicates")}
        kept = sum(account[name] or 0 for name in ("silver", "quarantined", "duplicates"))
        accounts.append(
            {"day": day, **account, "unaccounted": (account["received"] or 0) - kept}
            | {"silver_rows": silver[day], "quarantine_rows": quarantined[day]}
        )
    names = ("received", "silver", "quarantined", "duplicates", "unaccounted", "silver_rows", "quarantine_rows")
    schema = pa.schema({"day": pa.date32()} | dict.fromkeys(names, pa.int64()))
    return {"rows": rows, "days": pa.Table.from_pylist(accounts, schema)}


def _training(model: config.Model, version: int) -> dict[str, pa.Table]:
    """The training set, and what `ml.leaks` says of each feature.

    `learnt_until` is when a training label was known, `tested_from` the first test cut-off.
    """
    try:
        rows = lake.read(model.train.table, version=version)
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'training_set' makes it)") from error
    told = leaks.look(model, rows)
    label = pc.cast(rows[model.label.name], pa.string())
    training = pc.equal(rows["split"], "train")
    horizon = timedelta(days=model.label.horizon_days)
    known = pc.add(rows["as_of"].cast(pa.timestamp("us")), pa.scalar(horizon, pa.duration("us")))
    first_test = pc.min(rows.filter(pc.equal(rows["split"], "test"))["as_of"]).cast(pa.timestamp("us"))
    rows = rows.append_column("split_and_label", pc.binary_join_element_wise(rows["split"], label, " "))
    rows = rows.append_column("learnt_until", pc.if_else(training, known, None))
    rows = rows.append_column("tested_from", pa.repeat(first_test, rows.num_rows))
    return {"rows": rows, "features": told}
