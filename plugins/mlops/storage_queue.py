"""The former path of `mlops.services.storage_queue.StorageQueueTrigger`. Remove it with release 0.3."""

# Triggers that were stored before the upgrade have this path in Airflow's database (docs/upgrading.md).
from mlops.services.storage_queue import StorageQueueTrigger as StorageQueueTrigger
