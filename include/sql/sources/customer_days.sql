-- silver.transactions → silver.customer_days: one row per customer and day, measures that add up over days.
--
-- Money and quantities are added as integers, in ten-thousandths: a sum of doubles depends on the order of the
-- rows, and so on the engine, the threads and the files; a sum of integers does not. floor(x + 0.5) is the only
-- rounding that is equal on every engine.
WITH lines AS (
  SELECT
    customer_id,
    day,
    occurred_at,
    transaction_id,
    -- each row without a transaction id is a separate order
    CASE WHEN transaction_id IS NULL THEN _file END AS lone_file,
    CASE WHEN transaction_id IS NULL THEN _row END AS lone_row,
    _file,
    _row,
    category,
    channel,
    country,
    kind = 'purchase' AS bought,
    CAST(floor(quantity * 1e4 + 0.5) AS BIGINT) AS quantity,
    CAST(floor(amount * 1e4 + 0.5) AS BIGINT) AS amount
  FROM transactions
),

orders AS (
  SELECT
    customer_id,
    day,
    sum(amount) AS amount,
    max(CASE WHEN channel = 'online' THEN 1 ELSE 0 END) AS online,
    max(CASE WHEN channel = 'mobile' THEN 1 ELSE 0 END) AS mobile,
    max(CASE WHEN channel = 'store' THEN 1 ELSE 0 END) AS store
  FROM lines
  WHERE bought
  GROUP BY customer_id, day, transaction_id, lone_file, lone_row
),

order_days AS (
  SELECT
    customer_id,
    day,
    count(*) AS orders,
    max(amount) AS max_order_amount,
    sum(online) AS online_orders,
    sum(mobile) AS mobile_orders,
    sum(store) AS store_orders
  FROM orders
  GROUP BY customer_id, day
),

line_days AS (
  SELECT
    customer_id,
    day,
    min(occurred_at) AS first_occurred_at,
    max(occurred_at) AS last_occurred_at,
    count(*) AS lines,
    sum(quantity) AS quantity,
    sum(amount) AS amount,
    sum(CASE WHEN bought THEN amount ELSE 0 END) AS purchase_amount,
    sum(CASE WHEN bought THEN 0 ELSE 1 END) AS returns,
    sum(CASE WHEN bought THEN 0 ELSE amount END) AS returned_amount,
    sort_array(collect_set(CASE WHEN bought THEN category END)) AS categories,
    -- from the latest line that has a country; the line's position in its file breaks ties
    max(CASE WHEN country IS NOT NULL THEN struct(occurred_at, _file, _row, country) END).country AS country
  FROM lines
  GROUP BY customer_id, day
)

SELECT
  line_days.customer_id,
  line_days.day,
  CAST(date_trunc('month', line_days.day) AS DATE) AS month,
  line_days.first_occurred_at,
  line_days.last_occurred_at,
  coalesce(order_days.orders, 0) AS orders,
  line_days.lines,
  CAST(line_days.quantity AS DOUBLE) / 1e4 AS quantity,
  CAST(line_days.amount AS DOUBLE) / 1e4 AS amount,
  CAST(line_days.purchase_amount AS DOUBLE) / 1e4 AS purchase_amount,
  CAST(line_days.returns AS BIGINT) AS returns,
  CAST(line_days.returned_amount AS DOUBLE) / 1e4 AS returned_amount,
  CAST(order_days.max_order_amount AS DOUBLE) / 1e4 AS max_order_amount,  -- NULL on a day of returns only
  CAST(coalesce(order_days.online_orders, 0) AS BIGINT) AS online_orders,  -- at a computer
  CAST(coalesce(order_days.mobile_orders, 0) AS BIGINT) AS mobile_orders,
  CAST(coalesce(order_days.store_orders, 0) AS BIGINT) AS store_orders,
  coalesce(line_days.categories, CAST(array() AS ARRAY<STRING>)) AS categories,
  line_days.country
FROM line_days
LEFT JOIN order_days
  ON order_days.customer_id = line_days.customer_id AND order_days.day = line_days.day
ORDER BY line_days.customer_id, line_days.day
