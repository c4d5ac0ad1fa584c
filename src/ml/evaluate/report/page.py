"""The report page of one evaluated model: metrics with intervals, comparison with the champion, and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ml.config import ModelConfig
from ml.evaluate import record
from ml.evaluate.report import plots, sections
from ml.pages import notes, page, table, tiles

LOWER_IS_BETTER = ("log_loss", "ece")
NAMES = {
    "roc_auc": ("ROC AUC", "probability that a random positive ranks above a random negative"),
    "average_precision": ("Average precision", "area under the precision-recall curve"),
    "accuracy": ("Accuracy", "share of correct predictions"),
    "precision": ("Precision", "share of actual positives among predicted positives"),
    "recall": ("Recall", "share of actual positives that are predicted"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "log_loss": ("Log loss", "lower is better"),
    "ece": ("Calibration error (ECE)", "mean gap between predicted and observed; lower is better"),
}


def _value(metric: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    if metric is None or metric["value"] is None:
        return '<span class="bad">not measured</span>'
    sign = "+" if signed else ""
    text = f"{metric['value']:{sign}.3f}"
    if metric["low"] is not None:
        text += f'<br><span class="soft small">{metric["low"]:{sign}.3f} to {metric["high"]:{sign}.3f}</span>'
    return text


def _difference(name: str, metric: Mapping[str, float | None]) -> str:
    """Coloured only when the interval excludes zero: a difference that may be chance is not shown as gain or loss."""
    low, high = metric["low"], metric["high"]
    if low is None or high is None or low <= 0 <= high:
        return _value(metric, signed=True)
    better = (low > 0) != (name in LOWER_IS_BETTER)
    return f'<span class="{"good" if better else "bad"}">{_value(metric, signed=True)}</span>'


def _metric_table(evaluation: Mapping[str, Any]) -> str:
    metrics, champion = evaluation["metrics"], evaluation["champion"]
    head = ["metric", "challenger"] + ([f"champion (version {champion})", "difference"] if champion else [])
    rows = []
    for name, (title, meaning) in NAMES.items():
        row = [f'{title}<br><span class="soft small">{meaning}</span>', _value(metrics["challenger"][name])]
        if champion:
            row += [_value(metrics["champion"][name]), _difference(name, metrics["difference"][name])]
        rows.append(row)
    return table(head, rows)


def _confusion_matrix(evaluation: Mapping[str, Any], label: str) -> str:
    cells = evaluation["confusion"]
    if cells is None:
        return ""
    total = evaluation["rows"] or 1

    def cell(name: str, *, correct: bool) -> str:
        number = f'<b class="{"good" if correct else "bad"}">{cells[name]:,}</b>'
        return f'{number} <span class="soft small">{cells[name] / total:.0%}</span>'

    return table(
        [f"threshold {cells['threshold']:g}", f"predicted: {label}", f"predicted: not {label}"],
        [
            [f"actual: {label}", cell("true_positive", correct=True), cell("false_negative", correct=False)],
            [f"actual: not {label}", cell("false_positive", correct=False), cell("true_negative", correct=True)],
        ],
    )


def _calibration(evaluation: Mapping[str, Any]) -> str:
    """Calibration in words, and as slope and intercept of the calibration line."""
    line = (evaluation.get("calibration") or {}).get("challenger")
    if line is None:
        return ""
    slope, intercept = (_value(line[name]).replace("<br>", " ") for name in ("slope", "intercept"))
    return (
        f"<p>Calibration: {escape(line['statement'])}. Slope {slope}, intercept {intercept}; perfect calibration has "
        "slope 1 and intercept 0.</p>"
    )


def _label(config: ModelConfig) -> str:
    """What was learnt: the query and its horizon, or the column of the examples."""
    label = config.label
    if label.query is None:
        table = config.examples.table if config.examples else config.train.table
        return f"{label.name}: a column of {table}"
    return f"{label.name}: include/sql/{label.query}.sql, within {label.horizon_days} days after the cut-off"


def model_page(config: ModelConfig, evaluation: Mapping[str, Any]) -> bytes:
    """One self-contained HTML page of an evaluation (the content of `evaluation.json`)."""
    metrics = evaluation["metrics"]["challenger"]

    def tile(name: str) -> tuple[str, str, str]:
        value, low, high = (metrics[name][part] for part in ("value", "low", "high"))
        interval = "no interval" if low is None else f"95 %: {low:.3f} to {high:.3f}"
        return NAMES[name][0], "not measured" if value is None else f"{value:.3f}", interval

    rows, positives = evaluation["rows"], evaluation["positives"]
    share = f"{positives / rows:.0%} {config.label.name}" if rows else "no test rows"
    explanations = evaluation.get("explanations")
    beeswarm = plots.beeswarm(explanations) if explanations and explanations["features"] else ""
    provenance = {
        "run key": evaluation["run_key"],
        "code commit": evaluation["commit"],
        "training set": f"{evaluation['training_set_version']} (Delta version), {evaluation['rows_train']:,} training rows",
        "test": record.test_in_words(evaluation),
        "label": _label(config),
        "intervals": f"95 %, {config.evaluate.bootstrap} bootstrap resamples of {config.entity}, the same for both models",
        **dict(sections.evidence(evaluation)),
        "parameters": ", ".join(f"{key} {value}" for key, value in evaluation["params"].items()),
    }
    provenance_rows = [
        [escape(name), f'<div style="text-align:left">{escape(value)}</div>'] for name, value in provenance.items()
    ]
    return page(
        f"{config.model}: evaluation of {evaluation['run_key']}",
        config.description,
        [
            notes(evaluation["problems"]),
            tiles([tile("roc_auc"), tile("average_precision"), tile("ece"), ("Test rows", f"{rows:,}", share)]),
            sections.gate(config, evaluation),
            f"<h2>Metrics</h2><section>{_metric_table(evaluation)}</section>",
            f"<h2>Curves and calibration</h2><section>{plots.curves(evaluation)}{_calibration(evaluation)}</section>",
            sections.feature_attribution(evaluation, beeswarm),
            f"<h2>Confusion matrix</h2><section>{_confusion_matrix(evaluation, config.label.name)}</section>",
            sections.error_cohorts(config, evaluation),
            sections.fairness(config, evaluation),
            sections.behavioural_tests(config, evaluation),
            "<h2>Provenance</h2><section>",
            table(["", ""], provenance_rows),
            "</section>",
        ],
    )
