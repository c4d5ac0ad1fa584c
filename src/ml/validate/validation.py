"""Validates days of a source or a model's training set against a suite of expectations, and writes the report.

The page and its JSON are written first, pass or fail, so that a failed validation can be inspected:
`validation/<source or model>/<suite>/<day, first..last, or version-N>.html` in the reports store. A failed critical expectation
raises; warnings are logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pyarrow as pa

from ml.config import ModelConfig, SourceConfig
from ml.errors import StageError
from ml.ingest import cleaning
from ml.ops import built_days, held_days
from ml.ops.ingested_days import INGESTED_DAYS, ingested_fingerprints, read_ingested_days
from ml.storage import stores, tables
from ml.validate import expectations
from ml.validate.expectations import Outcome, Suite
from ml.validate.inputs import arrival_inputs, silver_inputs, training_inputs
from ml.validate.page import validation_page

log = logging.getLogger(__name__)

DaySuite = Literal["arrival", "silver"]


@dataclass(frozen=True)
class Validation:
    """The outcomes of one suite on one subject: a day, days, or a version of a training set."""

    suite: Suite
    subject: str
    rows: Mapping[str, int]  # by frame
    outcomes: Sequence[Outcome]
    report: str  # name of its page in the reports store

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]

    @property
    def critical(self) -> list[Outcome]:
        return [outcome for outcome in self.failed if outcome.expectation.severity == "critical"]

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of a validation without critical failures."""
        return {
            "passed": True,
            "expectations": len(self.outcomes),
            "failed": [outcome.sentence for outcome in self.failed],
            "rows": self.rows,
            "report": self.report,
        }

    def raise_if_critical(self) -> None:
        """Raise StageError with every critical failure and the report's name."""
        if self.critical:
            sentences = "\n".join(outcome.sentence for outcome in self.critical)
            raise StageError(
                f"{self.suite.name} of {self.subject}: {len(self.critical)} critical expectations failed:\n{sentences}\n"
                f"Report: {self.report}"
            )


def validate_days(
    source: SourceConfig, suite_name: DaySuite, days: Sequence[date], *, fingerprint: str, run_key: str
) -> dict[str, Any]:
    """Validate the arrived files or the silver rows of these days of a source; a single day that fails is held.

    `fingerprint` is that of the arrived files of one day ("": unknown). Facts: passed, expectations, failed (a sentence
    each, warnings included), rows (by frame), report (its name in the reports store). Raises StageError with every
    critical failure.
    """
    subject = str(days[0]) if len(days) == 1 else f"{days[0]}..{days[-1]}"
    read_inputs = {"arrival": arrival_inputs, "silver": silver_inputs}[suite_name]
    frames = read_inputs(source, days)
    validation = _validate(source, suite_name, subject, frames, run_key)
    if validation.critical and len(days) == 1:  # of several days, the failed one is not known
        if suite_name == "silver":
            fingerprint = ingested_fingerprints(source.name).get(days[0], "")
        reasons = [outcome.sentence for outcome in validation.critical]
        _hold_day(source, days[0], fingerprint=fingerprint, reasons=reasons, run_key=run_key)
    validation.raise_if_critical()
    if suite_name == "silver":
        _record_validated_days(source, days, frames["rows"], run_key=run_key)
    return validation.facts


def validate_training_set(config: ModelConfig, version: int, *, run_key: str) -> dict[str, Any]:
    """Validate one version of a model's training set. Facts and errors are those of `validate_days`."""
    frames = training_inputs(config, version)
    # the version number is of one table: the evaluation compares the table's id with that of its training set
    table = config.train.table
    table_facts = {"name": table, "version": version, "id": tables.table_id(tables.table(table, version))}
    validation = _validate(config, "training", f"version-{version}", frames, run_key, {"table": table_facts})
    validation.raise_if_critical()
    return validation.facts


def _validate(
    config: SourceConfig | ModelConfig,
    suite_name: str,
    subject: str,
    frames: Mapping[str, pa.Table],
    run_key: str,
    more_facts: Mapping[str, Any] | None = None,
) -> Validation:
    """Check the suite, write page and JSON to the reports store, and log each failure."""
    suite = expectations.load(suite_name, config)
    outcomes = expectations.check(suite, frames, expectations.identifying_columns(config))
    name = f"validation/{config.name}/{suite_name}/{subject}"
    rows = {frame_name: frame.num_rows for frame_name, frame in frames.items()}
    validation = Validation(suite, subject, rows, outcomes, f"{name}.html")
    page = validation_page(config.name, suite, subject, rows, outcomes, run_key)
    stores.reports().write(validation.report, page, "text/html; charset=utf-8")
    result = {
        "source" if isinstance(config, SourceConfig) else "model": config.name,
        "suite": suite.name,
        "of": subject,
        "run_key": run_key,
        "passed": not validation.critical,
        "rows": rows,
        "outcomes": [
            {**o.expectation.model_dump(), "passed": o.passed, "observed": o.observed, "examples": o.examples}
            for o in outcomes
        ],
        **(more_facts or {}),
    }
    stores.reports().write(f"{name}.json", json.dumps(result, indent=1, default=str).encode(), "application/json")
    for outcome in validation.failed:
        log.warning("%s: %s", outcome.expectation.severity, outcome.sentence)
    return validation


def _hold_day(source: SourceConfig, day: date, *, fingerprint: str, reasons: list[str], run_key: str) -> None:
    """Hold a day until its files change. Without a fingerprint a change could not be seen, so the day is not held."""
    if fingerprint:
        held = held_days.Held()
        held[day] += reasons
        held_days.write(source.name, held, [day], {day: fingerprint}, run_key)


def _record_validated_days(source: SourceConfig, days: Sequence[date], silver_rows: pa.Table, *, run_key: str) -> None:
    """Record in the journal which content of these days has passed, so that the later nodes may use it."""
    counts = cleaning.count_per_day(silver_rows)
    version = tables.table(INGESTED_DAYS).version()
    ingested = read_ingested_days(source.name, version)
    entries = [
        built_days.BuiltDay(
            node=source.table,
            day=day,
            run_key=run_key,
            inputs=ingested[day].content,
            version=version,
            rows=counts[day],
        )
        for day in sorted(set(days) & ingested.keys())
    ]
    if entries:
        built_days.write(entries)
