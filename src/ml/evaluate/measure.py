"""Measures a version on the out-of-time rows of a training set, and the champion on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError
from ml.evaluate.evaluation import evaluation

if TYPE_CHECKING:
    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet


def measure_version(
    config: ModelConfig, rows: TrainingSet, predictor: Any, facts: Mapping[str, Any], champion: Version | None
) -> dict[str, Any]:
    """The evaluation of one model on the test rows, next to the champion when there is one: all that the gate asks for.

    `predictor` is a model in memory; `facts` (version or run key, table version, …) are kept with the result. A
    champion that cannot score these rows is told in `problems`.
    """
    import numpy as np

    from ml.evaluate import behaviour, cohorts, evidence, explanations, fairness
    from ml.registry import model_versions

    test = rows.test
    y = test[config.label.name].to_numpy().astype(float)
    groups = test[config.features.key].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.intp)
    as_of = sorted({day.isoformat() for day in test["as_of"].to_pylist()})
    test_from = as_of[0] if as_of else None
    learnt = evidence.learnt_through(config, rows, champion)
    old, problems = None, evidence.hindsight(learnt, test_from, champion)
    if champion is not None:
        try:
            old = model_versions.load(champion).predict(test)
        except StageError as error:
            old = np.full(len(y), np.nan)
            problems.insert(0, f"champion {champion.number} could not score the test rows: {error}")
    p = predictor.predict(test)
    seed = config.train.seed
    found = evaluation(y, p, old, groups, config.evaluate, seed)
    names = {feature.name for feature in predictor.features}
    usable = bool(len(y)) and bool(np.isfinite(p).all())
    wrong = (p >= config.evaluate.threshold) != (y == 1)
    more = {
        "validation": evidence.validation(config, rows.version, rows.train.num_rows + test.num_rows),
        "schema": evidence.schema(config, predictor.features),
        "groups": fairness.by_groups(test, y, p, config.evaluate),
        "behaviour": behaviour.behaviours(test, predictor.predict, p, names, config.evaluate),
        "cohorts": cohorts.error_cohorts(test, predictor.features, wrong, groups, seed) if usable else [],
        "explanations": explanations.summary(predictor, test, seed) if usable else None,
        "cost": evidence.cost(predictor, test),
    }
    return {
        **facts,
        **found,
        **more,
        "model": config.model,
        "champion": champion.number if champion else None,
        "test_as_of": as_of,
        "test_from": test_from,
        "learnt_through": learnt,
        "problems": problems + found["problems"] + _unmeasured(more),
    }


def _unmeasured(more: Mapping[str, Any]) -> list[str]:
    """Sentences for what stands beside the metrics."""
    told = [f"data validation: {why}"] if (why := more["validation"].get("problem")) else []
    told += [f"input schema: {why}" for why in more["schema"]["problems"]]
    told += [f"groups by {name}: {why}" for name, part in more["groups"].items() if (why := part.get("problem"))]
    told += [f"behaviour {name}: {why}" for name, part in more["behaviour"].items() if (why := part.get("problem"))]
    return told
