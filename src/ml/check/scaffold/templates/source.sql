-- Bronze rows of one or many days → the same rows, each with its outcome: silver, quarantined or duplicate.
--
-- `bronze` has every column as text, trimmed, NULL where empty; `_id` numbers the rows in the order of
-- (_day, _file, _row). A business day starts and ends at midnight in `:timezone`; times are local to it. A refusal has
-- the form 'what is wrong -> what to do about it'. TODO add a refusal for each rule that a row must keep.
WITH numbered AS (
  SELECT
    *,
    -- repeated content, in the same file or another file of the day: the first row is kept
    row_number() OVER (
      PARTITION BY _day, @entity@, happened_at, category, amount
      ORDER BY _file, _row
    ) AS copy,
    CASE
      WHEN happened_at RLIKE '^[12][0-9]{3}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])?$'
        THEN
          try_cast(
            substring(happened_at, 1, 10) || ' ' || substring(substring(happened_at, 12) || '00:00:00', 1, 8)
            AS TIMESTAMP_NTZ
          )
    END AS local_time,
    CASE
      WHEN amount RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)$' THEN try_cast(amount AS DOUBLE) + 0.0  -- -0 is 0
    END AS amount_read
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN @entity@ IS NULL THEN 'is missing -> ask upstream whose row it is'
      -- bytes that could not be decoded were replaced by U+FFFD: a name with it is another name
      WHEN @entity@ LIKE '%�%' THEN 'is not UTF-8 -> ask upstream to write the file as UTF-8'
    END AS @entity@_refusal,
    CASE
      WHEN happened_at IS NULL THEN 'is missing -> ask upstream when it was'
      WHEN local_time IS NULL THEN 'is not a time -> write it as 2011-06-28T14:05:00'
      WHEN CAST(local_time AS DATE) <> _day
        THEN 'is not on the day it was landed for -> land the row in the folder of its own day'
    END AS happened_at_refusal,
    CASE
      WHEN amount IS NULL THEN 'is missing -> ask upstream for it; zero is allowed'
      WHEN amount_read IS NULL THEN 'is not a number -> write digits and a decimal point only'
      WHEN abs(amount_read) > :max_abs_amount
        THEN 'is beyond all amounts -> look for a decimal shift, or raise clean.settings.max_abs_amount'
    END AS amount_refusal
  FROM numbered
),

summed AS (
  SELECT
    *,
    CASE
      WHEN @entity@_refusal IS NOT NULL THEN '@entity@'
      WHEN happened_at_refusal IS NOT NULL THEN 'happened_at'
      WHEN amount_refusal IS NOT NULL THEN 'amount'
    END AS refused_column,
    concat_ws(
      '; ',
      '@entity@ ' || split_part(@entity@_refusal, ' -> ', 1),
      'happened_at ' || split_part(happened_at_refusal, ' -> ', 1),
      'amount ' || split_part(amount_refusal, ' -> ', 1)
    ) AS reason,
    concat_ws(
      '; ',
      split_part(@entity@_refusal, ' -> ', 2),
      split_part(happened_at_refusal, ' -> ', 2),
      split_part(amount_refusal, ' -> ', 2)
    ) AS remedy
  FROM judged
)

SELECT
  _id,
  CASE
    WHEN copy > 1 THEN 'duplicate'
    WHEN refused_column IS NULL THEN 'silver'
    ELSE 'quarantined'
  END AS outcome,
  refused_column,
  reason,
  remedy,
  _day AS day,
  @entity@,
  CAST(convert_timezone(:timezone, 'UTC', local_time) AS TIMESTAMP) AS happened_at,
  category,
  amount_read AS amount,
  _file,
  _row
FROM summed
ORDER BY _id
