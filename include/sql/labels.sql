-- features.customers + silver.customer_days → labels of the customers active at each cut-off: 1 for customers
-- without a purchase in (as_of, as_of + :horizon_days]. A label is matured when that span lies in the past; the
-- caller passes only such cut-offs.
WITH buyers AS (
  SELECT DISTINCT
    customers.customer_id,
    customers.as_of
  FROM customers
  INNER JOIN customer_days
    ON
      customer_days.customer_id = customers.customer_id
      AND customer_days.day > customers.as_of
      AND datediff(customer_days.day, customers.as_of) <= :horizon_days
  WHERE customers.active AND customer_days.orders > 0
)

SELECT
  customers.customer_id,
  customers.as_of,
  CASE WHEN buyers.customer_id IS NULL THEN 1 ELSE 0 END AS churned
FROM customers
LEFT JOIN buyers
  ON buyers.customer_id = customers.customer_id AND buyers.as_of = customers.as_of
WHERE customers.active
ORDER BY customers.as_of, customers.customer_id
