"""The former path of `mlops.services.power_bi.PowerBIRefreshTrigger`. Remove it with release 0.3."""

# Triggers that were stored before the upgrade have this path in Airflow's database (docs/upgrading.md).
from mlops.services.power_bi import PowerBIRefreshTrigger as PowerBIRefreshTrigger
