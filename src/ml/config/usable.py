"""The config files that can be used when others are broken: a broken file holds up only what is built on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeVar

from ml.config.features import FeatureTableConfig
from ml.config.load import (
    KINDS,
    ConfigError,
    list_names,
    load_feature_table,
    load_model,
    load_platform,
    load_source,
)
from ml.config.model import ModelConfig
from ml.config.project import Problem, Project, find_problems
from ml.config.source import SourceConfig

log = logging.getLogger(__name__)

Config = TypeVar("Config")
FOLDERS = list(KINDS.values())  # in the order in which nodes are built on each other


def load_usable_project() -> tuple[Project, list[str]]:
    """Every node whose files can be used, and what is wrong with the others: one sentence or more for each.

    A node needs its own file and those that it is built on. Of files that contradict each other, those of the last kind
    are left out, models before feature tables before sources. Two files of one kind, such as two models that would
    write one table, are both left out: it is not known which of them is right. Raises ConfigError when
    `config/platform.yaml` is broken, which all nodes need.
    """
    errors: list[str] = []

    def readable(kind: str, load: Callable[[str], Config]) -> dict[str, Config]:
        configs = {}
        for name in list_names(kind):
            try:
                configs[name] = load(name)
            except ConfigError as error:
                errors.append(str(error))
        return configs

    project = Project(
        load_platform(),
        readable("source", load_source),
        readable("feature table", load_feature_table),
        readable("model", load_model),
    )
    while problems := list(find_problems(project)):
        errors += map(str, problems)
        left_out = {place for problem in problems for place in _left_out(problem)}
        project = replace(
            project,
            sources=_without(project.sources, "sources", left_out),
            feature_tables=_without(project.feature_tables, "features", left_out),
            models=_without(project.models, "models", left_out),
        )
    return project, list(dict.fromkeys(errors))


def load_project_of(config: SourceConfig | FeatureTableConfig | ModelConfig) -> Project:
    """The nodes that can be used, for a stage of one of them; what is wrong with the others is logged.

    Raises ConfigError when the stage's own node cannot be used.
    """
    project, errors = load_usable_project()
    usable: Mapping[str, object] = {
        SourceConfig: project.sources,
        FeatureTableConfig: project.feature_tables,
        ModelConfig: project.models,
    }[type(config)]
    if config.name not in usable:
        raise ConfigError("\n".join(errors))
    for error in errors:
        log.warning("left out, with what is built on it: %s", error)
    return project


def _left_out(problem: Problem) -> list[tuple[str, str]]:
    """The folders and names of the files that cannot be used because of a problem."""
    paths = [PurePosixPath(file) for file in (problem.file, *problem.others)]
    last = max((path.parent.name for path in paths), key=FOLDERS.index)
    return [(last, path.stem) for path in paths if path.parent.name == last]


def _without(configs: Mapping[str, Config], folder: str, left_out: set[tuple[str, str]]) -> dict[str, Config]:
    return {name: config for name, config in configs.items() if (folder, name) not in left_out}
