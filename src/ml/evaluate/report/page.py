"""The page of one evaluated model: how good, against whom, how sure, made from what."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ml.config import ModelConfig
from ml.evaluate.report import plots, sections
from ml.pages import notes, page, table, tiles

LOWER_IS_BETTER = ("log_loss", "ece")
NAMES = {
    "roc_auc": ("ROC AUC", "a random churner ranks above a random stayer"),
    "average_precision": ("Average precision", "area under precision over recall"),
    "accuracy": ("Accuracy", "right answers of all"),
    "precision": ("Precision", "of those predicted to churn, how many do"),
    "recall": ("Recall", "of those who churn, how many are predicted to"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "log_loss": ("Log loss", "lower is better"),
    "ece": ("Calibration error", "mean gap of said and seen; lower is better"),
}


def _value(found: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    if found is None or found["value"] is None:
        return '<span class="bad">not measured</span>'
    sign = "+" if signed else ""
    text = f"{found['value']:{sign}.3f}"
    if found["low"] is not None:
        text += f'<br><span class="soft small">{found["low"]:{sign}.3f} to {found["high"]:{sign}.3f}</span>'
    return text


def _difference(name: str, found: Mapping[str, float | None]) -> str:
    """Coloured only when the interval excludes zero: what may be luck is not painted as gain or loss."""
    low, high = found["low"], found["high"]
    if low is None or high is None or low <= 0 <= high:
        return _value(found, signed=True)
    better = (low > 0) != (name in LOWER_IS_BETTER)
    return f'<span class="{"good" if better else "bad"}">{_value(found, signed=True)}</span>'


def _metric_table(found: Mapping[str, Any]) -> str:
    metrics, champion = found["metrics"], found["champion"]
    head = ["metric", "this model"] + ([f"champion (version {champion})", "difference"] if champion else [])
    rows = []
    for name, (title, meaning) in NAMES.items():
        row = [f'{title}<br><span class="soft small">{meaning}</span>', _value(metrics["challenger"][name])]
        if champion:
            row += [_value(metrics["champion"][name]), _difference(name, metrics["difference"][name])]
        rows.append(row)
    return table(head, rows)


def _confusion(found: Mapping[str, Any], label: str) -> str:
    cells = found["confusion"]
    if cells is None:
        return ""
    total = found["rows"] or 1

    def cell(name: str, good: bool) -> str:
        number = f'<b class="{"good" if good else "bad"}">{cells[name]:,}</b>'
        return f'{number} <span class="soft small">{cells[name] / total:.0%}</span>'

    return table(
        [f"cut at {cells['threshold']:g}", f"predicted {label}", "predicted to stay"],
        [
            [f"really {label}", cell("true_positive", True), cell("false_negative", False)],
            ["really stayed", cell("false_positive", False), cell("true_negative", True)],
        ],
    )


def _calibration(found: Mapping[str, Any]) -> str:
    """Whether probabilities mean what they say, in words and as the line's slope and intercept."""
    told = (found.get("calibration") or {}).get("challenger")
    if told is None:
        return ""
    slope, intercept = (_value(told[name]).replace("<br>", " ") for name in ("slope", "intercept"))
    return f"<p>Calibration: {escape(told['statement'])}. Slope {slope}, intercept {intercept}; 1 and 0 are exact.</p>"


def model_page(config: ModelConfig, found: Mapping[str, Any]) -> bytes:
    """One self-contained HTML page of an evaluation (see `ml.evaluate`)."""
    own = found["metrics"]["challenger"]

    def tile(name: str) -> tuple[str, str, str]:
        value, low, high = (own[name][part] for part in ("value", "low", "high"))
        between = "no interval" if low is None else f"95 %: {low:.3f} to {high:.3f}"
        return NAMES[name][0], "not measured" if value is None else f"{value:.3f}", between

    rows, positives = found["rows"], found["positives"]
    share = f"{positives / rows:.0%} {config.label.name}" if rows else "nothing to test on"
    told = found.get("explanations")
    drawn = plots.swarm(told) if told and told["features"] else ""
    provenance = {
        "run key": found["run_key"],
        "code commit": found["commit"],
        "training set": f"{found['training_set_version']} (Delta version), {found['rows_train']:,} training rows",
        "test cut-offs": ", ".join(found["test_as_of"]) or "none",
        "label": f"{config.label.name}: no purchase within {config.label.horizon_days} days after the cut-off",
        "intervals": f"95 %, {config.evaluate.bootstrap} bootstrap resamples of customers, the same for both models",
        **dict(sections.evidence(found)),
        "parameters": ", ".join(f"{key} {value}" for key, value in found["params"].items()),
    }
    made_from = [[escape(k), f'<div style="text-align:left">{escape(v)}</div>'] for k, v in provenance.items()]
    return page(
        f"{config.model}: evaluation of {found['run_key']}",
        config.description,
        [
            notes(found["problems"]),
            tiles([tile("roc_auc"), tile("average_precision"), tile("ece"), ("Out-of-time rows", f"{rows:,}", share)]),
            sections.gate(config, found),
            f"<h2>Metrics</h2><section>{_metric_table(found)}</section>",
            f"<h2>Curves</h2><section>{plots.curves(found)}{_calibration(found)}</section>",
            sections.importance(found, drawn),
            f"<h2>Right and wrong</h2><section>{_confusion(found, config.label.name)}</section>",
            sections.cohorts(found),
            sections.groups(config, found),
            sections.behaviour(config, found),
            "<h2>Made from</h2><section>",
            table(["", ""], made_from),
            "</section>",
        ],
    )
