"""The former path of `mlops.services.data_factory.DataFactoryPipelineTrigger`. Remove it with release 0.3."""

# Triggers that were stored before the upgrade have this path in Airflow's database (docs/upgrading.md).
from mlops.services.data_factory import DataFactoryPipelineTrigger as DataFactoryPipelineTrigger
