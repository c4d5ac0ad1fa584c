"""What the page of a model draws: inline SVG, the same bytes for the same evaluation."""

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
BINS = 60  # of the swarm's width: dots closer than that are stacked
RASTER = 110  # dots per inch of what is drawn as an image: four thousand dots as shapes would be half a megabyte


def _svg(figure: Any) -> str:
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", dpi=RASTER, metadata={"Date": None, "Creator": None})
    text = drawing.getvalue()
    return text[text.index("<svg") :]


def curves(found: Mapping[str, Any]) -> str:
    """ROC, precision-recall and calibration as one inline SVG; the same bytes for the same evaluation."""
    import matplotlib
    from matplotlib.figure import Figure

    found_curves, rows, positives = found["curves"], found["rows"], found["positives"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        roc, recall, calibration = figure.subplots(1, 3)
        for who, color, label, order in (
            ("champion", GREY, f"champion {found['champion']}", 2), ("challenger", BLUE, "this model", 3),
        ):  # fmt: skip
            drawn = found_curves.get(who)
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
        drawing = _svg(figure)
    legend = "<p class='soft small'>Dashed: no knowledge, or perfect calibration. Test rows only.</p>"
    return drawing + legend


def swarm(explanations: Mapping[str, Any]) -> str:
    """SHAP's summary: one row per feature, one dot per customer; right raises the probability, colour is the value."""
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
                x, place + _stacked(x), c=np.ma.masked_invalid(value), cmap=colours, vmin=0, vmax=1, s=9,
                linewidths=0, plotnonfinite=True, rasterized=True, zorder=3,
            )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8, zorder=2)
        axes.set_yticks(range(len(features)), [feature["feature"] for feature in reversed(features)])
        axes.set(xlabel="contribution to the log-odds", ylim=(-0.7, len(features) - 0.3))
        return _svg(figure)


def _stacked(x: Any) -> Any:
    """How far above or below its row each dot goes, so that dots of one place do not hide each other."""
    import numpy as np

    if not len(x):
        return x
    wide = float(np.ptp(x)) or 1.0
    which = np.floor((x - x.min()) / wide * BINS).astype(int)
    nth = np.zeros(len(x))
    seen: dict[int, int] = {}
    for place, number in enumerate(which):
        nth[place] = seen.get(number, 0)
        seen[number] = int(nth[place]) + 1
    most = max(seen.values())
    # 0, 1, -1, 2, -2, ... within four tenths of a row
    return np.where(nth % 2 == 1, (nth + 1) / 2, -nth / 2) * (0.8 / max(most, 8))
