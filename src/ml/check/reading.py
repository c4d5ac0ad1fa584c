"""Reads every config file that can be read, so that one bad file does not hide what is wrong in the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel

from ml.check.findings import Findings
from ml.config import (
    ConfigError,
    FeatureTableConfig,
    ModelConfig,
    Project,
    list_names,
    load_feature_table,
    load_model,
    load_platform,
    load_source,
)
from ml.config.load import KINDS
from ml.resources import resource_dir

Config = TypeVar("Config", bound=BaseModel)


def read_files(findings: Findings) -> Project | None:
    """All config files that are right in themselves; what is wrong in the others is added to the findings.

    Files that are built on a bad one are left out too: what they say cannot be checked. None without a platform.yaml.
    """
    bad: set[str] = set()
    sources = _read(findings, "source", load_source, bad)
    tables = _read(findings, "feature table", load_feature_table, bad)
    models = _read(findings, "model", load_model, bad)
    try:
        platform = load_platform()
    except ConfigError as error:
        _add(findings, "config/platform.yaml", error)
        return None
    project = Project(platform, sources, tables, models)
    if bad & set(map(_file_of_source, list_names("source"))):
        tables = {name: table for name, table in tables.items() if _is_known(project, table)}
    known = set(list_names("feature table")) - set(tables)
    models = {name: model for name, model in models.items() if not (known & set(model.features)) and (
        not bad or _label_is_known(project, model)
    )}  # fmt: skip
    return Project(platform, sources, tables, models)


def _read(findings: Findings, kind: str, load: Callable[[str], Config], bad: set[str]) -> dict[str, Config]:
    configs = {}
    for name in list_names(kind):
        try:
            configs[name] = load(name)
        except ConfigError as error:
            file = f"config/{KINDS[kind]}/{name}.yaml"
            bad.add(file)
            _add(findings, file, error)
    return configs


def _file_of_source(name: str) -> str:
    return f"config/sources/{name}.yaml"


def _add(findings: Findings, file: str, error: ConfigError) -> None:
    """One problem per bad key: the loader's message names the file first, then a key per line."""
    path = resource_dir("config") / file.removeprefix("config/")
    text = str(error).removeprefix(f"{path}:").strip()
    for line in text.split("\n  "):
        findings.add(file, "", line.strip())


def _is_known(project: Project, table: FeatureTableConfig) -> bool:
    return all(name in project.source_by_table for name in table.inputs)


def _label_is_known(project: Project, model: ModelConfig) -> bool:
    names = [*model.label.inputs, *([model.examples.table] if model.examples else [])]
    return all(name in project.source_by_table for name in names)
