"""Training set: what was known of active customers at past cut-offs, and what they did afterwards.

A label at cut-off c says whether the customer bought in (c, c + horizon]; it is matured when that span is
over. With data through day D the newest cut-off is D - horizon, and the newest `test_cutoffs` are the
test set: out of time, because a training cut-off's labels end where the oldest test cut-off begins.

    train c ...... c ........ c|--- horizon ---|test c0|--- horizon ---|D
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import TYPE_CHECKING, Any

from ml.config import load_model
from ml.console import parse_day
from ml.engine import open_engine
from ml.features.build import build
from ml.features.source import short_name
from ml.ops import built_days
from ml.storage import tables
from ml.train.training_set import apply_human_labels, cutoffs, require_data_through, require_enough_rows, with_labels

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--through", type=parse_day, required=True, help="the last complete day")
    parser.add_argument("--run-key", required=True, help="what this run is for; it stands in the log")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compute features at every cut-off, join matured labels and replace the whole training set.

    Columns: those of the feature table for active customers, the label (0 or 1), split ('train' or
    'test') and the versions of the two tables it was made from. Facts: version, through, rows and share of
    the label per split, cut-offs, source table versions, days without data, seconds.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    start = time.monotonic()
    model = load_model(args.model)
    first, missing = require_data_through(model, args.through)
    chosen = cutoffs(model, first, args.through)
    source = model.features.source
    source_version = tables.table(source).version()
    engine = open_engine()
    # days that went through the loop keep their partitions: the journal says what those were made from
    with tables.hold(model.features.table, f"training_set, run key {args.run_key}") as lease:
        built = build(
            engine, model, chosen.all, source_version, lease, leave=built_days.newest(model.model)["features"]
        )
    rows = with_labels(engine, model, built.rows, args.through, source_version)
    labelled = apply_human_labels(model, rows) if model.label.export else None
    rows = labelled.rows if labelled else rows
    test = pc.is_in(rows["as_of"], pa.array(chosen.test, pa.date32()))
    rows = rows.append_column("split", pc.if_else(test, "test", "train"))
    rows = rows.append_column(f"{short_name(source)}_version", pa.repeat(source_version, rows.num_rows))
    rows = rows.append_column("features_version", pa.repeat(built.version, rows.num_rows))
    if labelled:
        rows = rows.append_column("label_export_version", pa.repeat(labelled.digest, rows.num_rows))
    splits = {split: rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test")}
    require_enough_rows(model, chosen, splits)
    facts = {
        "version": tables.replace(model.train.table, rows, "as_of IS NOT NULL", partition_by=["as_of"]),
        "through": args.through.isoformat(),
        "rows": {split: part.num_rows for split, part in splits.items()},
        f"{model.label.name}_share": {
            split: round(pc.mean(part[model.label.name]).as_py(), 4) for split, part in splits.items()
        },
        "train_cutoffs": [day.isoformat() for day in chosen.train],
        "test_cutoffs": [day.isoformat() for day in chosen.test],
        "sources": {source: source_version, model.features.table: built.version},
        "days_without_data": missing,
        **(labelled.facts if labelled else {}),
        "seconds": round(time.monotonic() - start, 3),
    }
    log.info("%s: %s", args.run_key, facts)
    return facts
