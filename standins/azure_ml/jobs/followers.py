"""Azure ML jobs with child jobs (sweeps, pipelines, AutoML): one thread follows each of them until it has ended.

A follower keeps no state in memory: all progress is in the documents of the job and its children, so a stand-in that was
killed resumes every job where it stopped. The follower calls `follow(cloud, jobs, job)` of the job's type repeatedly.
Each call inspects the children, may add or cancel some, and may finish the job. It can be interrupted at any point.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from standins.azure_ml.api import Json, Workspace
from standins.compute.pool import Compute
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import ApiError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.15  # between two calls of `follow`
_RETRY_SECONDS = 1.0  # before the next call after a failed one (MLflow is down, the disk is full)


class Jobs(Protocol):
    """Operations on jobs for job types and followers; `standins.azure_ml.jobs.lifecycle.Jobs` documents and implements them."""

    def add_child(self, parent: Document, name: str, definition: Json, **more: object) -> Document: ...
    def children(self, job: Document) -> list[Document]: ...
    def find(self, key: str) -> Document | None: ...
    def is_over(self, job: Document) -> bool: ...
    def change(self, job: Document, **fields: object) -> Document: ...
    def annotate(self, job: Document, tags: Json | None = None, properties: Json | None = None) -> None: ...
    def note(self, job: Document, line: str) -> None: ...
    def finish(self, job: Document, status: str, error: str | None = None) -> None: ...
    def stop(self, job: Document, reason: str) -> None: ...
    def get(self, workspace: Workspace, name: str) -> Document: ...
    def log(self, job: Document) -> bytes: ...


class JobType(Protocol):
    """A job type whose jobs have children."""

    def check(self, cloud: Cloud, workspace: Workspace, definition: Json) -> None:
        """Reject a definition that cannot run. Raises ApiError."""

    def timeout(self, definition: Json) -> float:
        """Seconds after which the job and its children are cancelled; 0 for a type that enforces its own limit."""

    def follow(self, cloud: Cloud, jobs: Jobs, job: Document) -> None:
        """Advance the job as far as possible now. Raises ApiError when it cannot continue: the job fails with that message."""

    def on_canceled(self, cloud: Cloud, jobs: Jobs, job: Document) -> None:
        """Clean up after a cancelled job once all its children have ended."""


class Follower:
    """Follows one job. `run` returns when the job has ended or the process is stopping."""

    def __init__(self, cloud: Cloud, jobs: Jobs, job_type: JobType, key: str) -> None:
        self._cloud = cloud
        self._jobs = jobs
        self._job_type = job_type
        self._key = key

    def run(self) -> None:
        last_error = ""
        while not self._cloud.stopping.is_set():
            job = self._jobs.find(self._key)
            if job is None or self._jobs.is_over(job):
                return
            pause = _LOOK_SECONDS
            try:
                if not job.get("fault"):  # `Jobs` itself applies an injected fault
                    self._advance(job)
                last_error = ""
            except ApiError as error:
                self._jobs.finish(job, "Failed", error.message)
            except Exception as error:  # an unreachable service comes back; the job's time limit bounds the wait
                pause = _RETRY_SECONDS
                if str(error) != last_error:
                    log.warning("following job %s: %s; trying again", job["name"], error, exc_info=True)
                    self._jobs.note(job, f"waiting: {type(error).__name__}: {error}")
                last_error = str(error)
            self._cloud.stopping.wait(pause)

    def _advance(self, job: Document) -> None:
        if job["stop"]:
            self._end_all(job)
            return
        if not job["started"]:
            job = self._jobs.change(job, status="Running", started=time.time())
        limit = self._job_type.timeout(job["asked"])
        if limit and time.time() > job["started"] + limit:
            self._jobs.stop(job, f"The job exceeded its limit of {limit:g} seconds and was canceled.")
            return
        self._job_type.follow(self._cloud, self._jobs, job)

    def _end_all(self, job: Document) -> None:
        """Cancel the children that still run; the job is canceled once none does."""
        active = [child for child in self._jobs.children(job) if not self._jobs.is_over(child)]
        for child in active:
            if not child["stop"]:
                self._jobs.stop(child, f"{job['name']} was canceled.")
        compute = self._cloud.shared(Compute)
        own_run = compute.status(job["run"])  # some types also have a run of the job itself
        if own_run is not None and own_run.state != "ended":
            compute.stop(job["run"])
        elif not active:
            self._job_type.on_canceled(self._cloud, self._jobs, job)
            self._jobs.finish(job, "Canceled", job.get("why"))
