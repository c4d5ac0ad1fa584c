"""Azure ML jobs as Airflow tasks: command, sweep, AutoML and pipeline jobs, and the cancellation of any.

An operator's module is imported at its first use: each start of any task reads the Dag's file, which uses few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure_ml.operators.automl import AzureMLAutoMLJobOperator
    from azure_ml.operators.base import LAST_LINES
    from azure_ml.operators.cancel import AzureMLCancelJobOperator
    from azure_ml.operators.command import AzureMLCommandJobOperator
    from azure_ml.operators.pipeline import AzureMLPipelineJobOperator
    from azure_ml.operators.sweep import AzureMLSweepJobOperator

_MODULES = {
    "AzureMLAutoMLJobOperator": "automl",
    "AzureMLCancelJobOperator": "cancel",
    "AzureMLCommandJobOperator": "command",
    "AzureMLPipelineJobOperator": "pipeline",
    "AzureMLSweepJobOperator": "sweep",
    "LAST_LINES": "base",
}

__all__ = (
    "LAST_LINES",
    "AzureMLAutoMLJobOperator",
    "AzureMLCancelJobOperator",
    "AzureMLCommandJobOperator",
    "AzureMLPipelineJobOperator",
    "AzureMLSweepJobOperator",
)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"azure_ml.operators.{_MODULES[name]}"), name)
