-- silver.customer_days → the label of each customer of `population` (customer_id, as_of): 1 without a purchase in
-- (as_of, as_of + :horizon_days]. The facts end with that span, and the caller passes only cut-offs whose span is over.
WITH buyers AS (
  SELECT DISTINCT
    population.customer_id,
    population.as_of
  FROM population
  INNER JOIN customer_days
    ON
      customer_days.customer_id = population.customer_id
      AND customer_days.day > population.as_of
      AND datediff(customer_days.day, population.as_of) <= :horizon_days
  WHERE customer_days.orders > 0
)

SELECT
  population.customer_id,
  population.as_of,
  CASE WHEN buyers.customer_id IS NULL THEN 1 ELSE 0 END AS churned
FROM population
LEFT JOIN buyers
  ON buyers.customer_id = population.customer_id AND buyers.as_of = population.as_of
ORDER BY population.as_of, population.customer_id
