"""The same training again: is the registered version what its recorded inputs give, tree for tree?

An auditor's question, a year later. The training set is read at the recorded Delta version (`--from-sources`: made
again from the recorded version of its source, and compared row by row with what was learnt from), fitted with the
recorded configuration, and held against the registered model. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ml.config import ModelConfig, load_model
from ml.errors import StageError

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet

RECORDED = "config.json"
SHOWN = 3  # differing rows that are told


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to make again")
    parser.add_argument("--from-sources", action="store_true", help="the training set, too, from what it was made from")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: version, same (bool), training_set_version, rows, sources, commit (recorded, and of now), seconds.

    Raises StageError telling what differs, or what is no longer there to make it from.
    """
    from ml.models.predictors import LightGBMPredictor
    from ml.registry import model_versions
    from ml.train import fit
    from ml.train.dataset import read

    started = time.monotonic()
    version = model_versions.version(load_model(args.model).model, args.version)
    config = recorded_config(version)
    registered = model_versions.load(version)
    if not isinstance(registered, LightGBMPredictor):
        raise StageError(
            f"{version} was made by {version.tags.get('algorithm', 'AutoML')} in a search that a clock ended: it is kept "
            f"({version.tags.get('automl_job', 'its job is not recorded')}), its scores can be made again, the search cannot"
        )
    rows = read(config, int(version.tags["training_set_version"]))
    if args.from_sources:
        rows = replace(rows, train=_from_source(config, rows))
    again = LightGBMPredictor("the model made again", rows.features, _reread(fit.fit(config, rows)))
    differing = _differences(registered, again, rows)
    now = os.environ.get("ML_COMMIT", "unknown")
    if differing:
        raise StageError(
            f"{version} is not what its inputs give: {'; '.join(differing)}. It was trained by commit "
            f"{version.tags.get('commit', 'unknown')}; this is {now}: another LightGBM or other code makes other trees"
        )
    return {
        "version": version.number,
        "same": True,
        "training_set_version": rows.version,
        "rows": rows.train.num_rows,
        "sources": rows.sources,
        "from_sources": args.from_sources,
        "commit": {"recorded": version.tags.get("commit", "unknown"), "now": now},
        "seconds": round(time.monotonic() - started, 2),
    }


def recorded_config(version: Version) -> ModelConfig:
    """The configuration that a version was trained with. Raises StageError when this code reads it no longer."""
    from ml.registry import model_versions

    try:
        return ModelConfig.model_validate_json(model_versions.artifact(version, RECORDED))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise StageError(
            f"{version}: its {RECORDED} is not of this code's form ({told}): check out commit "
            f"{version.tags.get('commit', 'unknown')} and ask there"
        ) from error


def _reread(booster: Any) -> Any:
    """As it would come out of the registry: written as text and read."""
    from ml.models.lightgbm import lightgbm_library

    return lightgbm_library().Booster(model_str=booster.model_to_string())


def _differences(registered: Any, again: Any, rows: TrainingSet) -> list[str]:
    """What is not the same; empty when the trees are, and every score to the bit."""
    if registered.features != again.features:
        return [
            f"it takes {[f.name for f in registered.features]}, and the inputs give {[f.name for f in again.features]}"
        ]
    told = []
    if registered.booster.model_to_string() != again.booster.model_to_string():
        told.append("other trees")
    for name, part in (("training", rows.train), ("test", rows.test)):
        moved = int((registered.predict(part) != again.predict(part)).sum())
        if moved:
            told.append(f"{moved} of {part.num_rows} {name} rows are scored otherwise")
    return told


def _from_source(config: ModelConfig, rows: TrainingSet) -> pa.Table:
    """The training part made from its source anew; must be what was learnt from, row for row."""
    import pyarrow.compute as pc

    from ml.features.source import short_name
    from ml.models.frames import VERSION_SUFFIX
    from ml.train.training_set import rows_as_of

    if config.label.export is not None:
        raise StageError("labels of people were joined: the training set is kept, its export may have moved on")
    source = rows.sources.get(f"{short_name(config.features.source)}{VERSION_SUFFIX}", "")
    if not source.isdigit():
        raise StageError(f"the training set names {rows.sources}: one version of {config.features.source} is needed")
    days = sorted(pc.unique(rows.train["as_of"]).to_pylist())
    made = rows_as_of(config, days, int(source))
    kept = [*(feature.name for feature in rows.features), config.features.key, "as_of", config.label.name]
    before, after = (table.select(kept).combine_chunks() for table in (rows.train, made))
    if before.num_rows != after.num_rows:
        raise StageError(
            f"{before.num_rows} rows were learnt from, and version {source} of the source gives {after.num_rows}"
        )
    for name in kept:
        was, now = before[name], after[name].cast(before[name].type)
        if was.combine_chunks().equals(now.combine_chunks()):
            continue
        pairs = [(a, b) for a, b in zip(was.to_pylist(), now.to_pylist(), strict=True) if a != b][:SHOWN]
        if pairs:
            raise StageError(
                f"{name} was learnt as {json.dumps([a for a, _ in pairs], default=str)} where the source gives "
                f"{json.dumps([b for _, b in pairs], default=str)}"
            )
    return rows.train
