-- features.households → who is trained on and scored: households that visited in the last :active_days days.
SELECT
  household_id,
  as_of
FROM households
WHERE recency_days < :active_days
ORDER BY as_of, household_id
