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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml import console
from ml.config import load_model
from ml.errors import StageError
from ml.ingest import cleaning
from ml.ops import built_days, held_days, ingested_days
from ml.storage import stores, tables
from ml.validate import expectations
from ml.validate.inputs import arrival_inputs, silver_inputs, training_inputs
from ml.validate.page import validation_page

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", choices=["arrival", "silver", "training"], required=True)
    parser.add_argument("--days", type=console.parse_days, default=(), help="of arrival and silver: D or D..D")
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
    model = load_model(args.model)
    if args.suite == "training":
        if args.version is None:
            raise StageError("--suite training needs --version, that of the training set")
        of, frames = f"version-{args.version}", training_inputs(model, args.version)
    else:
        if not args.days:
            raise StageError(f"--suite {args.suite} needs --days")
        of = str(args.days[0]) if len(args.days) == 1 else f"{args.days[0]}..{args.days[-1]}"
        frames = {"arrival": arrival_inputs, "silver": silver_inputs}[args.suite](model, args.days)
    suite = expectations.load(args.suite, model)
    outcomes = expectations.check(suite, frames)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = [outcome for outcome in failed if outcome.expectation.severity == "critical"]
    rows = {name: frame.num_rows for name, frame in frames.items()}

    name = f"validation/{model.model}/{args.suite}/{of}"
    page = validation_page(model.model, suite, of, rows, outcomes, args.run_key)
    stores.reports().write(f"{name}.html", page, "text/html; charset=utf-8")
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
        of_table = tables.table(model.train.table, args.version)
        result["table"] = {"name": model.train.table, "version": args.version, "id": tables.table_id(of_table)}
    stores.reports().write(f"{name}.json", json.dumps(result, indent=1, default=str).encode(), "application/json")
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
        marks = tables.read(ingested_days.INGESTED_DAYS, where=pc.field("day") == pa.scalar(args.days[0])).to_pylist()
        fingerprint = marks[0]["fingerprint"] if marks else ""
    if fingerprint:
        held = held_days.Held()
        held[args.days[0]] += reasons
        held_days.note(held, args.days, {args.days[0]: fingerprint}, args.run_key)


def _note_passed(args: argparse.Namespace, frames: dict[str, pa.Table]) -> None:
    """The later stages may use these days as they are now."""
    counts = cleaning.per_day(frames["rows"])
    version = tables.table(ingested_days.INGESTED_DAYS).version()
    marks = tables.read(
        ingested_days.INGESTED_DAYS, version=version, where=pc.field("day").isin(pa.array(args.days, pa.date32()))
    )
    passed = [
        built_days.BuiltDay(
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
        built_days.write(passed)
