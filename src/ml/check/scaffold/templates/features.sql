-- @table@ → features.@name@: every @entity@ as known at the end of day :as_of.
--
-- Nothing after :as_of is read. A window of n days is (:as_of - n, :as_of]. TODO more features; add up integers, such as
-- cents: a sum of doubles depends on the order of the rows.
SELECT
  @entity@,
  CAST(:as_of AS DATE) AS as_of,
  min(datediff(:as_of, day)) AS since_last,                 -- days since the newest row
  max(datediff(:as_of, day)) AS since_first,
  count(DISTINCT day) AS days,                              -- with a row
  count(*) AS total,                                        -- rows
  CAST(sum(CASE WHEN datediff(:as_of, day) < :recent_days THEN 1 ELSE 0 END) AS BIGINT) AS recent
FROM @short@
WHERE day <= :as_of AND @entity@ IS NOT NULL
GROUP BY @entity@
ORDER BY @entity@
