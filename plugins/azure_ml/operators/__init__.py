"""Azure ML jobs as Airflow tasks: command, sweep, AutoML and pipeline jobs, and the cancellation of any."""

from azure_ml.operators.automl import AzureMLAutoMLJobOperator
from azure_ml.operators.base import LAST_LINES
from azure_ml.operators.cancel import AzureMLCancelJobOperator
from azure_ml.operators.command import AzureMLCommandJobOperator
from azure_ml.operators.pipeline import AzureMLPipelineJobOperator
from azure_ml.operators.sweep import AzureMLSweepJobOperator

__all__ = (
    "LAST_LINES",
    "AzureMLAutoMLJobOperator",
    "AzureMLCancelJobOperator",
    "AzureMLCommandJobOperator",
    "AzureMLPipelineJobOperator",
    "AzureMLSweepJobOperator",
)
