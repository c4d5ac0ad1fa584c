-- Bronze rows → the same rows with their outcome. A coupon is redeemed once: the same id twice is a repeated report.
WITH read AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY _day, household_id, coupon_id, redeemed_on, value ORDER BY _file, _row) AS copy,
    CASE WHEN value RLIKE '^[0-9]{1,4}([.][0-9]{1,2})?$' THEN try_cast(value AS DOUBLE) END AS worth
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN household_id IS NULL OR coupon_id IS NULL THEN 'coupon_id'
      WHEN coalesce(redeemed_on, '') <> CAST(_day AS STRING) THEN 'redeemed_on'
      WHEN worth IS NULL OR worth > :max_value THEN 'value'
    END AS refused_column
  FROM read
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  CASE refused_column
    WHEN 'coupon_id' THEN 'household_id or coupon_id is missing'
    WHEN 'redeemed_on' THEN 'redeemed_on is not the day it was landed for'
    WHEN 'value' THEN 'value is not an amount of money'
  END AS reason,
  CASE refused_column
    WHEN 'redeemed_on' THEN 'land the row in the folder of its own day'
    ELSE 'ask marketing to send the row again'
  END AS remedy,
  _day AS day,
  household_id,
  coupon_id,
  worth AS value,
  _file,
  _row
FROM judged
ORDER BY _id
