-- Bronze rows of one or many snapshots of the table of products → the same rows, each with its outcome: silver,
-- quarantined or duplicate.
--
-- `bronze` has every column as text, trimmed, NULL where empty; `_id` numbers the rows in the order of
-- (_day, _file, _row). A refusal has the form 'what is wrong -> what to do about it'.
--
-- Rule about products: a snapshot has one row per product. Rows that say the same are duplicates, however their numbers
-- are spelled; of rows that contradict each other none is used. To correct a snapshot, send its file again under the same
-- name: a second file contradicts the first.
WITH spelled AS (
  SELECT
    *,
    -- + 0.0: -0 is 0
    CASE
      WHEN list_price RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN try_cast(list_price AS DOUBLE) + 0.0
    END AS list_price_read,
    CASE
      WHEN unit_cost RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN try_cast(unit_cost AS DOUBLE) + 0.0
    END AS unit_cost_read,
    -- bytes that could not be decoded were replaced by U+FFFD: a name with it is another name
    CASE
      WHEN product_id LIKE '%�%' THEN 'product_id'
      WHEN name LIKE '%�%' THEN 'name'
      WHEN category LIKE '%�%' THEN 'category'
    END AS unreadable
  FROM bronze
),

numbered AS (
  SELECT
    *,
    -- repeated content, in the same file or another file of the day: the first row is kept. A number that cannot be read
    -- is compared as text
    row_number() OVER (
      PARTITION BY
        _day, product_id, name, category, list_price_read, unit_cost_read,
        CASE WHEN list_price_read IS NULL THEN list_price END, CASE WHEN unit_cost_read IS NULL THEN unit_cost END
      ORDER BY _file, _row
    ) AS copy
  FROM spelled
),

read AS (
  SELECT
    *,
    CASE
      WHEN product_id IS NULL THEN 'is missing -> ask upstream which product it is'
    END AS product_id_refusal,
    CASE
      WHEN list_price IS NULL THEN 'is missing -> ask upstream for the price; zero is allowed'
      WHEN list_price RLIKE '^[+-]?[0-9.]*,[0-9]+$'
        THEN 'has a decimal comma -> write it with a decimal point and without thousands separators'
      WHEN lower(list_price) RLIKE '^[+-]?(nan|inf|infinity)$' THEN 'is not finite -> write a number'
      WHEN NOT list_price RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN 'is not a number -> write digits and a decimal point only'
      WHEN coalesce(abs(list_price_read) > :max_price, TRUE)
        THEN 'is beyond all prices -> look for a decimal shift, or raise clean.settings.max_price'
      WHEN list_price_read < 0 THEN 'is negative -> ask upstream for the price; a product that is not sold is left out'
    END AS list_price_refusal,
    CASE
      WHEN unit_cost IS NULL THEN NULL
      WHEN unit_cost RLIKE '^[+-]?[0-9.]*,[0-9]+$'
        THEN 'has a decimal comma -> write it with a decimal point and without thousands separators'
      WHEN lower(unit_cost) RLIKE '^[+-]?(nan|inf|infinity)$' THEN 'is not finite -> write a number or leave it empty'
      WHEN NOT unit_cost RLIKE '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?$'
        THEN 'is not a number -> write digits and a decimal point only, or leave it empty'
      WHEN coalesce(abs(unit_cost_read) > :max_price, TRUE)
        THEN 'is beyond all prices -> look for a decimal shift, or raise clean.settings.max_price'
      WHEN unit_cost_read < 0 THEN 'is negative -> ask upstream for the cost, or leave it empty'
    END AS unit_cost_refusal
  FROM numbered
),

judged AS (
  SELECT
    *,
    unreadable IS NULL AND product_id_refusal IS NULL AND list_price_refusal IS NULL AND unit_cost_refusal IS NULL
      AS is_usable
  FROM read
),

compared AS (
  SELECT
    *,
    -- a row that is refused for itself contradicts none
    is_usable
    AND sum(CASE WHEN is_usable AND copy = 1 THEN 1 ELSE 0 END) OVER (PARTITION BY _day, product_id) > 1
      AS is_contradicted
  FROM judged
),

summed AS (
  SELECT
    *,
    CASE
      WHEN unreadable IS NOT NULL THEN unreadable
      WHEN product_id_refusal IS NOT NULL THEN 'product_id'
      WHEN list_price_refusal IS NOT NULL THEN 'list_price'
      WHEN unit_cost_refusal IS NOT NULL THEN 'unit_cost'
      WHEN is_contradicted THEN 'product_id'
    END AS refused_column,
    concat_ws(
      '; ',
      unreadable || ' has characters that are not UTF-8',
      'product_id ' || split_part(product_id_refusal, ' -> ', 1),
      'list_price ' || split_part(list_price_refusal, ' -> ', 1),
      'unit_cost ' || split_part(unit_cost_refusal, ' -> ', 1),
      CASE WHEN is_contradicted THEN 'product_id has several rows that contradict each other' END
    ) AS reason,
    concat_ws(
      '; ',
      CASE WHEN unreadable IS NOT NULL THEN 'ask upstream to write the file as UTF-8' END,
      split_part(product_id_refusal, ' -> ', 2),
      split_part(list_price_refusal, ' -> ', 2),
      split_part(unit_cost_refusal, ' -> ', 2),
      CASE
        WHEN is_contradicted THEN 'ask upstream which row is right, and to send the file again; the product has none meanwhile'
      END
    ) AS remedy
  FROM compared
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
  product_id,
  name,
  category,
  list_price_read AS list_price,
  unit_cost_read AS unit_cost,
  _file,
  _row
FROM summed
ORDER BY _id
