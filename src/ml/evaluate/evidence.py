"""The evidence of an evaluation beside its metrics: validated data, the right columns, no hindsight, cost."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.models.frames import feature_columns
from ml.storage import stores, tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet

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


def compare_schema(config: ModelConfig, features: tuple[Any, ...]) -> dict[str, Any]:
    """Whether the model's input columns are exactly the feature columns that the table has now, each of the same kind."""
    table = config.features.table
    try:
        opened = tables.table(table)
    except FileNotFoundError as error:
        return {"equal": None, "problems": [str(error)], "table": table, "table_version": None}
    columns = feature_columns(tables.scan(opened).schema, config.label.name, config.features.key)
    in_table = {feature.name: feature.kind for feature in columns}
    in_model = {feature.name: feature.kind for feature in features}
    problems = [
        f"the model takes {name}, which {table} does not have" for name in sorted(in_model.keys() - in_table.keys())
    ]
    problems += [
        f"{table} has {name}, which the model does not take" for name in sorted(in_table.keys() - in_model.keys())
    ]
    problems += [
        f"{name} is a {in_table[name]} in {table}, and the model takes it as a {in_model[name]}"
        for name in sorted(in_model.keys() & in_table.keys())
        if in_model[name] != in_table[name]
    ]
    return {"equal": not problems, "problems": problems, "table": table, "table_version": opened.version()}


def learnt_through(config: ModelConfig, training_set: TrainingSet, champion: Version | None) -> dict[str, str | None]:
    """Per model, the last day that its training labels depend on (ISO); None when it is unknown."""
    horizon = timedelta(days=config.label.horizon_days)
    days: dict[str, str | None] = {
        "challenger": (training_set.trained_through + horizon).isoformat() if training_set.train.num_rows else None
    }
    if champion is not None:
        try:
            days["champion"] = (date.fromisoformat(champion.tags["trained_through"]) + horizon).isoformat()
        except (KeyError, ValueError):
            days["champion"] = None
    return days


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
