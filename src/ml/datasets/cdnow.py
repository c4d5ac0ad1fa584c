"""CDNOW: every purchase of 23,570 customers who first bought online CDs in early 1997, to June 1998.

69,659 purchases as `customer, yyyymmdd, number of CDs, dollars`. The file is inside the wheel of
`lifetimes` and is read from there, never imported. Source: Fader and Hardie (2001), "Forecasting
repeat sales at CDNOW".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import cached_property
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pyarrow as pa

from ml.datasets.contract import COLUMNS, TRANSACTIONS, DataSetError, require_source

FILE = "lifetimes/datasets/CDNOW_master.txt"


class Cdnow:
    """Purchases without transaction ids, so that its 255 exact duplicates stay exact duplicates.

    It does not say which CDs were bought, so it has no products. The prefix `cdnow-` keeps its customer numbers apart
    from those of other data sets in the same lake.
    """

    name = "cdnow"

    @cached_property
    def _lines(self) -> dict[date, list[tuple[str, float, float]]]:
        """By day: customer, number of CDs, dollars; in the file's order."""
        lines_by_day: dict[date, list[tuple[str, float, float]]] = {}
        with _path().open(encoding="ascii") as lines:
            next(lines)  # the header
            for customer, day, cds, dollars in map(str.split, lines):
                lines_by_day.setdefault(date.fromisoformat(day), []).append(
                    (f"cdnow-{customer}", float(cds), float(dollars))
                )
        return dict(sorted(lines_by_day.items()))

    def sources(self) -> tuple[str, ...]:
        return (TRANSACTIONS,)

    def days(self, source: str) -> list[date]:
        require_source(self, source)
        return list(self._lines)

    def rows(self, source: str, day: date) -> pa.Table:
        require_source(self, source)
        lines = self._lines.get(day, [])
        customers, cds, dollars = zip(*lines, strict=True) if lines else ((), (), ())
        columns = {
            "customer_id": customers,
            "occurred_at": [f"{day.isoformat()}T00:00:00"] * len(lines),  # the file has the day only
            "channel": ["online"] * len(lines),  # CDNOW had no stores
            "quantity": cds,
            "amount": dollars,
        }
        schema = COLUMNS[source]
        return pa.table({name: columns.get(name, [None] * len(lines)) for name in schema.names}, schema=schema)


def _path() -> Path:
    try:
        paths: Iterator[Path] = (Path(str(f.locate())) for f in files("lifetimes") or () if f.as_posix() == FILE)
        return next(paths)
    except (PackageNotFoundError, StopIteration) as error:
        raise DataSetError(f"{FILE} is not installed: install the extra 'local', which has lifetimes 0.11.3") from error
