"""Explains a row's probability, by the champion or a named version: SHAP contributions, in words and numbers."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model, load_project_of
from ml.console import parse_day
from ml.errors import StageError
from ml.evaluate import explanations
from ml.features.rows import model_rows
from ml.registry import model_versions, pins, production
from ml.score.bands import band_codes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", required=True, help="the row's key: a value of the model's entity")
    parser.add_argument("--day", type=parse_day, required=True, help="the day of the row")
    parser.add_argument("--version", help="registered version (default: the one in production)")
    parser.add_argument("--top", type=int, default=5, help="number of features to show (default: 5)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: version, sources, probability, band, reasons (feature, value, contribution), told (in words)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    config = load_model(args.model)
    version = (
        model_versions.get_version(config.model, args.version)
        if args.version
        else production.get_champion(config.model)
    )
    if version is None:
        raise StageError(f"no version of {config.model} is in production: name one with --version")
    predictor = model_versions.load(version)
    pinned = pins.pins_of_version(config, version, predictor.features)
    read = model_rows(config, load_project_of(config), args.day, pins=pinned, features=predictor.features)
    row = read.rows.filter(pc.equal(read.rows[config.entity].cast(pa.string()), args.key))
    if row.num_rows != 1:
        tables = ", ".join(f"{name} version {number}" for name, number in read.versions.items())
        raise StageError(f"{config.entity} {args.key!r} is not among the rows that are scored on {args.day} ({tables})")
    scores = predictor.predict(row)
    (reasons,) = explanations.top_reasons(predictor, row, max(1, args.top), background=read.rows)
    return {
        "version": version.number,
        "sources": dict(read.versions),
        "probability": round(float(scores[0]), 6),
        "band": config.score.bands[band_codes(scores, config.score.bands)[0]].name,
        "reasons": reasons,
        "told": [explanations.in_words(reason) for reason in reasons],
    }
