"""Typed, frozen settings of models; they refuse unknown keys.

Imports stay light: every Dag file imports this package when it is parsed.
"""

from ml.config.load import ConfigError, load_model, load_models
from ml.config.model import ModelConfig

__all__ = ["ConfigError", "ModelConfig", "load_model", "load_models"]
