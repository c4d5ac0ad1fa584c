"""The days that generated rows are of: around two cut-offs, at the edges of every window, month and year nearby."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

CUTOFF = date(2024, 2, 29)  # a leap day: a month's end, and a day that the year before did not have
EARLIER = date(2023, 12, 31)
CUTOFFS = (EARLIER, CUTOFF)
SNAPSHOTS = (-75, -61, -40, -10, 0, 1, 30, 400)  # days of snapshots, counted from CUTOFF
_DISTANCES = (0, 1, 2, 6, 7, 8, 13, 14, 27, 28, 29, 30, 31, 59, 60, 89, 90, 91, 180, 364, 365, 366, 400, 500, 730, 800)
MOST = 3000  # days; a larger number in a query or setting is no span of days


def fact_days(numbers: Iterable[int | float | str | bool | None]) -> list[date]:
    """Days before and after the cut-offs, in order. `numbers`, of settings and queries, may be spans of days."""
    spans = {int(n) for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n <= MOST}
    distances = {*_DISTANCES, *(near for span in spans for near in (span - 1, span, span + 1, span + 400))}
    days = {CUTOFF + timedelta(sign * distance) for distance in distances for sign in (-1, 1)}
    days |= {EARLIER - timedelta(span) for span in spans} | {EARLIER + timedelta(span) for span in spans}
    return sorted(days | {EARLIER, EARLIER + timedelta(1)})


def snapshot_days() -> list[date]:
    return [CUTOFF + timedelta(distance) for distance in SNAPSHOTS]
