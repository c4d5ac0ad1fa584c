"""Config, queries and expectations of a single test, found through `ML_RESOURCES` as those of a deployment are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from pydantic import BaseModel

from ml.config import (
    FeatureTableConfig,
    ModelConfig,
    SourceConfig,
    load_feature_table,
    load_model,
    load_source,
)
from ml.resources import resource_dir

Config = TypeVar("Config", SourceConfig, FeatureTableConfig, ModelConfig)
FOLDERS: dict[type[BaseModel], str] = {SourceConfig: "sources", FeatureTableConfig: "features", ModelConfig: "models"}
LOADERS = {SourceConfig: load_source, FeatureTableConfig: load_feature_table, ModelConfig: load_model}


class Resources:
    """A folder of resources that this process, and those it starts, use in place of the project's own.

    The first config file that a test writes brings the project's other config files along.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("ML_RESOURCES", str(folder))

    def put(self, config: Config) -> Config:
        """Write a source's, feature table's or model's config under its own name. Returns it as loaded from there."""
        text = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
        self.write("config", f"{FOLDERS[type(config)]}/{config.name}.yaml", text)
        return LOADERS[type(config)](config.name)

    def change_source(self, name: str = "transactions", **sections: Any) -> SourceConfig:
        """Change values of a source: `change_source(landing={"bulk_days": 3}, timezone="Europe/London")`."""
        return self.put(_changed(load_source(name), sections))

    def change_table(self, name: str = "customers", **sections: Any) -> FeatureTableConfig:
        """Change values of a feature table: `change_table(settings={"active_days": 30})`."""
        return self.put(_changed(load_feature_table(name), sections))

    def change_model(self, name: str = "churn", **sections: Any) -> ModelConfig:
        """Change values of a model: `change_model(gate={"min_rows": 1})`."""
        return self.put(_changed(load_model(name), sections))

    def write(self, kind: str, name: str, text: str) -> Path:
        """Write one file. Other files of that kind are copies of the project's own; `remove` takes one away."""
        self.copy(kind)
        path = self.folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def remove(self, kind: str, name: str) -> None:
        """Take away one of the project's own files, or a folder of them."""
        self.copy(kind)
        path = self.folder / kind / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def copy(self, kind: str) -> None:
        """Copy the project's own files of one kind, once."""
        if (source := resource_dir(kind)) != self.folder / kind:  # type: ignore[arg-type]
            shutil.copytree(source, self.folder / kind)

    def copy_all(self) -> None:
        """Copy the project's own files of every kind, to change them."""
        for kind in ("config", "sql", "expectations"):
            self.copy(kind)


def _changed(config: Config, sections: dict[str, Any]) -> Config:
    """The config with other values; in a section, the values that are not given stay."""
    values = {}
    for name, new in sections.items():
        section = getattr(config, name)
        if isinstance(new, dict) and isinstance(section, BaseModel):
            new = section.model_copy(update=new)
        elif isinstance(new, dict) and isinstance(section, dict):
            new = section | new
        values[name] = new
    return config.model_copy(update=values)


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resources:
    return Resources(tmp_path / "resources", monkeypatch)
