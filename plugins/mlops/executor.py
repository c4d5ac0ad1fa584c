"""Airflow's LocalExecutor, with detection of dead workers.

The provider's workers (airflow.executors.local_executor, 3.3.2) take tasks from one queue, so nobody knows which task a
killed worker had. A task whose worker dies before it has reported "running" then stays queued for ever: LocalExecutor
has no `revoke_task`, so the scheduler's own handling of stuck tasks skips it. A task whose worker dies after its last
report keeps its slot of `parallelism` until the scheduler restarts. And a worker that is killed while it waits holds
the queue's lock for ever, so no further task starts.

Here each task has a process of its own that the executor knows; the end of the process is the end of the task. This
class can be removed when the provider's executor does the same.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from airflow.executors.base_executor import BaseExecutor, get_execution_api_server_url
from airflow.executors.local_executor import LocalExecutor

log = logging.getLogger(__name__)


def _work(workload: Any, conf: Any) -> None:
    """Run in the task's own process: supervise the task to its end. Exit code 1 means that this failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a terminal ends the executor, which waits for its tasks
    try:
        BaseExecutor.run_workload(
            workload,
            server=get_execution_api_server_url(conf),
            proctitle=f"airflow worker -- LocalExecutor: {workload.display_name}",
            subprocess_logs_to_stdout=True,
        )
    except Exception:
        log.exception("%s failed in its worker", workload.key)
        sys.exit(1)


class WatchedLocalExecutor(LocalExecutor):
    """Runs each task in a process of its own; the end of the process is the end of the task."""

    def start(self) -> None:
        self.task_processes: dict[Any, tuple[multiprocessing.Process, Any]] = {}  # by the workload's key

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        gc.freeze()  # as the provider does: a garbage collection in the child would copy the parent's memory
        try:
            for workload in workload_list:
                self._start(workload)
        finally:
            gc.unfreeze()

    def _start(self, workload: Any) -> None:
        key = workload.key
        for queued in (self.queued_tasks, self.queued_callbacks, self.queued_connection_tests):
            queued.pop(key, None)
        process = multiprocessing.Process(target=_work, args=(workload, self.conf), name=f"worker of {key}")
        process.start()
        self.running.add(key)
        self.task_processes[key] = (process, workload)
        if workload.running_state is not None:
            self.change_state(key, workload.running_state, remove_running=False)

    def sync(self) -> None:
        for key, (process, workload) in list(self.task_processes.items()):
            if process.is_alive():
                continue
            del self.task_processes[key]
            if process.exitcode:
                log.error(
                    "the worker of %s ended with exit code %s (negative: a signal's number)", key, process.exitcode
                )
            self.change_state(key, workload.failure_state if process.exitcode else workload.success_state)
            process.close()

    def end(self) -> None:
        """Wait for the running tasks, as the provider's executor does."""
        for process, _ in self.task_processes.values():
            process.join()
        self.sync()

    def terminate(self) -> None:
        for process, _ in self.task_processes.values():
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGTERM)
