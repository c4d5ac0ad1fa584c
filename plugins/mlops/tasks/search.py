"""The search for the model to train, as `train.method` says, and how its result reaches the training job.

A search uses the training part only: the test rows must not influence what they measure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml.config import load_platform
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from ml.config import ModelConfig

METRIC = "validation_roc_auc"  # as the stage `trial` logs it
VERSION = "{{ ti.xcom_pull(task_ids='build_training_set')['training_set']['version'] | int }}"
RESULT = "ti.xcom_pull(task_ids='search_model')"


@dataclass(frozen=True)
class Search:
    """Tasks before the training job, one after the other, and the job's arguments and inputs from them."""

    tasks: list[BaseOperator] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)


def training_command(model: ModelConfig, stage: str, *arguments: str) -> list[str]:
    """The command of a job that runs a stage on the training set, one word per argument."""
    return ["python", "-m", "ml", stage, "--model", model.model, "--training-set-version", VERSION, *arguments]


def make_search(model: ModelConfig) -> Search:
    """The search that the model's config names."""
    return {"job": lambda _: Search(), "sweep": _sweep, "automl": _automl}[model.train.method](model)


def _sweep(model: ModelConfig) -> Search:
    """A sweep: the best of many sets of parameters."""
    from azure_ml.operators.sweep import AzureMLSweepJobOperator

    sweep = model.train.sweep
    assert sweep is not None  # its config is refused without it
    settings = [f"{name}={_azure_ml_expression(f'search_space.{name}')}" for name in sorted(sweep.space)]
    arguments = [word for setting in settings for word in ("--set", setting)]
    policy = sweep.early_termination
    task = AzureMLSweepJobOperator(
        task_id="search_model",
        command=training_command(model, "trial", *arguments),
        environment=load_platform().compute.azure_ml.environment,
        search_space={name: distribution.model_dump(mode="json") for name, distribution in sweep.space.items()},
        metric=METRIC,
        goal="maximize",
        sampling=sweep.sampling,
        early_termination=policy.model_dump(mode="json", exclude_none=True) if policy else None,
        max_trials=sweep.max_trials,
        max_concurrent=sweep.max_concurrent,
        timeout=sweep.timeout_seconds,
        trial_timeout=sweep.trial_timeout_seconds,
        **_target(model),
    )
    return Search([task], ["--params", f"{{{{ {RESULT}['parameters'] | tojson }}}}"])


def _automl(model: ModelConfig) -> Search:
    """AutoML: the best model of many algorithm families, as ONNX."""
    from azure_ml.operators.automl import AzureMLAutoMLJobOperator

    automl = model.train.automl
    assert automl is not None  # its config is refused without it
    rows = stage_task(
        "export_rows", {"automl_data": ["--training-set-version", VERSION]}, model=model.name, per_day=False
    )
    imputers = [{"fields": [name], "parameters": {"strategy": how}} for name, how in automl.imputation.items()]
    task = AzureMLAutoMLJobOperator(
        task_id="search_model",
        training_data="{{ ti.xcom_pull(task_ids='export_rows')['automl_data']['uri'] }}",
        target=model.label.name,
        metric=automl.metric,
        cross_validations=automl.fold_columns,
        timeout=automl.timeout_seconds,
        limits={
            "trial_timeout_minutes": -(-automl.trial_timeout_seconds // 60),
            "max_trials": automl.max_trials,
            "max_concurrent_trials": automl.max_concurrent,
            "enable_early_termination": automl.early_termination,
        },
        training={
            "allowed_training_algorithms": list(automl.algorithms),
            "enable_vote_ensemble": automl.vote_ensemble,
            "enable_stack_ensemble": automl.stack_ensemble,
            "enable_onnx_compatible_models": True,  # a served model is never unpickled
        },
        featurization={"mode": "custom", "transformer_params": {"imputer": imputers}} if imputers else {"mode": "auto"},
        best_model="azureml://datastores/workspaceblobstore/paths/automl/{run_key}/",
        **_target(model),
    )
    arguments = ["--automl-model", _azure_ml_expression("inputs.best_model")]
    arguments += [
        "--automl-job",
        f"{{{{ {RESULT}['job'] }}}}",
        "--automl-algorithm",
        f"{{{{ {RESULT}['algorithm'] }}}}",
    ]
    best_model = {"type": "uri_folder", "path": f"{{{{ {RESULT}['best_model'] }}}}"}
    return Search([rows, task], arguments, {"best_model": best_model})


def _azure_ml_expression(name: str) -> str:
    """A `${{…}}` that Azure ML fills in; Airflow's templates leave it alone."""
    return "{% raw %}${{" + name + "}}{% endraw %}"


def _target(model: ModelConfig) -> dict[str, str]:
    return {"compute": load_platform().compute.azure_ml.compute, "experiment": model.experiment}
