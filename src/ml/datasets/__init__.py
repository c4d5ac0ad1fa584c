"""Purchases for demos, tests and benches: CDNOW, Online Retail and a simulated shop, a table of rows per day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ml.datasets.contract import CONTRACT, Source, SourceError

__all__ = ["CONTRACT", "SOURCES", "Source", "SourceError", "open_source"]


def _cdnow() -> Source:
    from ml.datasets.cdnow import Cdnow

    return Cdnow()


def _shop(**settings: object) -> Source:
    from ml.datasets.shop import Shop

    return Shop(**settings)  # type: ignore[arg-type]


SOURCES: Mapping[str, Callable[..., Source]] = {"cdnow": _cdnow, "shop": _shop}


def open_source(name: str, **settings: float | None) -> Source:
    """The source called `name`, or the Online Retail table at that path.

    `settings` (size, drift, seed) are the simulator's; None means the default. Raises SourceError for an unknown
    source, for settings that the source does not have, and for a file of another shape.
    """
    chosen = {key: value for key, value in settings.items() if value is not None}
    if name != "shop" and chosen:
        raise SourceError(f"source {name!r} has no {', '.join(chosen)}: only the simulator, 'shop', has settings")
    if name in SOURCES:
        return SOURCES[name](**chosen)
    if Path(name).is_file():
        from ml.datasets.online_retail import OnlineRetail

        return OnlineRetail(Path(name))
    known = ", ".join(sorted(SOURCES))
    raise SourceError(f"no source {name!r}: there are {known}, or give the path of an Online Retail parquet file")
