"""Azure ML jobs that are made of others (sweeps, pipelines, AutoML): each followed by a thread, until it has ended.

A follower keeps nothing in memory that it could not find again: what has been done stands in the documents of the
job and its children, so a stand-in that was killed takes every job up where it stood. One look at a job is a call of
its type's `follow(cloud, jobs, job)`, which looks at the children, may add some or cancel some, and may finish the
job; it can be interrupted anywhere and is called again.
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

LOOK = 0.15  # seconds between looks at a job's children
_AFTER_FAILURE = 1.0  # seconds before another look, when one failed (MLflow is down, the disk is full)


class Jobs(Protocol):
    """What a job type and its followers may do with jobs; `standins.azure_ml.jobs.Jobs` says what each does."""

    def add_child(self, parent: Document, name: str, asked: Json, **more: object) -> Document: ...
    def children(self, job: Document) -> list[Document]: ...
    def find(self, key: str) -> Document | None: ...
    def is_over(self, job: Document) -> bool: ...
    def change(self, job: Document, **fields: object) -> Document: ...
    def tell(self, job: Document, tags: Json | None = None, properties: Json | None = None) -> None: ...
    def note(self, job: Document, line: str) -> None: ...
    def finish(self, job: Document, status: str, error: str | None = None) -> None: ...
    def stop(self, job: Document, why: str) -> None: ...
    def get(self, workspace: Workspace, name: str) -> Document: ...
    def log(self, job: Document) -> bytes: ...


class JobType(Protocol):
    """A job type whose jobs have children."""

    def check(self, cloud: Cloud, workspace: Workspace, asked: Json) -> None:
        """Refuse what could not run. Raises ApiError."""

    def timeout(self, asked: Json) -> float:
        """Seconds after which the job and its children are cancelled; 0 when the type ends by itself in time."""

    def follow(self, cloud: Cloud, jobs: Jobs, job: Document) -> None:
        """Take one look and do what there is to do. Raises ApiError when the job cannot go on: it fails with that."""

    def canceled(self, cloud: Cloud, jobs: Jobs, job: Document) -> None:
        """What is left to do when a job was cancelled and all its children are over."""


class Follower:
    """Follows one job. `run` returns when the job has ended, or when the process is to end."""

    def __init__(self, cloud: Cloud, jobs: Jobs, kind: JobType, key: str) -> None:
        self._cloud = cloud
        self._jobs = jobs
        self._kind = kind
        self._key = key

    def run(self) -> None:
        last = ""
        while not self._cloud.stopping.is_set():
            job = self._jobs.find(self._key)
            if job is None or self._jobs.is_over(job):
                return
            pause = LOOK
            try:
                if not job.get("fault"):  # what a fault wants of a job, `Jobs` does
                    self._look(job)
                last = ""
            except ApiError as error:
                self._jobs.finish(job, "Failed", error.message)
            except Exception as error:  # a service that is down comes back; the job's own time limit is the end of it
                pause = _AFTER_FAILURE
                if str(error) != last:
                    log.warning("following job %s: %s; trying again", job["name"], error, exc_info=True)
                    self._jobs.note(job, f"waiting: {type(error).__name__}: {error}")
                last = str(error)
            self._cloud.stopping.wait(pause)

    def _look(self, job: Document) -> None:
        if job["stop"]:
            self._end_all(job)
            return
        if not job["started"]:
            job = self._jobs.change(job, status="Running", started=time.time())
        limit = self._kind.timeout(job["asked"])
        if limit and time.time() > job["started"] + limit:
            self._jobs.stop(job, f"The job exceeded its limit of {limit:g} seconds and was canceled.")
            return
        self._kind.follow(self._cloud, self._jobs, job)

    def _end_all(self, job: Document) -> None:
        """Cancel what goes on still; the job is canceled when nothing does."""
        live = [child for child in self._jobs.children(job) if not self._jobs.is_over(child)]
        for child in live:
            if not child["stop"]:
                self._jobs.stop(child, f"{job['name']} was canceled.")
        compute = self._cloud.one(Compute)
        own = compute.status(job["run"])  # a type may do some of its work as one run of the job's own
        if own is not None and own.state != "ended":
            compute.stop(job["run"])
        elif not live:
            self._kind.canceled(self._cloud, self._jobs, job)
            self._jobs.finish(job, "Canceled", job.get("why"))
