"""What an evaluation must be able to show beside its metrics: valid data, the right columns, nobody's hindsight, cost."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.storage.tables import table_id

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet

TIMED_ROWS, TIMES = 1000, 5


def validation(config: ModelConfig, version: int, rows: int) -> dict[str, Any]:
    """What the stage 'validate' has said of exactly this version of the training set.

    Its record names the table by its id and counts the rows: of a table that was deleted and made anew, version 3
    is another one. Whatever is not there, or not of this table, has not passed; `problem` says why.
    """
    from ml.storage import stores, tables

    name = f"validation/{config.model}/training/version-{version}.json"
    found: dict[str, Any] = {"passed": None, "training_set_version": version, "report": None, "digest": None}
    try:
        content = stores.reports().read(name)
    except FileNotFoundError:
        return found | {"problem": f"{name} is not in the reports: run the stage 'validate' of it"}
    try:
        outcome = json.loads(content)
        table, validated = outcome["table"], outcome["rows"]["rows"]
        passed, checks = outcome["passed"], outcome["outcomes"]
        of, identity = table["version"], table["id"]
    except (ValueError, KeyError, TypeError) as error:
        return found | {"problem": f"{name} is no outcome of a validation ({type(error).__name__}: {error})"}
    found |= {"report": name.removesuffix(".json") + ".html", "digest": hashlib.sha256(content).hexdigest()[:16]}
    if (of, identity) != (version, table_id(tables.table(config.train.table, version))):
        return found | {"problem": f"{name} is of another table {config.train.table}, which has since been made anew"}
    if validated != rows:
        return found | {"problem": f"{name} is of {validated} rows, and version {version} has {rows}"}
    if not checks:
        return found | {"problem": f"{name} tells of no expectation that was checked"}
    return found | {"passed": passed is True}


def schema(config: ModelConfig, features: tuple[Any, ...]) -> dict[str, Any]:
    """Whether the model takes exactly the feature columns that the feature table has now, each of the same kind."""
    from ml.models.frames import feature_columns
    from ml.storage import tables

    table = config.features.table
    try:
        opened = tables.table(table)
    except FileNotFoundError as error:
        return {"equal": None, "problems": [str(error)], "table": table, "table_version": None}
    columns = feature_columns(tables.scan(opened).schema, config.label.name, config.features.key)
    there = {feature.name: feature.kind for feature in columns}
    taken = {feature.name: feature.kind for feature in features}
    problems = [f"the model takes {name}, which {table} does not have" for name in sorted(taken.keys() - there.keys())]
    problems += [f"{table} has {name}, which the model does not take" for name in sorted(there.keys() - taken.keys())]
    problems += [
        f"{name} is a {there[name]} in {table}, and the model takes it as a {taken[name]}"
        for name in sorted(taken.keys() & there.keys())
        if taken[name] != there[name]
    ]
    return {"equal": not problems, "problems": problems, "table": table, "table_version": opened.version()}


def learnt_through(config: ModelConfig, rows: TrainingSet, champion: Version | None) -> dict[str, str | None]:
    """The last day that either model's training labels know of; None when that is not known."""
    horizon = timedelta(days=config.label.horizon_days)
    found: dict[str, str | None] = {
        "challenger": (rows.trained_through + horizon).isoformat() if rows.train.num_rows else None
    }
    if champion is not None:
        try:
            found["champion"] = (date.fromisoformat(champion.tags["trained_through"]) + horizon).isoformat()
        except (KeyError, ValueError):
            found["champion"] = None
    return found


def hindsight(learnt: Mapping[str, str | None], test_from: str | None, champion: Version | None) -> list[str]:
    """A sentence when the champion learnt from labels that reach past the first test day, or nobody knows."""
    if champion is None or test_from is None:
        return []
    known = learnt["champion"]
    if known is None:
        return [f"champion {champion.number} does not tell what it learnt from: it may have seen the test period"]
    if known <= test_from:
        return []
    why = f"learnt from labels up to {known}, the test starts at {test_from}: the comparison favours it"
    return [f"champion {champion.number} {why}"]


def cost(predictor: Any, rows: pa.Table) -> dict[str, float | int | None]:
    """Milliseconds to score 1,000 rows, and bytes of the model.

    The fastest of five times counts: what else the machine was busy with is not the model's fault.
    """
    import numpy as np

    taken = None
    if rows.num_rows:
        some = rows.take(np.arange(TIMED_ROWS) % rows.num_rows)
        predictor.predict(some)
        times = []
        for _ in range(TIMES):
            started = time.perf_counter()
            predictor.predict(some)
            times.append(time.perf_counter() - started)
        taken = round(min(times) * 1000, 3)
    return {"ms_per_1000_rows": taken, "model_bytes": _size(predictor)}


def _size(predictor: Any) -> int | None:
    booster, content = getattr(predictor, "booster", None), getattr(predictor, "content", None)
    if booster is not None:
        return len(booster.model_to_string().encode())
    return len(content) if content is not None else None
