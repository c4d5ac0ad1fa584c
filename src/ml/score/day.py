"""Scores one day's rows with the version that the day belongs to, and replaces the day's partition.

`ml.ops.scoring_rule` says which version that is. Version, feature tables and columns are resolved once, at the start: a
champion that changes meanwhile does not mix two models in one partition. Each row carries its model version, the versions
of the tables that it was read from and its run key. The journal of built days keeps the inputs of each scoring of the
day, and why it was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, Project, load_project_of
from ml.days.node_inputs import Inputs, current_inputs
from ml.engine import EMPTY_DIGEST, open_engine
from ml.errors import StageError
from ml.features.rows import model_rows
from ml.graph import score_id
from ml.ops import built_days
from ml.ops.built_days import BuiltDay
from ml.ops.scoring_rule import Scorer, read_scorers
from ml.registry import model_versions, pins, production
from ml.registry.production import NO_CHAMPION
from ml.score.bands import band_codes
from ml.storage import tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ml.models.predictors import Predictor
    from ml.storage.leases import Lease

CONTENT = ("score_date", "score", "band", "model_version")  # with the entity: what a reader of the scores sees


def score_day(config: ModelConfig, *, day: date, run_key: str, lease: Lease) -> dict[str, Any]:
    """Facts: rows, by_band, model_version, sources, gold_version, because; or skipped.

    It is skipped without a champion. While versions of a feature table are built side by side, each of them starts the day:
    it is skipped when the ones that this version reads have not come yet, and when they have been scored already.
    Raises StageError when the day's rows cannot be used, when the version that the day belongs to cannot be loaded, or
    when a score is not a probability.
    """
    import numpy as np

    node = score_id(config.model)
    scorers = read_scorers(config.model)
    scorer = scorers.of(day)
    scorings = scorers.scorings.get(day, ())
    last = scorings[-1] if scorings else None
    # the journal is read first: features that are written from now on make these scores stale instead of being missed
    project = load_project_of(config)
    inputs = current_inputs(project, node, day, pinned=scorer.entry.tables if scorer is not None else None)
    if scorer is None:
        built_days.write([_journal_entry(node, day, run_key, inputs, last)])
        return {"skipped": NO_CHAMPION.format(model=config.model, do="score")}
    recipe = _recipe(config)
    if _starts_more_than_once(config, project):
        if inputs.missing:
            return {"skipped": f"{day} is scored when {', '.join(inputs.missing)} has it"}
        if last is not None and last.run_key != run_key and _is_scored(config, scorer, last, inputs, recipe):
            by = f"version {scorer.entry.version} from the same rows (run key {last.run_key})"
            return {"skipped": f"{day} is scored already by {by}"}
    predictor = load_predictor(scorer, day)
    pinned = pins.pins_of_entry(config, scorer.entry, predictor.features)
    read = model_rows(config, project, day, pins=pinned, features=predictor.features)
    rows, sources = read.rows, read.versions
    scores = _predict(predictor, rows, day)
    version = scorer.entry.version
    codes = band_codes(scores, config.score.bands)
    names = [band.name for band in config.score.bands]
    table = _build_table(config.entity, rows, day, scores, names, codes, version, sources, run_key)
    lease.check()
    gold_version = tables.replace(
        config.score.table,
        table,
        tables.day_predicate("score_date", [day]),
        partition_by=["score_date"],
        note={"stage": "score", "run_key": run_key, "days": str(day), "model_version": version},
        may_lack=True,
    )
    entry = _journal_entry(
        node,
        day,
        run_key,
        inputs,
        last,
        version=gold_version,
        rows=rows.num_rows,
        content=open_engine().digest(table.select([config.entity, *CONTENT]), "score_date").get(day, EMPTY_DIGEST),
        scorer=scorer,
        sources=sources,
        recipe=recipe,
    )
    lease.check()
    built_days.write([entry])
    counts = np.bincount(codes, minlength=len(names))
    return {
        "rows": rows.num_rows,
        "by_band": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "model_version": version,
        "sources": dict(sources),
        "gold_version": gold_version,
        "because": "; ".join(entry.because),
    }


def _recipe(config: ModelConfig) -> str:
    """A digest of 16 hex digits that changes with the settings that reach the scores."""
    return hashlib.sha256(config.score.model_dump_json(include={"bands"}).encode()).hexdigest()[:16]


def _starts_more_than_once(config: ModelConfig, project: Project) -> bool:
    """Are there several versions of a feature table that the model reads? The Dag then starts on any of them."""
    families = {project.feature_tables[name].family for name in config.features}
    versions = [table for table in project.feature_tables.values() if table.family in families]
    return len(versions) > len(families)


def _is_scored(config: ModelConfig, scorer: Scorer, last: BuiltDay, inputs: Inputs, recipe: str) -> bool:
    """Whether scoring the day would write what its partition holds. A request, and unknown content, are always scored."""
    import pyarrow.dataset as ds

    same = (last.model_version, last.inputs, last.recipe) == (scorer.entry.version, inputs.digest, recipe)
    if scorer.request is not None or inputs.missing or not same or not tables.exists(config.score.table):
        return False
    stored = tables.dataset(config.score.table).count_rows(filter=ds.field("score_date") == last.day)
    return bool(stored == last.rows)  # a partition that lost its rows is written again


def load_predictor(scorer: Scorer, day: date) -> Predictor:
    """The model of the version that a day belongs to, with its files checked against the digest of its promotion.

    Raises StageError, which says why it is this version, when it was deleted or its files have changed.
    """
    try:
        return model_versions.load(production.pinned_version(scorer.entry))
    except StageError as error:
        model = scorer.entry.model
        raise StageError(
            f"{day} is scored by {model} version {scorer.entry.version} ({scorer.because}), and it cannot be loaded: "
            f"{error}. Restore it, or let the champion score the day: python -m ml score --model {model} --day {day} "
            "--champion"
        ) from error


def _predict(predictor: Predictor, rows: pa.Table, day: date) -> NDArray[np.float64]:
    import numpy as np

    if not rows.num_rows:
        return np.empty(0)
    scores = predictor.predict(rows)
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise StageError(f"{predictor.name} returns scores for {day} that are not probabilities: nothing was written")
    return scores


def _build_table(
    entity: str,
    rows: pa.Table,
    day: date,
    scores: NDArray[np.float64],
    bands: Sequence[str],
    codes: NDArray[np.intp],
    version: str,
    sources: Mapping[str, int],
    run_key: str,
) -> pa.Table:
    """The day's rows of the score table. `sources`: versions of the tables read, the one that gives the rows first."""
    import pyarrow as pa

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows.num_rows)

    return pa.table(
        {
            entity: rows[entity],
            "score_date": constant(day, pa.date32()),
            "score": pa.array(scores),
            "band": pa.array(bands, pa.string()).take(pa.array(codes)),
            "model_version": constant(version, pa.string()),
            "feature_table_version": constant(next(iter(sources.values()), None), pa.int64()),
            "run_key": constant(run_key, pa.string()),
            "_inputs": constant(json.dumps(dict(sources)), pa.string()),
        }
    )


