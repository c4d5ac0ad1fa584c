"""The former path of `mlops.services.databricks.DatabricksStageTrigger`. Remove it with release 0.3."""

# Triggers that were stored before the upgrade have this path in Airflow's database (docs/upgrading.md).
from mlops.services.databricks import DatabricksStageTrigger as DatabricksStageTrigger
