"""The former path of `mlops.executor.WatchedLocalExecutor`. Remove it with release 0.3."""

# A deployment may still have this path in AIRFLOW__CORE__EXECUTOR (docs/upgrading.md).
from mlops.executor import WatchedLocalExecutor as WatchedLocalExecutor
