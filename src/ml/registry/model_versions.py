"""Every call to MLflow: runs, registered versions, aliases, artifacts.

A version belongs to a run key: `register_once` keeps it at one version per key, whatever dies and
whoever runs at the same time. Importing mlflow takes two seconds, so it happens inside the functions.
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

CHAMPION = "champion"  # aliases follow `ml.registry.production`, which says what is in production
PREVIOUS = "previous"
DIGEST = "model_digest"  # tag of a version: sha256 of its files, as they were registered
ADDED = "registered_model_meta"  # a note that MLflow's client puts beside what it downloads


@dataclass(frozen=True)
class Version:
    """A registered version of a model, as it was when it was asked for."""

    model: str
    number: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"

    @property
    def digest(self) -> str:
        """What its files must hash to. Raises StageError for a version without: it must not be served."""
        if DIGEST not in self.tags:
            raise StageError(
                f"{self} was registered without the digest of its files, so it may not serve: train it anew"
            )
        return self.tags[DIGEST]

    def json_tag(self, key: str) -> dict[str, Any] | None:
        """What `tag` wrote under this key, or None."""
        return json.loads(self.tags[key]) if key in self.tags else None


def client() -> MlflowClient:
    """The MLflow that `MLFLOW_TRACKING_URI` names."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise StageError("MLFLOW_TRACKING_URI is not set: which MLflow server keeps the models?")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine unless asked for
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a log is no terminal
    from mlflow import MlflowClient

    return MlflowClient()


def _version(found: Any) -> Version:
    return Version(found.name, str(found.version), found.run_id, dict(found.tags))


def version(model: str, number: str) -> Version:
    """A registered version. Raises StageError when there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(client().get_model_version(model, str(number)))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        where = os.environ["MLFLOW_TRACKING_URI"]
        raise StageError(f"{model} version {number} is not in the registry at {where}") from error


def aliases(model: str) -> dict[str, str]:
    """The version number that each alias of a model points at; none when the model is not there."""
    asked = client()
    from mlflow.exceptions import MlflowException

    try:
        found = asked.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
        return {}
    return {alias: str(number) for alias, number in found.items()}


def aliased(model: str, alias: str = CHAMPION) -> Version | None:
    """The version that bears an alias, for people; stages ask `production.champion`, which nobody moves by hand."""
    found = aliases(model)
    return version(model, found[alias]) if alias in found else None


def move_alias(model: str, alias: str, number: str) -> None:
    """Point an alias at a version. MLflow has no compare-and-set: the last writer wins."""
    client().set_registered_model_alias(model, alias, number)


def drop_alias(model: str, alias: str) -> None:
    """Take an alias away; one that is not there is no error."""
    client().delete_registered_model_alias(model, alias)


def tag(of: Version, key: str, value: Mapping[str, Any]) -> None:
    """Write one tag, as JSON: a single write, so what belongs together is never seen by halves."""
    client().set_model_version_tag(of.model, of.number, key, json.dumps(value, sort_keys=True))


def versions(model: str) -> list[Version]:
    """Every registered version of a model, oldest first."""
    found = client().search_model_versions(f"name = '{model}'", max_results=10000)
    return sorted(map(_version, found), key=lambda one: int(one.number))


def by_run_key(model: str, run_key: str) -> Version | None:
    """The version that a run key has made, or None. Of several, the first counts (see `register_once`)."""
    if "'" in run_key:
        raise StageError(f"run key {run_key!r}: no quotes, MLflow's filters cannot express them")
    found = client().search_model_versions(f"name = '{model}' and tags.run_key = '{run_key}'")
    return min(map(_version, found), key=lambda v: int(v.number), default=None)


def artifact(of: Version, path: str) -> bytes:
    """An artifact of the run that made a version. Raises StageError naming run and path when it is not there."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client().download_artifacts(of.run_id, path, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            raise StageError(f"{of}: artifact {path} of run {of.run_id} cannot be read: {error}") from error


def page(of: Version, path: str) -> str:
    """Where a person's browser finds an artifact of the run that made a version."""
    asked = client()
    where = os.environ["MLFLOW_TRACKING_URI"].rstrip("/")
    return f"{where}/#/experiments/{asked.get_run(of.run_id).info.experiment_id}/runs/{of.run_id}/artifacts/{path}"


