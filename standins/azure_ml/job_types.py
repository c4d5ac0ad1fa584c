"""The supported job types by name, and the `Jobs` object of a cloud."""

from __future__ import annotations

import standins.azure_ml.automl.job_type
import standins.azure_ml.sweep.job_type
from standins.azure_ml.jobs import pipeline
from standins.azure_ml.jobs.followers import JobType
from standins.azure_ml.jobs.lifecycle import Jobs
from standins.compute.pool import Compute
from standins.core.cloud import Cloud

# Types whose jobs have children. A command job has none; `Jobs` advances it itself.
_PARENT_TYPES: dict[str, JobType] = {
    "AutoML": standins.azure_ml.automl.job_type,
    "Sweep": standins.azure_ml.sweep.job_type,
    "Pipeline": pipeline,
}


def jobs_of(cloud: Cloud) -> Jobs:
    """The jobs of all workspaces of a cloud. Use `cloud.shared(jobs_of)`: each cloud has exactly one such object."""
    return Jobs(cloud, cloud.shared(Compute), _PARENT_TYPES)
