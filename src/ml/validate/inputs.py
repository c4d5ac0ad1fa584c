"""The rows that each suite of expectations looks at."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from ml.config import ModelConfig
from ml.errors import StageError
from ml.ingest import bronze, cleaning
from ml.ingest.tables import QUARANTINE, SILVER
from ml.landing.listing import landed_days
from ml.ops.ingested_days import INGESTED_DAYS
from ml.storage import stores, tables
from ml.validate import leaks

log = logging.getLogger(__name__)


def arrival_inputs(model: ModelConfig, days: Sequence[date]) -> dict[str, pa.Table]:
    """Bronze rows as text, and the landed files that they are from."""
    table = model.landing.table
    folder = f"{table}/{days[0]}/" if len(days) == 1 else f"{table}/"
    listing = landed_days(stores.landing().list(folder), table)
    landed = [(day.day, blob) for day in listing.days if day.day in set(days) for blob in day.files]
    if not landed:
        raise StageError(f"nothing is landed in {table}/ for {days[0]}" + (f"..{days[-1]}" if len(days) > 1 else ""))
    with TemporaryDirectory(prefix="ml-validate-") as folder:
        files = bronze.read(stores.lake(), landed, Path(folder))
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


def silver_inputs(model: ModelConfig, days: Sequence[date]) -> dict[str, pa.Table]:
    """Silver rows, with the day they were `occurred_on` in the model's zone, and each day's account."""
    where = pc.field("day").isin(pa.array(days, pa.date32()))
    try:
        rows = tables.read(SILVER, where=where)
        quarantined = cleaning.per_day(tables.read(QUARANTINE, columns=["day"], where=where))
        marks = {mark["day"]: mark for mark in tables.read(INGESTED_DAYS, where=where).to_pylist()}
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


def training_inputs(model: ModelConfig, version: int) -> dict[str, pa.Table]:
    """The training set, and what `ml.validate.leaks` says of each feature.

    `learnt_until` is when a training label was known, `tested_from` the first test cut-off.
    """
    try:
        rows = tables.read(model.train.table, version=version)
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
