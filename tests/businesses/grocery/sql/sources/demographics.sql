-- Bronze rows → the same rows with their outcome. One row per household: of rows that contradict each other none is used.
WITH numbered AS (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY _day, household_id, age_band, household_size, income_band ORDER BY _file, _row
    ) AS copy
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN household_id IS NULL THEN 'household_id'
      WHEN sum(CASE WHEN copy = 1 THEN 1 ELSE 0 END) OVER (PARTITION BY _day, household_id) > 1 THEN 'household_id'
      WHEN NOT household_size RLIKE '^[0-9]{1,2}([.]0)?$' THEN 'household_size'
    END AS refused_column
  FROM numbered
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  CASE refused_column
    WHEN 'household_id' THEN 'household_id is missing or has several rows'
    WHEN 'household_size' THEN 'household_size is not a number of people'
  END AS reason,
  CASE WHEN refused_column IS NOT NULL THEN 'ask marketing which row is right' END AS remedy,
  _day AS day,
  household_id,
  age_band,
  CASE WHEN refused_column IS NULL THEN try_cast(household_size AS DOUBLE) END AS household_size,
  income_band,
  _file,
  _row
FROM judged
ORDER BY _id
