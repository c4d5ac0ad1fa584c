-- Bronze rows of one or many days → the same rows, each with its outcome: silver, quarantined or duplicate.
--
-- `bronze` has every column as text, trimmed, NULL where empty; `_id` numbers the rows in the order of
-- (_day, _file, _row). A business day starts and ends at midnight in `:timezone`, and a time without a UTC
-- offset is local to it. A refusal has the form 'what is wrong -> what to do about it'. Timestamps are without
-- zone until the last step, and mean UTC unless they are called local.
--
-- Rule about transactions: a transaction has as many lines as there are different ones, all of one customer.
-- To correct a line, send its file again; a second file adds lines and corrects none.
WITH named AS (
  SELECT
    _day AS contradicted_day,
    transaction_id AS contradicted_id,
    CASE WHEN customer_id RLIKE '^[0-9]+[.]0$' THEN split_part(customer_id, '.', 1) ELSE customer_id END AS customer
  FROM bronze
  WHERE transaction_id IS NOT NULL
),

contradicted AS (
  SELECT
    contradicted_day,
    contradicted_id
  FROM named
  GROUP BY contradicted_day, contradicted_id
  HAVING min(customer) <> max(customer)
),

numbered AS (
  SELECT
    *,
    contradicted_id IS NOT NULL AS is_contradicted,
    -- repeated content, in the same file or another file of the day: the first row is kept
    row_number() OVER (
      PARTITION BY
        _day, transaction_id, customer_id, occurred_at, product_id, category, channel, country,
        quantity, unit_price, amount
      ORDER BY _file, _row
    ) AS copy,
    -- ISO 8601: a day, or a day and a time of day, with or without an offset from UTC
    occurred_at RLIKE '^[12][0-9]{3}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?( ?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?))?)?$'
      AS is_iso,
    regexp_extract(substring(occurred_at, 12), '^[0-9:.]*', 0) AS clock,
    regexp_extract(substring(occurred_at, 12), '[Z+-].*$', 0) AS utc_offset
  FROM bronze
  LEFT JOIN contradicted ON _day = contradicted_day AND transaction_id = contradicted_id
),

spelled AS (
  SELECT
    *,
    -- 10:30 becomes 10:30:00, a missing time becomes midnight, and nanoseconds are cut to microseconds
    CASE
      WHEN is_iso
        THEN substring(occurred_at, 1, 10) || ' ' || substring(clock || substring('00:00:00', length(clock) + 1), 1, 15)
    END AS wall_clock,
    -- Z, +02 and +0200 become +00:00, +02:00 and +02:00
    CASE
      WHEN utc_offset = 'Z' THEN '+00:00'
      WHEN utc_offset <> ''
        THEN substring(utc_offset, 1, 3) || ':' || substring(replace(utc_offset, ':', '') || '00', 4, 2)
    END AS zone_offset,
    CASE
      WHEN quantity RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$' THEN try_cast(quantity AS DOUBLE)
    END AS quantity_read,
    CASE
      WHEN unit_price RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN try_cast(unit_price AS DOUBLE)
    END AS unit_price_read,
    CASE
      WHEN amount RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$' THEN try_cast(amount AS DOUBLE)
    END AS amount_read
  FROM numbered
),

placed AS (
  SELECT
    *,
    CASE
      WHEN zone_offset IS NULL THEN convert_timezone(:timezone, 'UTC', try_cast(wall_clock AS TIMESTAMP_NTZ))
      ELSE CAST(try_cast(wall_clock || zone_offset AS TIMESTAMP) AS TIMESTAMP_NTZ)
    END AS placed_at
  FROM spelled
),

timed AS (
  SELECT
    *,
    -- engines differ on the hour that occurs twice in an autumn night; here it is the first of the two
    CASE
      WHEN
        zone_offset IS NULL
        AND convert_timezone('UTC', :timezone, placed_at - INTERVAL 1 HOUR) = try_cast(wall_clock AS TIMESTAMP_NTZ)
        THEN placed_at - INTERVAL 1 HOUR
      ELSE placed_at
    END AS instant
  FROM placed
),

