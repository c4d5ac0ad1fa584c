"""The model that an AutoML job has fitted: located, fetched and described. Only its ONNX file is read.

Other files beside it (Azure ML writes a pickle there) are not read: see `ml.models.predictors`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ml.errors import StageError
from ml.storage import stores

FILE = "model.onnx"
DIGEST = "automl_sha256"  # tag of a version: SHA-256 of AutoML's ONNX file


@dataclass(frozen=True)
class AutomlModel:
    """Where an AutoML job has put its model, and what it reported of it."""

    location: str  # the ONNX file or its folder: a local path or az://container/path
    job: str = ""
    algorithm: str = ""


def fetch(location: str) -> bytes:
    """The content of the ONNX file at, or in the folder at, `location`: a local path or `az://container/path`.

    Raises StageError for another kind of address, and unless a folder holds exactly one `model.onnx`.
    """
    if location.startswith("az://"):
        container, _, path = location.removeprefix("az://").partition("/")
        store = stores.open_store(f"az://{container}")
        blobs = [blob.name for blob in store.list(path.rstrip("/"))]
        folder = f"{path.rstrip('/')}/"
        names = sorted(blob.removeprefix(folder) for blob in blobs if blob.startswith(folder))
        return store.read(path if path in blobs else folder + _only_onnx_file(location, names))
    if "://" in location or location.startswith("azureml:"):
        raise StageError(
            f"--automl-model {location}: a local path or az://container/path is needed. Give an azureml:// address to the "
            "job as an input, and the input's path here (${{inputs.automl_model}})"
        )
    local = Path(location)
    if local.is_file():
        return local.read_bytes()
    names = sorted(file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file())
    return (local / _only_onnx_file(location, names)).read_bytes()


def _only_onnx_file(location: str, names: list[str]) -> str:
    """The one ONNX file among a folder's files. Raises StageError when there is none, or more than one."""
    onnx_files = [name for name in names if name.rpartition("/")[2] == FILE]
    if len(onnx_files) != 1:
        content = ", ".join(names[:10]) or "nothing"
        raise StageError(
            f"--automl-model {location}: exactly one {FILE} is needed, and there are {len(onnx_files)}; the folder has "
            f"{content}. AutoML writes one when ONNX compatible models are enabled (enable_onnx_compatible_models)"
        )
    return onnx_files[0]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def provenance(content: bytes, job: str) -> dict[str, str]:
    """Tags that say where a version's model came from."""
    return {DIGEST: digest(content), **({"automl_job": job} if job else {})}