def digest_of(folder: Path) -> str:
    """sha256 over the names and contents of a model's files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != ADDED:
            total.update(f"{len(name.encode())}:{name}:{path.stat().st_size}:".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


@contextmanager
def files(of: Version) -> Iterator[Path]:
    """A version's files in a folder of their own, after they were found to be those that were registered.

    Raises StageError naming both digests when they are not: nothing of them has been read then.
    """
    from mlflow.artifacts import download_artifacts

    expected = of.digest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(download_artifacts(artifact_uri=f"models:/{of.model}/{of.number}", dst_path=folder))
        found = digest_of(path)
        if found != expected:
            raise StageError(
                f"{of}: its files hash to {found}, and {expected} was recorded: somebody has changed them, or the "
                "record. It may not serve; find out who, and train another version"
            )
        yield path


def verify(of: Version) -> None:
    """Raise StageError unless a version's files are those that were registered."""
    with files(of):
        pass


def load(of: Version) -> Predictor:
    """Check a version's files and read it. Raises StageError when it is of a format that could execute code (`ml.models.predictors`)."""
    from ml.models import predictors

    with files(of) as path:
        return predictors.read(path, str(of))


def signature(features: tuple[Feature, ...]) -> ModelSignature:
    """The columns a model takes, and the one probability it gives."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    def spec(feature: Feature) -> ColSpec:
        kind = DataType.string if feature.kind == "category" else DataType.double
        return ColSpec(kind, feature.name, required=False)  # nulls are allowed: the trees know where they go

    return ModelSignature(inputs=Schema([spec(f) for f in features]), outputs=Schema([ColSpec(DataType.double)]))


@contextmanager
def training_run(experiment: str, run_key: str, tags: Mapping[str, str]) -> Iterator[str]:
    """A new run that is MLflow's active one inside the block; ends FINISHED, or FAILED when the block raises.

    Runs that an earlier attempt at the same run key left behind are marked as superseded first: they
    have no registered version, and what they logged may be half of it.
    """
    asked = client()
    import mlflow

    found = mlflow.set_experiment(experiment)
    left_over = asked.search_runs([found.experiment_id], f"tags.run_key = '{run_key}'")
    run = asked.create_run(found.experiment_id, tags={**tags, "run_key": run_key}, run_name=run_key)
    for old in left_over:
        asked.set_tag(old.info.run_id, "superseded_by", run.info.run_id)
        if old.info.status == "RUNNING":
            asked.set_terminated(old.info.run_id, "KILLED")
    with mlflow.start_run(run_id=run.info.run_id):
        yield run.info.run_id


def log_model(predictor: Predictor) -> str:
    """Log a model, in LightGBM's own text or as ONNX, into the active run; returns the model's URI."""
    import numpy
    import pandas

    from ml.models import onnx_flavor, predictors

    signed = signature(predictor.features)
    # naming the requirements spares MLflow half a minute of finding them out
    needed = [f"{library.__name__}=={library.__version__}" for library in (numpy, pandas)]
    if isinstance(predictor, predictors.LightGBMPredictor):
        import lightgbm
        import mlflow.lightgbm

        needed.append(f"lightgbm=={lightgbm.__version__}")
        logged = mlflow.lightgbm.log_model(predictor.booster, name="model", signature=signed, pip_requirements=needed)
        return str(logged.model_uri)
    if isinstance(predictor, predictors.OnnxPredictor):
        import onnxruntime
        from mlflow.models import Model

        needed.append(f"onnxruntime=={onnxruntime.__version__}")
        packed = {"content": predictor.content, "requirements": needed, "signature": signed}
        return str(Model.log(None, onnx_flavor, name="model", **packed).model_uri)
    raise TypeError(f"{predictor.name}: no way to keep a {type(predictor).__name__}")


def log_files(run_id: str, files: Mapping[str, bytes]) -> None:
    """Log artifacts of these names and contents to a run, replacing those that are there."""
    asked = client()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            asked.log_artifact(run_id, str(path))


def register_once(model: str, uri: str, run_key: str, tags: Mapping[str, str]) -> Version:
    """Register a logged model as the version of a run key, with the digest of its files; of two at once the lower
    number stays.

    Version numbers grow in the order of the commits, so whoever finds a lower one than its own knows
    that it came second, and takes its own away.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        digest = digest_of(Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)))
    mine = _version(mlflow.register_model(uri, model, tags={**tags, "run_key": run_key, DIGEST: digest}))
    first = by_run_key(model, run_key)
    if first is None:
        raise StageError(f"{mine} is registered and not found by its run key {run_key!r}: was it deleted meanwhile?")
    if first.number != mine.number:
        client().delete_model_version(mine.model, mine.number)
    return first


def finish(of: Version) -> None:
    """Mark a version's run as finished: a process may have died between registering and saying so."""
    asked = client()
    if asked.get_run(of.run_id).info.status != "FINISHED":
        asked.set_terminated(of.run_id, "FINISHED")
