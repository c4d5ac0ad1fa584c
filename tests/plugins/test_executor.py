"""The executor that detects dead workers: real processes with a small function in place of a task."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from mlops.executor import WatchedLocalExecutor


@dataclass(frozen=True)
class Workload:
    """The attributes of a workload that the executor reads."""

    number: int
    running_state: None = None
    success_state: TaskInstanceState = TaskInstanceState.SUCCESS
    failure_state: TaskInstanceState = TaskInstanceState.FAILED

    @property
    def key(self) -> TaskInstanceKey:
        return TaskInstanceKey("dag", f"task_{self.number}", "run")

    @property
    def display_name(self) -> str:
        return str(self.number)


Start = Callable[..., Workload]


@pytest.fixture
def executor() -> Iterator[WatchedLocalExecutor]:
    watched = WatchedLocalExecutor(parallelism=2)
    watched.start()
    yield watched
    for process, _ in watched.task_processes.values():
        process.kill()
        process.join()


@pytest.fixture
def start(executor: WatchedLocalExecutor, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a workload that runs a function."""

    def begin(number: int, work: Callable[[], Any]) -> Workload:
        monkeypatch.setattr(BaseExecutor, "run_workload", staticmethod(lambda workload, **_: work()))
        workload = Workload(number)
        executor._process_workloads([workload])
        return workload

    return begin


def outcome(executor: WatchedLocalExecutor, workload: Workload) -> TaskInstanceState:
    end = time.monotonic() + 30
    while workload.key not in executor.event_buffer:
        assert time.monotonic() < end
        executor.sync()
        time.sleep(0.02)
    state: TaskInstanceState = executor.event_buffer[workload.key][0]
    return state


def fail() -> None:
    raise RuntimeError("the api-server does not answer")


@pytest.mark.parametrize(
    ("work", "state"),
    [
        pytest.param(lambda: 0, TaskInstanceState.SUCCESS, id="a-worker-that-ends-well"),
        pytest.param(fail, TaskInstanceState.FAILED, id="a-worker-that-raises"),
        pytest.param(
            lambda: os.kill(os.getpid(), signal.SIGKILL), TaskInstanceState.FAILED, id="a-worker-that-is-killed"
        ),
    ],
)
def test_the_end_of_a_worker_is_the_end_of_its_task_and_frees_its_slot(
    executor: WatchedLocalExecutor, start: Start, work: Callable[[], Any], state: TaskInstanceState
) -> None:
    workload = start(1, work)
    assert workload.key in executor.running
    assert outcome(executor, workload) == state
    assert executor.running == set()
    assert executor.slots_available == 2


def test_the_death_of_a_worker_leaves_the_others_alone(executor: WatchedLocalExecutor, start: Start) -> None:
    waits = start(1, lambda: time.sleep(60))
    dies = start(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert outcome(executor, dies) == TaskInstanceState.FAILED
    assert executor.running == {waits.key}
    next_one = start(3, lambda: 0)
    assert outcome(executor, next_one) == TaskInstanceState.SUCCESS


def test_the_executor_ends_when_its_tasks_have(executor: WatchedLocalExecutor, start: Start) -> None:
    workload = start(1, lambda: time.sleep(0.3))
    executor.end()
    assert executor.event_buffer[workload.key][0] == TaskInstanceState.SUCCESS
