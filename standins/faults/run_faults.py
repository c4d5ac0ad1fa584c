"""Runs to which something happens that only a service itself can do, asked for by a rule of `standins.faults`.

What is to become of a run is noted in its document when it is created, so it is the same after a restart. Such a run
does no work. It is in progress for `seconds`; then it fails, or is gone as if it had never been. One that never ends
stays in progress until it is cancelled, also past the service's own time limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MESSAGE = "The run failed because a fault rule of the local cloud wanted it so."


class RunFault(BaseModel):
    """What is to become of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["never ends", "fails", "vanishes"]
    seconds: float = Field(5, ge=0, le=3600)


WANTED: ContextVar[RunFault | None] = ContextVar("WANTED", default=None)  # by the request that is being served


def noted() -> dict[str, Any]:
    """What the document of a run created now has to remember; empty for all but a few."""
    wanted = WANTED.get()
    return {"fault": {"how": wanted.how, "due": time.time() + wanted.seconds}} if wanted else {}


def state(document: dict[str, Any]) -> Literal["none", "in progress", "fails", "vanishes"]:
    """What has to become of a run now."""
    fault = document.get("fault")
    if fault is None:
        return "none"
    if fault["how"] == "never ends" or time.time() < fault["due"]:
        return "in progress"
    how: Literal["fails", "vanishes"] = fault["how"]
    return how


def wait(document: dict[str, Any], is_over: Callable[[], bool]) -> Literal["none", "fails", "vanishes", "over"]:
    """What becomes of a run whose work is a thread: returns at once where nothing is to; "over" when somebody ended it."""
    while (found := state(document)) == "in progress":
        if is_over():
            return "over"
        time.sleep(0.1)
    return found
