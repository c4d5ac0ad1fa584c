"""The page of one day's drift: which features moved, by how much, and their histograms side by side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import escape
from typing import Any

from ml.config import ModelConfig
from ml.pages import BLUE, GREY, bar, page, tiles

WIDTH, HEIGHT = 300, 96  # of one histogram, in pixels
AXIS = 4  # thresholds wide: one feature far out does not flatten the others

CARDS = """<style>
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px}
.cards section{padding:12px 14px}.cards h3{font-size:14px;margin:0 0 6px;display:flex;justify-content:space-between}
.key i{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px}
</style>"""


def _swatch(color: str) -> str:
    return f'<i style="background:{color}"></i>'


def _filled(one: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Name, reference share and share of the day, of the bins that hold anything."""
    bins = zip(one["bins"], one["expected"], one["found"], strict=True)
    return [(name, before, now) for name, before, now in bins if before or now]


def _histogram(one: dict[str, Any]) -> str:
    """Reference (grey) and day (blue) per bin; hovering a bin tells its name and shares."""
    pairs = _filled(one)
    top = max(*one["expected"], *one["found"], 1e-9)
    step = WIDTH / len(pairs)
    thick = min(step * 0.4, 40)
    parts = []
    for n, (name, before, now) in enumerate(pairs):
        left = (n + 0.5) * step - thick
        tall, taller = before / top * HEIGHT, now / top * HEIGHT
        parts.append(
            f"<g><title>{escape(name)}: reference {before:.1%}, day {now:.1%}</title>"
            f'<rect x="{n * step:.1f}" y="0" width="{step:.1f}" height="{HEIGHT}" fill="transparent"/>'
            f'<rect x="{left:.1f}" y="{HEIGHT - tall:.1f}" width="{thick:.1f}" height="{tall:.1f}" fill="{GREY}"/>'
            f'<rect x="{left + thick:.1f}" y="{HEIGHT - taller:.1f}" width="{thick:.1f}" height="{taller:.1f}"'
            f' fill="{BLUE}"/></g>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 1}" width="{WIDTH}" height="{HEIGHT + 1}" role="img">'
        f'{"".join(parts)}<line x1="0" y1="{HEIGHT + 0.5}" x2="{WIDTH}" y2="{HEIGHT + 0.5}" stroke="{GREY}"/></svg>'
    )


def _ends(one: dict[str, Any]) -> str:
    """What the first and the last filled bins are, below the histogram."""
    names = [name for name, _, _ in _filled(one)]
    left, right = names[0], names[-1]
    return (
        '<div class="soft small" style="display:flex;justify-content:space-between">'
        f"<span>{escape(left)}</span><span>{escape(right) if right != left else ''}</span></div>"
    )


def drift_page(
    config: ModelConfig,
    day: date,
    found: Sequence[dict[str, Any]],
    share: float,
    overall: bool,
    version: str,
    rows: int,
    reference_rows: int,
) -> bytes:
    """One self-contained HTML page of what `ml.monitor.day.compare` found."""
    allowed, limit = config.monitor.drifted_share, config.monitor.psi_threshold
    drifted = sum(one["drifted"] for one in found)
    widest = AXIS * limit
    bars = "".join(
        bar(one["feature"], one["psi"] / widest, f"{one['psi']:.3f}", over=one["drifted"], mark=limit / widest)
        for one in found
    )
    cards = "".join(
        f'<section><h3><span>{escape(one["feature"])}</span><span class="{"bad" if one["drifted"] else "soft"}">'
        f"PSI {one['psi']:.3f}</span></h3>{_histogram(one)}{_ends(one)}</section>"
        for one in found
    )
    scale = (
        f"The line is the threshold, {limit:g}; the axis ends at {widest:g}. On few rows, chance must be exceeded too."
    )
    key = f"{_swatch(GREY)}reference {_swatch(BLUE)}this day, in shares of its customers; the bins are the reference's"
    verdict = "drifted" if overall else "as learnt"
    return page(
        f"{config.model}: drift on {day}",
        f"The features of {day} against those that the champion, version {version}, was trained on.",
        [
            CARDS,
            tiles(
                [
                    ("The day as a whole", verdict, f"drifted when over {allowed:.0%} of features are"),
                    ("Drifted features", f"{drifted} of {len(found)}", f"{share:.0%}; PSI above {limit:g}"),
                    ("Customers of the day", f"{rows:,}", f"{reference_rows:,} in the reference"),
                ]
            ),
            f'<h2>Population stability index</h2><section>{bars}<p class="soft small">{scale}</p></section>',
            f'<h2>Histograms</h2><p class="soft small key">{key}</p>',
            f'<div class="cards">{cards}</div>',
        ],
    )
