"""Every call to MLflow: runs, registered versions, aliases, artifacts.

A version belongs to a run key: `register_once` registers one version per key, even when a process dies or two run at
the same time. Importing mlflow takes two seconds, so it happens inside the functions.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.errors import StageError
from ml.models.frames import Feature
from ml.models.predictors import Predictor

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

CHAMPION = "champion"  # aliases follow `ml.registry.production`, which decides what is in production
PREVIOUS = "previous"
DIGEST = "model_digest"  # tag of a version: sha256 of its files, as they were registered
CLIENT_FILE = "registered_model_meta"  # MLflow's client adds this file to a download


@dataclass(frozen=True)
class Version:
    """A registered version of a model, as it was when it was read."""

    model: str
    number: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"

    @property
    def digest(self) -> str:
        """The sha256 that its files must have. Raises StageError when none was recorded: the version must not be served."""
        if DIGEST not in self.tags:
            raise StageError(
                f"{self} was registered without the digest of its files, so it must not be served: train a new version"
            )
        return self.tags[DIGEST]

    def json_tag(self, key: str) -> dict[str, Any] | None:
        """The value that `set_tag` wrote under this key, or None."""
        return json.loads(self.tags[key]) if key in self.tags else None


def client() -> MlflowClient:
    """The MLflow that `MLFLOW_TRACKING_URI` names."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise StageError(
            "MLFLOW_TRACKING_URI is not set: set it to the address of the MLflow server that holds the models"
        )
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no data leaves the machine unrequested
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a log is not a terminal
    from mlflow import MlflowClient

    return MlflowClient()


def _to_version(entity: Any) -> Version:
    return Version(entity.name, str(entity.version), entity.run_id, dict(entity.tags))


def get_version(model: str, number: str) -> Version:
    """A registered version. Raises StageError when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return _to_version(client().get_model_version(model, str(number)))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        registry = os.environ["MLFLOW_TRACKING_URI"]
        raise StageError(f"{model} version {number} is not in the registry at {registry}") from error


def get_aliases(model: str) -> dict[str, str]:
    """The version number of each alias of a model; empty when the model does not exist."""
    registry = client()
    from mlflow.exceptions import MlflowException

    try:
        numbers = registry.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        return {}
    return {alias: str(number) for alias, number in numbers.items()}


def version_of_alias(model: str, alias: str = CHAMPION) -> Version | None:
    """The version that an alias points at. Stages use `production.get_champion` instead, which nobody can move by hand."""
    numbers = get_aliases(model)
    return get_version(model, numbers[alias]) if alias in numbers else None


def move_alias(model: str, alias: str, number: str) -> None:
    """Point an alias at a version. MLflow has no compare-and-set: the last writer wins."""
    client().set_registered_model_alias(model, alias, number)


def drop_alias(model: str, alias: str) -> None:
    """Delete an alias; a missing one is no error."""
    client().delete_registered_model_alias(model, alias)


def set_tag(version: Version, key: str, value: Mapping[str, Any]) -> None:
    """Write one tag, as JSON: values that belong together are in one tag, so no reader sees half of them."""
    client().set_model_version_tag(version.model, version.number, key, json.dumps(value, sort_keys=True))


def list_versions(model: str) -> list[Version]:
    """Every registered version of a model, oldest first."""
    entities = client().search_model_versions(f"name = '{model}'", max_results=10000)
    return sorted(map(_to_version, entities), key=lambda version: int(version.number))


def find_by_run_key(model: str, run_key: str) -> Version | None:
    """The version that a run key registered, or None. Of several, the lowest number counts (see `register_once`)."""
    if "'" in run_key:
        raise StageError(
            f"run key {run_key!r} contains a quote, which MLflow's filters cannot express: use another run key"
        )
    entities = client().search_model_versions(f"name = '{model}' and tags.run_key = '{run_key}'")
    return min(map(_to_version, entities), key=lambda version: int(version.number), default=None)


def read_artifact(version: Version, path: str) -> bytes:
    """An artifact of the run that trained a version. Raises StageError naming run and path when it cannot be read."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client().download_artifacts(version.run_id, path, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            raise StageError(f"{version}: artifact {path} of run {version.run_id} cannot be read: {error}") from error


def artifact_url(version: Version, path: str) -> str:
    """The address in MLflow's web interface of an artifact of the run that trained a version."""
    experiment = client().get_run(version.run_id).info.experiment_id
    server = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    return f"{server}/#/experiments/{experiment}/runs/{version.run_id}/artifacts/{path}"


