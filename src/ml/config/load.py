"""Reads model configs from YAML. Every error names the file, the key, what was found and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ml.config.model import ModelConfig
from ml.resources import last_change, resource_dir

try:  # libyaml reads config/churn.yaml in 7 ms, PyYAML's own parser in 98 ms
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without its C extension
    from yaml import SafeLoader  # type: ignore[assignment]


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


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; allowed here: {', '.join(_allowed_keys(problem['loc'][:-1]))}")
        else:
            lines.append(f"{key}: found {problem['input']!r}; {problem['msg']}")
    return f"{path}:\n  " + "\n  ".join(lines)


def _allowed_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the (nested) settings class at `loc`, a place in a config."""
    kind: Any = ModelConfig
    for part in loc:
        if isinstance(part, str):
            kind = kind.model_fields[part].annotation
        while not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            kind = next(arg for arg in kind.__args__ if arg is not Ellipsis)
            if not hasattr(kind, "__args__"):
                break
    return sorted(kind.model_fields)


def load_file(path: Path) -> ModelConfig:
    """Read one config file. Raises ConfigError naming every bad key at once."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such model; there are: {known}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: found {type(settings).__name__}; a mapping of settings is needed")
    try:
        config = ModelConfig.model_validate(_to_tuples(settings))
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error
    if config.model != path.stem:
        raise ConfigError(f"{path}: model: found {config.model!r}; must be the file's name, {path.stem!r}")
    return config


def load_model(name: str) -> ModelConfig:
    """The config of the model `name`, from `config/<name>.yaml`. The file is read again only after a change."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise ConfigError(f"model name {name[:60]!r}: at most 50 lower-case letters, digits and _ only")
    path = resource_dir("config") / f"{name}.yaml"
    return _load_version(path, last_change(path))


@cache
def _load_version(path: Path, _: tuple[int, int] | None) -> ModelConfig:
    return load_file(path)


def load_models() -> Iterator[ModelConfig]:
    """The configs of all models, ordered by name. Raises ConfigError at the first bad file."""
    for path in sorted(resource_dir("config").glob("*.yaml")):
        yield load_model(path.stem)
