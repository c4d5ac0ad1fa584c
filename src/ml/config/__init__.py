"""Typed, frozen settings of sources, feature tables and models; they refuse unknown keys.

Imports stay light: every Dag file imports this package when it is parsed. A name's module is imported at its first use,
because the start of a task needs the classes of one kind of file only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.config.features import Edge, FeatureTableConfig
    from ml.config.load import (
        ConfigError,
        list_names,
        load_feature_table,
        load_model,
        load_models,
        load_platform,
        load_source,
    )
    from ml.config.model import ModelConfig
    from ml.config.platform import PlatformConfig
    from ml.config.project import Project, load_project
    from ml.config.source import SourceConfig
    from ml.config.usable import load_project_of, load_usable_project

_MODULES = {
    "features": ("Edge", "FeatureTableConfig"),
    "load": (
        "ConfigError",
        "list_names",
        "load_feature_table",
        "load_model",
        "load_models",
        "load_platform",
        "load_source",
    ),
    "model": ("ModelConfig",),
    "platform": ("PlatformConfig",),
    "project": ("Project", "load_project"),
    "source": ("SourceConfig",),
    "usable": ("load_project_of", "load_usable_project"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ConfigError",
    "Edge",
    "FeatureTableConfig",
    "ModelConfig",
    "PlatformConfig",
    "Project",
    "SourceConfig",
    "list_names",
    "load_feature_table",
    "load_model",
    "load_models",
    "load_platform",
    "load_project",
    "load_project_of",
    "load_source",
    "load_usable_project",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ml.config.{_MODULE_OF[name]}"), name)
