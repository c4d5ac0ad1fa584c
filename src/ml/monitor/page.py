"""The page of one day's drift: PSI of each feature, and the histograms of the reference and the day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import escape
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.pages import BLUE, GREY, bar, page, tiles

if TYPE_CHECKING:
    from ml.monitor.drift import FeatureDrift

WIDTH, HEIGHT = 300, 96  # of one histogram, in pixels
AXIS = 4  # width of the axis in thresholds: one very large PSI does not flatten the other bars

CARDS = """<style>
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px}
.cards section{padding:12px 14px}.cards h3{font-size:14px;margin:0 0 6px;display:flex;justify-content:space-between}
.key i{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px}
</style>"""


def _swatch(color: str) -> str:
    return f'<i style="background:{color}"></i>'


def _filled_bins(drift: FeatureDrift) -> list[tuple[str, float, float]]:
    """Name, reference share and share of the day, of the bins that are not empty in both."""
    bins = zip(drift.bins, drift.expected, drift.observed, strict=True)
    return [(name, reference, day) for name, reference, day in bins if reference or day]


def _histogram(drift: FeatureDrift) -> str:
    """Reference (grey) and day (blue) per bin; hovering over a bin shows its name and shares."""
    bins = _filled_bins(drift)
    top = max(*drift.expected, *drift.observed, 1e-9)
    step = WIDTH / len(bins)
    thick = min(step * 0.4, 40)
    parts = []
    for n, (name, reference, day) in enumerate(bins):
        left = (n + 0.5) * step - thick
        reference_height, day_height = reference / top * HEIGHT, day / top * HEIGHT
        parts.append(
            f"<g><title>{escape(name)}: reference {reference:.1%}, day {day:.1%}</title>"
            f'<rect x="{n * step:.1f}" y="0" width="{step:.1f}" height="{HEIGHT}" fill="transparent"/>'
            f'<rect x="{left:.1f}" y="{HEIGHT - reference_height:.1f}" width="{thick:.1f}" '
            f'height="{reference_height:.1f}" fill="{GREY}"/>'
            f'<rect x="{left + thick:.1f}" y="{HEIGHT - day_height:.1f}" width="{thick:.1f}" height="{day_height:.1f}"'
            f' fill="{BLUE}"/></g>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 1}" width="{WIDTH}" height="{HEIGHT + 1}" role="img">'
        f'{"".join(parts)}<line x1="0" y1="{HEIGHT + 0.5}" x2="{WIDTH}" y2="{HEIGHT + 0.5}" stroke="{GREY}"/></svg>'
    )


def _axis_ends(drift: FeatureDrift) -> str:
    """The names of the first and the last filled bins, below the histogram."""
    names = [name for name, _, _ in _filled_bins(drift)]
    left, right = names[0], names[-1]
    return (
        '<div class="soft small" style="display:flex;justify-content:space-between">'
        f"<span>{escape(left)}</span><span>{escape(right) if right != left else ''}</span></div>"
    )


def drift_page(
    config: ModelConfig,
    day: date,
    drifts: Sequence[FeatureDrift],
    *,
    share: float,
    overall: bool,
    version: str,
    rows: int,
    reference_rows: int,
) -> bytes:
    """One self-contained HTML page of a day's drift (`ml.monitor.drift.compare`).

    `share` is the share of drifted features, `overall` whether it is above the allowed one.
    """
    allowed, limit = config.monitor.drifted_share, config.monitor.psi_threshold
    drifted = sum(drift.drifted for drift in drifts)
    widest = AXIS * limit
    bars = "".join(
        bar(drift.feature, drift.psi / widest, f"{drift.psi:.3f}", over=drift.drifted, mark=limit / widest)
        for drift in drifts
    )
    cards = "".join(
        f'<section><h3><span>{escape(drift.feature)}</span><span class="{"bad" if drift.drifted else "soft"}">'
        f"PSI {drift.psi:.3f}</span></h3>{_histogram(drift)}{_axis_ends(drift)}</section>"
        for drift in drifts
    )
    scale = (
        f"The line marks the threshold, {limit:g}; the axis ends at {widest:g}. On few rows the PSI must also exceed "
        "what chance gives."
    )
    key = f"{_swatch(GREY)}training reference {_swatch(BLUE)}this day, as shares of their rows in the bins of the reference"
    verdict = "drift detected" if overall else "no drift detected"
    return page(
        f"{config.model}: drift on {day}",
        f"The features of {day}, compared with those that version {version}, which scores the day, was trained on.",
        [
            CARDS,
            tiles(
                [
                    ("Overall", verdict, f"detected when over {allowed:.0%} of features drifted"),
                    ("Drifted features", f"{drifted} of {len(drifts)}", f"{share:.0%}; PSI above {limit:g}"),
                    ("Rows of the day", f"{rows:,}", f"{reference_rows:,} in the training reference"),
                ]
            ),
            f'<h2>Population stability index (PSI)</h2><section>{bars}<p class="soft small">{scale}</p></section>',
            f'<h2>Histograms</h2><p class="soft small key">{key}</p>',
            f'<div class="cards">{cards}</div>',
        ],
    )
