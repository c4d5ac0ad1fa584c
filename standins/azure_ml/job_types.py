"""The job types that Azure ML here can run, by name, and the jobs of a cloud."""

from __future__ import annotations

import standins.azure_ml.automl.jobs
import standins.azure_ml.sweep.jobs
from standins.azure_ml import pipeline
from standins.azure_ml.followers import JobType
from standins.azure_ml.jobs import Jobs
from standins.compute.pool import Compute
from standins.core.cloud import Cloud

# Those whose jobs have children; a command job has none and is moved on by `Jobs` itself.
_PARENTS: dict[str, JobType] = {
    "AutoML": standins.azure_ml.automl.jobs,
    "Sweep": standins.azure_ml.sweep.jobs,
    "Pipeline": pipeline,
}


def jobs_of(cloud: Cloud) -> Jobs:
    """The jobs of a cloud's workspaces. Use `cloud.one(jobs_of)`: there is one such object per cloud."""
    return Jobs(cloud, cloud.one(Compute), _PARENTS)
