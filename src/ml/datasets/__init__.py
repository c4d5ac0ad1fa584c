"""Data for demos, tests and benches: CDNOW, Online Retail and a simulated shop, a table of rows per source and day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ml.datasets.contract import COLUMNS, PRODUCTS, TRANSACTIONS, DataSet, DataSetError

__all__ = ["COLUMNS", "DATA_SETS", "PRODUCTS", "TRANSACTIONS", "DataSet", "DataSetError", "open_data_set"]


def _cdnow() -> DataSet:
    from ml.datasets.cdnow import Cdnow

    return Cdnow()


def _shop(**settings: object) -> DataSet:
    from ml.datasets.shop import Shop

    return Shop(**settings)  # type: ignore[arg-type]


DATA_SETS: Mapping[str, Callable[..., DataSet]] = {"cdnow": _cdnow, "shop": _shop}


def open_data_set(name: str, **settings: float | None) -> DataSet:
    """The data set called `name`, or the Online Retail table at that path.

    `settings` (size, drift, seed) are the simulator's; None means the default. Raises DataSetError for an unknown
    name, for settings that the data set does not have, and for a file of another shape.
    """
    chosen = {key: value for key, value in settings.items() if value is not None}
    if name != "shop" and chosen:
        raise DataSetError(f"data set {name!r} has no {', '.join(chosen)}: only the simulator, 'shop', has settings")
    if name in DATA_SETS:
        return DATA_SETS[name](**chosen)
    if Path(name).is_file():
        from ml.datasets.online_retail import OnlineRetail

        return OnlineRetail(Path(name))
    known = ", ".join(sorted(DATA_SETS))
    raise DataSetError(f"no data set {name!r}: there are {known}, or give the path of an Online Retail parquet file")
