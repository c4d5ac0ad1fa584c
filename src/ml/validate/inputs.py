"""Reads the frames that each suite of expectations checks, by frame name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from ml.config import ModelConfig, SourceConfig, load_project_of
from ml.errors import StageError
from ml.ingest import bronze, cleaning
from ml.landing.listing import list_landing
from ml.ops import ingested_days
from ml.storage import stores, tables
from ml.validate import leaks


def arrival_inputs(source: SourceConfig, days: Sequence[date]) -> dict[str, pa.Table]:
    """`rows`: a source's bronze rows as text; `files`: the landed files they come from.

    Raises StageError when nothing is landed for these days.
    """
    landed = [(day.day, blob) for day in list_landing(source.name, days).days for blob in day.files]
    if not landed:
        span = f"{days[0]}..{days[-1]}" if len(days) > 1 else str(days[0])
        raise StageError(f"nothing is landed in {source.name}/ for {span}")
    with TemporaryDirectory(prefix="ml-validate-") as folder:
        files = bronze.read(source, stores.lake(), landed, Path(folder))
        rows = bronze.join_rows(source, files)
    for name in source.columns:
        rows = rows.set_column(rows.schema.get_field_index(name), name, cleaning.trim(rows[name]))
    schema = pa.schema(
        {"name": pa.string(), "received": pa.int64(), "problem": pa.string(), "extra_columns": pa.string()}
    )
    file_rows = [
        {
            "name": file.name,
            "received": None if file.problem else file.received,
            "problem": file.problem,
            "extra_columns": ", ".join(file.extra) or None,
        }
        for file in files
    ]
    return {"rows": rows, "files": pa.Table.from_pylist(file_rows, schema)}


def silver_inputs(source: SourceConfig, days: Sequence[date]) -> dict[str, pa.Table]:
    """`rows`: a source's silver rows, with the day they `occurred_on` in its zone, if it has a `time`; `days`: row counts.

    Raises StageError when nothing was ingested yet.
    """
    where = pc.field("day").isin(pa.array(days, pa.date32()))
    try:
        rows = tables.read(source.table, where=where)
        quarantined = cleaning.count_per_day(tables.read(source.quarantine, columns=["day"], where=where))
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'ingest' builds it)") from error
    marks = {mark["day"]: mark for mark in ingested_days.read_rows(source.name, days)}
    if source.time is not None:
        local = rows[source.time].cast(pa.timestamp("us", source.timezone))
        rows = rows.append_column("occurred_on", pc.local_timestamp(local).cast(pa.date32(), safe=False))
    silver = cleaning.count_per_day(rows)
    accounts = []
    for day in sorted({*silver, *quarantined, *marks}):
        mark = marks.get(day, {})
        account = {name: mark.get(name) for name in ("received", "silver", "quarantined", "duplicates")}
        accounted = sum(account[name] or 0 for name in ("silver", "quarantined", "duplicates"))
        accounts.append(
            {"day": day, **account, "unaccounted": (account["received"] or 0) - accounted}
            | {"silver_rows": silver[day], "quarantine_rows": quarantined[day]}
        )
    names = ("received", "silver", "quarantined", "duplicates", "unaccounted", "silver_rows", "quarantine_rows")
    schema = pa.schema({"day": pa.date32()} | dict.fromkeys(names, pa.int64()))
    return {"rows": rows, "days": pa.Table.from_pylist(accounts, schema)}


def training_inputs(config: ModelConfig, version: int) -> dict[str, pa.Table]:
    """`rows`: the training set; `features`: one row per feature with the findings of `ml.validate.leaks`.

    Columns that are added to the rows: `learnt_until`, when a training label was known; `tested_from`, the first test
    cut-off; `split_and_label`. Raises StageError when there is no training set.
    """
    try:
        rows = tables.read(config.train.table, version=version)
    except FileNotFoundError as error:
        raise StageError(f"{error} (the stage 'training_set' builds it)") from error
    findings = leaks.find_leaks(config, load_project_of(config), rows)
    label = pc.cast(rows[config.label.name], pa.string())
    training = pc.equal(rows["split"], "train")
    horizon = timedelta(days=config.label.horizon_days or 0)
    known_at = pc.add(rows["as_of"].cast(pa.timestamp("us")), pa.scalar(horizon, pa.duration("us")))
    if config.examples is not None and config.examples.split.by == "key":  # the test rows are of the same days
        training = pa.repeat(False, rows.num_rows)
    first_test = pc.min(rows.filter(pc.equal(rows["split"], "test"))["as_of"]).cast(pa.timestamp("us"))
    rows = rows.append_column("split_and_label", pc.binary_join_element_wise(rows["split"], label, " "))
    rows = rows.append_column("learnt_until", pc.if_else(training, known_at, None))
    rows = rows.append_column("tested_from", pa.repeat(first_test, rows.num_rows))
    return {"rows": rows, "features": findings}
