"""Builds a training set: what was known of a population at past cut-offs, and what became of it; or labelled examples.

Every cut-off is computed privately, from one version of each table in silver; no feature table is written. The table of
training sets is replaced whole, with its columns: an earlier set is an earlier version of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, Project
from ml.engine import open_engine
from ml.errors import StageError
from ml.features.inputs import INPUTS, pin_versions
from ml.features.rows import examples_until
from ml.storage import tables
from ml.train.cutoffs import Cutoffs, choose_cutoffs, optional_tables, require_data_through
from ml.train.dataset import LABEL_EXPORT
from ml.train.examples import require_labels, split_examples
from ml.train.labels import apply_human_labels, labelled_rows

if TYPE_CHECKING:
    import pyarrow as pa


def build_training_set(config: ModelConfig, project: Project, *, through: date, run_key: str) -> dict[str, Any]:
    """Build the training set from data of the days up to `through` and replace the table.

    Columns: entity, as_of, the features in the model's order, the label (0 or 1), split ('train' or 'test'), `_inputs`
    (JSON text: the version of each table in silver) and, with a labelling export, `_label_export` (its digest). Facts:
    version, through, rows and share of the label per split, sources (table versions), days without data per table,
    cut-offs; of examples instead of cut-offs the test days, and how many rows have no label yet. Raises StageError when
    data is missing, or too little.
    """
    history = require_data_through(config, project, through)
    built = (
        _from_examples(config, project, through)
        if config.examples
        else _from_cutoffs(config, project, history.first, through)
    )
    rows, versions, facts = built
    rows = rows.append_column(INPUTS, _repeated(json.dumps(dict(versions)), rows.num_rows))
    if "_export" in facts:
        rows = rows.append_column(LABEL_EXPORT, _repeated(facts.pop("_export"), rows.num_rows))
    splits = {split: rows.filter(_is(rows, split)) for split in ("train", "test")}
    _require_enough_rows(config, splits, facts)
    note = {"stage": "training_set", "run_key": run_key, "days": str(through)}
    version = tables.replace_all(config.train.table, rows, partition_by=["as_of"], note=note)
    label = config.label.name
    return {
        "version": version,
        "through": through.isoformat(),
        "rows": {split: part.num_rows for split, part in splits.items()},
        f"{label}_share": {split: _share(part[label]) for split, part in splits.items()},
        "sources": dict(versions),
        "days_without_data": history.without_data,
        **facts,
    }


Built = tuple["pa.Table", Mapping[str, int], dict[str, Any]]  # rows with their split, table versions, facts


def _from_cutoffs(config: ModelConfig, project: Project, first: date, through: date) -> Built:
    import pyarrow as pa
    import pyarrow.compute as pc

    cutoffs = choose_cutoffs(config, first, through)
    versions = pin_versions(project, input_tables(config, project), optional_tables(config, project))
    rows = rows_of_cutoffs(config, project, cutoffs.all, versions)
    facts = _cutoff_facts(cutoffs)
    if config.label.export:
        labelled = apply_human_labels(config, rows)
        rows = labelled.rows
        facts |= {"_export": labelled.export_digest, **labelled.facts}
    is_test = pc.is_in(rows["as_of"], pa.array(cutoffs.test, pa.date32()))
    return rows.append_column("split", pc.if_else(is_test, "test", "train")), versions, facts


def _from_examples(config: ModelConfig, project: Project, through: date) -> Built:
    import pyarrow.compute as pc

    assert config.examples is not None
    versions = pin_versions(project, [config.examples.table])
    rows = examples_until(config, through, versions[config.examples.table])
    rows, without_label = require_labels(config, rows)
    rows = rows.append_column("split", split_examples(config, rows))
    test_days = sorted(pc.unique(rows.filter(_is(rows, "test"))["as_of"]).to_pylist())
    facts = {
        "split_by": config.examples.split.by,
        "test_days": [day.isoformat() for day in test_days],
        "without_label": without_label,
    }
    return rows, versions, facts


def input_tables(config: ModelConfig, project: Project) -> list[str]:
    """The tables in silver that a model's features and labels, or examples, are made from, each once."""
    if config.examples is not None:
        return [config.examples.table]
    features = [table for name in config.features for table in project.feature_tables[name].inputs]
    return list(dict.fromkeys([*features, *config.label.inputs]))


def rows_of_cutoffs(
    config: ModelConfig, project: Project, days: tuple[date, ...], versions: Mapping[str, int]
) -> pa.Table:
    """Entity, as_of, features and label of these cut-offs, sorted by as_of and entity; nothing is written."""
    import pyarrow as pa

    engine = open_engine()
    return pa.concat_tables([labelled_rows(engine, config, project, day, versions) for day in sorted(days)])


def _cutoff_facts(cutoffs: Cutoffs) -> dict[str, Any]:
    return {
        "train_cutoffs": [day.isoformat() for day in cutoffs.train],
        "test_cutoffs": [day.isoformat() for day in cutoffs.test],
    }


def _require_enough_rows(config: ModelConfig, splits: Mapping[str, pa.Table], facts: Mapping[str, Any]) -> None:
    """Raise StageError unless the training rows are `train.min_train_rows` and there are test rows."""
    at = {split: f" at the cut-offs {', '.join(facts.get(f'{split}_cutoffs', []))}" for split in splits}
    if config.examples is not None:
        at = dict.fromkeys(splits, f" of {config.examples.table}")
    if splits["train"].num_rows < config.train.min_train_rows:
        raise StageError(
            f"{splits['train'].num_rows} training rows{at['train']}, and train.min_train_rows requires "
            f"{config.train.min_train_rows}. More history gives more"
        )
    if not splits["test"].num_rows:
        raise StageError(f"no test row{at['test']}: nothing can be evaluated")


def _is(rows: pa.Table, split: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.equal(rows["split"], split)


def _share(labels: pa.ChunkedArray) -> float | None:
    import pyarrow.compute as pc

    mean = pc.mean(labels).as_py()
    return None if mean is None else round(mean, 4)


def _repeated(text: str, count: int) -> pa.Array:
    import pyarrow as pa

    return pa.repeat(pa.scalar(text, pa.string()), count)