def _journal_entry(
    node: str,
    day: date,
    run_key: str,
    inputs: Inputs,
    last: BuiltDay | None,
    *,
    version: int = -1,
    rows: int = 0,
    content: str = "",
    scorer: Scorer | None = None,
    sources: Mapping[str, int] | None = None,
    recipe: str = "",
) -> BuiltDay:
    """The journal's entry of this scoring. The defaults are those of a day without a champion, and so without scores."""
    model_version = scorer.entry.version if scorer else None
    reasons = []
    if last is None:
        reasons.append("first")
    else:
        if last.inputs != inputs.digest:
            reasons += _reasons_of_inputs(day, sources or {})
        if last.model_version != model_version:
            reasons.append(f"version {model_version or 'none'} instead of {last.model_version or 'none'}")
    if scorer is not None:
        reasons = [*(reasons or ["requested again"]), scorer.because]
    return BuiltDay(
        node=node,
        day=day,
        run_key=run_key,
        inputs=inputs.digest,
        own=inputs.own,
        recipe=recipe,
        version=max(version, last.version if last else -1),
        rows=rows,
        content=content,
        because=tuple(reasons) or ("requested again",),
        model_version=model_version,
        sources=sources or {},
    )


def _reasons_of_inputs(day: date, sources: Mapping[str, int]) -> list[str]:
    """Why the day's rows have changed, as their feature tables recorded it."""
    built = built_days.read_newest(list(sources), day)
    reasons = [reason for table in sources if day in built[table] for reason in built[table][day].because]
    return list(dict.fromkeys(reasons)) or ["its rows have changed"]
