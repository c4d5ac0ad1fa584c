-- silver.customer_days → features.customers: every customer as known at the end of day :as_of.
--
-- Nothing after :as_of is read. A window of n days is (:as_of - n, :as_of]. As in customer_days.sql, money
-- is added as whole ten-thousandths, so that the sum does not depend on the order of the rows.
WITH known AS (
  SELECT
    customer_id,
    day,
    month,
    datediff(:as_of, day) AS age,
    orders,
    CAST(floor(amount * 1e4 + 0.5) AS BIGINT) AS amount,
    CAST(floor(purchase_amount * 1e4 + 0.5) AS BIGINT) AS purchase_amount,
    max_order_amount,
    online_orders,
    -- NULL on days that were ingested before the column existed. Nothing was sold by phone then, as far as silver knows,
    -- so they count as 0: a NULL here would tell a model when a day was ingested. To count them, ingest them again.
    coalesce(mobile_orders, 0) AS mobile_orders,
    store_orders,
    returns,
    categories,
    country
  FROM customer_days
  WHERE day <= :as_of
),

customers AS (
  SELECT
    customer_id,
    min(CASE WHEN orders > 0 THEN age END) AS recency_days,
    max(CASE WHEN orders > 0 THEN age END) AS tenure_days,
    sum(orders) AS orders,
    sum(CASE WHEN age < 30 THEN orders ELSE 0 END) AS orders_30d,
    sum(CASE WHEN age < 90 THEN orders ELSE 0 END) AS orders_90d,
    sum(amount) AS amount,
    sum(CASE WHEN age < 30 THEN amount ELSE 0 END) AS amount_30d,
    sum(CASE WHEN age < 90 THEN amount ELSE 0 END) AS amount_90d,
    sum(purchase_amount) AS purchase_amount,
    max(max_order_amount) AS max_order_amount,
    count(DISTINCT CASE WHEN orders > 0 THEN month END) AS active_months,
    -- the set first: most days repeat an earlier day's categories (twice as fast on DuckDB)
    size(array_distinct(flatten(collect_set(categories)))) AS categories,
    sum(online_orders) AS online_orders,
    sum(mobile_orders) AS mobile_orders,
    sum(store_orders) AS store_orders,
    sum(returns) AS returns,
    max_by(country, CASE WHEN country IS NOT NULL THEN day END) AS country
  FROM known
  GROUP BY customer_id
)

SELECT
  customer_id,
  CAST(:as_of AS DATE) AS as_of,
  recency_days,                                            -- since the last purchase; NULL when there was none
  tenure_days,                                             -- since the first purchase; NULL when there was none
  CAST(orders AS BIGINT) AS orders,
  CAST(orders_30d AS BIGINT) AS orders_30d,
  CAST(orders_90d AS BIGINT) AS orders_90d,
  CAST(amount AS DOUBLE) / 1e4 AS amount,                  -- net of returns, as are its windows
  CAST(amount_30d AS DOUBLE) / 1e4 AS amount_30d,
  CAST(amount_90d AS DOUBLE) / 1e4 AS amount_90d,
  CAST(purchase_amount AS DOUBLE) / 1e4 / nullif(orders, 0) AS mean_order_amount,
  max_order_amount,
  active_months,                                           -- calendar months with a purchase
  categories,
  CAST(online_orders AS BIGINT) AS online_orders,          -- at a computer
  CAST(mobile_orders AS BIGINT) AS mobile_orders,
  CAST(store_orders AS BIGINT) AS store_orders,
  CAST(returns AS BIGINT) AS returns,                      -- returned lines
  CAST(amount AS DOUBLE) / 1e4 / nullif(active_months, 0) AS amount_per_month,
  -- the last 30 days against the mean of the two 30-day spans before them
  CAST(2 * amount_30d - (amount_90d - amount_30d) AS DOUBLE) / 2e4 AS amount_trend,
  -- computer against store. It stays without orders by phone: a changed feature would be another feature
  CAST(online_orders AS DOUBLE) / nullif(online_orders + store_orders, 0) AS online_preference_ratio,
  country,                                                 -- last known
  coalesce(recency_days < :active_days, FALSE) AS active   -- purchased in the last :active_days days
FROM customers
ORDER BY customer_id
