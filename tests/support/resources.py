"""Config, queries and expectations of a single test, found through `ML_RESOURCES` as those of a deployment are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml.config import ModelConfig, load_model
from ml.resources import resource_dir


class Resources:
    """A folder of resources that this process, and those it starts, use in place of the project's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("ML_RESOURCES", str(folder))

    def put_model(self, config: ModelConfig) -> ModelConfig:
        """Write a model's config under its own file name. Returns the config as loaded from there."""
        self.write("config", f"{config.model}.yaml", yaml.safe_dump(config.model_dump(mode="json")))
        return load_model(config.model)

    def change_model(self, name: str = "churn", **sections: dict[str, Any]) -> ModelConfig:
        """Change values in sections of a model's config: `change_model(gate={"min_rows": 1})`."""
        config = load_model(name)
        changed = {section: getattr(config, section).model_copy(update=new) for section, new in sections.items()}
        return self.put_model(config.model_copy(update=changed))

    def write(self, kind: str, name: str, text: str) -> Path:
        """Write one file. The project's own files of that kind are then not found; `copy_all` copies them."""
        path = self.folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def copy_all(self) -> None:
        """Copy the project's own files of every kind, to change them."""
        for kind in ("config", "sql", "expectations"):
            if (source := resource_dir(kind)) != self.folder / kind:  # what a test has written stays
                shutil.copytree(source, self.folder / kind)


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resources:
    return Resources(tmp_path / "resources", monkeypatch)