def digest_files(folder: Path) -> str:
    """sha256 over the names and contents of a model's files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != CLIENT_FILE:
            total.update(f"{len(name.encode())}:{name}:{path.stat().st_size}:".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


@contextmanager
def verified_files(version: Version) -> Iterator[Path]:
    """Download a version's files to a temporary folder and check their digest.

    Raises StageError naming both digests when they are not the registered files; no file has been parsed by then.
    """
    from mlflow.artifacts import download_artifacts

    expected = version.digest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(download_artifacts(artifact_uri=f"models:/{version.model}/{version.number}", dst_path=folder))
        actual = digest_files(path)
        if actual != expected:
            raise StageError(
                f"{version}: its files have digest {actual}, but {expected} was recorded: somebody has changed the files "
                "or the record. It must not be served; find out who changed them, and train another version"
            )
        yield path


def verify(version: Version) -> None:
    """Raise StageError unless a version's files are the registered ones."""
    with verified_files(version):
        pass


def load(version: Version) -> Predictor:
    """Check a version's files and load the model. Raises StageError for a format that could execute code (`ml.models.predictors`)."""
    from ml.models import predictors

    with verified_files(version) as path:
        return predictors.read_predictor(path, str(version))


def build_signature(features: tuple[Feature, ...]) -> ModelSignature:
    """The input columns of a model, and its one output, a probability."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    def spec(feature: Feature) -> ColSpec:
        kind = DataType.string if feature.kind == "category" else DataType.double
        return ColSpec(kind, feature.name, required=False)  # nulls are allowed: the trees handle them

    return ModelSignature(inputs=Schema([spec(f) for f in features]), outputs=Schema([ColSpec(DataType.double)]))


def find_or_create_experiment(tracking: MlflowClient, name: str) -> str:
    """The id of an experiment. Unlike `mlflow.set_experiment`, leaves this process's environment as it is."""
    from mlflow.exceptions import MlflowException

    found = tracking.get_experiment_by_name(name)
    if found is None:
        try:
            return str(tracking.create_experiment(name))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = tracking.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise StageError(f"MLflow's experiment {name} is deleted: restore it, or delete it permanently")
    return str(found.experiment_id)


@contextmanager
def training_run(experiment: str, run_key: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Start a run that is MLflow's active one inside the block; ends FINISHED, or FAILED when the block raises.

    Runs that an earlier attempt with the same run key left behind are marked as superseded first: they have no
    registered version, and what they logged may be incomplete.
    """
    tracking = client()
    import mlflow

    experiment_id = find_or_create_experiment(tracking, experiment)
    left_over = tracking.search_runs([experiment_id], f"tags.run_key = '{run_key}'")
    run = tracking.create_run(experiment_id, tags={**tags, "run_key": run_key}, run_name=run_key)
    for old in left_over:
        tracking.set_tag(old.info.run_id, "superseded_by", run.info.run_id)
        if old.info.status == "RUNNING":
            tracking.set_terminated(old.info.run_id, "KILLED")
    with mlflow.start_run(run_id=run.info.run_id):
        yield run.info.run_id


def log_model(predictor: Predictor) -> str:
    """Log a model, in LightGBM's own text or as ONNX, into the active run; returns the model's URI."""
    import numpy
    import pandas

    from ml.models import onnx_flavor, predictors

    signature = build_signature(predictor.features)
    # with named requirements MLflow does not spend half a minute on inferring them
    requirements = [f"{library.__name__}=={library.__version__}" for library in (numpy, pandas)]
    if isinstance(predictor, predictors.LightGBMPredictor):
        import lightgbm
        import mlflow.lightgbm

        requirements.append(f"lightgbm=={lightgbm.__version__}")
        logged = mlflow.lightgbm.log_model(
            predictor.booster, name="model", signature=signature, pip_requirements=requirements
        )
        return str(logged.model_uri)
    if isinstance(predictor, predictors.OnnxPredictor):
        import onnxruntime
        from mlflow.models import Model

        requirements.append(f"onnxruntime=={onnxruntime.__version__}")
        packed = {"content": predictor.content, "requirements": requirements, "signature": signature}
        return str(Model.log(None, onnx_flavor, name="model", **packed).model_uri)
    raise TypeError(f"{predictor.name}: cannot log a model of type {type(predictor).__name__}")


def log_files(run_id: str, files: Mapping[str, bytes]) -> None:
    """Log artifacts to a run, by name; existing ones are replaced."""
    tracking = client()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            tracking.log_artifact(run_id, str(path))


def register_once(model: str, uri: str, run_key: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model as the version of a run key, with the digest of its files.

    When two processes register at once, the lower number stays: version numbers grow in the order of the commits, so
    the process that finds a lower number than its own deletes its own.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        digest = digest_files(Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)))
    mine = _to_version(mlflow.register_model(uri, model, tags={**tags, "run_key": run_key, DIGEST: digest}))
    first = find_by_run_key(model, run_key)
    if first is None:
        raise StageError(
            f"{mine} was registered but is not found by its run key {run_key!r}: it may have been deleted meanwhile"
        )
    if first.number != mine.number:
        client().delete_model_version(mine.model, mine.number)
    return first


def finish_run(version: Version) -> None:
    """Mark a version's run as finished: a process may have died after registering and before marking it."""
    tracking = client()
    if tracking.get_run(version.run_id).info.status != "FINISHED":
        tracking.set_terminated(version.run_id, "FINISHED")
