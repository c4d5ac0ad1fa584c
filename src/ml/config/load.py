"""Reads model configs from YAML; every error names file, key, what was found and what is allowed."""

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


class ConfigError(ValueError):
    """A config file that cannot be used; the message names file, key, what was found and what is allowed."""


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a key stands once: two values for one threshold are one too many."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for place, key in enumerate(keys):
        if any(key.value == before.value for before in keys[:place]):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands here twice", key.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _tuples(value: Any) -> Any:
    """YAML lists as tuples: strict, frozen models hold nothing that can be changed."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            lines.append(f"{key}: missing")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; allowed here: {', '.join(_allowed(problem['loc'][:-1]))}")
        else:
            lines.append(f"{key}: found {problem['input']!r}; {problem['msg']}")
    return f"{path}:\n  " + "\n  ".join(lines)


def _allowed(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the (nested) settings class that `loc` leads to."""
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
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such model; there are: {known}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__}; a mapping of settings is needed")
    try:
        model = ModelConfig.model_validate(_tuples(raw))
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error
    if model.model != path.stem:
        raise ConfigError(f"{path}: model: found {model.model!r}; must be the file's name, {path.stem!r}")
    return model


def load_model(name: str) -> ModelConfig:
    """The model called `name`, from `config/<name>.yaml`; the file is read again only when it has changed."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise ConfigError(f"model name {name[:60]!r}: at most 50 lower-case letters, digits and _ only")
    path = resource_dir("config") / f"{name}.yaml"
    return _load_unless_read(path, last_change(path))


@cache
def _load_unless_read(path: Path, _: tuple[int, int] | None) -> ModelConfig:
    return load_file(path)


def load_models() -> Iterator[ModelConfig]:
    """Every model there is, by name. A bad file stops at that file."""
    for path in sorted(resource_dir("config").glob("*.yaml")):
        yield load_model(path.stem)
