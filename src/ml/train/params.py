"""Parameters from the command line that replace or complement those of the config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ml.config import ModelConfig
from ml.config.train import Train
from ml.errors import StageError


def parse_params(text: str) -> dict[str, Any]:
    """Parameters from a JSON object. Raises StageError when the text is not one."""
    try:
        params = json.loads(text)
    except ValueError as error:
        raise StageError(f"--params is not JSON: {error}; found {text[:200]!r}") from error
    if not isinstance(params, dict):
        raise StageError(f"--params: a JSON object of parameters is needed; found {text[:200]!r}")
    return params


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Parameters from texts such as `num_leaves=7`: a value that is JSON (a number, a bool) is read as such, else as text."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise StageError(f"--set {pair!r}: NAME=VALUE is needed")
        try:
            params[name] = json.loads(text)
        except ValueError:
            params[name] = text
    return params


def with_params(config: ModelConfig, params: Mapping[str, Any]) -> ModelConfig:
    """The config with these parameters added to, or in place of, its own.

    Raises StageError for parameters that the config would refuse.
    """
    train = config.train
    try:
        checked = Train.model_validate({**dict(train), "params": {**train.params, **params}})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise StageError(f"--params does not fit config train.params: {problems}") from error
    return config.model_copy(update={"train": checked})
