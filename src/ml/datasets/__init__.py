"""Where the purchases of demos, tests and benches come from, all in one shape: a table of rows per day.

`CONTRACT` is the shape, the same that upstream lands: text where upstream may be wrong about it, numbers
where it is about numbers. Dirt is kept: cleaning it is what the loop has to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Protocol

import pyarrow as pa

CONTRACT = pa.schema(
    [
        pa.field("transaction_id", pa.string()),
        pa.field("customer_id", pa.string()),
        pa.field("occurred_at", pa.string()),  # ISO; without an offset it is the business's own time
        pa.field("product_id", pa.string()),
        pa.field("category", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("country", pa.string()),
        pa.field("quantity", pa.float64()),  # negative: a return
        pa.field("unit_price", pa.float64()),
        pa.field("amount", pa.float64()),  # of the line; its sign follows the quantity
    ]
)


class Source(Protocol):
    """Purchases by day. The same source gives the same rows in the same order, whenever it is asked."""

    name: str

    def days(self) -> list[date]:
        """The days that may have rows, oldest first."""

    def rows(self, day: date) -> pa.Table:
        """The rows of a day in the columns of `CONTRACT`; no rows when nothing happened."""


class SourceError(ValueError):
    """A source that cannot be opened; the message says what was found and what there is."""


def _cdnow() -> Source:
    from ml.datasets.cdnow import Cdnow

    return Cdnow()


def _shop(**settings: object) -> Source:
    from ml.datasets.shop import Shop

    return Shop(**settings)  # type: ignore[arg-type]


SOURCES: Mapping[str, Callable[..., Source]] = {"cdnow": _cdnow, "shop": _shop}


def open_source(name: str, **settings: float | None) -> Source:
    """The source called `name`, or the Online Retail table at that path.

    `settings` (size, drift, seed) are the simulator's; those that are None are not given. Raises
    SourceError for an unknown source, for settings it does not have and for a file of another shape.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if name != "shop" and given:
        raise SourceError(f"source {name!r} has no {', '.join(given)}: only the simulator, 'shop', can be set")
    if name in SOURCES:
        return SOURCES[name](**given)
    if Path(name).is_file():
        from ml.datasets.online_retail import OnlineRetail

        return OnlineRetail(Path(name))
    known = ", ".join(sorted(SOURCES))
    raise SourceError(f"no source {name!r}: there are {known}, or give the path of an Online Retail parquet file")
