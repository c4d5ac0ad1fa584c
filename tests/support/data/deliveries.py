"""A source of another business than the project's example: parcels that a courier delivers, by hub."""

from __future__ import annotations

from typing import Any

from ml.config import SourceConfig
from tests.support.resources import Resources

CLEAN = """
WITH read AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY _day, parcel_id, hub, weight ORDER BY _file, _row) AS copy,
    CASE WHEN weight RLIKE '^[0-9]+([.][0-9]+)?$' THEN try_cast(weight AS DOUBLE) END AS grams
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN parcel_id IS NULL THEN 'parcel_id'
      WHEN hub IS NULL THEN 'hub'
      WHEN coalesce(grams > :max_weight, weight IS NOT NULL) THEN 'weight'
    END AS refused_column
  FROM read
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  refused_column || ' cannot be used' AS reason,
  CASE WHEN refused_column IS NOT NULL THEN 'ask the hub' END AS remedy,
  _day AS day,
  parcel_id,
  hub AS delivered_by,
  grams,
  _file,
  _row
FROM judged
ORDER BY _id
"""
DAILY = """
SELECT
  delivered_by,
  day,
  CAST(count(*) AS BIGINT) AS parcels
FROM deliveries
GROUP BY delivered_by, day
ORDER BY delivered_by, day
"""
SETTINGS: dict[str, Any] = {
    "source": "deliveries",
    "owner": "couriers",
    "description": "Parcels, by the day of delivery.",
    "from": {"kind": "blob"},
    "kind": "facts",
    "timezone": "Asia/Tokyo",
    "due": "0 6 * * *",
    "landing": {"bulk_days": 31, "empty_file": "fail", "max_file_rows": 1000, "max_file_mb": 1},
    "columns": {"parcel_id": {"required": True}, "hub": {"required": True}, "weight": {}},
    "clean": {"query": "sources/deliveries", "settings": {"max_weight": 30000}, "max_quarantined_share": 0.5},
    "daily": {"silver.hub_days": "sources/hub_days"},
}


def put_deliveries(
    resources: Resources,
    *,
    clean: str = CLEAN,
    daily: str = DAILY,
    settings: dict[str, Any] | None = None,
    time: str | None = None,
) -> SourceConfig:
    """Add the source to the resources of a test, with other queries, settings or time column. Returns its config."""
    resources.write("sql", "sources/deliveries.sql", clean)
    resources.write("sql", "sources/hub_days.sql", daily)
    section = SETTINGS["clean"] | ({} if settings is None else {"settings": settings})
    return resources.put(SourceConfig.model_validate(SETTINGS | {"clean": section, "time": time}))


def parcel(number: int = 0, **changed: Any) -> dict[str, Any]:
    """A good row, different for each number, with some values changed."""
    return {"parcel_id": f"p{number}", "hub": "north", "weight": "250", **changed}