judged AS (
  SELECT
    *,
    -- bytes that could not be decoded were replaced by U+FFFD: a name with it is another name
    CASE
      WHEN transaction_id LIKE '%�%' THEN 'transaction_id'
      WHEN customer_id LIKE '%�%' THEN 'customer_id'
      WHEN product_id LIKE '%�%' THEN 'product_id'
      WHEN category LIKE '%�%' THEN 'category'
      WHEN channel LIKE '%�%' THEN 'channel'
      WHEN country LIKE '%�%' THEN 'country'
    END AS unreadable,
    CASE
      WHEN is_contradicted
        THEN 'is not the same on all lines of the transaction -> ask upstream whose purchase it is; nobody gets it meanwhile'
      WHEN customer_id IS NULL
        THEN 'is missing -> ask upstream whose purchase it is; a sale without a customer cannot be used'
    END AS customer_id_refusal,
    CASE
      WHEN occurred_at IS NULL THEN 'is missing -> ask upstream when it was'
      WHEN instant IS NULL
        THEN 'is not a time -> write it as ISO 8601, such as 2011-06-28T14:05:00 or 2011-06-28T14:05:00+01:00'
      WHEN CAST(convert_timezone('UTC', :timezone, instant) AS DATE) <> _day
        THEN 'is not on the day it was landed for -> land the row in the folder of its own day, or write its UTC offset if it is not local to ' || :timezone
    END AS occurred_at_refusal,
    CASE
      WHEN quantity IS NULL THEN 'is missing -> ask upstream how many; returns are negative'
      WHEN quantity RLIKE '^[+-]?[0-9.]*,[0-9]+$'
        THEN 'has a decimal comma -> write it with a decimal point and without thousands separators'
      WHEN lower(quantity) RLIKE '^[+-]?(nan|inf|infinity)$' THEN 'is not finite -> write a number'
      WHEN NOT quantity RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN 'is not a number -> write digits and a decimal point only'
      WHEN coalesce(abs(quantity_read) > :max_abs_quantity, TRUE)
        THEN 'is beyond all orders -> look for shifted columns, or raise clean.settings.max_abs_quantity'
      WHEN quantity_read = 0 THEN 'is zero -> ask upstream what was sold; returns are negative'
    END AS quantity_refusal,
    CASE
      WHEN unit_price IS NULL THEN NULL
      WHEN unit_price RLIKE '^[+-]?[0-9.]*,[0-9]+$'
        THEN 'has a decimal comma -> write it with a decimal point and without thousands separators'
      WHEN lower(unit_price) RLIKE '^[+-]?(nan|inf|infinity)$' THEN 'is not finite -> write a number or leave it empty'
      WHEN NOT unit_price RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN 'is not a number -> write digits and a decimal point only, or leave it empty'
      WHEN coalesce(abs(unit_price_read) > :max_abs_amount, TRUE)
        THEN 'is beyond all sales -> look for a decimal shift, or raise clean.settings.max_abs_amount'
      WHEN unit_price_read < 0 THEN 'is negative -> a return has a negative quantity and a positive price'
    END AS unit_price_refusal,
    CASE
      WHEN amount IS NULL THEN 'is missing -> ask upstream for the total of the line; zero is allowed'
      WHEN amount RLIKE '^[+-]?[0-9.]*,[0-9]+$'
        THEN 'has a decimal comma -> write it with a decimal point and without thousands separators'
      WHEN lower(amount) RLIKE '^[+-]?(nan|inf|infinity)$' THEN 'is not finite -> write a number'
      WHEN NOT amount RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN 'is not a number -> write digits and a decimal point only'
      WHEN coalesce(abs(amount_read) > :max_abs_amount, TRUE)
        THEN 'is beyond all sales -> look for a decimal shift, or raise clean.settings.max_abs_amount'
    END AS amount_refusal
  FROM timed
),

summed AS (
  SELECT
    *,
    CASE
      WHEN unreadable IS NOT NULL THEN unreadable
      WHEN customer_id_refusal IS NOT NULL THEN 'customer_id'
      WHEN occurred_at_refusal IS NOT NULL THEN 'occurred_at'
      WHEN quantity_refusal IS NOT NULL THEN 'quantity'
      WHEN unit_price_refusal IS NOT NULL THEN 'unit_price'
      WHEN amount_refusal IS NOT NULL THEN 'amount'
    END AS refused_column,
    concat_ws(
      '; ',
      unreadable || ' has characters that are not UTF-8',
      'customer_id ' || split_part(customer_id_refusal, ' -> ', 1),
      'occurred_at ' || split_part(occurred_at_refusal, ' -> ', 1),
      'quantity ' || split_part(quantity_refusal, ' -> ', 1),
      'unit_price ' || split_part(unit_price_refusal, ' -> ', 1),
      'amount ' || split_part(amount_refusal, ' -> ', 1)
    ) AS reason,
    concat_ws(
      '; ',
      CASE WHEN unreadable IS NOT NULL THEN 'ask upstream to write the file as UTF-8' END,
      split_part(customer_id_refusal, ' -> ', 2),
      split_part(occurred_at_refusal, ' -> ', 2),
      split_part(quantity_refusal, ' -> ', 2),
      split_part(unit_price_refusal, ' -> ', 2),
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
  transaction_id,
  -- pandas writes 17850 as 17850.0 when some rows have no customer; it is the same customer
  CASE WHEN customer_id RLIKE '^[0-9]+[.]0$' THEN split_part(customer_id, '.', 1) ELSE customer_id END AS customer_id,
  CAST(instant AS TIMESTAMP) AS occurred_at,
  product_id,
  category,
  channel,
  country,
  quantity_read AS quantity,
  unit_price_read AS unit_price,
  amount_read AS amount,
  CASE WHEN quantity_read < 0 OR amount_read < 0 THEN 'return' ELSE 'purchase' END AS kind,
  _file,
  _row
FROM summed
ORDER BY _id
