"""The page of one evaluated model: how good, against whom, how sure, made from what."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import Any

from ml.config import Model
from ml.pages import BLUE, GREY, INK, bar, notes, page, table, tiles

TOP_FEATURES = 20
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


def _plots(found: Mapping[str, Any]) -> str:
    """ROC, precision-recall and calibration as one inline SVG; the same bytes for the same evaluation."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "ml", "font.family": "sans-serif", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e9edf1", "axes.titlesize": 10,
    }  # fmt: skip
    curves, rows, positives = found["curves"], found["rows"], found["positives"]
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        roc, recall, calibration = figure.subplots(1, 3)
        for who, color, label, order in (
            ("champion", GREY, f"champion {found['champion']}", 2), ("challenger", BLUE, "this model", 3),
        ):  # fmt: skip
            drawn = curves.get(who)
            if drawn is None:
                continue
            if drawn["roc"]:
                roc.plot(*zip(*drawn["roc"], strict=True), color=color, label=label, zorder=order)
                recall.plot(*zip(*drawn["precision_recall"], strict=True), color=color, label=label, zorder=order)
            if drawn["calibration"]:
                points = [(part["predicted"], part["observed"]) for part in drawn["calibration"]]
                calibration.plot(*zip(*points, strict=True), "o-", color=color, label=label, markersize=4, zorder=order)
        for axes in (roc, calibration):
            axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=0.8, zorder=1)
        if rows:
            recall.axhline(positives / rows, linestyle="--", color=INK, linewidth=0.8, zorder=1)
        for axes, title, x, y in (
            (roc, "ROC", "false positive rate", "true positive rate"),
            (recall, "Precision and recall", "recall", "precision"),
            (calibration, "Calibration", "predicted probability", "observed share"),
        ):
            axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axes.set_aspect("equal")
        if roc.get_legend_handles_labels()[0]:
            roc.legend(loc="lower right", frameon=False)
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
    text = drawing.getvalue()
    legend = "<p class='soft small'>Dashed: no knowledge, or perfect calibration. Test rows only.</p>"
    return text[text.index("<svg") :] + legend


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


def model_page(config: Model, found: Mapping[str, Any]) -> bytes:
    """One self-contained HTML page of an evaluation (see `ml.evaluate`)."""
    own = found["metrics"]["challenger"]

    def tile(name: str) -> tuple[str, str, str]:
        value, low, high = (own[name][part] for part in ("value", "low", "high"))
        between = "no interval" if low is None else f"95 %: {low:.3f} to {high:.3f}"
        return NAMES[name][0], "not measured" if value is None else f"{value:.3f}", between

    rows, positives = found["rows"], found["positives"]
    share = f"{positives / rows:.0%} {config.label.name}" if rows else "nothing to test on"
    gains = [entry for entry in found["importance"][:TOP_FEATURES] if entry["gain"] > 0]
    widest = max((entry["gain"] for entry in gains), default=0) or 1
    bars = "".join(bar(entry["feature"], entry["gain"] / widest, f"{entry['gain']:.1%}") for entry in gains)
    provenance = {
        "run key": found["run_key"],
        "code commit": found["commit"],
        "training set": f"{found['training_set_version']} (Delta version), {found['rows_train']:,} training rows",
        "test cut-offs": ", ".join(found["test_as_of"]) or "none",
        "label": f"{config.label.name}: no purchase within {config.label.horizon_days} days after the cut-off",
        "intervals": f"95 %, {config.evaluate.bootstrap} bootstrap resamples of customers, the same for both models",
        "parameters": ", ".join(f"{key} {value}" for key, value in found["params"].items()),
    }
    made_from = [[escape(k), f'<div style="text-align:left">{escape(v)}</div>'] for k, v in provenance.items()]
    gain_of = '<p class="soft small">Share of the total gain of all splits.</p>'
    return page(
        f"{config.model}: evaluation of {found['run_key']}",
        config.description,
        [
            notes(found["problems"]),
            tiles([tile("roc_auc"), tile("average_precision"), tile("ece"), ("Out-of-time rows", f"{rows:,}", share)]),
            f"<h2>Metrics</h2><section>{_metric_table(found)}</section>",
            f"<h2>Curves</h2><section>{_plots(found)}</section>",
            f'<div class="two"><div><h2>What it looks at</h2><section>{bars}{gain_of}</section></div>',
            f"<div><h2>Right and wrong</h2><section>{_confusion(found, config.label.name)}</section></div></div>",
            "<h2>Made from</h2><section>",
            table(["", ""], made_from),
            "</section>",
        ],
    )
