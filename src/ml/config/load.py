"""Reads config files from YAML. Every error names the file, the key, what was found and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ml.config.types import NAME
from ml.resources import last_change, resource_dir

if TYPE_CHECKING:
    from ml.config.features import FeatureTableConfig
    from ml.config.model import ModelConfig
    from ml.config.platform import PlatformConfig
    from ml.config.source import SourceConfig

try:  # libyaml reads config/models/churn.yaml in 7 ms, PyYAML's own parser in 98 ms
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without its C extension
    from yaml import SafeLoader  # type: ignore[assignment]

Settings = TypeVar("Settings", bound=BaseModel)
KINDS = {"source": "sources", "feature table": "features", "model": "models"}  # what a file describes, and its folder


class ConfigError(ValueError):
    """A config file that cannot be used; the message names file, key, what was found and what is allowed."""


class _Loader(SafeLoader):
    """Plain YAML that refuses a repeated key: of two values for one threshold, one would be ignored."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for place, key in enumerate(keys):
        if any(key.value == before.value for before in keys[:place]):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _to_tuples(value: Any) -> Any:
    """YAML lists as tuples: strict, frozen models hold nothing that can be changed."""
    if isinstance(value, dict):
        return {key: _to_tuples(inner) for key, inner in value.items()}
    return tuple(_to_tuples(inner) for inner in value) if isinstance(value, list) else value


def _explain(path: Path, kind: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif problem["type"] == "extra_forbidden":
            allowed = ", ".join(_allowed_keys(kind, problem["loc"][:-1]))
            lines.append(f"{key}: unknown key; allowed here: {allowed}")
        else:
            lines.append(f"{key}: found {problem['input']!r}; {problem['msg']}")
    return f"{path}:\n  " + "\n  ".join(lines)


def _allowed_keys(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the (nested) settings class at `loc`, a place in a config of this kind."""
    for part in loc:
        fields = kind.model_fields if _is_settings(kind) else {}
        field = next((f for name, f in fields.items() if part in (name, f.alias)), None)
        if (
            field is not None
        ):  # else a key of a mapping, an index of a list, or the tag of a union: within the same type
            kind = _settings_within(field.annotation)
    return sorted(f.alias or name for name, f in kind.model_fields.items()) if _is_settings(kind) else []


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _settings_within(kind: Any) -> Any:
    """The first settings class among a type and its arguments: of `tuple[Rule, ...]` it is Rule."""
    if _is_settings(kind):
        return kind
    return next((found for arg in getattr(kind, "__args__", ()) if _is_settings(found := _settings_within(arg))), kind)


def read_file(path: Path) -> dict[str, Any]:
    """The content of one config file, unchecked. Raises ConfigError when it is not a mapping in YAML."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such file; there are: {known}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: found {type(settings).__name__}; a mapping of settings is needed")
    return settings


def check(path: Path, settings: Any, kind: type[Settings]) -> Settings:
    """The settings that were read from a file. Raises ConfigError naming every bad key at once."""
    try:
        return kind.model_validate(_to_tuples(settings))
    except ValidationError as error:
        raise ConfigError(_explain(path, kind, error)) from error


def load_file(path: Path, kind: type[Settings]) -> Settings:
    """Read one config file. Raises ConfigError naming every bad key at once."""
    config = check(path, read_file(path), kind)
    name = getattr(config, "name", path.stem)
    if name != path.stem:
        raise ConfigError(f"{path}: found the name {name!r}; must be the file's name, {path.stem!r}")
    return config


def config_path(kind: str, name: str) -> Path:
    """The file of a source, feature table or model, whether it exists or not."""
    if not re.fullmatch(NAME, name, re.ASCII):
        raise ConfigError(f"{kind} name {name[:60]!r}: at most 50 lower-case letters, digits and _ only")
    return resource_dir("config") / KINDS[kind] / f"{name}.yaml"


def list_names(kind: str) -> list[str]:
    """The names of all sources, feature tables or models, ordered; no file is read."""
    return sorted(path.stem for path in (resource_dir("config") / KINDS[kind]).glob("*.yaml"))


def load_source(name: str) -> SourceConfig:
    """The config of a source. The file is read again only after a change, as are those of the other kinds."""
    from ml.config.source import SourceConfig

    return _load(config_path("source", name), SourceConfig)


def load_feature_table(name: str) -> FeatureTableConfig:
    """The config of a feature table."""
    from ml.config.features import FeatureTableConfig

    return _load(config_path("feature table", name), FeatureTableConfig)


def load_model(name: str) -> ModelConfig:
    """The config of a model."""
    from ml.config.model import ModelConfig

    return _load(config_path("model", name), ModelConfig)


def load_platform() -> PlatformConfig:
    """What all sources, feature tables and models share."""
    from ml.config.platform import PlatformConfig

    return _load(resource_dir("config") / "platform.yaml", PlatformConfig)


def _load(path: Path, kind: type[Settings]) -> Settings:
    return _load_version(path, last_change(path), kind)


@cache
def _load_version(path: Path, _: tuple[int, int] | None, kind: type[Settings]) -> Settings:
    return load_file(path, kind)


def load_models() -> Iterator[ModelConfig]:
    """The configs of all models, ordered by name. Raises ConfigError at the first bad file."""
    yield from map(load_model, list_names("model"))
