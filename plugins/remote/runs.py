"""A remote run as an operator sees it: its state, its outcome, and the exception for each outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

VANISHED, TIMED_OUT = "vanished", "timed out"  # states of this module; no service reports them


@dataclass(frozen=True)
class RemoteRun:
    """A remote run at one moment. `state` is the service's own term."""

    service: str
    run_id: str
    state: str
    done: bool = False
    succeeded: bool = False
    detail: str = ""
    url: str = ""

    @property
    def failed(self) -> bool:
        return self.done and not self.succeeded


class RemoteRunGone(Exception):  # noqa: N818 (a state, not an error)
    """The service knows no run with that id."""


class RemoteRunFailed(RuntimeError):  # noqa: N818 (named for the run, not for an error)
    """A remote run ended without success. Airflow may try again."""

    def __init__(self, run: RemoteRun) -> None:
        detail = run.detail or "the service gave no detail"
        super().__init__(f"{run.service} run {run.run_id} ended {run.state}: {detail}. Look at: {run.url}")


class RemoteRunRefused(AirflowFailException):
    """The stage rejected its input. Not retryable: it would reject the same input again."""


def facts_of(log: str) -> dict[str, Any]:
    """The facts that a stage printed: the last line of its log that is a JSON object; {} when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                facts = json.loads(line)
            except ValueError:
                continue
            if isinstance(facts, dict):
                return facts
    return {}


def succeed_or_raise(run: RemoteRun, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run that succeeded. Raises RemoteRunRefused or RemoteRunFailed with the reason otherwise."""
    if run.succeeded:
        return facts
    if refused := facts.get("refused"):
        raise RemoteRunRefused(f"{refused} ({run.service} run {run.run_id}: {run.url})")
    raise RemoteRunFailed(run)
