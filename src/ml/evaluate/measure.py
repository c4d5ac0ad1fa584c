"""Measures a model on the test rows of a training set, and the champion on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError
from ml.evaluate import behaviour, champion_rows, cohorts, evaluation, evidence, explanations, fairness
from ml.registry import model_versions, pins

if TYPE_CHECKING:
    from ml.registry.model_versions import Version
    from ml.train.dataset import TrainingSet


def measure_version(
    config: ModelConfig,
    training_set: TrainingSet,
    predictor: Any,
    facts: Mapping[str, Any],
    champion: Version | None,
) -> dict[str, Any]:
    """The content of `evaluation.json`: everything that the gate and the report need.

    `predictor` is a model in memory; `facts` (run key, training set version, …) are added to the result. A champion
    that cannot score these rows is named in `problems`.
    """
    import numpy as np

    test = training_set.test
    y = test[config.label.name].to_numpy().astype(float)
    entities = test[config.entity].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.intp)
    as_of = sorted({day.isoformat() for day in test["as_of"].to_pylist()})
    test_from = as_of[0] if as_of else None
    split = evidence.split_of(config)
    learnt = evidence.learnt_through(config, training_set, champion)
    shared = evidence.count_shared_entities(config, training_set, champion) if split == "key" else None
    champion_p, problems = None, evidence.hindsight_problems(learnt, test_from, champion) if shared is None else []
    if champion is not None:
        try:
            rows = champion_rows.read_champion_rows(config, training_set, pins.read_pins(champion))
            champion_p = model_versions.load(champion).predict(rows)
        except StageError as error:
            champion_p = np.full(len(y), np.nan)
            problems.insert(0, f"champion {champion.number} could not score the test rows: {error}")
    p = predictor.predict(test)
    seed = config.train.seed
    metrics = evaluation.evaluate(y, p, champion_p, entities, config.evaluate, seed)
    names = {feature.name for feature in predictor.features}
    usable = bool(len(y)) and bool(np.isfinite(p).all())
    wrong = (p >= config.evaluate.threshold) != (y == 1)
    row_count = training_set.train.num_rows + test.num_rows
    more = {
        "validation": evidence.read_validation(config, training_set.version, row_count),
        "schema": evidence.compare_schema(config, predictor.features),
        "groups": fairness.measure_groups(test, y, p, config.evaluate),
        "behaviour": behaviour.measure_behaviours(test, predictor.predict, p, names, config.evaluate),
        "cohorts": cohorts.error_cohorts(test, predictor.features, wrong, entities, seed) if usable else [],
        "explanations": explanations.summarise(predictor, test, seed) if usable else None,
        "cost": evidence.measure_cost(predictor, test),
    }
    return {
        **facts,
        **metrics,
        **more,
        "model": config.model,
        "champion": champion.number if champion else None,
        "split": split,
        "test_as_of": as_of,
        "test_from": test_from,
        "learnt_through": learnt,
        "shared_entities": shared,
        "problems": problems + metrics["problems"] + _other_problems(more),
    }


def _other_problems(more: Mapping[str, Any]) -> list[str]:
    """A sentence for each part beside the metrics that was not measured."""
    problem = more["validation"].get("problem")
    problems = [f"data validation: {problem}"] if problem else []
    problems += [f"input schema: {problem}" for problem in more["schema"]["problems"]]
    for title, parts in (("groups by", more["groups"]), ("behavioural test", more["behaviour"])):
        problems += [f"{title} {name}: {part['problem']}" for name, part in parts.items() if part.get("problem")]
    return problems
