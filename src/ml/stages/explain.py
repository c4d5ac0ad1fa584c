"""Explains a customer's probability, by the champion or a named version: SHAP contributions, in words and numbers."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model
from ml.console import parse_day
from ml.errors import StageError
from ml.evaluate import explanations
from ml.models.frames import read_day
from ml.registry import model_versions, production
from ml.score.bands import band_codes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--customer", required=True, help="the customer's key, as in the feature table")
    parser.add_argument("--day", type=parse_day, required=True, help="as-of day of the features")
    parser.add_argument("--version", help="registered version (default: the one in production)")
    parser.add_argument("--top", type=int, default=5, help="number of features to show (default: 5)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: version, feature_table_version, probability, band, reasons (feature, value, contribution), told (in words)."""
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
    key = config.features.key
    rows, table_version = read_day(config.features.table, key, args.day, predictor.features)
    customer = rows.filter(pc.equal(rows[key].cast(pa.string()), args.customer))
    if customer.num_rows != 1:
        raise StageError(
            f"{config.features.table} version {table_version} has no active {key} {args.customer!r} as of {args.day}"
        )
    scores = predictor.predict(customer)
    (reasons,) = explanations.top_reasons(predictor, customer, max(1, args.top), background=rows)
    return {
        "version": version.number,
        "feature_table_version": table_version,
        "probability": round(float(scores[0]), 6),
        "band": config.score.bands[band_codes(scores, config.score.bands)[0]].name,
        "reasons": reasons,
        "told": [explanations.in_words(reason) for reason in reasons],
    }
