"""The model that an AutoML job has made: found, fetched and described. Only its ONNX file is taken.

What lies beside it (Azure ML puts a pickle there) is not looked at: see `ml.models.predictors`.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from ml.errors import StageError
from ml.storage import stores

FILE = "model.onnx"
DIGEST = "automl_sha256"


def fetch(where: str) -> bytes:
    """The ONNX file: `where` is it or the folder it is in, local or `az://container/path`. Raises StageError."""
    if where.startswith("az://"):
        container, _, path = where.removeprefix("az://").partition("/")
        files = stores.open_store(f"az://{container}")
        found = [blob.name for blob in files.list(path.rstrip("/"))]
        below = f"{path.rstrip('/')}/"
        inside = sorted(name.removeprefix(below) for name in found if name.startswith(below))
        chosen = path if path in found else below + _the_one(where, inside)
        return files.read(chosen)
    if "://" in where or where.startswith("azureml:"):
        raise StageError(
            f"--automl-model {where}: a local path or az://container/path is needed. Give an azureml:// address to the "
            "job as an input, and the input's place here (${{inputs.automl_model}})"
        )
    local = Path(where)
    if local.is_file():
        return local.read_bytes()
    inside = sorted(file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file())
    return (local / _the_one(where, inside)).read_bytes()


def _the_one(where: str, inside: list[str]) -> str:
    """The ONNX file among a folder's files."""
    found = [name for name in inside if name.rpartition("/")[2] == FILE]
    if len(found) != 1:
        held = ", ".join(inside[:10]) or "nothing"
        raise StageError(
            f"--automl-model {where}: exactly one {FILE} is needed, and there are {len(found)}; it holds {held}. AutoML makes it "
            "when it is asked for ONNX compatible models (enable_onnx_compatible_models)"
        )
    return found[0]


def provenance(args: argparse.Namespace, content: bytes) -> dict[str, str]:
    """Tags that tell where a version's model came from."""
    return {DIGEST: hashlib.sha256(content).hexdigest(), **({"automl_job": args.automl_job} if args.automl_job else {})}
