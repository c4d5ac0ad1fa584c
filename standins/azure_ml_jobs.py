"""Azure ML jobs: asked for by name, once; moved on as they run; taken up again after a restart.

`_advance` is the only place that moves a job on, as in `standins.databricks_runs`. A job type that is to be
added brings its own check and its own work; what becomes of a job is the same for all.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable

from standins import azure_ml_command, run_faults
from standins.auth import Claims
from standins.azure_ml_api import Json, Workspace, iso, not_found, stamp, user_error
from standins.cloud import Cloud
from standins.compute import Compute, Status
from standins.documents import Document
from standins.errors import ApiError, NotImplementedHere

SERVICE = "azure_ml"
ALL = "azure_ml.job"  # every job of every workspace, by its id
DONE = ("Completed", "Failed", "Canceled")
UPDATABLE = ("description", "displayName", "tags", "properties", "isArchived")

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_TYPES = {"Command": azure_ml_command}


class Jobs:
    """All jobs of all workspaces. Use `cloud.one(jobs_of)`."""

    def __init__(self, cloud: Cloud, compute: Compute) -> None:
        self._cloud = cloud
        self._documents = cloud.documents
        self._compute = compute
        self._lock = threading.Lock()
        self._active = {name for name, job in self._documents.list(ALL) if job["status"] not in DONE}

    def start(self) -> None:
        """Follow the jobs that were active when the process ended, and all new ones."""
        self._compute.listeners.append(self.advance_all)
        self._compute.start()

    def put(self, workspace: Workspace, name: str, asked: Json, claims: Claims) -> tuple[Document, bool]:
        """Start a job, or update one's description, display name, tags, properties and archival.

        Gives the job and whether it is new. Raises ApiError: for what cannot run, and for a name that
        belongs to a job that is otherwise another one.
        """
        kind = asked.get("jobType")
        if kind not in _TYPES:
            raise NotImplementedHere(f"A job of type {kind!r}")
        if not _NAME.fullmatch(name):
            raise user_error(f"Job name {name!r}: letters, digits, '_', '-' and '.' are allowed, 255 at most.")
        if self._documents.get(ALL, _key(workspace, name)) is None:
            _TYPES[kind].check(self._cloud, workspace, asked)
        tags = asked.get("tags") or {}
        run_key = tags.get("run_key") or name
        subject = f"{workspace.name}/{asked.get('experimentName') or 'Default'}"
        with self._cloud.transaction():
            earlier = self._documents.get(ALL, _key(workspace, name))
            if earlier is not None:
                return self._update(
                    earlier, asked, lambda: self._again(earlier, subject, run_key, asked, claims)
                ), False
            entry = self._cloud.ledger.record(
                SERVICE, "create job", subject, run_key, name, asked, asked_by=claims.get("appid")
            )
            job: Document = {
                "name": name,
                "subscription": workspace.subscription,
                "group": workspace.group,
                "workspace": workspace.name,
                "asked": asked,
                "status": "NotStarted",
                "error": None,
                "stop": False,
                "created": time.time(),
                "started": None,
                "ended": None,
                "run": f"azureml-{uuid.uuid4().hex}",
                "secret": secrets.token_urlsafe(16),  # whoever has it may read the log, as with a signed address
                "entry": entry,
                "systemData": stamp(claims),
                **run_faults.noted(),
            }
            self._documents.create(ALL, _key(workspace, name), job)
        with self._lock:
            self._active.add(_key(workspace, name))
        self._advance(_key(workspace, name))
        return self.get(workspace, name), True

    def get(self, workspace: Workspace, name: str) -> Document:
        """A job. Raises ApiError."""
        job = self._documents.get(ALL, _key(workspace, name))
        if job is None:
            raise not_found(f"Job {name}")
        return job

    def within(self, workspace: Workspace) -> list[Document]:
        """The jobs of a workspace, newest first."""
        place = _key(workspace, "")
        return [job for key, job in reversed(self._documents.list(ALL)) if key.startswith(place)]

    def by_secret(self, secret: str) -> Document:
        """The job whose log's address has this part. Raises ApiError."""
        for _, job in self._documents.list(ALL):
            if secrets.compare_digest(job["secret"], secret):
                return job
        raise not_found("Log")

    def cancel(self, workspace: Workspace, name: str) -> None:
        """End a job. One that has ended stays as it is. Raises ApiError."""
        self.get(workspace, name)

        def mark(job: Document) -> Document:
            return job if job["status"] in DONE else {**job, "stop": True, "status": "CancelRequested"}

        self._documents.update(ALL, _key(workspace, name), mark)
        self._advance(_key(workspace, name))

    def describe(self, workspace: Workspace, name: str, changes: Json) -> None:
        """Change what people wrote about a job. Raises ApiError."""
        self.get(workspace, name)
        kept = {field: changes[field] for field in UPDATABLE if changes.get(field) is not None}

        def change(job: Document) -> Document:
            return {**job, "asked": {**job["asked"], **kept}}

        self._documents.update(ALL, _key(workspace, name), change)

    def delete(self, workspace: Workspace, name: str) -> None:
        """Forget a job that has ended. Raises ApiError."""
        job = self.get(workspace, name)
        if job["status"] not in DONE:
            raise user_error(f"Job {name} is {job['status']}; only a job that has ended can be deleted.")
        self._documents.delete(ALL, _key(workspace, name))
        self._compute.delete(job["run"])

    def log(self, job: Document) -> bytes:
        """What a job has printed so far."""
        return self._compute.output(job["run"])

    def advance_all(self) -> None:
        """Move every active job on as far as it can go now."""
        with self._lock:
            active = list(self._active)
        for name in active:
            self._advance(name)

    def _update(self, earlier: Document, asked: Json, note: Callable[[], None]) -> Document:
        if _fixed(earlier["asked"]) != _fixed(asked):
            raise user_error(
                "A job with this name already exists. If you are trying to submit a new job, use a different name. If you "
                "are trying to update an existing job, only description, displayName, tags, properties and isArchived can "
                "be updated."
            )
        note()
        changes = {field: asked[field] for field in UPDATABLE if asked.get(field) is not None}
        job = {**earlier, "asked": {**earlier["asked"], **changes}}
        self._documents.put(ALL, _key(_of(earlier), earlier["name"]), job)
        return job

    def _again(self, earlier: Document, subject: str, run_key: str, asked: Json, claims: Claims) -> None:
        self._cloud.ledger.record(
            SERVICE, "create job", subject, run_key, earlier["name"], asked, asked_by=claims.get("appid"),
            first=earlier["entry"],
        )  # fmt: skip

    def _advance(self, key: str) -> None:
        actions: list[Callable[[], None]] = []
        with self._cloud.transaction():
            job = self._documents.get(ALL, key)
            if job is not None and job["status"] not in DONE:
                before = repr(job)
                self._move(job, actions)
                if job.get("vanished"):
                    self._documents.delete(ALL, key)
                elif repr(job) != before:
                    self._documents.put(ALL, key, job)
        if job is None or job["status"] in DONE:
            with self._lock:
                self._active.discard(key)
        for act in actions:  # after the commit; what is not done because the process dies is found again
            act()

    def _move(self, job: Document, actions: list[Callable[[], None]]) -> None:
        if job.get("fault"):
            self._meet_its_fate(job)
            return
        status = self._compute.status(job["run"])
        if status is None:
            if job["stop"]:
                self._end(job, "Canceled", None)
                return
            kind = _TYPES[job["asked"]["jobType"]]
            try:
                wanted = kind.work(self._cloud, _of(job), job["name"], job["run"], job["asked"])
            except ApiError as error:  # an asset or datastore that was there when the job was asked for
                self._end(job, "Failed", error.message)
                return
            job["status"] = "Starting"
            actions.append(lambda: self._compute.submit(job["run"], wanted))
        elif status.state == "ended":
            job["started"], job["ended"] = status.started_at, status.ended_at
            self._end(job, *outcome(status, azure_ml_command.timeout(job["asked"])))
        elif job["stop"]:
            actions.append(lambda: self._compute.stop(job["run"]))
        elif status.state == "queued":
            job["status"] = "Queued"
        else:
            job["status"], job["started"] = "Running", status.started_at

    def _meet_its_fate(self, job: Document) -> None:
        """Move a job on that does nothing: it is going on, then it is cancelled, fails or is gone."""
        fate = run_faults.state(job)
        if job["stop"]:
            self._end(job, "Canceled", None)
        elif fate == "in progress":
            job["status"], job["started"] = "Running", job["started"] or time.time()
        elif fate == "fails":
            self._end(job, "Failed", run_faults.MESSAGE)
        else:
            job["vanished"] = True
            self._end(job, "Canceled", "it vanished")

    def _end(self, job: Document, status: str, error: str | None) -> None:
        job["status"], job["error"] = status, error
        job["ended"] = job["ended"] or time.time()
        self._cloud.ledger.finish(job["entry"], status, error or "")


