"""Config, queries and expectations of a test's own, found as a deployment's are: through `ML_RESOURCES`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml.config import ModelConfig, load_model
from ml.resources import resource_dir


class Resources:
    """A folder of resources that this process, and those it starts, take in place of the project's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("ML_RESOURCES", str(folder))

    def put_model(self, model: ModelConfig) -> ModelConfig:
        """Write a model's config; its own file name. The model as it is read from there."""
        self.write("config", f"{model.model}.yaml", yaml.safe_dump(model.model_dump(mode="json")))
        return load_model(model.model)

    def change_model(self, name: str = "churn", **sections: dict[str, Any]) -> ModelConfig:
        """Other values in some sections of a model: `change_model(gate={"min_rows": 1})`."""
        model = load_model(name)
        changed = {section: getattr(model, section).model_copy(update=new) for section, new in sections.items()}
        return self.put_model(model.model_copy(update=changed))

    def write(self, kind: str, name: str, text: str) -> Path:
        """Write one file; a test that writes the first query or suite has none of the project's beside it."""
        path = self.folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def copy_all(self) -> None:
        """The project's own files of every kind, to be changed."""
        for kind in ("config", "sql", "expectations"):
            shutil.copytree(resource_dir(kind), self.folder / kind, dirs_exist_ok=True)


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resources:
    return Resources(tmp_path / "resources", monkeypatch)
