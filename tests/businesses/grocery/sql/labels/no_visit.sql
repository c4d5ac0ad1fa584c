-- silver.visits → the label of each household of `population`: 1 without a visit in (as_of, as_of + :horizon_days].
WITH returned AS (
  SELECT DISTINCT
    population.household_id,
    population.as_of
  FROM population
  INNER JOIN visits
    ON
      visits.household_id = population.household_id
      AND visits.day > population.as_of
      AND datediff(visits.day, population.as_of) <= :horizon_days
)

SELECT
  population.household_id,
  population.as_of,
  CASE WHEN returned.household_id IS NULL THEN 1 ELSE 0 END AS lapsed
FROM population
LEFT JOIN returned
  ON returned.household_id = population.household_id AND returned.as_of = population.as_of
ORDER BY population.as_of, population.household_id
