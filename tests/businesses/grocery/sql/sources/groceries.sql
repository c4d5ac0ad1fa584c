-- Bronze rows → the same rows with their outcome. One row per product: of rows that contradict each other none is used.
WITH read AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY _day, product_id, department, price ORDER BY _file, _row) AS copy,
    CASE WHEN price RLIKE '^[0-9]{1,6}([.][0-9]{1,2})?$' THEN try_cast(price AS DOUBLE) END AS shelf_price
  FROM bronze
),

judged AS (
  SELECT
    *,
    CASE
      WHEN product_id IS NULL OR department IS NULL THEN 'product_id'
      WHEN sum(CASE WHEN copy = 1 THEN 1 ELSE 0 END) OVER (PARTITION BY _day, product_id) > 1 THEN 'product_id'
      WHEN shelf_price IS NULL OR shelf_price > :max_price THEN 'price'
    END AS refused_column
  FROM read
)

SELECT
  _id,
  CASE WHEN copy > 1 THEN 'duplicate' WHEN refused_column IS NULL THEN 'silver' ELSE 'quarantined' END AS outcome,
  refused_column,
  CASE refused_column
    WHEN 'product_id' THEN 'product_id or department is missing, or the product has several rows'
    WHEN 'price' THEN 'price is not a price'
  END AS reason,
  CASE WHEN refused_column IS NOT NULL THEN 'ask the stores which row is right' END AS remedy,
  _day AS day,
  product_id,
  department,
  shelf_price AS price,
  _file,
  _row
FROM judged
ORDER BY _id
