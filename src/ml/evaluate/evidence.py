"""The evidence of an evaluation beside its metrics: validated data, the right columns, no hindsight, cost."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.features.rows import pins_of
from ml.models.frames import Feature, kind_of
from ml.storage import stores, tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet

log = logging.getLogger(__name__)

TIMED_ROWS, REPEATS = 1000, 5


def read_validation(config: ModelConfig, version: int, rows: int) -> dict[str, Any]:
    """The result of the stage 'validate' for exactly this version of the training set, which has `rows` rows.

    The report names the table by its id and counts its rows: after a table was deleted and created again, version 3 is
    another one. A report that is missing, or of another table, has not passed; `problem` says why.
    """
    name = f"validation/{config.model}/training/version-{version}.json"
    result: dict[str, Any] = {"passed": None, "training_set_version": version, "report": None, "digest": None}
    try:
        content = stores.reports().read(name)
    except FileNotFoundError:
        return result | {"problem": f"{name} is not in the reports: run the stage 'validate' for this training set"}
    try:
        report = json.loads(content)
        table, validated_rows = report["table"], report["rows"]["rows"]
        passed, checks = report["passed"], report["outcomes"]
        validated = table["version"], table["id"]
    except (ValueError, KeyError, TypeError) as error:
        return result | {"problem": f"{name} is not a validation report ({type(error).__name__}: {error})"}
    result |= {"report": name.removesuffix(".json") + ".html", "digest": hashlib.sha256(content).hexdigest()[:16]}
    if validated != (version, tables.table_id(tables.table(config.train.table, version))):
        return result | {"problem": f"{name} is of another table {config.train.table}, which was created again since"}
    if validated_rows != rows:
        return result | {"problem": f"{name} is of {validated_rows} rows, but version {version} has {rows}"}
    if not checks:
        return result | {"problem": f"{name} lists no checked expectation"}
    return result | {"passed": passed is True}


def compare_schema(config: ModelConfig, features: Sequence[Feature]) -> dict[str, Any]:
    """Whether the model's input columns are exactly the columns that the config pins, each of the kind that its table has.

    `tables` has the version of each table that was compared.
    """
    versions: dict[str, int] = {}
    in_tables: dict[str, tuple[str, str]] = {}  # kind and table, by column
    problems = []
    for name, columns in pins_of(config).features.items():
        table = name if "." in name else f"features.{name}"
        try:
            opened = tables.table(table)
        except FileNotFoundError as error:
            return {"equal": None, "problems": [str(error)], "tables": versions}
        versions[table] = opened.version()
        schema = tables.scan(opened).schema
        for column in columns:
            if column in schema.names:
                in_tables[column] = (kind_of(column, schema.field(column).type), table)
            else:
                problems.append(f"{table} does not have {column}")
    pinned, in_model = config.feature_names, {feature.name: feature.kind for feature in features}
    where = f"config/models/{config.model}.yaml"
    problems += [
        f"the model takes {name}, which {where} does not name" for name in sorted(in_model.keys() - set(pinned))
    ]
    problems += [f"{where} names {name}, which the model does not take" for name in pinned if name not in in_model]
    problems += [
        f"{name} is a {kind} in {table}, and the model takes it as a {in_model[name]}"
        for name, (kind, table) in in_tables.items()
        if name in in_model and in_model[name] != kind
    ]
    return {"equal": not problems, "problems": problems, "tables": versions}


def split_of(config: ModelConfig) -> str:
    """What the test rows differ in from the training rows: `cut-off`, or the `day` or `key` of examples."""
    return "cut-off" if config.examples is None else config.examples.split.by


def learnt_through(config: ModelConfig, training_set: TrainingSet, champion: Version | None) -> dict[str, str | None]:
    """Per model, the last day that its training labels depend on (ISO); None when it is unknown.

    The label of an example is of its own day.
    """
    horizon = timedelta(days=config.label.horizon_days or 0)
    days: dict[str, str | None] = {
        "challenger": (training_set.trained_through + horizon).isoformat() if training_set.train.num_rows else None
    }
    if champion is not None:
        try:
            days["champion"] = (date.fromisoformat(champion.tags["trained_through"]) + horizon).isoformat()
        except (KeyError, ValueError):
            days["champion"] = None
    return days


def count_shared_entities(
    config: ModelConfig, training_set: TrainingSet, champion: Version | None
) -> dict[str, int | None]:
    """Per model, how many entities of the test it was trained on: none may be, when a test is split by key.

    None when it is unknown: the champion's training set no longer exists.
    """
    import pyarrow.compute as pc
    from deltalake.exceptions import DeltaError

    tested = pc.unique(training_set.test[config.entity])

    def count(trained: pa.ChunkedArray) -> int:
        known = pc.is_in(tested, value_set=pc.unique(trained).cast(tested.type))
        return int(pc.sum(known).as_py() or 0)

    shared: dict[str, int | None] = {"challenger": count(training_set.train[config.entity])}
    if champion is not None:
        try:
            number = int(champion.tags["training_set_version"])
            rows = tables.read(config.train.table, version=number, columns=[config.entity, "split"])
            shared["champion"] = count(rows.filter(pc.equal(rows["split"], "train"))[config.entity])
        except (DeltaError, OSError, KeyError, ValueError) as error:  # removed, or not recorded
            log.warning("champion %s: its training set cannot be read: %s", champion.number, error)
            shared["champion"] = None
    return shared


def hindsight_problems(learnt: Mapping[str, str | None], test_from: str | None, champion: Version | None) -> list[str]:
    """A sentence when the champion was trained on labels from the test period, or when that is unknown."""
    if champion is None or test_from is None:
        return []
    known = learnt["champion"]
    if known is None:
        return [f"champion {champion.number} does not record its training labels: they may include the test period"]
    if known <= test_from:
        return []
    period = f"labels up to {known}, after the test starts on {test_from}"
    return [f"champion {champion.number} was trained on {period}: the comparison favours it"]


def measure_cost(predictor: Any, rows: pa.Table) -> dict[str, float | int | None]:
    """Milliseconds to score 1,000 rows, and bytes of the model.

    The fastest of five repeats counts, so that other load on the machine is not measured.
    """
    import numpy as np

    fastest = None
    if rows.num_rows:
        sample = rows.take(np.arange(TIMED_ROWS) % rows.num_rows)
        predictor.predict(sample)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            predictor.predict(sample)
            times.append(time.perf_counter() - started)
        fastest = round(min(times) * 1000, 3)
    return {"ms_per_1000_rows": fastest, "model_bytes": _model_bytes(predictor)}


def _model_bytes(predictor: Any) -> int | None:
    booster, content = getattr(predictor, "booster", None), getattr(predictor, "content", None)
    if booster is not None:
        return len(booster.model_to_string().encode())
    return len(content) if content is not None else None
