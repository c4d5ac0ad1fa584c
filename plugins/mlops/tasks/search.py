"""How a model to train is looked for, as `train.method` says, and what its training job is told of what was found.

All of it learns from the training part alone: what the test measures must not have been looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azure_ml.operators.automl import AzureMLAutoMLJobOperator
from azure_ml.operators.sweep import AzureMLSweepJobOperator
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from ml.config import ModelConfig

METRIC = "validation_roc_auc"  # as the stage `trial` logs it
VERSION = "{{ ti.xcom_pull(task_ids='build_training_set')['training_set']['version'] | int }}"
FOUND = "ti.xcom_pull(task_ids='search_model')"


@dataclass(frozen=True)
class Search:
    """Tasks before the training job, one after the other, and what the job is given from them."""

    tasks: list[BaseOperator] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)


def words(model: ModelConfig, stage: str, *arguments: str) -> list[str]:
    """A stage that learns from the training set, as a job's command."""
    return ["python", "-m", "ml", stage, "--model", model.model, "--training-set-version", VERSION, *arguments]


def search(model: ModelConfig) -> Search:
    """The search that the model's config asks for."""
    return {"job": lambda _: Search(), "sweep": _sweep, "automl": _automl}[model.train.method](model)


def _sweep(model: ModelConfig) -> Search:
    """The best parameters of many."""
    asked = model.train.sweep
    tried = [part for name in sorted(asked.space) for part in ("--set", f"{name}={_later(f'search_space.{name}')}")]
    policy = asked.early_termination
    task = AzureMLSweepJobOperator(
        task_id="search_model",
        command=words(model, "trial", *tried),
        environment=model.compute.azure_ml.environment,
        search_space={name: told.model_dump(mode="json") for name, told in asked.space.items()},
        metric=METRIC,
        goal="maximize",
        sampling=asked.sampling,
        early_termination=policy.model_dump(mode="json", exclude_none=True) if policy else None,
        max_trials=asked.max_trials,
        max_concurrent=asked.max_concurrent,
        timeout=asked.timeout_seconds,
        trial_timeout=asked.trial_timeout_seconds,
        **_place(model),
    )
    return Search([task], ["--params", f"{{{{ {FOUND}['parameters'] | tojson }}}}"])


def _automl(model: ModelConfig) -> Search:
    """The best model of many families, kept as ONNX."""
    asked = model.train.automl
    rows = stage_task(model, "export_rows", {"automl_data": ["--training-set-version", VERSION]}, per_day=False)
    imputers = [{"fields": [name], "parameters": {"strategy": how}} for name, how in asked.imputation.items()]
    task = AzureMLAutoMLJobOperator(
        task_id="search_model",
        training_data="{{ ti.xcom_pull(task_ids='export_rows')['automl_data']['uri'] }}",
        target=model.label.name,
        metric=asked.metric,
        cross_validations=asked.fold_columns,
        timeout=asked.timeout_seconds,
        limits={
            "trial_timeout_minutes": -(-asked.trial_timeout_seconds // 60),
            "max_trials": asked.max_trials,
            "max_concurrent_trials": asked.max_concurrent,
            "enable_early_termination": asked.early_termination,
        },
        training={
            "allowed_training_algorithms": list(asked.algorithms),
            "enable_vote_ensemble": asked.vote_ensemble,
            "enable_stack_ensemble": asked.stack_ensemble,
            "enable_onnx_compatible_models": True,  # what is served is never unpickled
        },
        featurization={"mode": "custom", "transformer_params": {"imputer": imputers}} if imputers else {"mode": "auto"},
        best_model="azureml://datastores/workspaceblobstore/paths/automl/{run_key}/",
        **_place(model),
    )
    told = ["--automl-model", _later("inputs.best_model")]
    told += ["--automl-job", f"{{{{ {FOUND}['job'] }}}}", "--automl-algorithm", f"{{{{ {FOUND}['algorithm'] }}}}"]
    best_model = {"type": "uri_folder", "path": f"{{{{ {FOUND}['best_model'] }}}}"}
    return Search([rows, task], told, {"best_model": best_model})


def _later(name: str) -> str:
    """What Azure ML fills in, past Airflow's templates."""
    return "{% raw %}${{" + name + "}}{% endraw %}"


def _place(model: ModelConfig) -> dict[str, str]:
    return {"compute": model.compute.azure_ml.compute, "experiment": model.experiment}