def outcome(status: Status, limit: float) -> tuple[str, str | None]:
    """The job's last status and its error, from how its run ended."""
    if status.succeeded:
        return "Completed", None
    match status.reason:
        case "canceled":
            return "Canceled", None
        case "timeout":  # the service cancels a job whose time is over
            return "Canceled", f"The job exceeded its limit of {limit:g} seconds and was canceled."
        case "setup":
            return "Failed", f"Inputs or code could not be prepared: {status.error}"
        case "lost" | "killed":
            return "Failed", status.error or "The job's process was ended from outside."
    why = f" {status.error}" if status.error else ""
    return "Failed", f"Execution failed. User process exited with status code {status.exit_code}.{why}"


def view(job: Document, port: int) -> Json:
    """A job as the management API shows it."""
    workspace = _of(job)
    asked = job["asked"]
    page = f"https://127.0.0.1:{port}/azureml/runs/{job['name']}?wsid={workspace.id}"
    tracking = {
        "jobServiceType": "Tracking",
        "endpoint": f"azureml://{workspace.id}",
        "status": None,
        "properties": None,
    }
    studio = {"jobServiceType": "Studio", "endpoint": page, "status": None, "properties": None}
    return {
        "id": f"{workspace.id}/jobs/{job['name']}",
        "name": job["name"],
        "type": "Microsoft.MachineLearningServices/workspaces/jobs",
        "properties": {
            "tags": {},
            "properties": {},
            "experimentName": "Default",
            "displayName": job["name"],
            "isArchived": False,
            **asked,
            "status": job["status"],
            "services": {"Tracking": tracking, "Studio": studio},
            "startTimeUtc": iso(job["started"]) if job["started"] else None,
            "endTimeUtc": iso(job["ended"]) if job["ended"] else None,
        },
        "systemData": job["systemData"],
    }


def jobs_of(cloud: Cloud) -> Jobs:
    """The jobs of a cloud's workspaces."""
    return Jobs(cloud, cloud.one(Compute))


def _of(job: Document) -> Workspace:
    return Workspace(job["subscription"], job["group"], job["workspace"])


def _key(workspace: Workspace, name: str) -> str:
    return f"{workspace.group}/{workspace.name}".lower() + f"/{name}"


def _fixed(asked: Json) -> Json:
    """What cannot change about a job once it is asked for."""
    return {name: value for name, value in asked.items() if name not in UPDATABLE and value not in (None, {}, [])}
