"""The lifecycle of Azure ML jobs: submitted once per name, advanced while they run, resumed after a restart.

Only `_advance` changes the state of a command job, as in `standins.databricks.runs`. Jobs of the other types have
children; a follower advances each of them (`standins.azure_ml.jobs.followers`).
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from standins.azure_ml.api import Json, Workspace, not_found, system_data, user_error
from standins.azure_ml.jobs import command_job
from standins.azure_ml.jobs.document import DONE, UPDATABLE, fixed_part, key_of, new_job, outcome, workspace_of
from standins.azure_ml.jobs.followers import Follower, JobType
from standins.compute.pool import Compute
from standins.compute.run_files import LOG
from standins.core.auth import Claims
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import ApiError, NotImplementedHere
from standins.faults import run_faults

SERVICE = "azure_ml"
KIND = "azure_ml.job"  # document kind of the jobs of all workspaces; the key is `key_of`

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_COMMAND = "Command"


class Jobs:
    """All jobs of all workspaces. Use `cloud.shared(jobs_of)`."""

    def __init__(self, cloud: Cloud, compute: Compute, parent_types: Mapping[str, JobType]) -> None:
        self._cloud = cloud
        self._parent_types = parent_types
        self._documents = cloud.documents
        self._compute = compute
        self._lock = threading.Lock()
        self._active = {name for name, job in self._documents.list(KIND) if job["status"] not in DONE}

    def start(self) -> None:
        """Follow the jobs that were active when the process ended, and all new jobs."""
        self._compute.listeners.append(self.advance_all)
        self._compute.start()
        for key in sorted(self._active):
            if (job := self.find(key)) is not None:
                self._follow(key, job["asked"]["jobType"])

    def put(self, workspace: Workspace, name: str, definition: Json, claims: Claims) -> tuple[Document, bool]:
        """Start a job, or update the description, display name, tags, properties and archival of an existing one.

        Returns the job and whether it is new. Raises ApiError for a definition that cannot run, and for a name whose
        job has a different definition.
        """
        job_type = definition.get("jobType")
        if job_type != _COMMAND and job_type not in self._parent_types:
            raise NotImplementedHere(f"A job of type {job_type!r}")
        if not _NAME.fullmatch(name):
            raise user_error(f"Job name {name!r}: letters, digits, '_', '-' and '.' are allowed, 255 at most.")
        if self._documents.get(KIND, key_of(workspace, name)) is None:
            (self._parent_types.get(job_type or "") or command_job).check(self._cloud, workspace, definition)
        tags = definition.get("tags") or {}
        run_key = tags.get("run_key") or name
        subject = f"{workspace.name}/{definition.get('experimentName') or 'Default'}"
        with self._cloud.transaction():
            earlier = self._documents.get(KIND, key_of(workspace, name))
            if earlier is not None:
                return self._update(
                    earlier, definition, lambda: self._record_repeat(earlier, subject, run_key, definition, claims)
                ), False
            entry = self._cloud.ledger.record(
                SERVICE, "create job", subject, run_key, name, definition, asked_by=claims.get("appid")
            )
            job = {
                **new_job(workspace, name, definition, system_data(claims)),
                "entry": entry,
                **run_faults.fault_fields(),
            }
            self._documents.create(KIND, key_of(workspace, name), job)
        self._begin(job)
        return self.get(workspace, name), True

    def add_child(self, parent: Document, name: str, definition: Json, **more: object) -> Document:
        """Start a child job. Idempotent, so that an interrupted parent may add it again.

        `more` are fields of its document. A child that is only recorded and does not run has a final `status`, `started`,
        `ended` and `error`.
        """
        with self._cloud.transaction():
            existing = self.find(key_of(workspace_of(parent), name))
            if existing is not None:
                return existing
            child = {
                **new_job(workspace_of(parent), name, definition, parent["systemData"]),
                "parent": parent["name"],
                **more,
            }
            self._documents.create(KIND, key_of(workspace_of(parent), name), child)
            current = self.find(key_of(workspace_of(parent), parent["name"])) or parent
            self.change(parent, children=[*current.get("children", []), name])
        if not self.is_over(child):
            self._begin(child)
        return child

    def children(self, job: Document) -> list[Document]:
        """A job's children in their current state, oldest first."""
        current = self.find(key_of(workspace_of(job), job["name"])) or job
        children = (self.find(key_of(workspace_of(job), name)) for name in current.get("children", []))
        return [child for child in children if child is not None]

    def find(self, key: str) -> Document | None:
        return self._documents.get(KIND, key)

    def is_over(self, job: Document) -> bool:
        return job["status"] in DONE

    def change(self, job: Document, **fields: object) -> Document:
        """Update fields of a job's document; returns the new document."""
        return self._documents.update(
            KIND, key_of(workspace_of(job), job["name"]), lambda current: {**current, **fields}
        )

    def annotate(self, job: Document, tags: Json | None = None, properties: Json | None = None) -> None:
        """Add tags and properties to a job. Values are text, as on the service."""

        def add(current: Document) -> Document:
            present = current.get("found") or {}
            new = {"tags": tags or {}, "properties": properties or {}}
            return {**current, "found": {part: {**present.get(part, {}), **new[part]} for part in new}}

        self._documents.update(KIND, key_of(workspace_of(job), job["name"]), add)

    def note(self, job: Document, line: str) -> None:
        """Append a line to the log of a job without a process of its own."""
        folder = self._compute.folder / job["run"]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / LOG).open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}\n")

    def finish(self, job: Document, status: str, error: str | None = None) -> None:
        """End a job without a process of its own. A job that has already ended stays unchanged."""
        key = key_of(workspace_of(job), job["name"])
        with self._cloud.transaction():
            current = self.find(key)
            if current is None or self.is_over(current):
                return
            self._end(current, status, error)
            self._documents.put(KIND, key, current)

    def stop(self, job: Document, reason: str) -> None:
        """Cancel a job and record the reason as its error."""
        self.change(job, why=reason)
        self.cancel(workspace_of(job), job["name"])

    def get(self, workspace: Workspace, name: str) -> Document:
        """A job. Raises ApiError when there is none of this name."""
        job = self._documents.get(KIND, key_of(workspace, name))
        if job is None:
            raise not_found(f"Job {name}")
        return job

    def list_submitted(self, workspace: Workspace) -> list[Document]:
        """The jobs submitted to a workspace, newest first, without their children."""
        prefix = key_of(workspace, "")
        newest_first = reversed(self._documents.list(KIND))
        return [job for key, job in newest_first if key.startswith(prefix) and not job.get("parent")]

    def find_by_secret(self, secret: str) -> Document:
        """The job whose log URL contains this secret. Raises ApiError."""
        for _, job in self._documents.list(KIND):
            if secrets.compare_digest(job["secret"], secret):
                return job
        raise not_found("Log")

    def cancel(self, workspace: Workspace, name: str) -> None:
        """Cancel a job. A job that has ended stays unchanged. Raises ApiError."""
        self.get(workspace, name)

        def mark(job: Document) -> Document:
            return job if job["status"] in DONE else {**job, "stop": True, "status": "CancelRequested"}

        self._documents.update(KIND, key_of(workspace, name), mark)
        self._advance(key_of(workspace, name))

    def describe(self, workspace: Workspace, name: str, changes: Json) -> None:
        """Update the fields of a job that can change after submission. Raises ApiError."""
        self.get(workspace, name)
        updates = {field: changes[field] for field in UPDATABLE if changes.get(field) is not None}

        def change(job: Document) -> Document:
            return {**job, "asked": {**job["asked"], **updates}}

        self._documents.update(KIND, key_of(workspace, name), change)

    def delete(self, workspace: Workspace, name: str) -> None:
        """Delete a job that has ended, with its children. Raises ApiError."""
        job = self.get(workspace, name)
        if job["status"] not in DONE:
            raise user_error(f"Job {name} is {job['status']}; only a job that has ended can be deleted.")
        for ended in (*self.children(job), job):
            self._documents.delete(KIND, key_of(workspace, ended["name"]))
            self._compute.delete(ended["run"])

    def log(self, job: Document) -> bytes:
        """A job's log so far."""
        return self._compute.output(job["run"])

    def advance_all(self) -> None:
        """Advance every active job as far as possible now."""
        with self._lock:
            active = list(self._active)
        for name in active:
            self._advance(name)

    def _begin(self, job: Document) -> None:
        key = key_of(workspace_of(job), job["name"])
        with self._lock:
            self._active.add(key)
        self._advance(key)
        self._follow(key, job["asked"]["jobType"])

    def _follow(self, key: str, job_type: str) -> None:
        if job_type in self._parent_types:
            self._cloud.background(f"job {key}", Follower(self._cloud, self, self._parent_types[job_type], key).run)

    def _update(self, earlier: Document, definition: Json, record: Callable[[], None]) -> Document:
        if fixed_part(earlier["asked"]) != fixed_part(definition):
            raise user_error(
                "A job with this name already exists. If you are trying to submit a new job, use a different name. If you "
                "are trying to update an existing job, only description, displayName, tags, properties and isArchived can "
                "be updated."
            )
        record()
        changes = {field: definition[field] for field in UPDATABLE if definition.get(field) is not None}
        job = {**earlier, "asked": {**earlier["asked"], **changes}}
        self._documents.put(KIND, key_of(workspace_of(earlier), earlier["name"]), job)
        return job

    def _record_repeat(self, earlier: Document, subject: str, run_key: str, definition: Json, claims: Claims) -> None:
        self._cloud.ledger.record(
            SERVICE, "create job", subject, run_key, earlier["name"], definition, asked_by=claims.get("appid"),
            first=earlier["entry"],
        )  # fmt: skip

    def _advance(self, key: str) -> None:
        actions: list[Callable[[], None]] = []
        with self._cloud.transaction():
            job = self._documents.get(KIND, key)
            if job is not None and job["status"] not in DONE:
                before = repr(job)
                self._advance_document(job, actions)
                if job.get("vanished"):
                    self._documents.delete(KIND, key)
                elif repr(job) != before:
                    self._documents.put(KIND, key, job)
        if job is None or job["status"] in DONE:
            with self._lock:
                self._active.discard(key)
        for action in actions:  # after the commit; after a crash the next `_advance` finds what is still to do
            action()

    def _advance_document(self, job: Document, actions: list[Callable[[], None]]) -> None:
        if job.get("fault"):
            self._apply_fault(job)
            return
        if job["asked"]["jobType"] != _COMMAND:
            return
        status = self._compute.status(job["run"])
        if status is None:
            if job["stop"]:
                self._end(job, "Canceled", job.get("why"))
                return
            try:
                work = command_job.build_work(self._cloud, workspace_of(job), job["name"], job["run"], job["asked"])
            except ApiError as error:  # an asset or datastore that was deleted after the submission
                self._end(job, "Failed", error.message)
                return
            job["status"] = "Starting"
            actions.append(lambda: self._compute.submit(job["run"], work))
        elif status.state == "ended":
            job["started"], job["ended"] = status.started_at, status.ended_at
            final_status, run_error = outcome(status, command_job.timeout(job["asked"]))
            self._end(job, final_status, job.get("why") if final_status == "Canceled" and not run_error else run_error)
        elif job["stop"]:
            actions.append(lambda: self._compute.stop(job["run"]))
        elif status.state == "queued":
            job["status"] = "Queued"
        else:
            job["status"], job["started"] = "Running", status.started_at

    def _apply_fault(self, job: Document) -> None:
        """Advance a job with an injected fault. It does no work: it stays in progress, then is cancelled, fails or vanishes."""
        fault = run_faults.state(job)
        if job["stop"]:
            self._end(job, "Canceled", None)
        elif fault == "in progress":
            job["status"], job["started"] = "Running", job["started"] or time.time()
        elif fault == "fails":
            self._end(job, "Failed", run_faults.MESSAGE)
        else:
            job["vanished"] = True
            self._end(job, "Canceled", "it vanished")

    def _end(self, job: Document, status: str, error: str | None) -> None:
        job["status"], job["error"] = status, error
        job["ended"] = job["ended"] or time.time()
        if job["entry"] is not None:
            self._cloud.ledger.finish(job["entry"], status, error or "")
