"""`StageError`: a refusal or failure whose message is enough."""

from __future__ import annotations


class StageError(RuntimeError):
    """A stage refuses or fails for a reason its message tells in full; no traceback is needed."""
