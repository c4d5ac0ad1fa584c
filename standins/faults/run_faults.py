"""Faults of runs: a rule of `standins.faults.rules` makes a service's run fail, vanish or never end.

The fault is stored in the run's document when the run is created, so it is the same after a restart. Such a run
does no work. It is in progress for `seconds`; then it fails, or it vanishes as if it had never existed. One that
never ends stays in progress until it is cancelled, also beyond the service's own time limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MESSAGE = "The run failed because a fault rule of the local cloud requested it."


class RunFault(BaseModel):
    """The fault of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["never ends", "fails", "vanishes"]
    seconds: float = Field(5, ge=0, le=3600)


# The fault that a rule requests for a run that the current request creates.
REQUESTED: ContextVar[RunFault | None] = ContextVar("REQUESTED", default=None)


def fault_fields() -> dict[str, Any]:
    """Fields to store in the document of a run that is created now; empty when no rule requests a fault."""
    requested = REQUESTED.get()
    return {"fault": {"how": requested.how, "due": time.time() + requested.seconds}} if requested else {}


def state(document: dict[str, Any]) -> Literal["none", "in progress", "fails", "vanishes"]:
    """The state that a run's fault demands now."""
    fault = document.get("fault")
    if fault is None:
        return "none"
    if fault["how"] == "never ends" or time.time() < fault["due"]:
        return "in progress"
    how: Literal["fails", "vanishes"] = fault["how"]
    return how


def wait(document: dict[str, Any], is_over: Callable[[], bool]) -> Literal["none", "fails", "vanishes", "over"]:
    """Wait in the run's thread until its fault takes effect; "none" without a fault, "over" after `is_over()`."""
    while (current := state(document)) == "in progress":
        if is_over():
            return "over"
        time.sleep(0.1)
    return current
