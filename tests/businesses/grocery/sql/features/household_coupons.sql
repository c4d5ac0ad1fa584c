-- silver.coupons → features.household_coupons: the coupons that a household redeemed in the window, as known at :as_of.
SELECT
  household_id,
  CAST(:as_of AS DATE) AS as_of,
  count(*) AS coupons,
  CAST(sum(CAST(floor(value * 100 + 0.5) AS BIGINT)) AS DOUBLE) / 100 AS coupon_value,
  min(datediff(:as_of, day)) AS coupon_recency_days
FROM coupons
WHERE day <= :as_of
GROUP BY household_id
ORDER BY household_id
