"""The plots of a model's report page: inline SVG, the same bytes for the same evaluation."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ml.pages import BLUE, GREY, INK

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "ml", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e9edf1", "axes.titlesize": 10,
}  # fmt: skip
BINS = 60  # across the beeswarm's width; dots in the same bin are stacked
RASTER = 110  # dots per inch; the 4,000 dots are embedded as an image, since as SVG shapes they would take 0.5 MB


def _svg(figure: Any) -> str:
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", dpi=RASTER, metadata={"Date": None, "Creator": None})
    text = drawing.getvalue()
    return text[text.index("<svg") :]


def curves(evaluation: Mapping[str, Any]) -> str:
    """ROC, precision-recall and calibration curves as one inline SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    points, rows, positives = evaluation["curves"], evaluation["rows"], evaluation["positives"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        roc, recall, calibration = figure.subplots(1, 3)
        for who, color, label, order in (
            ("champion", GREY, f"champion {evaluation['champion']}", 2), ("challenger", BLUE, "challenger", 3),
        ):  # fmt: skip
            curve = points.get(who)
            if curve is None:
                continue
            if curve["roc"]:
                roc.plot(*zip(*curve["roc"], strict=True), color=color, label=label, zorder=order)
                recall.plot(*zip(*curve["precision_recall"], strict=True), color=color, label=label, zorder=order)
            if curve["calibration"]:
                bins = [(part["predicted"], part["observed"]) for part in curve["calibration"]]
                calibration.plot(*zip(*bins, strict=True), "o-", color=color, label=label, markersize=4, zorder=order)
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
        drawing = _svg(figure)
    legend = "<p class='soft small'>Dashed: a model without information, or perfect calibration. Test rows only.</p>"
    return drawing + legend


def beeswarm(explanations: Mapping[str, Any]) -> str:
    """SHAP's summary plot: one row per feature, one dot per row; x is the contribution, colour the value."""
    import matplotlib
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    features = explanations["features"]
    colours = LinearSegmentedColormap.from_list("low-high", [BLUE, "#c9ccd1", "#d1495b"])
    colours.set_bad(GREY)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 0.6 + 0.3 * max(1, len(features))), layout="constrained")
        axes = figure.subplots()
        for place, feature in enumerate(reversed(features)):
            x = np.array(feature["contributions"].split(), dtype=float)
            value = np.array([np.nan if text == "-" else float(text) for text in feature["values"].split()])
            axes.scatter(
                x, place + _stack_offsets(x), c=np.ma.masked_invalid(value), cmap=colours, vmin=0, vmax=1, s=9,
                linewidths=0, plotnonfinite=True, rasterized=True, zorder=3,
            )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8, zorder=2)
        axes.set_yticks(range(len(features)), [feature["feature"] for feature in reversed(features)])
        axes.set(xlabel="contribution to the log-odds", ylim=(-0.7, len(features) - 0.3))
        return _svg(figure)


def _stack_offsets(x: Any) -> Any:
    """The vertical offset of each dot from its row, so that dots in the same bin do not hide each other."""
    import numpy as np

    if not len(x):
        return x
    width = float(np.ptp(x)) or 1.0
    bins = np.floor((x - x.min()) / width * BINS).astype(int)
    nth = np.zeros(len(x))
    counts: dict[int, int] = {}
    for place, number in enumerate(bins):
        nth[place] = counts.get(number, 0)
        counts[number] = int(nth[place]) + 1
    most = max(counts.values())
    # offsets 0, 1, -1, 2, -2, … scaled to at most 0.4 of a row
    return np.where(nth % 2 == 1, (nth + 1) / 2, -nth / 2) * (0.8 / max(most, 8))
