-- features.@table@ → who is trained on and scored. TODO leave out those for whom nothing is left to predict.
SELECT
  @entity@,
  as_of
FROM @table@
ORDER BY as_of, @entity@
