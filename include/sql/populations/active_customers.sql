-- features.customers → who is trained on and scored: customers with a purchase in the last :active_days days. Who has
-- not bought for longer is lost already, and nothing is left to predict.
SELECT
  customer_id,
  as_of
FROM customers
WHERE recency_days < :active_days
ORDER BY as_of, customer_id
