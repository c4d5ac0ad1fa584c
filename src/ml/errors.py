"""The error that a stage raises for a refusal or a failure whose message is enough."""

from __future__ import annotations


class StageError(RuntimeError):
    """A stage refuses or fails, and its message gives the full reason; no traceback is needed."""
