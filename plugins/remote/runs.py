"""A remote run as an operator sees it: its state, its outcome, and the errors that an outcome becomes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    pass

VANISHED, TIMED_OUT = "vanished", "timed out"  # states that are ours, not a service's


@dataclass(frozen=True)
class RemoteRun:
    """What one look at a remote run showed. `state` is the service's own word."""

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


class RemoteRunGone(Exception):  # noqa: N818 (it says what is so)
    """The service does not know a run of that id."""


class RemoteRunFailed(RuntimeError):  # noqa: N818 (it is said in sentences: raised because the run failed)
    """A remote run ended in another state than success. Airflow may try again."""

    def __init__(self, run: RemoteRun) -> None:
        detail = run.detail or "the service gave no detail"
        super().__init__(f"{run.service} run {run.run_id} ended {run.state}: {detail}. Look at: {run.url}")


class RemoteRunRefused(AirflowFailException):
    """The stage itself refused its input: the same again would be refused again, so no retry."""


def facts_of(log: str) -> dict[str, Any]:
    """The facts a stage printed: the last line of its log that is one JSON object; {} when there is none."""
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
    """The facts of a run that succeeded; else the exception that says why it did not."""
    if run.succeeded:
        return facts
    if refused := facts.get("refused"):
        raise RemoteRunRefused(f"{refused} ({run.service} run {run.run_id}: {run.url})")
    raise RemoteRunFailed(run)
