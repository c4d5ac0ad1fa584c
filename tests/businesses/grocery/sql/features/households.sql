-- silver.visits, silver.groceries, silver.demographics → features.households: every household that visited in the window, as
-- known at the end of day :as_of. Money is added as whole cents. Savings compare what was paid with the shelf price known then.
WITH lines AS (
  SELECT
    visits.household_id,
    visits.day,
    datediff(:as_of, visits.day) AS age,
    CAST(floor(visits.amount * 100 + 0.5) AS BIGINT) AS paid,
    CAST(floor(visits.quantity * groceries.price * 100 + 0.5) AS BIGINT) AS shelf,
    coalesce(groceries.department = 'fresh', FALSE) AS is_fresh
  FROM visits
  LEFT JOIN groceries ON groceries.product_id = visits.product_id
  WHERE visits.day <= :as_of
),

households AS (
  SELECT
    household_id,
    min(age) AS recency_days,
    max(age) AS tenure_days,
    count(DISTINCT day) AS visit_days,
    count(DISTINCT CASE WHEN age < 28 THEN day END) AS visit_days_28d,
    sum(paid) AS spend,
    sum(CASE WHEN age < 28 THEN paid ELSE 0 END) AS spend_28d,
    sum(CASE WHEN is_fresh THEN paid ELSE 0 END) AS fresh,
    sum(CASE WHEN shelf IS NOT NULL THEN shelf - paid END) AS saved,
    sum(shelf) AS shelf
  FROM lines
  GROUP BY household_id
)

SELECT
  households.household_id,
  CAST(:as_of AS DATE) AS as_of,
  households.recency_days,
  households.tenure_days,                                  -- within the window
  households.visit_days,
  households.visit_days_28d,
  CAST(households.spend AS DOUBLE) / 100 AS spend,
  CAST(households.spend_28d AS DOUBLE) / 100 AS spend_28d,
  CAST(households.fresh AS DOUBLE) / nullif(households.spend, 0) AS fresh_share,
  CAST(households.saved AS DOUBLE) / nullif(households.shelf, 0) AS saved_share,
  demographics.age_band,
  demographics.household_size,
  demographics.income_band
FROM households
LEFT JOIN demographics ON demographics.household_id = households.household_id
ORDER BY households.household_id
