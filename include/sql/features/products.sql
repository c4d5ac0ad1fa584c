-- silver.transactions and silver.products → features.products: every product as known at the end of day :as_of.
--
-- Sales are those of the days in the window of config/features/products.yaml, and no later ones. A product is there if it
-- is in the table of products that is in force, or was sold in the window. Purchases only: a return takes back a sale
-- of a customer, and not the price at which the product sells. As in customer_days.sql, money and quantities are
-- added as whole ten-thousandths.
--
-- Not known is not zero: without sales, the median price is the list price; without a list price, or without a cost,
-- what depends on it is NULL.
WITH lines AS (
  SELECT
    product_id,
    CAST(floor(quantity * 1e4 + 0.5) AS BIGINT) AS quantity,
    CAST(floor(amount * 1e4 + 0.5) AS BIGINT) AS amount,
    -- what one piece cost the customer, where the line does not say so itself
    CAST(floor(coalesce(unit_price, amount / nullif(quantity, 0)) * 1e4 + 0.5) AS BIGINT) AS price
  FROM transactions
  WHERE product_id IS NOT NULL AND kind = 'purchase' AND day <= :as_of
),

sold AS (
  SELECT
    product_id,
    count(*) AS sales,
    sum(quantity) AS units,
    sum(amount) AS revenue,
    -- of two middle prices the mean: a sum of two integers and one half of it, in any order
    median(CAST(price AS DOUBLE)) AS median_price
  FROM lines
  GROUP BY product_id
),

listed AS (
  SELECT
    product_id,
    CAST(floor(CAST(list_price AS DOUBLE) * 1e4 + 0.5) AS BIGINT) AS list_price,
    CAST(floor(CAST(unit_cost AS DOUBLE) * 1e4 + 0.5) AS BIGINT) AS unit_cost
  FROM products
  WHERE product_id IS NOT NULL
),

priced AS (
  SELECT
    coalesce(listed.product_id, sold.product_id) AS product_id,
    coalesce(sold.sales, 0) AS sales,
    coalesce(sold.units, 0) AS units,
    coalesce(sold.revenue, 0) AS revenue,
    coalesce(sold.median_price, CAST(listed.list_price AS DOUBLE)) AS price,
    CAST(listed.unit_cost AS DOUBLE) AS unit_cost
  FROM listed
  FULL OUTER JOIN sold ON sold.product_id = listed.product_id
)

SELECT
  product_id,
  CAST(:as_of AS DATE) AS as_of,
  CAST(sales AS BIGINT) AS sales,                          -- purchased lines
  CAST(units AS DOUBLE) / 1e4 AS units,
  CAST(revenue AS DOUBLE) / 1e4 AS revenue,
  price / 1e4 AS median_price,                             -- of the purchased lines; the list price without any
  (price - unit_cost) / 1e4 AS margin,                     -- of one piece, at the cost known on the day
  (price - unit_cost) / nullif(price, 0) AS margin_pct     -- share of the price
FROM priced
ORDER BY product_id
