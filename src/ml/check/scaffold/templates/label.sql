-- @facts@ → the label of each @entity@ of `population` (@entity@, as_of): 1 without a row in
-- (as_of, as_of + :horizon_days]. The facts end with that span, and the caller passes only cut-offs whose span is over.
-- TODO the outcome that the model is to predict.
WITH came AS (
  SELECT DISTINCT
    population.@entity@,
    population.as_of
  FROM population
  INNER JOIN @short@
    ON
      @short@.@entity@ = population.@entity@
      AND @short@.day > population.as_of
      AND datediff(@short@.day, population.as_of) <= :horizon_days
)

SELECT
  population.@entity@,
  population.as_of,
  CASE WHEN came.@entity@ IS NULL THEN 1 ELSE 0 END AS @label@
FROM population
LEFT JOIN came
  ON came.@entity@ = population.@entity@ AND came.as_of = population.as_of
ORDER BY population.as_of, population.@entity@
