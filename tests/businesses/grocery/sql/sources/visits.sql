-- Bronze rows → the same rows with their outcome. A household buys a product at most once per basket.
WITH read AS (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY _day, household_id, basket_id, visited_on, product_id, quantity, amount ORDER BY _file, _row
    ) AS copy,
    CASE WHEN quantity RLIKE '^[0-9]{1,4}([.]0)?$' THEN try_cast(quantity AS DOUBLE) END AS pieces,
    CASE WHEN amount RLIKE '^[0-9]{1,6}([.][0-9]{1,2})?$' THEN try_cast(amount AS DOUBLE) END AS paid
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN household_id IS NULL THEN 'household_id'
      WHEN coalesce(visited_on, '') <> CAST(_day AS STRING) THEN 'visited_on'
      WHEN product_id IS NULL THEN 'product_id'
      WHEN coalesce(pieces, 0) = 0 THEN 'quantity'
      WHEN paid IS NULL OR paid > :max_amount THEN 'amount'
    END AS refused_column
  FROM read
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  CASE refused_column
    WHEN 'household_id' THEN 'household_id is missing'
    WHEN 'visited_on' THEN 'visited_on is not the day it was landed for'
    WHEN 'product_id' THEN 'product_id is missing'
    WHEN 'quantity' THEN 'quantity is not a number of pieces'
    WHEN 'amount' THEN 'amount is not a price'
  END AS reason,
  CASE refused_column
    WHEN 'household_id' THEN 'nothing to do: a guest without a loyalty card'
    WHEN 'visited_on' THEN 'land the row in the folder of its own day'
    WHEN 'product_id' THEN 'ask the store what was sold'
    ELSE 'ask the store to send the till''s file again'
  END AS remedy,
  _day AS day,
  household_id,
  basket_id,
  product_id,
  pieces AS quantity,
  paid AS amount,
  _file,
  _row
FROM judged
ORDER BY _id
